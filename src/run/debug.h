/* tdl_debug: lines on standard error that say what a pool does.
** Threads: any that keeps the pool; names are the home's to give.
** Owns:    the names, until the pool is freed.
** Fails:   never; a line that cannot be written is left out.
**
**   [treadle w2 job +1.234ms] done add 0.41ms
**
** Who says it; of what kind it is; when, since the pool was opened. A line is one
** write, so that those of several threads never mix. */
#ifndef TDL_DEBUG_H
#define TDL_DEBUG_H

#include "pool.h"

enum tdl_debug {
  TDL_DEBUG_POOL = 1,
  TDL_DEBUG_WORKER = 2,
  TDL_DEBUG_LOAD = 4,
  TDL_DEBUG_JOB = 8,
  TDL_DEBUG_SIGNAL = 16,
  TDL_DEBUG_PAYLOAD = 32
};

/* Whether lines of that kind are wanted. */
static inline int tdl_debug_wants(const treadle_pool *pool,
                                  enum tdl_debug kind) {
  return (pool->debug & kind) != 0;
}

/* Says a line, if it is wanted; `worker` 0: the home. What is longer than
** TDL_DEBUG_LINE_BYTES is cut. */
void tdl_debug_say(const treadle_pool *pool, uint32_t worker,
                   enum tdl_debug kind, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* home, once, before the first call: what tasks are called, by number from 0.
** Copied; without memory they have numbers. */
void tdl_debug_set_names(treadle_pool *pool, const char *const *names,
                         uint32_t count);
void tdl_debug_drop_names(treadle_pool *pool);

/* What a task is called; `buffer` is for one without a name. */
const char *tdl_debug_name(const treadle_pool *pool, uint32_t task,
                           char buffer[16]);

#endif
