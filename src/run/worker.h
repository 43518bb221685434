/* tdl_worker: one thread with its state: takes jobs, runs them, sends them
** home.
** Threads: made and freed by the pool; everything else is its own thread's.
** Owns:    its loop and its vm.
** Fails:   a worker that cannot start says so in its first note.
**
** One turn of the worker:
**   1. handle what arrived in the inbox; let the Lua scheduler run what is
**      ready
**   2. leave when the pool is stopped
**   3. take a job, if the pool's concurrency allows: one sent to its slot, else
**      the oldest of the run queue; run it; next turn
**   4. nothing to do: search (spin), then sleep */
#ifndef TDL_WORKER_H
#define TDL_WORKER_H

#include "pool.h"

typedef struct tdl_worker {
  treadle_loop loop; /* first: it outlives the thread, with the pool */
  treadle_pool *pool;
  tdl_slot *slot;
  uint32_t id;                /* the slot's: 1.. */
  _Atomic uint32_t cancelled; /* a job that it runs was settled [cancel] */
  pthread_t thread;
  tdl_note started, exited;  /* to the pool's home */
  int boot_status;           /* in `started` */
  tdl_bytes report;          /* in `started` */
  int lies_idle;             /* its idle bit was set, by itself */
  int resting;               /* not counted in pool->busy */
  int searching;             /* counted in pool->searching */
  enum tdl_pool_phase phase; /* as this turn saw it */
  int thread_made;
  int gone;          /* no longer counted in pool->alive; the home's */
  atomic_int parted; /* it has ended, or the home left it to itself (P1) */
  struct tdl_vm *vm;
} tdl_worker;

/* any thread; tells the worker that nobody waits any more for one of the jobs
** that it runs, which was settled: what the job waits for ends. */
void tdl_worker_cancel(tdl_worker *worker);

int tdl_worker_new(treadle_pool *pool, tdl_slot *slot, uint32_t id,
                   tdl_worker **out);
int tdl_worker_start(tdl_worker *worker);
/* The pool's end: first all workers are emptied, because what lies in one's
** inbox may be another's, then all are freed. */
void tdl_worker_empty(tdl_worker *worker);
void tdl_worker_free(tdl_worker *worker);

/* worker thread; 1 when a turn would find something to do. The second look
** before it sleeps [park]. */
int tdl_worker_has_work(const tdl_worker *worker);

#endif
