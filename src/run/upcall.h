/* tdl_upcall: what the code of a worker in a process of its own does with its own
** pool, which is the parent's (the other end: nested.h).
** Threads: the worker's.
** Owns:    nothing: the calls are its loop's.
** Fails:   as told.
**
** U1  A call on the own pool is a job of the worker's loop, as any. It goes up as a
**     record and stays QUEUED here; its number is its ticket until it is answered,
**     once: only then does it come home, settled or not (J4).
** U2  The answer lies in the ring among the calls, and arrives where all does that
**     is for the state: in its loop's dispatch, wherever that is called from.
** U3  Who settles such a call here says so to the parent, behind the call. Not its
**     deadline: the parent knows that.
** U4  The parent counts how many jobs this process has, and so it says when one
**     more may start (V3): whatever call has come is taken, but what was put ahead
**     waits for room here.
** U5  What a task emits goes up as records, behind which its result comes. It has
**     credit for as many as its caller's stream has room for (the parent's job has
**     that one), and gets more as they are taken. Without any it waits in a stream
**     of its own, which has no room. */
#ifndef TDL_UPCALL_H
#define TDL_UPCALL_H

#include "loop.h"

struct tdl_far;

/* What is asked of the pool. */
enum tdl_ask_pool {
  TDL_ASK_CLOSE = 1,
  TDL_ASK_TERMINATE,      /* the reason, a text */
  TDL_ASK_CANCEL_PENDING, /* the reason, encoded; replies how many */
  TDL_ASK_RENEW,
  TDL_ASK_RESIZE /* the number: min << 32 | max; replies a status */
};

/* Whether calls can be made: its start was told. */
int tdl_upcall_may_call(const struct tdl_far *far);

/* Takes the job, which was prepared. `place`: see TDL_FAR_NESTED. */
void tdl_upcall_submit(tdl_job *job, int place);

/* Its home has settled a job, which may be such a call (U3). */
void tdl_upcall_settled(const tdl_job *job, enum tdl_job_state to);

/* So many jobs do not count from now on (V3). */
void tdl_upcall_exempt(struct tdl_far *far, uint32_t jobs, int are_more);

/* U5; a job that came from the parent. */
int tdl_upcall_is_far(const tdl_job *job);

/* Whether its caller is a task of the same pool. */
int tdl_upcall_is_nested(const tdl_job *job);

/* 1 when it has credit; 0: it waits for that, from now on; -1: nobody wants what it
** emits. */
int tdl_upcall_may_emit(const tdl_job *job);

/* It has; 0, or TREADLE_ENOMEM or TREADLE_EPAYLOAD. */
int tdl_upcall_emit(const tdl_job *job, const tdl_bytes *payload);

/* Provided by the binding layer: it has credit, or nobody wants any more. */
void tdl_bind_credited(tdl_job *job, int is_unwanted);

/* Whether an answer has come; and moves all into the loop's inbox: how many. */
int tdl_upcall_ready(struct tdl_far *far);
int tdl_upcall_collect(struct tdl_far *far, treadle_loop *loop);

/* Blocks until something may have arrived in the worker's loop, at most `ns`. */
void tdl_upcall_wait(struct tdl_far *far, treadle_loop *loop, uint64_t ns);

/* The pool's size, at least and now; whether it takes no more calls of its home. */
uint32_t tdl_upcall_min_size(const struct tdl_far *far);
uint32_t tdl_upcall_size(const struct tdl_far *far);
int tdl_upcall_is_closing(const struct tdl_far *far);

/* Asks the pool for that, without an answer; and blocks for one. */
void tdl_upcall_tell(struct tdl_far *far, enum tdl_ask_pool what,
                     uint64_t number, const void *data, size_t len);
int64_t tdl_upcall_ask(struct tdl_far *far, enum tdl_ask_pool what,
                       uint64_t number, const void *data, size_t len);

#endif
