/* tdl_seen: the objects of one payload: address -> number.
** Threads: one at a time.
** Owns:    its cells; knows addresses only as numbers.
** Fails:   tdl_seen_put and tdl_seen_add, TREADLE_ENOMEM, contents untouched. */
#ifndef TDL_CODEC_SEEN_H
#define TDL_CODEC_SEEN_H

#include <stdint.h>

#include "../base/compiler.h"

typedef struct tdl_seen_cell {
  uintptr_t key;
  uint32_t value;
  uint32_t round; /* of another round: the cell is empty */
} tdl_seen_cell;

/* All zero is a valid, empty map. */
typedef struct tdl_seen {
  tdl_seen_cell *cells;
  uint32_t mask; /* cells - 1, cells a power of two; 0: none yet */
  uint32_t used;
  uint32_t round;
} tdl_seen;

void tdl_seen_fini(tdl_seen *s);

/* Forgets all keys: a new round, or free memory when there is much of it. */
void tdl_seen_clear(tdl_seen *s);

/* The value of `key`, to be changed in place; NULL when it is not there.
** Valid until the next put. */
uint32_t *tdl_seen_find(const tdl_seen *s, const void *key);

/* private */
static inline uint32_t tdl_seen_slot(const tdl_seen *s, uintptr_t key) {
  /* Addresses differ in their middle bits; the product's upper half has
  ** them all (Fibonacci hashing). */
  uint64_t h = (uint64_t)key * UINT64_C(0x9e3779b97f4a7c15);
  return (uint32_t)(h >> 32) & s->mask;
}
int tdl_seen_grow(tdl_seen *s);

/* Adds `key` unless it is there: 0, or 1 and its value in `found`; or
** TREADLE_ENOMEM. */
static inline int tdl_seen_add(tdl_seen *s, const void *key, uint32_t value,
                               uint32_t *found) {
  tdl_seen_cell *cell;
  uint32_t i;
  if (TDL_UNLIKELY(s->used >= s->mask / 2)) { /* also when there are no cells */
    int status = tdl_seen_grow(s);
    if (status != 0) {
      return status;
    }
  }
  i = tdl_seen_slot(s, (uintptr_t)key);
  for (;;) {
    cell = &s->cells[i];
    if (cell->round != s->round) {
      break;
    }
    if (cell->key == (uintptr_t)key) {
      *found = cell->value;
      return 1;
    }
    i = (i + 1) & s->mask;
  }
  cell->key = (uintptr_t)key;
  cell->value = value;
  cell->round = s->round;
  s->used++;
  return 0;
}

/* Adds `key`, which is not there. */
int tdl_seen_put(tdl_seen *s, const void *key, uint32_t value);

#endif
