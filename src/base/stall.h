/* stall: a seam for tests: a pause of random length between two steps of a
** hand-off, so that the orders that hardly ever happen happen all the time.
** Threads: any; each has its own random numbers.
** Owns:    nothing.
** Fails:   never. Nothing is left of it without TDL_TEST_STALL. */
#ifndef TDL_BASE_STALL_H
#define TDL_BASE_STALL_H

#ifdef TDL_TEST_STALL
#include <stdint.h>

#define TDL_STALL() tdl_stall()

/* Mostly goes on at once; else pauses, yields the processor or sleeps. */
void tdl_stall(void);

/* The seed of the threads that stall for the first time from now on, and how
** many of 1,024 steps are no more than a step: 1,024 turns stalling off. */
void tdl_stall_seed(uint64_t seed, uint32_t steps);
#else
#define TDL_STALL() ((void)0)
#endif

#endif
