/* tdl_look: what the workers of a pool run now, seen from another thread.
** Threads: any that keeps the pool.
** Owns:    nothing.
** Fails:   never: what cannot be known is left out.
**
** K1  A worker that computes is asked by a signal, and reads its own stack in the
**     handler. One that stands still in the kernel is not, nor one that has just
**     been woken there and has no processor yet: the signal could end what it
**     waits for, or turn its end into an error. Its stack is read from here, and
**     counts if the kernel has not let it run meanwhile.
** K2  One thread of the process looks at a time.
** K3  A worker in a process of its own is looked at there, by that process's main
**     thread (sight.h). Which job that is, and since when, is known here. */
#ifndef TDL_LOOK_H
#define TDL_LOOK_H

#include <stdint.h>

#include "interrupt_stack.h"

struct tdl_job;
struct tdl_worker;
struct treadle_pool;

/* What is known of a worker without asking it. */
typedef struct tdl_glance {
  int boots;         /* it loads its module; no task then */
  int runs;          /* a job's code */
  uint32_t task;     /* whose that is; 0: a function that was shipped */
  uint64_t since_ns; /* when that began, or was first seen */
} tdl_glance;

/* A worker's part; under its `lock`. */
typedef struct tdl_sighting {
  const struct tdl_job *job; /* the last one that was seen, in that use */
  uint32_t generation;
  uint64_t first_ns;
} tdl_sighting;

/* 0 when the worker runs no job's code, and loads nothing. */
int tdl_look_glance(struct tdl_worker *worker, tdl_glance *out);

/* What a worker executes. */
typedef struct tdl_view {
  uint32_t id;
  tdl_glance glance;
  int waits; /* not that: the job waits, and the worker may do something else */
  int has_stack;   /* it is what `stack` says; else it did not answer */
  uint32_t ticket; /* the job's, if it came from another process; or 0 */
  tdl_stack stack;
  struct tdl_worker *worker; /* the looker's */
  uint64_t used_ns;          /* of the processors' time, when last looked at */
  enum { TDL_VIEW_WATCHED, TDL_VIEW_ASKED, TDL_VIEW_DONE, TDL_VIEW_LOST } state;
} tdl_view;

/* Looks at the workers from number `first` on, into as many views as there are;
** idle ones are left out. Blocks until all have answered, for so long at most.
** How many views were filled; `next` is the number to go on from, 0 at the
** end. */
uint32_t tdl_look(struct treadle_pool *pool, uint32_t first, tdl_view *views,
                  uint32_t max, uint64_t patience_ns, uint32_t *next);

/* The jobs that wait in a worker, one after the other: the next one after entry
** `after` (0: the first); its entry, or 0 at the end. */
uint32_t tdl_look_waiting(struct tdl_worker *worker, uint32_t after,
                          tdl_view *out);

#endif
