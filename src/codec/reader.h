/* tdl_reader: reads the bytes of a payload, without Lua.
** Threads: one at a time.
** Owns:    nothing; strings and numbers lie in the payload that it reads.
** Fails:   TREADLE_EPAYLOAD for bytes that are no payload; never leaves its
**          range. */
#ifndef TDL_CODEC_READER_H
#define TDL_CODEC_READER_H

#include <stddef.h>

#include "../base/compiler.h"
#include "tags.h"

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

/* The slow half of tdl_get_begin: what is not one value without flags. */
int tdl_get_begin_slow(tdl_reader *r, const uint8_t *data, size_t len,
                       uint32_t *count, uint8_t *flags);

/* Reads the head: the number of values into `count`, the flags into
** `flags`. */
static inline int tdl_get_begin(tdl_reader *r, const uint8_t *data, size_t len,
                                uint32_t *count, uint8_t *flags) {
  if (TDL_LIKELY(len > 2 && data[0] == TDL_WIRE_VERSION && data[1] == 1)) {
    r->next = data + 2;
    r->end = data + len;
    *count = 1;
    *flags = 0;
    return 0;
  }
  return tdl_get_begin_slow(r, data, len, count, flags);
}

/* Reads one value, or the head of a table. A value that only Lua has
** (a function, a class, a reference) is TREADLE_EPAYLOAD. */
int tdl_get_value(tdl_reader *r, tdl_item *item);

#endif
