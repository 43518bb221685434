/* tdl_tickets: the jobs that a worker's process has, and those that it is to have
** next, each with the number by which the process knows it.
** Threads: whoever has the keeper's lock (keeper.h, H1).
** Owns:    the tickets.
** Fails:   take, without memory.
**
** G1  A ticket that was just taken is on its way to be RUNNING; or it is pushed
**     ahead. Those are a list, in the order in which they will run; their jobs are
**     QUEUED still.
** G2  The first of them may have their records in the ring (TDL_FAR_AHEAD), from
**     `bare` on they have none. The process begins them as it comes to it; that
**     one has begun is seen when it is heard of, or when nobody else has the room.
** G3  A record that is not begun can be withdrawn (link.h, N3): its ticket is bare
**     then, and where it was in the list. */
#ifndef TDL_TICKETS_H
#define TDL_TICKETS_H

#include <stdatomic.h>
#include <stdint.h>

#include "../job/job.h"

/* Of a job that the process has, or a free one. */
typedef struct tdl_ticket {
  tdl_job *job;     /* NULL: free */
  uint32_t number;  /* as the process knows it (far.h) */
  uint32_t next;    /* that is free, or ahead */
  uint8_t is_ahead; /* G1 */
  uint8_t
      is_late; /* its job was settled before its process began it, all the same */
  uint64_t begins;   /* its record, in the ring */
  uint64_t record;   /* where that ends; 0: it has yet to be put */
  uint64_t began_ns; /* if the job is stamped, else 0 */
  uint64_t heard_ns; /* when its start was told to who watches, or 0 */
  uint64_t end_ns;   /* the process dies for it then; TDL_NEVER */
  int told;          /* of enum tdl_job_state: that it was settled */
} tdl_ticket;

typedef struct tdl_tickets {
  tdl_ticket *list; /* from 1 */
  uint32_t count, free;
  uint32_t first, last, bare; /* G1, G2; 0: none */
  _Atomic uint32_t ahead;     /* how many; others may look */
} tdl_tickets;

void tdl_tickets_fini(tdl_tickets *tickets);

/* The ticket of that number; NULL: there is none. */
tdl_ticket *tdl_tickets_find(const tdl_tickets *tickets, uint32_t number);

/* NULL without memory, or if there are as many as there can be. */
tdl_ticket *tdl_tickets_take(tdl_tickets *tickets, tdl_job *job);

/* It is not in the list. */
void tdl_tickets_give(tdl_tickets *tickets, tdl_ticket *ticket);

/* At the end of the list; and its first, which was in it. */
void tdl_tickets_push(tdl_tickets *tickets, tdl_ticket *ticket);
tdl_ticket *tdl_tickets_shift(tdl_tickets *tickets);

/* It is in the list, without a record that counts. */
void tdl_tickets_remove(tdl_tickets *tickets, tdl_ticket *ticket);

/* The one behind it in the list, or NULL; of NULL the first. */
tdl_ticket *tdl_tickets_next(const tdl_tickets *tickets,
                             const tdl_ticket *ticket);

/* The first bare one's record was put. */
void tdl_tickets_put(tdl_tickets *tickets, uint64_t begins, uint64_t record);

/* From that one on they are bare. */
void tdl_tickets_bare(tdl_tickets *tickets, tdl_ticket *ticket);

/* How many are ahead: a hint without the lock. */
static inline uint32_t tdl_tickets_ahead(const tdl_tickets *tickets) {
  /* [ahead] seq_cst: after the worker's bit was set */
  return atomic_load_explicit(&tickets->ahead, memory_order_seq_cst);
}

#endif
