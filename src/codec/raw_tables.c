/* The fields of one table, read in place (raw.h): the twin of tables.c.
**
** Scalars are written without a call of the Lua API. Anything else is put on
** the stack and goes the ordinary way, which may call the API; afterwards the
** table must have the parts that it had before (R3), because the walk goes by
** their indices. It can only differ when a callback or a finaliser was at it.
**
** Elements are t[1] to the last one of the array part, holes included, unless
** there are more holes than elements: then to the first hole. */
#include "raw_tables.h"

#if TDL_RAW_KNOWN

/* From so many numbers in a row on they are written as NUMBERS: smaller than
** one by one from 2 on, and worth the second look at them from here. */
#define RUN_MIN 8

struct walk {
  tdl_encoder *e;
  const tdl_raw_table *t;
  const tdl_path *path;
  int depth; /* of its fields */
  uint32_t pairs;
  /* Its parts, to see that they are still the same. */
  const tdl_raw_value *array;
  const tdl_raw_node *nodes;
  uint32_t asize;
  uint32_t hmask;
};

static int has_changed(const struct walk *k) {
  const tdl_raw_table *t = k->t;
  return t->array != k->array || t->nodes != k->nodes || t->asize != k->asize ||
         t->hmask != k->hmask;
}

static int put_fields(tdl_encoder *e, const tdl_raw_table *t,
                      const tdl_path *path, int depth);

static int refuse_changed(struct walk *k) {
  return tdl_encode_refuse(k->e, k->path,
                           "cannot send a table that changes meanwhile");
}

/* A value that is no scalar, beside its key: the path may show that. */
static int put_by_api(struct walk *k, tdl_raw_value key, tdl_raw_value v,
                      tdl_path_kind kind, uint32_t n) {
  lua_State *L = k->e->L;
  int idx = tdl_raw_top(L) + 2;
  tdl_path step = {k->path, kind, n, NULL};
  int status;
  tdl_raw_push(L, key);
  tdl_raw_push(L, v);
  if (kind != TDL_PATH_ELEMENT) {
    step.n = (uint32_t)idx - 1;
  }
  status = tdl_encode_value(k->e, idx, &step, k->depth);
  if (status != 0) {
    return status;
  }
  lua_settop(L, idx - 2);
  return has_changed(k) ? refuse_changed(k) : 0;
}

/* The same; the frequent ones here. */
static int put_other(struct walk *k, tdl_raw_value key, tdl_raw_value v,
                     tdl_path_kind kind, uint32_t n) {
  tdl_encoder *e = k->e;
  lua_State *L = e->L;
  const tdl_raw_table *t = tdl_raw_table_of(v);
  tdl_path step = {k->path, kind, n, NULL};
  int status;
  if (tdl_raw_kind(v) != TDL_RAW_TABLE || t->metatable != 0 || e->guarded ||
      k->depth >= e->later_depth) {
    return put_by_api(k, key, v, kind, n);
  }
  tdl_raw_push(L, key);
  tdl_raw_push(L, v);
  status = tdl_encode_known(e, t, 0, NULL);
  if (status == 0) {
    if (kind != TDL_PATH_ELEMENT) {
      step.n = (uint32_t)tdl_raw_top(L) - 1;
    }
    status = put_fields(e, t, &step, k->depth);
  } else if (status > 0) {
    status = 0;
  }
  if (TDL_UNLIKELY(status != 0)) {
    return status;
  }
  tdl_raw_pop(L, 2);
  return TDL_UNLIKELY(has_changed(k)) ? refuse_changed(k) : 0;
}

/* How many of the elements from `i` to `last` are doubles in a row. */
static uint32_t run_of_doubles(const tdl_raw_value *a, uint32_t i,
                               uint32_t last) {
  uint32_t at = i;
  while (last - at >= 4 &&
         tdl_raw_is_double(a[at]) & tdl_raw_is_double(a[at + 1]) &
             tdl_raw_is_double(a[at + 2]) & tdl_raw_is_double(a[at + 3])) {
    at += 4;
  }
  while (at <= last && tdl_raw_is_double(a[at])) {
    at++;
  }
  return at - i;
}

static int put_doubles(tdl_writer *w, const tdl_raw_value *a, uint32_t n) {
  uint8_t *p;
  if (n < RUN_MIN) {
    for (uint32_t i = 0; i < n; i++) {
      if (tdl_put_number(w, tdl_raw_double(a[i])) != 0) {
        return w->status;
      }
    }
    return 0;
  }
  p = tdl_put_room(w, 5 + (size_t)n * 8);
  if (p == NULL) {
    return w->status;
  }
  p[0] = TDL_TAG_NUMBERS;
  tdl_store_32(p + 1, n);
  memcpy(p + 5, a, (size_t)n * 8);
  return 0;
}

/* The last one of the array part, or 0. */
static inline uint32_t find_last(const tdl_raw_table *t) {
  uint32_t last = t->asize;
  do {
    if (last <= 1) {
      return 0;
    }
    last--;
  } while (t->array[last] == TDL_RAW_NIL);
  return last;
}

/* Whether more than half of them are holes; the first is at `i`. */
static int is_sparse(const tdl_raw_value *a, uint32_t i, uint32_t last) {
  uint32_t holes = 0;
  for (; i < last; i++) {
    holes += a[i] == TDL_RAW_NIL;
  }
  return holes > last / 2;
}

/* The elements to `last`, or to the first hole if the array is sparse:
** `last` becomes how many they were. */
static int put_elements(struct walk *k, uint32_t *last) {
  tdl_writer *w = &k->e->w;
  int is_dense = 0;
  for (uint32_t i = 1; i <= *last;) {
    tdl_raw_value v = k->array[i];
    int status;
    if (tdl_raw_is_double(v) && *last - i < RUN_MIN - 1) {
      status = tdl_put_number(w, tdl_raw_double(v));
      i++;
    } else if (tdl_raw_is_double(v)) {
      uint32_t n = run_of_doubles(k->array, i, *last);
      status = put_doubles(w, k->array + i, n);
      i += n;
    } else {
      if (v == TDL_RAW_NIL && !is_dense) {
        if (is_sparse(k->array, i, *last)) {
          *last = i - 1;
          return 0;
        }
        is_dense = 1;
      }
      status = tdl_raw_put_scalar(w, v);
      if (status > 0) {
        status = put_other(k, TDL_RAW_NIL, v, TDL_PATH_ELEMENT, i);
      }
      i++;
    }
    if (TDL_UNLIKELY(status != 0)) {
      return status;
    }
  }
  return 0;
}

static inline int put_pair(struct walk *k, tdl_raw_value key,
                           const tdl_raw_value *value) {
  tdl_writer *w = &k->e->w;
  int status = tdl_raw_put_scalar(w, key);
  if (TDL_UNLIKELY(status > 0)) {
    status = put_other(k, key, key, TDL_PATH_AS_KEY, 0);
  }
  if (TDL_UNLIKELY(status != 0)) {
    return status;
  }
  k->pairs++;
  status = tdl_raw_put_scalar(w, *value);
  if (status > 0) {
    status = put_other(k, key, *value, TDL_PATH_KEY, 0);
  }
  return status;
}

/* What the array part has besides the elements 1 to `last`. */
static int put_rest(struct walk *k, uint32_t last) {
  for (uint32_t i = 0; i < k->asize; i = i == 0 ? last + 1 : i + 1) {
    double d = i;
    tdl_raw_value key;
    int status;
    if (k->array[i] == TDL_RAW_NIL) {
      continue;
    }
    memcpy(&key, &d, 8);
    status = put_pair(k, key, &k->array[i]);
    if (status != 0) {
      return status;
    }
  }
  return 0;
}

static int put_nodes(struct walk *k) {
  for (uint32_t i = 0; i <= k->hmask; i++) {
    const tdl_raw_node *node = &k->nodes[i];
    int status;
    if (node->value == TDL_RAW_NIL) {
      continue;
    }
    status = put_pair(k, node->key, &node->value);
    if (TDL_UNLIKELY(status != 0)) {
      return status;
    }
  }
  return 0;
}

static int put_fields(tdl_encoder *e, const tdl_raw_table *t,
                      const tdl_path *path, int depth) {
  struct walk k;
  uint32_t mark = e->w.out->len;
  uint32_t last;
  uint32_t found;
  uint8_t *p;
  int status;
  if (!tdl_encode_room(e, depth)) {
    return tdl_encode_refuse(e, path, "cannot send so many values at once");
  }
  k.e = e;
  k.t = t;
  k.path = path;
  k.depth = depth + 1;
  k.pairs = 0;
  k.array = t->array;
  k.nodes = t->nodes;
  k.asize = t->asize;
  k.hmask = t->hmask;
  found = find_last(t);
  last = found;
  if (last < 256 && (p = tdl_put_room(&e->w, 3)) != NULL) {
    p[0] = TDL_TAG_TABLE8;
    p[1] = (uint8_t)last;
    p[2] = 0;
  } else if (tdl_put_table(&e->w, last, 0) != 0) {
    return e->w.status;
  }
  status = put_elements(&k, &last);
  if (status == 0 &&
      (last != found || (k.asize > 0 && k.array[0] != TDL_RAW_NIL))) {
    status = put_rest(&k, last);
  }
  if (status == 0 && (k.hmask > 0 || k.nodes->value != TDL_RAW_NIL)) {
    status = put_nodes(&k);
  }
  if (status != 0 || (k.pairs == 0 && last == found)) {
    return status; /* the counts are as they were written */
  }
  return tdl_encode_counts(e, mark, last, k.pairs);
}

int tdl_raw_encode_fields(tdl_encoder *e, int idx, const tdl_path *path,
                          int depth) {
  return put_fields(e, tdl_raw_table_of(*tdl_raw_slot(e->L, idx)), path, depth);
}

/* ---- decoding ---- */

/* LuaJIT knows one NaN; others are values of another kind. */
static inline tdl_raw_value plain(uint64_t bits) {
  const uint64_t inf = UINT64_C(0x7ff0000000000000);
  const tdl_raw_value nan = UINT64_C(0xfff8000000000000);
  return (bits & (UINT64_MAX >> 1)) > inf ? nan : bits;
}

uint32_t tdl_raw_decode_elements(tdl_decoder *d, int idx, uint32_t first,
                                 uint32_t last) {
  const tdl_raw_table *t = tdl_raw_table_of(*tdl_raw_slot(d->L, idx));
  tdl_raw_value *a = t->array;
  const uint8_t *p = d->r.next;
  const uint8_t *end = d->r.end;
  uint32_t i = first;
  if (last >= t->asize) { /* asize may be 0 */
    last = t->asize - (t->asize > 0);
  }
  for (; i <= last && p < end; i++) {
    if (*p == TDL_TAG_NUMBER) {
      if (end - p < 9) {
        break;
      }
      a[i] = plain(tdl_load_64(p + 1));
      p += 9;
    } else if (*p == TDL_TAG_TRUE || *p == TDL_TAG_FALSE) {
      a[i] = *p++ == TDL_TAG_TRUE ? TDL_RAW_TRUE : TDL_RAW_FALSE;
    } else if (*p == TDL_TAG_NIL) {
      a[i] = TDL_RAW_NIL;
      p++;
    } else {
      break;
    }
  }
  d->r.next = p;
  return i - first;
}

int tdl_raw_decode_numbers(lua_State *L, int idx, uint32_t first, uint32_t n,
                           const uint8_t *bytes) {
  const tdl_raw_table *t = tdl_raw_table_of(*tdl_raw_slot(L, idx));
  tdl_raw_value *a;
  if (t->asize <= first || t->asize - first < n) {
    return 0;
  }
  a = t->array + first;
  for (uint32_t i = 0; i < n; i++) {
    a[i] = plain(tdl_load_64(bytes + (size_t)i * 8));
  }
  return 1;
}

#endif
