/* A function is its bytecode and its upvalues. An upvalue is numbered like an
** object, by the identity that lua_upvalueid tells, so that two functions
** that share one share it after arrival; it is numbered before its value is
** written, because the value may be the function itself. */
#include "functions.h"

#include <lauxlib.h>
#include <string.h>

#include "../base/alloc.h"
#include "names.h"
#include "protos.h"

/* ---- encoding ---- */

static int append(lua_State *L, const void *p, size_t n, void *writer) {
  uint8_t *to = tdl_put_room(writer, n);
  (void)L;
  if (to == NULL) {
    return 1;
  }
  if (n > 0) {
    memcpy(to, p, n);
  }
  return 0;
}

/* Pushes the table bytecode-by-function, which does not keep functions. */
static void push_dumps(lua_State *L, int store) {
  lua_rawgeti(L, store, TDL_STORE_DUMPS);
  if (!lua_isnil(L, -1)) {
    return;
  }
  lua_pop(L, 1);
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "k");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_rawseti(L, store, TDL_STORE_DUMPS);
}

static int put_bytecode(tdl_encoder *e, int idx, const tdl_path *path) {
  lua_State *L = e->L;
  int top = lua_gettop(L);
  int status;
  uint32_t mark;
  push_dumps(L, tdl_encode_store(e));
  lua_pushvalue(L, idx);
  lua_rawget(L, -2);
  if (lua_isstring(L, -1)) {
    size_t len;
    const char *s = lua_tolstring(L, -1, &len);
    uint8_t *p = tdl_put_room(&e->w, 4 + len);
    if (p == NULL) {
      return e->w.status;
    }
    tdl_store_32(p, (uint32_t)len);
    memcpy(p + 4, s, len);
    lua_settop(L, top);
    return 0;
  }
  lua_pop(L, 1);
  if (tdl_put_room(&e->w, 4) == NULL) {
    return e->w.status;
  }
  mark = e->w.out->len;
  lua_pushvalue(L, idx);
  status = lua_dump(L, append, &e->w);
  if (status != 0) {
    return e->w.status != 0       ? e->w.status
           : status == LUA_ERRMEM ? TREADLE_ENOMEM
                                  : tdl_encode_refuse(e, path,
                                                      "cannot send a function "
                                                      "that has no bytecode");
  }
  tdl_store_32(e->w.out->data + mark - 4, e->w.out->len - mark);
  /* dumps, function: dumps[function] = bytecode */
  lua_pushlstring(L, (const char *)e->w.out->data + mark, e->w.out->len - mark);
  lua_rawset(L, -3);
  lua_settop(L, top);
  return 0;
}

static int put_cfunction(tdl_encoder *e, int idx, const tdl_path *path) {
  lua_State *L = e->L;
  const char *s;
  size_t len;
  if (!tdl_names_of_function(L, tdl_encode_store(e), idx)) {
    return tdl_encode_refuse(e, path,
                             "cannot send a C function that no "
                             "loaded module names");
  }
  e->flags |= TDL_WIRE_CODE;
  tdl_put_tag(&e->w, TDL_TAG_CFUNCTION);
  s = lua_tolstring(L, -2, &len);
  tdl_put_string(&e->w, s, len);
  if (lua_isstring(L, -1)) {
    s = lua_tolstring(L, -1, &len);
    tdl_put_string(&e->w, s, len);
  } else {
    tdl_put_nil(&e->w);
  }
  lua_pop(L, 2);
  return e->w.status;
}

static int count_upvalues(lua_State *L, int idx) {
  int n = 0;
  while (lua_getupvalue(L, idx, n + 1) != NULL) {
    lua_pop(L, 1);
    n++;
  }
  return n;
}

/* Whether the Lua function is one of treadle's own, with a name: it stands for
** the receiver's. A copy would have a copy of what treadle knows of this state.
** Those whose bytecode is kept are none. */
static int is_public(tdl_encoder *e, int idx) {
  static const char ours[] = "@lua/treadle/"; /* how src/bind/embed.lua says */
  lua_State *L = e->L;
  int top = lua_gettop(L);
  int is_dumped;
  lua_Debug ar;
  push_dumps(L, tdl_encode_store(e));
  lua_pushvalue(L, idx);
  lua_rawget(L, -2);
  is_dumped = !lua_isnil(L, -1);
  lua_settop(L, top);
  if (is_dumped) {
    return 0;
  }
  lua_pushvalue(L, idx);
  if (!lua_getinfo(L, ">S", &ar) ||
      strncmp(ar.source, ours, sizeof(ours) - 1) != 0 ||
      !tdl_names_of_function(L, tdl_encode_store(e), idx)) {
    return 0;
  }
  lua_settop(L, top);
  return 1;
}

int tdl_encode_function(tdl_encoder *e, int idx, const tdl_path *path,
                        int depth) {
  lua_State *L = e->L;
  int later = depth >= e->later_depth;
  uint8_t *p;
  int status;
  if (!lua_checkstack(L, LUA_MINSTACK)) {
    return tdl_encode_refuse(e, path, "cannot send so many values at once");
  }
  if (tdl_store_is_confined(L)) {
    return tdl_encode_refuse(e, path, "a confined worker sends no functions");
  }
  if (lua_iscfunction(L, idx) || is_public(e, idx)) {
    return put_cfunction(e, idx, path);
  }
  status = tdl_encode_known(e, lua_topointer(L, idx), idx, path);
  if (status != 0) {
    return status < 0 ? status : 0;
  }
  e->flags |= TDL_WIRE_CODE;
  tdl_put_tag(&e->w, later ? TDL_TAG_FUNCTION_LATER : TDL_TAG_FUNCTION);
  status = put_bytecode(e, idx, path);
  if (status != 0) {
    return status;
  }
  p = tdl_put_room(&e->w, 1);
  if (p == NULL) {
    return e->w.status;
  }
  *p = (uint8_t)count_upvalues(L, idx); /* LuaJIT: 60 at most */
  return later ? tdl_encode_later(e, idx)
               : tdl_encode_upvalues(e, idx, path, depth);
}

static int put_upvalue(tdl_encoder *e, int idx, int i, const tdl_path *path,
                       int depth) {
  lua_State *L = e->L;
  tdl_seen *map = tdl_encode_map(e);
  const void *id = lua_upvalueid(L, idx, i);
  tdl_path step = {path, TDL_PATH_UPVALUE, (uint32_t)i, NULL};
  uint32_t *seen;
  int at = lua_gettop(L) + 1;
  int status;
  if (map == NULL) {
    return TREADLE_ENOMEM;
  }
  seen = tdl_seen_find(map, id);
  if (seen != NULL) {
    e->flags |= TDL_WIRE_REFS;
    return tdl_put_tag_32(&e->w, TDL_TAG_UPVALUE, *seen);
  }
  status = tdl_seen_put(map, id, e->upvalues);
  if (status != 0) {
    return status;
  }
  e->upvalues++;
  step.name = lua_getupvalue(L, idx, i);
  if (lua_istable(L, at) && tdl_names_of_module(L, at)) {
    size_t len;
    const char *s = lua_tolstring(L, -1, &len);
    tdl_put_tag(&e->w, TDL_TAG_MODULE);
    status = tdl_put_string(&e->w, s, len);
  } else {
    status = tdl_encode_value(e, at, &step, depth + 1);
  }
  if (status == 0) {
    lua_settop(L, at - 1);
  }
  return status;
}

int tdl_encode_upvalues(tdl_encoder *e, int idx, const tdl_path *path,
                        int depth) {
  int n;
  if (!lua_checkstack(e->L, LUA_MINSTACK)) {
    return tdl_encode_refuse(e, path, "cannot send so many values at once");
  }
  n = count_upvalues(e->L, idx);
  for (int i = 1; i <= n; i++) {
    int status = put_upvalue(e, idx, i, path, depth);
    if (status != 0) {
      return status;
    }
  }
  return 0;
}

/* ---- decoding ---- */

/* Numbers an upvalue: slot `slot` of object `function`. */
static int add_upvalue(tdl_decoder *d, uint32_t function, int slot) {
  tdl_scratch *s = d->scratch;
  if (!(d->flags & TDL_WIRE_REFS)) {
    return 0; /* nobody will ask */
  }
  if (s->upvalue_count == s->upvalue_cap) {
    uint32_t cap = s->upvalue_cap == 0 ? 64 : s->upvalue_cap * 2;
    struct tdl_upvalue *bigger =
        tdl_realloc(s->upvalues, cap * sizeof(*bigger));
    if (bigger == NULL) {
      lua_pushliteral(d->L, "not enough memory");
      return TREADLE_ENOMEM;
    }
    s->upvalues = bigger;
    s->upvalue_cap = cap;
  }
  s->upvalues[s->upvalue_count].function = function;
  s->upvalues[s->upvalue_count].slot = (uint32_t)slot;
  s->upvalue_count++;
  return 0;
}

/* Joins upvalue `i` of the function at `idx` with the one that follows. */
static int join_upvalue(tdl_decoder *d, int idx, int i) {
  lua_State *L = d->L;
  const uint8_t *p = tdl_get_room(&d->r, 5);
  uint32_t n = p != NULL ? tdl_load_32(p + 1) : 0;
  struct tdl_upvalue *u;
  if (p == NULL) {
    return tdl_decode_malformed(d, "truncated");
  }
  if (!(d->flags & TDL_WIRE_REFS) || n >= d->scratch->upvalue_count) {
    return tdl_decode_malformed(d, "a reference to no upvalue");
  }
  u = &d->scratch->upvalues[n];
  lua_rawgeti(L, d->base + TDL_DECODER_OBJECTS, (int)u->function + 1);
  lua_upvaluejoin(L, idx, i, lua_gettop(L), (int)u->slot);
  lua_pop(L, 1);
  return 0;
}

int tdl_decode_upvalues(tdl_decoder *d, int idx, uint32_t id, int depth) {
  lua_State *L = d->L;
  int n;
  int status;
  if (depth >= TDL_DEPTH_DECODE || !lua_checkstack(L, LUA_MINSTACK)) {
    return tdl_decode_malformed(d, "nested too deeply");
  }
  n = count_upvalues(L, idx);
  for (int i = 1; i <= n; i++) {
    int tag = d->r.next < d->r.end ? *d->r.next : TDL_TAG_COUNT;
    if (tag == TDL_TAG_UPVALUE) {
      status = join_upvalue(d, idx, i);
      if (status != 0) {
        return status;
      }
      continue;
    }
    status = add_upvalue(d, id, i);
    if (status == 0) {
      status = tag == TDL_TAG_MODULE ? tdl_decode_module(d)
                                     : tdl_decode_value(d, depth + 1);
    }
    if (status != 0) {
      return status;
    }
    lua_setupvalue(L, idx, i);
  }
  return 0;
}

int tdl_decode_function(tdl_decoder *d, int depth, int later) {
  const uint8_t *p = tdl_get_room(&d->r, 4);
  const uint8_t *n;
  size_t len;
  int status;
  if (p == NULL) {
    return tdl_decode_malformed(d, "truncated");
  }
  len = tdl_load_32(p);
  p = tdl_get_room(&d->r, len);
  n = tdl_get_room(&d->r, 1);
  if (p == NULL || n == NULL) {
    return tdl_decode_malformed(d, "truncated");
  }
  if (!lua_checkstack(d->L, LUA_MINSTACK)) {
    return tdl_decode_malformed(d, "nested too deeply");
  }
  status = tdl_protos_push(d, p, len, *n);
  if (status != 0) {
    return status;
  }
  if (count_upvalues(d->L, lua_gettop(d->L)) != *n) {
    return tdl_decode_malformed(d, "a function with other upvalues");
  }
  tdl_decode_number(d);
  return later
             ? tdl_decode_later(d)
             : tdl_decode_upvalues(d, lua_gettop(d->L), d->objects - 1, depth);
}
