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
#include "raw_tables.h"
#include "things.h"

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

const char *tdl_encode_name(lua_State *L, int meta) {
  luaL_checkstack(L, LUA_MINSTACK, NULL);
  lua_pushliteral(L, "__name");
  lua_rawget(L, meta);
  return lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
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
  int status;
  if (map == NULL) {
    return TREADLE_ENOMEM;
  }
  status = tdl_seen_add(map, p, e->objects, id);
  if (status != 0) {
    return status;
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
  if (e->scratch != NULL && !e->guarded) {
    int status = tdl_seen_add(&e->scratch->seen, p, e->objects, id);
    e->objects += status == 0;
    return status;
  }
  if (e->guarded || e->objects == TDL_ENCODER_FEW) {
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
  uint32_t id = 0;
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

/* ---- values ---- */

int tdl_encode_table(tdl_encoder *e, int idx, const tdl_path *path, int depth) {
  const void *p;
  int status;
  if (e->raw) {
    const tdl_raw_table *t = tdl_raw_table_of(*tdl_raw_slot(e->L, idx));
    p = t->metatable == 0 ? t : NULL;
  } else {
    p = lua_topointer(e->L, idx);
  }
  if ((p == NULL || !e->raw) && lua_getmetatable(e->L, idx)) {
    return tdl_encode_object(e, idx, path, depth);
  }
  status = tdl_encode_known(e, p, idx, path);
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
    return tdl_encode_table(e, idx, path, depth);
  case LUA_TFUNCTION:
    return tdl_encode_function(e, idx, path, depth);
  case TDL_LUA_TCDATA:
    return tdl_encode_cdata(e, idx, path);
  case LUA_TTHREAD:
    return tdl_encode_refuse(e, path, "cannot send a coroutine");
  case LUA_TLIGHTUSERDATA:
    return tdl_encode_refuse(e, path, "cannot send a light userdata");
  default:
    return tdl_encode_thing(e, idx, path);
  }
}

/* ---- the list of values ---- */

/* Writes the values from number `from` (0-based) on, and the bodies. */
static int put_values(tdl_encoder *e, int from) {
  lua_State *L = e->L;
  int status;
  if (!tdl_raw_room(L, e->raw,
                    TDL_ENCODER_SLOTS + TDL_ENCODE_STEPS_SLOTS +
                        TDL_ENCODE_END_SLOTS)) {
    lua_pushliteral(L, "cannot send so many values at once");
    e->failed = 1;
    return TREADLE_EPAYLOAD;
  }
  if (e->raw) {
    e->base = tdl_raw_top(L);
    for (int i = 0; i < TDL_ENCODER_SLOTS; i++) {
      tdl_raw_push(L, TDL_RAW_NIL);
    }
  } else {
    e->base = lua_gettop(L);
    lua_settop(L, e->base + TDL_ENCODER_SLOTS);
  }
  for (int i = from; i < e->n; i++) {
    tdl_path step = {NULL, TDL_PATH_VALUE, (uint32_t)i + 1, NULL};
    e->value = step.n;
    if (e->raw &&
        tdl_raw_kind(*tdl_raw_slot(L, e->first + i)) == TDL_RAW_TABLE) {
      status = tdl_encode_table(e, e->first + i, &step, 0);
    } else {
      status = tdl_encode_value(e, e->first + i, &step, 0);
    }
    if (status != 0) {
      return status;
    }
  }
  status = tdl_encode_bodies(e, 0, 0);
  if (status == 0 && (e->flags & TDL_WIRE_THINGS)) {
    status = tdl_encode_things(e);
  }
  if (status == 0) {
    e->w.out->data[e->w.start] |= e->flags;
  }
  return status;
}

/* Gives the scratch memory back; a message stays at the top. */
static void put_back(tdl_encoder *e) {
  if (e->scratch != NULL) {
    tdl_scratch_forget(e->scratch); /* what no payload has got */
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
    lua_pushfstring(L, "cannot send a table that changes meanwhile (%s)",
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
                       const char *list, tdl_writer *w, uint32_t limit,
                       tdl_target target) {
  tdl_encoder e;
  const int raw = tdl_raw_is_on();
  int top = raw ? tdl_raw_top(L) : lua_gettop(L);
  uint32_t len = w->out->len;
  uint32_t room = w->room;
  int status;
  e.L = L;
  e.w = *w;
  e.list = list;
  e.first = first;
  e.n = n;
  e.raw = raw;
  e.target = target;
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
  } else if (raw) {
    tdl_raw_pop(L, tdl_raw_top(L) - top);
  } else {
    lua_settop(L, top);
  }
  return tdl_put_end(&e.w);
}

/* One value; 0 when it is no scalar. A failure is the writer's. */
static inline int put_scalar(lua_State *L, int idx, tdl_writer *w) {
  const char *s;
  size_t len;
  switch (lua_type(L, idx)) {
  case LUA_TNIL:
    tdl_put_nil(w);
    return 1;
  case LUA_TBOOLEAN:
    tdl_put_boolean(w, lua_toboolean(L, idx));
    return 1;
  case LUA_TNUMBER:
    tdl_put_number(w, lua_tonumber(L, idx));
    return 1;
  case LUA_TSTRING:
    s = lua_tolstring(L, idx, &len);
    tdl_put_string(w, s, len);
    return 1;
  default:
    return 0;
  }
}

int tdl_encode_scalars(lua_State *L, int first, int n, tdl_bytes *out) {
  tdl_writer w;
  int i = 0;
  tdl_put_begin(&w, out, tdl_bytes_cap(out) - out->len, (uint32_t)n);
  if (tdl_raw_is_on()) {
    const tdl_raw_value *v = tdl_raw_slot(L, first);
    while (i < n && tdl_raw_put_scalar(&w, v[i]) == 0) {
      i++;
    }
  } else {
    while (i < n && w.status == 0 && put_scalar(L, first + i, &w)) {
      i++;
    }
  }
  if (i == n && w.status == 0) {
    return 1;
  }
  out->len = w.start;
  return 0;
}

int tdl_encode_to(lua_State *L, int first, int n, const char *what,
                  tdl_bytes *out, uint32_t limit, tdl_target target) {
  tdl_writer w;
  tdl_put_begin(&w, out, limit, (uint32_t)n);
  for (int i = 0; i < n; i++) {
    if (!put_scalar(L, first + i, &w) && w.status == 0) {
      return encode_rest(L, first, n, i, what, &w, limit, target);
    }
  }
  if (TDL_UNLIKELY(w.status != 0)) {
    luaL_checkstack(L, 2, NULL);
    push_reason(L, w.status, limit);
  }
  return tdl_put_end(&w);
}

int tdl_encode(lua_State *L, int first, int n, const char *what, tdl_bytes *out,
               uint32_t limit) {
  return tdl_encode_to(L, first, n, what, out, limit, TDL_TO_STATE);
}
