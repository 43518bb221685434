#include "barrier.h"

#include "../base/alloc.h"
#include "../base/compiler.h"
#include "../treadle.h"

static void free_barrier(tdl_counted *counted) {
  tdl_free(TDL_CONTAINER(counted, tdl_barrier, counted));
}

const tdl_kind tdl_barrier_kind = {"barrier", free_barrier};

int tdl_barrier_new(uint32_t count, tdl_barrier **out) {
  tdl_barrier *b = tdl_calloc(sizeof(*b));
  if (b == NULL) {
    return TREADLE_ENOMEM;
  }
  tdl_counted_init(&b->counted, &tdl_barrier_kind);
  b->count = count;
  *out = b;
  return 0;
}

uint32_t tdl_barrier_wait(tdl_barrier *b, tdl_waiter *waiter) {
  tdl_waiter *granted = NULL, **end = &granted;
  uint32_t number = 0;
  tdl_guard_lock(&b->guard);
  if (b->waiting + 1 < b->count) {
    b->waiting++;
    tdl_waiters_add(&b->waiters, waiter);
  } else {
    b->waiting = 0; /* R2 */
    number = 1;     /* R1: none of them fails */
    while ((*end = tdl_waiters_grant(&b->waiters, (void *)(uintptr_t)number)) !=
           NULL) {
      end = &(*end)->next;
      number++;
    }
  }
  tdl_guard_unlock(&b->guard);
  tdl_waiters_tell(granted);
  return number;
}

int tdl_barrier_give_up(tdl_barrier *b, tdl_waiter *waiter) {
  int given_up;
  tdl_guard_lock(&b->guard);
  given_up = tdl_wait_give_up(waiter->wait);
  if (given_up && waiter->list != NULL) {
    tdl_waiters_remove(waiter);
    b->waiting--;
  }
  tdl_guard_unlock(&b->guard);
  return given_up;
}
