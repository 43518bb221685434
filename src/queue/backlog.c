#include "backlog.h"

#include "../base/alloc.h"
#include "../base/stall.h"
#include "../treadle.h"

int tdl_backlog_init(tdl_backlog *b) {
  atomic_init(&b->ranks, NULL);
  return tdl_queue_init(&b->normal, TDL_RING_CELLS);
}

static void free_ranks(tdl_ranks *ranks) {
  if (ranks != NULL) {
    tdl_queue_fini(&ranks->high);
    tdl_queue_fini(&ranks->low);
    tdl_free(ranks);
  }
}

void tdl_backlog_fini(tdl_backlog *b) {
  free_ranks(tdl_backlog_ranks(b));
  tdl_queue_fini(&b->normal);
}

static tdl_ranks *new_ranks(void) {
  tdl_ranks *ranks = tdl_alloc_aligned(TDL_LINE_BYTES, sizeof(*ranks));
  if (ranks != NULL && (tdl_queue_init(&ranks->high, TDL_RING_CELLS) != 0 ||
                        tdl_queue_init(&ranks->low, TDL_RING_CELLS) != 0)) {
    free_ranks(ranks);
    return NULL;
  }
  return ranks;
}

int tdl_backlog_rank(tdl_backlog *b) {
  tdl_ranks *ranks, *none = NULL;
  if (tdl_backlog_ranks(b) != NULL) {
    return 0;
  }
  ranks = new_ranks();
  if (ranks == NULL) {
    return TREADLE_ENOMEM;
  }
  TDL_STALL();
  /* [rank-queues] seq_cst: before the push, and the look for sleepers (K1) */
  if (!atomic_compare_exchange_strong_explicit(&b->ranks, &none, ranks,
                                               memory_order_seq_cst,
                                               memory_order_seq_cst)) {
    free_ranks(ranks); /* another caller was first */
  }
  return 0;
}

void tdl_backlog_push(tdl_backlog *b, tdl_node *node, enum tdl_rank rank) {
  if (rank == TDL_RANK_NORMAL) {
    tdl_queue_push(&b->normal, node);
  } else {
    tdl_ranks *ranks = tdl_backlog_ranks(b);
    tdl_queue_push(rank == TDL_RANK_HIGH ? &ranks->high : &ranks->low, node);
  }
}

tdl_node *tdl_ranks_pop(tdl_backlog *b, tdl_ranks *ranks, uint32_t *got) {
  uint32_t turn = *got % TDL_BACKLOG_TURNS;
  tdl_queue *first = turn == TDL_BACKLOG_TURNS - 1 ? &ranks->low
                     : turn == TDL_BACKLOG_TURNS / 2 - 1
                         ? &b->normal
                         : &ranks->high; /* K2 */
  tdl_node *node = tdl_queue_pop(first);
  if (node == NULL && first != &ranks->high) {
    node = tdl_queue_pop(&ranks->high);
  }
  if (node == NULL && first != &b->normal) {
    node = tdl_queue_pop(&b->normal);
  }
  if (node == NULL && first != &ranks->low) {
    node = tdl_queue_pop(&ranks->low);
  }
  *got += node != NULL;
  return node;
}

int tdl_ranks_empty(const tdl_ranks *ranks) {
  return tdl_queue_empty(&ranks->high) && tdl_queue_empty(&ranks->low);
}

int tdl_ranks_ready(const tdl_ranks *ranks) {
  return tdl_queue_ready(&ranks->high) || tdl_queue_ready(&ranks->low);
}

uint32_t tdl_backlog_length(const tdl_backlog *b) {
  const tdl_ranks *ranks = tdl_backlog_ranks(b);
  uint32_t length = tdl_queue_length(&b->normal);
  if (ranks != NULL) {
    length += tdl_queue_length(&ranks->high) + tdl_queue_length(&ranks->low);
  }
  return length;
}
