/* tdl_seen: the objects of one payload: address -> number.
** Threads: one at a time.
** Owns:    its cells; knows addresses only as numbers.
** Fails:   tdl_seen_put, TREADLE_ENOMEM, contents untouched. */
#ifndef TDL_CODEC_SEEN_H
#define TDL_CODEC_SEEN_H

#include <stdint.h>

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

/* Adds `key`, which is not there. */
int tdl_seen_put(tdl_seen *s, const void *key, uint32_t value);

#endif
