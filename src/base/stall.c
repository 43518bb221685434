#include "stall.h"

#ifdef TDL_TEST_STALL
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include "compiler.h"

/* Of the steps that stall, so many of 256 only pause, or yield; the rest sleep,
** one in eight as long as a thread needs to end. */
#define PAUSES   200
#define YIELDS   46
#define SHORT_NS 50000
#define LONG_NS  1000000

static _Atomic uint64_t seed = 1;
static atomic_uint threads; /* that have stalled */
static atomic_uint steps = 900;
static _Thread_local uint64_t random_state;

void tdl_stall_seed(uint64_t new_seed, uint32_t new_steps) {
  /* relaxed, both: tests only */
  atomic_store_explicit(&seed, new_seed, memory_order_relaxed);
  atomic_store_explicit(&steps, new_steps, memory_order_relaxed);
}

static uint64_t first_state(void) {
  /* relaxed, both: tests only */
  uint64_t n = atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed);
  n = atomic_load_explicit(&seed, memory_order_relaxed) + n + 1;
  n *= 0x9e3779b97f4a7c15u;
  return (n ^ n >> 32) | 1; /* never 0: there xorshift stands still */
}

void tdl_stall(void) {
  uint64_t x = random_state;
  uint32_t kind;
  if (TDL_UNLIKELY(x == 0)) {
    x = first_state();
  }
  x ^= x << 13; /* Marsaglia's xorshift64 */
  x ^= x >> 7;
  x ^= x << 17;
  random_state = x;
  /* relaxed: tests only */
  if ((x & 1023) < atomic_load_explicit(&steps, memory_order_relaxed)) {
    return;
  }
  kind = (uint32_t)(x >> 10) & 255;
  x >>= 18;
  if (kind < PAUSES) {
    for (uint32_t n = (uint32_t)(x % 200) + 1; n > 0; n--) {
      tdl_pause();
    }
  } else if (kind < PAUSES + YIELDS) {
    sched_yield();
  } else {
    long longest = (x & 7) == 0 ? LONG_NS : SHORT_NS;
    struct timespec t = {0, (long)((x >> 3) % (uint64_t)longest) + 1};
    nanosleep(&t, NULL);
  }
}
#endif
