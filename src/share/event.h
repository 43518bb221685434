/* tdl_event: a flag that many may wait for.
** Threads: any.
** Owns:    nothing of those who wait.
** Fails:   TREADLE_ENOMEM from new. */
#ifndef TDL_SHARE_EVENT_H
#define TDL_SHARE_EVENT_H

#include "../base/counted.h"
#include "guard.h"
#include "wait.h"

typedef struct tdl_event {
  tdl_counted counted; /* first */
  tdl_guard guard;
  atomic_int is_set; /* written under the guard */
  tdl_waiters waiters;
} tdl_event;

extern const tdl_kind tdl_event_kind;

int tdl_event_new(tdl_event **out);

/* Wakes all who wait. */
void tdl_event_set(tdl_event *event);
void tdl_event_reset(tdl_event *event);
int tdl_event_is_set(const tdl_event *event);

/* 1 when it is set; else the waiter stands in the list. */
int tdl_event_wait(tdl_event *event, tdl_waiter *waiter);
void tdl_event_leave(tdl_event *event, tdl_waiter *waiter);

#endif
