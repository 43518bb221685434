/* tdl_stats: what a pool counts and times.
** Threads: each function says whose it is; reading is for any thread.
** Owns:    its tallies, until the last reference is dropped.
** Fails:   TREADLE_ENOMEM from _new and _enter. Later, what lacks memory is
**          counted and not timed.
**
** A call is counted when it is queued, when a worker starts it and when it
** ends. What is queued and what runs now follows:
**   queued  = submitted - started - settled while QUEUED
**   running = started - done - failed - cancelled - settled while RUNNING
** so that a snapshot always adds up.
**
** T1  A tally has one writing thread: its worker's, or the home's. It adds by a
**     load and a store. What others settle is counted in `settled`, by RMW.
** T2  A call is counted before the next one can count it: submitted before it
**     is pushed (and watched), started before it ends, ended before it goes
**     home, all by a release [stats]. Readers go the other way, by acquires: who
**     sees a call's end sees its beginning, so that nothing is negative.
** T3  One exception: a call that is settled while RUNNING may be counted so
**     before its worker has counted the start. Then it is queued once too much
**     and running once too little; `running` below 0 is moved to `queued`.
** T4  The job's word decides how a call ends. What its home learns afterwards,
**     a result that cannot be decoded, a cancel that came too late for the
**     job, moves it from one end to another in the home's tally. */
#ifndef TDL_STATS_H
#define TDL_STATS_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "../base/compiler.h"
#include "../base/histogram.h"
#include "../config.h"
#include "../job/job.h"

typedef _Atomic uint64_t tdl_count;

/* Time that adds up while it runs: one word, so that a reader needs no second
** look. Stopped: the sum; running: when it would have started from 0. */
typedef _Atomic uint64_t tdl_span;

typedef struct tdl_times {
  tdl_histogram run, wait;
} tdl_times;

/* One task in one worker. */
typedef struct tdl_task_tally {
  _Alignas(TDL_LINE_BYTES / 2) tdl_count started;
  tdl_count done, failed, cancelled;
  _Atomic(tdl_times *) times; /* from the first timed run on */
  uint32_t streak;            /* the latest timed runs that were short */
} tdl_task_tally;

/* What is done anew each time until it is short for a while, then once in
** TDL_STATS_GAP times, at random so that no pattern is missed. */
typedef struct tdl_sampler {
  uint32_t gap; /* until the next */
  uint32_t random;
} tdl_sampler;

/* T4 */
typedef enum tdl_correction {
  TDL_DONE_TO_FAILED,
  TDL_DONE_TO_CANCELLED,
  TDL_FAILED_TO_CANCELLED,
  TDL_CORRECTION_COUNT
} tdl_correction;

typedef struct tdl_tally {
  /* where calls are made; a worker makes some, too */
  _Alignas(TDL_LINE_BYTES) tdl_count submitted;
  tdl_sampler calls;
  tdl_count corrected[TDL_CORRECTION_COUNT];
  /* a worker's */
  tdl_sampler spins;
  uint32_t short_spins;
  uint32_t task_count;             /* of `tasks`, 0 without */
  _Atomic(tdl_task_tally *) tasks; /* by number: stats->task_count of them */
  tdl_task_tally rest;             /* what has no place there */
  tdl_span alive, idle;
  tdl_count heap_bytes;
  tdl_count cpu;           /* ns of ended threads; or the clock of a live one */
  tdl_count cpu_base;      /* to be added to that */
  tdl_span far_idle;       /* of its processes */
  uint64_t far_base_ns;    /* of those that have ended */
  uint64_t far_began_ns;   /* the present one */
  atomic_int taken;        /* has a writer [tally] */
  tdl_count lost_ns;       /* when its thread was written off, by who did it */
  struct tdl_tally *older; /* of the same slot; read-only */
} tdl_tally;

enum tdl_settled {
  TDL_QUEUED_FAILED,
  TDL_QUEUED_CANCELLED,
  TDL_RUNNING_FAILED,
  TDL_RUNNING_CANCELLED,
  TDL_REFUSED_STARTED, /* moved to RUNNING, in order to be refused */
  TDL_SETTLED_COUNT
};

typedef struct tdl_stats {
  /* read-only */
  uint64_t opened_ns;
  /* any thread */
  atomic_int refs;
  _Atomic uint64_t closed_ns; /* 0: open */
  atomic_int abandoned;       /* what has not ended never will */
  tdl_count settled[TDL_SETTLED_COUNT];
  tdl_count written_off, restarts;
  _Atomic uint32_t task_count;  /* with 0; written once, by the first there */
  _Atomic(tdl_count *) cut_off; /* by task: timed out or lost while running */
  /* 1: runs of such tasks are short, time one in TDL_STATS_GAP. By number modulo
  ** its size: a hint, since each call carries its weight. */
  _Alignas(TDL_LINE_BYTES) _Atomic uint8_t hurried[TDL_STATS_HINTS];
  tdl_tally home;
  /* the newest tally of each slot, from 0; they come in that order */
  _Atomic(tdl_tally *) slot[TDL_POOL_MAX_WORKERS];
} tdl_stats;

int tdl_stats_new(tdl_stats **out);
void tdl_stats_hold(tdl_stats *stats);
void tdl_stats_drop(tdl_stats *stats);

/* --- tallies -------------------------------------------------------------- */

/* who makes a worker, one at a time for a slot; the tally for its thread: its
** predecessor's, if that thread has ended, else a new one. NULL without memory.
*/
tdl_tally *tdl_stats_enter(tdl_stats *stats, uint32_t worker);

/* the tally's thread, before each state's first job; how many tasks there are.
*/
void tdl_stats_begin(tdl_stats *stats, tdl_tally *tally, uint32_t tasks);

/* home, before it starts a job itself. */
void tdl_stats_begin_home(tdl_stats *stats);

/* the tally's thread, with or without _begin; it counts no more. */
void tdl_stats_end(tdl_tally *tally);

/* --- one call ------------------------------------------------------------- */

/* T1, T2 */
static inline void tdl_count_add(tdl_count *count, uint64_t n) {
  /* [stats] release: who sees this sees what came before; relaxed load: we are
  ** its only writer */
  atomic_store_explicit(count,
                        atomic_load_explicit(count, memory_order_relaxed) + n,
                        memory_order_release);
}

/* for the rare ends; any thread */
static inline void tdl_count_share(tdl_count *count) {
  /* [stats] release: the same, for several writers */
  atomic_fetch_add_explicit(count, 1, memory_order_release);
}

static inline tdl_task_tally *tdl_tally_task(tdl_tally *tally, uint32_t task) {
  /* relaxed: our own */
  return TDL_LIKELY(task < tally->task_count)
             ? &atomic_load_explicit(&tally->tasks, memory_order_relaxed)[task]
             : &tally->rest;
}

/* 1 once in TDL_STATS_GAP times. */
static inline int tdl_sampler_hits(tdl_sampler *s) {
  if (TDL_LIKELY(s->gap-- > 1)) {
    return 0;
  }
  s->random = s->random * 1664525u + 1013904223u; /* Numerical Recipes */
  s->gap = 1 + (s->random >> 16) % (2 * TDL_STATS_GAP - 1);
  return 1;
}

/* who submits; marks the job to be timed. */
void tdl_stats_stamp(tdl_job *job, uint32_t weight);

/* who submits, before anybody else can see the job. */
static inline void tdl_stats_submitted(tdl_stats *stats, tdl_tally *tally,
                                       tdl_job *job) {
  tdl_count_add(&tally->submitted, 1);
  /* relaxed: a hint */
  if (!atomic_load_explicit(&stats->hurried[job->task % TDL_STATS_HINTS],
                            memory_order_relaxed)) {
    tdl_stats_stamp(job, 1);
  } else if (TDL_UNLIKELY(tdl_sampler_hits(&tally->calls))) {
    tdl_stats_stamp(job, TDL_STATS_GAP);
  }
}

/* who submits; it was not, after all. */
void tdl_stats_withdrawn(tdl_tally *tally);

/* worker, or the home with its own tally, after tdl_job_start. */
static inline void tdl_stats_started(tdl_tally *tally, const tdl_job *job) {
  tdl_count_add(&tdl_tally_task(tally, job->task)->started, 1);
}

/* worker, before it goes back to a queue: it was not started, after all. */
void tdl_stats_taken_back(tdl_tally *tally, const tdl_job *job);

/* worker; the same for a stamped job, and now is the clock. */
void tdl_stats_waited(tdl_tally *tally, const tdl_job *job, uint64_t now);

/* the same, after tdl_job_finish, before the job goes home. */
void tdl_stats_ended_badly(tdl_tally *tally, const tdl_job *job);
static inline void tdl_stats_ended(tdl_tally *tally, const tdl_job *job) {
  if (TDL_LIKELY(job->status == 0)) {
    tdl_count_add(&tdl_tally_task(tally, job->task)->done, 1);
  } else {
    tdl_stats_ended_badly(tally, job);
  }
}

/* worker; a stamped job is over after so long, whoever settled it. */
void tdl_stats_ran(tdl_stats *stats, tdl_tally *tally, const tdl_job *job,
                   uint64_t ns);

/* who settled it (J3); `state` is what it was, `status` what its caller hears. */
void tdl_stats_settled(tdl_stats *stats, const tdl_job *job, int state,
                       int status);

/* any thread; a queued call that nobody will run: after tdl_job_start, and after
** tdl_job_finish. */
void tdl_stats_refusing(tdl_stats *stats);
void tdl_stats_refused(tdl_stats *stats);

/* who submitted it; T4. */
void tdl_stats_correct(tdl_tally *tally, tdl_correction correction);

/* --- a worker's time ------------------------------------------------------ */

/* worker; it lies down, and is up again. */
void tdl_stats_sleeps(tdl_tally *tally, uint64_t now);
void tdl_stats_awake(tdl_tally *tally, uint64_t now);

/* worker; whether the spin that begins is to be timed: its weight, or 0. */
static inline uint32_t tdl_stats_times_spin(tdl_tally *tally) {
  if (TDL_UNLIKELY(tally->short_spins < TDL_STATS_STREAK)) {
    return 1;
  }
  return tdl_sampler_hits(&tally->spins) ? TDL_STATS_GAP : 0;
}
void tdl_stats_spun(tdl_tally *tally, uint64_t ns, uint32_t weight);

void tdl_stats_heap(tdl_tally *tally, uint64_t bytes);

/* who has the lock of a worker in a process (keeper.h, H1): that begins; says what
** is in its own tally's `idle` and `heap_bytes`, of which no more is believed than
** can be; has ended, and is still there to be asked for its time. */
void tdl_stats_process_begins(tdl_tally *tally, pid_t pid);
void tdl_stats_process_says(tdl_tally *tally, uint64_t idle,
                            uint64_t heap_bytes);
void tdl_stats_process_ends(tdl_tally *tally);

/* --- the pool ------------------------------------------------------------- */

/* home; the last worker has ended; or those that have not are left alone. */
void tdl_stats_closed(tdl_stats *stats, int abandoned);

/* supervisor; the tally's thread is stuck in C: its time is no worker's any
** more. */
void tdl_stats_written_off(tdl_stats *stats, tdl_tally *tally);

/* any thread; a state was replaced. */
void tdl_stats_restarted(tdl_stats *stats);

/* --- reading; any thread -------------------------------------------------- */

typedef struct tdl_stats_counts {
  uint64_t submitted, queued, running, done, failed, cancelled;
  uint64_t written_off, restarts;
  uint64_t uptime_ns, busy_ns, alive_ns; /* the latter two of all workers */
} tdl_stats_counts;

typedef struct tdl_stats_worker {
  uint64_t jobs, busy_ns, alive_ns, cpu_ns, heap_bytes;
} tdl_stats_worker;

typedef struct tdl_stats_task {
  uint64_t runs, failures;
  tdl_histogram_copy run, wait;
} tdl_stats_task;

void tdl_stats_read(const tdl_stats *stats, tdl_stats_counts *out);

/* Whether the pool is over: its last worker has ended, or was left alone. */
int tdl_stats_is_closed(const tdl_stats *stats);

/* 0 to 1. */
double tdl_stats_share(uint64_t busy_ns, uint64_t alive_ns);

/* The highest number that a worker has had. */
uint32_t tdl_stats_workers(const tdl_stats *stats);

/* 1 to that. */
void tdl_stats_read_worker(const tdl_stats *stats, uint32_t worker,
                           tdl_stats_worker *out);

/* By number; 0: functions that travelled with their calls. */
void tdl_stats_read_task(const tdl_stats *stats, uint32_t task,
                         tdl_stats_task *out);

/* Tasks are numbered below this; 0 before the first worker is there. */
uint32_t tdl_stats_task_count(const tdl_stats *stats);

#endif
