/* tdl_ahead: calls that lie ahead of a process which has as many as it may
** (tickets.h), so that it goes on without anybody.
** Threads: whoever has the keeper's lock (keeper.h, H1), and as told.
** Owns:    nothing.
** Fails:   never.
**
** W1  Only what could begin nowhere else goes ahead: no other worker is idle, and
**     the run queue has one rank. An idle worker takes the oldest that another one
**     has ahead. So who goes ahead counts it, then looks for idle workers; who is
**     idle says so, then looks for what is counted [ahead].
** W2  A process that has ended no job for TDL_PUMP_STUCK_NS gets none ahead, and
**     who takes calls takes what it has first: the clock runs from when its present
**     job is first looked at (`seen_ns`).
** W3  Only what is short, names nothing and has no deadline lies in the ring; what
**     is not stays the last of the list, and bare.
** W4  A record that the process needs for what it has begun (an answer, credit)
**     would lie behind what waits for room: that is withdrawn before. */
#ifndef TDL_AHEAD_H
#define TDL_AHEAD_H

#include "keeper.h"

/* From the run queue: how many records it has put. */
uint32_t tdl_ahead_feed(tdl_keeper *keeper);

/* any thread; more may go ahead: a hint. And W1: another worker is idle. */
int tdl_ahead_has_room(const tdl_keeper *keeper);
int tdl_ahead_is_wanted(const tdl_keeper *keeper);

/* any thread; W2. */
int tdl_ahead_is_stuck(tdl_keeper *keeper);

/* What the process has not begun is bare from now on. */
void tdl_ahead_withdraw(tdl_keeper *keeper);

/* The oldest of that, for another worker; NULL: there is none. */
tdl_job *tdl_ahead_take(tdl_keeper *keeper);

/* All of it: how much. Into the slot's queue, or the run queue. */
uint32_t tdl_ahead_give_back(tdl_keeper *keeper, int to_slot);

/* H7: does what others want; if they do. */
void tdl_ahead_heed(tdl_keeper *keeper);

/* The process has ended: the first that is ahead had begun, and is started, as if
** the pool has `stopped`; or goes back to the slot. */
void tdl_ahead_lose(tdl_keeper *keeper, int stopped);

#endif
