#include "worker.h"

#include <limits.h>
#include <stddef.h>

#include "../base/alloc.h"
#include "../base/compiler.h"
#include "../codec/payload.h"
#include "far.h"
#include "keeper.h"
#include "news.h"
#include "phase.h"
#include "thread.h"
#include "vm_calls.h"

/* --- the worker's share of the load (P6) ------------------------------------ */

#define LOST_PLACES (INT64_MIN / 2) /* whatever is added, it stays below 0 */

void tdl_worker_take_place(tdl_worker *w) {
  if (w->pool->max_queue != TDL_POOL_NO_LIMIT) {
    /* relaxed: the job was in `load` before, and stays there */
    atomic_fetch_add_explicit(&w->places, 1, memory_order_relaxed);
  }
}

void tdl_worker_give_place(tdl_worker *w) {
  if (w->pool->max_queue != TDL_POOL_NO_LIMIT) {
    /* relaxed: the job stays in `load` */
    atomic_fetch_sub_explicit(&w->places, 1, memory_order_relaxed);
  }
}

void tdl_worker_load(tdl_worker *w, int jobs) {
  if (w->pool->max_queue != TDL_POOL_NO_LIMIT &&
      /* relaxed: one of the two has had the place */
      atomic_fetch_add_explicit(&w->places, jobs, memory_order_relaxed) >= 0) {
    tdl_pool_add_load(w->pool, jobs);
  }
}

void tdl_worker_lose_places(tdl_worker *w) {
  if (w->pool->max_queue != TDL_POOL_NO_LIMIT) {
    /* relaxed: as above */
    int64_t places =
        atomic_exchange_explicit(&w->places, LOST_PLACES, memory_order_relaxed);
    tdl_pool_add_load(w->pool, (int)-places);
  }
}

void tdl_worker_set_running(tdl_worker *w, uint32_t jobs) {
  /* relaxed: the home only compares it with its like */
  atomic_store_explicit(&w->running, jobs, memory_order_relaxed);
}

uint32_t tdl_worker_number(const tdl_worker *w) {
  return w->pool->far != NULL ? w->pool->far->id : w->id;
}

/* --- what is asked of it ---------------------------------------------------- */

void tdl_worker_ask(tdl_worker *w, enum tdl_ask what) {
  /* [asked] seq_cst: after the job was settled, before the look at the parker
  ** [park] */
  atomic_fetch_or_explicit(&w->asked, what, memory_order_seq_cst);
  tdl_parker_wake(&w->loop.parker);
}

void tdl_worker_unask(tdl_worker *w, uint32_t what) {
  /* [asked] seq_cst: before the look at the jobs' words */
  atomic_fetch_and_explicit(&w->asked, ~what, memory_order_seq_cst);
}

void tdl_worker_listen(tdl_worker *w) {
  if (TDL_UNLIKELY(tdl_worker_is_asked(w) & TDL_ASK_CANCEL)) {
    tdl_worker_ask(w, TDL_ASK_WAKE); /* what only the scheduler can do */
    tdl_worker_unask(w, TDL_ASK_CANCEL);
    tdl_vm_cancel_calls(w->vm);
  }
}

/* --- what it shows --------------------------------------------------------- */

enum tdl_worker_life tdl_worker_life(const tdl_worker *w) {
  /* relaxed: changes by itself, or under the supervisor's lock */
  return (enum tdl_worker_life)atomic_load_explicit(&w->life,
                                                    memory_order_relaxed);
}

void tdl_worker_set_life(tdl_worker *w, enum tdl_worker_life life) {
  atomic_store_explicit(&w->life, life, memory_order_relaxed); /* as above */
}

int tdl_worker_runs_forced(const tdl_worker *w) {
  const tdl_job *job = tdl_worker_running(w);
  return job != NULL && tdl_job_is_forced(job);
}

uint64_t tdl_worker_idle_since(const tdl_worker *w) {
  uint64_t bit = 1ull << ((w->id - 1) % 64);
  /* relaxed: a late look is repeated */
  return (atomic_load_explicit(&w->pool->idle[(w->id - 1) / 64],
                               memory_order_relaxed) |
          atomic_load_explicit(&w->pool->abroad[(w->id - 1) / 64],
                               memory_order_relaxed)) &
                 bit
             ? atomic_load_explicit(&w->idle_ns, memory_order_relaxed)
             : TDL_NEVER;
}

void tdl_worker_doom(tdl_worker *w, int doomed) {
  /* relaxed: see is_meant */
  atomic_store_explicit(&w->doomed, (uint32_t)doomed, memory_order_relaxed);
}

/* [last-note] acq_rel: the first to come decides (P1), 1 for it */
static int part(tdl_worker *w, int how) {
  int expected = TDL_TOGETHER;
  return atomic_compare_exchange_strong_explicit(
      &w->parting, &expected, how, memory_order_acq_rel, memory_order_acquire);
}

int tdl_worker_has_ended(tdl_worker *w) {
  return part(w, TDL_HAS_ENDED);
}

int tdl_worker_leave_alone(tdl_worker *w) {
  return part(w, TDL_LEFT_ALONE);
}

int tdl_worker_is_left_alone(const tdl_worker *w) {
  /* acquire: what was done before it was left alone */
  return atomic_load_explicit(&w->parting, memory_order_acquire) ==
         TDL_LEFT_ALONE;
}

void tdl_worker_post(tdl_worker *w, tdl_note *note) {
  tdl_news_post(w->pool, note); /* the thread may end before it arrives */
}

/* --- the home's thread ---------------------------------------------------- */

static void on_child_home(void *owner, const tdl_job *job) {
  tdl_vm_call_home(owner, job);
}

int tdl_worker_new(treadle_pool *pool, tdl_slot *slot, uint32_t id,
                   tdl_worker **out) {
  tdl_worker *w = tdl_alloc_aligned(TDL_LINE_BYTES, sizeof(*w));
  int status = w == NULL ? TREADLE_ENOMEM : tdl_loop_init(&w->loop);
  if (status != 0) {
    tdl_free(w);
    return status;
  }
  w->pool = pool;
  w->slot = slot;
  w->id = id;
  if (pool->plan != NULL) {
    status = tdl_keeper_new(w, &w->keeper);
    if (status != 0) {
      tdl_loop_drop(&w->loop);
      return status;
    }
  }
  w->loop.child_home = on_child_home;
  w->loop.far = pool->far;
  if (pool->far != NULL) {
    tdl_far_serve(pool->far, &w->loop.parker);
  }
  tdl_thread_init(w);
  w->stop.end_ns = w->stop.leave_ns = TDL_NEVER;
  atomic_init(&w->idle_ns, TDL_NEVER);
  atomic_init(&w->life, TDL_ENDED); /* it has no thread */
  tdl_bytes_init(&w->report, NULL, 0);
  tdl_bytes_init(&w->last_words, NULL, 0);
  pthread_mutex_init(&w->lock, NULL);
  *out = w;
  return 0;
}

void tdl_worker_free(tdl_worker *w) {
  _Static_assert(offsetof(tdl_worker, loop) == 0, "the loop's is the worker's");
  tdl_payload_clear(&w->report);
  tdl_bytes_reset(&w->report, NULL, 0);
  tdl_payload_clear(&w->last_words);
  tdl_bytes_reset(&w->last_words, NULL, 0);
  pthread_mutex_destroy(&w->lock);
  tdl_keeper_free(w->keeper);
  tdl_loop_drop(&w->loop); /* pools that its tasks made may hold it (L1) */
}

int tdl_worker_replace(tdl_worker *w, int starts) {
  tdl_worker *other;
  int status = tdl_worker_new(w->pool, w->slot, w->id, &other);
  if (status != 0) {
    return status;
  }
  if (starts && !tdl_pool_add_thread(w->pool)) {
    tdl_worker_free(other);
    return TREADLE_ECLOSED;
  }
  /* [slot] seq_cst: before the new one's first look at the slot's calls */
  atomic_store_explicit(&w->slot->worker, other, memory_order_seq_cst);
  if (starts) {
    tdl_worker_set_life(other, TDL_BOOTING);
    status = tdl_thread_start(other);
  }
  if (status != 0) {
    tdl_pool_no_thread(w->pool);
    atomic_store_explicit(&w->slot->worker, w, memory_order_seq_cst); /* too */
    tdl_worker_free(other);
  }
  return status;
}
