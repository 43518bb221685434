#include "guests.h"

#include "../base/stall.h"
#include "news.h"
#include "phase.h"
#include "watch.h"

static void add_guest(treadle_pool *pool) {
  tdl_stats_begin_home(pool->stats);
  tdl_pool_add_busy(pool); /* P5 */
  pool->guests++;
  tdl_pool_hold(pool);
}

static void drop_guest(treadle_pool *pool) {
  pool->guests--;
  TDL_STALL();
  tdl_pool_drop_busy(pool); /* P5 */
  if (pool->guests == 0 && tdl_pool_is_watched(pool)) {
    tdl_news_tell(pool, TDL_NEWS_CALM); /* as the last worker does (P7) */
  }
  tdl_pool_drop(pool);
}

static int start_guest(tdl_job *job) {
  job->worker = TDL_JOB_HOSTED; /* before it is RUNNING: see tdl_job */
  if (tdl_job_start(job)) {
    tdl_stats_started(&job->pool->stats->home, job);
    tdl_pool_load(job->pool, -1);
    if (tdl_watched(job->pool) != 0) {
      tdl_watch_guest_started(job);
    }
    return 1;
  }
  tdl_loop_send_home(job);
  return 0;
}

static tdl_job *take(treadle_pool *pool) {
  tdl_node *node;
  if (tdl_backlog_empty(&pool->run)) {
    return NULL;
  }
  add_guest(pool);
  while ((node = tdl_backlog_pop(&pool->run, &pool->got)) != NULL) {
    tdl_job *job = TDL_CONTAINER(node, tdl_job, node);
    if (start_guest(job)) {
      return job;
    }
  }
  drop_guest(pool);
  return NULL;
}

tdl_job *tdl_guest_take(treadle_pool *pool) {
  tdl_job *job;
  if (pool->guests - pool->waiting_guests >= pool->concurrency) {
    return NULL; /* the end of one wakes this thread */
  }
  do {
    job = take(pool);
  } while (job == NULL && !tdl_news_idle(pool)); /* P9: look again */
  return job;
}

int tdl_guest_submit(tdl_job *job) {
  treadle_pool *pool = job->pool;
  if (job->refused) {
    tdl_pool_refuse(job);
    return 0;
  }
  add_guest(pool);
  tdl_pool_load(pool, 1); /* until it starts, or is settled before */
  if (start_guest(job)) {
    return 1;
  }
  drop_guest(pool);
  return 0;
}

void tdl_guest_end(tdl_job *job, int status) {
  treadle_pool *pool = job->pool;
  job->status = (int8_t)status;
  if (tdl_job_finish(job)) {
    tdl_stats_ended(&pool->stats->home, job);
  } /* else it was settled meanwhile, and goes home all the same (J2) */
  if (tdl_watched(pool) != 0) {
    tdl_watch_guest_ended(job, status);
  }
  tdl_loop_send_home(job);
  drop_guest(pool);
}
