/* check: the few lines that a C test needs. A test is a function whose name
** is its claim; CHECK ends it at the first thing that does not hold.
** Threads: CHECK is for the thread that runs the test.
** Owns:    nothing.
** Fails:   prints "not ok" and makes main return 1. */
#ifndef TDL_SPEC_CHECK_H
#define TDL_SPEC_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/alloc.h"

static int check_failed, check_any_failed;

#define CHECK(condition)                                                       \
  do {                                                                         \
    if (!(condition)) {                                                        \
      printf("# %s:%d: %s\n", __FILE__, __LINE__, #condition);                 \
      check_failed = 1;                                                        \
      return;                                                                  \
    }                                                                          \
  } while (0)

/* Runs a test; it must leave no block of memory behind. */
static inline void check_run(const char *name, void (*test)(void)) {
  long live = tdl_alloc_live();
  check_failed = 0;
  test();
  if (!check_failed && tdl_alloc_live() != live) {
    printf("# %ld blocks left behind\n", tdl_alloc_live() - live);
    check_failed = 1;
  }
  printf("%s %s\n", check_failed ? "not ok" : "ok", name);
  check_any_failed |= check_failed;
}

#define RUN(test) check_run(#test, test)

/* The seed of a randomised test: TDL_SEED, or the clock; printed. */
static inline unsigned check_seed(void) {
  const char *given = getenv("TDL_SEED");
  unsigned seed =
      given != NULL ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL);
  printf("# TDL_SEED=%u\n", seed);
  return seed;
}

#endif
