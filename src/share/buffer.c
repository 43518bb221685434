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

static void free_memory(tdl_buffer *b) {
  size_t bytes = tdl_buffer_bytes(b);
  if (b->region.fd >= 0) {
    tdl_region_close(&b->region);
  } else if (has_pages(bytes)) {
    tdl_free_pages(b->data, bytes);
  } else {
    tdl_free(b->data);
  }
}

static void free_buffer(tdl_counted *counted) {
  tdl_buffer *b = TDL_CONTAINER(counted, tdl_buffer, counted);
  if (b->origin != NULL && b->origin->keep(b->origin, b)) {
    return;
  }
  if (b->whole != b) {
    tdl_counted_drop(&b->whole->counted);
  } else {
    free_memory(b);
  }
  tdl_free(b);
}

const tdl_kind tdl_buffer_kind = {"buffer", free_buffer};

/* All but the memory; NULL: there is too little, or can be no such buffer. */
static tdl_buffer *make(const char *type, size_t unit, size_t count) {
  size_t length = strlen(type) + 1;
  tdl_buffer *b;
  if (unit == 0 || count > (BYTES_MAX - TDL_BUFFER_ALIGN_BYTES) / unit) {
    return NULL;
  }
  b = tdl_calloc(sizeof(*b) + length);
  if (b == NULL) {
    return NULL;
  }
  tdl_counted_init(&b->counted, &tdl_buffer_kind);
  b->whole = b;
  b->count = count;
  b->unit = unit;
  b->region = (tdl_region)TDL_REGION_NONE;
  memcpy(b->name, type, length);
  b->type = b->name;
  return b;
}

int tdl_buffer_new(const char *type, size_t unit, size_t count,
                   tdl_buffer **out) {
  tdl_buffer *b = make(type, unit, count);
  size_t bytes;
  if (b == NULL) {
    return TREADLE_ENOMEM;
  }
  bytes = tdl_buffer_bytes(b);
  b->data = has_pages(bytes)
                ? tdl_alloc_pages(bytes)
                : tdl_alloc_aligned(TDL_BUFFER_ALIGN_BYTES, room(bytes));
  if (b->data == NULL) {
    tdl_free(b);
    return TREADLE_ENOMEM;
  }
  *out = b;
  return 0;
}

/* By its descriptor, or, below 0, new. */
static int make_in_region(int fd, const char *type, size_t unit, size_t count,
                          tdl_buffer **out) {
  tdl_buffer *b = make(type, unit, count);
  int status;
  if (b == NULL) {
    return TREADLE_ENOMEM;
  }
  status = fd < 0 ? tdl_region_open(tdl_buffer_bytes(b), &b->region)
                  : tdl_region_adopt(fd, tdl_buffer_bytes(b), &b->region);
  if (status != 0) {
    tdl_free(b);
    return status;
  }
  b->data = b->region.data;
  *out = b;
  return 0;
}

int tdl_buffer_open(const char *type, size_t unit, size_t count,
                    tdl_buffer **out) {
  return make_in_region(-1, type, unit, count, out);
}

int tdl_buffer_adopt(int fd, const char *type, size_t unit, size_t count,
                     tdl_buffer **out) {
  return fd < 0 ? TREADLE_EINVAL : make_in_region(fd, type, unit, count, out);
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

void tdl_buffer_revive(tdl_buffer *b) {
  tdl_counted_init(&b->counted, &tdl_buffer_kind);
}

void tdl_buffer_free_kept(tdl_buffer *b) {
  b->origin = NULL;
  free_buffer(&b->counted);
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
