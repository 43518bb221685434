/* tdl_counted: what several holders share; the last one to let go frees it.
** Threads: any.
** Owns:    what its kind's `free` frees. That may let go of further things: they
**          are freed after it, not within, so that a chain may be long.
** Fails:   never. */
#ifndef TDL_BASE_COUNTED_H
#define TDL_BASE_COUNTED_H

#include <stdatomic.h>
#include <stdint.h>

typedef struct tdl_counted tdl_counted;

typedef struct tdl_kind {
  const char *name;                   /* "channel" */
  void (*free)(tdl_counted *counted); /* on the thread that lets go last */
} tdl_kind;

struct tdl_counted {
  atomic_uint refs;
  const tdl_kind *kind;
  tdl_counted *next; /* once it is nobody's: of those that are to be freed */
};

/* Frees what has no holder any more. */
void tdl_counted_end(tdl_counted *counted);

/* One reference: the caller's. */
static inline void tdl_counted_init(tdl_counted *c, const tdl_kind *kind) {
  atomic_init(&c->refs, 1);
  c->kind = kind;
}

static inline void tdl_counted_hold(tdl_counted *c) {
  /* relaxed: the caller has a reference */
  atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
}

/* For who only knows where it is, and keeps its memory from being freed: 0 when
** nobody has a reference any more. */
static inline int tdl_counted_try_hold(tdl_counted *c) {
  /* relaxed: what it is, the caller knows from whoever has told him */
  unsigned refs = atomic_load_explicit(&c->refs, memory_order_relaxed);
  while (refs != 0 && !atomic_compare_exchange_weak_explicit(
                          &c->refs, &refs, refs + 1, memory_order_relaxed,
                          memory_order_relaxed)) { /* relaxed: as hold */
  }
  return refs != 0;
}

static inline void tdl_counted_drop(tdl_counted *c) {
  /* [refs] acq_rel: who frees it sees what the others did */
  if (atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) == 1) {
    tdl_counted_end(c);
  }
}

#endif
