/* tdl_pool_phase: how a pool comes to its end (P2), and what is counted for that:
** what may still bring forth calls (P5), and threads (P10).
** Threads: any that keeps the pool.
** Owns:    nothing: its fields are the pool's.
** Fails:   never. */
#ifndef TDL_PHASE_H
#define TDL_PHASE_H

#include "pool.h"

/* Raises the phase and wakes everybody. */
void tdl_pool_stop(treadle_pool *pool, enum tdl_pool_phase phase);

/* Before the caller stops the pool; the first reason counts. NULL: there is
** none. Copied; without memory there is none. */
void tdl_pool_set_reason(treadle_pool *pool, const char *text);
const char *tdl_pool_reason(const treadle_pool *pool);

/* P11: whoever has ended the state, and settled what it ran, with why; a mortal
** pool is stopped then, another one goes on. Then what it was, or 0. */
void tdl_pool_lose_state(treadle_pool *pool, int status);
int tdl_pool_died_of(const treadle_pool *pool);

/* Every worker takes another turn. */
void tdl_pool_wake_all(treadle_pool *pool);

/* P5. Somebody more, or less, that may bring forth calls. With the last one a
** drain comes to its end: the pool is stopped. */
void tdl_pool_add_busy(treadle_pool *pool);
void tdl_pool_drop_busy(treadle_pool *pool);

/* P10. A thread is about to start: 0 when none may. One did not; the home: one
** has ended, 1 when the caller is to report that the pool is closed. */
int tdl_pool_add_thread(treadle_pool *pool);
void tdl_pool_no_thread(treadle_pool *pool);
int tdl_pool_thread_ended(treadle_pool *pool);

/* 1 while some are to be joined. */
int tdl_pool_has_threads(const treadle_pool *pool);

#endif
