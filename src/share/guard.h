/* tdl_guard: the lock of a shared thing: held for some dozen instructions, or so
** many for each of those who wait there.
** Threads: any; who has locked it unlocks it.
** Owns:    nothing.
** Fails:   never.
**
** Who finds it held pauses a moment and then sleeps in the kernel: its holder
** may have lost its processor. Nothing is done under it that could wait, raise
** or free; only a select has several (channel.h, C4). */
#ifndef TDL_SHARE_GUARD_H
#define TDL_SHARE_GUARD_H

#include <stdatomic.h>
#include <stdint.h>

#include "../base/compiler.h"

enum { TDL_GUARD_FREE = 0, TDL_GUARD_HELD, TDL_GUARD_AWAITED };

typedef struct tdl_guard {
  _Atomic uint32_t word; /* starts as 0 */
} tdl_guard;

/* The slow halves; the first one blocks. */
void tdl_guard_wait(tdl_guard *guard);
void tdl_guard_wake(tdl_guard *guard);

static inline void tdl_guard_lock(tdl_guard *guard) {
  uint32_t found = TDL_GUARD_FREE;
  /* [guard] acquire: what was done under it before. relaxed: not got */
  if (TDL_UNLIKELY(!atomic_compare_exchange_strong_explicit(
          &guard->word, &found, TDL_GUARD_HELD, memory_order_acquire,
          memory_order_relaxed))) {
    tdl_guard_wait(guard);
  }
}

static inline void tdl_guard_unlock(tdl_guard *guard) {
  /* [guard] release: what was done under it */
  if (TDL_UNLIKELY(atomic_exchange_explicit(&guard->word, TDL_GUARD_FREE,
                                            memory_order_release) ==
                   TDL_GUARD_AWAITED)) {
    tdl_guard_wake(guard);
  }
}

#endif
