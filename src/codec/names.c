#include "names.h"

#include <lauxlib.h>
#include <string.h>

/* Names that every LuaJIT state has come first, so that a function goes by
** its own name and not by that of a script's alias. */
static const char *const standard[] = {
    "string", "table",   "math", "io",  "os",  "coroutine",
    "debug",  "package", "bit",  "jit", "ffi", NULL};
static const char *const base[] = {
    "assert",     "collectgarbage", "dofile",   "error",   "gcinfo",
    "getfenv",    "getmetatable",   "ipairs",   "load",    "loadfile",
    "loadstring", "module",         "newproxy", "next",    "pairs",
    "pcall",      "print",          "rawequal", "rawget",  "rawlen",
    "rawset",     "require",        "select",   "setfenv", "setmetatable",
    "tonumber",   "tostring",       "type",     "unpack",  "xpcall",
    NULL};

static int is_in(const char *const *list, const char *s) {
  for (; *list != NULL; list++) {
    if (strcmp(*list, s) == 0) {
      return 1;
    }
  }
  return 0;
}

/* The lower the better. `name` may be NULL. */
static int rank_of(const char *module, const char *name) {
  if (strcmp(module, "_G") == 0) {
    return name != NULL && is_in(base, name) ? 0 : 2;
  }
  return is_in(standard, module) ? 0 : 1;
}

/* Whether a is the better name; by rank, then by length and letters, so that
** it does not depend on the order in a table. */
static int is_better(const char *module_a, const char *name_a,
                     const char *module_b, const char *name_b) {
  int rank = rank_of(module_a, name_a) - rank_of(module_b, name_b);
  if (rank == 0) {
    rank = (int)strlen(module_a) - (int)strlen(module_b);
  }
  if (rank == 0) {
    rank = strcmp(module_a, module_b);
  }
  if (rank == 0 && name_a != NULL && name_b != NULL) {
    rank = strcmp(name_a, name_b);
  }
  return rank < 0;
}

/* Notes the C function at the top under the name at `name` (0: none) of the
** module at `module`, unless it has a better one. */
static void note(lua_State *L, int modules, int names, int module, int name) {
  const int f = lua_gettop(L);
  const char *module_now;
  const char *name_now;
  lua_pushvalue(L, f);
  lua_rawget(L, modules);
  lua_pushvalue(L, f);
  lua_rawget(L, names);
  module_now = lua_tostring(L, -2);
  name_now = lua_isstring(L, -1) ? lua_tostring(L, -1) : NULL;
  if (module_now == NULL || is_better(lua_tostring(L, module),
                                      name != 0 ? lua_tostring(L, name) : NULL,
                                      module_now, name_now)) {
    lua_pushvalue(L, f);
    lua_pushvalue(L, module);
    lua_rawset(L, modules);
    lua_pushvalue(L, f);
    if (name != 0) {
      lua_pushvalue(L, name);
    } else {
      lua_pushboolean(L, 0);
    }
    lua_rawset(L, names);
  }
  lua_settop(L, f);
}

static int is_name(lua_State *L, int idx) {
  return lua_type(L, idx) == LUA_TSTRING;
}

/* Builds the map anew: C functions of the modules, one level deep; of treadle
** all functions. */
static void build(lua_State *L, int store) {
  const int loaded = lua_gettop(L) + 1;
  const int modules = loaded + 1;
  const int names = loaded + 2;
  const int module = loaded + 3;
  const int name = loaded + 5;
  tdl_store_push_loaded(L);
  lua_newtable(L);
  lua_newtable(L);
  lua_pushnil(L);
  while (lua_next(L, loaded)) {
    if (is_name(L, module) && lua_iscfunction(L, module + 1)) {
      note(L, modules, names, module, 0);
    } else if (is_name(L, module) && lua_istable(L, module + 1)) {
      int is_ours = strcmp(lua_tostring(L, module), "treadle") == 0;
      lua_pushnil(L);
      while (lua_next(L, module + 1)) {
        if (is_name(L, name) && (lua_iscfunction(L, name + 1) ||
                                 (is_ours && lua_isfunction(L, name + 1)))) {
          note(L, modules, names, module, name);
        }
        lua_settop(L, name);
      }
    }
    lua_settop(L, module);
  }
  lua_rawseti(L, store, TDL_STORE_C_NAMES);
  lua_rawseti(L, store, TDL_STORE_C_MODULES);
  lua_pop(L, 1);
}

/* Pushes package.loaded[module][name] for the two values at `at`. */
static void push_named(lua_State *L, int at) {
  tdl_store_push_loaded(L);
  lua_pushvalue(L, at);
  lua_rawget(L, -2);
  lua_remove(L, -2);
  if (is_name(L, at + 1) && lua_istable(L, -1)) {
    lua_pushvalue(L, at + 1);
    lua_rawget(L, -2);
    lua_remove(L, -2);
  }
}

static int look_up(lua_State *L, int store, int idx) {
  const int at = lua_gettop(L) + 1;
  lua_rawgeti(L, store, TDL_STORE_C_MODULES);
  lua_rawgeti(L, store, TDL_STORE_C_NAMES);
  if (!lua_istable(L, at)) {
    lua_settop(L, at - 1);
    return 0;
  }
  lua_pushvalue(L, idx);
  lua_rawget(L, at);
  lua_replace(L, at);
  lua_pushvalue(L, idx);
  lua_rawget(L, at + 1);
  lua_replace(L, at + 1);
  if (!lua_isnil(L, at)) {
    push_named(L, at);
    if (lua_rawequal(L, -1, idx)) {
      lua_settop(L, at + 1);
      return 1;
    }
  }
  lua_settop(L, at - 1);
  return 0;
}

int tdl_names_of_function(lua_State *L, int store, int idx) {
  luaL_checkstack(L, LUA_MINSTACK, NULL);
  if (look_up(L, store, idx)) {
    return 1;
  }
  build(L, store);
  return look_up(L, store, idx);
}

int tdl_names_of_module(lua_State *L, int idx) {
  const int loaded = lua_gettop(L) + 1;
  const int best = loaded + 1;
  luaL_checkstack(L, LUA_MINSTACK, NULL);
  tdl_store_push_loaded(L);
  lua_pushnil(L);
  lua_pushnil(L);
  while (lua_next(L, loaded)) {
    if (is_name(L, -2) && lua_rawequal(L, -1, idx) &&
        (lua_isnil(L, best) ||
         is_better(lua_tostring(L, -2), NULL, lua_tostring(L, best), NULL))) {
      lua_pushvalue(L, -2);
      lua_replace(L, best);
    }
    lua_pop(L, 1);
  }
  lua_remove(L, loaded);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    return 0;
  }
  return 1;
}

/* ---- decoding ---- */

/* Reads a module name and pushes name and module, required if need be. */
static int get_module(tdl_decoder *d) {
  lua_State *L = d->L;
  const int at = lua_gettop(L) + 1;
  const char *s;
  size_t len;
  int status = tdl_decode_text(d, &s, &len);
  if (status != 0) {
    return status;
  }
  if (!lua_checkstack(L, LUA_MINSTACK)) {
    return tdl_decode_malformed(d, "nested too deeply");
  }
  lua_pushlstring(L, s, len);
  tdl_store_push_loaded(L);
  lua_pushvalue(L, at);
  lua_rawget(L, at + 1);
  if (!lua_isnil(L, -1)) {
    lua_remove(L, at + 1);
    return 0;
  }
  lua_settop(L, at + 1);
  lua_pushliteral(L, "_G");
  lua_rawget(L, at + 1);
  if (lua_istable(L, -1)) {
    lua_pushliteral(L, "require");
    lua_rawget(L, -2);
  }
  lua_pushvalue(L, at);
  switch (tdl_store_call(L, 1, 1)) {
  case 0:
    lua_replace(L, at + 1);
    lua_settop(L, at + 1);
    return 0;
  case LUA_ERRMEM:
    lua_pushliteral(L, "not enough memory");
    return TREADLE_ENOMEM;
  default:
    return tdl_decode_fail(
        d, "module '%s' cannot be loaded here: %s", lua_tostring(L, at),
        lua_isstring(L, -1) ? lua_tostring(L, -1) : "an object was raised");
  }
}

int tdl_decode_module(tdl_decoder *d) {
  int status;
  d->r.next++; /* the tag */
  status = get_module(d);
  if (status == 0) {
    lua_remove(d->L, -2);
  }
  return status;
}

static int index_module(lua_State *L) {
  lua_gettable(L, 1);
  return 1;
}

int tdl_decode_cfunction(tdl_decoder *d) {
  lua_State *L = d->L;
  const int at = lua_gettop(L) + 1;
  const char *s;
  size_t len;
  int status = get_module(d);
  if (status != 0) {
    return status;
  }
  if (d->r.next < d->r.end && *d->r.next == TDL_TAG_NIL) {
    d->r.next++;
  } else {
    status = tdl_decode_text(d, &s, &len);
    if (status != 0) {
      return status;
    }
    lua_pushlstring(L, s, len);
    if (!lua_istable(L, at + 1)) {
      return tdl_decode_fail(d, "C function '%s.%s' is not known here",
                             lua_tostring(L, at), lua_tostring(L, -1));
    }
    lua_pushvalue(L, -1);
    lua_rawget(L, at + 1);
    if (lua_isnil(L, -1) && lua_getmetatable(L, at + 1)) {
      lua_pop(L, 2); /* a module that loads a part when it is asked */
      lua_pushcfunction(L, index_module);
      lua_pushvalue(L, at + 1);
      lua_pushvalue(L, at + 2);
      if (tdl_store_call(L, 2, 1) == LUA_ERRMEM) {
        lua_pushliteral(L, "not enough memory");
        return TREADLE_ENOMEM;
      }
    }
  }
  if (!lua_isfunction(L, -1)) {
    const char *name = lua_gettop(L) > at + 1 ? lua_tostring(L, at + 2) : "";
    return tdl_decode_fail(d, "C function '%s%s%s' is not known here",
                           lua_tostring(L, at), *name != '\0' ? "." : "", name);
  }
  lua_replace(L, at);
  lua_settop(L, at);
  return 0;
}
