/* tdl_atomics: integers in shared memory that many threads change, and waiting
** for such a change.
** Threads: any.
** Owns:    nothing; who waits keeps the memory.
** Fails:   never.
**
** A1  All operations are seq_cst, so that scripts may think of one order in
**     which all of them happen.
** A2  Who waits has compared under the guard of the address' list, and stands in
**     it then. Who has changed the integer looks for it there under the same
**     guard: either the comparison sees the change, or the look sees who waits. */
#ifndef TDL_SHARE_ATOMICS_H
#define TDL_SHARE_ATOMICS_H

#include <stddef.h>
#include <stdint.h>

#include "wait.h"

/* The operations on one type of integers, for the FFI: `functions` is a struct
** that `declaration` declares. */
typedef struct tdl_atomics_type {
  const char *type; /* int8_t, ... ; NULL ends the list */
  const char *declaration;
  const void *functions;
} tdl_atomics_type;

extern const tdl_atomics_type tdl_atomics_types[];

/* 1 when the integer of that many bytes is another one; else the waiter stands
** in the list of its address. */
int tdl_atomics_wait(void *address, size_t bytes, uint64_t expected,
                     tdl_waiter *waiter);
void tdl_atomics_leave(tdl_waiter *waiter);

/* Wakes at most `n` of those who wait there, first come, first served; says how
** many. */
uint32_t tdl_atomics_notify(void *address, uint32_t n);

#endif
