/* tdl_worker: one thread with its state, as the others see it: what they ask of
** it, and what it shows them.
** Threads: made and freed by the pool or the supervisor; the fields say who
**          else touches them.
** Owns:    its loop and its vm.
** Fails:   a worker that cannot start says so in its first note.
**
** What its thread does: thread.h, and turns.h. */
#ifndef TDL_WORKER_H
#define TDL_WORKER_H

#include "interrupt.h"
#include "look.h"
#include "pool.h"
#include "supervisor.h"

/* What others ask of a worker, one bit each [asked]. */
enum tdl_ask {
  TDL_ASK_CANCEL =
      1, /* a job that it runs was settled: end what it waits for */
  TDL_ASK_RECYCLE = 2, /* a fresh state, when its jobs have ended */
  TDL_ASK_LEAVE = 4,   /* it is condemned: a fresh state, now */
  TDL_ASK_WAKE = 8,    /* the worker itself: the rest of TDL_ASK_CANCEL */
  TDL_ASK_MOVE = 16,   /* its slot was shut or opened (size.h) */
  TDL_ASK_HOOK = 32    /* its pool's debug hook is another one (hooks.h) */
};

enum tdl_worker_life { TDL_BOOTING = 0, TDL_SERVING, TDL_CLOSING, TDL_ENDED };

/* With calls on other pools, while its pool drains. */
enum tdl_patience { TDL_UNASKED = 0, TDL_RUNS_OUT, TDL_IS_OVER };

enum tdl_parting { TDL_TOGETHER = 0, TDL_HAS_ENDED, TDL_LEFT_ALONE };

typedef struct tdl_worker {
  treadle_loop loop; /* first: it outlives the thread, with the pool */
  treadle_pool *pool;
  tdl_slot *slot;
  uint32_t id;               /* the slot's: 1.. */
  _Atomic uint32_t asked;    /* of enum tdl_ask [asked] */
  _Atomic(tdl_job *) runs;   /* whose code runs now; written by its thread */
  _Atomic uint32_t life;     /* enum tdl_worker_life */
  tdl_stop stop;             /* the supervisor's */
  _Atomic uint32_t doomed;   /* by it: with all that it runs, not a job alone */
  struct tdl_keeper *keeper; /* its state is in a process; or NULL */
  tdl_interrupt interrupt;   /* open while there is a state */
  pthread_t thread;
  pthread_mutex_t lock; /* guards `seen`, its entries' `held`, and `look` */
  tdl_sighting look;
  struct tdl_vm *seen;      /* the vm, for the supervisor */
  tdl_note started, exited; /* to the pool's home */
  tdl_note left;            /* it is parked (size.h) */
  tdl_note renewed;         /* a later state was booted: */
  atomic_int renewing;      /* while the note is under way */
  tdl_note failed;          /* or could not be, again and again */
  int boot_status;          /* in `started` */
  tdl_bytes report;         /* in `started` */
  tdl_bytes last_words;     /* in `failed` */
  tdl_bytes *booting;       /* where the boot's report goes */
  int has_state;            /* it has booted one, which has not ended */
  uint32_t tries;           /* states in a row that could not load */
  int lies_idle;            /* its idle bit was set, by itself */
  _Atomic uint64_t idle_ns; /* no job since then; for size.h */
  uint64_t idle_ended;      /* jobs of its state, as it was then */
  int is_abroad;            /* the same of its bit in `abroad` */
  int resting;              /* not counted in pool->busy */
  enum tdl_patience patience;
  int searching;             /* counted in pool->searching */
  _Atomic uint32_t running;  /* jobs in progress; if regulated */
  _Atomic int64_t places;    /* P6; below 0: it was written off */
  int watched;               /* as it saw the pool before its last sleep */
  int calm;                  /* not counted in pool->astir (P7) */
  int up;                    /* in pool->up; under the supervisor's lock */
  uint32_t got;              /* from the run queue (K2) */
  uint32_t sent;             /* taken from the slot's queue, in a row */
  enum tdl_pool_phase phase; /* as this turn saw it */
  int thread_made;
  int gone;           /* no longer counted in pool->alive; the home's */
  int last;           /* the pool is over with it; the home's */
  int replaced;       /* in `exited`: written off, another has its slot */
  atomic_int parting; /* enum tdl_parting (P1) [last-note] */
  struct tdl_vm *vm;
} tdl_worker;

/* any thread that keeps the pool. */
void tdl_worker_ask(tdl_worker *worker, enum tdl_ask what);
void tdl_worker_unask(tdl_worker *worker, uint32_t what);
static inline uint32_t tdl_worker_is_asked(const tdl_worker *w) {
  /* [asked] seq_cst: after the announcement [park] */
  return atomic_load_explicit(&w->asked, memory_order_seq_cst);
}

/* any thread; its number for scripts: in a process, that in the parent's pool. */
uint32_t tdl_worker_number(const tdl_worker *worker);

/* P6. The worker has started a job; as many hold a place of its more, or fewer.
** The supervisor: it is written off. */
void tdl_worker_take_place(tdl_worker *worker);
void tdl_worker_give_place(tdl_worker *worker); /* back to who waits */
void tdl_worker_load(tdl_worker *worker, int jobs);
void tdl_worker_lose_places(tdl_worker *worker);
void tdl_worker_set_running(tdl_worker *worker, uint32_t jobs);
enum tdl_worker_life tdl_worker_life(const tdl_worker *worker);
void tdl_worker_set_life(tdl_worker *worker, enum tdl_worker_life life);

/* worker, in a job's code: what is asked at its turn alone may concern that
** job, if a job that waits in this very worker made it. */
void tdl_worker_listen(tdl_worker *worker);

/* any thread; whose code runs, or NULL. The job stays a record for as long as
** the pool exists. */
static inline tdl_job *tdl_worker_running(const tdl_worker *w) {
  /* [runs-job] acquire: the record was made */
  return atomic_load_explicit(&w->runs, memory_order_acquire);
}

/* any thread, and its signal handler; that job is FORCED. */
int tdl_worker_runs_forced(const tdl_worker *worker);

/* supervisor; it is condemned with all that it runs, or not any more. */
void tdl_worker_doom(tdl_worker *worker, int doomed);

/* any thread; since when it lies idle without a job, TDL_NEVER if it does not.
*/
uint64_t tdl_worker_idle_since(const tdl_worker *worker);

/* supervisor; puts another worker into its slot, and if it `starts` starts it.
*/
int tdl_worker_replace(tdl_worker *worker, int starts);

/* home or supervisor; 1 when it has not ended, and was not left alone before:
** the caller detaches its thread (P1). */
int tdl_worker_leave_alone(tdl_worker *worker);
/* worker, as its last act but one; 0 when it was left alone. */
int tdl_worker_has_ended(tdl_worker *worker);
int tdl_worker_is_left_alone(const tdl_worker *worker);

/* any thread that keeps the pool; a note to the pool's home, with a reference
** (P1). */
void tdl_worker_post(tdl_worker *worker, tdl_note *note);

/* worker; the job, whose code runs now, or NULL. */
static inline void tdl_worker_runs(tdl_worker *w, tdl_job *job) {
  /* [runs-job] release: the record; the supervisor's look may be late, a
  ** handler's is this thread's */
  atomic_store_explicit(&w->runs, job, memory_order_release);
}

/* Starting: with the supervisor's lock. */
int tdl_worker_new(treadle_pool *pool, tdl_slot *slot, uint32_t id,
                   tdl_worker **out);

/* The pool's end, when all inboxes are empty (thread.h). */
void tdl_worker_free(tdl_worker *worker);

#endif
