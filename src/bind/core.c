/* The module treadle.core: one table of functions for the Lua half. */
#include "bind.h"

#include <luajit.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/compiler.h"
#include "../codec/codec.h"
#include "../run/embed.h"
#include "../run/state.h"
#include "../share/hold.h"
#include "codec_bind.h"
#include "direct.h"
#include "embedded.h"
#include "share.h"
#include "waits.h"

TREADLE_API int luaopen_treadle_core(lua_State *L);

/* Its address is the registry key. */
static const char bind_key = 0;

/* --- the state's tdl_bind ------------------------------------------------- */

static void close_bind(tdl_bind *b) {
  if (b->loop == NULL) { /* never finished */
    return;
  }
  b->closing = 1;
  for (uint32_t i = 1; i < b->guest_count; i++) { /* nobody ends them now */
    if (b->guests[i].job != NULL) {
      tdl_payload_clear(&b->guests[i].job->bytes);
      tdl_bind_end_guest(b, i, TREADLE_ECLOSED);
    }
  }
  tdl_free(b->guests);
  b->guests = NULL;
  b->guest_count = b->free_guest = 0;
  tdl_bind_close_pools(b);
  if (b->vm == NULL) {
    tdl_embed_end_calls(b->loop);
  }
  if (!tdl_pool_forked()) { /* else who holds a guard may be no thread of ours */
    tdl_bind_end_waits(b);
    tdl_bind_end_channels(b);
    tdl_holds_free(b->loop->holds); /* O3 */
  }
  b->loop->holds = NULL;
  if (b->vm == NULL) {
    tdl_loop_drop(b->loop);
  }
  b->loop = NULL;
  tdl_free(b->timers);
  b->timers = NULL;
}

static int bind_gc(lua_State *L) {
  close_bind(lua_touserdata(L, 1));
  return 0;
}

void tdl_bind_lose(tdl_vm *vm) {
  if (vm->bind != NULL) {
    close_bind(vm->bind);
    tdl_bind_lose_handles(vm->bind);
    tdl_bind_lose_refs(vm->bind);
  }
}

static int new_table_ref(lua_State *L) {
  lua_newtable(L);
  return luaL_ref(L, LUA_REGISTRYINDEX);
}

/* Test builds, in which what is rare in a state happens all the time. Every
** state that uses treadle passes here: hosts, workers, their children's. */
static void make_odd(lua_State *L) {
#ifdef TDL_TEST_NO_JIT
  luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
#endif
#ifdef TDL_TEST_GC
  /* Above 100: else a compiled loop that collects before it does anything can
  ** leave its trace for the collector for ever, a cycle each time. */
  lua_gc(L, LUA_GCSETPAUSE, 101);
  lua_gc(L, LUA_GCSETSTEPMUL, 4000);
#endif
  (void)L;
}

static int new_weak_ref(lua_State *L) {
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "v");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  return luaL_ref(L, LUA_REGISTRYINDEX);
}

static int new_list_ref(lua_State *L) {
  lua_createtable(L, 2, 0);
  return luaL_ref(L, LUA_REGISTRYINDEX);
}

static tdl_bind *new_bind(lua_State *L, tdl_vm *vm) {
  tdl_bind *b = lua_newuserdata(L, sizeof(*b));
  memset(b, 0, sizeof(*b));
  b->vm = vm;
  b->L = L;
  lua_newtable(L);
  lua_pushcfunction(L, bind_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  b->futures_ref = new_table_ref(L);
  b->ready_ref = new_list_ref(L);
  b->timers_ref = new_table_ref(L);
  b->meta_ref = new_table_ref(L);
  b->hooks_ref = new_table_ref(L);
  b->records_ref = new_table_ref(L);
  b->kinds_ref = new_table_ref(L);
  b->waits_ref = new_table_ref(L);
  b->refs_ref = new_weak_ref(L);
  b->lasting = L;
  lua_pushthread(L);
  luaL_ref(L, LUA_REGISTRYINDEX);
  if (vm != NULL) {
    b->loop = &vm->worker->loop;
  } else if (tdl_loop_new(&b->loop) != 0) {
    luaL_error(L, "not enough memory");
  } else {
    b->loop->scripted = 1;
  }
  lua_pushlightuserdata(L, (void *)&bind_key); /* whole: others may see it */
  lua_insert(L, -2);
  lua_rawset(L, LUA_REGISTRYINDEX);
  make_odd(L);
  return b;
}

static tdl_bind *find_bind(lua_State *L) {
  tdl_bind *b;
  lua_pushlightuserdata(L, (void *)&bind_key);
  lua_rawget(L, LUA_REGISTRYINDEX);
  b = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return b;
}

tdl_bind *tdl_bind_of(lua_State *L) {
  tdl_bind *b = find_bind(L);
  if (b != NULL && b->closing) { /* a finalizer that runs after bind_gc */
    luaL_error(L, "the state is being closed");
  }
  return b != NULL ? b : new_bind(L, NULL);
}

tdl_bind *tdl_bind_open(lua_State *L) {
  if (find_bind(L) == NULL) {
    tdl_codec_open(L);
  }
  return tdl_bind_of(L);
}

void tdl_bind_hook(tdl_bind *b, lua_State *L, const char *name) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, b->hooks_ref);
  lua_getfield(L, -1, name);
  lua_remove(L, -2);
}

static void set_hook(tdl_bind *b, lua_State *L, int *ref, const char *name) {
  luaL_unref(L, LUA_REGISTRYINDEX, *ref);
  tdl_bind_hook(b, L, name);
  *ref = luaL_ref(L, LUA_REGISTRYINDEX);
}

/* setup(hooks): what C calls in Lua. hooks.future is the metatable of
** futures; the others are functions, named where they are called. */
static int core_setup(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  lua_getfield(L, 1, "future");
  lua_rawseti(L, LUA_REGISTRYINDEX, b->meta_ref);
  lua_rawseti(L, LUA_REGISTRYINDEX, b->hooks_ref);
  if (b->vm != NULL) {
    set_hook(b, L, &b->vm->turn_ref, "turn");
    set_hook(b, L, &b->vm->wait_ref, "wait");
    set_hook(b, L, &b->vm->cancel_ref, "cancelled");
  }
  return 0;
}

/* hooks(table): adds to those of setup */
static int core_hooks(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, b->hooks_ref);
  lua_pushnil(L);
  while (lua_next(L, 1) != 0) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, 2);
  }
  return 0;
}

/* --- the module ----------------------------------------------------------- */

static void bind_shared(lua_State *L) {
  tdl_bind_refs(L);
  tdl_bind_waits(L);
  tdl_bind_event(L);
  tdl_bind_buffer(L);
  tdl_bind_atomics(L);
  tdl_bind_counter(L);
  tdl_bind_channel(L);
  tdl_bind_streams(L);
  tdl_bind_shared(L);
  tdl_bind_locks(L);
  tdl_bind_barrier(L);
}

static void bind_watch(lua_State *L) {
  tdl_bind_trace(L);
  tdl_bind_debug(L);
}

/* open(part): adds functions to the module, upvalue 1, for which a state that does
** not use them needs no memory */
static int core_open(lua_State *L) {
  static const struct {
    const char *name;
    void (*bind)(lua_State *L);
  } parts[] = {{"shared", bind_shared}, /* what states share */
               {"looks", tdl_bind_looks},   {"watch", bind_watch},
               {"board", tdl_bind_board},   {"signals", tdl_bind_signals},
               {"parent", tdl_bind_parent}, {"confine", tdl_bind_confine}};
  const char *name = luaL_checkstring(L, 1);
  lua_pushvalue(L, lua_upvalueindex(1));
  for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
    if (strcmp(parts[i].name, name) == 0) {
      parts[i].bind(L);
      return 0;
    }
  }
  return luaL_argerror(L, 1, name);
}

TREADLE_API int luaopen_treadle_core(lua_State *L) {
  tdl_bind *b = tdl_bind_open(L);
  lua_newtable(L);
  lua_pushliteral(L, TREADLE_VERSION);
  lua_setfield(L, -2, "version");
  lua_pushcfunction(L, core_setup);
  lua_setfield(L, -2, "setup");
  lua_pushcfunction(L, core_hooks);
  lua_setfield(L, -2, "hooks");
  if (b->require_ref == 0) { /* the script may put its own there later */
    lua_getglobal(L, "require");
    b->require_ref = luaL_ref(L, LUA_REGISTRYINDEX);
  }
  tdl_bind_set_number(L, "STATE", TDL_F_STATE);
  tdl_bind_set_number(L, "VALUE", TDL_F_VALUE);
  tdl_bind_set_number(L, "COUNT", TDL_F_COUNT);
  tdl_bind_set_number(L, "WAITER", TDL_F_WAITER);
  tdl_bind_set_number(L, "SLOT", TDL_F_SLOT);
  tdl_bind_set_number(L, "OWN", TDL_F_OWN);
  tdl_bind_set_number(L, "NEXT", TDL_F_NEXT);
  tdl_bind_set_number(L, "STREAM", TDL_F_STREAM);
  tdl_bind_set_number(L, "PENDING", TDL_PENDING);
  tdl_bind_set_number(L, "RESOLVED", TDL_RESOLVED);
  tdl_bind_set_number(L, "REJECTED", TDL_REJECTED);
  tdl_bind_set_number(L, "CANCELLED", TDL_CANCELLED);
  tdl_bind_set_number(L, "MAX_PAYLOAD", TDL_PAYLOAD_MAX_BYTES);
  tdl_bind_set_number(L, "PAYLOAD_CEILING", TDL_PAYLOAD_CEILING_BYTES);
  tdl_bind_set_number(L, "LOOKS_SHARE", TDL_SHARED_LOOKS_SHARE);
  tdl_bind_set_number(L, "MAX_WORKERS", TDL_POOL_MAX_WORKERS);
  tdl_bind_set_number(L, "ANY", TDL_AT_ANY);
  tdl_bind_set_number(L, "ANY_HIGH", TDL_AT_ANY_HIGH);
  tdl_bind_set_number(L, "ANY_LOW", TDL_AT_ANY_LOW);
  tdl_bind_set_number(L, "HOME", TDL_AT_HOME);
  /* what a waiting coroutine yields, see tdl_vm_run */
  lua_pushlightuserdata(L, b->vm != NULL ? (void *)b->vm : (void *)b);
  lua_setfield(L, -2, "token");
  if (b->vm != NULL) {
    tdl_bind_set_number(L, "worker", tdl_worker_number(b->vm->worker));
    lua_rawgeti(L, LUA_REGISTRYINDEX, b->vm->fibers_ref);
    lua_setfield(L, -2, "fibers");
  }
  tdl_bind_codec(L);
  tdl_bind_calls(L);
  tdl_bind_loops(L);
  tdl_bind_pools(L);
  tdl_bind_loads(L);
  tdl_bind_jobs(L);
  tdl_bind_stats(L);
  tdl_bind_hook_things();
  lua_pushvalue(L, -1);
  lua_pushcclosure(L, core_open, 1);
  lua_setfield(L, -2, "open");
  tdl_bind_stamps(L);
  if (b->vm == NULL) {
    lua_pushcfunction(L, tdl_state_print);
    lua_setfield(L, -2, "print");
    tdl_bind_guests(L); /* in the place of some of tdl_bind_jobs' */
    tdl_bind_direct(b, L);
  }
  return 1;
}

/* chunk, name -> module */
static int run_embedded(lua_State *L) {
  const struct tdl_embedded *e = lua_touserdata(L, 1);
  lua_settop(L, 2);
  if (luaL_loadbuffer(L, (const char *)e->data, e->size, e->name) != 0) {
    return luaL_error(L,
                      "treadle was built for another LuaJIT than this one "
                      "(module '%s': %s)",
                      e->name, lua_tostring(L, -1));
  }
  if (find_bind(L) != NULL && find_bind(L)->globals_ref != 0) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, find_bind(L)->globals_ref);
    lua_setfenv(L, -2);
  }
  lua_insert(L, 2);
  lua_call(L, 1, 1);
  return 1;
}

/* A kind of shared object may have given its metatable, and lack methods. */
static void forget_kind(lua_State *L, const char *module) {
  if (find_bind(L) != NULL && strncmp(module, "treadle.", 8) == 0) {
    tdl_bind_forget_kind(L, module + 8);
  }
}

/* The loader in package.preload: upvalue 1 is the chunk, 2 run_embedded. A module that could not be loaded, for want of
** memory, can be required again: `require` would remember that it failed. */
static int load_embedded(lua_State *L) {
  lua_settop(L, 1);
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_pushvalue(L, 1);
  if (lua_pcall(L, 2, 1, 0) != 0) {
    lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
    lua_pushvalue(L, 1);
    lua_pushnil(L);
    lua_rawset(L, -3);
    lua_pop(L, 1);
    forget_kind(L, lua_tostring(L, 1));
    return lua_error(L);
  }
  return 1;
}

/* Pushes what loads a module of ours, or nil. */
static void push_loader(lua_State *L, const char *name) {
  const struct tdl_embedded *e = tdl_embedded;
  while (e->name != NULL && strcmp(e->name, name) != 0) {
    e++;
  }
  if (e->name != NULL) {
    lua_pushlightuserdata(L, (void *)(uintptr_t)e);
    lua_pushcfunction(L, run_embedded);
    lua_pushcclosure(L, load_embedded, 2);
  } else if (strcmp(name, "treadle.core") == 0) {
    lua_pushcfunction(L, luaopen_treadle_core);
  } else {
    lua_pushnil(L);
  }
}

/* __index of package.preload: (preload, name) -> what loads it. So a state has
** memory for the loaders of those modules alone that it requires. */
static int index_preload(lua_State *L) {
  lua_settop(L, 2);
  if (lua_type(L, 2) == LUA_TSTRING) {
    push_loader(L, lua_tostring(L, 2));
  } else {
    lua_pushnil(L);
  }
  return 1;
}

/* package.preload is on top, and has a metatable already: all loaders into it, if
** that is not ours. */
static void fill_preload(lua_State *L) {
  if (!luaL_getmetafield(L, -1, "__index")) {
    lua_pushnil(L);
  }
  if (lua_tocfunction(L, -1) != index_preload) {
    for (const struct tdl_embedded *e = tdl_embedded; e->name != NULL; e++) {
      push_loader(L, e->name);
      lua_setfield(L, -3, e->name);
    }
    push_loader(L, "treadle.core");
    lua_setfield(L, -3, "treadle.core");
  }
  lua_pop(L, 1);
}

static void preload(lua_State *L) {
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "preload");
  if (lua_getmetatable(L, -1)) {
    lua_pop(L, 1);
    fill_preload(L);
  } else {
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, index_preload);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);
  }
  lua_pop(L, 2);
}

TREADLE_API int luaopen_treadle(lua_State *L) {
  lua_settop(L, 1);
  preload(L);
  push_loader(L, "treadle");
  lua_pushvalue(L, 1);
  lua_call(L, 1, 1);
  return 1;
}

void tdl_bind_worker(lua_State *L, tdl_vm *vm) {
  vm->bind = new_bind(L, vm);
  preload(L);
}

uint32_t tdl_bind_dispatch(tdl_vm *vm) {
  tdl_bind *b = find_bind(vm->L);
  b->L = vm->L;
  return tdl_loop_dispatch(b->loop);
}
