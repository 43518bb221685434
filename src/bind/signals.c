/* What treadle.signal and its like, and the signals of a pool, ask of C. */
#include "../run/stats.h"
#include "../run/watch.h"
#include "share.h"

/* call_steadily(fn, ...) -> true, results; or false, error: as pcall, but what it
** calls cannot yield through it */
static int core_call_steadily(lua_State *L) {
  lua_pushboolean(L, 1);
  lua_insert(L, 1);
  if (lua_pcall(L, lua_gettop(L) - 2, LUA_MULTRET, 0) != 0) {
    lua_pushboolean(L, 0);
    lua_replace(L, 1);
  }
  return lua_gettop(L);
}

/* gauges(handle) -> how many of its workers are up, how many calls are queued, and
** running; 0 when it is over. If it is watched, the event "counts" follows when
** one of them has changed since. */
static int core_gauges(lua_State *L) {
  tdl_stats *stats = tdl_bind_check_stats(L, 1);
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  tdl_stats_counts c;
  int up = 0;
  if (h != NULL) {
    tdl_watch_look(h->pool);
    /* acquire: pairs with tdl_supervisor_counts */
    up = atomic_load_explicit(&h->pool->up, memory_order_acquire);
  }
  tdl_stats_read(stats, &c);
  lua_pushinteger(L, up);
  lua_pushnumber(L, (lua_Number)c.queued);
  lua_pushnumber(L, (lua_Number)c.running);
  return 3;
}

/* watch_gauges(handle, on) */
static int core_watch_gauges(lua_State *L) {
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  if (h != NULL) {
    tdl_watch_set(h->pool, TDL_WATCH_COUNTS, lua_toboolean(L, 2));
  }
  return 0;
}

void tdl_bind_signals(lua_State *L) {
  static const luaL_Reg functions[] = {{"call_steadily", core_call_steadily},
                                       {"gauges", core_gauges},
                                       {"watch_gauges", core_watch_gauges},
                                       {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
