/* tdl_counter: one integer of 64 bits that many states count with.
** Threads: any.
** Owns:    nothing.
** Fails:   TREADLE_ENOMEM from new. */
#ifndef TDL_SHARE_COUNTER_H
#define TDL_SHARE_COUNTER_H

#include "../base/counted.h"

typedef struct tdl_counter {
  tdl_counted counted; /* first */
  _Atomic int64_t value;
} tdl_counter;

extern const tdl_kind tdl_counter_kind;

int tdl_counter_new(int64_t value, tdl_counter **out);

/* The new value; it goes on from the other end where 64 bits end. */
int64_t tdl_counter_add(tdl_counter *counter, int64_t n);
int64_t tdl_counter_get(const tdl_counter *counter);
void tdl_counter_set(tdl_counter *counter, int64_t value);

#endif
