#include "event.h"

#include "../base/alloc.h"
#include "../base/compiler.h"
#include "../treadle.h"

static void free_event(tdl_counted *counted) {
  tdl_event *e = TDL_CONTAINER(counted, tdl_event, counted);
  pthread_mutex_destroy(&e->lock);
  tdl_free(e);
}

const tdl_kind tdl_event_kind = {"event", free_event};

int tdl_event_new(tdl_event **out) {
  tdl_event *e = tdl_calloc(sizeof(*e));
  if (e == NULL) {
    return TREADLE_ENOMEM;
  }
  tdl_counted_init(&e->counted, &tdl_event_kind);
  pthread_mutex_init(&e->lock, NULL);
  *out = e;
  return 0;
}

void tdl_event_set(tdl_event *e) {
  tdl_waiter *granted;
  pthread_mutex_lock(&e->lock);
  /* [event] release: what was done before it was set */
  atomic_store_explicit(&e->is_set, 1, memory_order_release);
  granted = tdl_waiters_grant_all(&e->waiters, NULL);
  pthread_mutex_unlock(&e->lock);
  tdl_waiters_tell(granted);
}

void tdl_event_reset(tdl_event *e) {
  pthread_mutex_lock(&e->lock);
  /* relaxed: nothing goes with it */
  atomic_store_explicit(&e->is_set, 0, memory_order_relaxed);
  pthread_mutex_unlock(&e->lock);
}

int tdl_event_is_set(const tdl_event *e) {
  /* [event] acquire: see set */
  return atomic_load_explicit(&e->is_set, memory_order_acquire);
}

int tdl_event_wait(tdl_event *e, tdl_waiter *waiter) {
  int is_set;
  pthread_mutex_lock(&e->lock);
  is_set = tdl_event_is_set(e);
  if (!is_set) {
    tdl_waiters_add(&e->waiters, waiter);
  }
  pthread_mutex_unlock(&e->lock);
  return is_set;
}

void tdl_event_leave(tdl_event *e, tdl_waiter *waiter) {
  pthread_mutex_lock(&e->lock);
  tdl_waiters_remove(waiter);
  pthread_mutex_unlock(&e->lock);
}
