#include "event.h"

#include "../base/alloc.h"
#include "../base/compiler.h"
#include "../treadle.h"

static void free_event(tdl_counted *counted) {
  tdl_free(TDL_CONTAINER(counted, tdl_event, counted));
}

const tdl_kind tdl_event_kind = {"event", free_event};

int tdl_event_new(tdl_event **out) {
  tdl_event *e = tdl_calloc(sizeof(*e));
  if (e == NULL) {
    return TREADLE_ENOMEM;
  }
  tdl_counted_init(&e->counted, &tdl_event_kind);
  *out = e;
  return 0;
}

void tdl_event_set(tdl_event *e) {
  tdl_waiter *granted;
  tdl_guard_lock(&e->guard);
  /* [event] release: what was done before it was set */
  atomic_store_explicit(&e->is_set, 1, memory_order_release);
  granted = tdl_waiters_grant_all(&e->waiters, NULL);
  tdl_guard_unlock(&e->guard);
  tdl_waiters_tell(granted);
}

void tdl_event_reset(tdl_event *e) {
  tdl_guard_lock(&e->guard);
  /* relaxed: nothing goes with it */
  atomic_store_explicit(&e->is_set, 0, memory_order_relaxed);
  tdl_guard_unlock(&e->guard);
}

int tdl_event_is_set(const tdl_event *e) {
  /* [event] acquire: see set */
  return atomic_load_explicit(&e->is_set, memory_order_acquire);
}

int tdl_event_wait(tdl_event *e, tdl_waiter *waiter) {
  int is_set;
  tdl_guard_lock(&e->guard);
  is_set = tdl_event_is_set(e);
  if (!is_set) {
    tdl_waiters_add(&e->waiters, waiter);
  }
  tdl_guard_unlock(&e->guard);
  return is_set;
}

void tdl_event_leave(tdl_event *e, tdl_waiter *waiter) {
  tdl_guard_lock(&e->guard);
  tdl_waiters_remove(waiter);
  tdl_guard_unlock(&e->guard);
}
