/* What treadle.h promises to C programs of loops and pools. */
#include "embed.h"

#include <stdio.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "../codec/payload.h"
#include "known.h"
#include "news.h"
#include "phase.h"
#include "sight.h"
#include "worker.h"

/* --- loops ---------------------------------------------------------------- */

const char *treadle_status_text(int status) {
  return tdl_status_text(status);
}

const char *treadle_status_kind(int status) {
  return tdl_status_kind(status);
}

int treadle_loop_open(treadle_loop **out) {
  return tdl_loop_new(out);
}

void treadle_loop_close(treadle_loop *loop) {
  if (loop->scripted) { /* the state's */
    return;
  }
  tdl_loop_disarm(loop);
  tdl_loop_dispatch(loop); /* last notes of pools that were given up */
  tdl_loop_drop(loop);
}

int treadle_poll(treadle_loop *loop, double timeout) {
  uint32_t n;
  if (loop->scripted) {
    return TREADLE_EINVAL;
  }
  tdl_loop_disarm(loop);
  n = tdl_loop_dispatch(loop);
  if (n == 0 && timeout != 0) {
    tdl_loop_wait(loop, timeout < 0 ? TDL_NEVER : tdl_seconds_ns(timeout));
    n = tdl_loop_dispatch(loop);
  }
  return (int)n;
}

int treadle_poll_for(treadle_loop *loop, double budget) {
  if (loop->scripted) {
    return TREADLE_EINVAL;
  }
  tdl_loop_disarm(loop);
  return (int)tdl_loop_dispatch_until(loop,
                                      tdl_now_ns() + tdl_seconds_ns(budget));
}

int treadle_ready(const treadle_loop *loop) {
  return tdl_loop_is_ready(loop);
}

double treadle_next_timeout(const treadle_loop *loop) {
  uint64_t ns = tdl_loop_next_ns(loop);
  return ns == TDL_NEVER ? -1 : (double)ns * 1e-9;
}

void treadle_wake(treadle_loop *loop) {
  tdl_loop_ring(loop);
}

int treadle_fd(treadle_loop *loop) {
  return tdl_loop_fd(loop);
}

int treadle_arm(treadle_loop *loop) {
  int fd = loop->scripted ? TREADLE_EINVAL : tdl_loop_fd(loop);
  return fd < 0 ? fd : tdl_loop_arm(loop);
}

/* --- options -------------------------------------------------------------- */

/* The first option that is none, with why; NULL when all are fine. */
static const char *find_fault(const treadle_pool_options *o) {
  const double times[] = {o->idle_timeout, o->timeout, o->terminate_timeout};
  if (o->module == NULL || o->module[0] == 0) {
    return "module: a name is needed";
  }
  for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
    if (!(times[i] >= 0)) {
      return "idle_timeout, timeout, terminate_timeout: seconds, not below 0";
    }
  }
  if (o->threads != 0 && (o->min_threads != 0 || o->max_threads != 0)) {
    return "threads: a fixed size, without min_threads and max_threads";
  }
  if (o->min_threads > o->max_threads) {
    return "min_threads: at most max_threads";
  }
  if (o->threads > TDL_POOL_MAX_WORKERS ||
      o->max_threads > TDL_POOL_MAX_WORKERS) {
    return "threads, max_threads: too many";
  }
  if (o->max_payload > TDL_PAYLOAD_CEILING_BYTES) {
    return "max_payload: less than 2 GiB";
  }
  if (o->max_queue != TREADLE_NO_QUEUE && o->max_queue >= TDL_POOL_NO_LIMIT) {
    return "max_queue: too large";
  }
  return NULL;
}

static void shape(const treadle_pool_options *from, tdl_pool_options *to) {
  unsigned threads =
      from->threads != 0 ? from->threads : (unsigned)tdl_spin_cores();
  to->name = from->name != NULL ? from->name : from->module;
  to->min_threads = from->max_threads != 0 ? from->min_threads : threads;
  to->max_threads = from->max_threads != 0 ? from->max_threads : threads;
  to->idle_ns =
      from->idle_timeout > 0 ? tdl_seconds_ns(from->idle_timeout) : TDL_NEVER;
  to->concurrency =
      from->isolate || from->concurrency == 0 ? 1 : from->concurrency;
  to->max_payload = from->max_payload != 0 ? (uint32_t)from->max_payload
                                           : TDL_PAYLOAD_MAX_BYTES;
  to->max_queue = from->max_queue == 0 ? TDL_POOL_NO_LIMIT
                  : from->max_queue == TREADLE_NO_QUEUE
                      ? 0
                      : (uint32_t)from->max_queue;
  to->terminate_ns = from->terminate_timeout > 0
                         ? tdl_seconds_ns(from->terminate_timeout)
                         : TDL_POOL_TERMINATE_NS;
  to->recycle_after = from->isolate ? 1 : from->recycle_after;
  to->recycle_bytes = from->recycle_memory;
  to->cap_bytes = from->max_memory;
}

typedef struct text_field {
  const char *key, *text;
  size_t length;
} text_field;

/* The same table that lua/treadle/opening.lua sends. */
static int write_boot(tdl_bytes *boot, const treadle_pool_options *o,
                      const char *name) {
  const text_field fields[] = {
      {"module", o->module, 0},
      {"source", o->source, o->source_length},
      {"name", name, 0},
      {"path", o->path, 0},
      {"cpath", o->cpath, 0},
      {"init", o->init, 0},
      {"teardown", o->teardown, 0},
      {"jit", o->jit, 0},
  };
  const size_t count = sizeof(fields) / sizeof(fields[0]);
  treadle_writer w = {.things = NULL};
  unsigned n = o->data != NULL;
  int status;
  for (size_t i = 0; i < count; i++) {
    n += fields[i].text != NULL;
  }
  tdl_embed_begin(&w, boot, TDL_PAYLOAD_CEILING_BYTES, 1);
  treadle_put_table(&w, 0, n);
  if (o->data != NULL) { /* first: see tdl_embed_put_all */
    treadle_put_text(&w, "data");
    tdl_embed_put_all(&w, o->data);
  }
  for (size_t i = 0; i < count; i++) {
    const text_field *f = &fields[i];
    if (f->text != NULL) {
      treadle_put_text(&w, f->key);
      treadle_put_string(&w, f->text,
                         f->length != 0 ? f->length : strlen(f->text));
    }
  }
  status = tdl_embed_end(&w);
  tdl_embed_fini(&w);
  return status;
}

/* --- pools ---------------------------------------------------------------- */

/* What a C program's pool has beside the pool: pool->ctx. */
typedef struct embedded_pool {
  int status; /* 1 until the first worker has reported */
  int closed;
  double timeout; /* of its options; below 0: none */
  char *error;
  size_t error_size;
} embedded_pool;

static void tell(const embedded_pool *e, const char *text, size_t length) {
  if (e->error != NULL && e->error_size > 0) {
    size_t n = length < e->error_size ? length : e->error_size - 1;
    memcpy(e->error, text, n);
    e->error[n] = 0;
  }
}

static void tell_status(const embedded_pool *e, int status) {
  const char *text = tdl_status_text(status);
  tell(e, text, strlen(text));
}

static void read_error(embedded_pool *e, const tdl_bytes *report) {
  treadle_values values;
  treadle_error error;
  tdl_embed_open(report, &values);
  treadle_read_error(e->status, &values, &error);
  tell(e, error.message, error.message_length);
}

static void on_event(treadle_pool *pool, tdl_pool_event event, uint32_t worker,
                     const tdl_bytes *bytes, void *ctx) {
  embedded_pool *e = ctx;
  (void)worker;
  switch (event) {
  case TDL_POOL_STARTED:
    if (e->status == 1) {
      e->status = tdl_known_read(bytes, e->timeout, &pool->known);
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

static int open_pool(treadle_loop *loop, const treadle_pool_options *options,
                     embedded_pool *e, treadle_pool **out) {
  tdl_pool_options o = {.event = on_event, .ctx = e};
  const char *fault =
      loop->scripted ? "loop: a Lua state's" : find_fault(options);
  tdl_bytes boot;
  int status;
  if (fault != NULL) {
    tell(e, fault, strlen(fault));
    e->error = NULL;
    return TREADLE_EINVAL;
  }
  shape(options, &o);
  tdl_bytes_init(&boot, NULL, 0);
  o.boot = &boot;
  status = write_boot(&boot, options, o.name);
  if (status == 0) {
    status = tdl_pool_open(loop, &o, out);
  }
  tdl_payload_clear(&boot);
  tdl_bytes_reset(&boot, NULL, 0);
  return status;
}

int treadle_pool_open(treadle_loop *loop, const treadle_pool_options *options,
                      treadle_pool **out, char *error, size_t error_size) {
  const embedded_pool begin = {.status = 1,
                               .timeout =
                                   options->timeout > 0 ? options->timeout : -1,
                               .error = error,
                               .error_size = error_size};
  embedded_pool *e = tdl_calloc(sizeof(*e));
  treadle_pool *pool = NULL;
  int status;
  if (e == NULL) {
    tell_status(&begin, TREADLE_ENOMEM);
    return TREADLE_ENOMEM;
  }
  *e = begin;
  status = open_pool(loop, options, e, &pool);
  if (status != 0) {
    tell_status(e, status);
    tdl_free(e);
    return status;
  }
  while (e->status == 1) {
    treadle_poll(loop, -1);
  }
  if (e->status != 0) {
    status = e->status;
    if (status != TREADLE_ELOAD) {
      tell_status(e, status);
    }
    e->error = NULL;
    treadle_pool_terminate(pool);
    return status;
  }
  e->error = NULL;
  *out = pool;
  return 0;
}

int treadle_pool_task(const treadle_pool *pool, const char *name) {
  const tdl_known *known = pool->known;
  for (uint32_t i = 0; i < known->count; i++) {
    if (strcmp(known->tasks[i].name, name) == 0) {
      return (int)i + 1;
    }
  }
  return TREADLE_EINVAL;
}

int treadle_pool_task_count(const treadle_pool *pool) {
  return (int)pool->known->count;
}

const char *treadle_pool_task_name(const treadle_pool *pool, int task) {
  return task >= 1 && (uint32_t)task <= pool->known->count
             ? pool->known->tasks[task - 1].name
             : NULL;
}

void treadle_pool_stats(const treadle_pool *pool, treadle_stats *out) {
  tdl_stats_counts c;
  tdl_sight_tally(pool);
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

size_t treadle_pool_room(treadle_pool *pool) {
  int64_t room = tdl_pool_room(pool);
  if (room <= 0) {
    room = tdl_pool_want_room(pool);
  }
  if (room == INT64_MAX || tdl_pool_phase(pool) != TDL_POOL_OPEN) {
    return (size_t)-1;
  }
  return room > 0 ? (size_t)room : 0;
}

void treadle_pool_recycle(treadle_pool *pool) {
  tdl_pool_recycle(pool);
}

unsigned treadle_pool_cancel_pending(treadle_pool *pool, const char *reason) {
  treadle_writer w = {.things = NULL};
  tdl_bytes report;
  unsigned n;
  tdl_bytes_init(&report, NULL, 0);
  tdl_embed_begin(&w, &report, TDL_PAYLOAD_CEILING_BYTES, reason != NULL);
  if (reason != NULL) {
    treadle_put_text(&w, reason);
  }
  tdl_embed_end(&w); /* without memory there is no reason */
  n = tdl_pool_cancel_pending(pool, &report);
  tdl_bytes_reset(&report, NULL, 0);
  return n;
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
  tdl_free(e);
  tdl_pool_drop(pool);
}

static void terminate(treadle_pool *pool) {
  tdl_pool_terminate(pool);
  if (!wait_closed(pool, pool->terminate_ns)) {
    tdl_pool_abandon(pool);
    tdl_loop_dispatch(pool->home); /* its last notes */
  }
  free_pool(pool);
}

/* Its end is the script's to call and to hear of: pool->ctx is no
** embedded_pool. */
static int is_scripts(const treadle_pool *pool) {
  return pool->home->scripted;
}

int treadle_pool_terminate(treadle_pool *pool) {
  if (is_scripts(pool)) {
    return TREADLE_EINVAL;
  }
  terminate(pool);
  return 0;
}

int treadle_pool_close(treadle_pool *pool, double timeout) {
  if (is_scripts(pool)) {
    return TREADLE_EINVAL;
  }
  tdl_pool_stop(pool, TDL_POOL_DRAINING);
  if (wait_closed(pool, timeout < 0 ? TDL_NEVER : tdl_seconds_ns(timeout))) {
    free_pool(pool);
  } else {
    terminate(pool);
  }
  return 0;
}
