/* Open addressing with linear probing, at most half full. Emptying it is one
** addition, because a cell of an earlier round counts as empty. */
#include "seen.h"

#include <stddef.h>

#include "../base/alloc.h"
#include "../config.h"
#include "../treadle.h"

/* The first map: 1 KiB, enough for 32 objects. */
#define FIRST_CELLS 64

/* What a map may keep between two payloads: 64 KiB. */
#define KEEP_CELLS 4096

void tdl_seen_fini(tdl_seen *s) {
  tdl_free(s->cells);
  s->cells = NULL;
  s->mask = 0;
  s->used = 0;
}

void tdl_seen_clear(tdl_seen *s) {
  if (s->mask >= KEEP_CELLS || s->round == UINT32_MAX) {
    tdl_seen_fini(s);
    s->round = 0;
  }
  s->used = 0;
  s->round++;
}

uint32_t *tdl_seen_find(const tdl_seen *s, const void *key) {
  uint32_t i;
  if (s->mask == 0) {
    return NULL;
  }
  i = tdl_seen_slot(s, (uintptr_t)key);
  while (s->cells[i].round == s->round) {
    if (s->cells[i].key == (uintptr_t)key) {
      return &s->cells[i].value;
    }
    i = (i + 1) & s->mask;
  }
  return NULL;
}

static void put(tdl_seen *s, uintptr_t key, uint32_t value) {
  uint32_t i = tdl_seen_slot(s, key);
  while (s->cells[i].round == s->round) {
    i = (i + 1) & s->mask;
  }
  s->cells[i].key = key;
  s->cells[i].value = value;
  s->cells[i].round = s->round;
  s->used++;
}

int tdl_seen_grow(tdl_seen *s) {
  tdl_seen bigger;
  uint32_t cells = s->mask == 0 ? FIRST_CELLS : (s->mask + 1) * 2;
  if (s->mask > UINT32_MAX / 4) {
    return TREADLE_ENOMEM;
  }
  bigger.cells = tdl_calloc(cells * sizeof(tdl_seen_cell));
  if (bigger.cells == NULL) {
    return TREADLE_ENOMEM;
  }
  bigger.mask = cells - 1;
  bigger.used = 0;
  bigger.round = s->round == 0 ? 1 : s->round; /* fresh cells say 0 */
  for (uint32_t i = 0; s->mask != 0 && i <= s->mask; i++) {
    if (s->cells[i].round == s->round) {
      put(&bigger, s->cells[i].key, s->cells[i].value);
    }
  }
  tdl_free(s->cells);
  *s = bigger;
  return 0;
}

int tdl_seen_put(tdl_seen *s, const void *key, uint32_t value) {
  if (s->used >= s->mask / 2) { /* also when there are no cells */
    int status = tdl_seen_grow(s);
    if (status != 0) {
      return status;
    }
  }
  put(s, (uintptr_t)key, value);
  return 0;
}
