#include "store.h"

#include <lauxlib.h>
#include <string.h>

#include "../base/alloc.h"
#include "codec.h"
#include "payload.h"
#include "raw.h"

/* Callbacks within callbacks: each is a payload within a payload, and may
** take the C stack of TDL_DEPTH_MAX steps (encode.h), 30 KiB or so; a
** worker's stack is 1 MiB. */
#define CALLS_MAX 16

/* Its address is the store's key in the registry. */
static const char store_key = 0;

void tdl_scratch_forget(tdl_scratch *s) {
  while (s->thing_count > 0) {
    tdl_counted_drop(tdl_payload_address(s->things[--s->thing_count]));
  }
}

static int scratch_gc(lua_State *L) {
  tdl_scratch *s = lua_touserdata(L, 1);
  if (s != NULL) {
    tdl_scratch_forget(s);
    tdl_free(s->things);
    s->things = NULL;
    s->thing_cap = 0;
    tdl_seen_fini(&s->seen);
    tdl_free(s->upvalues);
    s->upvalues = NULL;
    s->upvalue_cap = 0;
  }
  return 0;
}

/* Passes a memory error on, which must not be taken for an answer. */
static int checked(lua_State *L, int status) {
  if (status == LUA_ERRMEM) {
    lua_error(L);
  }
  return status;
}

/* The field of the table at the top; no metamethod of a user runs. */
static void push_raw_field(lua_State *L, const char *name) {
  lua_pushstring(L, name);
  lua_rawget(L, -2);
}

void tdl_store_push(lua_State *L) {
  lua_pushlightuserdata(L, (void *)(uintptr_t)&store_key);
  lua_rawget(L, LUA_REGISTRYINDEX);
  if (lua_istable(L, -1)) {
    return;
  }
  lua_pop(L, 1);
  lua_createtable(L, TDL_STORE_SLOTS, 0);
  lua_pushlightuserdata(L, (void *)(uintptr_t)&store_key);
  lua_pushvalue(L, -2);
  lua_rawset(L, LUA_REGISTRYINDEX);
}

void tdl_codec_open(lua_State *L) {
  luaL_checkstack(L, 6, NULL);
  tdl_raw_open(L);
  tdl_store_push(L);
  /* A script may take the library away from the state before we need it. */
  tdl_store_push_loaded(L);
  push_raw_field(L, "ffi");
  if (lua_istable(L, -1)) {
    lua_rawseti(L, -3, TDL_STORE_FFI);
    lua_pop(L, 2);
  } else {
    lua_pop(L, 3);
  }
}

tdl_scratch *tdl_scratch_take(lua_State *L, int store) {
  tdl_scratch *s;
  lua_rawgeti(L, store, TDL_STORE_SCRATCH);
  s = lua_touserdata(L, -1);
  if (s == NULL) {
    lua_pop(L, 1);
    s = lua_newuserdata(L, sizeof(*s));
    memset(s, 0, sizeof(*s));
    lua_rawgeti(L, store, TDL_STORE_SCRATCH_META);
    if (lua_isnil(L, -1)) {
      lua_pop(L, 1);
      lua_createtable(L, 0, 1);
      lua_pushcfunction(L, scratch_gc);
      lua_setfield(L, -2, "__gc");
      lua_pushvalue(L, -1);
      lua_rawseti(L, store, TDL_STORE_SCRATCH_META);
    }
    lua_setmetatable(L, -2);
  } else {
    lua_pushnil(L);
    lua_rawseti(L, store, TDL_STORE_SCRATCH);
  }
  tdl_seen_clear(&s->seen);
  s->upvalue_count = 0;
  return s;
}

void tdl_scratch_give(lua_State *L, int store, int idx) {
  lua_pushvalue(L, idx);
  lua_rawseti(L, store, TDL_STORE_SCRATCH);
}

int tdl_store_is_confined(lua_State *L) {
  int is_confined;
  tdl_store_push(L);
  lua_rawgeti(L, -1, TDL_STORE_CONFINED);
  is_confined = lua_istable(L, -1);
  lua_pop(L, 2);
  return is_confined;
}

/* Without an FFI library cdata are none of the codec's: a script could reach
** beyond the end of an array. */
void tdl_codec_confine(lua_State *L, int has_ffi) {
  tdl_store_push(L);
  lua_insert(L, -2);
  lua_rawseti(L, -2, TDL_STORE_CONFINED);
  for (int slot = TDL_STORE_FFI; slot <= TDL_STORE_CDATA_SCRUB; slot++) {
    if (!has_ffi && slot != TDL_STORE_JIT_STATUS) {
      lua_pushboolean(L, 0);
      lua_rawseti(L, -2, slot);
    }
  }
  lua_pop(L, 1);
}

void tdl_store_push_loaded(lua_State *L) {
  tdl_store_push(L);
  lua_rawgeti(L, -1, TDL_STORE_CONFINED);
  lua_remove(L, -2);
  if (lua_istable(L, -1)) {
    return;
  }
  lua_pop(L, 1);
  lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
  if (!lua_istable(L, -1)) {
    lua_pop(L, 1);
    lua_newtable(L);
  }
}

int tdl_store_push_ffi(lua_State *L, int store) {
  lua_rawgeti(L, store, TDL_STORE_FFI);
  if (!lua_isnil(L, -1)) {
    return lua_toboolean(L, -1);
  }
  lua_pop(L, 1);
  tdl_store_push_loaded(L);
  push_raw_field(L, "ffi");
  if (!lua_istable(L, -1)) {
    lua_pop(L, 1);
    /* LuaJIT's parser starts the library when it meets such a number, and
    ** enters it into package.loaded. Never luaopen_ffi: a second call
    ** destroys the types of the first. */
    if (checked(L, luaL_loadstring(L, "return 0LL")) == 0) {
      lua_pop(L, 1);
      push_raw_field(L, "ffi");
    }
  }
  lua_remove(L, -2);
  if (!lua_istable(L, -1)) {
    lua_pop(L, 1);
    lua_pushboolean(L, 0);
  }
  lua_pushvalue(L, -1);
  lua_rawseti(L, store, TDL_STORE_FFI);
  return lua_toboolean(L, -1);
}

void tdl_store_load(lua_State *L, int store, const char *source,
                    const char *name, int slot, int n) {
  int top = lua_gettop(L);
  int ok = 0;
  luaL_checkstack(L, n + 6, NULL);
  if (checked(L, luaL_loadbuffer(L, source, strlen(source), name)) == 0 &&
      tdl_store_push_ffi(L, store)) {
    tdl_store_push_loaded(L);
    ok = checked(L, lua_pcall(L, 2, n, 0)) == 0;
  }
  if (!ok) {
    lua_settop(L, top);
  }
  lua_settop(L, top + n);
  for (int i = n - 1; i >= 0; i--) {
    if (lua_isnil(L, -1)) {
      lua_pop(L, 1);
      lua_pushboolean(L, 0);
    }
    lua_rawseti(L, store, slot + i);
  }
}

int tdl_store_call(lua_State *L, int nargs, int nresults) {
  int calls;
  int status;
  luaL_checkstack(L, nresults + 6, NULL);
  tdl_store_push(L);
  lua_rawgeti(L, -1, TDL_STORE_CALLS);
  calls = (int)lua_tointeger(L, -1);
  lua_pop(L, 1);
  if (calls >= CALLS_MAX) {
    lua_pop(L, nargs + 2);
    lua_pushliteral(L, "too many payloads within payloads");
    return LUA_ERRRUN;
  }
  lua_pushinteger(L, calls + 1);
  lua_rawseti(L, -2, TDL_STORE_CALLS);
  lua_insert(L, -(nargs + 2));
  status = lua_pcall(L, nargs, nresults, 0);
  /* The store lies below the results; take it from the registry instead. */
  tdl_store_push(L);
  lua_pushinteger(L, calls);
  lua_rawseti(L, -2, TDL_STORE_CALLS);
  lua_pop(L, 1);
  lua_remove(L, status == 0 ? -(nresults + 1) : -2);
  return status;
}
