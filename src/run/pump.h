/* tdl_pump: the hand-off between a pool and the processes of its workers: calls
** from the queues into the rings, results from the rings to their homes.
** Threads: whoever has something to hand off or waits for it (keeper.h, H1).
** Owns:    nothing.
** Fails:   never. */
#ifndef TDL_PUMP_H
#define TDL_PUMP_H

#include "keeper.h"

/* any thread that keeps the pool, after it has pushed a call: gives it to a process
** with room, if there is one. The second: to that worker's slot. */
void tdl_pump_feed(treadle_pool *pool);
void tdl_pump_sent(struct tdl_worker *worker);

/* any thread; what the pool's processes have ahead and have not begun is withdrawn,
** and what of it was settled goes home: if it `waits`, before it returns. */
void tdl_pump_recall(treadle_pool *pool, int waits);

/* any thread; that goes back to the slots, and there is nothing ahead from then on
** until the second. */
void tdl_pump_give_back(treadle_pool *pool);
void tdl_pump_may_go_ahead(treadle_pool *pool);

/* home; results of its processes: how many things it has moved; whether there are
** any to be had. */
int tdl_pump_home(treadle_loop *loop);
int tdl_pump_ready(const treadle_loop *loop);

/* home; it sleeps from now on so, or not any more: its processes are told. On which
** words it may, at most so many: of processes that have calls. */
void tdl_pump_away(treadle_loop *loop, enum tdl_link_away away);
uint32_t tdl_pump_away_on(treadle_loop *loop, tdl_parker_word *words,
                          uint32_t most);

/* --- for the worker's thread ----------------------------------------------- */

enum tdl_pump_serves {
  TDL_PUMP_SHUT = 0, /* there is no process, or one that has yet to boot */
  TDL_PUMP_LAST,     /* it ends what it has, and what that needs (V3) */
  TDL_PUMP_SENT,     /* it takes what was sent to its slot */
  TDL_PUMP_ANY
};

/* Moves what there is: how much. And whether there is anything: the look before it
** sleeps. */
uint32_t tdl_pump_own(tdl_keeper *keeper);
int tdl_pump_has_more(const tdl_keeper *keeper);

/* Something waits for room in the ring. */
int tdl_pump_lacks_room(tdl_keeper *keeper);

/* The process has no job. The second: and gets none from now on, if so. */
int tdl_pump_is_idle(const tdl_keeper *keeper);
int tdl_pump_retire(tdl_keeper *keeper);

/* With the lock; the next call that may begin anywhere: of one that is stuck, or of the
** run queue. NULL: there is none. */
tdl_node *tdl_pump_next(tdl_keeper *keeper);

/* With the lock; a record for the process, as tdl_crossing_put. */
int tdl_pump_put(tdl_keeper *keeper, tdl_record *head,
                 const tdl_bytes *payload);

void tdl_pump_serve(tdl_keeper *keeper, enum tdl_pump_serves serves);

/* It has ended: what it has not begun goes back to the slot, the rest has that
** status, and the text as its report. */
void tdl_pump_lose(tdl_keeper *keeper, int status, const char *text);

/* Tells the process what others have settled: when it must have ended that, or
** TDL_NEVER. */
uint64_t tdl_pump_tell_settled(tdl_keeper *keeper);

/* Shows the process how large the pool is, and whether it closes. */
void tdl_pump_tell_pool(tdl_keeper *keeper);

/* Wakes the process if it rests. */
void tdl_pump_wake(tdl_keeper *keeper);

/* Whether others than the worker's thread may hand off (H1). */
int tdl_pump_is_open(const treadle_pool *pool);

void tdl_pump_lock(tdl_keeper *keeper);
void tdl_pump_unlock(tdl_keeper *keeper);

/* any thread that keeps the pool; the job that has that ticket, 0: the one that was
** begun last; and in which use. NULL: there is none. */
const tdl_job *tdl_pump_job(tdl_keeper *keeper, uint32_t ticket,
                            uint32_t *generation);

/* any other thread that has locked it; hands off what was left to it meanwhile. */
void tdl_pump_leave(tdl_keeper *keeper);

#endif
