/* tdl_chance: how long a thread had the chance to end what it does.
** Threads: the supervisor's; `tid` is its thread's to write, once.
** Owns:    nothing.
** Fails:   never; where the kernel does not tell, a thread that does not compute
**          counts as one that stands still.
**
** A thread gets on, or could have, while it computes and while it waits in a
** call that blocks. While it waits for a processor, on a busy machine, it
** cannot, and that time does not count. */
#ifndef TDL_CHANCE_H
#define TDL_CHANCE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

typedef struct tdl_chance {
  atomic_int tid;    /* as the kernel names the thread; 0: not yet known */
  uint64_t used_ns;  /* of the processors' time, at the last look */
  uint64_t still_ns; /* how long it was seen to stand still, in all */
  uint64_t seen_ns;  /* the last look; 0: there was none lately */
  int is_still;      /* it stood still then */
} tdl_chance;

/* The thread itself, when it begins. */
void tdl_chance_start(tdl_chance *chance);

/* Looks at the thread, which has not ended, at the time `now`. Counts of two
** looks may be compared; between them what happens is taken from what was seen
** at both. */
void tdl_chance_look(tdl_chance *chance, pthread_t thread, uint64_t now);

/* The looks begin again: until the first, nothing is counted. */
void tdl_chance_pause(tdl_chance *chance);

#endif
