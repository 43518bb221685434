/* Userdata for counted things. */
#include "../base/compiler.h"
#include "../codec/things.h"
#include "share.h"

/* --- making and finding them ---------------------------------------------- */

/* Pushes treadle.KIND's metatable. */
static void push_metatable(tdl_bind *b, lua_State *L, const tdl_kind *kind) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, b->kinds_ref);
  lua_getfield(L, -1, kind->name);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    lua_getglobal(L, "require");
    lua_pushfstring(L, "treadle.%s", kind->name);
    lua_call(L, 1, 0);
    lua_getfield(L, -1, kind->name);
  }
  lua_remove(L, -2);
}

static void push(lua_State *L, tdl_counted *thing, int is_new) {
  tdl_bind *b = tdl_bind_of(L);
  tdl_ref *ref;
  luaL_checkstack(L, 8, NULL);
  lua_rawgeti(L, LUA_REGISTRYINDEX, b->refs_ref);
  lua_pushlightuserdata(L, thing);
  lua_rawget(L, -2);
  ref = lua_touserdata(L, -1);
  if (ref != NULL && ref->thing == thing) {
    lua_remove(L, -2);
    return;
  }
  lua_pop(L, 1);
  ref = lua_newuserdata(L, sizeof(*ref));
  ref->thing = NULL;
  ref->kind = thing->kind;
  ref->bind = b;
  ref->at = NULL;
  push_metatable(b, L, thing->kind);
  lua_setmetatable(L, -2); /* finalized from here on */
  lua_pushlightuserdata(L, thing);
  lua_pushvalue(L, -2);
  lua_rawset(L, -4);
  lua_remove(L, -2);
  if (!is_new) {
    tdl_counted_hold(thing);
  }
  ref->thing = thing;
  ref->next = b->refs;
  ref->at = &b->refs;
  if (ref->next != NULL) {
    ref->next->at = &ref->next;
  }
  b->refs = ref;
}

void tdl_bind_push_thing(lua_State *L, tdl_counted *thing) {
  push(L, thing, 0);
}

static int push_new(lua_State *L) {
  push(L, lua_touserdata(L, 1), 1);
  return 1;
}

void tdl_bind_push_new(lua_State *L, tdl_counted *thing) {
  int status;
  lua_pushcfunction(L, push_new);
  lua_pushlightuserdata(L, thing);
  status = lua_pcall(L, 1, 1, 0);
  if (status != 0) {
    tdl_counted_drop(thing);
    lua_error(L);
  }
}

/* The userdata there, NULL when it is another one. */
static tdl_ref *ref_at(lua_State *L, int index) {
  tdl_bind *b = tdl_bind_of(L);
  tdl_ref *ref = lua_touserdata(L, index);
  if (ref == NULL || lua_type(L, index) != LUA_TUSERDATA ||
      !lua_getmetatable(L, index)) {
    return NULL;
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, b->kinds_ref);
  lua_insert(L, -2);
  lua_rawget(L, -2); /* by its metatable, too */
  if (!lua_toboolean(L, -1)) {
    ref = NULL;
  }
  lua_pop(L, 2);
  return ref;
}

tdl_counted *tdl_bind_check_thing(lua_State *L, int index,
                                  const tdl_kind *kind) {
  tdl_ref *ref = ref_at(L, index);
  if (ref == NULL || ref->kind != kind) {
    luaL_typerror(L, index, kind->name);
  } else if (ref->thing == NULL) {
    luaL_error(L, "the %s is closed", kind->name);
  }
  return ref->thing;
}

/* --- for the codec -------------------------------------------------------- */

static tdl_counted *thing_of(lua_State *L, int index, const char **why) {
  tdl_ref *ref = ref_at(L, index);
  if (ref == NULL) {
    return NULL;
  } else if (ref->thing == NULL) {
    *why = "a closed handle";
  }
  return ref->thing;
}

static const tdl_thing_hooks hooks = {thing_of, tdl_bind_push_thing};

/* --- their end ------------------------------------------------------------ */

static void let_go(tdl_ref *ref) {
  tdl_counted *thing = ref->thing;
  if (thing != NULL) {
    ref->thing = NULL;
    *ref->at = ref->next;
    if (ref->next != NULL) {
      ref->next->at = ref->at;
    }
    tdl_counted_drop(thing);
  }
}

/* ref_close(handle): lets go of the thing now; also its finalizer */
static int core_ref_close(lua_State *L) {
  tdl_ref *ref = ref_at(L, 1);
  if (ref == NULL) {
    return luaL_typerror(L, 1, "handle");
  }
  let_go(ref);
  return 0;
}

static int ref_gc(lua_State *L) {
  let_go(lua_touserdata(L, 1));
  return 0;
}

void tdl_bind_lose_refs(tdl_bind *b) {
  while (b->refs != NULL) {
    let_go(b->refs);
  }
}

/* --- metatables ----------------------------------------------------------- */

static int ref_equal(lua_State *L) {
  const tdl_ref *a = ref_at(L, 1), *b = ref_at(L, 2);
  lua_pushboolean(L, a != NULL && b != NULL && a->thing != NULL &&
                         a->thing == b->thing);
  return 1;
}

static int ref_tostring(lua_State *L) {
  const tdl_ref *ref = ref_at(L, 1);
  if (ref == NULL || ref->thing == NULL) {
    lua_pushfstring(L, "treadle.%s (closed)",
                    ref != NULL ? ref->kind->name : "?");
  } else {
    lua_pushfstring(L, "treadle.%s: %p", ref->kind->name, (void *)ref->thing);
  }
  return 1;
}

/* kind(name, metatable): what userdata of that kind get; adds to the metatable
** what all kinds have */
static int core_kind(lua_State *L) {
  static const luaL_Reg common[] = {{"__gc", ref_gc},
                                    {"__eq", ref_equal},
                                    {"__tostring", ref_tostring},
                                    {NULL, NULL}};
  tdl_bind *b = tdl_bind_of(L);
  luaL_checkstring(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  luaL_setfuncs(L, common, 0);
  lua_rawgeti(L, LUA_REGISTRYINDEX, b->kinds_ref);
  lua_pushvalue(L, 2);
  lua_pushboolean(L, 1);
  lua_rawset(L, 3);
  lua_pushvalue(L, 1);
  lua_pushvalue(L, 2);
  lua_rawset(L, 3);
  return 0;
}

void tdl_bind_refs(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"ref_close", core_ref_close}, {"kind", core_kind}, {NULL, NULL}};
  tdl_things_hook(&hooks);
  luaL_setfuncs(L, functions, 0);
}
