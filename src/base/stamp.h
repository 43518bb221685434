/* stamp: when a call passes which point; for the bench's page of stages.
** Threads: any; each writes into a trail of its own.
** Owns:    the trails, for as long as the process lives.
** Fails:   never; a thread without memory for a trail leaves none.
**
** TDL_STAMP is nothing unless built with -DTDL_STAMPS. The trails are apart from
** what they tell of: a stamp in the job's record would move one more line
** between the cores, and so be much of what it measures. */
#ifndef TDL_BASE_STAMP_H
#define TDL_BASE_STAMP_H

#include <stdint.h>

/* In the order of a call's way. Two are passed twice where the short way is
** tried first and the other one taken: the first time counts. */
#define TDL_STAMP_POINTS(X)                                                    \
  X(BEGUN, "begun")       /* the caller's thread; no job yet */                \
  X(ENCODED, "encoded")   /* the arguments (the last one's end) */             \
  X(MADE, "made")         /* the future */                                     \
  X(PUSHED, "pushed")     /* and whoever must be woken is */                   \
  X(TAKEN, "taken")       /* the worker's: popped, not yet looked at */        \
  X(STARTED, "started")   /* the job is the worker's */                        \
  X(DECODED, "decoded")   /* the arguments */                                  \
  X(RAN, "ran")           /* the task */                                       \
  X(ANSWERED, "answered") /* the results are encoded */                        \
  X(SENT, "sent")         /* home; not the worker's any more */                \
  X(RECEIVED, "received") /* the caller's: popped, not yet looked at */        \
  X(OPENED, "opened")     /* it is one to report */                            \
  X(REPORTED, "reported") /* the results are the future's */

enum tdl_stamp_point {
  TDL_STAMP_NONE,
#define TDL_STAMP_ENUM(point, name) TDL_STAMP_##point,
  TDL_STAMP_POINTS(TDL_STAMP_ENUM)
#undef TDL_STAMP_ENUM
      TDL_STAMP_COUNT
};

#ifndef TDL_STAMPS

#define TDL_STAMP(job, point) ((void)0)

#else

#include <stdatomic.h>

#include "../config.h"
#include "clock.h"
#include "compiler.h"

/* The job's address stands for it (NULL: that of the next stamp) and is not
** followed: it may be somebody else's already. */
#define TDL_STAMP(job, point) tdl_stamp((job), TDL_STAMP_##point)

/* Points are what an address of a job leaves free. */
#define TDL_STAMP_POINT(what) ((uint32_t)(what)&63u)
#define TDL_STAMP_JOB(what)   ((what) & ~(uintptr_t)63u)

typedef struct tdl_stamped {
  uint64_t ticks;
  uintptr_t what; /* job | point */
} tdl_stamped;

/* A thread's last TDL_STAMP_TRACE_COUNT stamps. */
typedef struct tdl_trail {
  struct tdl_trail *next;
  _Atomic uint64_t count; /* ever; written by the thread alone */
  tdl_stamped stamps[TDL_STAMP_TRACE_COUNT];
} tdl_trail;

extern _Thread_local tdl_trail *tdl_trail_own;

/* This thread's first stamp: its trail, or NULL. */
tdl_trail *tdl_trail_new(void);

/* All trails, the newest first; also of threads that have ended. */
const tdl_trail *tdl_trails(void);

/* The processor's own counter where there is one that all cores share. */
static inline uint64_t tdl_ticks(void) {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#else
  return tdl_now_ns();
#endif
}

static inline void tdl_stamp(const void *job, enum tdl_stamp_point point) {
  tdl_trail *trail = tdl_trail_own;
  tdl_stamped *stamped;
  uint64_t count;
  if (TDL_UNLIKELY(trail == NULL) && (trail = tdl_trail_new()) == NULL) {
    return;
  }
  /* relaxed: this thread's own */
  count = atomic_load_explicit(&trail->count, memory_order_relaxed);
  stamped = &trail->stamps[count % TDL_STAMP_TRACE_COUNT];
  stamped->ticks = tdl_ticks();
  stamped->what = TDL_STAMP_JOB((uintptr_t)job) | (uintptr_t)point;
  /* [stamp] release: the stamp, to whoever reads the trail */
  atomic_store_explicit(&trail->count, count + 1, memory_order_release);
}

#endif
#endif
