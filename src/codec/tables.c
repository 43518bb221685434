/* The fields of one table: its elements in order, then the other pairs.
**
** Where raw.h is off, one walk of lua_next does both, because in LuaJIT it
** visits the array part first and in order: keys that come as 1, 2, 3, ... are
** elements, and the first other key ends them. */
#include "encode.h"
#include "raw_tables.h"

/* Narrow counts become wide ones: the fields move up by six bytes. */
static int widen(tdl_encoder *e, uint32_t mark) {
  tdl_writer *w = &e->w;
  uint32_t body = w->out->len - mark - 3;
  uint8_t *p;
  if (tdl_put_room(w, 6) == NULL) {
    return w->status;
  }
  p = w->out->data + mark;
  memmove(p + 9, p + 3, body);
  p[0] = TDL_TAG_TABLE32;
  return 0;
}

int tdl_encode_counts(tdl_encoder *e, uint32_t mark, uint32_t array,
                      uint32_t pairs) {
  uint8_t *p;
  if ((array > 255 || pairs > 255) && e->w.out->data[mark] == TDL_TAG_TABLE8 &&
      widen(e, mark) != 0) {
    return e->w.status;
  }
  p = e->w.out->data + mark;
  if (p[0] == TDL_TAG_TABLE8) {
    p[1] = (uint8_t)array;
    p[2] = (uint8_t)pairs;
  } else {
    tdl_store_32(p + 1, array);
    tdl_store_32(p + 5, pairs);
  }
  return 0;
}

/* A value of the given type; the frequent ones here. */
static inline __attribute__((always_inline)) int
put_part(tdl_encoder *e, int type, int idx, const tdl_path *path, int depth) {
  lua_State *L = e->L;
  const char *s;
  size_t len;
  switch (type) {
  case LUA_TNUMBER:
    return tdl_put_number(&e->w, lua_tonumber(L, idx));
  case LUA_TSTRING:
    s = lua_tolstring(L, idx, &len);
    return tdl_put_string(&e->w, s, len);
  case LUA_TBOOLEAN:
    return tdl_put_boolean(&e->w, lua_toboolean(L, idx));
  default:
    return tdl_encode_value(e, idx, path, depth);
  }
}

/* Key and value at `key` and key + 1. */
static inline int put_pair(tdl_encoder *e, int key, const tdl_path *up,
                           int depth) {
  tdl_path step = {up, TDL_PATH_AS_KEY, (uint32_t)key, NULL};
  int status = put_part(e, lua_type(e->L, key), key, &step, depth);
  if (status != 0) {
    return status;
  }
  step.kind = TDL_PATH_KEY;
  return put_part(e, lua_type(e->L, key + 1), key + 1, &step, depth);
}

/* State of the walk over one table. Stack: key at top + 1, value above. */
struct walk {
  int t;
  int key;
  uint32_t array; /* elements written */
  int zero;       /* [0] lies before the elements: it is written last */
};

/* The elements. `more`: key and value of another pair are on the stack. */
static int put_array(tdl_encoder *e, struct walk *k, const tdl_path *path,
                     int depth, int *more) {
  lua_State *L = e->L;
  tdl_path step = {path, TDL_PATH_ELEMENT, 0, NULL};
  *more = 0;
  lua_pushnil(L);
  while (lua_next(L, k->t)) {
    double n =
        lua_type(L, k->key) == LUA_TNUMBER ? lua_tonumber(L, k->key) : -1;
    if (n == (double)k->array + 1) {
      int status;
      step.n = k->array + 1;
      status = put_part(e, lua_type(L, k->key + 1), k->key + 1, &step, depth);
      if (status != 0) {
        return status;
      }
      k->array++;
    } else if (n == 0 && k->array == 0) {
      k->zero = 1;
    } else {
      *more = 1;
      break;
    }
    lua_settop(L, k->key);
  }
  return 0;
}

static int put_fields(tdl_encoder *e, int idx, const tdl_path *path,
                      int depth) {
  lua_State *L = e->L;
  struct walk k = {idx, lua_gettop(L) + 1, 0, 0};
  size_t len = lua_objlen(L, idx);
  uint32_t mark = e->w.out->len;
  uint32_t pairs = 0;
  int more;
  int status;
  if (!tdl_encode_room(e, depth)) {
    return tdl_encode_refuse(e, path, "cannot send so many values at once");
  }
  if (tdl_put_table(&e->w, len < INT32_MAX ? (uint32_t)len : 0, 0) != 0) {
    return e->w.status;
  }
  depth++;
  status = put_array(e, &k, path, depth, &more);
  if (status != 0) {
    return status;
  }
  while (more) {
    status = put_pair(e, k.key, path, depth);
    if (status != 0) {
      return status;
    }
    pairs++;
    lua_settop(L, k.key);
    more = lua_next(L, idx);
  }
  if (k.zero) {
    lua_pushnumber(L, 0);
    lua_rawgeti(L, idx, 0);
    status = put_pair(e, k.key, path, depth);
    if (status != 0) {
      return status;
    }
    pairs++;
    lua_settop(L, k.key - 1);
  }
  return tdl_encode_counts(e, mark, k.array, pairs);
}

int tdl_encode_fields(tdl_encoder *e, int idx, const tdl_path *path,
                      int depth) {
#if TDL_RAW_KNOWN
  if (e->raw) {
    return tdl_raw_encode_fields(e, idx, path, depth);
  }
#endif
  return put_fields(e, idx, path, depth);
}
