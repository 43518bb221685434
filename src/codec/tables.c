/* The fields of one table: its elements in order, then the other pairs.
**
** One walk of lua_next does both, because in LuaJIT it visits the array part
** first and in order: keys that come as 1, 2, 3, ... are elements, and the
** first other key ends them. Where numbers follow in a row, a compiled loop
** takes them (numbers.c), and the walk goes on behind them. */
#include "encode.h"
#include "numbers.h"

/* Numbers in a row after which the next ones are worth a compiled loop. */
#define RUN_BEFORE_LOOP 8

/* Lua stack that one step of the walk takes. It is asked for every so many
** steps. */
#define STEP_SLOTS    8
#define STEPS_CHECKED 16

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

static void put_counts(tdl_encoder *e, uint32_t mark, uint32_t array,
                       uint32_t pairs) {
  uint8_t *p = e->w.out->data + mark;
  if (p[0] == TDL_TAG_TABLE8) {
    p[1] = (uint8_t)array;
    p[2] = (uint8_t)pairs;
  } else {
    tdl_store_32(p + 1, array);
    tdl_store_32(p + 5, pairs);
  }
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

/* Whether lua_next goes from k to k + 1. */
static int next_is(lua_State *L, int t, uint32_t k) {
  int is;
  lua_pushnumber(L, k);
  if (!lua_next(L, t)) {
    return 0;
  }
  is = lua_type(L, -2) == LUA_TNUMBER && lua_tonumber(L, -2) == (double)k + 1;
  lua_pop(L, 2);
  return is;
}

/* Whether lua_next started at `to` visits everything but 1..to. It does when
** these lie in the array part, of which the Lua API says nothing. But there
** lua_next visits them in order, and in the hash part it visits n of them in
** the order of their hashes, where one comes right after another with a
** chance of 1/n: enough samples are taken to get below 2^-40, or all.
** `from`: reached by lua_next, or 0. */
static int resumable(lua_State *L, int t, uint32_t from, uint32_t to) {
  uint32_t bits = 31 - (uint32_t)__builtin_clz(to | 1);
  uint32_t samples = bits > 1 ? 40 / bits + 1 : 40;
  uint32_t span;
  if (from == 0) {
    double k;
    lua_pushnil(L);
    if (!lua_next(L, t)) {
      return 0;
    }
    k = lua_type(L, -2) == LUA_TNUMBER ? lua_tonumber(L, -2) : -1;
    lua_pop(L, 2);
    if (k != 1 && !(k == 0 && next_is(L, t, 0))) {
      return 0;
    }
    from = 1;
  }
  span = to - from;
  if (samples > span) {
    samples = span;
  }
  for (uint32_t i = 0; i < samples; i++) {
    if (!next_is(L, t, to - 1 - (uint32_t)((uint64_t)span * i / samples))) {
      return 0;
    }
  }
  return 1;
}

/* State of the walk over one table. Stack: key at top + 1, value above. */
struct walk {
  int t;
  int key;
  uint32_t len;   /* lua_objlen, for what it is worth */
  uint32_t array; /* elements written */
  uint32_t skip;  /* 1..skip are written but lua_next meets them again */
  uint32_t run;   /* numbers in a row */
  int zero;       /* [0] lies before the elements: it is written last */
};

/* Writes numbers by a loop if that is possible, and leaves the key from which
** lua_next goes on. */
static int put_numbers(tdl_encoder *e, struct walk *k) {
  lua_State *L = e->L;
  uint32_t done;
  int status = tdl_numbers_put(e, k->t, k->array + 1, k->len - k->array, &done);
  if (status != 0) {
    return status;
  }
  k->run = 0;
  if (done == 0) {
    k->len = 0; /* too few in a row: do not try again */
    return 0;
  }
  lua_settop(L, k->key - 1);
  if (resumable(L, k->t, k->array, k->array + done)) {
    if (k->array == 0) {
      lua_rawgeti(L, k->t, 0);
      k->zero = !lua_isnil(L, -1);
      lua_pop(L, 1);
    }
    k->array += done;
    lua_pushnumber(L, k->array);
  } else {
    k->array += done;
    k->skip = k->array;
    lua_pushnil(L);
  }
  return 0;
}

/* The key is one of 1..skip, or the zero that is written last. */
static int is_written(lua_State *L, const struct walk *k) {
  double n;
  if ((k->skip == 0 && !k->zero) || lua_type(L, k->key) != LUA_TNUMBER) {
    return 0;
  }
  n = lua_tonumber(L, k->key);
  return (n == 0 && k->zero) ||
         (n >= 1 && n <= k->skip && n == (double)(uint32_t)n);
}

/* The elements. `more`: key and value of another pair are on the stack. */
static int put_array(tdl_encoder *e, struct walk *k, const tdl_path *path,
                     int depth, int *more) {
  lua_State *L = e->L;
  tdl_path step = {path, TDL_PATH_ELEMENT, 0, NULL};
  int status;
  *more = 0;
  lua_pushnil(L);
  if (k->len >= TDL_NUMBERS_MIN) {
    lua_rawgeti(L, k->t, 1);
    status = lua_type(L, -1) == LUA_TNUMBER;
    lua_pop(L, 1);
    if (status != 0) {
      status = put_numbers(e, k);
      if (status != 0) {
        return status;
      }
    }
  }
  while (lua_next(L, k->t)) {
    if (lua_type(L, k->key) == LUA_TNUMBER && k->skip == 0) {
      double n = lua_tonumber(L, k->key);
      if (n == (double)k->array + 1) {
        int type = lua_type(L, k->key + 1);
        step.n = k->array + 1;
        k->run = type == LUA_TNUMBER ? k->run + 1 : 0;
        status = put_part(e, type, k->key + 1, &step, depth);
        if (status != 0) {
          return status;
        }
        k->array++;
        lua_settop(L, k->key);
        if (k->run >= RUN_BEFORE_LOOP && k->len > k->array &&
            k->len - k->array >= TDL_NUMBERS_MIN) {
          status = put_numbers(e, k);
          if (status != 0) {
            return status;
          }
        }
        continue;
      }
      if (n == 0 && k->array == 0) {
        k->zero = 1;
        lua_settop(L, k->key);
        continue;
      }
    }
    *more = 1;
    break;
  }
  return 0;
}

int tdl_encode_fields(tdl_encoder *e, int idx, const tdl_path *path,
                      int depth) {
  lua_State *L = e->L;
  struct walk k = {idx, lua_gettop(L) + 1, 0, 0, 0, 0, 0};
  size_t len = lua_objlen(L, idx);
  uint32_t mark = e->w.out->len;
  uint32_t pairs = 0;
  int more;
  int status;
  if (depth % STEPS_CHECKED == 0 &&
      !lua_checkstack(L, STEPS_CHECKED * STEP_SLOTS + TDL_ENCODE_END_SLOTS)) {
    return tdl_encode_refuse(e, path, "cannot send so many values at once");
  }
  k.len = len < INT32_MAX ? (uint32_t)len : INT32_MAX;
  if (tdl_put_table(&e->w, k.len, 0) != 0) {
    return e->w.status;
  }
  depth++;
  status = put_array(e, &k, path, depth, &more);
  if (status != 0) {
    return status;
  }
  while (more) {
    if (!is_written(L, &k)) {
      status = put_pair(e, k.key, path, depth);
      if (status != 0) {
        return status;
      }
      pairs++;
    }
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
  if ((k.array > 255 || pairs > 255) &&
      e->w.out->data[mark] == TDL_TAG_TABLE8 && widen(e, mark) != 0) {
    return e->w.status;
  }
  put_counts(e, mark, k.array, pairs);
  return 0;
}
