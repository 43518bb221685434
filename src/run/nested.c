#include "nested.h"

#include <string.h>

#include "../base/alloc.h"
#include "../base/compiler.h"
#include "../codec/payload.h"
#include "far.h"
#include "phase.h"
#include "pump.h"
#include "supervisor.h"
#include "upcall.h"

/* A process names its calls by the numbers of its jobs: so many has none. */
#define NUMBERS (1u << 24)

void tdl_nested_init(tdl_nested *n) {
  memset(n, 0, sizeof(*n));
  n->late_end = &n->late;
  tdl_bytes_init(&n->text, NULL, 0);
}

static void forget(tdl_bytes *bytes) {
  tdl_payload_clear(bytes);
  tdl_bytes_reset(bytes, NULL, 0);
}

static void free_blocks(tdl_nested *n) {
  for (uint32_t i = 0; i < n->block_count; i++) {
    for (uint32_t k = 0; n->blocks[i] != NULL && k < TDL_NESTED_ENTRIES; k++) {
      forget(&n->blocks[i][k].bytes);
    }
    tdl_free(n->blocks[i]);
  }
  tdl_free(n->blocks);
}

void tdl_nested_fini(tdl_nested *n) {
  free_blocks(n);
  tdl_bytes_reset(&n->text, NULL, 0);
}

void tdl_nested_lose(tdl_keeper *k) {
  tdl_nested_fini(&k->nested);
  tdl_nested_init(&k->nested);
}

/* --- places (X2) ----------------------------------------------------------- */

/* NULL: it was never used. */
static tdl_nested_call *find(const tdl_nested *n, uint32_t number) {
  uint32_t block = number / TDL_NESTED_ENTRIES;
  return block < n->block_count && n->blocks[block] != NULL
             ? &n->blocks[block][number % TDL_NESTED_ENTRIES]
             : NULL;
}

static int grow(tdl_nested *n, uint32_t block) {
  uint32_t count = n->block_count == 0 ? 16 : n->block_count;
  tdl_nested_call **blocks;
  while (count <= block) {
    count *= 2;
  }
  blocks = tdl_realloc(n->blocks, count * sizeof(*blocks));
  if (blocks == NULL) {
    return 0;
  }
  memset(&blocks[n->block_count], 0,
         (count - n->block_count) * sizeof(*blocks));
  n->blocks = blocks;
  n->block_count = count;
  return 1;
}

/* NULL without memory. */
static tdl_nested_call *need(tdl_keeper *k, uint32_t number) {
  tdl_nested *n = &k->nested;
  uint32_t block = number / TDL_NESTED_ENTRIES;
  tdl_nested_call *call = find(n, number);
  if (call != NULL) {
    return call;
  }
  if (block >= n->block_count && !grow(n, block)) {
    return NULL;
  }
  n->blocks[block] = tdl_calloc(TDL_NESTED_ENTRIES * sizeof(*call));
  for (uint32_t i = 0; n->blocks[block] != NULL && i < TDL_NESTED_ENTRIES;
       i++) {
    call = &n->blocks[block][i];
    call->keeper = k;
    call->number = block * TDL_NESTED_ENTRIES + i;
    tdl_bytes_init(&call->bytes, NULL, 0);
  }
  return find(n, number);
}

/* --- answers (X3) ---------------------------------------------------------- */

/* 0: there is no room. */
static int put(tdl_keeper *k, uint32_t number, int status, uint16_t worker,
               const tdl_bytes *bytes) {
  tdl_record head = {.kind = TDL_FAR_ANSWER,
                     .ticket = number,
                     .status = (int16_t)status,
                     .task = worker};
  int done = tdl_pump_put(k, &head, bytes);
  if (done == TREADLE_EPAYLOAD || done == TREADLE_ENOMEM) {
    head.status = (int16_t)done;
    done = tdl_pump_put(k, &head, NULL);
  }
  return done != 0;
}

/* The lock is ours; takes the payload if that has to wait, and without memory for
** it brings nothing. */
static void answer(tdl_nested_call *call, int status, uint16_t worker,
                   tdl_bytes *bytes) {
  tdl_keeper *k = call->keeper;
  tdl_nested *n = &k->nested;
  call->job = NULL;
  if (n->late == NULL && put(k, call->number, status, worker, bytes)) {
    return;
  }
  if (bytes != NULL &&
      tdl_bytes_append(&call->bytes, bytes->data, bytes->len) != 0) {
    status = TREADLE_ENOMEM;
  } else if (bytes != NULL) {
    bytes->len = 0; /* what it refers to is ours */
  }
  call->status = (int16_t)status;
  call->worker = worker;
  call->is_late = 1;
  call->next = NULL;
  *n->late_end = call;
  n->late_end = &call->next;
}

uint32_t tdl_nested_answer(tdl_keeper *k) {
  tdl_nested *n = &k->nested;
  tdl_nested_call *call;
  uint32_t count = 0;
  while ((call = n->late) != NULL &&
         put(k, call->number, call->status, call->worker, &call->bytes)) {
    n->late = call->next;
    n->late_end = n->late == NULL ? &n->late : n->late_end;
    call->is_late = 0;
    forget(&call->bytes);
    count++;
  }
  return count;
}

/* The job of a call is over. */
static void on_end(tdl_job *job, int status, const tdl_bytes *bytes,
                   void *ctx) {
  tdl_nested_call *call = ctx;
  tdl_keeper *k = call->keeper;
  const char *reason = tdl_pool_reason(k->worker->pool);
  tdl_bytes *payload = bytes == NULL ? NULL : &job->bytes, text;
  tdl_bytes_init(&text, NULL, 0);
  if (status == TREADLE_ECLOSED && reason != NULL &&
      (bytes == NULL || bytes->len == 0)) {
    tdl_payload_set_text(&text, reason);
    payload = &text;
  }
  tdl_pump_lock(k);
  answer(call, status, job->away ? 0 : job->worker, payload);
  tdl_pump_unlock(k);
  tdl_bytes_reset(&text, NULL, 0);
}

/* --- calls ----------------------------------------------------------------- */

static int is_place(const treadle_pool *pool, int place) {
  return place > 0 ? (uint32_t)place <= tdl_pool_slots(pool)
                   : place == -TDL_RANK_NORMAL || place == -TDL_RANK_HIGH ||
                         place == -TDL_RANK_LOW;
}

/* 0, with the job prepared; TREADLE_ENOMEM; or TREADLE_EINVAL: nonsense. */
static int make_job(tdl_nested_call *call, const tdl_record *head,
                    const uint8_t *data) {
  tdl_worker *w = call->keeper->worker;
  treadle_pool *pool = w->pool;
  tdl_job *job = tdl_jobs_take(&w->loop.jobs, &w->loop);
  if (job == NULL) {
    return TREADLE_ENOMEM;
  }
  job->done = on_end;
  job->ctx = call;
  job->deadline_ns = head->when;
  tdl_job_set_task(job, head->task);
  if (tdl_bytes_append(&job->bytes, data, head->len) != 0) {
    tdl_jobs_give(&w->loop.jobs, job);
    return TREADLE_ENOMEM;
  }
  if (head->len > 0 && (job->bytes.data[0] & TDL_WIRE_THINGS)) {
    int status = tdl_crossing_read(call->keeper->crossing, &job->bytes);
    if (status != 0) {
      tdl_jobs_give(&w->loop.jobs, job);
      return status;
    }
  }
  if ((head->status < 0 && tdl_backlog_rank(&pool->run) != 0) ||
      tdl_pool_prepare(pool, job) != 0) {
    tdl_jobs_give(&w->loop.jobs, job);
    return TREADLE_ENOMEM;
  }
  call->job = job;
  return 0;
}

/* The lock is ours, which feeding only tries. */
static void submit(tdl_job *job, int place) {
  if (place > 0) {
    tdl_pool_submit_to(job, (uint32_t)place);
  } else {
    tdl_pool_submit_ranked(job, (enum tdl_rank)(-place));
  }
}

static int take_call(tdl_keeper *k, const tdl_record *head,
                     const uint8_t *data) {
  tdl_nested_call *call;
  int status;
  if (head->ticket == 0 || head->ticket >= NUMBERS || head->task > k->tasks ||
      !is_place(k->worker->pool, head->status)) {
    return 0;
  }
  call = need(k, head->ticket); /* without, there is none for an answer */
  if (call == NULL || call->job != NULL || call->is_late) {
    return 0;
  }
  status = make_job(call, head, data);
  if (status != 0) {
    answer(call, status, 0, NULL);
    return status != TREADLE_EINVAL;
  }
  submit(call->job, head->status);
  return 1;
}

/* As tdl_pool_settle, or by force; the lock is ours. */
static int cancel(tdl_keeper *k, tdl_job *job, int force) {
  int settled = force ? tdl_supervisor_force(job)
                      : tdl_pool_settle_use(job, tdl_job_generation(job),
                                            TDL_JOB_CANCELLED);
  if (settled != 0) {
    tdl_pump_recall(k->worker->pool, 0);
  }
  return settled;
}

/* Its answer may be on its way. What is over without an answer, since the job was
** settled, is answered when the job comes home (J6). */
static int take_cancel(tdl_keeper *k, const tdl_record *head,
                       const uint8_t *data) {
  tdl_nested_call *call = find(&k->nested, head->ticket);
  char reason[TDL_LINE_TEXT_BYTES];
  size_t len = head->len < sizeof(reason) ? head->len : sizeof(reason) - 1;
  if (call == NULL || call->job == NULL || tdl_job_is_settled(call->job)) {
    return 1;
  }
  memcpy(reason, data, len);
  reason[len] = '\0';
  tdl_job_set_reason(call->job, reason);
  call->job->awaited = cancel(k, call->job, head->status != 0) != 0;
  return 1;
}

/* --- the pool -------------------------------------------------------------- */

static int take_question(tdl_keeper *k, const tdl_record *head,
                         const uint8_t *data) {
  tdl_nested *n = &k->nested;
  n->what = head->task;
  n->number = head->when;
  n->text.len = 0;
  n->is_asked = 1;
  if (tdl_bytes_append(&n->text, data, head->len) != 0 ||
      tdl_bytes_append(&n->text, "", 1) != 0) {
    n->text.len = 0; /* without a reason, then */
  }
  return head->task >= TDL_ASK_CLOSE && head->task <= TDL_ASK_RESIZE;
}

static int64_t cancel_pending(treadle_pool *pool, tdl_bytes *text) {
  text->len -= text->len > 0; /* its 0 */
  if (text->len > 0 && (text->data[0] & TDL_WIRE_THINGS)) {
    text->len = 0;
  }
  return tdl_pool_cancel_pending(pool, text);
}

/* A process that is confined starts no workers. */
static int64_t resize(treadle_pool *pool, uint64_t number) {
  uint32_t min = (uint32_t)(number >> 32), max = (uint32_t)number;
  if (!pool->trusts_code) {
    return TREADLE_EPERMISSION;
  }
  return max < 1 || min > max || max > TDL_POOL_MAX_WORKERS
             ? TREADLE_EINVAL
             : tdl_size_set(pool, min, max);
}

static void do_as_asked(tdl_keeper *k) {
  tdl_nested *n = &k->nested;
  treadle_pool *pool = k->worker->pool;
  int64_t value;
  switch (n->what) {
  case TDL_ASK_CLOSE:
    tdl_pool_stop(pool, TDL_POOL_DRAINING);
    break;
  case TDL_ASK_TERMINATE:
    if (n->text.len > 1) {
      tdl_pool_set_reason(pool, (const char *)n->text.data);
    }
    tdl_pool_stop(pool, TDL_POOL_STOPPED);
    tdl_pool_force(pool, TDL_STOP_GRACE_NS);
    break;
  case TDL_ASK_CANCEL_PENDING:
    tdl_link_reply(&k->link, cancel_pending(pool, &n->text));
    break;
  case TDL_ASK_RENEW:
    tdl_pool_recycle(pool);
    break;
  default:
    value = resize(pool, n->number);
    tdl_pump_tell_pool(k);
    tdl_link_reply(&k->link, value);
    break;
  }
}

/* --- records --------------------------------------------------------------- */

int tdl_nested_hear(tdl_keeper *k, const tdl_record *head,
                    const uint8_t *data) {
  switch (head->kind) {
  case TDL_FAR_NESTED:
    return take_call(k, head, data);
  case TDL_FAR_CANCEL:
    return take_cancel(k, head, data);
  case TDL_FAR_ASK:
    return take_question(k, head, data);
  default:
    return 0;
  }
}

void tdl_nested_go_on(tdl_keeper *k) {
  tdl_nested *n = &k->nested;
  if (n->is_asked) {
    n->is_asked = 0;
    do_as_asked(k);
  }
}

int tdl_nested_is_busy(tdl_keeper *k) {
  const tdl_jobs *jobs = &k->worker->loop.jobs;
  const tdl_job *job = tdl_jobs_next(jobs, NULL);
  while (job != NULL && tdl_job_is_settled(job)) {
    job = tdl_jobs_next(jobs, job); /* it may never come home */
  }
  return job != NULL || k->nested.late != NULL;
}
