/* tdl_nested: the calls that a worker in a process of its own makes on its own
** pool, as its keeper makes them for it (the other end: upcall.h).
** Threads: the keeper's; what says so is under the keeper's lock, too.
** Owns:    the calls' places, and answers that wait for room in the ring.
** Fails:   a call, to which it answers so.
**
** X1  Such a call is a job of the worker's own loop: its home is the keeper's
**     thread, as a worker's thread is the home of what its tasks call. Whoever
**     else collects stops at what is such a record, and leaves it lying (`owed`).
** X2  The process' number of the call is its place here. It has one call under way
**     for each, from its record until the answer: another one is nonsense (H5).
** X3  A call that has ended is answered with what it brought, at once or when there
**     is room. The place is free then, also if a job that was settled has yet to
**     come home.
** X4  If the process ends the calls that it made go on, or, if it was lost, are
**     cancelled (tdl_loop_renew); nobody is answered. */
#ifndef TDL_NESTED_H
#define TDL_NESTED_H

#include "../link/link.h"
#include "loop.h"

struct tdl_keeper;

#define TDL_NESTED_ENTRIES 64 /* in a block of them */

typedef struct tdl_nested_call {
  struct tdl_keeper *keeper;
  struct tdl_nested_call *next; /* that is late */
  tdl_job *job;                 /* X2: while it is under way, else NULL */
  uint32_t number;
  int16_t status; /* of an answer that is late, with the two behind it */
  uint16_t worker;
  uint8_t is_late;
  tdl_bytes bytes;
} tdl_nested_call;

typedef struct tdl_nested {
  tdl_nested_call **blocks; /* by number */
  uint32_t block_count;
  tdl_nested_call *late, **late_end; /* X3: in order */
  int is_asked;                      /* for: */
  uint32_t what;                     /* enum tdl_ask_pool */
  uint64_t number;
  tdl_bytes text; /* one payload, or a text that ends in 0 */
} tdl_nested;

void tdl_nested_init(tdl_nested *nested);
void tdl_nested_fini(tdl_nested *nested);

/* With the lock; a record of the process that is no result. 0: nonsense. */
int tdl_nested_hear(struct tdl_keeper *keeper, const tdl_record *head,
                    const uint8_t *data);

/* Without it, after what was heard: what it asks of the pool takes place. */
void tdl_nested_go_on(struct tdl_keeper *keeper);

/* With the lock; puts answers that are late, until there is no room: how many it
** was. And whether there are some left. */
uint32_t tdl_nested_answer(struct tdl_keeper *keeper);
static inline int tdl_nested_is_late(const tdl_nested *nested) {
  return nested->late != NULL;
}

/* Calls of the process are under way. */
int tdl_nested_is_busy(struct tdl_keeper *keeper);

/* X4: it has ended. */
void tdl_nested_lose(struct tdl_keeper *keeper);

#endif
