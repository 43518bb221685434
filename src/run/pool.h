/* treadle_pool: a run queue and the workers that take from it.
** Threads: the home state opens, submits and closes; workers of the pool
**          submit, too; the fields say who else touches them.
** Owns:    its workers and their loops, until the last reference is dropped.
** Fails:   with a treadle_status.
**
** P1  References: the home's handle, one of every worker's first note, and one
**     of every worker thread, which travels with its last note. A note's is
**     dropped when the home has read it.
**     A thread that the home has left to itself before posts none and drops
**     it by itself. The pool holds its home loop (L1).
** P2  Phases only rise. OPEN: takes calls. DRAINING: takes calls of its own
**     workers only, and ends when nothing is left. STOPPED: workers leave,
**     what is queued comes home as TREADLE_ECLOSED. Above the phase, in the
**     same word, is who watches (watch.h).
** P3  A worker's bit in `idle` is set by it before its second look at the
**     queues, and cleared by whoever wakes it for work, or by itself. It may
**     sleep only while the bit is set: the second look includes the bit.
**     One that sleeps in its script's own loop (luv) runs callbacks there and
**     may come back late. It has a bit in `abroad` instead. Whoever wakes those,
**     all of them, relies on none: they are not counted in `searching`.
** P4  `searching` counts workers that are awake and look for work, those
**     included that somebody is just waking. While it is not 0 nobody wakes
**     another: the last searcher that finds work looks whether there is more
**     and wakes the next. So one wake-up is under way at a time.
** P5  `busy` counts workers that may still bring forth calls: those that have a
**     state or are about to get one; and the jobs that the home runs itself
**     (guests). It matters when DRAINING: at 0 with empty queues nothing can come
**     any more.
** P6  In a pool with max_queue, `load` counts the jobs that wait or hold a
**     worker's place: from their submission until they end, are settled before
**     they start, become the home's guests, or for as long as they wait for
**     calls on their own pool (V3). Each worker knows its share, `places`, so
**     that one that is written off has none. A call is taken while that is less
**     than all the places that the pool may come to have and max_queue together.
**     The home may want to hear of room: it says so in `wants` and looks again;
**     who lowers `load` looks at `wants`.
** P7  While the home watches, `astir` counts workers that are not quiet (<drain.Q1>).
**     At 0 with an empty queue no call of a worker's is under way; those of
**     the home are for it to know. `watched` is the number of that watch, else 0:
**     each worker tells once more for a new one.
** P8  `news` is what the home is to hear, though no job comes: one note brings
**     all of it. It holds the pool (P1). A home that leaves the pool is DEAF, and
**     waits for those who are just telling.
** P9  A home that helps its workers says in `home_idles` that it found nothing, and
**     looks again before it sleeps; a worker that has pushed a call looks at it.
** P10 A pool has slots 1 to `threads`; there are only ever more of them. The
**     slots 1 to `size.now` are to have a worker (size.h). `alive` counts the
**     threads that the home has not joined. None starts in a STOPPED pool; one
**     that is STOPPED at `alive` = 0 is closed.
** P11 A MORTAL pool, which has one worker, ends with that one's state. Whoever
**     ends it while the pool is not STOPPED settles what the state ran, and then
**     stops the pool, before its place could be taken: no call ever runs in
**     another state. `died_of` says how. */
#ifndef TDL_POOL_H
#define TDL_POOL_H

#include <pthread.h>

#include "../job/stage.h"
#include "../queue/backlog.h"
#include "loop.h"
#include "size.h"
#include "stats.h"

enum tdl_pool_phase { TDL_POOL_OPEN = 0, TDL_POOL_DRAINING, TDL_POOL_STOPPED };

#define TDL_POOL_PHASE(word) ((word)&3u)
#define TDL_POOL_WATCH(who)  ((uint32_t)(who) << 2)

#define TDL_POOL_IDLE_WORDS (TDL_POOL_MAX_WORKERS / 64)

#define TDL_POOL_NO_LIMIT UINT32_MAX

struct tdl_far;
struct tdl_hook;
struct tdl_keeper_plan;
struct tdl_policy;
struct tdl_worker;
struct tdl_vm;

/* What the home hears of its workers, in dispatch. */
typedef enum tdl_pool_event {
  TDL_POOL_STARTED, /* a worker has loaded the module; bytes: its report */
  TDL_POOL_FAILED,  /* it could not; bytes: the error, empty: no memory */
  TDL_POOL_CUT_OFF, /* it had not yet when the pool was stopped */
  TDL_POOL_RENEWED, /* a worker has booted a further state, or several */
  TDL_POOL_LEFT,    /* a slot has no worker any more: the pool is smaller */
  TDL_POOL_EXITED,  /* a worker's thread has ended, or was written off */
  TDL_POOL_CLOSED,  /* the last one has */
  TDL_POOL_HEARD,   /* bytes: an event, see events.h */
  TDL_POOL_ROOM,    /* there is room for a call (P6) */
  TDL_POOL_CALM,    /* nothing of the workers' was under way (P7) */
  TDL_POOL_SETTLED, /* a guest: what it waits for ends */
  TDL_POOL_COUNTS,  /* see TDL_WATCH_COUNTS */
  TDL_POOL_SAID     /* bytes: what a task has to say, see said.h */
} tdl_pool_event;

typedef struct tdl_pool_options {
  uint32_t min_threads, max_threads;
  uint64_t idle_ns; /* until a worker beyond min_threads ends; TDL_NEVER */
  uint32_t concurrency;
  uint32_t max_payload;
  uint32_t max_queue;     /* TDL_POOL_NO_LIMIT: none */
  int helped;             /* its home takes guests from the run queue */
  int balanced;           /* its home asks how much the workers run */
  int mortal;             /* P11; with one thread */
  uint64_t terminate_ns;  /* until what does not end by itself is forced */
  uint64_t recycle_after; /* jobs until a worker gets a fresh state; 0: never */
  uint64_t recycle_bytes; /* Lua heap after a job that has it replaced; 0 */
  uint64_t cap_bytes;     /* of a worker's Lua heap; 0: none */
  uint32_t debug;         /* a set of enum tdl_debug */
  const char *name;       /* thread names; copied */
  struct tdl_keeper_plan *plan; /* its workers are processes; taken. Or NULL */
  struct tdl_far *far; /* it is a worker's, in such a process; or NULL */
  tdl_bytes *boot; /* payload for the workers' boot function; taken, from the
                   ** heap */
  struct tdl_policy **policy; /* what the workers may do; NULL, or a NULL in it:
                              ** anything. Taken: NULL is left there */
  void (*event)(treadle_pool *pool, tdl_pool_event event, uint32_t worker,
                const tdl_bytes *bytes, void *ctx);
  void *ctx;
} tdl_pool_options;

/* A worker's place in the pool, from 1. Calls for that number lie here, so that
** whoever takes the place goes on with them. */
typedef struct tdl_slot {
  _Atomic(struct tdl_worker *) worker; /* under the supervisor's lock [slot] */
  _Atomic uint32_t states;             /* booted here; by who has the slot */
  _Atomic uint32_t hooked; /* the hook's version; by who has it [hooked] */
  tdl_seat seat;
  tdl_queue calls;
} tdl_slot;

struct treadle_pool {
  /* read-only after open */
  treadle_loop *home;
  uint32_t concurrency;
  uint32_t max_payload;
  uint64_t terminate_ns;
  uint64_t recycle_after, recycle_bytes, cap_bytes;
  uint32_t max_queue;
  int helped;
  uint32_t debug; /* which lines are said: see debug.h */
  int regulated;  /* the short question: a limit, helped, balanced, or far */
  int mortal;     /* P11 */
  struct tdl_keeper_plan *plan; /* its workers are processes (keeper.h) */
  struct tdl_stage *stage;      /* where those read long arguments; or NULL */
  struct tdl_far *far; /* or it is in one: where its calls come from, too */
  int goes_ahead;      /* its processes may have calls ahead (keeper.h, H7) */
  int trusts_code;     /* functions that its workers send may run here */
  char name[32];
  tdl_bytes boot;
  struct tdl_policy *policy; /* NULL: its workers are not confined */
  tdl_slot **slots; /* TDL_POOL_MAX_WORKERS; made one after the other */
  tdl_stats *stats;
  _Atomic(struct tdl_debug_names *) debug_names; /* the home's; see debug.h */
  _Atomic(struct tdl_trace *) trace; /* the home's; see trace.h, R1 */
  /* the home's */
  void (*event)(treadle_pool *pool, tdl_pool_event event, uint32_t worker,
                const tdl_bytes *bytes, void *ctx);
  void *ctx;
  uint32_t guests;               /* jobs that it runs itself */
  uint32_t waiting_guests;       /* of these, the ones that V3 does not count */
  uint32_t got;                  /* from the run queue (K2) */
  uint32_t heard;                /* of `news`, and not yet told on */
  int watches;                   /* how often it has begun to watch (P7) */
  struct treadle_pool *next_far; /* of its pools with a plan */
  tdl_note note;                 /* P8 */
  struct tdl_known *known; /* its tasks, for callers in C; NULL: not asked */
  /* the supervisor's: workers without a slot */
  struct tdl_worker *lost;
  struct tdl_hook *hook; /* under its lock; NULL: there never was one */
  /* shared */
  _Alignas(TDL_LINE_BYTES) atomic_int refs;
  _Atomic uint32_t phase;   /* P2: and who watches */
  atomic_int up;            /* workers whose state has booted; by sv.lock */
  atomic_int counts_told;   /* TDL_NEWS_COUNTS, since tdl_watch_look */
  _Atomic uint32_t threads; /* slots that were made (P6) */
  tdl_size size;
  _Atomic uint64_t idle[TDL_POOL_IDLE_WORDS];   /* P3 */
  _Atomic uint64_t abroad[TDL_POOL_IDLE_WORDS]; /* P3 */
  _Atomic uint64_t spare[TDL_POOL_IDLE_WORDS];  /* keeper.h, H7 */
  atomic_int stays;                             /* H7: nothing goes ahead now */
  _Alignas(TDL_LINE_BYTES) atomic_int searching; /* P4 */
  atomic_int busy;                               /* P5 */
  atomic_int alive;                              /* P10 */
  atomic_int told_closed;                        /* somebody tells (P10) */
  tdl_backlog run;
  _Alignas(TDL_LINE_BYTES) _Atomic int64_t load; /* P6 */
  atomic_int wants;                              /* P6 */
  atomic_int watched, astir;                     /* P7 */
  _Atomic uint32_t news;                         /* P8: enum tdl_news */
  atomic_int telling;                            /* P8 */
  atomic_int home_idles;                         /* P9 */
  /* why it was stopped, if not by its home (phase.h); each written once */
  _Atomic(char *) reason;
  _Atomic int died_of; /* P11: TREADLE_ECRASHED, TREADLE_ENOMEM, or 0 */
};

/* home; starts the threads. Options are copied. The pool is the caller's until
** tdl_pool_drop. */
int tdl_pool_open(treadle_loop *home, const tdl_pool_options *options,
                  treadle_pool **out);
void tdl_pool_hold(treadle_pool *pool);
void tdl_pool_drop(treadle_pool *pool);

/* home or a worker of the pool; the job's bytes are its arguments, and its
** task, done, ctx and deadline_ns are set. The clock starts to run. On
** TREADLE_ENOMEM the job is still the caller's. */
int tdl_pool_prepare(treadle_pool *pool, tdl_job *job);

/* The same thread, with nothing in between that may change the phase; takes the
** job. Where the pool takes no calls it comes home at the next dispatch as
** TREADLE_ECLOSED. */
void tdl_pool_submit(tdl_job *job);

/* The same, before or behind those of another rank; tdl_backlog_rank was
** asked. */
void tdl_pool_submit_ranked(tdl_job *job, enum tdl_rank rank);

/* The same, to the worker in one slot, 1 to threads; to another one, if that
** slot has lost its worker meanwhile. */
void tdl_pool_submit_to(tdl_job *job, uint32_t worker);

/* whoever moves the job; P6. */
void tdl_pool_add_load(treadle_pool *pool, int jobs);
static inline void tdl_pool_load(treadle_pool *pool, int jobs) {
  if (pool->max_queue != TDL_POOL_NO_LIMIT) {
    tdl_pool_add_load(pool, jobs);
  }
}

/* home; it is over, or left to itself: no result is to be had any more. */
void tdl_pool_unlist(treadle_pool *pool);

/* any thread that keeps the job from being recycled; settles it (J3), and if it
** runs wakes its worker so that its waits end. The state that it was in; 0 when
** somebody was first. Counts as cancelled. */
int tdl_pool_settle(tdl_job *job, enum tdl_job_state to);

/* The same, and its code must stop (tdl_supervisor_force). */
int tdl_pool_settle_by_force(tdl_job *job);

/* The same of that use of it alone. */
int tdl_pool_settle_use(tdl_job *job, uint32_t generation,
                        enum tdl_job_state to);

/* who settled it otherwise: `state` is what it was, or 0, and its caller hears
** `status`. */
void tdl_pool_count_settled(const tdl_job *job, int state, int status);

/* The part of it that comes after the word: `state` is what the job was in. The
** worker that runs it, which is to be told, or NULL. */
struct tdl_worker *tdl_pool_settled(const tdl_job *job, int state);

/* The half of submit for a job that the pool does not take: it comes home as
** closed. */
void tdl_pool_refuse(tdl_job *job);

/* who popped it; it comes home with that status, and with the report if there is
** memory for it. 0 when somebody has settled it. */
int tdl_pool_turn_away(tdl_job *job, int status, const tdl_bytes *report);

/* home or a worker of the pool; the calls that wait now come home as
** TREADLE_ECANCELLED, with that report. Returns how many. */
uint32_t tdl_pool_cancel_pending(treadle_pool *pool, const tdl_bytes *report);

/* home; STOPPED, and reports TREADLE_ECLOSED for every call under way, here
** and now: runs their done. Returns how many. */
uint32_t tdl_pool_terminate(treadle_pool *pool);

/* any thread that has a reference; whatever the workers run must end within
** `ns`. */
void tdl_pool_force(treadle_pool *pool, uint64_t ns);

/* home; the threads that have not ended are left to themselves. The last notes
** of the others are in the home's inbox then. */
void tdl_pool_abandon(treadle_pool *pool);

/* home; every worker gets a fresh state once its jobs have ended, or when
** terminate_ns have passed: what runs then comes home as TREADLE_ECRASHED. */
void tdl_pool_recycle(treadle_pool *pool);

/* supervisor; the worker has been written off. */
void tdl_pool_lose(treadle_pool *pool, struct tdl_worker *worker);

/* home; told to whoever opened the pool, while it listens; may raise (L3). */
static inline void tdl_pool_tell(treadle_pool *pool, tdl_pool_event event,
                                 uint32_t worker, const tdl_bytes *bytes) {
  if (event == TDL_POOL_CLOSED) {
    tdl_pool_unlist(pool);
  }
  if (pool->event != NULL) {
    pool->event(pool, event, worker, bytes, pool->ctx);
  }
}

/* any thread that keeps the pool; who has the slot now [slot]. */
struct tdl_worker *tdl_slot_worker(const tdl_slot *slot);

static inline enum tdl_pool_phase tdl_pool_phase(const treadle_pool *pool) {
  /* acquire: what was done before the phase was raised */
  return (enum tdl_pool_phase)TDL_POOL_PHASE(
      atomic_load_explicit(&pool->phase, memory_order_acquire));
}

/* Of the word: a set of enum tdl_watch. */
static inline uint32_t tdl_pool_watch_bits(uint32_t word) {
  return word >> 2;
}

/* any thread that keeps the pool; how many slots there are. */
static inline uint32_t tdl_pool_slots(const treadle_pool *pool) {
  /* seq_cst: after what was published; whoever has a slot that we do not see
  ** looks at it after that [park] */
  return atomic_load_explicit(&pool->threads, memory_order_seq_cst);
}

/* any thread that keeps the pool, with the supervisor's lock: a slot more.
** 0 or TREADLE_ENOMEM. */
int tdl_pool_add_slot_locked(treadle_pool *pool);

/* any thread that keeps the pool; 1 when work waits and no worker is about to
** take it. */
int tdl_pool_lacks_workers(const treadle_pool *pool);

/* worker, when the last one has stopped to search; the same, if the queue holds
** anything. */
void tdl_pool_wake_if_work(treadle_pool *pool);

/* worker or submitter; wakes one idle worker if nobody searches (P4); or those
** that are abroad. */
void tdl_pool_wake_one(treadle_pool *pool);

/* 1 in the child of a fork, where the threads are gone. */
int tdl_pool_forked(void);

#endif
