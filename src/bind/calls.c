/* Making calls and settling their futures: the hot path's two ends. */
#include "bind.h"

#include "../base/compiler.h"
#include "../base/stamp.h"
#include "../base/status.h"
#include "../codec/codec.h"
#include "../run/guests.h"
#include "../run/upcall.h"
#include "../run/vm_calls.h"
#include "share.h"
#include "streams.h"

/* --- futures -------------------------------------------------------------- */

void tdl_bind_push_future(tdl_bind *b, lua_State *L) {
  lua_createtable(L, TDL_F_LAST, 0);
  lua_rawgeti(L, LUA_REGISTRYINDEX, b->meta_ref);
  lua_setmetatable(L, -2);
  lua_pushinteger(L, TDL_PENDING);
  lua_rawseti(L, -2, TDL_F_STATE);
}

void tdl_bind_future(tdl_bind *b, lua_State *L, int slot, int own) {
  tdl_bind_push_future(b, L);
  lua_pushinteger(L, slot);
  lua_rawseti(L, -2, TDL_F_SLOT);
  if (own) {
    lua_pushboolean(L, 1);
    lua_rawseti(L, -2, TDL_F_OWN);
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, slot > 0 ? b->futures_ref : b->timers_ref);
  lua_pushvalue(L, -2);
  lua_rawseti(L, -2, slot > 0 ? slot : -slot);
  lua_pop(L, 1);
}

/* 1 when the waiter on top of the stack is a collector (see loop.lua) that
** waits for more than this one. */
static int count_down(lua_State *L) {
  int more = 0;
  if (lua_istable(L, -1)) {
    lua_rawgeti(L, -1, 1);
    if (lua_isnumber(L, -1)) {
      lua_Integer left = lua_tointeger(L, -1) - 1;
      lua_pushinteger(L, left);
      lua_rawseti(L, -3, 1);
      more = left > 0;
    }
    lua_pop(L, 1);
  }
  return more;
}

/* If anybody waits for the resolved future at `index`, it goes to the ready
** list. */
static void tell(tdl_bind *b, lua_State *L, int index) {
  lua_rawgeti(L, index, TDL_F_NEXT);
  lua_rawgeti(L, index, TDL_F_WAITER);
  if (!lua_isnil(L, -1) && !lua_toboolean(L, -2) && !count_down(L)) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, b->ready_ref); /* { first, last } */
    lua_rawgeti(L, -1, 2);
    lua_pushvalue(L, index);
    if (b->ready++ == 0) {
      lua_rawseti(L, -3, 1);
    } else {
      lua_rawseti(L, -2, TDL_F_NEXT); /* B4 */
    }
    lua_pop(L, 1);
    lua_pushboolean(L, 1);
    lua_rawseti(L, index, TDL_F_NEXT);
    lua_pushvalue(L, index);
    lua_rawseti(L, -2, 2);
    lua_pop(L, 1);
    if (b->vm != NULL) {
      b->vm->turn = 1;
    }
  }
  lua_pop(L, 2);
}

void tdl_bind_resolve(tdl_bind *b, lua_State *L, int index, int n) {
  if (TDL_UNLIKELY(n != 1)) {
    if (n > 1) {
      lua_createtable(L, n, 0);
      lua_insert(L, -n - 1);
      for (int i = n; i > 0; i--) {
        lua_rawseti(L, -i - 1, i);
      }
    } else {
      lua_pushnil(L);
    }
  }
  lua_rawgeti(L, index, TDL_F_STATE);
  if (TDL_UNLIKELY(lua_tointeger(L, -1) != TDL_PENDING)) {
    lua_pop(L, 2); /* a finalizer has cancelled it meanwhile */
    return;
  }
  lua_pop(L, 1); /* from here on nothing needs memory: no finalizer runs */
  if (TDL_UNLIKELY(n != 1)) {
    lua_pushinteger(L, n);
    lua_rawseti(L, index, TDL_F_COUNT);
  }
  lua_rawseti(L, index, TDL_F_VALUE);
  lua_pushinteger(L, TDL_RESOLVED);
  lua_rawseti(L, index, TDL_F_STATE);
  tell(b, L, index);
}

/* The future is settled: the table of futures, at index top + 1, forgets it
** (B1). Not earlier: if something raises, the job is reported once more (L3)
** and must find it. */
static void release_slot(lua_State *L, int top, int slot) {
  lua_pushnil(L);
  lua_rawseti(L, top + 1, slot);
}

/* What its home learns of a job that has ended for everybody else (T4). */
static void correct(tdl_bind *b, const tdl_job *job, tdl_correction how) {
  if (b->vm != NULL && b->vm->worker->pool == job->pool) {
    tdl_stats_correct(b->loop->tally, how);
  }
  for (tdl_handle *h = b->pools; h != NULL; h = h->next) {
    if (h->pool == job->pool) { /* else it is over */
      tdl_stats_correct(&h->pool->stats->home, how);
      break;
    }
  }
}

/* Its future was cancelled when that was too late for the job. */
static void count_late(tdl_bind *b, const tdl_job *job, int status) {
  if (status == 0) {
    correct(b, job, TDL_DONE_TO_CANCELLED);
  } else if (status != TREADLE_ECLOSED && status != TREADLE_ECANCELLED) {
    correct(b, job, TDL_FAILED_TO_CANCELLED);
  }
}

/* Its future was rejected; it may have had results. */
static void count_rejected(tdl_bind *b, const tdl_job *job) {
  if (!tdl_job_is_settled(job) && job->status == 0) {
    correct(b, job, TDL_DONE_TO_FAILED);
  }
}

/* Pushes the record of the pool that the job was sent to, or nil. */
static void push_record(tdl_bind *b, lua_State *L, int future,
                        const tdl_job *job) {
  lua_rawgeti(L, future, TDL_F_VALUE); /* B5: another may have its address */
  for (tdl_handle *h = lua_isnil(L, -1) ? b->pools : NULL; h != NULL;
       h = h->next) {
    if (h->pool == job->pool) {
      lua_pop(L, 1);
      tdl_bind_record(h, L);
      break;
    }
  }
}

/* Who sent the results, may be one whose code is not to run here. */
static unsigned decode_flags(const tdl_job *job) {
  return TDL_UNLIKELY(job->doubted) ? TDL_DECODE_NO_CODE : 0;
}

/* hooks.rejected(future, kind, worker, pool record, task, report...). The
** report is what core.job_fail encoded, or one message, or nothing. If it is
** the message at `message`, the bytes are no report. */
static void reject(tdl_bind *b, lua_State *L, int index, tdl_job *job,
                   int status, const tdl_bytes *bytes, int message) {
  int n = 0;
  tdl_bind_hook(b, L, "rejected");
  lua_pushvalue(L, index);
  lua_pushstring(L, tdl_status_kind(status));
  /* a job that is still away may be written by its worker now */
  lua_pushinteger(L, bytes == NULL || job->worker == TDL_JOB_HOSTED
                         ? 0
                         : (lua_Integer)job->worker);
  push_record(b, L, index, job);
  lua_pushinteger(L, (lua_Integer)tdl_job_task(job));
  if (message != 0) {
    lua_pushvalue(L, message);
    n = 1;
  } else if (bytes != NULL && bytes->len > 0) {
    n = tdl_decode_flags(L, bytes->data, bytes->len, decode_flags(job));
    n = n < 0 ? 1 : n; /* the decoder's message is the report then */
  } else if (status == TREADLE_ECANCELLED && job->reason != NULL) {
    lua_pushstring(L, job->reason);
    n = 1;
  } else if (status == TREADLE_ETIMEOUT && job->inherited) {
    lua_pushliteral(L, "the time for the call that made it is over");
    n = 1;
  }
  lua_call(L, 5 + n, 0);
}

void tdl_bind_done(tdl_job *job, int status, const tdl_bytes *bytes,
                   void *ctx) {
  tdl_bind *b = ctx;
  lua_State *L = b->L;
  int top, n, message = 0;
  if (TDL_UNLIKELY(b->closing)) {
    return;
  }
  top = lua_gettop(L);
  luaL_checkstack(L, 12, "results");
  lua_rawgeti(L, LUA_REGISTRYINDEX, b->futures_ref);
  lua_rawgeti(L, top + 1, (int)job->slot);
  if (lua_isnil(L, top + 2)) { /* settled from this side (B1) */
    count_late(b, job, status);
    lua_settop(L, top);
    return;
  }
  if (TDL_UNLIKELY(job->extras & TDL_JOB_HAS_STREAM) || bytes == NULL) {
    tdl_bind_end_stream(job);
    tdl_bind_keep_stream(L, top + 2, job);
  }
  if (TDL_LIKELY(status == 0)) {
    n = tdl_decode_flags(L, bytes->data, bytes->len, decode_flags(job));
    if (TDL_LIKELY(n >= 0)) {
      tdl_bind_resolve(b, L, top + 2, n);
      release_slot(L, top, (int)job->slot);
      lua_settop(L, top);
      return;
    }
    status = n;
    message = top + 3;
  }
  reject(b, L, top + 2, job, status, bytes, message);
  count_rejected(b, job);
  release_slot(L, top, (int)job->slot);
  lua_settop(L, top);
}

/* --- calls ---------------------------------------------------------------- */

tdl_job *tdl_bind_take_job(tdl_bind *b) {
  tdl_job *job = tdl_jobs_take(&b->loop->jobs, b->loop);
  if (job != NULL) {
    job->done = tdl_bind_done;
    job->ctx = b;
  }
  return job;
}

/* hooks.refused(handle, task, place, timeout, kind, message, n, args...):
** futures among the arguments, or an error. Its results are the call's. */
static int refused(tdl_bind *b, lua_State *L, int handle, int first, int n,
                   double task, double place, double timeout, int status) {
  int top = lua_gettop(L); /* the encoder's message */
  luaL_checkstack(L, n + 10, "too many arguments");
  tdl_bind_hook(b, L, "refused");
  lua_pushvalue(L, handle);
  lua_pushnumber(L, task);
  lua_pushnumber(L, place);
  lua_pushnumber(L, timeout);
  lua_pushstring(L, tdl_status_kind(status));
  lua_pushvalue(L, top);
  lua_pushinteger(L, n);
  for (int i = 0; i < n; i++) {
    lua_pushvalue(L, first + i);
  }
  lua_call(L, 7 + n, 1);
  return 1;
}

void tdl_bind_inherit(tdl_job *job, const tdl_job *maker) {
  if (maker->timed && maker->deadline_ns < job->deadline_ns) {
    job->deadline_ns = maker->deadline_ns;
    job->inherited = 1;
  }
}

static void inherit(tdl_bind *b, tdl_job *job) {
  const tdl_entry *e;
  if (b->vm == NULL) {
    tdl_bind_guest_calls(b, job);
  } else if ((e = tdl_vm_entry(b->vm, b->vm->current)) != NULL) {
    tdl_bind_inherit(job, e->job);
  }
}

/* The job becomes a guest: its number, or 0 when it has come home. */
static uint32_t submit_home(tdl_bind *b, tdl_job *job, uint32_t guest) {
  if (!tdl_guest_submit(job)) {
    tdl_bind_free_guest(b, guest);
    return 0;
  }
  b->guests[guest].job = job;
  return guest;
}

/* What the place needs before the call is accepted: 0 without memory. */
static int make_place(tdl_bind *b, treadle_pool *pool, int place,
                      uint32_t *guest) {
  if (place == TDL_AT_HOME) {
    *guest = tdl_bind_new_guest(b);
    return *guest != 0;
  }
  return place >= 0 || tdl_backlog_rank(&pool->run) == 0;
}

/* Whether a guest calls its own pool. */
static int is_guests_own(const tdl_bind *b, const treadle_pool *pool) {
  const tdl_job *job = tdl_bind_guest(b, b->loop->guest);
  return job != NULL && job->pool == pool;
}

/* Whether the pool is still there, and its stage, after Lua has run. */
static int is_open(lua_State *L, int handle) {
  return ((tdl_box *)lua_touserdata(L, handle))->handle != NULL;
}

/* Encodes the n values from `first`, submits them, leaves the future on top;
** above it the guest's number if the call runs here. `place`: a slot, or enum
** tdl_place. `timeout` below 0: none. */
static int submit(tdl_bind *b, lua_State *L, int handle, int first, int n,
                  uint32_t task, int place, double timeout) {
  tdl_handle *h = ((tdl_box *)lua_touserdata(L, handle))->handle;
  treadle_pool *pool = h == NULL ? NULL : h->pool;
  tdl_stage *stage;
  tdl_job *job;
  uint32_t guest = 0;
  int own = 0, transfers = 0, status;
  TDL_STAMP(NULL, BEGUN);
  if (TDL_UNLIKELY(pool == NULL)) {
    lua_pushliteral(L, "the pool is closed");
    return refused(b, L, handle, first, n, task, place, timeout,
                   TREADLE_ECLOSED);
  }
  if (TDL_UNLIKELY(pool->far != NULL) && !tdl_upcall_may_call(pool->far)) {
    return luaL_error(L, "a worker of a pool with runtime = \"process\" can "
                         "call its own pool when it has started: not while it "
                         "loads, nor in 'init'");
  }
  if (TDL_UNLIKELY(b->tells_call)) {
    b->tells_call = 0;
    tdl_bind_hook(b, L, "called");
    lua_call(L, 0, 0);
    return submit(b, L, handle, first, n, task, place, timeout);
  }
  job = tdl_bind_take_job(b);
  if (job == NULL) {
    return luaL_error(L, "not enough memory");
  }
  if (TDL_UNLIKELY(n > 0 && lua_isuserdata(L, first + n - 1))) {
    transfers = tdl_bind_is_transfer(L, first + n - 1);
  }
  stage = pool->stage;
  if (TDL_UNLIKELY(stage != NULL) && place != TDL_AT_HOME) {
    tdl_stage_lend(stage, job);
  }
  status = tdl_encode_to(L, first, n - transfers, "arguments", &job->bytes,
                         pool->max_payload, tdl_bind_target(pool));
  if (TDL_UNLIKELY(transfers && status == 0)) {
    status = tdl_bind_transfer(L, first + n - 1, &job->bytes);
  }
  if (TDL_UNLIKELY(stage != NULL) && status == 0 && is_open(L, handle)) {
    status = tdl_stage_keep(stage, job);
    if (status != 0) {
      lua_pushliteral(L, "not enough memory");
    }
  }
  if (TDL_UNLIKELY(status != 0)) {
    tdl_jobs_give(&b->loop->jobs, job);
    return refused(b, L, handle, first, n, task, place, timeout, status);
  }
  TDL_STAMP(job, ENCODED);
  tdl_job_set_task(job, task);
  own = b->vm != NULL ? b->vm->worker->pool == pool : is_guests_own(b, pool);
  tdl_bind_future(b, L, (int)job->slot, own);
  TDL_STAMP(job, MADE);
  /* A pack function or a finalizer may have seen the end of the pool. */
  if (TDL_UNLIKELY(!is_open(L, handle))) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, b->futures_ref);
    release_slot(L, lua_gettop(L) - 1, (int)job->slot);
    tdl_jobs_give(&b->loop->jobs, job);
    lua_pushliteral(L, "the pool is closed");
    return refused(b, L, handle, first, n, task, place, timeout,
                   TREADLE_ECLOSED);
  }
  if (TDL_UNLIKELY(timeout >= 0)) {
    job->deadline_ns = tdl_now_ns() + tdl_seconds_ns(timeout);
  }
  inherit(b, job);
  if (TDL_UNLIKELY(!make_place(b, pool, place, &guest) ||
                   tdl_pool_prepare(pool, job) != 0)) {
    if (guest != 0) {
      tdl_bind_free_guest(b, guest);
    }
    tdl_jobs_give(&b->loop->jobs, job);
    return luaL_error(L, "not enough memory");
  }
  /* B2: nothing raises from here on */
  if (!job->refused) {
    tdl_bind_sent(b, &job->bytes);
  }
  if (b->vm != NULL) {
    tdl_vm_call_made(b->vm, job);
  }
  if (TDL_LIKELY(place == TDL_AT_ANY)) {
    tdl_pool_submit(job);
  } else if (place > 0) {
    tdl_pool_submit_to(job, (uint32_t)place);
  } else if (place == TDL_AT_HOME) {
    guest = submit_home(b, job, guest);
    if (guest != 0) {
      lua_pushinteger(L, (lua_Integer)guest);
      return 2;
    }
  } else {
    tdl_pool_submit_ranked(job, place == TDL_AT_ANY_HIGH ? TDL_RANK_HIGH
                                                         : TDL_RANK_LOW);
  }
  TDL_STAMP(job, PUSHED);
  return 1;
}

/* pool.call.NAME: upvalues are tdl_bind, handle, task. */
static int call_task(lua_State *L) {
  tdl_bind *b = lua_touserdata(L, lua_upvalueindex(1));
  int n = lua_gettop(L);
  uint32_t task = (uint32_t)lua_tointeger(L, lua_upvalueindex(3));
  return submit(b, L, lua_upvalueindex(2), 1, n, task, 0, -1);
}

/* caller(handle, task) -> function */
static int core_caller(lua_State *L) {
  tdl_bind_check_handle(L, 1);
  luaL_checkinteger(L, 2);
  lua_settop(L, 2);
  lua_pushlightuserdata(L, tdl_bind_of(L));
  lua_insert(L, 1);
  lua_pushcclosure(L, call_task, 3);
  return 1;
}

/* submit(handle, task, place, timeout, ...) -> future, or future, guest */
static int core_submit(lua_State *L) {
  uint32_t task;
  int place;
  double timeout;
  tdl_bind_check_handle(L, 1);
  task = (uint32_t)luaL_checkinteger(L, 2);
  place = (int)luaL_checkinteger(L, 3);
  timeout = luaL_checknumber(L, 4);
  return submit(tdl_bind_of(L), L, 1, 5, lua_gettop(L) - 4, task, place,
                timeout);
}

/* settle(future, reason, force [, rest]) -> whether `rest` is told: nobody else
** settles the future from here on. The job's result, if there ever is one, will
** be dropped; the future is left to the caller. With force the job's code is
** stopped. Without, and if it runs, the future `rest` is settled when it comes
** home (J6). */
static int core_settle(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  const char *reason = luaL_checkstring(L, 2);
  int slot, rest = 0;
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 4);
  lua_rawgeti(L, 1, TDL_F_SLOT);
  slot = (int)lua_tointeger(L, -1);
  if (slot > 0) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, b->futures_ref);
    lua_rawgeti(L, -1, slot);
    if (lua_rawequal(L, -1, 1)) { /* B1 */
      tdl_bind_keep_stream(L, 1, tdl_jobs_at(&b->loop->jobs, (uint32_t)slot));
      lua_rawgeti(L, -2, slot); /* that may have run a finalizer */
      lua_replace(L, -2);
    }
    if (lua_rawequal(L, -1, 1)) {
      tdl_job *job = tdl_jobs_at(&b->loop->jobs, (uint32_t)slot);
      if (!tdl_job_is_settled(job)) {
        tdl_job_set_reason(job, reason); /* J5 */
      }
      /* it may have finished, and wait in the inbox: too late all the same */
      if (lua_toboolean(L, 3)) {
        tdl_pool_settle_by_force(job);
      } else if (tdl_pool_settle(job, TDL_JOB_CANCELLED) == TDL_JOB_RUNNING) {
        rest = lua_istable(L, 4);
      }
      tdl_bind_end_stream(job); /* now: what it emits next is cancelled */
      if (rest) {
        job->awaited = 1;
        lua_pushvalue(L, 4);
      } else {
        lua_pushnil(L);
      }
      lua_rawseti(L, -3, slot);
    }
  }
  lua_pushboolean(L, rest);
  return 1;
}

/* pool_reason(handle, text): what its jobs find when it is terminated, which
** comes next (J5) */
static int core_pool_reason(lua_State *L) {
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  const char *text = luaL_checkstring(L, 2);
  const tdl_jobs *jobs = &tdl_bind_of(L)->loop->jobs;
  for (tdl_job *job = h == NULL ? NULL : tdl_jobs_next(jobs, NULL); job != NULL;
       job = tdl_jobs_next(jobs, job)) {
    if (job->pool == h->pool && !tdl_job_is_settled(job)) {
      tdl_job_set_reason(job, text);
    }
  }
  return 0;
}

void tdl_bind_calls(lua_State *L) {
  static const luaL_Reg functions[] = {{"caller", core_caller},
                                       {"submit", core_submit},
                                       {"settle", core_settle},
                                       {"pool_reason", core_pool_reason},
                                       {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
