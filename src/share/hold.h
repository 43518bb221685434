/* tdl_holds: what the code of one state holds of locks (lock.h).
** Threads: the state's own.
** Owns:    of each lock that is held here and has no handle here any more, a
**          reference.
** Fails:   TREADLE_ENOMEM from new and reserve.
**
** O1  Who holds is a number: an owner. Each job has one, each coroutine that
**     was spawned, and the main chunk; what code those run besides is theirs.
**     No two that live in one state have the same.
** O2  An owner has at most one hold of a lock. It is entered by the state's own
**     thread, behind the taking; so the state knows its holds, and no other. It
**     lives on the handle's reference; one that was entered behind a wait, or
**     whose handle goes, has its own.
** O3  What an owner still holds when it ends, and what a state holds when it is
**     closed, is given back for it, and the next holders are told: it may have
**     stopped in the middle of something. Not earlier, however long nobody
**     waits for its results any more: while its code may run, it may use what
**     the lock guards. */
#ifndef TDL_SHARE_HOLD_H
#define TDL_SHARE_HOLD_H

#include "lock.h"

typedef struct tdl_hold {
  struct tdl_hold *next; /* in its bucket, or spare */
  tdl_lock *lock;
  uint64_t owner;
  uint32_t units;
  int is_kept; /* with a reference of its own */
} tdl_hold;

typedef struct tdl_holds {
  tdl_hold *spare;
  tdl_hold **buckets;
  uint32_t mask, count;
} tdl_holds;

enum { TDL_OWNER_MAIN = 1 };

static inline uint64_t tdl_owner_of_job(uint64_t serial) {
  return 2 * serial; /* those of coroutines are odd: loop.lua */
}

int tdl_holds_new(tdl_holds **out);

/* The state is closed (O3). NULL is fine. */
void tdl_holds_free(tdl_holds *holds);

/* The next add finds a spare one. */
int tdl_holds_reserve(tdl_holds *holds);

static inline tdl_hold **
tdl_holds_bucket(const tdl_holds *h, const tdl_lock *lock, uint64_t owner) {
  return &h->buckets[(((uintptr_t)lock >> 5) + owner) & h->mask];
}

/* Where the owner's hold of that lock is linked; NULL: it has none. */
static inline tdl_hold **tdl_holds_find(const tdl_holds *h,
                                        const tdl_lock *lock, uint64_t owner) {
  tdl_hold **at = tdl_holds_bucket(h, lock, owner);
  while (*at != NULL && ((*at)->lock != lock || (*at)->owner != owner)) {
    at = &(*at)->next;
  }
  return *at != NULL ? at : NULL;
}

/* There is a spare one. */
static inline void tdl_holds_add(tdl_holds *h, tdl_lock *lock, uint64_t owner,
                                 uint32_t units) {
  tdl_hold **at = tdl_holds_bucket(h, lock, owner), *hold = h->spare;
  h->spare = hold->next;
  hold->lock = lock;
  hold->owner = owner;
  hold->units = units;
  hold->is_kept = 0;
  hold->next = *at;
  *at = hold;
  h->count++;
}

/* Its units are given back, or will be; the lock may be gone then. */
static inline void tdl_holds_remove(tdl_holds *h, tdl_hold **at) {
  tdl_hold *hold = *at;
  *at = hold->next;
  hold->next = h->spare;
  h->spare = hold;
  h->count--;
  if (hold->is_kept) {
    tdl_counted_drop(&hold->lock->counted);
  }
}

/* It has a reference of its own from here on. */
static inline void tdl_hold_keep(tdl_hold *hold) {
  if (!hold->is_kept) {
    hold->is_kept = 1;
    tdl_counted_hold(&hold->lock->counted);
  }
}

/* The owner has ended (O3). */
void tdl_holds_end(tdl_holds *holds, uint64_t owner);

/* 1 when anybody here holds of it. */
int tdl_holds_any(const tdl_holds *holds, const tdl_counted *thing);

/* The state's handle goes, which had the reference. */
void tdl_holds_keep(tdl_holds *holds, tdl_counted *thing);

#endif
