/* tdl_keeper: a worker whose state is in a process of its own; the parent's side
** (the other one: far.h).
** Threads: the worker's, which starts the process, sleeps, and buries it; and for
**          the hand-off (pump.h) whoever has the lock.
** Owns:    the process, the link, and the jobs that the process has.
** Fails:   as a worker that loses its state.
**
** H1  `lock` guards the tickets, the link and what counts them. Only the hand-off
**     is tried by others, and only while the pool is OPEN and not watched (P7):
**     else the worker's own thread does all of it, so that it knows when it rests.
** H2  A job that the process has is RUNNING, and has a ticket until its result
**     has come. If the process ends before that, the job has crashed; but if it
**     had not begun its record, that goes back to its slot (tdl_job_requeue):
**     not after what cannot be (H5), lest a job run twice.
** H3  The worker's bit in `idle` (P3) says that the process has room. It is set
**     and cleared under the lock; who has set it looks at the queues again.
** H4  What others settle while it runs (J3), the worker's thread tells the
**     process. From then on that has TDL_KEEPER_PATIENCE_NS.
** H5  Nothing that the process says is believed: a ticket it does not have, a
**     payload with addresses in it or a record that cannot be is its end.
** H6  The calls that the process makes on the pool are its keeper's: nested.h. How
**     many of its jobs wait for such, and do not count (V3), it says itself; it is
**     believed for no more than it has.
** H7  A process that has as many jobs as it may gets some ahead (tickets.h), if
**     its pool `goes_ahead` and nobody else could begin them. What must not begin
**     any more, or must not be in the way, is withdrawn: `recalls`, then the lock;
**     who has that sees it before he gives it back, or looks again. Who has room and
**     finds no call takes the oldest that another one has ahead. */
#ifndef TDL_KEEPER_H
#define TDL_KEEPER_H

#include "../link/link.h"
#include "crossing.h"
#include "nested.h"
#include "spawn.h"
#include "tickets.h"
#include "worker.h"

/* Where the answer to who looks in goes (sight.h). */
typedef struct tdl_ear {
  pthread_mutex_t lock; /* guards the rest; no other is taken under it */
  tdl_view *view;       /* the looker's, or NULL */
  uint32_t number;      /* of that look */
  uint32_t entry;
  int heard;
} tdl_ear;

typedef struct tdl_keeper {
  /* read-only */
  tdl_worker *worker;
  int bell; /* readable when its thread is to look: rung in this process */
  tdl_ear ear;
  /* H1 */
  atomic_int lock;
  _Atomic uint32_t progress;  /* jobs that it has; others may look */
  _Atomic uint32_t exempt;    /* H6: of these */
  _Atomic uint32_t owed;      /* X1: a record is its thread's to take */
  _Atomic int serves;         /* it takes calls; others may look */
  atomic_int recalls;         /* H7: set by others */
  _Atomic uint64_t seen_ns;   /* ahead.h, W2; others may look */
  struct tdl_keeper *rescues; /* whose calls it takes first, or NULL */
  _Atomic int broken;         /* H5; others may look */
  int copies;                 /* that was told the process (link.h, N5) */
  int owes;                   /* credit whose record found no room */
  int lives;                  /* its process does, and has what it needs */
  uint32_t waits;             /* a ticket whose record found no room, or 0 */
  tdl_tickets tickets;
  tdl_link link;
  tdl_crossing *crossing; /* NULL: there is no process */
  tdl_nested nested;
  /* its thread's */
  tdl_spawn process;
  uint32_t tasks;        /* of its module */
  int retiring, leaving; /* as the vm's */
  int mute;              /* it has closed its descriptors */
  int hung;              /* the pool drains, and it has not come to rest */
  uint64_t rest_ns;      /* when it must have, then; TDL_NEVER */
  int told_drain;        /* the process */
  int was_lost;          /* the last process, with what it ran */
} tdl_keeper;

/* What the pool's processes are started with; read-only. */
typedef struct tdl_keeper_plan {
  char program[4096];
  char **prefix;    /* what comes before it; ended by NULL */
  tdl_bytes policy; /* what they may do (policy.h); empty: anything */
} tdl_keeper_plan;

/* home; `command` may be NULL. TREADLE_ESYSTEM: there is no program; `tried` says
** where it was looked for. */
int tdl_keeper_plan_new(const char *const *command, char *tried, size_t size,
                        tdl_keeper_plan **out);
void tdl_keeper_plan_free(tdl_keeper_plan *plan);

/* It has said what cannot be (H5). */
static inline int tdl_keeper_is_broken(const tdl_keeper *keeper) {
  /* relaxed: its thread looks again when it is woken for that */
  return atomic_load_explicit(&keeper->broken, memory_order_relaxed);
}
static inline void tdl_keeper_set_broken(tdl_keeper *keeper, int broken) {
  /* relaxed: as above */
  atomic_store_explicit(&keeper->broken, broken, memory_order_relaxed);
}

/* H5: its thread ends the process. */
static inline void tdl_keeper_end_badly(tdl_keeper *k) {
  tdl_keeper_set_broken(k, 1);
  tdl_parker_wake(&k->worker->loop.parker);
}

static inline int tdl_keeper_serves(const tdl_keeper *k) {
  /* relaxed: under the lock, or a hint */
  return atomic_load_explicit(&k->serves, memory_order_relaxed);
}

static inline uint32_t tdl_keeper_progress(const tdl_keeper *k) {
  /* relaxed: under the lock, or a hint */
  return atomic_load_explicit(&k->progress, memory_order_relaxed);
}

/* V3, P6 */
static inline uint32_t tdl_keeper_exempt(const tdl_keeper *k) {
  /* relaxed: under the lock, or a hint */
  return atomic_load_explicit(&k->exempt, memory_order_relaxed);
}

/* H6 */
static inline uint32_t tdl_keeper_said_exempt(const tdl_keeper *k) {
  uint32_t jobs = tdl_link_exempt(&k->link);
  return jobs < tdl_keeper_progress(k) ? jobs : tdl_keeper_progress(k);
}

static inline _Atomic uint64_t *tdl_keeper_idle_word(const tdl_keeper *k) {
  return &k->worker->pool->idle[(k->worker->id - 1) / 64];
}

static inline uint64_t tdl_keeper_idle_bit(const tdl_keeper *k) {
  return 1ull << ((k->worker->id - 1) % 64);
}

/* As the worker is made and freed. */
int tdl_keeper_new(tdl_worker *worker, tdl_keeper **out);
void tdl_keeper_free(tdl_keeper *keeper);

/* The worker's thread; as its states: boot, serve until the end, end. The report
** of a boot is the process's. */
int tdl_keeper_boot(tdl_worker *worker, tdl_bytes *report);
void tdl_keeper_serve(tdl_worker *worker);

/* The same; why it has ended, but for the end of the pool. */
const char *tdl_keeper_end(tdl_worker *worker);

#endif
