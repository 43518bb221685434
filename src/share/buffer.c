#include "buffer.h"

#include <string.h>

#include "../base/alloc.h"
#include "../base/compiler.h"
#include "../config.h"
#include "../treadle.h"

/* No array is larger: a difference of pointers is signed. */
#define BYTES_MAX ((size_t)PTRDIFF_MAX)

/* Bytes that are allocated: whole cache lines, so that nobody else's data lie in
** them; at least one, so that an empty buffer has an address, too. */
static size_t room(size_t bytes) {
  size_t lines = (bytes + TDL_BUFFER_ALIGN_BYTES - 1) / TDL_BUFFER_ALIGN_BYTES;
  return (lines > 0 ? lines : 1) * TDL_BUFFER_ALIGN_BYTES;
}

static int has_pages(size_t bytes) {
  return bytes >= TDL_BUFFER_PAGES_BYTES;
}

static void free_buffer(tdl_counted *counted) {
  tdl_buffer *b = TDL_CONTAINER(counted, tdl_buffer, counted);
  size_t bytes = tdl_buffer_bytes(b);
  if (b->whole != b) {
    tdl_counted_drop(&b->whole->counted);
  } else if (has_pages(bytes)) {
    tdl_free_pages(b->data, bytes);
  } else {
    tdl_free(b->data);
  }
  tdl_free(b);
}

const tdl_kind tdl_buffer_kind = {"buffer", free_buffer};

int tdl_buffer_new(const char *type, size_t unit, size_t count,
                   tdl_buffer **out) {
  size_t length = strlen(type) + 1;
  tdl_buffer *b;
  size_t bytes;
  if (unit == 0 || count > (BYTES_MAX - TDL_BUFFER_ALIGN_BYTES) / unit) {
    return TREADLE_ENOMEM;
  }
  bytes = count * unit;
  b = tdl_calloc(sizeof(*b) + length);
  if (b == NULL) {
    return TREADLE_ENOMEM;
  }
  b->data = has_pages(bytes)
                ? tdl_alloc_pages(bytes)
                : tdl_alloc_aligned(TDL_BUFFER_ALIGN_BYTES, room(bytes));
  if (b->data == NULL) {
    tdl_free(b);
    return TREADLE_ENOMEM;
  }
  tdl_counted_init(&b->counted, &tdl_buffer_kind);
  b->whole = b;
  b->count = count;
  b->unit = unit;
  memcpy(b->name, type, length);
  b->type = b->name;
  *out = b;
  return 0;
}

int tdl_buffer_slice(tdl_buffer *of, size_t first, size_t count,
                     tdl_buffer **out) {
  tdl_buffer *b = tdl_calloc(sizeof(*b));
  if (b == NULL) {
    return TREADLE_ENOMEM;
  }
  tdl_counted_init(&b->counted, &tdl_buffer_kind);
  b->whole = of->whole;
  tdl_counted_hold(&b->whole->counted);
  b->data = of->data + first * of->unit;
  b->count = count;
  b->unit = of->unit;
  b->type = of->type;
  *out = b;
  return 0;
}

int tdl_buffer_lies_in(const tdl_buffer *b, const tdl_buffer *other) {
  return b->whole == other->whole && b->data >= other->data &&
         b->data + tdl_buffer_bytes(b) <= other->data + tdl_buffer_bytes(other);
}

int tdl_buffer_is_sole(const tdl_buffer *b) {
  /* relaxed: only who has one can make another */
  return b->whole == b &&
         atomic_load_explicit(&b->counted.refs, memory_order_relaxed) == 1;
}
