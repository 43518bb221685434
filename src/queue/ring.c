/* A position has a cell, which it shares with those of other laps; the cell's
** turn tells whose item it holds:
**
**   push p:  waits for head > p - cells  -> item, then turn = p + 1
**   pop p:   waits for turn == p + 1     -> item, then head = p + 1
**
** I1  Only the thread that moved tail from p to p+1 writes p's cell, and only
**     once head has passed p - cells: what it overwrites was taken.
** I2  A popper reads the item first and then claims it by moving head from p
**     to p+1. Until that succeeds nobody may overwrite the item (I1), and if
**     it fails somebody else has it.
** I3  Neither position nor turn ever falls, and positions are 64 bits and
**     never reused: a late compare-and-swap cannot succeed on a stale one.
** I4  head_seen is some value that head had: pushers look at head itself, in
**     the poppers' line, only when that is not enough.
**
** So an item costs the move of one line, the cell's: poppers write no cell and
** pushers' positions are not read. Source: Dmitry Vyukov's bounded MPMC queue
** (1024cores.net) for the turns; the claim after the read is that of the
** deque of Chase and Lev (SPAA 2005). Checked: spec/model/ring.pml, where each
** <ring.P1> is a step. */
#include "ring.h"

#include "../base/alloc.h"
#include "../base/compiler.h"
#include "../base/stall.h"
#include "../treadle.h"

int tdl_ring_init(tdl_ring *r, uint32_t cells) {
  r->mask = cells - 1;
  r->cells = tdl_alloc_pages(sizeof(*r->cells) * cells);
  if (r->cells == NULL) {
    return TREADLE_ENOMEM;
  }
  atomic_init(&r->tail, 0);
  atomic_init(&r->head_seen, 0);
  atomic_init(&r->head, 0);
  return 0;
}

void tdl_ring_fini(tdl_ring *r) {
  tdl_free_pages(r->cells, sizeof(*r->cells) * (r->mask + 1));
  r->cells = NULL;
}

/* 1 when position `pos` may be pushed to (I1). A `pos` that is behind the
** times looks far ahead of head, and full. */
static int has_room(tdl_ring *r, uint64_t pos) {
  /* <ring.P2> [ring-head] acquire: the poppers before it have read their
  ** items */
  uint64_t head = atomic_load_explicit(&r->head_seen, memory_order_acquire);
  if (TDL_UNLIKELY(pos - head > r->mask)) {
    /* <ring.P3> [ring-head] acquire: the same */
    head = atomic_load_explicit(&r->head, memory_order_acquire);
    if (pos - head > r->mask) {
      return 0;
    }
    /* <ring.P4> [ring-head] release: passes on what the acquire has seen
    ** (I4) */
    atomic_store_explicit(&r->head_seen, head, memory_order_release);
  }
  return 1;
}

int tdl_ring_push(tdl_ring *r, void *item) {
  /* <ring.P1> relaxed: a guess that the compare-and-swap checks */
  uint64_t pos = atomic_load_explicit(&r->tail, memory_order_relaxed);
  for (;;) {
    if (TDL_UNLIKELY(!has_room(r, pos))) {
      /* <ring.P5> relaxed: only whether the guess was old */
      uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
      if (tail == pos) {
        return 0;
      }
      pos = tail;
      continue;
    }
    TDL_STALL();
    /* <ring.P6> seq_cst: publishes before the pusher looks for sleepers
    ** [park] */
    if (atomic_compare_exchange_weak_explicit(
            &r->tail, &pos, pos + 1, memory_order_seq_cst,
            memory_order_relaxed)) { /* relaxed: a guess, as above */
      tdl_ring_cell *cell = tdl_ring_cell_at(r, pos);
      TDL_STALL();
      /* <ring.P7> I1; relaxed: the turn publishes it */
      atomic_store_explicit(&cell->item, item, memory_order_relaxed);
      TDL_STALL();
      /* <ring.P8> [ring-turn] release: the item is written */
      atomic_store_explicit(&cell->turn, pos + 1, memory_order_release);
      tdl_prefetch(tdl_ring_cell_at(r, pos + 2));
      return 1;
    }
  }
}

void *tdl_ring_pop(tdl_ring *r) {
  /* <ring.Q1> relaxed: a guess that the compare-and-swap checks */
  uint64_t pos = atomic_load_explicit(&r->head, memory_order_relaxed);
  for (;;) {
    tdl_ring_cell *cell = tdl_ring_cell_at(r, pos);
    /* <ring.Q2> [ring-turn] acquire: the item is written */
    uint64_t turn = atomic_load_explicit(&cell->turn, memory_order_acquire);
    if (turn == pos + 1) {
      TDL_STALL();
      /* <ring.Q3> I2; relaxed: the turn ordered it */
      void *item = atomic_load_explicit(&cell->item, memory_order_relaxed);
      tdl_prefetch(item);
      TDL_STALL();
      /* <ring.Q4> [ring-head] release: the item is read */
      if (atomic_compare_exchange_weak_explicit(
              &r->head, &pos, pos + 1, memory_order_release,
              memory_order_relaxed)) { /* relaxed: a guess, as above */
        cell = tdl_ring_cell_at(r, pos + 1);
        /* relaxed, both: a hint; the next item's memory is on its way while
        ** this one is handled */
        if (atomic_load_explicit(&cell->turn, memory_order_relaxed) ==
            pos + 2) {
          tdl_prefetch(atomic_load_explicit(&cell->item, memory_order_relaxed));
        }
        return item;
      }
    } else if (turn <= pos) {
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
  /* <ring.E1> <ring.E2> seq_cst: ordered after the sleeper's announcement
  ** [park]. A head that is read too old only makes the ring look fuller, which
  ** costs a second look. */
  uint64_t head = atomic_load_explicit(&r->head, memory_order_seq_cst);
  TDL_STALL();
  return atomic_load_explicit(&r->tail, memory_order_seq_cst) == head;
}
