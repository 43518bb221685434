/* treadle.event's functions. */
#include "../share/event.h"

#include "../base/status.h"
#include "share.h"
#include "waits.h"

static tdl_event *check_event(lua_State *L, int index) {
  return (tdl_event *)tdl_bind_check_thing(L, index, &tdl_event_kind);
}

static void leave(tdl_bound_wait *wait, uint32_t i) {
  tdl_event_leave((tdl_event *)wait->places[i].thing, &wait->places[i].waiter);
}

static int deliver(tdl_bound_wait *wait, lua_State *L) {
  (void)wait;
  lua_pushboolean(L, 1);
  return 1;
}

static const tdl_wait_kind wait_kind = {.leave = leave, .deliver = deliver};

/* event_new() -> handle */
static int core_event_new(lua_State *L) {
  tdl_event *e;
  if (tdl_event_new(&e) != 0) {
    return luaL_error(L, "not enough memory");
  }
  tdl_bind_push_new(L, &e->counted);
  return 1;
}

static int core_event_set(lua_State *L) {
  tdl_event_set(check_event(L, 1));
  return 0;
}

static int core_event_reset(lua_State *L) {
  tdl_event_reset(check_event(L, 1));
  return 0;
}

static int core_event_is_set(lua_State *L) {
  lua_pushboolean(L, tdl_event_is_set(check_event(L, 1)));
  return 1;
}

/* event_wait(event) -> future, number for wait_end; or nothing: it is set */
static int core_event_wait(lua_State *L) {
  tdl_event *e = check_event(L, 1);
  tdl_counted *thing = &e->counted;
  tdl_bound_wait *w;
  if (tdl_event_is_set(e)) {
    return 0;
  }
  w = tdl_bind_new_wait(tdl_bind_of(L), L, &wait_kind, &thing, 1);
  if (tdl_event_wait(e, &w->places[0].waiter)) {
    tdl_bind_drop_wait(w);
    return 0;
  }
  return 2;
}

void tdl_bind_event(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"event_new", core_event_new},     {"event_set", core_event_set},
      {"event_reset", core_event_reset}, {"event_is_set", core_event_is_set},
      {"event_wait", core_event_wait},   {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
