/* reader_fuzz: libFuzzer over the reader and the writer, which C programs use.
** Threads: one.
** Owns:    the bytes that it writes.
** Fails:   by crashing, which is the point.
**
** What the reader finds is written again, and there the reader must find the
** same. */
#include <stdlib.h>
#include <string.h>

#include "../../src/codec/reader.h"
#include "../../src/codec/writer.h"

#define LIMIT_BYTES (1u << 30)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(int condition) {
  if (!condition) {
    abort();
  }
}

static void write_numbers(tdl_writer *w, const tdl_item *item) {
  double *v = malloc((size_t)item->n * sizeof(*v) + 1);
  for (uint32_t i = 0; i < item->n; i++) {
    v[i] = tdl_load_f64(item->bytes + (size_t)i * 8);
  }
  tdl_put_numbers(w, v, item->n);
  free(v);
}

static void write_item(tdl_writer *w, const tdl_item *item) {
  switch (item->kind) {
  case TDL_ITEM_NIL:
    tdl_put_nil(w);
    break;
  case TDL_ITEM_BOOLEAN:
    tdl_put_boolean(w, item->boolean);
    break;
  case TDL_ITEM_NUMBER:
    tdl_put_number(w, item->number);
    break;
  case TDL_ITEM_STRING:
    tdl_put_string(w, item->string, item->n);
    break;
  case TDL_ITEM_TABLE:
    tdl_put_table(w, item->n, item->pairs);
    break;
  case TDL_ITEM_NUMBERS:
    write_numbers(w, item);
    break;
  case TDL_ITEM_INT64:
    tdl_put_int64(w, item->i64);
    break;
  case TDL_ITEM_UINT64:
    tdl_put_uint64(w, item->u64);
    break;
  default:
    abort();
  }
}

static void expect_same(const tdl_item *a, const tdl_item *b) {
  expect(a->kind == b->kind);
  switch (a->kind) {
  case TDL_ITEM_NIL:
    break;
  case TDL_ITEM_BOOLEAN:
    expect(a->boolean == b->boolean);
    break;
  case TDL_ITEM_NUMBER:
  case TDL_ITEM_INT64:
  case TDL_ITEM_UINT64:
    expect(a->u64 == b->u64); /* also a NaN's bits */
    break;
  case TDL_ITEM_STRING:
    expect(a->n == b->n && memcmp(a->string, b->string, a->n) == 0);
    break;
  case TDL_ITEM_TABLE:
    expect(a->n == b->n && a->pairs == b->pairs);
    break;
  case TDL_ITEM_NUMBERS:
    expect(a->n == b->n && memcmp(a->bytes, b->bytes, (size_t)a->n * 8) == 0);
    break;
  }
}

/* Reads up to `limit` items and writes them; how many there were. */
static uint32_t copy_items(tdl_reader r, tdl_writer *w, uint32_t limit) {
  tdl_item item;
  uint32_t n = 0;
  while (n < limit && tdl_get_value(&r, &item) == 0) {
    n++;
    if (w != NULL) {
      write_item(w, &item);
    }
  }
  return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  tdl_reader r;
  tdl_reader again;
  tdl_writer w;
  tdl_bytes out;
  tdl_item a;
  tdl_item b;
  uint32_t count;
  uint32_t n;
  uint8_t flags;
  if (tdl_get_begin(&r, data, size, &count, &flags) != 0) {
    return 0;
  }
  expect(count <= size && r.next <= r.end && r.end == data + size);
  n = copy_items(r, NULL, UINT32_MAX);
  tdl_bytes_init(&out, NULL, 0);
  expect(tdl_put_begin(&w, &out, LIMIT_BYTES, n) == 0);
  expect(copy_items(r, &w, n) == n);
  expect(out.len <= size + 4); /* long heads become short ones */
  /* The elements that a table announces may be missing in the input. There
  ** were bytes enough for them, so there must be some here. */
  for (size_t i = 0; i < size; i++) {
    tdl_put_nil(&w);
  }
  expect(tdl_put_end(&w) == 0);
  expect(tdl_get_begin(&again, out.data, out.len, &count, &flags) == 0);
  expect(count == n && flags == 0);
  for (uint32_t i = 0; i < n; i++) {
    expect(tdl_get_value(&r, &a) == 0 && tdl_get_value(&again, &b) == 0);
    expect_same(&a, &b);
  }
  expect(tdl_get_left(&again) == size);
  tdl_bytes_reset(&out, NULL, 0);
  return 0;
}
