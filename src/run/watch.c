#include "watch.h"

#include "../base/status.h"
#include "events.h"
#include "news.h"
#include "worker.h"

void tdl_watch_set(treadle_pool *pool, enum tdl_watch who, int on) {
  uint32_t bits = TDL_POOL_WATCH(who);
  /* relaxed: see tdl_watched; it keeps what a release of the phase published */
  if (on) {
    atomic_fetch_or_explicit(&pool->phase, bits, memory_order_relaxed);
  } else {
    atomic_fetch_and_explicit(&pool->phase, ~bits, memory_order_relaxed);
  }
}

static int is_watched_by(const treadle_pool *pool, enum tdl_watch who) {
  return (tdl_watched(pool) & who) != 0;
}

static void tell_counts(treadle_pool *pool) {
  if (is_watched_by(pool, TDL_WATCH_COUNTS)) {
    tdl_news_tell(pool, TDL_NEWS_COUNTS);
  }
}

/* What its caller hears, or heard when it was settled. */
static int outcome(const tdl_job *job, int status) {
  switch (tdl_job_is_settled(job)) {
  case 0:
    return status;
  case TDL_JOB_EXPIRED:
    return TREADLE_ETIMEOUT;
  case TDL_JOB_CLOSED:
    return TREADLE_ECLOSED;
  default:
    return TREADLE_ECANCELLED;
  }
}

void tdl_watch_submitted(tdl_job *job) {
  tell_counts(job->pool);
}

void tdl_watch_withdrawn(tdl_job *job) {
  tell_counts(job->pool);
}

uint64_t tdl_watch_started(tdl_worker *w, tdl_job *job) {
  treadle_pool *pool = w->pool;
  if (is_watched_by(pool, TDL_WATCH_EVENTS)) {
    tdl_events_post(pool, w->id, "job_start", tdl_job_task(job), NULL, 0);
  }
  tell_counts(pool);
  return tdl_now_ns();
}

void tdl_watch_ended(tdl_worker *w, tdl_job *job, int status,
                     uint64_t since_ns) {
  treadle_pool *pool = w->pool;
  status = outcome(job, status);
  if (since_ns != 0 && is_watched_by(pool, TDL_WATCH_EVENTS)) {
    tdl_events_post(pool, w->id, status == 0 ? "job_done" : "job_error",
                    tdl_job_task(job),
                    status == 0 ? NULL : tdl_status_kind(status),
                    (double)(tdl_now_ns() - since_ns) * 1e-9);
  }
  tell_counts(pool);
}

void tdl_watch_guest_started(tdl_job *job) {
  tell_counts(job->pool);
}

void tdl_watch_guest_ended(tdl_job *job, int status) {
  (void)status;
  tell_counts(job->pool);
}

void tdl_watch_settled(const tdl_job *job, int state, int status) {
  (void)state;
  (void)status;
  tell_counts(job->pool);
}

void tdl_watch_refused(const tdl_job *job, int status) {
  (void)status;
  tell_counts(job->pool);
}

void tdl_watch_worker_started(tdl_worker *w) {
  if (is_watched_by(w->pool, TDL_WATCH_EVENTS)) {
    tdl_events_post(w->pool, w->id, "worker_start", 0, NULL, 0);
  }
  tell_counts(w->pool);
}

void tdl_watch_worker_ends(tdl_worker *w, const char *reason) {
  if (is_watched_by(w->pool, TDL_WATCH_EVENTS)) {
    tdl_events_post(w->pool, w->id, "worker_exit", 0, reason, 0);
  }
  tell_counts(w->pool);
}
