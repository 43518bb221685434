/* What treadle.h promises to C programs of calls. A call is a job; its bytes are
** written and read with the wire format's own functions. */
#include "../base/alloc.h"
#include "../codec/payload.h"
#include "embed.h"
#include "keys.h"
#include "known.h"
#include "news.h"
#include "worker.h"

/* E2  The pool may be gone when a call comes home that it has refused: then the
**     job is all that is looked at. */
struct treadle_call {
  tdl_job *job;
  treadle_writer arguments;
  treadle_done done;
  void *ctx;
  const tdl_known_task *task;
  treadle_priority priority;
  int is_bound;    /* to a worker: */
  uint32_t worker; /* from 1 */
};

int treadle_call_new(treadle_pool *pool, int task, unsigned count,
                     treadle_call **out) {
  const tdl_known *known = pool->known;
  treadle_call *call;
  if (task < 1 || (uint32_t)task > known->count) {
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
  call->task = &known->tasks[task - 1];
  call->priority = call->task->priority;
  tdl_job_set_task(call->job, (uint32_t)task);
  tdl_embed_begin(&call->arguments, &call->job->bytes, pool->max_payload,
                  count);
  *out = call;
  return 0;
}

static void free_call(treadle_call *call) {
  tdl_embed_fini(&call->arguments);
  tdl_free(call);
}

void treadle_call_drop(treadle_call *call) {
  tdl_jobs_give(&call->job->home->jobs, call->job);
  free_call(call);
}

treadle_writer *treadle_arguments(treadle_call *call) {
  return &call->arguments;
}

void treadle_call_priority(treadle_call *call, treadle_priority priority) {
  call->priority = priority;
}

void treadle_call_worker(treadle_call *call, unsigned worker) {
  call->is_bound = 1;
  call->worker = worker;
}

void treadle_call_key(treadle_call *call, const char *key, size_t length) {
  treadle_call_worker(
      call,
      tdl_key_slot(call->job->pool, tdl_key_hash(TDL_KEY_STRING, key, length)));
}

/* --- the end ---------------------------------------------------------------- */

static void on_done(tdl_job *job, int status, const tdl_bytes *bytes,
                    void *ctx) {
  treadle_call *call = ctx;
  treadle_values values;
  (void)job;
  tdl_embed_open(bytes, &values);
  if (call->done != NULL) {
    call->done(status, &values, call->ctx);
  }
  free_call(call);
}

int treadle_cancel_with(treadle_call *call, const char *reason, int force) {
  tdl_job *job = call->job;
  if (tdl_job_is_settled(job)) {
    return TREADLE_EINVAL;
  }
  if (reason != NULL) {
    tdl_job_set_reason(job, reason); /* J5 */
  }
  if (!(force ? tdl_pool_settle_by_force(job)
              : tdl_pool_settle(job, TDL_JOB_CANCELLED))) {
    return TREADLE_EINVAL;
  }
  on_done(job, TREADLE_ECANCELLED, NULL, call);
  return 0;
}

int treadle_cancel(treadle_call *call) {
  return treadle_cancel_with(call, NULL, 0);
}

static void forget(tdl_job *job, int status, const tdl_bytes *bytes,
                   void *ctx) {
  (void)job;
  (void)status;
  (void)bytes;
  (void)ctx;
}

void tdl_embed_end_calls(treadle_loop *loop) {
  for (tdl_job *job = tdl_jobs_next(&loop->jobs, NULL); job != NULL;
       job = tdl_jobs_next(&loop->jobs, job)) {
    int is_told = tdl_job_is_settled(job) && job->untold == 0;
    if (job->done == on_done) {
      void *call = job->ctx;
      job->done = forget;
      if (!is_told) {
        job->untold = 0;
        tdl_pool_settle(job, TDL_JOB_CLOSED);
        on_done(job, TREADLE_ECLOSED, NULL, call);
      }
    }
  }
}

/* --- submitting ------------------------------------------------------------- */

/* Seconds that the call has; below 0: no limit. */
static double time_for(const treadle_call *call, double given) {
  double timeout = given >= 0                 ? given
                   : call->task->timeout >= 0 ? call->task->timeout
                                              : call->job->pool->known->timeout;
  return timeout < TREADLE_NO_TIMEOUT ? timeout : -1;
}

/* What the call needs where it goes. */
static int prepare(const treadle_call *call) {
  tdl_job *job = call->job;
  treadle_pool *pool = job->pool;
  int status = 0;
  if (tdl_pool_phase(pool) == TDL_POOL_OPEN && tdl_pool_room(pool) <= 0) {
    return TREADLE_EQUEUEFULL;
  }
  if (call->is_bound &&
      (call->worker < 1 || call->worker > tdl_pool_slots(pool))) {
    return TREADLE_EINVAL;
  }
  if (!call->is_bound && call->priority != TREADLE_NORMAL) {
    status = tdl_backlog_rank(&pool->run);
  }
  return status != 0 ? status : tdl_pool_prepare(pool, job);
}

int treadle_submit(treadle_call *call, double timeout, treadle_done done,
                   void *ctx) {
  static const enum tdl_rank ranks[] = {TDL_RANK_NORMAL, TDL_RANK_HIGH,
                                        TDL_RANK_LOW};
  tdl_job *job = call->job;
  int status = tdl_embed_end(&call->arguments);
  timeout = time_for(call, timeout);
  call->done = done;
  call->ctx = ctx;
  job->done = on_done;
  job->ctx = call;
  if (timeout >= 0) {
    job->deadline_ns = tdl_now_ns() + tdl_seconds_ns(timeout);
  }
  if (status == 0) {
    status = prepare(call);
  }
  if (status != 0) {
    treadle_call_drop(call);
    return status;
  }
  if (call->is_bound) {
    tdl_pool_submit_to(job, call->worker);
  } else if (call->priority == TREADLE_NORMAL) {
    tdl_pool_submit(job);
  } else {
    tdl_pool_submit_ranked(job, ranks[call->priority]);
  }
  return 0;
}
