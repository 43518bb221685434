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
**     believed for no more than it has. */
#ifndef TDL_KEEPER_H
#define TDL_KEEPER_H

#include "../link/link.h"
#include "crossing.h"
#include "nested.h"
#include "spawn.h"
#include "worker.h"

/* Of a job that the process has, or a free one. */
typedef struct tdl_ticket {
  tdl_job *job;    /* NULL: free */
  uint32_t number; /* as the process knows it (far.h) */
  uint32_t next_free;
  uint64_t record;   /* where that ends in the ring; 0: it has yet to be put */
  uint64_t began_ns; /* if the job is stamped, else 0 */
  uint64_t heard_ns; /* when its start was told to who watches, or 0 */
  uint64_t end_ns;   /* the process dies for it then; TDL_NEVER */
  int told;          /* of enum tdl_job_state: that it was settled */
} tdl_ticket;

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
  _Atomic uint32_t progress; /* jobs that it has; others may look */
  _Atomic uint32_t exempt;   /* H6: of these */
  _Atomic uint32_t owed;     /* X1: a record is its thread's to take */
  _Atomic int serves;        /* it takes calls; others may look */
  _Atomic int broken;        /* H5; others may look */
  int copies;                /* that was told the process (link.h, N5) */
  int owes;                  /* credit whose record found no room */
  int lives;                 /* its process does, and has what it needs */
  uint32_t waits;            /* a ticket whose record found no room, or 0 */
  tdl_ticket *tickets;       /* from 1 */
  uint32_t ticket_count, free_ticket;
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
