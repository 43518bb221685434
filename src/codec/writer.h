/* tdl_writer: writes the bytes of a payload, without Lua.
** Threads: one at a time.
** Owns:    nothing; appends to its holder's tdl_bytes.
** Fails:   keeps its first failure in `status` and appends nothing afterwards,
**          so that one look at the end is enough. */
#ifndef TDL_CODEC_WRITER_H
#define TDL_CODEC_WRITER_H

#include "../base/bytes.h"
#include "../base/compiler.h"
#include "tags.h"

typedef struct tdl_writer {
  tdl_bytes *out;
  uint32_t start; /* private: out->len before */
  uint32_t room;  /* private: bytes that may still be appended */
  int status;     /* 0, TREADLE_EPAYLOAD (the limit) or TREADLE_ENOMEM */
} tdl_writer;

/* The slow half of tdl_put_room: the limit, or growth. */
uint8_t *tdl_put_room_slow(tdl_writer *w, size_t n);

/* `n` more bytes at the end of `out`, to be filled now; NULL on failure. */
static inline uint8_t *tdl_put_room(tdl_writer *w, size_t n) {
  tdl_bytes *out = w->out;
  uint8_t *p;
  if (TDL_UNLIKELY(n > w->room || n > tdl_bytes_cap(out) - out->len)) {
    return tdl_put_room_slow(w, n);
  }
  p = out->data + out->len;
  out->len += (uint32_t)n;
  w->room -= (uint32_t)n;
  return p;
}

static inline int tdl_put_tag(tdl_writer *w, tdl_tag tag) {
  uint8_t *p = tdl_put_room(w, 1);
  if (TDL_UNLIKELY(p == NULL)) {
    return w->status;
  }
  p[0] = (uint8_t)tag;
  return 0;
}

static inline int tdl_put_tag_32(tdl_writer *w, tdl_tag tag, uint32_t v) {
  uint8_t *p = tdl_put_room(w, 5);
  if (TDL_UNLIKELY(p == NULL)) {
    return w->status;
  }
  p[0] = (uint8_t)tag;
  tdl_store_32(p + 1, v);
  return 0;
}

static inline int tdl_put_nil(tdl_writer *w) {
  return tdl_put_tag(w, TDL_TAG_NIL);
}

static inline int tdl_put_boolean(tdl_writer *w, int v) {
  return tdl_put_tag(w, v ? TDL_TAG_TRUE : TDL_TAG_FALSE);
}

static inline int tdl_put_number(tdl_writer *w, double v) {
  uint8_t *p = tdl_put_room(w, 9);
  if (TDL_UNLIKELY(p == NULL)) {
    return w->status;
  }
  p[0] = TDL_TAG_NUMBER;
  tdl_store_f64(p + 1, v);
  return 0;
}

static inline int tdl_put_string(tdl_writer *w, const char *s, size_t n) {
  size_t head = n < 256 ? 2 : 5;
  uint8_t *p = tdl_put_room(w, head + n);
  if (TDL_UNLIKELY(p == NULL)) {
    return w->status;
  }
  if (n < 256) {
    p[0] = TDL_TAG_STR8;
    p[1] = (uint8_t)n;
  } else {
    p[0] = TDL_TAG_STR32;
    tdl_store_32(p + 1, (uint32_t)n);
  }
  if (n > 0) {
    memcpy(p + head, s, n);
  }
  return 0;
}

/* The slow half of tdl_put_begin: many values. */
int tdl_put_begin_wide(tdl_writer *w, uint32_t count);

/* Starts a payload of `count` values that appends at most `limit` bytes. */
static inline int tdl_put_begin(tdl_writer *w, tdl_bytes *out, uint32_t limit,
                                uint32_t count) {
  uint8_t *p;
  w->out = out;
  w->start = out->len;
  w->room = limit;
  w->status = 0;
  if (TDL_UNLIKELY(count >= TDL_WIRE_WIDE)) {
    return tdl_put_begin_wide(w, count);
  }
  p = tdl_put_room(w, 2);
  if (TDL_UNLIKELY(p == NULL)) {
    return w->status;
  }
  p[0] = TDL_WIRE_VERSION;
  p[1] = (uint8_t)count;
  return 0;
}

/* Ends it; on failure out->len is as it was before tdl_put_begin. */
int tdl_put_end(tdl_writer *w);

/* A table: then come `array` values, the elements 1..array, and `pairs`
** times a key and a value. No key is nil or NaN. */
int tdl_put_table(tdl_writer *w, uint32_t array, uint32_t pairs);

/* `n` elements of the array that is being written, all numbers. */
int tdl_put_numbers(tdl_writer *w, const double *v, uint32_t n);

int tdl_put_int64(tdl_writer *w, int64_t v);
int tdl_put_uint64(tdl_writer *w, uint64_t v);

#endif
