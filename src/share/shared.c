#include "shared.h"

#include <string.h>

#include "../base/alloc.h"
#include "../base/compiler.h"
#include "../codec/payload.h"
#include "../config.h"
#include "../treadle.h"

/* --- lists ---------------------------------------------------------------- */

static int make_room(tdl_shared_list *list, size_t size, size_t more) {
  size_t cap = list->cap == 0 ? 16 : list->cap;
  void *items;
  if (more <= list->cap - list->count) {
    return 0;
  }
  if (more > SIZE_MAX / 4 / size || list->count > SIZE_MAX / 4 / size) {
    return TREADLE_ENOMEM;
  }
  while (cap - list->count < more) {
    cap *= 2;
  }
  items = tdl_realloc(list->items, cap * size);
  if (items == NULL) {
    return TREADLE_ENOMEM;
  }
  list->items = items;
  list->cap = cap;
  return 0;
}

/* Gives back what it has room for and does not need. */
static void trim(tdl_shared_list *list, size_t size) {
  void *items;
  if (list->count == list->cap || list->count == 0) {
    return;
  }
  items = tdl_realloc(list->items, list->count * size);
  if (items != NULL) {
    list->items = items;
    list->cap = list->count;
  }
}

static tdl_shared_table *table_at(tdl_shared *s, uint32_t number) {
  return (tdl_shared_table *)s->tables.items + number;
}

/* --- its life ------------------------------------------------------------- */

tdl_bytes tdl_shared_payload(const tdl_shared *s, size_t i) {
  const tdl_cell *cell =
      (const tdl_cell *)s->cells.items + ((uint64_t *)s->holders.items)[i];
  tdl_bytes bytes;
  tdl_bytes_init(&bytes, (uint8_t *)s->bytes.items + cell->as.at, 0);
  bytes.len = cell->length;
  return bytes;
}

static void free_shared(tdl_counted *counted) {
  tdl_shared *s = TDL_CONTAINER(counted, tdl_shared, counted);
  for (size_t i = 0; i < s->holders.count; i++) {
    tdl_bytes bytes = tdl_shared_payload(s, i);
    tdl_payload_clear(&bytes);
  }
  tdl_payload_clear(&s->payload);
  tdl_bytes_reset(&s->payload, NULL, 0);
  tdl_free(s->tables.items);
  tdl_free(s->cells.items);
  tdl_free(s->bytes.items);
  tdl_free(s->buckets.items);
  tdl_free(s->holders.items);
  tdl_free(s);
}

const tdl_kind tdl_shared_kind = {"shared", free_shared};

int tdl_shared_new(tdl_shared **out) {
  tdl_shared *s = tdl_calloc(sizeof(*s));
  if (s == NULL) {
    return TREADLE_ENOMEM;
  }
  tdl_counted_init(&s->counted, &tdl_shared_kind);
  tdl_bytes_init(&s->payload, NULL, 0);
  *out = s;
  return 0;
}

/* --- making --------------------------------------------------------------- */

int tdl_shared_add_table(tdl_shared *s, uint32_t *number) {
  if (s->tables.count == UINT32_MAX ||
      make_room(&s->tables, sizeof(tdl_shared_table), 1) != 0) {
    return TREADLE_ENOMEM;
  }
  *number = (uint32_t)s->tables.count++;
  memset(table_at(s, *number), 0, sizeof(tdl_shared_table));
  return 0;
}

void tdl_shared_open(tdl_shared *s, uint32_t number) {
  table_at(s, number)->first = s->cells.count;
}

int tdl_shared_add(tdl_shared *s, const tdl_cell *cell) {
  int status = make_room(&s->cells, sizeof(*cell), 1);
  if (status == 0 && cell->kind == TDL_CELL_PAYLOAD && s->payload.len > 0) {
    status = make_room(&s->holders, sizeof(uint64_t), 1);
  }
  if (status != 0) {
    return status;
  }
  if (cell->kind == TDL_CELL_PAYLOAD && s->payload.len > 0) {
    ((uint64_t *)s->holders.items)[s->holders.count++] = s->cells.count;
    s->payload.len = 0; /* the references are the cell's */
  }
  ((tdl_cell *)s->cells.items)[s->cells.count++] = *cell;
  return 0;
}

static int put_bytes(tdl_shared *s, const void *from, size_t length,
                     tdl_cell *cell) {
  /* one byte at least: an address is never made from none */
  if (length > UINT32_MAX ||
      make_room(&s->bytes, 1, length > 0 ? length : 1) != 0) {
    return TREADLE_ENOMEM;
  }
  if (length > 0) {
    memcpy((uint8_t *)s->bytes.items + s->bytes.count, from, length);
  }
  cell->length = (uint32_t)length;
  cell->as.at = s->bytes.count;
  s->bytes.count += length;
  return 0;
}

int tdl_shared_put_string(tdl_shared *s, const char *from, size_t length,
                          tdl_cell *cell) {
  cell->kind = TDL_CELL_STRING;
  return put_bytes(s, from, length, cell);
}

int tdl_shared_put_payload(tdl_shared *s, tdl_cell *cell) {
  int status = put_bytes(s, s->payload.data, s->payload.len, cell);
  if (status == 0 && !(s->payload.data[0] & TDL_WIRE_THINGS)) {
    s->payload.len = 0; /* nobody's references */
  }
  cell->kind = TDL_CELL_PAYLOAD;
  return status;
}

void tdl_shared_shape(tdl_shared *s, uint32_t number, uint32_t array,
                      uint32_t length) {
  tdl_shared_table *t = table_at(s, number);
  t->array = array;
  t->pairs = (uint32_t)((s->cells.count - t->first - array) / 2);
  t->length = length;
}

/* --- finding -------------------------------------------------------------- */

static uint32_t hash_bytes(const void *from, size_t length) {
  const uint8_t *p = from; /* FNV-1a */
  uint32_t h = 2166136261u;
  for (size_t i = 0; i < length; i++) {
    h = (h ^ p[i]) * 16777619u;
  }
  return h ^ h >> 15;
}

static uint32_t hash_key(const tdl_cell *key, const void *s) {
  switch (key->kind) {
  case TDL_CELL_STRING:
    return hash_bytes(s, key->length);
  case TDL_CELL_NUMBER:
    return hash_bytes(&key->as.number, sizeof(key->as.number));
  default:
    return key->kind;
  }
}

static int is_same(const tdl_shared *s, const tdl_cell *a, const tdl_cell *key,
                   const char *bytes) {
  if (a->kind != key->kind) {
    return 0;
  }
  switch (a->kind) {
  case TDL_CELL_STRING:
    return a->length == key->length &&
           (a->length == 0 ||
            memcmp(tdl_shared_bytes(s, a), bytes, a->length) == 0);
  case TDL_CELL_NUMBER:
    return a->as.number == key->as.number;
  default:
    return 1;
  }
}

/* The number's element, if it is one. */
static const tdl_cell *find_element(const tdl_shared *s,
                                    const tdl_shared_table *t, double n) {
  if (!(n >= 1 && n <= t->array) || n != (double)(uint32_t)n) {
    return NULL;
  }
  return tdl_shared_cells(s, t) + (uint32_t)n - 1;
}

const tdl_cell *tdl_shared_find(const tdl_shared *s, const tdl_shared_table *t,
                                const tdl_cell *key, const char *bytes) {
  const tdl_cell *pairs = tdl_shared_cells(s, t) + t->array;
  if (key->kind == TDL_CELL_NUMBER) {
    const tdl_cell *element = find_element(s, t, key->as.number);
    if (element != NULL) {
      return element;
    }
  }
  if (t->mask == 0) {
    for (uint32_t i = 0; i < t->pairs; i++) {
      if (is_same(s, &pairs[i * (size_t)2], key, bytes)) {
        return &pairs[i * (size_t)2 + 1];
      }
    }
  } else {
    const uint32_t *buckets = (const uint32_t *)s->buckets.items + t->index;
    uint32_t at = hash_key(key, bytes) & t->mask;
    for (; buckets[at] != 0; at = (at + 1) & t->mask) {
      const tdl_cell *pair = &pairs[(buckets[at] - 1) * (size_t)2];
      if (is_same(s, pair, key, bytes)) {
        return pair + 1;
      }
    }
  }
  return NULL;
}

/* Buckets for a table that is too large to look through: at most half full. */
static int make_index(tdl_shared *s, tdl_shared_table *t) {
  const tdl_cell *pairs = tdl_shared_cells(s, t) + t->array;
  size_t count = 4;
  uint32_t *buckets;
  while (count < t->pairs * (size_t)2) {
    count *= 2;
  }
  if (count - 1 > UINT32_MAX ||
      make_room(&s->buckets, sizeof(*buckets), count) != 0) {
    return TREADLE_ENOMEM;
  }
  buckets = (uint32_t *)s->buckets.items + s->buckets.count;
  memset(buckets, 0, count * sizeof(*buckets));
  t->index = s->buckets.count;
  t->mask = (uint32_t)(count - 1);
  s->buckets.count += count;
  for (uint32_t i = 0; i < t->pairs; i++) {
    const tdl_cell *key = &pairs[i * (size_t)2];
    const void *bytes =
        key->kind == TDL_CELL_STRING ? tdl_shared_bytes(s, key) : NULL;
    uint32_t at = hash_key(key, bytes) & t->mask;
    while (buckets[at] != 0) {
      at = (at + 1) & t->mask;
    }
    buckets[at] = i + 1;
  }
  return 0;
}

int tdl_shared_finish(tdl_shared *s) {
  /* one at least, as with bytes */
  if (s->cells.count == 0 && make_room(&s->cells, sizeof(tdl_cell), 1) != 0) {
    return TREADLE_ENOMEM;
  }
  for (size_t i = 0; i < s->tables.count; i++) {
    tdl_shared_table *t = table_at(s, (uint32_t)i);
    if (t->pairs > TDL_SHARED_WHOLE_COUNT) {
      int status = make_index(s, t);
      if (status != 0) {
        return status;
      }
    }
  }
  tdl_bytes_reset(&s->payload, NULL, 0);
  trim(&s->tables, sizeof(tdl_shared_table));
  trim(&s->cells, sizeof(tdl_cell));
  trim(&s->bytes, 1);
  trim(&s->buckets, sizeof(uint32_t));
  trim(&s->holders, sizeof(uint64_t));
  return 0;
}
