/* What the workers of a pool run now, as Lua tables. */
#include "bind.h"

#include <stdio.h>

#include "../base/status.h"
#include "../codec/codec.h"
#include "../run/hooks.h"
#include "../run/look.h"
#include "../run/profile.h"
#include "../run/worker.h"
#include "share.h"

/* The fields of what is known without asking, in the table on top. */
static void set_glance(lua_State *L, uint32_t worker, const tdl_glance *g,
                       uint64_t now) {
  tdl_bind_set_number(L, "worker", worker);
  if (g->boots) {
    lua_pushboolean(L, 1);
    lua_setfield(L, -2, "boots");
  } else if (g->runs) {
    tdl_bind_set_number(L, "task", g->task);
  }
  if (g->since_ns != 0) {
    tdl_bind_set_number(
        L, "since", now > g->since_ns ? (double)(now - g->since_ns) / 1e9 : 0);
  }
}

void tdl_bind_push_running(lua_State *L, const treadle_pool *pool) {
  uint32_t slots = pool == NULL ? 0 : tdl_pool_slots(pool);
  uint64_t now = tdl_now_ns();
  int n = 0;
  lua_newtable(L);
  for (uint32_t i = 0; i < slots; i++) {
    tdl_glance glance;
    if (tdl_look_glance(tdl_slot_worker(pool->slots[i]), &glance)) {
      lua_createtable(L, 0, 4);
      set_glance(L, i + 1, &glance, now);
      lua_rawseti(L, -2, ++n);
    }
  }
}

/* pool_running(handle) -> a list of { worker, task, since }, by worker, for those
** that run a job's code now: the task's number, 0 for a shipped function, and
** for how many seconds; of one that loads its module { worker, boots, since }.
** Asks nobody: a few loads for each worker. */
static int core_pool_running(lua_State *L) {
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  tdl_bind_push_running(L, h == NULL ? NULL : h->pool);
  return 1;
}

static void push_frame(lua_State *L, const tdl_frame *f) {
  static const char *const kinds[] = {"Lua", "main", "C", "builtin", "?"};
  lua_createtable(L, 0, 4);
  lua_pushstring(L, kinds[f->kind]);
  lua_setfield(L, -2, "what");
  if (f->kind <= TDL_FRAME_MAIN) {
    lua_pushstring(L, f->source);
    lua_setfield(L, -2, "source");
    tdl_bind_set_number(L, "line", f->line);
    tdl_bind_set_number(L, "defined", f->defined);
  } else {
    tdl_bind_set_number(L, "id", (double)f->id);
  }
}

static void push_view(lua_State *L, const tdl_view *v, uint64_t now) {
  static const char *const places[] = {"interpreter", "compiled", "C",
                                       "collector"};
  lua_createtable(L, 0, 6);
  if (v->glance.runs || v->glance.boots) {
    set_glance(L, v->id, &v->glance, now);
  } else {
    tdl_bind_set_number(L, "worker", v->id);
  }
  if (v->waits) {
    lua_pushboolean(L, 1);
    lua_setfield(L, -2, "waiting");
  }
  if (v->has_stack) {
    lua_pushstring(L, places[v->stack.place]);
    lua_setfield(L, -2, "place");
    lua_createtable(L, (int)v->stack.count, 0);
    for (uint32_t i = 0; i < v->stack.count; i++) {
      push_frame(L, &v->stack.frames[i]);
      lua_rawseti(L, -2, (int)i + 1);
    }
    lua_setfield(L, -2, "frames");
    tdl_bind_set_number(L, "skipped", v->stack.skipped);
  }
}

/* pool_look(handle) -> a list of what its workers execute now, by worker: the
** fields of pool_running; `place` and `frames`, the innermost first, `skipped`
** behind the first INNER of them; the latter three are not there if the worker
** did not answer. Then the jobs that wait, `waiting`; their `since` may be nil. */
static int core_pool_look(lua_State *L) {
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  uint32_t next = h == NULL ? 0 : 1;
  tdl_view *views;
  int n = 0;
  lua_settop(L, 1);
  lua_newtable(L);
  views = lua_newuserdata(L, TDL_LOOK_VIEWS * sizeof(*views));
  while (next != 0) {
    uint32_t count = tdl_look(h->pool, next, views, TDL_LOOK_VIEWS,
                              TDL_LOOK_PATIENCE_NS, &next);
    uint64_t now = tdl_now_ns();
    for (uint32_t i = 0; i < count; i++) {
      push_view(L, &views[i], now);
      lua_rawseti(L, 2, ++n);
    }
  }
  for (uint32_t i = 0; h != NULL && i < tdl_pool_slots(h->pool); i++) {
    tdl_worker *w = tdl_slot_worker(h->pool->slots[i]);
    uint32_t entry = 0, left = TDL_LOOK_WAITING;
    while (left-- > 0 && (entry = tdl_look_waiting(w, entry, views)) != 0) {
      push_view(L, views, tdl_now_ns());
      lua_rawseti(L, 2, ++n);
    }
  }
  lua_settop(L, 2);
  return 1;
}

static tdl_profile *check_profile(lua_State *L) {
  return tdl_profile_of(tdl_bind_check_thing(L, 1, &tdl_profile_kind));
}

/* profile_new(handle, seconds, interval) -> handle; nothing when the pool is over
*/
static int core_profile_new(lua_State *L) {
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  uint64_t ns = tdl_seconds_ns(luaL_checknumber(L, 2));
  uint64_t interval_ns = tdl_seconds_ns(luaL_checknumber(L, 3));
  tdl_profile *profile;
  int status;
  if (h == NULL) {
    return 0;
  }
  status = tdl_profile_new(h->pool, ns, interval_ns, &profile);
  if (status != 0) {
    return luaL_error(L, "%s", tdl_status_text(status));
  }
  tdl_bind_push_new(L, tdl_profile_counted(profile));
  return 1;
}

/* profile_stop(profile): asks it to end */
static int core_profile_stop(lua_State *L) {
  tdl_profile_stop(check_profile(L));
  return 0;
}

/* profile_is_over(profile) */
static int core_profile_is_over(lua_State *L) {
  lua_pushboolean(L, tdl_profile_is_over(check_profile(L)));
  return 1;
}

/* profile_wait(profile): blocks until it is over */
static int core_profile_wait(lua_State *L) {
  tdl_profile_wait(check_profile(L));
  return 0;
}

static void push_stack(void *ctx, const char *text, uint32_t length,
                       uint64_t count) {
  lua_State *L = ctx;
  lua_pushlstring(L, text, length);
  lua_pushnumber(L, (lua_Number)count);
  lua_rawset(L, -3);
}

/* profile_read(profile), which is over -> a table: the text of a stack (see
** profile.h) -> how often it was seen; looks, stacks, unanswered, seconds that
** the looks took */
static int core_profile_read(lua_State *L) {
  tdl_profile *profile = check_profile(L);
  tdl_profile_counts c;
  tdl_profile_read(profile, &c);
  lua_newtable(L);
  tdl_profile_each(profile, push_stack, L);
  lua_pushnumber(L, (lua_Number)c.looks);
  lua_pushnumber(L, (lua_Number)c.stacks);
  lua_pushnumber(L, (lua_Number)c.unanswered);
  lua_pushnumber(L, (lua_Number)c.look_ns / 1e9);
  return 5;
}

/* --- debug hooks ---------------------------------------------------------- */

/* pool_sethook(handle [, fn, mask, count]): for all its states, the later ones
** included */
static int core_pool_sethook(lua_State *L) {
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  tdl_bytes bytes;
  if (h == NULL) {
    return 0;
  }
  tdl_bytes_init(&bytes, NULL, 0);
  if (tdl_encode(L, 2, lua_gettop(L) - 1, "arguments", &bytes,
                 TDL_PAYLOAD_MAX_BYTES) != 0) {
    tdl_payload_clear(&bytes);
    tdl_bytes_reset(&bytes, NULL, 0);
    return lua_error(L);
  }
  if (tdl_hook_set(h->pool, &bytes) != 0) {
    tdl_payload_clear(&bytes);
    tdl_bytes_reset(&bytes, NULL, 0);
    return luaL_error(L, "not enough memory");
  }
  return 0;
}

/* pool_is_hooked(handle) -> whether all its workers have it */
static int core_pool_is_hooked(lua_State *L) {
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  lua_pushboolean(L, h == NULL || tdl_hook_is_taken(h->pool));
  return 1;
}

/* treadle.hook's take(fn, mask, count) */
static int take_hook(lua_State *L) {
  const tdl_hook *hook = lua_touserdata(L, 1);
  int n;
  lua_settop(L, 0);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "treadle.hook");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "take");
  n = tdl_decode(L, hook->bytes.data, hook->bytes.len);
  if (n < 0) {
    return lua_error(L);
  }
  lua_call(L, n, 0);
  return 0;
}

/* Its error has nobody to go to but the terminal. */
void tdl_bind_take_hook(tdl_vm *vm) {
  tdl_hook *hook = tdl_hook_get(vm->worker->pool);
  lua_State *L = vm->L;
  int top = lua_gettop(L);
  if (hook == NULL) {
    return;
  }
  if (lua_cpcall(L, take_hook, hook) != 0) {
    fprintf(stderr, "treadle: pool '%s' has no debug hook in worker %u: %s\n",
            vm->worker->pool->name, tdl_worker_number(vm->worker),
            lua_tostring(L, -1));
    lua_settop(L, top);
  }
  tdl_hook_taken(vm->worker, hook->version);
  tdl_counted_drop(&hook->counted);
}

void tdl_bind_looks(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"pool_running", core_pool_running},
      {"pool_look", core_pool_look},
      {"pool_sethook", core_pool_sethook},
      {"pool_is_hooked", core_pool_is_hooked},
      {"profile_new", core_profile_new},
      {"profile_stop", core_profile_stop},
      {"profile_is_over", core_profile_is_over},
      {"profile_wait", core_profile_wait},
      {"profile_read", core_profile_read},
      {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
  tdl_bind_set_number(L, "STACK_INNER", TDL_STACK_INNER);
}
