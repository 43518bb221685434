/* What treadle.h promises to C programs that have a Lua state of their own. */
#include <math.h>

#include "../run/known.h"
#include "bind.h"

treadle_loop *treadle_state_loop(lua_State *L) {
  const tdl_bind *b = tdl_bind_open(L);
  return b->vm == NULL ? b->loop : NULL;
}

/* poll(timeout) of the module, if the state has it. */
static int poll(lua_State *L) {
  lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
  lua_getfield(L, -1, "treadle");
  if (!lua_istable(L, -1)) {
    return 0;
  }
  lua_getfield(L, -1, "poll");
  lua_pushvalue(L, 1);
  lua_call(L, 1, 1);
  return 1;
}

int treadle_state_poll(lua_State *L, double timeout) {
  int events;
  lua_pushcfunction(L, poll);
  lua_pushnumber(L, timeout < 0 ? HUGE_VAL : timeout);
  if (lua_pcall(L, 1, 1, 0) != 0) {
    return TREADLE_ETASK;
  }
  events = (int)lua_tointeger(L, -1);
  lua_pop(L, 1);
  return events;
}

/* --- a pool of the script's ---------------------------------------------------- */

/* The call options of the task whose table is on top of the stack. */
static void read_options(tdl_known *known, lua_State *L) {
  if (lua_istable(L, -1)) {
    size_t length;
    const char *word;
    lua_getfield(L, -1, "timeout");
    if (lua_isnumber(L, -1)) {
      tdl_known_set_timeout(known, lua_tonumber(L, -1));
    }
    lua_getfield(L, -2, "priority");
    word = lua_tolstring(L, -1, &length);
    if (word != NULL) {
      tdl_known_set_priority(known, word, length);
    }
    lua_pop(L, 2);
  }
}

/* From the record's lists of names and of options, which are on top. */
static int read_tasks(tdl_known *known, lua_State *L, uint32_t count) {
  int status = 0;
  for (uint32_t i = 1; i <= count && status == 0; i++) {
    size_t length = 0;
    const char *name;
    lua_rawgeti(L, -2, (int)i);
    name = lua_tolstring(L, -1, &length);
    status = name == NULL ? TREADLE_EINVAL : tdl_known_add(known, name, length);
    if (status == 0) {
      lua_rawgeti(L, -2, (int)i);
      read_options(known, L);
      lua_pop(L, 1);
    }
    lua_pop(L, 1);
  }
  return status;
}

/* The pool's object is at `index`: what the script knows of its tasks. */
static tdl_known *read_known(lua_State *L, int index) {
  int top = lua_gettop(L);
  tdl_known *known = NULL;
  double timeout = -1;
  lua_getfield(L, index, "_timeout");
  if (lua_isnumber(L, -1)) {
    timeout = lua_tonumber(L, -1);
  }
  lua_getfield(L, index, "_record");
  if (lua_istable(L, -1)) {
    lua_getfield(L, -1, "names");
    lua_getfield(L, -2, "options");
    if (lua_istable(L, -1) && lua_istable(L, -2)) {
      uint32_t count = (uint32_t)lua_objlen(L, -2);
      known = tdl_known_new(count, timeout);
      if (known != NULL && read_tasks(known, L, count) != 0) {
        tdl_known_free(known);
        known = NULL;
      }
    }
  }
  lua_settop(L, top);
  return known;
}

treadle_pool *treadle_state_pool(lua_State *L, int index) {
  const tdl_bind *b = tdl_bind_open(L);
  const tdl_handle *h = NULL;
  treadle_pool *pool = NULL;
  int top = lua_gettop(L);
  luaL_checkstack(L, 8, "pool");
  index = index < 0 && index > LUA_REGISTRYINDEX ? top + index + 1 : index;
  if (b->vm == NULL && lua_istable(L, index)) {
    lua_pushliteral(L, "_handle");
    lua_rawget(L, index);
    h = tdl_bind_handle_at(L, -1);
    lua_settop(L, top);
  }
  if (h != NULL && h->number > 0 && h->pool != NULL) {
    pool = h->pool;
    if (pool->known == NULL) {
      pool->known = read_known(L, index);
    }
    if (pool->known == NULL) {
      return NULL;
    }
    tdl_pool_hold(pool);
  }
  return pool;
}

void treadle_pool_release(treadle_pool *pool) {
  tdl_pool_drop(pool);
}
