/* Recordings of pools. */
#include "bind.h"

#include <errno.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "../run/trace.h"
#include "../run/watch.h"

#define TRACE_NAME "treadle.trace.handle"

typedef struct trace_box {
  tdl_trace *trace; /* a reference; NULL once it is closed */
} trace_box;

static trace_box *check_trace(lua_State *L, int index) {
  return luaL_checkudata(L, index, TRACE_NAME);
}

static void stop(trace_box *box, tdl_trace_result *result) {
  tdl_trace_stop(box->trace, result);
  tdl_trace_drop(box->trace);
  box->trace = NULL;
}

/* trace_open(handle, path, title, names) -> trace; nil and a message: the file.
** Names are of tasks, by number from 0 at index 1, quoted for JSON, as is the
** title. */
static int core_trace_open(lua_State *L) {
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  const char *path = luaL_checkstring(L, 2);
  const char *title = luaL_checkstring(L, 3);
  const char **names;
  uint32_t count;
  trace_box *box;
  int status;
  luaL_checktype(L, 4, LUA_TTABLE);
  count = (uint32_t)lua_objlen(L, 4);
  luaL_checkstack(L, (int)count + 4, "too many tasks");
  names = lua_newuserdata(L, (count + 1) * sizeof(*names));
  for (uint32_t i = 0; i < count; i++) {
    lua_rawgeti(L, 4, (int)i + 1);
    names[i] = luaL_checkstring(L, -1); /* the table keeps it */
    lua_pop(L, 1);
  }
  box = lua_newuserdata(L, sizeof(*box));
  box->trace = NULL;
  luaL_setmetatable(L, TRACE_NAME);
  if (h == NULL) {
    return 0;
  }
  status = tdl_watch_record(h->pool, path, title, names, count, &box->trace);
  if (status == 0) {
    tdl_trace_hold(box->trace);
    return 1;
  }
  lua_pushnil(L);
  lua_pushstring(L, status == TREADLE_ESYSTEM ? strerror(errno)
                                              : tdl_status_text(status));
  return 2;
}

/* trace_close(trace, handle or nil) -> how many events are in the file, how many
** were lost, and what was wrong with the file; once */
static int core_trace_close(lua_State *L) {
  trace_box *box = check_trace(L, 1);
  tdl_handle *h = lua_isnil(L, 2) ? NULL : tdl_bind_check_handle(L, 2);
  tdl_trace_result result = {0};
  if (h != NULL) {
    tdl_watch_set(h->pool, TDL_WATCH_TRACE, 0);
  }
  if (box->trace != NULL) {
    stop(box, &result);
  }
  lua_pushnumber(L, (lua_Number)result.events);
  lua_pushnumber(L, (lua_Number)result.lost);
  lua_pushstring(L, result.error != 0 ? strerror(result.error) : NULL);
  return 3;
}

/* Its pool may be gone, or go with the state. */
static int trace_gc(lua_State *L) {
  trace_box *box = check_trace(L, 1);
  tdl_trace_result result;
  if (box->trace != NULL) {
    stop(box, &result);
  }
  return 0;
}

void tdl_bind_trace(lua_State *L) {
  static const luaL_Reg functions[] = {{"trace_open", core_trace_open},
                                       {"trace_close", core_trace_close},
                                       {NULL, NULL}};
  if (luaL_newmetatable(L, TRACE_NAME)) {
    lua_pushcfunction(L, trace_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushliteral(L, TRACE_NAME);
    lua_setfield(L, -2, "__metatable");
  }
  lua_pop(L, 1);
  luaL_setfuncs(L, functions, 0);
}
