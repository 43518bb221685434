#include "reader.h"

#include <math.h>

#include "../base/compiler.h"
#include "../treadle.h"

int tdl_get_begin_slow(tdl_reader *r, const uint8_t *data, size_t len,
                       uint32_t *count, uint8_t *flags) {
  const uint8_t known =
      TDL_WIRE_REFS | TDL_WIRE_LATER | TDL_WIRE_CODE | TDL_WIRE_THINGS;
  uint32_t n;
  if (len < 2 || (data[0] & TDL_WIRE_VERSION_MASK) != TDL_WIRE_VERSION ||
      (data[0] & ~(known | TDL_WIRE_VERSION_MASK)) != 0) {
    return TREADLE_EPAYLOAD;
  }
  n = data[1];
  r->next = data + 2;
  r->end = data + len;
  if (n == TDL_WIRE_WIDE) {
    if (len < 6) {
      return TREADLE_EPAYLOAD;
    }
    n = tdl_load_32(data + 2);
    r->next = data + 6;
  }
  if (n > tdl_get_left(r)) { /* a value is a byte at least */
    return TREADLE_EPAYLOAD;
  }
  *count = n;
  *flags = (uint8_t)(data[0] & known);
  return 0;
}

/* The bytes of a string or of packed numbers, `size` of them an item. */
static int get_run(tdl_reader *r, size_t head, size_t size, tdl_item *item) {
  const uint8_t *p = tdl_get_room(r, head);
  if (p == NULL) {
    return TREADLE_EPAYLOAD;
  }
  item->n = head == 1 ? p[0] : tdl_load_32(p);
  if (item->n > tdl_get_left(r) / size) {
    return TREADLE_EPAYLOAD;
  }
  item->bytes = tdl_get_room(r, item->n * size);
  item->string = (const char *)item->bytes;
  return 0;
}

/* Counts of a table; every element is a byte at least, a pair is two. */
static int get_table(tdl_reader *r, size_t head, tdl_item *item) {
  const uint8_t *p = tdl_get_room(r, head);
  if (p == NULL) {
    return TREADLE_EPAYLOAD;
  }
  item->kind = TDL_ITEM_TABLE;
  item->n = head == 2 ? p[0] : tdl_load_32(p);
  item->pairs = head == 2 ? p[1] : tdl_load_32(p + 4);
  if (item->n + 2 * (uint64_t)item->pairs > (uint64_t)tdl_get_left(r)) {
    return TREADLE_EPAYLOAD;
  }
  return 0;
}

int tdl_get_value(tdl_reader *r, tdl_item *item) {
  const uint8_t *p = tdl_get_room(r, 1);
  tdl_tag tag;
  if (p == NULL) {
    return TREADLE_EPAYLOAD;
  }
  tag = (tdl_tag)*p;
  switch (tag) {
  case TDL_TAG_NIL:
    item->kind = TDL_ITEM_NIL;
    return 0;
  case TDL_TAG_FALSE:
  case TDL_TAG_TRUE:
    item->kind = TDL_ITEM_BOOLEAN;
    item->boolean = tag == TDL_TAG_TRUE;
    return 0;
  case TDL_TAG_STR8:
  case TDL_TAG_STR32:
    item->kind = TDL_ITEM_STRING;
    return get_run(r, tag == TDL_TAG_STR8 ? 1 : 4, 1, item);
  case TDL_TAG_NUMBERS:
    item->kind = TDL_ITEM_NUMBERS;
    return get_run(r, 4, 8, item);
  case TDL_TAG_TABLE8:
  case TDL_TAG_TABLE32:
    return get_table(r, tag == TDL_TAG_TABLE8 ? 2 : 8, item);
  case TDL_TAG_NUMBER:
  case TDL_TAG_INT64:
  case TDL_TAG_UINT64:
    p = tdl_get_room(r, 8);
    if (p == NULL) {
      return TREADLE_EPAYLOAD;
    }
    item->kind = tag == TDL_TAG_NUMBER  ? TDL_ITEM_NUMBER
                 : tag == TDL_TAG_INT64 ? TDL_ITEM_INT64
                                        : TDL_ITEM_UINT64;
    item->number = tdl_load_f64(p);
    if (TDL_UNLIKELY(item->number != item->number)) {
      item->number = NAN; /* who has it in Lua by the FFI takes its bits */
    }
    item->u64 = tdl_load_64(p);
    item->i64 = (int64_t)item->u64;
    return 0;
  default:
    return TREADLE_EPAYLOAD;
  }
}
