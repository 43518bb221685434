/* clock: the monotonic clock in nanoseconds.
** Threads: any.
** Owns:    nothing.
** Fails:   never. */
#ifndef TDL_BASE_CLOCK_H
#define TDL_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define TDL_NEVER UINT64_MAX

static inline uint64_t tdl_now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Seconds from a caller to a length in nanoseconds: never negative,
** saturated at 292 years so that a sum with the clock cannot wrap. */
static inline uint64_t tdl_seconds_ns(double seconds) {
  if (!(seconds > 0)) {
    return 0;
  }
  return seconds < 9e9 ? (uint64_t)(seconds * 1e9) : (uint64_t)9e18;
}

#endif
