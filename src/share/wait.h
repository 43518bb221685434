/* tdl_wait: one wait of a coroutine, for one shared thing or the first of
** several.
** Threads: whoever grants it; its home, which made it and gives it up.
** Owns:    nothing; its memory is the home's until it was told.
** Fails:   never.
**
** W1  The word decides: the one compare-and-swap from WAITING to GRANTED, by
**     whoever has what it waits for, or to GONE, by the home.
** W2  Who granted it writes `index` and `value`, and tells the home, once. Until
**     it was told the wait stays where it is. What was granted and finds nobody
**     who takes it goes back (`undo` of the binding layer).
** W3  It stands in the lists of the things that it waits for, each under that
**     thing's guard, until it is granted there or the home takes it out. Who
**     finds it settled in a list passes over it. */
#ifndef TDL_SHARE_WAIT_H
#define TDL_SHARE_WAIT_H

#include <stdatomic.h>
#include <stdint.h>

enum { TDL_WAITING = 0, TDL_GRANTED, TDL_GONE };

typedef struct tdl_wait {
  atomic_uint word;
  uint32_t index;                      /* of the waiter that was granted */
  void *value;                         /* what it was given */
  void (*tell)(struct tdl_wait *wait); /* any thread, with no lock */
} tdl_wait;

/* Its place in one list. */
typedef struct tdl_waiter {
  struct tdl_waiter *next, *before;
  struct tdl_waiters *list; /* NULL: in none; granted ones are in a chain */
  tdl_wait *wait;
  uint32_t index;
  void *offer; /* what it brings */
} tdl_waiter;

/* First come, first served; under its thing's guard. */
typedef struct tdl_waiters {
  tdl_waiter *first, *last;
} tdl_waiters;

void tdl_waiters_add(tdl_waiters *list, tdl_waiter *waiter);
void tdl_waiters_remove(tdl_waiter *waiter); /* nothing, if it is in none */

/* Takes it out; 1 when it still waited, and is granted that: the caller tells it
** when it has let go of the lock. It ends a chain, by `next`. */
int tdl_waiter_grant(tdl_waiter *waiter, void *value);

/* The same for the first one that still waits; NULL: nobody does. */
tdl_waiter *tdl_waiters_grant(tdl_waiters *list, void *value);

/* The same for all who wait: a chain of them, in their order. */
tdl_waiter *tdl_waiters_grant_all(tdl_waiters *list, void *value);

/* Any thread, with no lock: tells a chain of granted ones, in its order. */
void tdl_waiters_tell(tdl_waiter *granted);

/* home; 1 when nobody granted it, and nobody will. */
int tdl_wait_give_up(tdl_wait *wait);

#endif
