/* tdl_events: what the home of a pool is told of its workers and their jobs while
** somebody listens.
** Threads: below.
** Owns:    an event, from post until the home has handled it.
** Fails:   never; without memory an event is left out. */
#ifndef TDL_EVENTS_H
#define TDL_EVENTS_H

#include "pool.h"

/* home; whether events are told from now on. */
void tdl_events_listen(treadle_pool *pool, int listens);

/* any thread that keeps the pool; one load that rarely misses. */
static inline int tdl_events_wanted(const treadle_pool *pool) {
  return atomic_load_explicit(&pool->listens, memory_order_relaxed) != 0;
}

/* The same. Reaches pool->event with these values as a payload: the event's
** name, and what belongs to it, where it does: the number of the task, the
** kind of an error or a reason, seconds. `text` NULL: nil. */
void tdl_events_post(treadle_pool *pool, uint32_t worker, const char *name,
                     uint32_t task, const char *text, double seconds);

#endif
