/* A worker's running jobs, for lua/treadle/loop.lua and worker.lua. */
#include "bind.h"

#include "../base/status.h"
#include "../codec/codec.h"
#include "../run/vm_calls.h"
#include "share.h"

static tdl_bind *check_worker(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  if (b->vm == NULL) {
    luaL_error(L, "not in a worker");
  }
  return b;
}

static uint32_t check_entry(lua_State *L, tdl_bind *b) {
  uint32_t entry = (uint32_t)luaL_checkinteger(L, 1);
  if (entry >= b->vm->entry_count || b->vm->entries[entry].job == NULL) {
    luaL_error(L, "no such job");
  }
  return entry;
}

/* entry() -> the job whose code runs now, 0 outside of jobs */
static int core_entry(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  lua_pushinteger(L, b->vm == NULL ? 0 : (lua_Integer)b->vm->current);
  return 1;
}

/* scope() -> the job whose code runs now, and its serial number; nothing outside
** of jobs. The scheduler is told if the job is cancelled (V5). */
static int core_scope(lua_State *L) {
  tdl_vm *vm = check_worker(L)->vm;
  tdl_entry *e = tdl_vm_entry(vm, vm->current);
  if (e == NULL) {
    return 0;
  }
  e->known = 1;
  lua_pushinteger(L, (lua_Integer)vm->current);
  lua_pushnumber(L, (lua_Number)e->serial);
  return 2;
}

/* enter(entry [, serial]): what runs from now on belongs to that job; with a
** serial number, if it is still that one (V5) */
static int core_enter(lua_State *L) {
  tdl_vm *vm = check_worker(L)->vm;
  uint32_t entry = (uint32_t)luaL_checkinteger(L, 1);
  if (lua_isnumber(L, 2)) {
    const tdl_entry *e = tdl_vm_entry(vm, entry);
    if (e == NULL || e->serial != (uint64_t)lua_tonumber(L, 2)) {
      entry = 0;
    }
  }
  tdl_vm_set_current(vm, entry);
  return 0;
}

/* turn(): the scheduler wants to run before the worker sleeps */
static int core_turn(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  if (b->vm != NULL) {
    b->vm->turn = 1;
  }
  return 0;
}

/* is_live(timers or nil) -> whether calls of this state are under way, or more
** than so many timers: a call that somebody has settled is not, wherever its job
** may be (B1) */
static int core_is_live(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  uint32_t timers = (uint32_t)luaL_optinteger(L, 1, 0);
  lua_rawgeti(L, LUA_REGISTRYINDEX, b->futures_ref);
  lua_pushnil(L);
  lua_pushboolean(L, b->loop->timers > timers ||
                         (b->loop->jobs.live > 0 && lua_next(L, -2)));
  return 1;
}

/* stopped() -> whether the worker's pool was stopped, so that calls on it are
** refused */
static int core_stopped(lua_State *L) {
  treadle_pool *pool = check_worker(L)->vm->worker->pool;
  lua_pushboolean(L, tdl_pool_phase(pool) == TDL_POOL_STOPPED);
  return 1;
}

/* calls(entry, n): the job waits for n more calls on its own pool */
static int core_calls(lua_State *L) {
  tdl_bind *b = check_worker(L);
  tdl_vm_add_calls(b->vm, (uint32_t)luaL_checkinteger(L, 1),
                   (int)luaL_checkinteger(L, 2));
  return 0;
}

/* cancelled(entry) -> whether nobody waits for the job's result any more. The
** calls that it made are cancelled, too, then (V4). */
static int core_cancelled(lua_State *L) {
  tdl_vm *vm = check_worker(L)->vm;
  const tdl_entry *e = tdl_vm_entry(vm, (uint32_t)luaL_checkinteger(L, 1));
  int cancelled;
  tdl_worker_listen(vm->worker);
  cancelled = e != NULL && tdl_vm_given_up(vm, e) != NULL;
  if (cancelled && !e->childless) {
    tdl_vm_cancel_calls(vm);
  }
  lua_pushboolean(L, cancelled);
  return 1;
}

/* reason(entry) -> why, if that is so; else nil */
static int core_reason(lua_State *L) {
  tdl_vm *vm = check_worker(L)->vm;
  const tdl_entry *e = tdl_vm_entry(vm, (uint32_t)luaL_checkinteger(L, 1));
  lua_pushstring(L, e != NULL ? tdl_vm_given_up(vm, e) : NULL);
  return 1;
}

/* job_finish(entry, results...) */
static int core_job_finish(lua_State *L) {
  tdl_bind *b = check_worker(L);
  uint32_t entry = check_entry(L, b);
  tdl_vm_finish(b->vm, entry, L, lua_gettop(L) - 1);
  return 0;
}

/* job_fail(entry, kind, report...): the report is message, traceback, value;
** it raises what the codec refuses, and then the job is as before. Without a
** report it needs no memory. */
static int core_job_fail(lua_State *L) {
  tdl_bind *b = check_worker(L);
  uint32_t entry = check_entry(L, b);
  int status = tdl_status_of_kind(luaL_checkstring(L, 2));
  const tdl_job *job = b->vm->entries[entry].job;
  tdl_bytes *bytes = &b->vm->entries[entry].job->bytes;
  tdl_payload_clear(bytes);
  if (lua_gettop(L) > 2 &&
      tdl_encode_to(L, 3, lua_gettop(L) - 2, "error", bytes,
                    b->vm->worker->pool->max_payload,
                    tdl_vm_target(b->vm, job)) != 0) {
    return lua_error(L);
  }
  tdl_bind_sent(b, bytes);
  tdl_vm_fail(b->vm, entry, status);
  return 0;
}

void tdl_bind_jobs(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"entry", core_entry},         {"enter", core_enter},
      {"turn", core_turn},           {"is_live", core_is_live},
      {"stopped", core_stopped},     {"calls", core_calls},
      {"cancelled", core_cancelled}, {"reason", core_reason},
      {"scope", core_scope},         {"job_finish", core_job_finish},
      {"job_fail", core_job_fail},   {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
