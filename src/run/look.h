/* tdl_look: what the workers of a pool run now, seen from another thread.
** Threads: any that keeps the pool.
** Owns:    nothing.
** Fails:   never: what cannot be known is left out. */
#ifndef TDL_LOOK_H
#define TDL_LOOK_H

#include <stdint.h>

struct tdl_job;
struct tdl_worker;

/* What is known of a worker without asking it. */
typedef struct tdl_glance {
  int boots;         /* it loads its module; the rest is 0 then */
  uint32_t task;     /* whose code runs; 0: a function that was shipped */
  uint64_t since_ns; /* when that began, or was first seen */
} tdl_glance;

/* A worker's part; under its `lock`. */
typedef struct tdl_look {
  const struct tdl_job *job; /* the last one that was seen, in that use */
  uint32_t generation;
  uint64_t first_ns;
} tdl_look;

/* 0 when the worker runs no job's code, and loads nothing. */
int tdl_look_glance(struct tdl_worker *worker, tdl_glance *out);

#endif
