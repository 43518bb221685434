#include "guard.h"

#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../config.h"

/* Once somebody sleeps, or is about to, the word says so until it is free: who
** takes it after a sleep cannot know that nobody else sleeps. */
void tdl_guard_wait(tdl_guard *guard) {
  for (int i = 0; i < TDL_GUARD_PAUSES; i++) {
    uint32_t found = TDL_GUARD_FREE;
    tdl_pause();
    /* relaxed: a look before the try */
    if (atomic_load_explicit(&guard->word, memory_order_relaxed) ==
            TDL_GUARD_FREE &&
        /* [guard] acquire: as in lock. relaxed: not got */
        atomic_compare_exchange_strong_explicit(
            &guard->word, &found, TDL_GUARD_HELD, memory_order_acquire,
            memory_order_relaxed)) {
      return;
    }
  }
  while (atomic_exchange_explicit(/* [guard] acquire: as in lock */
                                  &guard->word, TDL_GUARD_AWAITED,
                                  memory_order_acquire) != TDL_GUARD_FREE) {
    syscall(SYS_futex, &guard->word, FUTEX_WAIT_PRIVATE, TDL_GUARD_AWAITED,
            NULL, NULL, 0);
  }
}

void tdl_guard_wake(tdl_guard *guard) {
  syscall(SYS_futex, &guard->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}
