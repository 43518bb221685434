/* tdl_thread: the thread of a worker, and what it tells the pool's home.
** Threads: each function says whose.
** Owns:    the worker's states, one after the other.
** Fails:   a worker that cannot start says so in its first note.
**
** Its life is a row of states (tdl_vm): each is booted, serves (turns.h), and is
** closed. Most workers have one alone; another follows when the worker is
** recycled or condemned, or its slot is opened again. */
#ifndef TDL_THREAD_H
#define TDL_THREAD_H

#include "worker.h"

/* Its notes to the home, which are handled there. */
void tdl_thread_init(tdl_worker *worker);

/* home or supervisor, with the supervisor's lock; it has no thread. 0,
** TREADLE_ENOMEM or TREADLE_ESYSTEM. */
int tdl_thread_start(tdl_worker *worker);

/* worker; its home looks again whether a change of the workers is over. */
void tdl_thread_tell_renewed(tdl_worker *worker);

/* home; the pool is closed: whatever lies in its queues comes home as
** TREADLE_ECLOSED. */
void tdl_thread_refuse_all(treadle_pool *pool);

/* The thread at its end, and the home after it: messages that came too late.
** Those of all workers go before any worker is freed, because what lies in one's
** inbox may be another's. */
void tdl_thread_drop_inbox(tdl_worker *worker);

#endif
