#include "hold.h"

#include <string.h>

#include "../base/alloc.h"
#include "../treadle.h"

/* Twice as many buckets each time when there are more holds than that. */
enum { FIRST_BUCKETS = 16 };

int tdl_holds_new(tdl_holds **out) {
  tdl_holds *h = tdl_calloc(sizeof(*h));
  if (h == NULL) {
    return TREADLE_ENOMEM;
  }
  h->buckets = tdl_calloc(FIRST_BUCKETS * sizeof(*h->buckets));
  if (h->buckets == NULL) {
    tdl_free(h);
    return TREADLE_ENOMEM;
  }
  h->mask = FIRST_BUCKETS - 1;
  *out = h;
  return 0;
}

/* Without memory the lists get longer. */
static void grow(tdl_holds *h) {
  uint32_t old = h->mask + 1;
  tdl_hold **before = h->buckets;
  tdl_hold **buckets = tdl_calloc(2 * old * sizeof(*buckets));
  if (buckets == NULL) {
    return;
  }
  h->buckets = buckets;
  h->mask = 2 * old - 1;
  for (uint32_t i = 0; i < old; i++) {
    for (tdl_hold *hold = before[i], *next; hold != NULL; hold = next) {
      tdl_hold **at = tdl_holds_bucket(h, hold->lock, hold->owner);
      next = hold->next;
      hold->next = *at;
      *at = hold;
    }
  }
  tdl_free(before);
}

int tdl_holds_reserve(tdl_holds *h) {
  if (h->count > h->mask) {
    grow(h);
  }
  if (h->spare == NULL) {
    tdl_hold *hold = tdl_calloc(sizeof(*hold));
    if (hold == NULL) {
      return TREADLE_ENOMEM;
    }
    h->spare = hold;
  }
  return 0;
}

/* 0: of anybody. */
static void end(tdl_holds *h, uint64_t owner) {
  for (uint32_t i = 0; h->count > 0 && i <= h->mask; i++) {
    tdl_hold **at = &h->buckets[i];
    while (*at != NULL) {
      if (owner == 0 || (*at)->owner == owner) {
        tdl_lock_give((*at)->lock, (*at)->units, (*at)->units);
        tdl_holds_remove(h, at);
      } else {
        at = &(*at)->next;
      }
    }
  }
}

void tdl_holds_end(tdl_holds *h, uint64_t owner) {
  end(h, owner);
}

void tdl_holds_free(tdl_holds *h) {
  if (h == NULL) {
    return;
  }
  end(h, 0);
  while (h->spare != NULL) {
    tdl_hold *hold = h->spare;
    h->spare = hold->next;
    tdl_free(hold);
  }
  tdl_free(h->buckets);
  tdl_free(h);
}

int tdl_holds_any(const tdl_holds *h, const tdl_counted *thing) {
  for (uint32_t i = 0; h->count > 0 && i <= h->mask; i++) {
    for (tdl_hold *hold = h->buckets[i]; hold != NULL; hold = hold->next) {
      if (&hold->lock->counted == thing) {
        return 1;
      }
    }
  }
  return 0;
}

void tdl_holds_keep(tdl_holds *h, tdl_counted *thing) {
  for (uint32_t i = 0; h->count > 0 && i <= h->mask; i++) {
    for (tdl_hold *hold = h->buckets[i]; hold != NULL; hold = hold->next) {
      if (&hold->lock->counted == thing) {
        tdl_hold_keep(hold);
      }
    }
  }
}
