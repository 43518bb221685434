/* tdl_supervisor: the one thread of the process that watches the clock.
** Threads: any; the functions lock what they need.
** Owns:    its thread, from the first watched job or worker to the last pool's
**          end; of a watched job only its place among the deadlines.
** Fails:   TREADLE_ENOMEM or TREADLE_ESYSTEM from watch.
**
** Deadlines hold while the home computes and never polls: the supervisor
** settles the job itself and sends word to the home's inbox. It also stops
** what does not end by itself.
**
** S1  A job is among the deadlines from watch until it is forgotten or expires.
** S2  A job that the supervisor settled has its `expiry` node in the home's
**     inbox, posted under the lock: after tdl_supervisor_forget it is known
**     whether one comes. Until it came the job is not recycled.
** S3  A worker is guilty when the code that runs in it belongs to a FORCED job
**     and has computed for TDL_STOP_COMPUTE_NS under the supervisor's eyes, or
**     stood still for TDL_STOP_STILL_NS, not for want of a processor; or when
**     its `end_ns` is over, and it has done as much since then, whatever it
**     runs; or has exceeded its memory. It is condemned then: asked to leave its
**     state, and interrupted again and again, until it has obeyed, or was
**     pardoned because it had ended by itself what it was condemned for.
** S4  Who stays guilty for TDL_STOP_PATIENCE_NS in which its thread had the
**     chance to obey (chance.h) is stuck in C: it is written off. Its jobs are settled as TREADLE_ECRASHED, and another worker takes
**     its slot, unless the pool is STOPPED, or mortal: then it is now (P11). From then on the thread touches
**     nothing of the pool's but its own struct, and ends when C returns: it is
**     interrupted, rarely, until then, since it may be in Lua again.
** S5  A worker that waits forces the calls of its FORCED jobs itself (V4). One
**     that computes such a call cannot: the supervisor forces that one. */
#ifndef TDL_SUPERVISOR_H
#define TDL_SUPERVISOR_H

#include "chance.h"
#include "loop.h"

struct tdl_worker;

/* What the supervisor knows of a worker, under its lock. */
typedef struct tdl_stop {
  struct tdl_worker *next;      /* of those that it looks at */
  struct tdl_worker *next_lost; /* of those of its pool without a slot */
  int listed;
  int forced;       /* FORCED jobs that have not ended */
  int exhausted;    /* it has exceeded its memory: end_ns is over */
  int given_up;     /* stuck in C: S4 */
  int written_off;  /* the same, and it has lost its slot */
  int late;         /* its end_ns was over at the last look */
  tdl_job *suspect; /* FORCED, and its code ran at the last look */
  uint64_t used_ns; /* its chance's, when that began */
  uint64_t still_ns;
  uint64_t end_ns;   /* when all that it runs must end; TDL_NEVER */
  uint64_t leave_ns; /* the same, if it is still to leave its slot by then */
  uint64_t due_ns;   /* next look */
  uint64_t pause_ns; /* from that one to the one after it */
  uint64_t condemned_ns; /* since when; 0: it is not */
  uint64_t had_ns;       /* of its chance, then, in all */
  tdl_chance chance;     /* to end, while it is looked at */
} tdl_stop;

/* A pool is open: the supervisor stays. The last drop ends its thread. */
void tdl_supervisor_hold(void);
void tdl_supervisor_drop(void);

/* home; starts its thread now: a confined worker, which would be the first to need
** it, cannot. 0 or TREADLE_ESYSTEM. */
int tdl_supervisor_start(void);

/* home, before the job is submitted; its deadline_ns is set. */
int tdl_supervisor_watch(tdl_job *job);

/* home, when the job is back. */
void tdl_supervisor_forget(tdl_job *job);

/* home; settles the job (J3), and if it runs its code must stop now. 0 when
** somebody was first. */
int tdl_supervisor_force(tdl_job *job);

/* any thread; the same of that use of it, if it still is that one, as FORCED or
** EXPIRED. */
int tdl_supervisor_stop(tdl_job *job, uint32_t generation,
                        enum tdl_job_state to);

/* any thread that keeps the pool; whatever the worker runs must end within
** `ns`. */
void tdl_supervisor_end(struct tdl_worker *worker, uint64_t ns);

/* worker, anywhere: the same, now, because the code that runs has exceeded the
** memory of its state. */
void tdl_supervisor_exhausted(struct tdl_worker *worker);

/* any thread; after it, whoever was not written off has its slot for as long as
** the pool, which is STOPPED, exists. */
void tdl_supervisor_quiesce(void);

/* any thread; its lock, which guards the sizes of pools, too (size.h). */
void tdl_supervisor_lock(void);
void tdl_supervisor_unlock(void);

/* any thread that keeps the pool; looks at its size when that is due, or sooner.
** 0 or TREADLE_ESYSTEM. */
int tdl_supervisor_look_at_locked(struct treadle_pool *pool, uint64_t due);

/* any thread that keeps the pool; the worker's slot is shut: what it runs must
** end within `ns`. */
void tdl_supervisor_leave_locked(struct tdl_worker *worker, uint64_t ns);

/* The worker, without a state: it is not looked at until it starts again. */
void tdl_supervisor_rests_locked(struct tdl_worker *worker);

/* The pool's end. */
void tdl_supervisor_forget_pool(struct treadle_pool *pool);

/* The worker: a job of its own that was settled has ended; 1 when it may go on
** although it was condemned (S3); its state is gone, to be followed by another
** or not: 0 when it has lost its slot (S4). */
void tdl_supervisor_job_ended(struct tdl_worker *worker, const tdl_job *job);
int tdl_supervisor_pardons(struct tdl_worker *worker);
int tdl_supervisor_obeyed(struct tdl_worker *worker, int ends);

/* The worker: it has a state that has booted, or none any more. One that is
** written off does not count, from before another one can. */
void tdl_supervisor_counts(struct tdl_worker *worker, int up);

#endif
