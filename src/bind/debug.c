/* Lines of a pool on standard error, for the Lua half. */
#include "bind.h"

#include "../run/debug.h"
#include "../run/watch.h"

/* Those of the pool of the handle there, or nil: of the worker's own. */
static treadle_pool *pool_at(lua_State *L, int index) {
  tdl_bind *b = tdl_bind_of(L);
  tdl_handle *h;
  if (lua_isnil(L, index)) {
    return b->vm == NULL ? NULL : b->vm->worker->pool;
  }
  h = tdl_bind_check_handle(L, index);
  return h == NULL ? NULL : h->pool;
}

/* debug_say(handle or nil, kind, text) */
static int core_debug_say(lua_State *L) {
  treadle_pool *pool = pool_at(L, 1);
  tdl_bind *b = tdl_bind_of(L);
  if (pool != NULL) {
    uint32_t worker = b->vm != NULL && b->vm->worker->pool == pool
                          ? tdl_worker_number(b->vm->worker)
                          : 0;
    tdl_debug_say(pool, worker, (enum tdl_debug)luaL_checkinteger(L, 2), "%s",
                  luaL_checkstring(L, 3));
  }
  return 0;
}

/* debug_wants(handle, kind) */
static int core_debug_wants(lua_State *L) {
  treadle_pool *pool = pool_at(L, 1);
  lua_pushboolean(
      L, pool != NULL &&
             tdl_debug_wants(pool, (enum tdl_debug)luaL_checkinteger(L, 2)));
  return 1;
}

/* debug_names(handle, names): of tasks, by number from 0 at index 1 */
static int core_debug_names(lua_State *L) {
  treadle_pool *pool = pool_at(L, 1);
  const char **names;
  uint32_t count;
  luaL_checktype(L, 2, LUA_TTABLE);
  count = (uint32_t)lua_objlen(L, 2);
  names = lua_newuserdata(L, (count + 1) * sizeof(*names));
  for (uint32_t i = 0; i < count; i++) {
    lua_rawgeti(L, 2, (int)i + 1);
    names[i] = luaL_checkstring(L, -1); /* the table keeps it */
    lua_pop(L, 1);
  }
  if (pool != NULL) {
    tdl_debug_set_names(pool, names, count);
  }
  return 0;
}

void tdl_bind_debug(lua_State *L) {
  static const luaL_Reg functions[] = {{"debug_say", core_debug_say},
                                       {"debug_wants", core_debug_wants},
                                       {"debug_names", core_debug_names},
                                       {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
  lua_newtable(L);
  tdl_bind_set_number(L, "pool", TDL_DEBUG_POOL);
  tdl_bind_set_number(L, "worker", TDL_DEBUG_WORKER);
  tdl_bind_set_number(L, "load", TDL_DEBUG_LOAD);
  tdl_bind_set_number(L, "job", TDL_DEBUG_JOB);
  tdl_bind_set_number(L, "signal", TDL_DEBUG_SIGNAL);
  tdl_bind_set_number(L, "payload", TDL_DEBUG_PAYLOAD);
  lua_setfield(L, -2, "DEBUG");
}
