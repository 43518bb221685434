#include "counter.h"

#include "../base/alloc.h"
#include "../base/compiler.h"
#include "../config.h"
#include "../treadle.h"

static void free_counter(tdl_counted *counted) {
  tdl_free(TDL_CONTAINER(counted, tdl_counter, counted));
}

const tdl_kind tdl_counter_kind = {"counter", free_counter};

int tdl_counter_new(int64_t value, tdl_counter **out) {
  /* lines of its own: two counters do not slow each other down */
  tdl_counter *c = tdl_alloc_aligned(TDL_LINE_BYTES, TDL_LINE_BYTES);
  if (c == NULL) {
    return TREADLE_ENOMEM;
  }
  tdl_counted_init(&c->counted, &tdl_counter_kind);
  atomic_init(&c->value, value);
  *out = c;
  return 0;
}

int64_t tdl_counter_add(tdl_counter *c, int64_t n) {
  /* seq_cst: scripts are to think of one order of all that is atomic */
  int64_t old = atomic_fetch_add_explicit(&c->value, n, memory_order_seq_cst);
  return (int64_t)((uint64_t)old + (uint64_t)n);
}

int64_t tdl_counter_get(const tdl_counter *c) {
  /* seq_cst: see add */
  return atomic_load_explicit(&c->value, memory_order_seq_cst);
}

void tdl_counter_set(tdl_counter *c, int64_t value) {
  /* seq_cst: see add */
  atomic_store_explicit(&c->value, value, memory_order_seq_cst);
}
