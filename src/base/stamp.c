#include "stamp.h"

#ifdef TDL_STAMPS

#include "alloc.h"

_Thread_local tdl_trail *tdl_trail_own;

static _Atomic(tdl_trail *) newest;

tdl_trail *tdl_trail_new(void) {
  tdl_trail *trail = tdl_calloc(sizeof(*trail));
  if (trail == NULL) {
    return NULL;
  }
  /* relaxed: the exchange looks again */
  trail->next = atomic_load_explicit(&newest, memory_order_relaxed);
  /* [trail-list] release: the trail, and those before it */
  while (!atomic_compare_exchange_weak_explicit(&newest, &trail->next, trail,
                                                memory_order_release,
                                                memory_order_relaxed)) {
  }
  tdl_trail_own = trail;
  return trail;
}

const tdl_trail *tdl_trails(void) {
  /* [trail-list] acquire: pairs with tdl_trail_new */
  return atomic_load_explicit(&newest, memory_order_acquire);
}

#endif
