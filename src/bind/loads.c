/* What waits and runs in a pool, for those who send calls there. */
#include "bind.h"

#include <math.h>

#include "../run/keys.h"
#include "../run/news.h"
#include "../run/phase.h"
#include "../run/upcall.h"
#include "../run/worker.h"

/* pool_room(handle [, wanted]) -> how many calls the pool takes now, nil when it
** is closed. Wanted: the event "room" follows if that is none. */
static int core_pool_room(lua_State *L) {
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  int64_t room;
  if (h == NULL) {
    return 0;
  }
  room = lua_toboolean(L, 2) ? tdl_pool_want_room(h->pool)
                             : tdl_pool_room(h->pool);
  /* the phase last: who raises it is to find nobody who waits in vain */
  if (tdl_pool_phase(h->pool) != TDL_POOL_OPEN ||
      (h->pool->far != NULL && tdl_upcall_is_closing(h->pool->far))) {
    return 0;
  }
  lua_pushnumber(L, room == INT64_MAX ? HUGE_VAL : (lua_Number)room);
  return 1;
}

/* pool_watch(handle, on): the event "calm" follows when the workers rest */
static int core_pool_watch(lua_State *L) {
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  if (h != NULL && lua_toboolean(L, 2)) {
    tdl_pool_watch(h->pool);
  } else if (h != NULL) {
    tdl_pool_unwatch(h->pool);
  }
  return 0;
}

/* pool_calls(handle) -> how many calls of this state are away, of these, how many
** are settled; how many guests are here */
static int core_pool_calls(lua_State *L) {
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  uint32_t calls = 0, settled = 0;
  if (h != NULL) {
    calls = tdl_pool_calls(h->pool, &settled);
  }
  lua_pushinteger(L, (lua_Integer)calls);
  lua_pushinteger(L, (lua_Integer)settled);
  lua_pushinteger(L, h == NULL ? 0 : (lua_Integer)h->pool->guests);
  return 3;
}

/* pool_loads(handle, list) -> list: one table for each worker, in .queued and
** .running what waits for it, and what is in progress in it; at least one */
static int core_pool_loads(lua_State *L) {
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  uint32_t now = h == NULL ? 0 : tdl_size_now(h->pool);
  luaL_checktype(L, 2, LUA_TTABLE);
  now += now == 0;                                  /* a call starts it */
  for (size_t i = lua_objlen(L, 2); i > now; i--) { /* there were more */
    lua_pushnil(L);
    lua_rawseti(L, 2, (int)i);
  }
  for (uint32_t i = 0; h != NULL && i < now; i++) {
    const tdl_slot *slot = h->pool->slots[i];
    lua_rawgeti(L, 2, (int)i + 1);
    if (lua_isnil(L, -1)) {
      lua_newtable(L);
      lua_pushinteger(L, (lua_Integer)i + 1);
      lua_setfield(L, -2, "id");
      lua_pushvalue(L, -1);
      lua_rawseti(L, 2, (int)i + 1);
      lua_remove(L, -2); /* the nil */
    }
    lua_pushinteger(L, (lua_Integer)tdl_queue_length(&slot->calls));
    lua_setfield(L, -2, "queued");
    /* relaxed: a number to compare with its like */
    lua_pushinteger(
        L, (lua_Integer)atomic_load_explicit(&tdl_slot_worker(slot)->running,
                                             memory_order_relaxed));
    lua_setfield(L, -2, "running");
    lua_pop(L, 1);
  }
  lua_settop(L, 2);
  return 1;
}

/* pool_slot_of(handle, key) -> the slot of a string, number or boolean */
static int core_pool_slot_of(lua_State *L) {
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  uint8_t type = (uint8_t)lua_type(L, 2);
  uint64_t hash;
  if (type == LUA_TSTRING) {
    size_t size;
    const char *text = lua_tolstring(L, 2, &size);
    hash = tdl_key_hash(TDL_KEY_STRING, text, size);
  } else {
    double number =
        type == LUA_TNUMBER ? lua_tonumber(L, 2) : lua_toboolean(L, 2);
    number += 0.0; /* -0 is 0 */
    hash = tdl_key_hash(type, &number, sizeof(number));
  }
  lua_pushinteger(L, h == NULL ? 1 : (lua_Integer)tdl_key_slot(h->pool, hash));
  return 1;
}

void tdl_bind_loads(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"pool_room", core_pool_room},       {"pool_watch", core_pool_watch},
      {"pool_calls", core_pool_calls},     {"pool_loads", core_pool_loads},
      {"pool_slot_of", core_pool_slot_of}, {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
