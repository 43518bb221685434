/* The loop's functions for lua/treadle/loop.lua: poll, wait, timers. */
#include "bind.h"

#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/compiler.h"
#include "../base/status.h"
#include "../run/peer.h"
#include "../run/turns.h"

/* now() -> seconds of the monotonic clock */
static int core_now(lua_State *L) {
  lua_pushnumber(L, (double)tdl_now_ns() * 1e-9);
  return 1;
}

/* How many processors the cgroup's quota pays for; 0 when there is none. */
static int cgroup_cores(void) {
  char line[128];
  double quota = 0, period = 0;
  int n = 0;
  FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");
  if (f != NULL) {
    if (fgets(line, sizeof(line), f) != NULL &&
        sscanf(line, "%lf %lf", &quota, &period) == 2 && period > 0) {
      n = (int)ceil(quota / period);
    }
    fclose(f);
  }
  return n;
}

/* cores() -> how many workers make sense, at least 1 */
static int core_cores(lua_State *L) {
  int cores = tdl_spin_cores();
  int quota = cgroup_cores();
  if (quota > 0 && quota < cores) {
    cores = quota;
  }
  lua_pushinteger(L, cores < 1 ? 1 : cores);
  return 1;
}

static int dispatch(lua_State *L) {
  tdl_bind *b = lua_touserdata(L, 1);
  b->L = L;
  lua_pushinteger(L, (lua_Integer)tdl_loop_dispatch(b->loop));
  return 1;
}

/* poll() -> events handled; how many futures are ready, the first of them: the
** others by NEXT */
static int core_poll(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  treadle_loop *loop = b->loop;
  lua_State *outer_L = b->L;
  tdl_job *outer_job = loop->arriving; /* L4 */
  tdl_note *outer_note = loop->noting;
  int status;
  lua_pushcfunction(L, dispatch);
  lua_pushlightuserdata(L, b);
  loop->arriving = NULL;
  loop->noting = NULL;
  status = lua_pcall(L, 1, 1, 0);
  if (TDL_UNLIKELY(status != 0)) {
    tdl_loop_lose(loop); /* L3 */
  }
  loop->arriving = outer_job;
  loop->noting = outer_note;
  b->L = outer_L;
  if (TDL_UNLIKELY(status != 0)) {
    return lua_error(L);
  }
  lua_pushinteger(L, (lua_Integer)b->ready);
  b->ready = 0;
  lua_rawgeti(L, LUA_REGISTRYINDEX, b->ready_ref); /* { first, last } */
  lua_rawgeti(L, -1, 1);
  for (int i = 1; i <= 2; i++) {
    lua_pushnil(L);
    lua_rawseti(L, -3, i);
  }
  lua_remove(L, -2);
  return 3;
}

/* wait(seconds): blocks until poll has something to do */
static int core_wait(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  double seconds = luaL_checknumber(L, 1);
  tdl_loop_wait(b->loop,
                seconds == HUGE_VAL ? TDL_NEVER : tdl_seconds_ns(seconds));
  return 0;
}

/* next_timeout() -> seconds until the next timer, or nil */
static int core_next_timeout(lua_State *L) {
  uint64_t ns = tdl_loop_next_ns(tdl_bind_of(L)->loop);
  if (ns == TDL_NEVER) {
    lua_pushnil(L);
  } else {
    lua_pushnumber(L, (double)ns * 1e-9);
  }
  return 1;
}

/* next_due() -> when the next timer is due, a time of now(); or nil */
static int core_next_due(lua_State *L) {
  uint64_t ns = tdl_bind_of(L)->loop->due_ns;
  if (ns == TDL_NEVER) {
    lua_pushnil(L);
  } else {
    lua_pushnumber(L, (double)ns * 1e-9);
  }
  return 1;
}

/* fd() -> descriptor */
static int core_fd(lua_State *L) {
  int fd = tdl_loop_fd(tdl_bind_of(L)->loop);
  if (fd < 0) {
    return luaL_error(L, "cannot make a descriptor");
  }
  lua_pushinteger(L, fd);
  return 1;
}

/* arm() -> true when another loop may sleep on fd() now */
static int core_arm(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  int armed;
  b->L = L; /* timers may fire */
  armed = tdl_loop_arm(b->loop);
  if (armed && b->vm != NULL && !tdl_turns_go_abroad(b->vm->worker)) {
    tdl_turns_are_back(b->vm->worker);
    tdl_loop_disarm(b->loop);
    armed = 0;
  }
  lua_pushboolean(L, armed);
  return 1;
}

/* leave(ready): what holds between two polls of a foreign loop */
static int core_leave(lua_State *L) {
  tdl_loop_leave(tdl_bind_of(L)->loop, lua_toboolean(L, 1));
  return 0;
}

static int core_disarm(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  b->L = L; /* timers may fire */
  if (b->vm != NULL) {
    tdl_turns_are_back(b->vm->worker);
  }
  tdl_loop_disarm(b->loop);
  return 0;
}

#define PEER_NAME "treadle.peer"

static int peer_gc(lua_State *L) {
  tdl_peer_close(lua_touserdata(L, 1));
  return 0;
}

/* peer_open(folder) -> peer, and the path that its loop is to connect to; nil
** where no socket can be made */
static int core_peer_open(lua_State *L) {
  const char *folder = luaL_checkstring(L, 1);
  tdl_peer *peer = lua_newuserdata(L, sizeof(*peer));
  peer->fd = -1;
  if (luaL_newmetatable(L, PEER_NAME)) {
    lua_pushcfunction(L, peer_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushliteral(L, PEER_NAME);
    lua_setfield(L, -2, "__metatable");
  }
  lua_setmetatable(L, -2);
  if (tdl_peer_open(peer, folder) != 0) {
    return 0;
  }
  lua_pushstring(L, peer->path);
  return 2;
}

/* peer_join(peer) -> whether it has connected: from now on a byte arrives there
** whenever fd() becomes readable. The peer is closed. */
static int core_peer_join(lua_State *L) {
  tdl_peer *peer = luaL_checkudata(L, 1, PEER_NAME);
  int socket, joined = 0;
  if (tdl_peer_accept(peer, &socket) == 0) {
    joined = tdl_loop_join(tdl_bind_of(L)->loop, socket) == 0;
    if (!joined) {
      close(socket);
    }
  }
  tdl_peer_close(peer);
  lua_pushboolean(L, joined);
  return 1;
}

/* has_work() -> whether poll would find something */
static int core_has_work(lua_State *L) {
  lua_pushboolean(L, tdl_loop_has_work(tdl_bind_of(L)->loop));
  return 1;
}

/* tell_call(on): the next call calls hooks.called, before it is made */
static int core_tell_call(lua_State *L) {
  tdl_bind_of(L)->tells_call = lua_toboolean(L, 1);
  return 0;
}

/* --- timers --------------------------------------------------------------- */

static void give_timer(tdl_bind *b, uint32_t id) {
  b->timers[id].timer = NULL;
  b->timers[id].next_free = b->free_timer;
  b->free_timer = id;
}

static void fire(void *ctx, uint32_t id) {
  tdl_bind *b = ctx;
  lua_State *L = b->L;
  int top;
  if (b->closing) {
    give_timer(b, id);
    return;
  }
  top = lua_gettop(L);
  luaL_checkstack(L, 8, "timers");
  lua_rawgeti(L, LUA_REGISTRYINDEX, b->timers_ref);
  lua_rawgeti(L, -1, (int)id);
  if (lua_istable(L, top + 2)) {
    tdl_bind_resolve(b, L, top + 2, 0);
  }
  lua_pushnil(L);
  lua_rawseti(L, top + 1, (int)id);
  lua_settop(L, top);
  give_timer(b, id);
}

/* A number for a timer, 0 without memory. */
static uint32_t take_timer(tdl_bind *b) {
  uint32_t id = b->free_timer;
  if (id == 0) {
    uint32_t count = b->timer_count == 0 ? 16 : b->timer_count * 2;
    tdl_timer_slot *timers = tdl_realloc(b->timers, count * sizeof(*timers));
    if (timers == NULL) {
      return 0;
    }
    b->timers = timers;
    for (uint32_t k = count;
         k-- > (b->timer_count == 0 ? 1 : b->timer_count);) {
      give_timer(b, k);
    }
    b->timer_count = count;
    id = b->free_timer;
  }
  b->free_timer = b->timers[id].next_free;
  return id;
}

/* timer(seconds) -> future that resolves to nothing then */
static int core_timer(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  double seconds = luaL_checknumber(L, 1);
  uint32_t id = take_timer(b); /* if the next line raises it stays unused */
  int status = TREADLE_ENOMEM;
  if (id != 0) {
    tdl_bind_future(b, L, -(int)id, 0);
    status = tdl_loop_timer(b->loop, tdl_seconds_ns(seconds), fire, b, id,
                            &b->timers[id].timer);
  }
  if (status != 0) {
    if (id != 0) {
      give_timer(b, id);
    }
    return luaL_error(L, "cannot start a timer: %s", tdl_status_text(status));
  }
  return 1;
}

/* timer_stop(future) -> whether it was still to come */
static int core_timer_stop(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  int id, won = 0;
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_rawgeti(L, 1, TDL_F_SLOT);
  id = -(int)lua_tointeger(L, -1);
  if (id > 0) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, b->timers_ref);
    lua_rawgeti(L, -1, id);
    if (lua_rawequal(L, -1, 1)) {
      tdl_timer_stop(b->timers[id].timer);
      give_timer(b, (uint32_t)id);
      lua_pushnil(L);
      lua_rawseti(L, -3, id);
      won = 1;
    }
  }
  lua_pushboolean(L, won);
  return 1;
}

void tdl_bind_loops(lua_State *L) {
  static const luaL_Reg functions[] = {{"now", core_now},
                                       {"cores", core_cores},
                                       {"poll", core_poll},
                                       {"wait", core_wait},
                                       {"next_timeout", core_next_timeout},
                                       {"next_due", core_next_due},
                                       {"fd", core_fd},
                                       {"arm", core_arm},
                                       {"leave", core_leave},
                                       {"disarm", core_disarm},
                                       {"peer_open", core_peer_open},
                                       {"peer_join", core_peer_join},
                                       {"has_work", core_has_work},
                                       {"tell_call", core_tell_call},
                                       {"timer", core_timer},
                                       {"timer_stop", core_timer_stop},
                                       {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
