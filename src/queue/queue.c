/*            push                                       pop
**   room, nothing spilled:  ring  ----------------->   ring
**   else:                   list  --(refill)-> ring
**
** I1  While the list is not empty every push goes to the list: what came
**     later never overtakes what was spilled.
** I2  Nodes go from the list to the ring under the lock, oldest first, so a
**     pop that finds the ring empty under the lock may take the list's first.
** I3  The lock is taken only when something is or was spilled; nobody runs
**     foreign code or waits for anything under it. */
#include "queue.h"

#include "../base/stall.h"

int tdl_queue_init(tdl_queue *q, uint32_t cells) {
  int status = tdl_ring_init(&q->ring, cells);
  if (status == 0) {
    atomic_init(&q->spilled, 0);
    pthread_mutex_init(&q->lock, NULL);
    q->first = q->last = NULL;
  }
  return status;
}

void tdl_queue_fini(tdl_queue *q) {
  if (q->ring.cells != NULL) {
    pthread_mutex_destroy(&q->lock);
    tdl_ring_fini(&q->ring);
  }
}

static void count_locked(tdl_queue *q, uint32_t n) {
  /* [queue-spill] seq_cst: publishes before the pusher looks for sleepers,
  ** as the ring's tail does [park] */
  atomic_store_explicit(&q->spilled, n, memory_order_seq_cst);
}

static void spill(tdl_queue *q, tdl_node *node) {
  TDL_STALL();
  pthread_mutex_lock(&q->lock);
  if (q->first != NULL || !tdl_ring_push(&q->ring, node)) { /* I1 */
    node->next = NULL;
    if (q->first == NULL) {
      q->first = node;
    } else {
      q->last->next = node;
    }
    q->last = node;
    count_locked(q, tdl_queue_spilled(q) + 1);
  }
  pthread_mutex_unlock(&q->lock);
}

static void refill_locked(tdl_queue *q) {
  uint32_t n = tdl_queue_spilled(q);
  while (q->first != NULL) {
    tdl_node *next = q->first->next; /* a popper owns the node after push */
    if (!tdl_ring_push(&q->ring, q->first)) {
      break;
    }
    TDL_STALL();
    q->first = next;
    n--;
  }
  TDL_STALL();
  count_locked(q, n);
}

void tdl_queue_push(tdl_queue *q, tdl_node *node) {
  if (tdl_queue_spilled(q) != 0 || !tdl_ring_push(&q->ring, node)) {
    spill(q, node);
  }
}

tdl_node *tdl_queue_pop(tdl_queue *q) {
  tdl_node *node = tdl_ring_pop(&q->ring);
  TDL_STALL();
  if (tdl_queue_spilled(q) == 0) {
    return node;
  }
  if (node != NULL) { /* refill by halves, and only if nobody else does */
    if (tdl_ring_length(&q->ring) <= (q->ring.mask + 1) / 2 &&
        pthread_mutex_trylock(&q->lock) == 0) {
      refill_locked(q);
      pthread_mutex_unlock(&q->lock);
    }
    return node;
  }
  TDL_STALL();
  pthread_mutex_lock(&q->lock);
  node = tdl_ring_pop(&q->ring);
  if (node == NULL && tdl_ring_length(&q->ring) == 0 && q->first != NULL) {
    node = q->first; /* I2 */
    q->first = node->next;
    count_locked(q, tdl_queue_spilled(q) - 1);
  }
  refill_locked(q);
  pthread_mutex_unlock(&q->lock);
  return node;
}

int tdl_queue_empty(const tdl_queue *q) {
  TDL_STALL();
  /* seq_cst: ordered after the sleeper's announcement [park] */
  return tdl_ring_empty(&q->ring) &&
         atomic_load_explicit(&q->spilled, memory_order_seq_cst) == 0;
}

uint32_t tdl_queue_length(const tdl_queue *q) {
  return tdl_ring_length(&q->ring) + tdl_queue_spilled(q);
}
