/* tdl_job: one call on its way there and back.
** Threads: the home state allocates, fills, submits, reads and recycles; one
**          worker holds it in between; who else may touch `word` is below.
** Owns:    its payload bytes, which carry the arguments there and the results
**          back in the same memory.
** Fails:   TREADLE_ENOMEM from tdl_jobs_take.
**
** The word says where the job is, and the one compare-and-swap that moves it
** on decides who settles it:
**
**   IDLE -> QUEUED -> RUNNING -> DONE      the worker's result counts
**              \          \
**               `----------`-> SETTLED     cancel, timeout or close was first:
**                                          a state for each; from FORCED on its
**                                          code must stop
**
** J1  Only the home state moves a word to IDLE and to QUEUED.
** J2  Only the worker that took it from a queue moves QUEUED to RUNNING and
**     RUNNING to DONE, or back to QUEUED if its process has never begun it; where it finds SETTLED instead, it sends the job home
**     as it is.
** J3  Whoever settles it reports to the caller; then nobody else does.
** J4  A submitted job comes home exactly once, settled or not; only then is it
**     recycled. The generation in the word makes a late J3 miss its next use.
** J5  `reason` is the home's, which writes it before it cancels the job or
**     terminates its pool, and never again until the job is recycled. The worker
**     reads it if it finds the job CANCELLED, FORCED or CLOSED.
** J6  A job that the home cancels while it runs, and marks as `awaited`, is
**     reported once more when it comes home: its code has ended.
** J7  `stream` is what the job emits values into. The home or the worker makes
**     it, whoever needs it first; it is there until the job is recycled. Whoever
**     has the job may use it: no reference is needed.
*/
#ifndef TDL_JOB_H
#define TDL_JOB_H

#include <stdatomic.h>
#include <stdint.h>

#include "../base/bytes.h"
#include "../base/counted.h"
#include "../config.h"
#include "../queue/queue.h"

enum tdl_job_state {
  TDL_JOB_IDLE = 0,
  TDL_JOB_QUEUED,
  TDL_JOB_RUNNING,
  TDL_JOB_DONE,
  TDL_JOB_SETTLED, /* from here on */
  TDL_JOB_CANCELLED = TDL_JOB_SETTLED,
  TDL_JOB_CLOSED,
  TDL_JOB_FORCED, /* cancelled, and must stop; from here on */
  TDL_JOB_EXPIRED
};

#define TDL_JOB_STATE(word) ((word)&7u)
#define TDL_JOB_GENERATION  8u /* added to the word for every use */

#define TDL_JOB_LIMITED  1u /* it has a deadline */
#define TDL_JOB_STAMPED  2u /* its times are taken */
#define TDL_JOB_STREAMED 4u /* by the worker: it has made the stream */

#define TDL_JOB_HAS_REASON 1u /* for tdl_jobs_give: what there is to free */
#define TDL_JOB_HAS_STREAM 2u
#define TDL_JOB_HAS_STAGE  4u

/* The `worker` of a job that the pool's home runs itself. */
#define TDL_JOB_HOSTED UINT16_MAX

struct treadle_loop;
struct treadle_pool;

typedef struct tdl_job {
  /* --- the home state's: a cache line for each call --- */
  struct tdl_job *next_idle;
  struct treadle_pool *pool; /* where it was submitted */
  /* reports the outcome, once, on the home's thread; `bytes` are the results
  ** or the error's report, NULL when the job is still under way */
  void (*done)(struct tdl_job *job, int status, const tdl_bytes *bytes,
               void *ctx);
  void *ctx;
  uint64_t deadline_ns; /* TDL_NEVER: none; the worker reads one, too */
  uint32_t slot;        /* its number at home, for as long as it exists */
  /* the entry of the job that made the call, or 0; in a host the guest's serial
  ** number */
  _Atomic uint32_t parent;
  uint32_t heap_index; /* the supervisor's: its place, 0 for none */
  uint8_t expiring;    /* the supervisor's until the job is forgotten */
  int8_t verdict;      /* with which `expiry` comes */
  uint8_t came_home;   /* and waits for `expiry` */
  uint8_t away;        /* reported (L3), and still to come home */
  int8_t untold;       /* the home settled it and has yet to report this */
  uint8_t inherited;   /* its deadline is that of the job that made it */
  uint8_t refused;     /* never queued: the pool takes no calls */
  uint8_t extras;      /* a set of TDL_JOB_HAS_... */
  uint8_t awaited;     /* the home's: J6 */
  uint8_t doubted;     /* the home's: its results may hold no code */
  /* --- and what few calls need --- */
  uint8_t half;          /* of the stage */
  uint32_t weight;       /* if it is stamped: for how many calls it stands */
  tdl_node expiry;       /* the supervisor's: on its way while `expiring` */
  char *reason;          /* J5: why it was cancelled; see extras */
  uint64_t submitted_ns; /* if it is stamped; the worker reads these two */
  /* the worker's: when its code began, if it is stamped, and in which use; for
  ** those who look (look.h) */
  _Atomic uint64_t began_ns;
  _Atomic uint32_t began;
  struct tdl_trace *trace;       /* that has recorded its submission, or NULL */
  uint64_t call;                 /* its number there */
  _Atomic(tdl_counted *) stream; /* J7 */
  struct tdl_stage *stage;       /* the home's: where it has a piece, or NULL */
  tdl_bytes own;                 /* what `bytes` is else (stage.h, E2) */
  /* --- what the hand-off moves: one cache line for a small payload --- */
  _Alignas(64) tdl_node node;
  struct treadle_loop *home; /* read-only after allocation */
  tdl_bytes bytes;
  _Atomic uint32_t word;
  _Atomic uint32_t task; /* which task of the pool; looked at, too */
  int8_t status;         /* the worker's: 0 or a treadle_status */
  uint8_t timed;         /* a set of TDL_JOB_LIMITED, _STAMPED, _STREAMED */
  uint16_t worker; /* the worker's: its number, before RUNNING; see HOSTED */
  uint8_t inline_bytes[TDL_JOB_INLINE_BYTES];
} tdl_job;

/* The jobs of one state; used by its thread alone. */
typedef struct tdl_jobs {
  tdl_job *idle;
  tdl_job **slabs;
  uint32_t slab_count;
  uint32_t count;      /* jobs that exist */
  uint32_t live;       /* submitted and not given back */
  uint64_t kept_bytes; /* heap bytes held by idle jobs */
} tdl_jobs;

void tdl_jobs_init(tdl_jobs *jobs);

/* Frees every job; none may be on its way. */
void tdl_jobs_fini(tdl_jobs *jobs);

/* An idle job with empty bytes, or NULL. The caller submits it or gives it
** back. */
tdl_job *tdl_jobs_take(tdl_jobs *jobs, struct treadle_loop *home);
void tdl_jobs_give(tdl_jobs *jobs, tdl_job *job);

/* home, before it sleeps; if no call is under way, frees what idle jobs keep
** beyond the limit. */
void tdl_jobs_trim(tdl_jobs *jobs);

/* home; the next job that is on its way, after `after` (NULL: the first). */
tdl_job *tdl_jobs_next(const tdl_jobs *jobs, const tdl_job *after);

/* home; the job with this number, 1 to jobs->count. */
tdl_job *tdl_jobs_at(const tdl_jobs *jobs, uint32_t slot);

/* home; IDLE to QUEUED, before the job is pushed to a queue (J1); and back, if
** it was not pushed after all. */
void tdl_jobs_submit(tdl_jobs *jobs, tdl_job *job);
void tdl_jobs_withdraw(tdl_jobs *jobs, tdl_job *job);

/* worker; QUEUED to RUNNING. 0 when it was settled meanwhile (J2). */
int tdl_job_start(tdl_job *job);

/* worker; RUNNING to QUEUED, since nothing of it has run: its worker pushes it
** again. 0 when it was settled meanwhile (J2). */
int tdl_job_requeue(tdl_job *job);

/* worker; RUNNING to DONE. 0 when it was settled meanwhile (J2). */
int tdl_job_finish(tdl_job *job);

/* home; and the supervisor, whose look may be late: the generation tells. */
static inline uint32_t tdl_job_parent(const tdl_job *job) {
  return atomic_load_explicit(&job->parent, memory_order_relaxed);
}
static inline void tdl_job_set_parent(tdl_job *job, uint32_t parent) {
  atomic_store_explicit(&job->parent, parent,
                        memory_order_relaxed); /* as above */
}

/* home, before it is submitted; whoever has it, and those whose look may be late:
** the generation tells. */
static inline void tdl_job_set_task(tdl_job *job, uint32_t task) {
  atomic_store_explicit(&job->task, task, memory_order_relaxed); /* as above */
}
static inline uint32_t tdl_job_task(const tdl_job *job) {
  return atomic_load_explicit(&job->task, memory_order_relaxed); /* as above */
}

/* worker; its code begins now. Any thread that keeps the record: when that of
** this generation did; 0 if it is not known, or has ended. */
void tdl_job_began(tdl_job *job, uint64_t now);
uint64_t tdl_job_began_ns(const tdl_job *job, uint32_t generation);

/* home; the text for its cancellation, which comes next (J5). Copied; without
** memory there is none. */
void tdl_job_set_reason(tdl_job *job, const char *text);

/* any thread that keeps the job from being recycled; QUEUED or RUNNING of
** this generation to a SETTLED state. The state that it was in, or 0 when
** somebody was first (J3, J4). A RUNNING job's `worker` may be read then. */
int tdl_job_settle(tdl_job *job, uint32_t generation, enum tdl_job_state to);

/* home, while it is on its way, or the worker that has it; J7: its stream, or
** NULL. The second one makes `fresh` the stream if there is none, and takes over
** its reference then: what the stream is now. */
tdl_counted *tdl_job_stream(const tdl_job *job);
tdl_counted *tdl_job_set_stream(tdl_job *job, tdl_counted *fresh);

/* The generation of its present use. */
uint32_t tdl_job_generation(const tdl_job *job);

/* any thread, as above, and a signal handler; the state, if somebody settled
** it, or 0; whether its code must stop. */
int tdl_job_is_settled(const tdl_job *job);
int tdl_job_is_forced(const tdl_job *job);

/* home or worker; why nobody waits for the job, which is settled. The text is
** the job's. */
const char *tdl_job_reason(const tdl_job *job);

#endif
