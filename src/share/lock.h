/* tdl_lock: so many units that coroutines take and give back. A mutex has one,
** a semaphore some; of a lock for readers and writers, which has many, a reader
** takes one and a writer all.
** Threads: any.
** Owns:    nothing of those who hold or wait.
** Fails:   TREADLE_ENOMEM from new.
**
** M1  `word` says how many units are free. Without a flag in it whoever finds
**     enough takes them by one compare-and-swap, and gives them back by one.
** M2  Flags come and go under the guard, and with one in it the word changes
**     under the guard alone. QUEUED: somebody stands in the list. ABANDONED:
**     `abandoned` is not 0.
** M3  Those who wait are served in the order in which they came. While one
**     stands in the list nobody else takes a unit, also if some are free.
** M4  So many units as a dead holder had are `abandoned`: whoever takes some is
**     told, until as many have been taken.
** M5  Who holds what is known to the state of the holder alone (hold.h). Who
**     was granted units in the list holds them for good: they must be given
**     back also where nobody takes them (W2 in wait.h). */
#ifndef TDL_SHARE_LOCK_H
#define TDL_SHARE_LOCK_H

#include "../base/counted.h"
#include "guard.h"
#include "wait.h"

enum {
  TDL_LOCK_QUEUED = 1,
  TDL_LOCK_ABANDONED = 2,
  TDL_LOCK_FLAGS = 3,
  TDL_LOCK_UNIT = 4
};

#define TDL_LOCK_MAX_UNITS 0x3fffffffu

typedef struct tdl_lock {
  tdl_counted counted; /* first */
  _Atomic uint32_t word;
  uint32_t units;     /* in all */
  uint32_t abandoned; /* M4; under the guard, as the list */
  tdl_waiters waiters;
  tdl_guard guard;
} tdl_lock;

extern const tdl_kind tdl_mutex_kind, tdl_rwlock_kind, tdl_semaphore_kind;

int tdl_lock_new(const tdl_kind *kind, uint32_t units, tdl_lock **out);

/* Takes units if that needs no more than M1: 1 when it has them. */
static inline int tdl_lock_take_at_once(tdl_lock *l, uint32_t units) {
  /* relaxed: a guess; [lock-word] acquire: what the last holder did */
  uint32_t word = atomic_load_explicit(&l->word, memory_order_relaxed);
  return (word & TDL_LOCK_FLAGS) == 0 && word >= units * TDL_LOCK_UNIT &&
         atomic_compare_exchange_strong_explicit(
             &l->word, &word, word - units * TDL_LOCK_UNIT,
             memory_order_acquire, memory_order_relaxed);
}

/* The same way back: 0 when it needs more. */
static inline int tdl_lock_give_at_once(tdl_lock *l, uint32_t units) {
  /* relaxed: a guess; [lock-word] release: to the next holder */
  uint32_t word = atomic_load_explicit(&l->word, memory_order_relaxed);
  return (word & TDL_LOCK_FLAGS) == 0 &&
         atomic_compare_exchange_strong_explicit(
             &l->word, &word, word + units * TDL_LOCK_UNIT,
             memory_order_release, memory_order_relaxed);
}

/* 1 when it has them; then `told` says whether a holder died (M4). */
int tdl_lock_take(tdl_lock *lock, uint32_t units, int *told);

/* The same, or the waiter stands in the list. Its wait's value, when it is
** granted, is how many of these units it is told of (M4): with as many of them
** dead they are given back, if nobody takes them. */
int tdl_lock_wait(tdl_lock *lock, tdl_waiter *waiter, uint32_t units,
                  int *told);

/* Also of one that was granted, and one that stands in no list. */
void tdl_lock_leave(tdl_lock *lock, tdl_waiter *waiter);

/* Takes them back; of so many the next holders are told: who held them is
** `dead`. */
void tdl_lock_give(tdl_lock *lock, uint32_t units, uint32_t dead);

#endif
