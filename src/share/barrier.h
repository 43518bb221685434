/* tdl_barrier: a place where so many wait for each other, again and again.
** Threads: any.
** Owns:    nothing of those who wait.
** Fails:   TREADLE_ENOMEM from new.
**
** R1  Nobody goes on before all have come: a waiter gives up under the guard, so
**     that whoever stands in the list is there until it was granted.
** R2  Those who come after the last one are the next generation's. */
#ifndef TDL_SHARE_BARRIER_H
#define TDL_SHARE_BARRIER_H

#include "../base/counted.h"
#include "guard.h"
#include "wait.h"

typedef struct tdl_barrier {
  tdl_counted counted; /* first */
  tdl_guard guard;
  uint32_t count;   /* how many it takes */
  uint32_t waiting; /* under the guard, as the list */
  tdl_waiters waiters;
} tdl_barrier;

extern const tdl_kind tdl_barrier_kind;

int tdl_barrier_new(uint32_t count, tdl_barrier **out);

/* The number of this one among those of its generation if it is the last one:
** then the others were granted theirs, as their waits' values. 0: the waiter
** stands in the list. */
uint32_t tdl_barrier_wait(tdl_barrier *barrier, tdl_waiter *waiter);

/* home; 1 when it stood in the list and was not granted: it does not count. */
int tdl_barrier_give_up(tdl_barrier *barrier, tdl_waiter *waiter);

#endif
