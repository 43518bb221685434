/* The writers of treadle.h. */
#include "../base/alloc.h"
#include "../base/status.h"
#include "../codec/payload.h"
#include "../share/buffer.h"
#include "embed.h"

void tdl_embed_begin(treadle_writer *w, tdl_bytes *out, uint32_t limit,
                     uint32_t count) {
  w->left = w->count = count;
  w->is_open = 1;
  tdl_put_begin(&w->to, out, limit, count);
}

static void fail(treadle_writer *w, int status) {
  if (w->to.status == 0) {
    w->to.status = status;
    w->to.room = 0; /* nothing fits any more */
  }
}

static void drop_things(treadle_writer *w) {
  for (uint32_t i = 0; i < w->thing_count; i++) {
    tdl_counted_drop(tdl_payload_address(w->things[i]));
  }
  w->thing_count = 0;
}

/* The list behind the values, and the flag that says so. */
static void put_things(treadle_writer *w) {
  size_t size = w->thing_count * sizeof(*w->things);
  uint8_t *p = tdl_put_room(&w->to, size + 4);
  if (p != NULL) {
    memcpy(p, w->things, size);
    tdl_store_32(p + size, w->thing_count);
    w->to.out->data[w->to.start] |= TDL_WIRE_THINGS;
    w->thing_count = 0;
  }
}

int tdl_embed_end(treadle_writer *w) {
  int status;
  if (w->left != 0) {
    fail(w, TREADLE_EINVAL);
  }
  if (w->thing_count > 0) {
    put_things(w);
  }
  w->is_open = 0;
  status = tdl_put_end(&w->to);
  drop_things(w); /* if they are not the payload's */
  return status;
}

void tdl_embed_fini(treadle_writer *w) {
  drop_things(w);
  tdl_free(w->things);
  tdl_payload_clear(&w->own);
  tdl_bytes_reset(&w->own, NULL, 0);
}

/* --- writers of their own --------------------------------------------------- */

int treadle_writer_new(unsigned count, treadle_writer **out) {
  treadle_writer *w = tdl_calloc(sizeof(*w));
  if (w == NULL) {
    return TREADLE_ENOMEM;
  }
  tdl_bytes_init(&w->own, NULL, 0);
  tdl_embed_begin(w, &w->own, TDL_PAYLOAD_CEILING_BYTES, count);
  *out = w;
  return 0;
}

void treadle_writer_free(treadle_writer *w) {
  if (w != NULL) {
    tdl_embed_fini(w);
    tdl_free(w);
  }
}

int treadle_writer_bytes(treadle_writer *w, const void **bytes, size_t *size) {
  if (w->to.status != 0) {
    return w->to.status;
  }
  if (w->thing_count > 0) {
    return TREADLE_EPAYLOAD;
  }
  if (w->left != 0 || w->to.out != &w->own) {
    return TREADLE_EINVAL;
  }
  *bytes = w->own.data;
  *size = w->own.len;
  return 0;
}

/* --- values ------------------------------------------------------------------ */

/* The next `n` values are to be put now. */
static int is_due(treadle_writer *w, uint64_t n) {
  if (w->left < n) {
    fail(w, TREADLE_EINVAL);
  }
  if (w->to.status != 0) {
    return 0;
  }
  w->left -= n;
  return 1;
}

void treadle_put_nil(treadle_writer *w) {
  if (is_due(w, 1)) {
    tdl_put_nil(&w->to);
  }
}

void treadle_put_boolean(treadle_writer *w, int value) {
  if (is_due(w, 1)) {
    tdl_put_boolean(&w->to, value);
  }
}

void treadle_put_number(treadle_writer *w, double value) {
  if (is_due(w, 1)) {
    tdl_put_number(&w->to, value);
  }
}

void treadle_put_string(treadle_writer *w, const char *s, size_t length) {
  if (is_due(w, 1)) {
    tdl_put_string(&w->to, s, length);
  }
}

void treadle_put_text(treadle_writer *w, const char *text) {
  treadle_put_string(w, text, strlen(text));
}

void treadle_put_int64(treadle_writer *w, int64_t value) {
  if (is_due(w, 1)) {
    tdl_put_int64(&w->to, value);
  }
}

void treadle_put_uint64(treadle_writer *w, uint64_t value) {
  if (is_due(w, 1)) {
    tdl_put_uint64(&w->to, value);
  }
}

void treadle_put_table(treadle_writer *w, unsigned length, unsigned pairs) {
  if (is_due(w, 1)) {
    tdl_put_table(&w->to, length, pairs);
    w->left += length + 2 * (uint64_t)pairs;
  }
}

void treadle_put_numbers(treadle_writer *w, const double *values,
                         unsigned length) {
  if (length > 0 && is_due(w, length)) {
    tdl_put_numbers(&w->to, values, length);
  }
}

/* 0 or TREADLE_ENOMEM; takes a reference. */
static int keep(treadle_writer *w, tdl_counted *thing) {
  if (w->thing_count == w->thing_cap) {
    uint32_t cap = w->thing_cap == 0 ? 4 : w->thing_cap * 2;
    uintptr_t *things = tdl_realloc(w->things, cap * sizeof(*things));
    if (things == NULL) {
      return TREADLE_ENOMEM;
    }
    w->things = things;
    w->thing_cap = cap;
  }
  tdl_counted_hold(thing);
  w->things[w->thing_count++] = (uintptr_t)thing;
  return 0;
}

static void put_thing(treadle_writer *w, tdl_counted *thing) {
  int status = keep(w, thing);
  if (status != 0) {
    fail(w, status);
  } else {
    tdl_put_tag_32(&w->to, TDL_TAG_THING, w->thing_count - 1);
  }
}

void treadle_put_buffer(treadle_writer *w, treadle_buffer *buffer) {
  if (is_due(w, 1)) {
    put_thing(w, &((tdl_buffer *)(void *)buffer)->counted);
  }
}

/* The numbers of the things stay right: no others were put before. */
void tdl_embed_put_all(treadle_writer *w, treadle_writer *from) {
  size_t head = from->count >= TDL_WIRE_WIDE ? 6 : 2;
  const tdl_bytes *bytes = from->to.out;
  uint8_t *p;
  if (from->to.status != 0 || from->left != 0 || from->count != 1 ||
      w->thing_count != 0) {
    fail(w, from->to.status != 0 ? from->to.status : TREADLE_EINVAL);
  }
  if (!is_due(w, 1)) {
    return;
  }
  for (uint32_t i = 0; i < from->thing_count; i++) {
    int status = keep(w, tdl_payload_address(from->things[i]));
    if (status != 0) {
      fail(w, status);
      return;
    }
  }
  p = tdl_put_room(&w->to, bytes->len - head);
  if (p != NULL) {
    memcpy(p, bytes->data + head, bytes->len - head);
  }
}

/* --- buffers ------------------------------------------------------------------ */

static tdl_buffer *inside(const treadle_buffer *buffer) {
  return (tdl_buffer *)(uintptr_t)buffer;
}

int treadle_buffer_new(const char *type, size_t count, treadle_buffer **out) {
  static const struct {
    const char *name, *printed; /* as LuaJIT prints it */
    size_t unit;
  } types[] = {{"double", "double", 8},           {"float", "float", 4},
               {"uint8_t", "unsigned char", 1},   {"int8_t", "char", 1},
               {"uint16_t", "unsigned short", 2}, {"int16_t", "short", 2},
               {"uint32_t", "unsigned int", 4},   {"int32_t", "int", 4},
               {"uint64_t", "uint64_t", 8},       {"int64_t", "int64_t", 8}};
  for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
    if (strcmp(types[i].name, type) == 0) {
      tdl_buffer *b;
      int status = tdl_buffer_new(types[i].printed, types[i].unit, count, &b);
      if (status == 0) {
        *out = (treadle_buffer *)(void *)b;
      }
      return status;
    }
  }
  return TREADLE_EINVAL;
}

void treadle_buffer_hold(treadle_buffer *buffer) {
  tdl_counted_hold(&inside(buffer)->counted);
}

void treadle_buffer_drop(treadle_buffer *buffer) {
  if (buffer != NULL) {
    tdl_counted_drop(&inside(buffer)->counted);
  }
}

void *treadle_buffer_data(const treadle_buffer *buffer) {
  return inside(buffer)->data;
}

size_t treadle_buffer_count(const treadle_buffer *buffer) {
  return inside(buffer)->count;
}

size_t treadle_buffer_bytes(const treadle_buffer *buffer) {
  return tdl_buffer_bytes(inside(buffer));
}
