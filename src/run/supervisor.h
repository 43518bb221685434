/* tdl_supervisor: the one thread of the process that watches the clock.
** Threads: any; the functions lock what they need.
** Owns:    its thread, from the first watched job to the last pool's end; of
**          a watched job only its place in the heap.
** Fails:   TREADLE_ENOMEM from watch.
**
** Deadlines hold while the home computes and never polls: the supervisor
** settles the job itself and sends word to the home's inbox.
**
** S1  A job is in the heap from watch until it is forgotten or expires.
** S2  An expired job that the supervisor settled has its `expiry` node in the
**     home's inbox, posted under the lock: after tdl_supervisor_forget it is
**     known whether one comes. Until it came the job is not recycled. */
#ifndef TDL_SUPERVISOR_H
#define TDL_SUPERVISOR_H

#include "loop.h"

/* A pool is open: the supervisor stays. The last drop ends its thread. */
void tdl_supervisor_hold(void);
void tdl_supervisor_drop(void);

/* home, before the job is submitted; its deadline_ns is set. */
int tdl_supervisor_watch(tdl_job *job);

/* home, when the job is back. */
void tdl_supervisor_forget(tdl_job *job);

#endif
