/* tdl_ring: bounded FIFO of pointers, many pushers and many poppers.
** Threads: any thread pushes, any thread pops; init and fini alone.
** Owns:    its cells; never what the pointers point to.
** Fails:   push and pop answer 0 when full or empty; they never block. */
#ifndef TDL_RING_H
#define TDL_RING_H

#include <stdatomic.h>
#include <stdint.h>

#include "../config.h"

typedef struct tdl_ring_cell {
  _Atomic uint64_t turn; /* [ring-turn] the position of its item, plus 1 */
  _Atomic(void *) item;  /* turn orders it; several poppers may read it */
} tdl_ring_cell;

typedef struct tdl_ring {
  tdl_ring_cell *cells;                           /* read-only after init */
  uint64_t mask;                                  /* read-only after init */
  _Alignas(TDL_LINE_BYTES) _Atomic uint64_t tail; /* next push; pushers */
  _Atomic uint64_t head_seen;                     /* I4; pushers */
  _Alignas(TDL_LINE_BYTES) _Atomic uint64_t head; /* next pop; poppers */
} tdl_ring;

/* private; a line holds four cells, and neighbouring positions are five cells
** apart, so that pusher and popper do not fight over one. Five is odd: each
** position of a lap has its own. */
static inline tdl_ring_cell *tdl_ring_cell_at(const tdl_ring *r, uint64_t pos) {
  return &r->cells[(pos * 5) & r->mask];
}

/* `cells` is a power of two, at least 2. Returns 0 or TREADLE_ENOMEM. */
int tdl_ring_init(tdl_ring *r, uint32_t cells);
void tdl_ring_fini(tdl_ring *r);

/* 1 when the item is in, 0 when the ring is full. A sequentially consistent
** read-modify-write of `tail` publishes it: see tdl_ring_empty. */
int tdl_ring_push(tdl_ring *r, void *item);

/* The oldest item, or NULL: empty, or its pusher has not written it yet. */
void *tdl_ring_pop(tdl_ring *r);

/* 1 when pop would find an item: a look at the next cell alone, which leaves
** the pushers' line to them. Says nothing about pushes under way. */
static inline int tdl_ring_ready(const tdl_ring *r) {
  /* relaxed, both: pop looks again */
  uint64_t pos = atomic_load_explicit(&r->head, memory_order_relaxed);
  return atomic_load_explicit(&tdl_ring_cell_at(r, pos)->turn,
                              memory_order_relaxed) == pos + 1;
}

/* Items claimed and not popped; exact when nobody else is at work. */
uint32_t tdl_ring_length(const tdl_ring *r);

/* 0 as soon as a push has claimed its place, before pop can see the item:
** whoever sleeps only on 1 misses no push (the sleeper's half of the rule in
** parker.h). */
int tdl_ring_empty(const tdl_ring *r);

#endif
