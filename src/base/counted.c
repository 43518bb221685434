#include "counted.h"

#include <stddef.h>

/* What this thread has let go of last, and not freed yet. */
static _Thread_local tdl_counted *ended;
static _Thread_local int is_freeing;

void tdl_counted_end(tdl_counted *c) {
  c->next = ended;
  ended = c;
  if (is_freeing) {
    return;
  }
  is_freeing = 1;
  while (ended != NULL) {
    c = ended;
    ended = c->next;
    c->kind->free(c);
  }
  is_freeing = 0;
}
