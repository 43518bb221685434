/* tdl_profile: what the workers of a pool execute, looked at again and again for a
** while, and counted by stack.
** Threads: any, with a reference; it has a thread of its own until its end.
** Owns:    the stacks; its thread a reference of it, and one of the pool.
** Fails:   TREADLE_ENOMEM, TREADLE_ESYSTEM from new.
**
** It ends when its time is over, when it is stopped, when the pool is, or when
** nobody but its thread has a reference. */
#ifndef TDL_PROFILE_H
#define TDL_PROFILE_H

#include <stdint.h>

#include "../base/counted.h"

struct treadle_pool;

typedef struct tdl_profile tdl_profile;

extern const tdl_kind tdl_profile_kind;

/* any thread that keeps the pool. */
int tdl_profile_new(struct treadle_pool *pool, uint64_t ns,
                    uint64_t interval_ns, tdl_profile **out);
tdl_counted *tdl_profile_counted(tdl_profile *profile);
tdl_profile *tdl_profile_of(tdl_counted *counted);

/* Asks it to end; whether it has; blocks until then: after its end was asked for,
** or is due, that takes milliseconds. */
void tdl_profile_stop(tdl_profile *profile);
int tdl_profile_is_over(tdl_profile *profile);
void tdl_profile_wait(tdl_profile *profile);

/* After its end. How often it has looked; how many stacks it saw; how many busy
** workers did not answer, most often because they had no processor just then; how
** long the looks took, in all. Then calls fn for each stack that was seen: a
** text of lines, the first the task's number, "load", or "other"; then the frames
** from the outermost on: "L" or "M" (a chunk's code), the line where it begins, a
** tab and its source; "C" or "B" (LuaJIT's) and its id; "G": the collector; "?";
** "+" where some are left out. */
typedef struct tdl_profile_counts {
  uint64_t looks, stacks, unanswered, look_ns;
} tdl_profile_counts;

void tdl_profile_read(tdl_profile *profile, tdl_profile_counts *out);
void tdl_profile_each(tdl_profile *profile,
                      void (*fn)(void *ctx, const char *text, uint32_t length,
                                 uint64_t count),
                      void *ctx);

#endif
