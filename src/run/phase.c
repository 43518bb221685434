#include "phase.h"

#include "../base/alloc.h"
#include "../base/stall.h"
#include "news.h"
#include "worker.h"

static uint32_t phase_now(const treadle_pool *pool) {
  /* [size] seq_cst: after what the caller has counted */
  return TDL_POOL_PHASE(
      atomic_load_explicit(&pool->phase, memory_order_seq_cst));
}

/* --- the last thread (P10) ------------------------------------------------- */

/* 1 for the one who is to tell the home that the pool is closed. */
static int is_over(treadle_pool *pool) {
  /* [size] seq_cst: either we see the last thread gone, or whoever takes it
  ** away sees the phase; relaxed: one of them is first */
  return phase_now(pool) == TDL_POOL_STOPPED &&
         atomic_load_explicit(&pool->alive, memory_order_seq_cst) == 0 &&
         !atomic_exchange_explicit(&pool->told_closed, 1, memory_order_relaxed);
}

/* Where no thread is left whose last note would tell it. */
static void tell_closed(treadle_pool *pool) {
  if (is_over(pool)) {
    tdl_news_tell(pool, TDL_NEWS_CLOSED);
  }
}

int tdl_pool_add_thread(treadle_pool *pool) {
  /* [size] seq_cst: before the look at the phase */
  atomic_fetch_add_explicit(&pool->alive, 1, memory_order_seq_cst);
  if (phase_now(pool) == TDL_POOL_STOPPED) {
    tdl_pool_no_thread(pool);
    return 0;
  }
  return 1;
}

void tdl_pool_no_thread(treadle_pool *pool) {
  /* [size] seq_cst: as above */
  atomic_fetch_sub_explicit(&pool->alive, 1, memory_order_seq_cst);
  tell_closed(pool);
}

int tdl_pool_thread_ended(treadle_pool *pool) {
  /* [size] seq_cst: as above */
  atomic_fetch_sub_explicit(&pool->alive, 1, memory_order_seq_cst);
  return is_over(pool);
}

int tdl_pool_has_threads(const treadle_pool *pool) {
  /* [size] seq_cst: as above */
  return atomic_load_explicit(&pool->alive, memory_order_seq_cst) > 0;
}

/* --- the last work (P5) ---------------------------------------------------- */

/* What was sent to a worker counts, too: it may have been moved from another
** one's slot, and its worker is only just waking (size.h). */
static int is_empty(const treadle_pool *pool) {
  uint32_t slots = tdl_pool_slots(pool);
  int empty = tdl_backlog_empty(&pool->run);
  for (uint32_t i = 0; empty && i < slots; i++) {
    empty = tdl_queue_empty(&pool->slots[i]->calls);
  }
  return empty;
}

void tdl_pool_add_busy(treadle_pool *pool) {
  /* <drain.G1> [drain] seq_cst: before any look at the queues */
  atomic_fetch_add_explicit(&pool->busy, 1, memory_order_seq_cst);
}

/* 1 when with the last one a drain has come to its end. */
static int is_last(treadle_pool *pool) {
  /* <drain.R1> [drain] seq_cst: the last to rest sees every queue as the
  ** others left it, <drain.R2> */
  return atomic_fetch_sub_explicit(&pool->busy, 1, memory_order_seq_cst) == 1 &&
         /* [size] seq_cst: either we see the phase, or end_drain sees us gone */
         phase_now(pool) == TDL_POOL_DRAINING && is_empty(pool);
}

void tdl_pool_drop_busy(treadle_pool *pool) {
  if (is_last(pool)) { /* <drain.R3> */
    TDL_STALL();
    tdl_pool_stop(pool, TDL_POOL_STOPPED);
  }
}

/* Where no worker is left that could find the queues empty. */
static void end_drain(treadle_pool *pool) {
  /* [size] seq_cst: either we see the last worker gone, or it sees the phase */
  if (phase_now(pool) == TDL_POOL_DRAINING &&
      atomic_load_explicit(&pool->busy, memory_order_seq_cst) == 0) {
    if (is_empty(pool)) {
      tdl_pool_stop(pool, TDL_POOL_STOPPED);
    } else {
      tdl_pool_wake_if_work(pool);
    }
  }
}

/* --- phases (P2) ------------------------------------------------------------ */

void tdl_pool_wake_all(treadle_pool *pool) {
  for (uint32_t i = 0; i < tdl_pool_slots(pool); i++) {
    TDL_STALL();
    tdl_parker_wake(&tdl_slot_worker(pool->slots[i])->loop.parker);
  }
}

void tdl_pool_set_reason(treadle_pool *pool, const char *text) {
  char *copy = tdl_strdup(text), *none = NULL;
  if (copy == NULL) {
    return;
  }
  /* release: the text; relaxed: it is not looked at */
  if (!atomic_compare_exchange_strong_explicit(&pool->reason, &none, copy,
                                               memory_order_release,
                                               memory_order_relaxed)) {
    tdl_free(copy);
  }
}

const char *tdl_pool_reason(const treadle_pool *pool) {
  /* acquire: the text */
  return atomic_load_explicit(&pool->reason, memory_order_acquire);
}

void tdl_pool_lose_state(treadle_pool *pool, int status) {
  int none = 0;
  if (!pool->mortal || tdl_pool_phase(pool) == TDL_POOL_STOPPED) {
    return;
  }
  /* relaxed: the phase, raised next, brings it to whoever asks */
  atomic_compare_exchange_strong_explicit(&pool->died_of, &none, status,
                                          memory_order_relaxed,
                                          memory_order_relaxed);
  tdl_pool_set_reason(
      pool, status == TREADLE_ENOMEM
                ? "the state is lost: it has exceeded its memory"
                : "the state is lost: what ran in it had to be stopped");
  TDL_STALL();
  tdl_pool_stop(pool, TDL_POOL_STOPPED);
}

int tdl_pool_died_of(const treadle_pool *pool) {
  /* relaxed: see tdl_pool_lose_state */
  return atomic_load_explicit(&pool->died_of, memory_order_relaxed);
}

void tdl_pool_stop(treadle_pool *pool, enum tdl_pool_phase phase) {
  /* acquire: as tdl_pool_phase */
  uint32_t now = atomic_load_explicit(&pool->phase, memory_order_acquire);
  while (TDL_POOL_PHASE(now) < (uint32_t)phase &&
         /* <drain.H1> seq_cst: before the look at the parkers [park] */
         !atomic_compare_exchange_weak_explicit(
             &pool->phase, &now, now - TDL_POOL_PHASE(now) + (uint32_t)phase,
             memory_order_seq_cst, memory_order_acquire)) {
  }
  tdl_pool_wake_all(pool);
  if (phase == TDL_POOL_DRAINING) {
    end_drain(pool);
  } else {
    tell_closed(pool);
  }
}
