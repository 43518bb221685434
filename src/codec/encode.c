/* Encoding is one walk over the values:
**
**   payload = head, values, bodies of the objects that were left for later
**
** 1. The walk goes down the C stack, at most TDL_DEPTH_LATER steps; a table
**    below that is queued, and a mark stands in its place.
** 2. An object's number is the order in which the walk met it. Most payloads
**    have a few objects: only more of them open the scratch memory.
** 3. No user code runs unless `guarded`. The walk that meets a value to be
**    packed gives up with TDL_ENCODE_AGAIN, before it calls anything; then it
**    starts again under lua_pcall. There, everything numbered is pinned, so
**    that no address means two objects, and an error of lua_next in a table
**    that a callback changed is caught. */
#include "encode.h"

#include <lauxlib.h>
#include <stdarg.h>

#include "cdata.h"
#include "classes.h"
#include "codec.h"
#include "functions.h"
#include "numbers.h"

/* Numbers in a row after which the next ones are worth a compiled loop. */
#define RUN_BEFORE_LOOP 8

/* Lua stack that one step of the walk takes, and that it needs at its end
** (callbacks, messages). It is asked for every so many steps. */
#define STEP_SLOTS    8
#define STEPS_CHECKED 16
#define END_SLOTS     24

int tdl_encode_refuse(tdl_encoder *e, const tdl_path *path, const char *format,
                      ...) {
  lua_State *L = e->L;
  va_list args;
  luaL_checkstack(L, LUA_MINSTACK, NULL);
  va_start(args, format);
  lua_pushvfstring(L, format, args);
  va_end(args);
  lua_pushliteral(L, " (");
  tdl_path_push(L, e->list, path);
  lua_pushliteral(L, ")");
  lua_concat(L, 4);
  e->failed = 1;
  return TREADLE_EPAYLOAD;
}

/* ---- objects ---- */

int tdl_encode_store(tdl_encoder *e) {
  int slot = e->base + TDL_ENCODER_STORE;
  if (lua_isnil(e->L, slot)) {
    tdl_store_push(e->L);
    lua_replace(e->L, slot);
  }
  return slot;
}

tdl_seen *tdl_encode_map(tdl_encoder *e) {
  if (e->scratch == NULL) {
    tdl_scratch *s = tdl_scratch_take(e->L, tdl_encode_store(e));
    lua_replace(e->L, e->base + TDL_ENCODER_SCRATCH);
    for (uint32_t i = 0; i < e->objects; i++) {
      if (tdl_seen_put(&s->seen, e->few[i], i) != 0) {
        return NULL;
      }
    }
    e->scratch = s;
  }
  return &e->scratch->seen;
}

void tdl_encode_pin(tdl_encoder *e, int idx) {
  int slot = e->base + TDL_ENCODER_PINS;
  if (e->pinned == 0) {
    lua_newtable(e->L);
    lua_replace(e->L, slot);
  }
  lua_pushvalue(e->L, idx);
  lua_rawseti(e->L, slot, (int)++e->pinned);
}

static int see_in_map(tdl_encoder *e, const void *p, int idx, uint32_t *id) {
  tdl_seen *map = tdl_encode_map(e);
  uint32_t *found;
  if (map == NULL) {
    return TREADLE_ENOMEM;
  }
  found = tdl_seen_find(map, p);
  if (found != NULL) {
    *id = *found;
    return 1;
  }
  if (tdl_seen_put(map, p, e->objects) != 0) {
    return TREADLE_ENOMEM;
  }
  e->objects++;
  if (e->guarded) {
    tdl_encode_pin(e, idx);
  }
  return 0;
}

/* Numbers the object at `idx`, known by the address `p`: 0 when it is new;
** 1 when not, its number (or TDL_SEEN_OPEN) in `id`; or a status. */
static inline int see(tdl_encoder *e, const void *p, int idx, uint32_t *id) {
  if (e->scratch != NULL || e->guarded || e->objects == TDL_ENCODER_FEW) {
    return see_in_map(e, p, idx, id);
  }
  for (uint32_t i = 0; i < e->objects; i++) {
    if (e->few[i] == p) {
      *id = i;
      return 1;
    }
  }
  e->few[e->objects++] = p;
  return 0;
}

int tdl_encode_known(tdl_encoder *e, const void *p, int idx,
                     const tdl_path *path) {
  uint32_t id;
  int seen = see(e, p, idx, &id);
  if (seen <= 0) {
    return seen;
  }
  if (id == TDL_SEEN_OPEN) {
    return tdl_encode_refuse(e, path,
                             "cannot send an object that is packed into "
                             "a value with itself in it");
  }
  e->flags |= TDL_WIRE_REFS;
  return tdl_put_tag_32(&e->w, TDL_TAG_REF, id) != 0 ? e->w.status : 1;
}

int tdl_encode_later(tdl_encoder *e, int idx) {
  lua_State *L = e->L;
  int slot = e->base + TDL_ENCODER_QUEUE;
  int at = (int)e->queued * 2;
  if (lua_isnil(L, slot)) {
    lua_newtable(L);
    lua_replace(L, slot);
  }
  lua_pushvalue(L, idx);
  lua_rawseti(L, slot, at + 1);
  lua_pushnumber(L, e->value);
  lua_rawseti(L, slot, at + 2);
  e->queued++;
  e->flags |= TDL_WIRE_LATER;
  return 0;
}

int tdl_encode_bodies(tdl_encoder *e, uint32_t from, int depth) {
  lua_State *L = e->L;
  int slot = e->base + TDL_ENCODER_QUEUE;
  for (uint32_t i = from; i < e->queued; i++) {
    int idx = lua_gettop(L) + 1;
    tdl_path value = {NULL, TDL_PATH_VALUE, 0, NULL};
    tdl_path elided = {&value, TDL_PATH_ELIDED, 0, NULL};
    int status;
    lua_rawgeti(L, slot, (int)i * 2 + 2);
    e->value = (uint32_t)lua_tonumber(L, -1);
    value.n = e->value;
    lua_pop(L, 1);
    lua_rawgeti(L, slot, (int)i * 2 + 1);
    lua_pushnil(L); /* the queue must not keep a million tables */
    lua_rawseti(L, slot, (int)i * 2 + 1);
    if (lua_isfunction(L, idx)) {
      status = tdl_encode_upvalues(e, idx, &elided, depth);
    } else if (lua_getmetatable(L, idx)) {
      status = tdl_encode_object_body(e, idx, &elided, depth);
    } else {
      status = tdl_encode_fields(e, idx, &elided, depth);
    }
    if (status != 0) {
      return status;
    }
    lua_settop(L, idx - 1);
  }
  e->queued = from;
  return 0;
}

/* ---- tables ---- */

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
      !lua_checkstack(L, STEPS_CHECKED * STEP_SLOTS + END_SLOTS)) {
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

static int put_table(tdl_encoder *e, int idx, const tdl_path *path, int depth) {
  int status;
  if (lua_getmetatable(e->L, idx)) {
    return tdl_encode_object(e, idx, path, depth);
  }
  status = tdl_encode_known(e, lua_topointer(e->L, idx), idx, path);
  if (status != 0) {
    return status < 0 ? status : 0;
  }
  if (depth >= e->later_depth) {
    return tdl_put_tag(&e->w, TDL_TAG_LATER) != 0 ? e->w.status
                                                  : tdl_encode_later(e, idx);
  }
  return tdl_encode_fields(e, idx, path, depth);
}

int tdl_encode_value(tdl_encoder *e, int idx, const tdl_path *path, int depth) {
  lua_State *L = e->L;
  const char *s;
  size_t len;
  switch (lua_type(L, idx)) {
  case LUA_TNIL:
    return tdl_put_nil(&e->w);
  case LUA_TBOOLEAN:
    return tdl_put_boolean(&e->w, lua_toboolean(L, idx));
  case LUA_TNUMBER:
    return tdl_put_number(&e->w, lua_tonumber(L, idx));
  case LUA_TSTRING:
    s = lua_tolstring(L, idx, &len);
    return tdl_put_string(&e->w, s, len);
  case LUA_TTABLE:
    return put_table(e, idx, path, depth);
  case LUA_TFUNCTION:
    return tdl_encode_function(e, idx, path, depth);
  case TDL_LUA_TCDATA:
    return tdl_encode_cdata(e, idx, path);
  case LUA_TTHREAD:
    return tdl_encode_refuse(e, path, "cannot send a coroutine");
  case LUA_TLIGHTUSERDATA:
    return tdl_encode_refuse(e, path, "cannot send a light userdata");
  default:
    return tdl_encode_refuse(e, path, "cannot send a userdata");
  }
}

/* ---- the list of values ---- */

/* Writes the values from number `from` (0-based) on, and the bodies. */
static int put_values(tdl_encoder *e, int from) {
  lua_State *L = e->L;
  int status;
  if (!lua_checkstack(L, TDL_ENCODER_SLOTS + END_SLOTS)) {
    lua_pushliteral(L, "cannot send so many values at once");
    e->failed = 1;
    return TREADLE_EPAYLOAD;
  }
  e->base = lua_gettop(L);
  lua_settop(L, e->base + TDL_ENCODER_SLOTS);
  for (int i = from; i < e->n; i++) {
    tdl_path step = {NULL, TDL_PATH_VALUE, (uint32_t)i + 1, NULL};
    e->value = step.n;
    status = tdl_encode_value(e, e->first + i, &step, 0);
    if (status != 0) {
      return status;
    }
  }
  status = tdl_encode_bodies(e, 0, 0);
  if (status == 0) {
    e->w.out->data[e->w.start] |= e->flags;
  }
  return status;
}

/* Gives the scratch memory back; a message stays at the top. */
static void put_back(tdl_encoder *e) {
  if (e->scratch != NULL) {
    tdl_scratch_give(e->L, e->base + TDL_ENCODER_STORE,
                     e->base + TDL_ENCODER_SCRATCH);
    e->scratch = NULL;
  }
}

static void start(tdl_encoder *e) {
  e->failed = 0;
  e->later_depth = TDL_DEPTH_LATER;
  e->flags = 0;
  e->objects = 0;
  e->upvalues = 0;
  e->queued = 0;
  e->pinned = 0;
  e->scratch = NULL;
}

/* Stack: the encoder, the values from e->first on. Returns the message or
** nothing; the status goes by e->w.status. */
static int put_guarded(lua_State *L) {
  tdl_encoder *e = lua_touserdata(L, 1);
  int from = e->n - (lua_gettop(L) - 1);
  int status;
  e->first = 2 - from;
  status = put_values(e, from);
  put_back(e);
  if (status != 0 && e->w.status == 0) {
    e->w.status = status;
  }
  return e->failed ? 1 : 0;
}

/* The walk that may call back. Leaves a message where it fails with one. */
static int put_again(tdl_encoder *e, int from) {
  lua_State *L = e->L;
  int first = e->first;
  int n = e->n - from;
  start(e);
  e->guarded = 1;
  if (!lua_checkstack(L, n + 4)) {
    lua_pushliteral(L, "cannot send so many values at once");
    e->failed = 1;
    return TREADLE_EPAYLOAD;
  }
  lua_pushcfunction(L, put_guarded);
  lua_pushlightuserdata(L, e);
  for (int i = from; i < e->n; i++) {
    lua_pushvalue(L, first + i);
  }
  switch (lua_pcall(L, n + 1, 1, 0)) {
  case 0:
    return e->w.status;
  case LUA_ERRMEM:
    e->failed = 0;
    return TREADLE_ENOMEM;
  default: /* a table that changed under lua_next */
    lua_pushfstring(L, "cannot send a table that its own packing changes (%s)",
                    lua_isstring(L, -1) ? lua_tostring(L, -1) : "error");
    e->failed = 1;
    return TREADLE_EPAYLOAD;
  }
}

/* Pushes the message for a status that came without. */
static void push_reason(lua_State *L, int status, uint32_t limit) {
  if (status == TREADLE_EPAYLOAD) {
    lua_pushfstring(L, "payload is larger than max_payload (%f bytes)",
                    (double)limit);
  } else {
    lua_pushliteral(L, "not enough memory");
  }
}

/* The values from number `from` on, of which one is no scalar. */
static int encode_rest(lua_State *L, int first, int n, int from,
                       const char *list, tdl_writer *w, uint32_t limit) {
  tdl_encoder e;
  int top = lua_gettop(L);
  uint32_t len = w->out->len;
  uint32_t room = w->room;
  int status;
  e.L = L;
  e.w = *w;
  e.list = list;
  e.first = first;
  e.n = n;
  e.guarded = 0;
  start(&e);
  status = put_values(&e, from);
  put_back(&e);
  if (status == TDL_ENCODE_AGAIN) {
    lua_settop(L, top);
    e.w.out->len = len;
    e.w.room = room;
    status = put_again(&e, from);
  }
  if (status != 0) {
    e.w.status = status;
    if (!e.failed) {
      push_reason(L, status, limit);
    }
    lua_insert(L, top + 1);
    lua_settop(L, top + 1);
  } else {
    lua_settop(L, top);
  }
  return tdl_put_end(&e.w);
}

int tdl_encode(lua_State *L, int first, int n, const char *what, tdl_bytes *out,
               uint32_t limit) {
  tdl_writer w;
  tdl_put_begin(&w, out, limit, (uint32_t)n);
  for (int i = 0; i < n; i++) {
    int idx = first + i;
    const char *s;
    size_t len;
    switch (lua_type(L, idx)) {
    case LUA_TNIL:
      tdl_put_nil(&w);
      break;
    case LUA_TBOOLEAN:
      tdl_put_boolean(&w, lua_toboolean(L, idx));
      break;
    case LUA_TNUMBER:
      tdl_put_number(&w, lua_tonumber(L, idx));
      break;
    case LUA_TSTRING:
      s = lua_tolstring(L, idx, &len);
      tdl_put_string(&w, s, len);
      break;
    default:
      if (w.status == 0) {
        return encode_rest(L, first, n, i, what, &w, limit);
      }
      break;
    }
  }
  if (TDL_UNLIKELY(w.status != 0)) {
    luaL_checkstack(L, 2, NULL);
    push_reason(L, w.status, limit);
  }
  return tdl_put_end(&w);
}
