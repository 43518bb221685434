/* What treadle.h promises to C programs. A call is a job; its bytes are
** written and read with the wire format's own functions. */
#include <stdio.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "../codec/reader.h"
#include "../codec/writer.h"
#include "phase.h"
#include "worker.h"

/* How long a pool that is terminated waits for its threads. */
#define TERMINATE_NS 5000000000u

/* --- loops ---------------------------------------------------------------- */

const char *treadle_status_text(int status) {
  return tdl_status_text(status);
}

int treadle_loop_open(treadle_loop **out) {
  return tdl_loop_new(out);
}

void treadle_loop_close(treadle_loop *loop) {
  tdl_loop_disarm(loop);
  tdl_loop_dispatch(loop); /* last notes of pools that were given up */
  tdl_loop_drop(loop);
}

int treadle_poll(treadle_loop *loop, double timeout) {
  uint32_t n;
  tdl_loop_disarm(loop);
  n = tdl_loop_dispatch(loop);
  if (n == 0 && timeout != 0) {
    tdl_loop_wait(loop, timeout < 0 ? TDL_NEVER : tdl_seconds_ns(timeout));
    n = tdl_loop_dispatch(loop);
  }
  return (int)n;
}

int treadle_fd(treadle_loop *loop) {
  return tdl_loop_fd(loop);
}

int treadle_arm(treadle_loop *loop) {
  int fd = tdl_loop_fd(loop);
  return fd < 0 ? fd : tdl_loop_arm(loop);
}

/* --- pools ---------------------------------------------------------------- */

/* What a C program's pool has beside the pool: pool->ctx. */
typedef struct embedded_pool {
  int status; /* 1 until the first worker has reported */
  int closed;
  char **names; /* of the tasks, from number 1 */
  uint32_t count;
  char *error;
  size_t error_size;
} embedded_pool;

static void put_field(tdl_writer *w, const char *key, const char *value) {
  tdl_put_string(w, key, strlen(key));
  tdl_put_string(w, value, strlen(value));
}

/* The same table that lua/treadle/opening.lua sends. */
static int write_boot(tdl_bytes *boot, const treadle_pool_options *o,
                      const char *name) {
  tdl_writer w;
  uint32_t fields = 2u + (o->path != NULL) + (o->cpath != NULL);
  tdl_put_begin(&w, boot, TDL_PAYLOAD_CEILING_BYTES, 1);
  tdl_put_table(&w, 0, fields);
  put_field(&w, "module", o->module);
  put_field(&w, "name", name);
  if (o->path != NULL) {
    put_field(&w, "path", o->path);
  }
  if (o->cpath != NULL) {
    put_field(&w, "cpath", o->cpath);
  }
  return tdl_put_end(&w);
}

/* The report's first value is the list of the tasks' names. */
static int read_names(embedded_pool *e, const tdl_bytes *report) {
  tdl_reader r;
  tdl_item item;
  uint32_t count;
  uint8_t flags;
  if (tdl_get_begin(&r, report->data, report->len, &count, &flags) != 0 ||
      tdl_get_value(&r, &item) != 0 || item.kind != TDL_ITEM_TABLE) {
    return TREADLE_EPAYLOAD;
  }
  count = item.n;
  e->names = tdl_calloc((count + 1) * sizeof(*e->names));
  if (e->names == NULL) {
    return TREADLE_ENOMEM;
  }
  for (uint32_t i = 1; i <= count; i++) {
    if (tdl_get_value(&r, &item) != 0 || item.kind != TDL_ITEM_STRING) {
      return TREADLE_EPAYLOAD;
    }
    e->names[i - 1] = tdl_calloc((size_t)item.n + 1);
    if (e->names[i - 1] == NULL) {
      return TREADLE_ENOMEM;
    }
    memcpy(e->names[i - 1], item.string, item.n);
    e->count = i;
  }
  return 0;
}

static void read_error(embedded_pool *e, const tdl_bytes *report) {
  tdl_reader r;
  tdl_item item;
  uint32_t count;
  uint8_t flags;
  if (e->error != NULL && e->error_size > 0 &&
      tdl_get_begin(&r, report->data, report->len, &count, &flags) == 0 &&
      tdl_get_value(&r, &item) == 0 && item.kind == TDL_ITEM_STRING) {
    snprintf(e->error, e->error_size, "%.*s", (int)item.n, item.string);
  }
}

static void on_event(treadle_pool *pool, tdl_pool_event event, uint32_t worker,
                     const tdl_bytes *bytes, void *ctx) {
  embedded_pool *e = ctx;
  (void)worker;
  switch (event) {
  case TDL_POOL_STARTED:
    if (e->status == 1) {
      e->status = read_names(e, bytes);
    }
    break;
  case TDL_POOL_FAILED:
    if (e->status == 1) {
      e->status = bytes->len > 0 ? TREADLE_ELOAD : TREADLE_ENOMEM;
      read_error(e, bytes);
    } else {
      tdl_pool_terminate(pool);
    }
    break;
  case TDL_POOL_CUT_OFF:
    if (e->status == 1) {
      e->status = TREADLE_ECLOSED;
    }
    break;
  case TDL_POOL_RENEWED:
  case TDL_POOL_LEFT:
  case TDL_POOL_EXITED:
  case TDL_POOL_HEARD:
  case TDL_POOL_ROOM:
  case TDL_POOL_CALM:
  case TDL_POOL_SETTLED:
  case TDL_POOL_COUNTS:
  case TDL_POOL_SAID:
    break;
  case TDL_POOL_CLOSED:
    e->closed = 1;
    break;
  }
}

static void free_embedded(embedded_pool *e) {
  for (uint32_t i = 0; i < e->count; i++) {
    tdl_free(e->names[i]);
  }
  tdl_free(e->names);
  tdl_free(e);
}

int treadle_pool_open(treadle_loop *loop, const treadle_pool_options *options,
                      treadle_pool **out, char *error, size_t error_size) {
  tdl_pool_options o = {0};
  tdl_bytes boot;
  embedded_pool *e;
  treadle_pool *pool = NULL;
  int status;
  if (options->module == NULL ||
      options->max_payload > TDL_PAYLOAD_CEILING_BYTES) {
    return TREADLE_EINVAL;
  }
  e = tdl_calloc(sizeof(*e));
  if (e == NULL) {
    return TREADLE_ENOMEM;
  }
  e->status = 1;
  e->error = error;
  e->error_size = error_size;
  o.name = options->name != NULL ? options->name : options->module;
  o.min_threads =
      options->threads != 0 ? options->threads : (uint32_t)tdl_spin_cores();
  o.max_threads = o.min_threads;
  o.idle_ns = options->idle_timeout > 0 ? tdl_seconds_ns(options->idle_timeout)
                                        : TDL_NEVER;
  o.concurrency = options->concurrency != 0 ? options->concurrency : 1;
  o.max_payload = options->max_payload != 0 ? (uint32_t)options->max_payload
                                            : TDL_PAYLOAD_MAX_BYTES;
  o.terminate_ns = TDL_POOL_TERMINATE_NS;
  o.max_queue = TDL_POOL_NO_LIMIT;
  o.event = on_event;
  o.ctx = e;
  tdl_bytes_init(&boot, NULL, 0);
  o.boot = &boot;
  status = write_boot(&boot, options, o.name);
  if (status == 0) {
    status = tdl_pool_open(loop, &o, &pool);
  }
  tdl_bytes_reset(&boot, NULL, 0);
  if (status != 0) {
    free_embedded(e);
    return status;
  }
  while (e->status == 1) {
    treadle_poll(loop, -1);
  }
  e->error = NULL;
  if (e->status != 0) {
    status = e->status;
    treadle_pool_terminate(pool);
    return status;
  }
  *out = pool;
  return 0;
}

int treadle_pool_task(const treadle_pool *pool, const char *name) {
  const embedded_pool *e = pool->ctx;
  for (uint32_t i = 0; i < e->count; i++) {
    if (strcmp(e->names[i], name) == 0) {
      return (int)i + 1;
    }
  }
  return TREADLE_EINVAL;
}

void treadle_pool_stats(const treadle_pool *pool, treadle_stats *out) {
  tdl_stats_counts c;
  tdl_stats_read(pool->stats, &c);
  out->submitted = c.submitted;
  out->queued = c.queued;
  out->running = c.running;
  out->done = c.done;
  out->failed = c.failed;
  out->cancelled = c.cancelled;
  out->restarts = c.restarts;
  out->written_off = c.written_off;
  out->uptime = (double)c.uptime_ns / 1e9;
  out->utilisation = tdl_stats_share(c.busy_ns, c.alive_ns);
}

int treadle_pool_resize(treadle_pool *pool, unsigned min, unsigned max) {
  return tdl_size_set(pool, min, max);
}

unsigned treadle_pool_size(const treadle_pool *pool) {
  return tdl_size_now(pool);
}

/* 1 when the threads have ended in time. */
static int wait_closed(treadle_pool *pool, uint64_t ns) {
  const embedded_pool *e = pool->ctx;
  uint64_t start = tdl_now_ns(), spent = 0;
  while (!e->closed && (ns == TDL_NEVER || spent < ns)) {
    tdl_loop_disarm(pool->home);
    if (tdl_loop_dispatch(pool->home) == 0) {
      tdl_loop_wait(pool->home, ns == TDL_NEVER ? ns : ns - spent);
    }
    spent = tdl_now_ns() - start;
  }
  return e->closed;
}

static void free_pool(treadle_pool *pool) {
  embedded_pool *e = pool->ctx;
  pool->ctx = NULL;
  free_embedded(e);
  tdl_pool_drop(pool);
}

void treadle_pool_terminate(treadle_pool *pool) {
  tdl_pool_terminate(pool);
  if (!wait_closed(pool, TERMINATE_NS)) {
    tdl_pool_abandon(pool);
    tdl_loop_dispatch(pool->home); /* its last notes */
  }
  free_pool(pool);
}

void treadle_pool_close(treadle_pool *pool, double timeout) {
  tdl_pool_stop(pool, TDL_POOL_DRAINING);
  if (wait_closed(pool, timeout < 0 ? TDL_NEVER : tdl_seconds_ns(timeout))) {
    free_pool(pool);
  } else {
    treadle_pool_terminate(pool);
  }
}

/* --- calls ---------------------------------------------------------------- */

struct treadle_call {
  tdl_job *job;
  tdl_writer writer;
  treadle_done done;
  void *ctx;
};

struct treadle_values {
  tdl_reader reader;
  uint32_t count;
};

int treadle_call_new(treadle_pool *pool, int task, unsigned count,
                     treadle_call **out) {
  const embedded_pool *e = pool->ctx;
  treadle_call *call;
  if (task < 1 || (uint32_t)task > e->count) {
    return TREADLE_EINVAL;
  }
  call = tdl_calloc(sizeof(*call));
  if (call == NULL) {
    return TREADLE_ENOMEM;
  }
  call->job = tdl_jobs_take(&pool->home->jobs, pool->home);
  if (call->job == NULL) {
    tdl_free(call);
    return TREADLE_ENOMEM;
  }
  call->job->pool = pool;
  tdl_job_set_task(call->job, (uint32_t)task);
  tdl_put_begin(&call->writer, &call->job->bytes, pool->max_payload, count);
  *out = call;
  return 0;
}

void treadle_call_drop(treadle_call *call) {
  tdl_jobs_give(&call->job->pool->home->jobs, call->job);
  tdl_free(call);
}

void treadle_put_nil(treadle_call *call) {
  tdl_put_nil(&call->writer);
}

void treadle_put_boolean(treadle_call *call, int value) {
  tdl_put_boolean(&call->writer, value);
}

void treadle_put_number(treadle_call *call, double value) {
  tdl_put_number(&call->writer, value);
}

void treadle_put_string(treadle_call *call, const char *s, size_t length) {
  tdl_put_string(&call->writer, s, length);
}

void treadle_put_int64(treadle_call *call, int64_t value) {
  tdl_put_int64(&call->writer, value);
}

void treadle_put_uint64(treadle_call *call, uint64_t value) {
  tdl_put_uint64(&call->writer, value);
}

void treadle_put_table(treadle_call *call, unsigned length, unsigned pairs) {
  tdl_put_table(&call->writer, length, pairs);
}

void treadle_put_numbers(treadle_call *call, const double *values,
                         unsigned length) {
  tdl_put_numbers(&call->writer, values, length);
}

static void on_done(tdl_job *job, int status, const tdl_bytes *bytes,
                    void *ctx) {
  treadle_call *call = ctx;
  treadle_values values = {{NULL, NULL}, 0};
  uint8_t flags;
  (void)job;
  if (bytes != NULL && bytes->len > 0) {
    tdl_get_begin(&values.reader, bytes->data, bytes->len, &values.count,
                  &flags);
  }
  if (call->done != NULL) {
    call->done(status, &values, call->ctx);
  }
  tdl_free(call);
}

int treadle_submit(treadle_call *call, double timeout, treadle_done done,
                   void *ctx) {
  tdl_job *job = call->job;
  int status = tdl_put_end(&call->writer);
  call->done = done;
  call->ctx = ctx;
  job->done = on_done;
  job->ctx = call;
  if (timeout >= 0) {
    job->deadline_ns = tdl_now_ns() + tdl_seconds_ns(timeout);
  }
  if (status == 0) {
    status = tdl_pool_prepare(job->pool, job);
  }
  if (status != 0) {
    treadle_call_drop(call);
    return status;
  }
  tdl_pool_submit(job);
  return 0;
}

int treadle_cancel(treadle_call *call) {
  tdl_job *job = call->job;
  if (!tdl_pool_settle(job, TDL_JOB_CANCELLED)) {
    return TREADLE_EINVAL;
  }
  on_done(job, TREADLE_ECANCELLED, NULL, call);
  return 0;
}

unsigned treadle_values_count(const treadle_values *values) {
  return values->count;
}

int treadle_get(treadle_values *values, treadle_value *out) {
  static const treadle_type types[] = {
      TREADLE_NIL,   TREADLE_BOOLEAN, TREADLE_NUMBER, TREADLE_STRING,
      TREADLE_TABLE, TREADLE_NUMBERS, TREADLE_INT64,  TREADLE_UINT64};
  tdl_item item;
  int status;
  if (values->reader.next == NULL) {
    return TREADLE_EPAYLOAD;
  }
  memset(&item, 0, sizeof(item));
  status = tdl_get_value(&values->reader, &item);
  if (status == 0) {
    out->type = types[item.kind];
    out->boolean = item.boolean;
    out->number = item.number;
    out->int64 = item.i64;
    out->uint64 = item.u64;
    out->string = item.kind == TDL_ITEM_NUMBERS
                      ? (const char *)(const void *)item.bytes
                      : item.string;
    out->length = item.n;
    out->pairs = item.pairs;
  }
  return status;
}
