/* treadle_loop: one state's inbox, its way to sleep, its jobs and its timers.
** Threads: the owner; tdl_loop_post, _ring, _hold and _drop are for any thread.
** Owns:    its jobs; timers until they fired or were stopped.
** Fails:   with a treadle_status.
**
** L1  The memory lives until the last reference is dropped: the owner's own,
**     and one of every pool whose workers may post to it.
** L2  What arrives is handled by the owner in tdl_loop_dispatch, nowhere else.
** L3  The job that is being reported is `arriving`. If the handler leaves by a
**     Lua error, whoever catches that calls tdl_loop_lose, and the next
**     dispatch reports the job as TREADLE_ENOMEM: no future is lost. A
**     note that needs it is kept in `noting` and arrives once more; a timer
**     fires once more.
** L4  A handler may run a finalizer, which may dispatch: that one keeps the
**     outer `arriving` and `noting` and puts them back.
** L5  A late sender may ring whenever, and then writes to `peer`. So that
**     number, once there, is a socket of the loop's until its end; another
**     socket takes the number over. */
#ifndef TDL_LOOP_H
#define TDL_LOOP_H

#include <uv.h>

#include "../base/clock.h"
#include "../job/job.h"
#include "../queue/parker.h"
#include "../queue/queue.h"
#include "../treadle.h"

enum tdl_node_kind {
  TDL_NODE_HOME = 0, /* a job of ours is back; zero, as it was made */
  TDL_NODE_WATCHED,  /* the same, and that is recorded (trace.h) */
  TDL_NODE_EXPIRED,  /* a job of ours, settled by the supervisor */
  TDL_NODE_NOTE      /* a tdl_note */
};

/* A message that knows what to do; its memory is the sender's. */
typedef struct tdl_note {
  tdl_node node;
  void (*arrive)(struct tdl_note *note, treadle_loop *at);
} tdl_note;

typedef struct tdl_timer {
  uv_timer_t uv;
  treadle_loop *loop;
  struct tdl_timer *next; /* idle list */
  void (*fire)(void *ctx, uint32_t id);
  void *ctx;
  uint32_t id;
  int active;
} tdl_timer;

struct treadle_loop {
  /* any thread */
  tdl_queue inbox;
  tdl_parker parker;
  atomic_int refs;
  atomic_int peer; /* a socket that hears each ring, too; -1: none (L5) */
  /* the owner's */
  _Alignas(TDL_LINE_BYTES) tdl_jobs jobs;
  tdl_spin spin;
  tdl_node *held;           /* popped, to be handled next */
  tdl_job *arriving, *lost; /* L3 */
  tdl_note *noting;         /* L3: set and cleared by the note */
  tdl_node *lost_notes;     /* L3 */
  struct tdl_tally *tally;  /* of a worker: where it counts */
  /* of a worker: a call that a running job made has come home */
  void (*child_home)(void *owner, const tdl_job *job);
  void *owner;
  uv_loop_t *uv; /* made when the first timer or descriptor is asked for */
  uv_async_t bell;
  tdl_timer *idle_timers;
  uint32_t timers; /* active */
  uint64_t due_ns; /* of the next timer, TDL_NEVER without */
  uint32_t fired;  /* timers, since the count was last read */
  uint32_t guest;  /* of a host: the guest whose code runs now, or 0 */
  int belled;      /* the descriptor is in use by a foreign loop */
  int untold;      /* jobs may be `untold`: for the next dispatch */
  int scripted;    /* a Lua host's: what arrives may run Lua and raise */
  /* what the code of its state holds (hold.h); NULL until there are locks */
  struct tdl_holds *holds;
  struct treadle_pool *far_pools; /* its pools whose workers are processes */
  struct tdl_far
      *far; /* of such a worker, in the process: where answers come */
};

int tdl_loop_init(treadle_loop *loop);
void tdl_loop_hold(treadle_loop *loop);
void tdl_loop_drop(treadle_loop *loop); /* frees a loop made by _new */

/* A loop on the heap with one reference. */
int tdl_loop_new(treadle_loop **out);

/* The last one to know it; frees what it owns, libuv's side included (nobody
** can be ringing the bell any more, as those who post hold references). */
void tdl_loop_fini(treadle_loop *loop);

/* any thread; gives the node to the loop and wakes its owner. */
void tdl_loop_post(treadle_loop *loop, tdl_node *node);

/* any thread, and a signal handler; wakes the owner if it sleeps, for nothing. */
void tdl_loop_ring(treadle_loop *loop);

/* any thread that holds the job; gives it back to the state that made it. */
void tdl_loop_send_home(tdl_job *job);

/* owner; reports a job of its own that it settled and that is still `untold`.
** By a Lua error it may leave as dispatch does (L3). */
void tdl_loop_tell(tdl_job *job);

/* owner; settles a call of its own, if nobody has, as cancelled for that
** reason, or forced. It is reported in the next dispatch. */
void tdl_loop_cancel(tdl_job *job, const char *reason, int force);

/* owner; handles all that has arrived and the timers that are due. Returns
** how many. Runs handlers, so it may leave by a Lua error (L3). */
uint32_t tdl_loop_dispatch(treadle_loop *loop);

/* owner; the same, timers first, but nothing of the inbox is begun from that time
** on, once something was handled. */
uint32_t tdl_loop_dispatch_until(treadle_loop *loop, uint64_t end_ns);

/* owner; L3. */
void tdl_loop_lose(treadle_loop *loop);

/* owner; the state that made the calls and timers is gone: nobody hears of them
** any more. Calls that are under way go on, or are settled. */
void tdl_loop_renew(treadle_loop *loop, int settle);

/* owner; a step of dispatch by hand, while nothing is `arriving`. If what has arrived first is a job of ours
** with results: that job, now `arriving`. The caller reports it and says so, or
** holds it back for dispatch; nothing in between may raise. NULL: nothing has
** arrived, or it is for dispatch. */
tdl_job *tdl_loop_next_home(treadle_loop *loop);
void tdl_loop_reported(treadle_loop *loop);
void tdl_loop_hold_back(treadle_loop *loop);

/* owner; blocks until something has arrived, a timer is due, `ns` have passed
** or a signal handler ran. Handles nothing. */
void tdl_loop_wait(treadle_loop *loop, uint64_t ns);

/* owner; the part of wait that spins: 1 when something has arrived. 0 at once
** with a timer, whose time it does not look at. */
int tdl_loop_spin(treadle_loop *loop);

/* owner; 1 when dispatch has something left from before (held, lost). */
int tdl_loop_has_rest(const treadle_loop *loop);

/* owner; 1 when dispatch would find something now. The second is 1 also for what
** is just being pushed: who sleeps asks that [park]. */
int tdl_loop_is_ready(const treadle_loop *loop);
int tdl_loop_has_work(const treadle_loop *loop);

/* owner; nanoseconds until the next timer, TDL_NEVER without one. */
uint64_t tdl_loop_next_ns(const treadle_loop *loop);

/* owner; a descriptor that is readable when dispatch has something to do, or
** a negative status. The owner arms it before a foreign loop sleeps on it:
** 1 armed, 0 there is work already. */
int tdl_loop_fd(treadle_loop *loop);
int tdl_loop_arm(treadle_loop *loop);
void tdl_loop_disarm(treadle_loop *loop);

/* owner; for a foreign loop that cannot watch a descriptor of others: whenever
** the descriptor becomes readable, a byte is sent on `socket`, which is the
** loop's from then on, also in the place of one before it. On failure it is
** the caller's. */
int tdl_loop_join(treadle_loop *loop, int socket);

/* owner; the same for one who cannot ask first: the descriptor, which exists,
** is readable at once if there is work, or if the owner is `ready`. */
void tdl_loop_leave(treadle_loop *loop, int ready);

/* owner; calls fire(ctx, id) from dispatch once, after `ns`. Stop accepts a
** timer that fired in this dispatch. */
int tdl_loop_timer(treadle_loop *loop, uint64_t ns,
                   void (*fire)(void *ctx, uint32_t id), void *ctx, uint32_t id,
                   tdl_timer **out);
void tdl_timer_stop(tdl_timer *timer);

#endif
