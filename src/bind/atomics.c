/* What treadle.atomics asks of C: the operations for the FFI, and waits. */
#include "../share/atomics.h"

#include "../share/buffer.h"
#include "share.h"
#include "waits.h"

/* --- waits ---------------------------------------------------------------- */

static void leave(tdl_bound_wait *wait, uint32_t i) {
  tdl_atomics_leave(&wait->places[i].waiter);
}

static int deliver(tdl_bound_wait *wait, lua_State *L) {
  (void)wait;
  lua_pushliteral(L, "ok");
  return 1;
}

/* H3: it is for the next one who waits there. */
static void pass_on(tdl_bound_wait *wait) {
  tdl_atomics_notify(wait->places[0].waiter.offer, 1);
}

static const tdl_wait_kind wait_kind = {
    .leave = leave, .deliver = deliver, .undo = pass_on};

/* atomics_wait(buffer, index, low, high) -> future, number for wait_end; or
** nothing: the integer is not the expected one, of which the arguments are the
** lower and the upper 32 bits. The caller has seen that it is there. */
static int core_atomics_wait(lua_State *L) {
  tdl_buffer *b = (tdl_buffer *)tdl_bind_check_thing(L, 1, &tdl_buffer_kind);
  size_t i = (size_t)luaL_checknumber(L, 2);
  uint64_t expected =
      (uint64_t)luaL_checknumber(L, 3) | (uint64_t)luaL_checknumber(L, 4) << 32;
  tdl_counted *thing = &b->counted;
  tdl_bound_wait *w;
  luaL_argcheck(L, i < b->count && b->unit <= sizeof(expected), 2,
                "no integer of the buffer");
  w = tdl_bind_new_wait(tdl_bind_of(L), L, &wait_kind, &thing, 1);
  if (tdl_atomics_wait(b->data + i * b->unit, b->unit, expected,
                       &w->places[0].waiter)) {
    tdl_bind_drop_wait(w);
    return 0;
  }
  return 2;
}

/* --- for the FFI ---------------------------------------------------------- */

/* atomics_types() -> a list of { type, declaration of its operations, their
** address }, and the address of notify */
static int core_atomics_types(lua_State *L) {
  lua_newtable(L);
  for (int i = 0; tdl_atomics_types[i].type != NULL; i++) {
    const tdl_atomics_type *type = &tdl_atomics_types[i];
    lua_createtable(L, 3, 0);
    lua_pushstring(L, type->type);
    lua_rawseti(L, -2, 1);
    lua_pushstring(L, type->declaration);
    lua_rawseti(L, -2, 2);
    lua_pushlightuserdata(L, (void *)(uintptr_t)type->functions);
    lua_rawseti(L, -2, 3);
    lua_rawseti(L, -2, i + 1);
  }
  lua_pushlightuserdata(L, (void *)(uintptr_t)tdl_atomics_notify);
  return 2;
}

void tdl_bind_atomics(lua_State *L) {
  static const luaL_Reg functions[] = {{"atomics_wait", core_atomics_wait},
                                       {"atomics_types", core_atomics_types},
                                       {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
