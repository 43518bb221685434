/* tdl_events: what the home of a pool is told of its workers and their jobs while
** somebody listens.
** Threads: below.
** Owns:    an event, from post until the home has handled it.
** Fails:   never; without memory an event is left out. */
#ifndef TDL_EVENTS_H
#define TDL_EVENTS_H

#include "pool.h"

/* any thread that keeps the pool. Reaches pool->event with these values as a payload: the event's
** name, and what belongs to it, where it does: the number of the task, the
** kind of an error or a reason, seconds. `text` NULL: nil. */
void tdl_events_post(treadle_pool *pool, uint32_t worker, const char *name,
                     uint32_t task, const char *text, double seconds);

#endif
