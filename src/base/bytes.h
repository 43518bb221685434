/* tdl_bytes: a growing byte string that may start in memory of its holder.
** Threads: one at a time.
** Owns:    its heap block; never the fixed memory that it was given.
** Fails:   TREADLE_ENOMEM from reserve and append, contents untouched. */
#ifndef TDL_BASE_BYTES_H
#define TDL_BASE_BYTES_H

#include <stdint.h>
#include <string.h>

/* 16 bytes, so that a job's header leaves room in its first cache line. */
typedef struct tdl_bytes {
  uint8_t *data;
  uint32_t len;
  uint32_t cap; /* private: capacity, the lowest bit says "on the heap" */
} tdl_bytes;

static inline uint32_t tdl_bytes_cap(const tdl_bytes *b) {
  return b->cap & ~1u;
}

/* Starts empty in `fixed` (size even; NULL and 0 for none). */
static inline void tdl_bytes_init(tdl_bytes *b, void *fixed, uint32_t size) {
  b->data = fixed;
  b->len = 0;
  b->cap = size & ~1u;
}

/* Frees the heap block if there is one; then starts empty in `fixed`. */
void tdl_bytes_reset(tdl_bytes *b, void *fixed, uint32_t size);

/* Heap bytes held now. */
static inline uint32_t tdl_bytes_heap(const tdl_bytes *b) {
  return (b->cap & 1u) ? tdl_bytes_cap(b) : 0;
}

/* The slow half of reserve: doubles, up to 2 GiB. */
int tdl_bytes_grow(tdl_bytes *b, size_t more);

/* Makes room for `more` bytes after `len`; 0 or TREADLE_ENOMEM. */
static inline int tdl_bytes_reserve(tdl_bytes *b, size_t more) {
  if (more <= tdl_bytes_cap(b) - b->len) {
    return 0;
  }
  return tdl_bytes_grow(b, more);
}

/* Appends a copy; 0 or TREADLE_ENOMEM. */
static inline int tdl_bytes_append(tdl_bytes *b, const void *p, size_t n) {
  int status = tdl_bytes_reserve(b, n);
  if (status == 0 && n > 0) {
    memcpy(b->data + b->len, p, n);
    b->len += (uint32_t)n;
  }
  return status;
}

#endif
