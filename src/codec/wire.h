/* wire: the bytes of a payload, without Lua (docs/wire-format.md).
** Threads: one at a time.
** Owns:    nothing; a writer appends to its holder's tdl_bytes, a reader's
**          strings and numbers lie in the payload that it reads.
** Fails:   a writer keeps its first failure in `status` and appends nothing
**          afterwards, so that one look at the end is enough; a reader
**          returns TREADLE_EPAYLOAD and never leaves its range. */
#ifndef TDL_CODEC_WIRE_H
#define TDL_CODEC_WIRE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../base/bytes.h"
#include "../base/compiler.h"

/* The first byte: the version, and flags that tell the reader what it need
** not prepare for. */
#define TDL_WIRE_VERSION      0x01
#define TDL_WIRE_VERSION_MASK 0x0f
#define TDL_WIRE_REFS         0x10 /* objects are referred to by number */
#define TDL_WIRE_LATER        0x20 /* bodies follow the values */
#define TDL_WIRE_CODE         0x40 /* functions or modules occur */

/* Numbers of things: a byte below this one, else this one and 32 bits. */
#define TDL_WIRE_WIDE 0xff

typedef enum tdl_tag {
  TDL_TAG_NIL,
  TDL_TAG_FALSE,
  TDL_TAG_TRUE,
  TDL_TAG_NUMBER,         /* f64 */
  TDL_TAG_STR8,           /* u8 length, bytes */
  TDL_TAG_STR32,          /* u32 length, bytes */
  TDL_TAG_TABLE8,         /* u8 array, u8 pairs, elements, key value ... */
  TDL_TAG_TABLE32,        /* the same with u32 */
  TDL_TAG_NUMBERS,        /* u32 n, n f64: n elements of an array */
  TDL_TAG_REF,            /* u32 object */
  TDL_TAG_LATER,          /* a table whose body follows the values */
  TDL_TAG_OBJECT,         /* class name, then a table: its raw fields */
  TDL_TAG_PACKED,         /* class name, then the value to unpack, bodies */
  TDL_TAG_INT64,          /* i64 */
  TDL_TAG_UINT64,         /* u64 */
  TDL_TAG_CDATA,          /* type name, u32 size, bytes */
  TDL_TAG_FUNCTION,       /* u32 length, bytecode, u8 n, n upvalues */
  TDL_TAG_FUNCTION_LATER, /* the same; the upvalues follow the values */
  TDL_TAG_CFUNCTION,      /* module, name (or nil: the module itself) */
  TDL_TAG_MODULE,         /* name; only as an upvalue */
  TDL_TAG_UPVALUE,        /* u32 upvalue; only as an upvalue: the same one */
  TDL_TAG_COUNT
} tdl_tag;

static inline uint32_t tdl_wire_32(uint32_t v) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  v = __builtin_bswap32(v);
#endif
  return v;
}

static inline uint64_t tdl_wire_64(uint64_t v) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  v = __builtin_bswap64(v);
#endif
  return v;
}

static inline void tdl_store_32(uint8_t *p, uint32_t v) {
  v = tdl_wire_32(v);
  memcpy(p, &v, 4);
}

static inline void tdl_store_64(uint8_t *p, uint64_t v) {
  v = tdl_wire_64(v);
  memcpy(p, &v, 8);
}

static inline void tdl_store_f64(uint8_t *p, double v) {
  uint64_t bits;
  memcpy(&bits, &v, 8);
  tdl_store_64(p, bits);
}

static inline uint32_t tdl_load_32(const uint8_t *p) {
  uint32_t v;
  memcpy(&v, p, 4);
  return tdl_wire_32(v);
}

static inline uint64_t tdl_load_64(const uint8_t *p) {
  uint64_t v;
  memcpy(&v, p, 8);
  return tdl_wire_64(v);
}

static inline double tdl_load_f64(const uint8_t *p) {
  uint64_t bits = tdl_load_64(p);
  double v;
  memcpy(&v, &bits, 8);
  return v;
}

/* ---- writing ---- */

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

/* Starts a payload of `count` values that appends at most `limit` bytes. */
int tdl_put_begin(tdl_writer *w, tdl_bytes *out, uint32_t limit,
                  uint32_t count);

/* Ends it; on failure out->len is as it was before tdl_put_begin. */
int tdl_put_end(tdl_writer *w);

/* A table: then come `array` values, the elements 1..array, and `pairs`
** times a key and a value. No key is nil or NaN. */
int tdl_put_table(tdl_writer *w, uint32_t array, uint32_t pairs);

/* `n` elements of the array that is being written, all numbers. */
int tdl_put_numbers(tdl_writer *w, const double *v, uint32_t n);

int tdl_put_int64(tdl_writer *w, int64_t v);
int tdl_put_uint64(tdl_writer *w, uint64_t v);

/* ---- reading ---- */

typedef struct tdl_reader {
  const uint8_t *next;
  const uint8_t *end;
} tdl_reader;

static inline size_t tdl_get_left(const tdl_reader *r) {
  return (size_t)(r->end - r->next);
}

/* The next `n` bytes, passed over; NULL when they are not there. */
static inline const uint8_t *tdl_get_room(tdl_reader *r, size_t n) {
  const uint8_t *p = r->next;
  if (TDL_UNLIKELY(n > tdl_get_left(r))) {
    return NULL;
  }
  r->next = p + n;
  return p;
}

/* What tdl_get_value found. A table is followed by its parts, in the order
** of tdl_put_table; NUMBERS stands for `n` elements of it. */
typedef enum tdl_item_kind {
  TDL_ITEM_NIL,
  TDL_ITEM_BOOLEAN,
  TDL_ITEM_NUMBER,
  TDL_ITEM_STRING,
  TDL_ITEM_TABLE,
  TDL_ITEM_NUMBERS,
  TDL_ITEM_INT64,
  TDL_ITEM_UINT64
} tdl_item_kind;

typedef struct tdl_item {
  tdl_item_kind kind;
  int boolean;
  double number;
  int64_t i64;
  uint64_t u64;
  const char *string;   /* STRING: not terminated */
  const uint8_t *bytes; /* NUMBERS: read them with tdl_load_f64 */
  uint32_t n;           /* STRING, NUMBERS: how long; TABLE: elements */
  uint32_t pairs;       /* TABLE */
} tdl_item;

/* Reads the head: the number of values into `count`, the flags into
** `flags`. */
int tdl_get_begin(tdl_reader *r, const uint8_t *data, size_t len,
                  uint32_t *count, uint8_t *flags);

/* Reads one value, or the head of a table. A value that only Lua has
** (a function, a class, a reference) is TREADLE_EPAYLOAD. */
int tdl_get_value(tdl_reader *r, tdl_item *item);

#endif
