/* tdl_queue: unbounded FIFO of nodes; a ring, and a list for what it cannot
** hold. A pool's run queue is one, and so is every state's inbox.
** Threads: any thread pushes, any thread pops; init and fini alone.
** Owns:    nothing; a node is the queue's from push to pop.
** Fails:   init with TREADLE_ENOMEM; push never. */
#ifndef TDL_QUEUE_H
#define TDL_QUEUE_H

#include <pthread.h>

#include "ring.h"

/* Lies in the item. Both fields are the holder's outside of the queue. */
typedef struct tdl_node {
  struct tdl_node *next;
  uint32_t kind; /* the run layer's: what has arrived */
} tdl_node;

typedef struct tdl_queue {
  tdl_ring ring;
  /* nodes in the list; written under the lock, read by everybody */
  _Alignas(TDL_LINE_BYTES) _Atomic uint32_t spilled;
  pthread_mutex_t lock; /* guards first and last */
  tdl_node *first, *last;
} tdl_queue;

/* private; nodes in the list. */
static inline uint32_t tdl_queue_spilled(const tdl_queue *q) {
  /* [queue-spill] acquire: with the store in count_locked, orders what a
  ** thread does after it saw the list change */
  return atomic_load_explicit(&q->spilled, memory_order_acquire);
}

int tdl_queue_init(tdl_queue *q, uint32_t cells);
void tdl_queue_fini(tdl_queue *q);

/* Takes the node. Order is kept for the nodes of one pusher, and for all
** whose pushes do not overlap in time. */
void tdl_queue_push(tdl_queue *q, tdl_node *node);

/* The oldest node, or NULL when there is none that can be had at once. */
tdl_node *tdl_queue_pop(tdl_queue *q);

/* 1 when pop would find a node at once; cheaper for the pushers than empty, and
** no ground to sleep on. */
static inline int tdl_queue_ready(const tdl_queue *q) {
  return tdl_ring_ready(&q->ring) || tdl_queue_spilled(q) != 0;
}

/* 0 as soon as a push is certain to be seen by a later pop. */
int tdl_queue_empty(const tdl_queue *q);

/* Nodes in it; exact when nobody else is at work. */
uint32_t tdl_queue_length(const tdl_queue *q);

#endif
