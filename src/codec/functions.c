/* A function is its bytecode and its upvalues. An upvalue is numbered like an
** object, by the identity that lua_upvalueid tells, so that two functions
** that share one share it after arrival; it is numbered before its value is
** written, because the value may be the function itself. */
#include "functions.h"

#include <lauxlib.h>

#include "../base/alloc.h"
#include "names.h"

/* The functions that a state remembers by their bytecode, so that the JIT
** compiler's work on them outlives one payload; and the longest of them. */
#define CACHE_COUNT 256
#define CACHE_BYTES 65536

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
  if (lua_dump(L, append, &e->w) != 0) {
    return e->w.status != 0 ? e->w.status
                            : tdl_encode_refuse(e, path,
                                                "cannot send a function that "
                                                "has no bytecode");
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

int tdl_encode_function(tdl_encoder *e, int idx, const tdl_path *path,
                        int depth) {
  lua_State *L = e->L;
  int later = depth >= e->later_depth;
  uint8_t *p;
  int status;
  if (!lua_checkstack(L, LUA_MINSTACK)) {
    return tdl_encode_refuse(e, path, "cannot send so many values at once");
  }
  if (lua_iscfunction(L, idx)) {
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

/* Passes over an unsigned LEB128; 0 when it does not end. */
static int get_uleb(tdl_reader *r, uint32_t *v) {
  *v = 0;
  for (unsigned shift = 0; shift < 32; shift += 7) {
    const uint8_t *p = tdl_get_room(r, 1);
    if (p == NULL) {
      return 0;
    }
    *v |= (uint32_t)(*p & 0x7f) << shift;
    if (*p < 0x80) {
      return 1;
    }
  }
  return 0;
}

/* What can be told of bytecode without running it: its signature, and that
** its prototypes fill it. LuaJIT checks version and frame layout, and never
** the instructions: bytecode is trusted code (docs/payloads.md). */
static int is_bytecode(const uint8_t *p, size_t len) {
  tdl_reader r = {p, p + len};
  uint32_t flags;
  uint32_t n;
  if (len < 5 || memcmp(p, "\033LJ", 3) != 0) {
    return 0;
  }
  r.next += 4;
  if (!get_uleb(&r, &flags) || (flags & ~0x0fu) != 0) {
    return 0;
  }
  if (!(flags & 0x02u) && /* not stripped: the chunk's name */
      (!get_uleb(&r, &n) || tdl_get_room(&r, n) == NULL)) {
    return 0;
  }
  do {
    if (!get_uleb(&r, &n) || tdl_get_room(&r, n) == NULL) {
      return 0;
    }
  } while (n != 0);
  return r.next == r.end;
}

struct piece {
  const char *s;
  size_t len;
};

static const char *read_piece(lua_State *L, void *ud, size_t *len) {
  struct piece *piece = ud;
  const char *s = piece->s;
  (void)L;
  *len = piece->len;
  piece->s = NULL;
  piece->len = 0;
  return s;
}

/* Pushes a new function. */
static int load(tdl_decoder *d, const uint8_t *p, size_t len) {
  struct piece piece = {(const char *)p, len};
  if (!is_bytecode(p, len)) {
    return tdl_decode_malformed(d, "a function without bytecode");
  }
  switch (lua_loadx(d->L, read_piece, &piece, "=treadle", "b")) {
  case 0:
    return 0;
  case LUA_ERRMEM:
    lua_pushliteral(d->L, "not enough memory");
    return TREADLE_ENOMEM;
  default:
    return tdl_decode_fail(d, "cannot load a function: %s",
                           lua_tostring(d->L, -1));
  }
}

/* Pushes the two caches; makes them when there are none, or when they are
** full. */
static void push_caches(lua_State *L, int store) {
  lua_rawgeti(L, store, TDL_STORE_LOADED);
  lua_rawgeti(L, store, TDL_STORE_LOADED_COUNT);
  if (lua_isnil(L, -2) || lua_tointeger(L, -1) >= CACHE_COUNT) {
    lua_pop(L, 2);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_rawseti(L, store, TDL_STORE_LOADED);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_rawseti(L, store, TDL_STORE_LOADED_SERIALS);
    lua_pushinteger(L, 0);
    lua_rawseti(L, store, TDL_STORE_LOADED_COUNT);
    return;
  }
  lua_pop(L, 1);
  lua_rawgeti(L, store, TDL_STORE_LOADED_SERIALS);
}

static double serial_of(tdl_decoder *d, int store) {
  if (d->serial == 0) {
    lua_rawgeti(d->L, store, TDL_STORE_SERIAL);
    d->serial = lua_tonumber(d->L, -1) + 1;
    lua_pop(d->L, 1);
    lua_pushnumber(d->L, d->serial);
    lua_rawseti(d->L, store, TDL_STORE_SERIAL);
  }
  return d->serial;
}

/* Pushes a function without upvalues: the one of an earlier payload when
** there is one. Never the same one twice in a payload (there they may be
** two), nor one whose globals have been changed. */
static int load_cached(tdl_decoder *d, const uint8_t *p, size_t len) {
  lua_State *L = d->L;
  const int store = d->base + TDL_DECODER_STORE;
  const int loaded = lua_gettop(L) + 1;
  const int serials = loaded + 1;
  const int key = loaded + 2;
  const double serial = serial_of(d, store);
  int status;
  if (len > CACHE_BYTES) {
    return load(d, p, len);
  }
  push_caches(L, store);
  lua_pushlstring(L, (const char *)p, len);
  lua_pushvalue(L, key);
  lua_rawget(L, serials);
  if (lua_tonumber(L, -1) == serial) {
    lua_settop(L, loaded - 1);
    return load(d, p, len);
  }
  lua_settop(L, key);
  lua_pushvalue(L, key);
  lua_rawget(L, loaded);
  if (lua_isfunction(L, -1)) {
    lua_getfenv(L, -1);
    if (!lua_rawequal(L, -1, LUA_GLOBALSINDEX)) {
      lua_pop(L, 2);
      lua_pushnil(L);
    } else {
      lua_pop(L, 1);
    }
  }
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    status = load(d, p, len);
    if (status != 0) {
      return status;
    }
    lua_pushvalue(L, key);
    lua_pushvalue(L, -2);
    lua_rawset(L, loaded);
    lua_rawgeti(L, store, TDL_STORE_LOADED_COUNT);
    lua_pushinteger(L, lua_tointeger(L, -1) + 1);
    lua_rawseti(L, store, TDL_STORE_LOADED_COUNT);
    lua_pop(L, 1);
  }
  lua_pushvalue(L, key);
  lua_pushnumber(L, serial);
  lua_rawset(L, serials);
  lua_replace(L, loaded);
  lua_settop(L, loaded);
  return 0;
}

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
  status = *n == 0 ? load_cached(d, p, len) : load(d, p, len);
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
