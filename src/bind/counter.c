/* What treadle.counter asks of C. */
#include "../share/counter.h"

#include "share.h"

/* For the FFI: plain numbers, so that compiled code boxes none. */
static double add(void *counter, double n) {
  return (double)tdl_counter_add(counter, (int64_t)n);
}

static double get(void *counter) {
  return (double)tdl_counter_get(counter);
}

static void set(void *counter, double value) {
  tdl_counter_set(counter, (int64_t)value);
}

/* counter_new(value) -> handle */
static int core_counter_new(lua_State *L) {
  tdl_counter *c;
  if (tdl_counter_new((int64_t)luaL_checknumber(L, 1), &c) != 0) {
    return luaL_error(L, "not enough memory");
  }
  tdl_bind_push_new(L, &c->counted);
  return 1;
}

/* counter_functions() -> addresses of add, get, set, which take the thing */
static int core_counter_functions(lua_State *L) {
  lua_pushlightuserdata(L, (void *)(uintptr_t)add);
  lua_pushlightuserdata(L, (void *)(uintptr_t)get);
  lua_pushlightuserdata(L, (void *)(uintptr_t)set);
  return 3;
}

void tdl_bind_counter(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"counter_new", core_counter_new},
      {"counter_functions", core_counter_functions},
      {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
