/* treadle.barrier's functions. */
#include "../share/barrier.h"

#include "share.h"
#include "waits.h"

static tdl_barrier *check_barrier(lua_State *L, int index) {
  return (tdl_barrier *)tdl_bind_check_thing(L, index, &tdl_barrier_kind);
}

/* It is in no other list, and out of this one once it was granted or given
** up. */
static void leave(tdl_bound_wait *wait, uint32_t i) {
  (void)wait;
  (void)i;
}

static int deliver(tdl_bound_wait *wait, lua_State *L) {
  lua_pushboolean(L, 1);
  lua_pushinteger(L, (lua_Integer)(uintptr_t)wait->wait.value);
  return 2;
}

static int give_up(tdl_bound_wait *wait) {
  return tdl_barrier_give_up((tdl_barrier *)wait->places[0].thing,
                             &wait->places[0].waiter);
}

static const tdl_wait_kind wait_kind = {
    .leave = leave, .deliver = deliver, .give_up = give_up};

/* barrier_new(count) -> handle */
static int core_barrier_new(lua_State *L) {
  tdl_barrier *b;
  if (tdl_barrier_new((uint32_t)luaL_checknumber(L, 1), &b) != 0) {
    return luaL_error(L, "not enough memory");
  }
  tdl_bind_push_new(L, &b->counted);
  return 1;
}

/* barrier_wait(barrier) -> future, number for wait_end; or nil, number of the
** last one: all are there */
static int core_barrier_wait(lua_State *L) {
  tdl_barrier *b = check_barrier(L, 1);
  tdl_counted *thing = &b->counted;
  tdl_bound_wait *w =
      tdl_bind_new_wait(tdl_bind_of(L), L, &wait_kind, &thing, 1);
  uint32_t number = tdl_barrier_wait(b, &w->places[0].waiter);
  if (number == 0) {
    return 2;
  }
  tdl_bind_drop_wait(w);
  lua_pushnil(L);
  lua_pushinteger(L, (lua_Integer)number);
  return 2;
}

void tdl_bind_barrier(lua_State *L) {
  static const luaL_Reg functions[] = {{"barrier_new", core_barrier_new},
                                       {"barrier_wait", core_barrier_wait},
                                       {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
