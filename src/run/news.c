#include "news.h"

#include <limits.h>
#include <sched.h>

#include "../base/stall.h"
#include "phase.h"
#include "thread.h"

enum {
  HEARING = 32, /* the note has arrived */
  DEAF = 64     /* nobody hears any more */
};

void tdl_news_tell(treadle_pool *pool, enum tdl_news news) {
  /* [telling] seq_cst: before the look at DEAF */
  atomic_fetch_add_explicit(&pool->telling, 1, memory_order_seq_cst);
  TDL_STALL();
  /* [pool-news] [telling] seq_cst: hands over what was done before; one posts */
  if (atomic_fetch_or_explicit(&pool->news, news, memory_order_seq_cst) == 0) {
    tdl_pool_hold(pool);
    TDL_STALL();
    tdl_loop_post(pool->home, &pool->note.node);
  }
  /* [telling] release: the note is in the inbox */
  atomic_fetch_sub_explicit(&pool->telling, 1, memory_order_release);
}

int tdl_news_post(treadle_pool *pool, tdl_note *note) {
  int is_heard;
  /* [telling] seq_cst: before the look at DEAF */
  atomic_fetch_add_explicit(&pool->telling, 1, memory_order_seq_cst);
  TDL_STALL();
  /* [telling] seq_cst: as in tdl_news_tell */
  is_heard = !(atomic_load_explicit(&pool->news, memory_order_seq_cst) & DEAF);
  if (is_heard) {
    tdl_pool_hold(pool);
    TDL_STALL();
    tdl_loop_post(pool->home, &note->node);
  }
  /* [telling] release: the note is in the inbox */
  atomic_fetch_sub_explicit(&pool->telling, 1, memory_order_release);
  return is_heard;
}

static void report(treadle_pool *pool, enum tdl_news bit,
                   tdl_pool_event event) {
  if (pool->heard & bit) {
    tdl_pool_tell(pool, event, 0, NULL);
    pool->heard &= ~bit; /* not earlier: the handler may raise (L3) */
  }
}

static void on_news(tdl_note *note, treadle_loop *at) {
  treadle_pool *pool = TDL_CONTAINER(note, treadle_pool, note);
  uint32_t seen;
  at->noting = note; /* L3 */
  /* relaxed: while a bit is set, nobody else posts */
  atomic_fetch_or_explicit(&pool->news, HEARING, memory_order_relaxed);
  do {
    /* [pool-news] acq_rel: what was done before it was told */
    pool->heard |= atomic_fetch_and_explicit(&pool->news, HEARING | DEAF,
                                             memory_order_acq_rel);
    report(pool, TDL_NEWS_ROOM, TDL_POOL_ROOM);
    report(pool, TDL_NEWS_CALM, TDL_POOL_CALM);
    report(pool, TDL_NEWS_SETTLED, TDL_POOL_SETTLED);
    report(pool, TDL_NEWS_COUNTS, TDL_POOL_COUNTS);
    if (pool->heard & TDL_NEWS_CLOSED) {
      tdl_thread_refuse_all(pool);
    }
    report(pool, TDL_NEWS_CLOSED, TDL_POOL_CLOSED);
    TDL_STALL();
    seen = HEARING;
    /* [pool-news] acq_rel: nothing came meanwhile, and the next one posts */
  } while (!atomic_compare_exchange_strong_explicit(&pool->news, &seen, 0,
                                                    memory_order_acq_rel,
                                                    memory_order_relaxed) &&
           !(seen & DEAF));
  at->noting = NULL;
  tdl_pool_drop(pool);
}

int tdl_news_idle(treadle_pool *pool) {
  /* [home-idle] seq_cst: before the last look at the queue */
  return atomic_exchange_explicit(&pool->home_idles, 1, memory_order_seq_cst);
}

void tdl_news_of_work(treadle_pool *pool, const treadle_loop *from) {
  TDL_STALL();
  if (from != pool->home && /* it is awake */
      /* [home-idle] seq_cst: after the push */
      atomic_load_explicit(&pool->home_idles, memory_order_seq_cst) != 0 &&
      /* acq_rel: one tells */
      atomic_exchange_explicit(&pool->home_idles, 0, memory_order_acq_rel)) {
    tdl_news_tell(pool, TDL_NEWS_WORK);
  }
}

void tdl_news_end(treadle_pool *pool) {
  /* [telling] seq_cst: who tells after this does not post */
  atomic_fetch_or_explicit(&pool->news, DEAF, memory_order_seq_cst);
  /* [telling] seq_cst: after that; and sees the post of who was before */
  while (atomic_load_explicit(&pool->telling, memory_order_seq_cst) != 0) {
    sched_yield();
  }
}

void tdl_news_init(treadle_pool *pool) {
  pool->note.node.kind = TDL_NODE_NOTE;
  pool->note.arrive = on_news;
}

/* --- room (P6) and rest (P7) ------------------------------------------------ */

int64_t tdl_pool_room(const treadle_pool *pool) {
  if (pool->max_queue == TDL_POOL_NO_LIMIT) {
    return INT64_MAX;
  }
  /* [pool-room] seq_cst: after `wants` */
  return (int64_t)tdl_size_max(pool) * pool->concurrency + pool->max_queue -
         atomic_load_explicit(&pool->load, memory_order_seq_cst);
}

int64_t tdl_pool_want_room(treadle_pool *pool) {
  /* [pool-room] seq_cst: before the look at `load` */
  atomic_store_explicit(&pool->wants, 1, memory_order_seq_cst);
  TDL_STALL();
  return tdl_pool_room(pool);
}

void tdl_pool_add_load(treadle_pool *pool, int jobs) {
  /* [pool-room] seq_cst: before the look at `wants` */
  atomic_fetch_add_explicit(&pool->load, jobs, memory_order_seq_cst);
  TDL_STALL();
  if (jobs < 0) {
    tdl_pool_look_at_room(pool);
  }
}

void tdl_pool_look_at_room(treadle_pool *pool) {
  /* [pool-room] seq_cst: after the load fell, or the size rose */
  if (atomic_load_explicit(&pool->wants, memory_order_seq_cst) != 0 &&
      tdl_pool_room(pool) > 0 &&
      /* acq_rel: one tells */
      atomic_exchange_explicit(&pool->wants, 0, memory_order_acq_rel) != 0) {
    tdl_news_tell(pool, TDL_NEWS_ROOM);
  }
}

int tdl_pool_is_watched(const treadle_pool *pool) {
  /* [pool-watch] seq_cst: after the announcement [park] */
  return atomic_load_explicit(&pool->watched, memory_order_seq_cst);
}

void tdl_pool_watch(treadle_pool *pool) {
  /* another number each time, or a worker that has told, and is yet to fall
  ** asleep, would take it for what it has told */
  pool->watches = pool->watches % INT_MAX + 1;
  /* [pool-watch] seq_cst: before the look at the parkers [park] */
  atomic_store_explicit(&pool->watched, pool->watches, memory_order_seq_cst);
  tdl_pool_wake_all(pool);
  /* [astir] seq_cst: where no worker is there that could say it; who has gone
  ** since sees the number */
  if (atomic_load_explicit(&pool->astir, memory_order_seq_cst) == 0 &&
      tdl_backlog_empty(&pool->run)) {
    tdl_news_tell(pool, TDL_NEWS_CALM);
  }
}

void tdl_pool_unwatch(treadle_pool *pool) {
  /* relaxed: who has not seen it tells in vain */
  atomic_store_explicit(&pool->watched, 0, memory_order_relaxed);
}

void tdl_pool_calm(treadle_pool *pool) {
  TDL_STALL();
  /* [astir] seq_cst: the last one sees every queue as the others left it */
  if (atomic_fetch_sub_explicit(&pool->astir, 1, memory_order_seq_cst) == 1 &&
      tdl_pool_is_watched(pool) && tdl_backlog_empty(&pool->run)) {
    tdl_news_tell(pool, TDL_NEWS_CALM);
  }
  TDL_STALL();
}

void tdl_pool_stir(treadle_pool *pool) {
  /* [astir] seq_cst: before any look at the queues */
  atomic_fetch_add_explicit(&pool->astir, 1, memory_order_seq_cst);
}

uint32_t tdl_pool_calls(const treadle_pool *pool, uint32_t *settled) {
  const tdl_jobs *jobs = &pool->home->jobs;
  uint32_t count = 0;
  *settled = 0;
  for (const tdl_job *job = tdl_jobs_next(jobs, NULL); job != NULL;
       job = tdl_jobs_next(jobs, job)) {
    if (job->pool == pool) {
      count++;
      *settled += (uint32_t)tdl_job_is_settled(job);
    }
  }
  return count;
}
