/* tdl_backlog: a pool's run queue: one FIFO for each of three ranks.
** Threads: any thread pushes, any thread pops; init and fini alone.
** Owns:    the queues; never what lies in them.
** Fails:   init and rank with TREADLE_ENOMEM; push never.
**
** K1  The queues of the higher and of the lower rank are made at the first use
**     of either, and published before anything is pushed to them. Who looks for
**     them after its announcement and finds none is seen by whoever pushes
**     [park].
** K2  A popper takes the highest rank first. Of TDL_BACKLOG_TURNS items that it
**     gets, one comes from the lowest and one from the middle rank, if they
**     hold any: nothing is starved. */
#ifndef TDL_BACKLOG_H
#define TDL_BACKLOG_H

#include "../base/compiler.h"
#include "queue.h"

enum tdl_rank { TDL_RANK_NORMAL = 0, TDL_RANK_HIGH, TDL_RANK_LOW };

typedef struct tdl_ranks {
  tdl_queue high, low;
} tdl_ranks;

typedef struct tdl_backlog {
  tdl_queue normal;
  _Atomic(tdl_ranks *) ranks; /* K1 */
} tdl_backlog;

int tdl_backlog_init(tdl_backlog *b);
void tdl_backlog_fini(tdl_backlog *b);

/* Makes sure that items of every rank can be pushed. */
int tdl_backlog_rank(tdl_backlog *b);

/* For a rank that is not normal, tdl_backlog_rank comes before it. */
void tdl_backlog_push(tdl_backlog *b, tdl_node *node, enum tdl_rank rank);

/* Items in it; exact when nobody else is at work. */
uint32_t tdl_backlog_length(const tdl_backlog *b);

/* --- where only the normal rank is used, each is the queue's ------------- */

tdl_node *tdl_ranks_pop(tdl_backlog *b, tdl_ranks *ranks, uint32_t *got);
int tdl_ranks_empty(const tdl_ranks *ranks);
int tdl_ranks_ready(const tdl_ranks *ranks);

static inline tdl_ranks *tdl_backlog_ranks(const tdl_backlog *b) {
  /* [rank-queues] seq_cst: after the sleeper's announcement (K1) */
  return atomic_load_explicit(&b->ranks, memory_order_seq_cst);
}

/* `got` counts what this popper got while there were ranks; it is its own. */
static inline tdl_node *tdl_backlog_pop(tdl_backlog *b, uint32_t *got) {
  tdl_ranks *ranks = tdl_backlog_ranks(b);
  return TDL_LIKELY(ranks == NULL) ? tdl_queue_pop(&b->normal)
                                   : tdl_ranks_pop(b, ranks, got);
}

static inline int tdl_backlog_empty(const tdl_backlog *b) {
  const tdl_ranks *ranks;
  if (!tdl_queue_empty(&b->normal)) {
    return 0;
  }
  ranks = tdl_backlog_ranks(b);
  return TDL_LIKELY(ranks == NULL) || tdl_ranks_empty(ranks);
}

static inline int tdl_backlog_ready(const tdl_backlog *b) {
  const tdl_ranks *ranks = tdl_backlog_ranks(b);
  return tdl_queue_ready(&b->normal) ||
         (TDL_UNLIKELY(ranks != NULL) && tdl_ranks_ready(ranks));
}

#endif
