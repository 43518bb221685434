/* A cell's turn tells whose it is:
**
**   position p = lap * cells + i           cell i
**   push p:  waits for turn 2*lap      ->  item, then turn 2*lap + 1
**   pop p:   waits for turn 2*lap + 1  ->  item, then turn 2*lap + 2
**
** I1  Only the thread that moved tail from p to p+1 writes cell p's item, and
**     only between turns 2*lap and 2*lap + 1.
** I2  Only the thread that moved head from p to p+1 reads it, and only between
**     turns 2*lap + 1 and 2*lap + 2.
** I3  turn never falls, so a late compare-and-swap on tail or head cannot
**     succeed on a stale position: positions are 64 bits and never reused.
**
** Source: Dmitry Vyukov's bounded MPMC queue (1024cores.net), with laps in
** place of sequence numbers so that zeroed memory is an empty ring. */
#include "ring.h"

#include "../base/alloc.h"
#include "../base/compiler.h"
#include "../treadle.h"

/* Neighbouring positions lie in different cache lines, so that pusher and
** popper do not fight over one: the top two bits become the lowest. */
static uint64_t place(const tdl_ring *r, uint64_t pos) {
  uint64_t i = pos & ((1u << r->bits) - 1);
  if (r->bits < 4) {
    return i;
  }
  return ((i << 2) | (i >> (r->bits - 2))) & ((1u << r->bits) - 1);
}

int tdl_ring_init(tdl_ring *r, uint32_t cells) {
  r->bits = 1;
  while ((1u << r->bits) < cells) {
    r->bits++;
  }
  r->cells = tdl_alloc_aligned(TDL_LINE_BYTES, sizeof(*r->cells) << r->bits);
  if (r->cells == NULL) {
    return TREADLE_ENOMEM;
  }
  atomic_init(&r->tail, 0);
  atomic_init(&r->head, 0);
  return 0;
}

void tdl_ring_fini(tdl_ring *r) {
  tdl_free(r->cells);
  r->cells = NULL;
}

int tdl_ring_push(tdl_ring *r, void *item) {
  /* relaxed: a guess that the compare-and-swap checks */
  uint64_t pos = atomic_load_explicit(&r->tail, memory_order_relaxed);
  for (;;) {
    tdl_ring_cell *cell = &r->cells[place(r, pos)];
    uint64_t free_turn = (pos >> r->bits) * 2;
    /* [ring-turn] acquire: the last reader is done with the item */
    uint64_t turn = atomic_load_explicit(&cell->turn, memory_order_acquire);
    if (turn == free_turn) {
      /* seq_cst: publishes before the pusher looks for sleepers [park] */
      if (atomic_compare_exchange_weak_explicit(&r->tail, &pos, pos + 1,
                                                memory_order_seq_cst,
                                                memory_order_relaxed)) {
        /* I1; relaxed: the turn publishes it */
        atomic_store_explicit(&cell->item, item, memory_order_relaxed);
        /* [ring-turn] release: the item is written */
        atomic_store_explicit(&cell->turn, turn + 1, memory_order_release);
        return 1;
      }
    } else if (turn < free_turn) {
      return 0;
    } else { /* relaxed: somebody else took pos; guess again */
      pos = atomic_load_explicit(&r->tail, memory_order_relaxed);
    }
  }
}

void *tdl_ring_pop(tdl_ring *r) {
  /* relaxed: a guess that the compare-and-swap checks */
  uint64_t pos = atomic_load_explicit(&r->head, memory_order_relaxed);
  for (;;) {
    tdl_ring_cell *cell = &r->cells[place(r, pos)];
    uint64_t full_turn = (pos >> r->bits) * 2 + 1;
    /* [ring-turn] acquire: the item is written */
    uint64_t turn = atomic_load_explicit(&cell->turn, memory_order_acquire);
    if (turn == full_turn) {
      /* relaxed: cell->turn orders the item; head only deals out places */
      if (atomic_compare_exchange_weak_explicit(&r->head, &pos, pos + 1,
                                                memory_order_relaxed,
                                                memory_order_relaxed)) {
        /* I2; relaxed: the turn ordered it */
        void *item = atomic_load_explicit(&cell->item, memory_order_relaxed);
        tdl_ring_cell *next = &r->cells[place(r, pos + 1)];
        /* [ring-turn] release: done with the item */
        atomic_store_explicit(&cell->turn, turn + 1, memory_order_release);
        /* relaxed, both: a hint; the next item's memory is on its way while
        ** this one is handled */
        if (atomic_load_explicit(&next->turn, memory_order_relaxed) ==
            ((pos + 1) >> r->bits) * 2 + 1) {
          TDL_PREFETCH(atomic_load_explicit(&next->item, memory_order_relaxed));
        }
        return item;
      }
    } else if (turn < full_turn) {
      return NULL;
    } else { /* relaxed: somebody else took pos; guess again */
      pos = atomic_load_explicit(&r->head, memory_order_relaxed);
    }
  }
}

uint32_t tdl_ring_length(const tdl_ring *r) {
  /* relaxed: an estimate */
  uint64_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
  uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
  return tail > head ? (uint32_t)(tail - head) : 0;
}

int tdl_ring_empty(const tdl_ring *r) {
  /* seq_cst: ordered after the sleeper's announcement [park]. A head that is
  ** read too old only makes the ring look fuller, which costs a second look. */
  uint64_t head = atomic_load_explicit(&r->head, memory_order_seq_cst);
  return atomic_load_explicit(&r->tail, memory_order_seq_cst) == head;
}
