/* The readers of treadle.h. Nothing here calls itself for what lies in a table: a
** payload may be as deep as it likes. */
#include <string.h>

#include "../base/status.h"
#include "../codec/payload.h"
#include "../codec/reader.h"
#include "../share/buffer.h"
#include "embed.h"

/* --- passing over ------------------------------------------------------------- */

static int pass(tdl_reader *r, size_t n) {
  return tdl_get_room(r, n) != NULL ? 0 : TREADLE_EPAYLOAD;
}

/* A length of four bytes, then as many bytes. */
static int pass_run(tdl_reader *r) {
  const uint8_t *p = tdl_get_room(r, 4);
  return p != NULL ? pass(r, tdl_load_32(p)) : TREADLE_EPAYLOAD;
}

/* The tag and what belongs to it; `*more` values follow that are part of it. */
static int pass_tag(tdl_reader *r, int flags, uint64_t *more) {
  const uint8_t *p = r->next;
  tdl_item item;
  *more = 0;
  if (tdl_get_left(r) == 0) {
    return TREADLE_EPAYLOAD;
  }
  if (tdl_get_value(r, &item) == 0) {
    *more = item.kind == TDL_ITEM_TABLE ? item.n + 2 * (uint64_t)item.pairs : 0;
    return 0;
  }
  r->next = p + 1;
  switch ((tdl_tag)*p) {
  case TDL_TAG_REF:
  case TDL_TAG_UPVALUE:
  case TDL_TAG_THING:
    return pass(r, 4);
  case TDL_TAG_PART:
    return pass(r, 8);
  case TDL_TAG_LATER:
    return 0;
  case TDL_TAG_MODULE:
    *more = 1;
    return 0;
  case TDL_TAG_PACKED:
    if (flags & TDL_WIRE_LATER) { /* bodies may follow */
      return TREADLE_EPAYLOAD;
    }
    *more = 2;
    return 0;
  case TDL_TAG_OBJECT:
  case TDL_TAG_CFUNCTION:
    *more = 2;
    return 0;
  case TDL_TAG_CDATA:
    return tdl_get_value(r, &item) == 0 && item.kind == TDL_ITEM_STRING
               ? pass_run(r)
               : TREADLE_EPAYLOAD;
  case TDL_TAG_FUNCTION:
  case TDL_TAG_FUNCTION_LATER:
    if (pass_run(r) != 0 || tdl_get_left(r) == 0) {
      return TREADLE_EPAYLOAD;
    }
    *more = *p == TDL_TAG_FUNCTION ? *r->next : 0;
    r->next++;
    return 0;
  default:
    return TREADLE_EPAYLOAD;
  }
}

/* How many elements the value at hand stands for. */
static uint64_t elements_of(const tdl_reader *r) {
  return tdl_get_left(r) >= 5 && *r->next == TDL_TAG_NUMBERS
             ? tdl_load_32(r->next + 1)
             : 1;
}

/* `left` values, each with all that is in it. */
static int pass_values(tdl_reader *r, int flags, uint64_t left) {
  while (left > 0) {
    uint64_t n = elements_of(r), more;
    if (n == 0 || n > left || pass_tag(r, flags, &more) != 0) {
      return TREADLE_EPAYLOAD;
    }
    left += more;
    left -= n;
  }
  return 0;
}

/* --- getting ------------------------------------------------------------------ */

static tdl_reader reader_of(const treadle_values *v) {
  tdl_reader r = {v->next, v->end};
  return r;
}

/* Of a shared thing, if it is a buffer. */
static treadle_buffer *buffer_at(const treadle_values *v) {
  tdl_counted *thing = NULL;
  if (*v->next == TDL_TAG_THING && v->end - v->next >= 5 &&
      (v->flags & TDL_WIRE_THINGS)) {
    thing = tdl_payload_thing(v->whole, (size_t)(v->end - v->whole),
                              tdl_load_32(v->next + 1));
  }
  return thing != NULL && thing->kind == &tdl_buffer_kind
             ? (treadle_buffer *)(void *)thing
             : NULL;
}

static void give(const tdl_item *item, treadle_value *out) {
  static const treadle_type types[] = {
      TREADLE_NIL,   TREADLE_BOOLEAN, TREADLE_NUMBER, TREADLE_STRING,
      TREADLE_TABLE, TREADLE_NUMBERS, TREADLE_INT64,  TREADLE_UINT64};
  out->type = types[item->kind];
  out->boolean = item->boolean;
  out->number = item->number;
  out->int64 = item->i64;
  out->uint64 = item->u64;
  out->string = item->kind == TDL_ITEM_NUMBERS
                    ? (const char *)(const void *)item->bytes
                    : item->string;
  out->length = item->n;
  out->pairs = item->pairs;
}

int treadle_get(treadle_values *v, treadle_value *out) {
  tdl_reader r = reader_of(v);
  uint64_t n = elements_of(&r), more;
  tdl_item item;
  memset(&item, 0, sizeof(item));
  if (v->left == 0 || n == 0 || n > v->left) {
    return TREADLE_EPAYLOAD;
  }
  if (tdl_get_value(&r, &item) == 0) {
    more = item.kind == TDL_ITEM_TABLE ? item.n + 2 * (uint64_t)item.pairs : 0;
    memset(out, 0, sizeof(*out));
    give(&item, out);
    out->inside = *v;
    out->inside.next = r.next;
    out->inside.left = more;
  } else {
    r = reader_of(v);
    if (pass_values(&r, v->flags, 1) != 0) {
      return TREADLE_EPAYLOAD;
    }
    more = 0;
    memset(out, 0, sizeof(*out));
    out->buffer = buffer_at(v);
    out->type = out->buffer != NULL ? TREADLE_BUFFER : TREADLE_OTHER;
  }
  v->left = v->left - n + more;
  v->next = r.next;
  return 0;
}

int treadle_skip(treadle_values *v) {
  tdl_reader r = reader_of(v);
  uint64_t n = elements_of(&r);
  if (v->left == 0 || n == 0 || n > v->left ||
      pass_values(&r, v->flags, n) != 0) {
    return TREADLE_EPAYLOAD;
  }
  v->left -= n;
  v->next = r.next;
  return 0;
}

unsigned treadle_values_count(const treadle_values *values) {
  return values->count;
}

int treadle_values_open(const void *bytes, size_t size, treadle_values *out) {
  tdl_reader r;
  uint32_t count;
  uint8_t flags;
  if (tdl_get_begin(&r, bytes, size, &count, &flags) != 0 ||
      (flags & TDL_WIRE_THINGS)) {
    return TREADLE_EPAYLOAD;
  }
  *out = (treadle_values){r.next, r.end, bytes, count, count, flags};
  return 0;
}

void tdl_embed_open(const tdl_bytes *bytes, treadle_values *out) {
  tdl_reader r;
  uint32_t count;
  uint8_t flags;
  memset(out, 0, sizeof(*out));
  if (bytes != NULL && bytes->len > 0 &&
      tdl_get_begin(&r, bytes->data, bytes->len, &count, &flags) == 0) {
    *out = (treadle_values){r.next, r.end, bytes->data, count, count, flags};
  }
}

/* --- tables -------------------------------------------------------------------- */

int treadle_field(const treadle_value *table, const char *key,
                  treadle_value *out) {
  treadle_values v = table->inside;
  tdl_reader r = reader_of(&v);
  size_t length = strlen(key);
  treadle_value found;
  if (table->type != TREADLE_TABLE) {
    return TREADLE_EINVAL;
  }
  if (pass_values(&r, v.flags, table->length) != 0) {
    return TREADLE_EPAYLOAD;
  }
  v.next = r.next;
  v.left = 2 * (uint64_t)table->pairs;
  for (size_t i = 0; i < table->pairs; i++) {
    treadle_values at = v;
    int status = treadle_skip(&v); /* a key may be a table */
    if (status == 0 && treadle_get(&at, &found) == 0 &&
        found.type == TREADLE_STRING && found.length == length &&
        memcmp(found.string, key, length) == 0) {
      return treadle_get(&v, out);
    }
    if (status != 0 || treadle_skip(&v) != 0) {
      return TREADLE_EPAYLOAD;
    }
  }
  return TREADLE_EINVAL;
}

double treadle_number_at(const treadle_value *numbers, size_t i) {
  return tdl_load_f64((const uint8_t *)numbers->string + 8 * i);
}

int treadle_element(const treadle_value *table, size_t index,
                    treadle_value *out) {
  treadle_values v = table->inside;
  treadle_value found;
  size_t i = 1;
  if (table->type != TREADLE_TABLE || index < 1 || index > table->length) {
    return TREADLE_EINVAL;
  }
  v.left = table->length;
  while (i <= index) {
    tdl_reader r = reader_of(&v);
    uint64_t n = elements_of(&r);
    if (i + n <= index) {
      if (treadle_skip(&v) != 0) {
        return TREADLE_EPAYLOAD;
      }
    } else if (treadle_get(&v, &found) != 0) {
      return TREADLE_EPAYLOAD;
    }
    if (i + n > index) {
      if (found.type == TREADLE_NUMBERS) {
        double number = treadle_number_at(&found, index - i);
        memset(&found, 0, sizeof(found));
        found.type = TREADLE_NUMBER;
        found.number = number;
      }
      *out = found;
      return 0;
    }
    i += n;
  }
  return TREADLE_EPAYLOAD;
}

int treadle_copy_numbers(const treadle_value *table, double *to, size_t count) {
  treadle_values v = table->inside;
  treadle_value found;
  size_t n = 0;
  if (table->type != TREADLE_TABLE || count > table->length) {
    return TREADLE_EINVAL;
  }
  v.left = table->length;
  while (n < count) {
    if (treadle_get(&v, &found) != 0) {
      return TREADLE_EPAYLOAD;
    }
    if (found.type == TREADLE_NUMBER) {
      to[n++] = found.number;
    } else if (found.type == TREADLE_NUMBERS) {
      for (size_t i = 0; i < found.length && n < count; i++) {
        to[n++] = treadle_number_at(&found, i);
      }
    } else {
      return TREADLE_EINVAL;
    }
  }
  return 0;
}

/* --- errors -------------------------------------------------------------------- */

void treadle_read_error(int status, const treadle_values *values,
                        treadle_error *out) {
  treadle_values v = *values;
  treadle_value found;
  memset(out, 0, sizeof(*out));
  out->kind = tdl_status_kind(status);
  out->message = tdl_status_text(status);
  if (status != 0 && treadle_get(&v, &found) == 0 &&
      found.type == TREADLE_STRING) {
    out->message = found.string;
    out->message_length = found.length;
    if (treadle_get(&v, &found) == 0 && found.type == TREADLE_STRING) {
      out->traceback = found.string;
      out->traceback_length = found.length;
      out->has_value = treadle_get(&v, &out->value) == 0;
    }
    return;
  }
  out->message_length = strlen(out->message);
}
