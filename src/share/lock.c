#include "lock.h"

#include "../base/alloc.h"
#include "../base/compiler.h"
#include "../base/stall.h"
#include "../treadle.h"

static void free_lock(tdl_counted *counted) {
  tdl_free(TDL_CONTAINER(counted, tdl_lock, counted));
}

const tdl_kind tdl_mutex_kind = {"mutex", free_lock};
const tdl_kind tdl_rwlock_kind = {"rwlock", free_lock};
const tdl_kind tdl_semaphore_kind = {"semaphore", free_lock};

int tdl_lock_new(const tdl_kind *kind, uint32_t units, tdl_lock **out) {
  tdl_lock *l = tdl_calloc(sizeof(*l));
  if (l == NULL) {
    return TREADLE_ENOMEM;
  }
  tdl_counted_init(&l->counted, kind);
  atomic_init(&l->word, units * TDL_LOCK_UNIT);
  l->units = units;
  *out = l;
  return 0;
}

/* --- under the guard ------------------------------------------------------ */

static uint32_t least(uint32_t a, uint32_t b) {
  return a < b ? a : b;
}

static int take_locked(tdl_lock *l, uint32_t units, int *told) {
  /* relaxed: a look before the try */
  uint32_t word = atomic_load_explicit(&l->word, memory_order_relaxed);
  uint32_t left = l->abandoned - least(l->abandoned, units), next;
  do { /* a word without flags may change meanwhile: M2 */
    if ((word & TDL_LOCK_QUEUED) || word / TDL_LOCK_UNIT < units) { /* M3 */
      return 0;
    }
    next = word - units * TDL_LOCK_UNIT;
    next = left > 0 ? next : next & ~(uint32_t)TDL_LOCK_ABANDONED;
    /* [lock-word] acq_rel: what the last holders did, passed on with the word
    ** to those who find it without flags */
  } while (!atomic_compare_exchange_strong_explicit(
      &l->word, &word, next, memory_order_acq_rel, memory_order_relaxed));
  *told = l->abandoned > 0;
  l->abandoned = left;
  return 1;
}

/* Before the waiter stands in the list: M2. 0 when there was something to take
** after all. */
static int queue_locked(tdl_lock *l, uint32_t units) {
  /* relaxed: a look before the try */
  uint32_t word = atomic_load_explicit(&l->word, memory_order_relaxed);
  do {
    if (!(word & TDL_LOCK_QUEUED) && word / TDL_LOCK_UNIT >= units) {
      return 0;
    }
    /* relaxed: nothing goes with a flag */
  } while (!atomic_compare_exchange_strong_explicit(
      &l->word, &word, word | TDL_LOCK_QUEUED, memory_order_relaxed,
      memory_order_relaxed));
  return 1;
}

/* Serves those who stand in the list; returns whom to tell, in that order. */
static tdl_waiter *serve_locked(tdl_lock *l) {
  /* [lock-word] acquire: what the last holders did */
  uint32_t word = atomic_load_explicit(&l->word, memory_order_acquire);
  uint32_t free_units = word / TDL_LOCK_UNIT;
  tdl_waiter *granted = NULL, **end = &granted, *w;
  if (!(word & TDL_LOCK_QUEUED)) {
    return NULL;
  }
  while ((w = l->waiters.first) != NULL &&
         (uint32_t)(uintptr_t)w->offer <= free_units) {
    uint32_t units = (uint32_t)(uintptr_t)w->offer;
    uint32_t told = least(l->abandoned, units);
    if (tdl_waiter_grant(w, (void *)(uintptr_t)told)) {
      free_units -= units;
      l->abandoned -= told;
      *end = w;
      end = &w->next;
    }
  }
  word = free_units * TDL_LOCK_UNIT | (w != NULL ? TDL_LOCK_QUEUED : 0u) |
         (l->abandoned > 0 ? TDL_LOCK_ABANDONED : 0u);
  /* [lock-word] release: with no flag left, what was acquired goes on */
  atomic_store_explicit(&l->word, word, memory_order_release);
  return granted;
}

/* --- taking and giving ---------------------------------------------------- */

int tdl_lock_take(tdl_lock *l, uint32_t units, int *told) {
  int taken;
  tdl_guard_lock(&l->guard);
  taken = take_locked(l, units, told);
  tdl_guard_unlock(&l->guard);
  return taken;
}

int tdl_lock_wait(tdl_lock *l, tdl_waiter *waiter, uint32_t units, int *told) {
  int taken;
  tdl_guard_lock(&l->guard);
  do {
    taken = take_locked(l, units, told);
    TDL_STALL();
  } while (!taken && !queue_locked(l, units));
  if (!taken) {
    waiter->offer = (void *)(uintptr_t)units;
    tdl_waiters_add(&l->waiters, waiter);
  }
  tdl_guard_unlock(&l->guard);
  return taken;
}

void tdl_lock_leave(tdl_lock *l, tdl_waiter *waiter) {
  tdl_waiter *granted;
  tdl_guard_lock(&l->guard);
  tdl_waiters_remove(waiter);
  granted = serve_locked(l); /* others may have waited behind it alone */
  tdl_guard_unlock(&l->guard);
  tdl_waiters_tell(granted);
}

void tdl_lock_give(tdl_lock *l, uint32_t units, uint32_t dead) {
  uint32_t word, next;
  tdl_waiter *granted;
  tdl_guard_lock(&l->guard);
  l->abandoned += least(dead, l->units - l->abandoned);
  /* relaxed: a look before the try */
  word = atomic_load_explicit(&l->word, memory_order_relaxed);
  do {
    next = word + units * TDL_LOCK_UNIT;
    next |= l->abandoned > 0 ? TDL_LOCK_ABANDONED : 0u;
    /* [lock-word] release: to the next holder */
  } while (!atomic_compare_exchange_strong_explicit(
      &l->word, &word, next, memory_order_release, memory_order_relaxed));
  TDL_STALL();
  granted = serve_locked(l);
  tdl_guard_unlock(&l->guard);
  tdl_waiters_tell(granted);
}
