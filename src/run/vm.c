#include "vm.h"

#include <lauxlib.h>

#include "../base/alloc.h"
#include "../base/compiler.h"
#include "../base/stall.h"
#include "../base/stamp.h"
#include "../base/status.h"
#include "../codec/codec.h"
#include "../codec/payload.h"
#include "../share/hold.h"
#include "far.h"
#include "phase.h"
#include "vm_calls.h"
#include "watch.h"

/* --- entries -------------------------------------------------------------- */

static uint32_t new_entry(tdl_vm *vm, tdl_job *job) {
  uint32_t i = vm->free_entry;
  tdl_entry *e;
  if (TDL_UNLIKELY(i == 0)) {
    uint32_t count = vm->entry_count == 0 ? 16 : vm->entry_count * 2;
    uint32_t first = vm->entry_count == 0 ? 1 : vm->entry_count; /* 0: none */
    tdl_entry *entries;
    pthread_mutex_lock(&vm->worker->lock);
    entries = tdl_realloc(vm->entries, count * sizeof(*entries));
    if (entries != NULL) {
      memset(&entries[first], 0, (count - first) * sizeof(*entries));
      vm->entries = entries;
      vm->entry_count = count;
    }
    pthread_mutex_unlock(&vm->worker->lock);
    if (entries == NULL) {
      return 0;
    }
    for (uint32_t k = count; k-- > first;) {
      entries[k].next_free = vm->free_entry;
      vm->free_entry = k;
    }
    i = vm->free_entry;
  }
  vm->free_entry = vm->entries[i].next_free;
  e = &vm->entries[i]; /* but `held`: it is NULL, and the lock's */
  e->job = job;
  e->co = NULL;
  e->calls = e->others = 0;
  e->began_ns = e->heard_ns = 0;
  e->used = 1;
  e->cancelled = e->childless = e->known = e->ended = e->waits = 0;
  e->serial = ++vm->serials;
  vm->progress++;
  return i;
}

tdl_entry *tdl_vm_entry(const tdl_vm *vm, uint32_t i) {
  if (i == 0 || i >= vm->entry_count || vm->entries[i].job == NULL) {
    return NULL;
  }
  return &vm->entries[i];
}

const char *tdl_vm_given_up(const tdl_vm *vm, const tdl_entry *e) {
  const treadle_pool *pool = vm->worker->pool;
  if (tdl_job_is_settled(e->job)) {
    return tdl_job_reason(e->job);
  } else if (tdl_pool_phase(pool) != TDL_POOL_STOPPED) {
    return NULL;
  }
  return tdl_pool_reason(pool) != NULL ? tdl_pool_reason(pool)
                                       : tdl_status_text(TREADLE_ECLOSED);
}

/* For the supervisor: whose job it is if the worker is written off. */
static void hold(tdl_vm *vm, tdl_entry *e, tdl_job *job) {
  pthread_mutex_lock(&vm->worker->lock);
  e->held = job;
  pthread_mutex_unlock(&vm->worker->lock);
}

uint64_t tdl_vm_heap_bytes(const tdl_vm *vm) {
  return ((uint64_t)lua_gc(vm->L, LUA_GCCOUNT, 0) << 10) +
         (uint64_t)lua_gc(vm->L, LUA_GCCOUNTB, 0);
}

static int collect(lua_State *L) {
  lua_gc(L, LUA_GCCOLLECT, 0);
  return 0;
}

void tdl_vm_collect(tdl_vm *vm) {
  int top = lua_gettop(vm->L);
  lua_cpcall(vm->L, collect, NULL); /* finalizers may raise */
  lua_settop(vm->L, top);
}

/* The state's worker gets a fresh one after so many jobs, or when they have left
** too much behind. */
static void look_at_age(tdl_vm *vm) {
  const treadle_pool *pool = vm->worker->pool;
  if (pool->recycle_after > 0 && vm->ended >= pool->recycle_after) {
    tdl_vm_retire(vm);
  } else if (pool->recycle_bytes > 0 &&
             tdl_vm_heap_bytes(vm) > pool->recycle_bytes) {
    tdl_vm_collect(vm);
    if (tdl_vm_heap_bytes(vm) > pool->recycle_bytes) {
      tdl_vm_retire(vm);
    }
  }
}

int tdl_vm_verdict(const tdl_vm *vm, const tdl_job *job) {
  if (tdl_pool_phase(vm->worker->pool) == TDL_POOL_STOPPED) {
    return TREADLE_ECLOSED;
  }
  return vm->heap.is_over && job == tdl_worker_running(vm->worker)
             ? TREADLE_ENOMEM
             : TREADLE_ECRASHED;
}

/* What failed when its time was over failed for that: the errors of its own
** calls, whose time is over with it, come before the supervisor's word. */
static int is_late(const tdl_job *job) {
  return (job->timed & TDL_JOB_LIMITED) && tdl_now_ns() >= job->deadline_ns;
}

/* The entry's job has ended, and somebody had settled it meanwhile. 1 when it
** stays until the scheduler has been told (V5). */
static int ended_settled(tdl_vm *vm, tdl_entry *e, int status) {
  if (!e->ended) {
    tdl_supervisor_job_ended(vm->worker, e->job);
    if (tdl_watched(vm->worker->pool) != 0) {
      tdl_watch_ended(vm, e, status);
    }
  }
  if (!e->childless && e->calls + e->others > 0) {
    tdl_vm_cancel_calls(vm);
  }
  if (e->known && !e->cancelled) {
    e->ended = 1;
    tdl_worker_ask(vm->worker, TDL_ASK_CANCEL);
    return 1;
  }
  return 0;
}

/* The entry's job is over: sends it home with what is in its bytes. */
static void end_job(tdl_vm *vm, uint32_t i, int status) {
  tdl_entry *e = &vm->entries[i];
  tdl_job *job = e->job;
  tdl_worker *w = vm->worker;
  treadle_pool *pool = w->pool;
  uint32_t word;
  if (TDL_UNLIKELY(w->loop.holds != NULL)) {
    tdl_holds_end(w->loop.holds, tdl_owner_of_job(e->serial));
  }
  if (TDL_UNLIKELY(status != 0) && is_late(job)) {
    status = TREADLE_ETIMEOUT;
    tdl_payload_clear(&job->bytes);
  }
  /* acquire: as tdl_pool_phase */
  word = atomic_load_explicit(&pool->phase, memory_order_acquire);
  if (TDL_UNLIKELY(vm->heap.is_over ||
                   tdl_interrupt_has_struck(&w->interrupt) ||
                   TDL_POOL_PHASE(word) == TDL_POOL_STOPPED)) {
    status = tdl_vm_verdict(vm, job);
    tdl_payload_clear(&job->bytes);
  }
  if (TDL_UNLIKELY(e->held != NULL)) {
    hold(vm, e, NULL);
  }
  if (TDL_UNLIKELY(e->co != NULL)) { /* it has waited */
    tdl_vm_set_exempt(vm, -tdl_vm_is_exempt(e));
    e->co = NULL;
  }
  job->status = (int8_t)status;
  if (TDL_UNLIKELY(e->began_ns != 0)) {
    tdl_stats_ran(pool->stats, w->loop.tally, job, tdl_now_ns() - e->began_ns);
    tdl_stats_heap(w->loop.tally, tdl_vm_heap_bytes(vm));
    e->began_ns = 0; /* V5: it may come here again */
  }
  if (TDL_LIKELY(tdl_job_finish(job))) {
    tdl_stats_ended(w->loop.tally, job);
    if (TDL_UNLIKELY(tdl_pool_watch_bits(word) != 0)) {
      tdl_watch_ended(vm, e, status);
    }
  } else if (ended_settled(vm, e, status)) { /* else it goes home (J2) */
    return;
  }
  e->job = NULL;
  vm->progress--;
  if (TDL_UNLIKELY(pool->regulated)) {
    tdl_worker_load(w, -1);
    tdl_worker_set_running(w, vm->progress);
  }
  tdl_vm_free_if_done(vm, i);
  if (TDL_UNLIKELY(e->used)) { /* calls that it made go on */
    vm->strays = vm->turn = 1;
  }
  if (tdl_worker_running(w) == job) { /* it is the home's now */
    tdl_worker_runs(w, NULL);
  }
  tdl_loop_send_home(job);
  vm->ended++;
  if (TDL_UNLIKELY((pool->recycle_after | pool->recycle_bytes) != 0)) {
    look_at_age(vm); /* last: finalizers may run, without an end */
  }
}

void tdl_vm_retire(tdl_vm *vm) {
  if (!vm->retiring && vm->progress > 0) {
    tdl_supervisor_end(vm->worker, vm->worker->pool->terminate_ns);
  }
  vm->retiring = 1;
}

void tdl_vm_fail(tdl_vm *vm, uint32_t entry, int status) {
  end_job(vm, entry, status);
}

/* An error that never was a Lua value. */
static void fail_text(tdl_vm *vm, uint32_t entry, int status, lua_State *L,
                      const char *text) {
  tdl_bytes *bytes = &vm->entries[entry].job->bytes;
  int top = lua_gettop(L);
  tdl_payload_clear(bytes);
  if (text != NULL && lua_checkstack(L, 1)) {
    lua_pushstring(L, text);
    tdl_encode(L, top + 1, 1, "error", bytes, TDL_PAYLOAD_CEILING_BYTES);
  }
  lua_settop(L, top);
  end_job(vm, entry, status);
}

tdl_target tdl_vm_target(const tdl_vm *vm, const tdl_job *job) {
  const tdl_far *far = vm->worker->pool->far;
  return TDL_UNLIKELY(far != NULL) && job->home == far->home ? TDL_TO_PROCESS
                                                             : TDL_TO_STATE;
}

void tdl_vm_finish(tdl_vm *vm, uint32_t entry, lua_State *L, int n) {
  tdl_job *job = vm->entries[entry].job;
  const treadle_pool *pool = vm->worker->pool;
  int status;
  tdl_payload_clear(&job->bytes);
  if (TDL_UNLIKELY(pool->far != NULL)) {
    tdl_far_answers(pool->far, job);
  }
  status = tdl_encode_to(L, lua_gettop(L) - n + 1, n, "results", &job->bytes,
                         pool->max_payload, tdl_vm_target(vm, job));
  TDL_STAMP(job, ANSWERED);
  if (TDL_LIKELY(status == 0)) {
    tdl_bind_sent_results(vm, &job->bytes);
    end_job(vm, entry, 0);
  } else {
    fail_text(vm, entry, status, L, lua_tostring(L, -1));
  }
}

/* --- running -------------------------------------------------------------- */

static void new_coroutine(tdl_vm *vm) {
  luaL_unref(vm->L, LUA_REGISTRYINDEX, vm->co_ref);
  vm->co_ref = LUA_NOREF;
  vm->co = lua_newthread(vm->L);
  vm->co_ref = luaL_ref(vm->L, LUA_REGISTRYINDEX);
}

/* The boot module describes the error and calls core.job_fail (bind/): its
** function takes the entry, the error and the dead coroutine. */
static void fail_error(tdl_vm *vm, uint32_t entry, lua_State *co) {
  lua_State *L = vm->L;
  int top = lua_gettop(L);
  int status;
  lua_rawgeti(L, LUA_REGISTRYINDEX, vm->fail_ref);
  lua_pushinteger(L, (lua_Integer)entry);
  lua_xmove(co, L, 1); /* the error; leaves room for one more */
  lua_pushthread(co);
  lua_xmove(co, L, 1);
  status = lua_pcall(L, 3, 0, 0);
  if (status != 0 && vm->entries[entry].job != NULL) {
    fail_text(vm, entry, status == LUA_ERRMEM ? TREADLE_ENOMEM : TREADLE_ETASK,
              L, lua_tostring(L, -1));
  }
  lua_settop(L, top);
}

/* V2: the coroutine belongs to the entry and the Lua scheduler now. */
static void suspend(tdl_vm *vm, uint32_t entry, lua_State *co) {
  lua_State *L = vm->L;
  lua_settop(co, 0); /* the token */
  lua_rawgeti(L, LUA_REGISTRYINDEX, vm->fibers_ref);
  lua_pushthread(co);
  lua_xmove(co, L, 1);
  lua_pushinteger(L, (lua_Integer)entry);
  lua_rawset(L, -3);
  lua_pop(L, 1);
  vm->entries[entry].co = co;
  if (TDL_UNLIKELY(tdl_watched(vm->worker->pool) != 0)) {
    tdl_watch_switches(vm, 0);
  }
  hold(vm, &vm->entries[entry], vm->entries[entry].job);
  tdl_vm_set_exempt(vm, tdl_vm_is_exempt(&vm->entries[entry]));
  new_coroutine(vm);
}

void tdl_vm_set_current(tdl_vm *vm, uint32_t entry) {
  if (TDL_UNLIKELY(vm->current != 0 && vm->current < vm->entry_count &&
                   vm->current != entry)) {
    tdl_entry *outer = &vm->entries[vm->current];
    if (outer->job != NULL && outer->held == NULL) {
      hold(vm, outer, outer->job); /* it runs another's code (treadle.poll) */
    }
  }
  if (TDL_UNLIKELY(tdl_watched(vm->worker->pool) != 0)) {
    tdl_watch_switches(vm, entry);
  }
  vm->current = entry;
  tdl_worker_runs(vm->worker, entry == 0 || entry >= vm->entry_count
                                  ? NULL
                                  : vm->entries[entry].job);
}

/* 0 when the job has expired: it never runs. */
static int look_at_clock(tdl_vm *vm, uint32_t entry) {
  const tdl_job *job = vm->entries[entry].job;
  uint64_t now = tdl_now_ns();
  if ((job->timed & TDL_JOB_LIMITED) && now >= job->deadline_ns) {
    return 0;
  }
  if (job->timed & TDL_JOB_STAMPED) {
    tdl_stats_waited(vm->worker->loop.tally, job, now);
    vm->entries[entry].began_ns = now;
    tdl_job_began(vm->entries[entry].job, now);
  }
  return 1;
}

void tdl_vm_run(tdl_vm *vm, tdl_job *job) {
  tdl_tally *tally = vm->worker->loop.tally;
  lua_State *co;
  uint32_t entry;
  int n, status;
  job->worker =
      (uint16_t)vm->worker->id; /* before it is RUNNING: see tdl_job */
  if (TDL_UNLIKELY(!tdl_job_start(job))) {
    tdl_loop_send_home(job);
    return;
  }
  TDL_STAMP(job, STARTED);
  TDL_STALL();
  tdl_stats_started(tally, job);
  entry = new_entry(vm, job);
  if (TDL_UNLIKELY(entry == 0)) {
    tdl_pool_load(vm->worker->pool, -1);
    job->status = TREADLE_ENOMEM;
    tdl_payload_clear(&job->bytes);
    if (tdl_job_finish(job)) {
      tdl_stats_ended(tally, job);
    }
    if (tdl_watched(vm->worker->pool) != 0) {
      tdl_watch_refused(job, TREADLE_ENOMEM);
    }
    tdl_loop_send_home(job);
    return;
  }
  if (TDL_UNLIKELY(vm->worker->pool->regulated)) {
    tdl_worker_take_place(vm->worker);
    tdl_worker_set_running(vm->worker, vm->progress);
  }
  if (TDL_UNLIKELY(vm->current != 0)) {
    tdl_vm_set_current(vm, 0); /* who runs it waits (treadle.poll) */
  }
  vm->current = vm->starting = entry;
  tdl_worker_runs(vm->worker, job);
  if (TDL_UNLIKELY(tdl_watched(vm->worker->pool) != 0)) {
    tdl_watch_started(vm, &vm->entries[entry]);
  }
  if (TDL_UNLIKELY(vm->co == NULL)) {
    new_coroutine(vm);
  }
  co = vm->co;
  if (TDL_UNLIKELY(job->timed != 0) && !look_at_clock(vm, entry)) {
    tdl_payload_clear(&job->bytes);
    end_job(vm, entry, TREADLE_ETIMEOUT);
    tdl_vm_set_current(vm, 0);
    vm->starting = 0;
    return;
  }
  if (tdl_job_task(job) > 0) { /* else the function is the first argument */
    lua_rawgeti(co, LUA_REGISTRYINDEX, vm->tasks[tdl_job_task(job)]);
  }
  n = tdl_decode(co, job->bytes.data, job->bytes.len);
  if (TDL_UNLIKELY(n < 0)) {
    fail_text(vm, entry, n, vm->L, lua_tostring(co, -1));
    lua_settop(co, 0);
    tdl_vm_set_current(vm, 0);
    vm->starting = 0;
    return;
  }
  tdl_payload_clear(&job->bytes); /* Lua holds what it refers to */
  if (TDL_UNLIKELY(vm->worker->pool->far != NULL)) {
    tdl_far_decoded(vm->worker->pool->far, job);
  }
  TDL_STAMP(job, DECODED);
  status = lua_resume(co, tdl_job_task(job) > 0 ? n : n - 1);
  TDL_STAMP(job, RAN);
  if (TDL_LIKELY(status == 0)) {
    tdl_vm_finish(vm, entry, co, lua_gettop(co));
    lua_settop(co, 0);
  } else if (status == LUA_YIELD && lua_touserdata(co, -1) == vm) {
    suspend(vm, entry, co);
  } else {
    if (status == LUA_YIELD) { /* nobody would resume it */
      lua_pushliteral(co,
                      "coroutine.yield outside of a coroutine that this code "
                      "made: nobody would resume it "
                      "(treadle.sleep(0) lets others run)");
    }
    fail_error(vm, entry, co);
    new_coroutine(vm);
  }
  /* not earlier: an error out of here fails the entry (V1) */
  vm->current = 0; /* its job is over, or held */
  tdl_worker_runs(vm->worker, NULL);
  vm->starting = 0;
}

void tdl_vm_turn(tdl_vm *vm) {
  if (vm->turn_ref != LUA_NOREF) {
    lua_rawgeti(vm->L, LUA_REGISTRYINDEX, vm->turn_ref);
    lua_call(vm->L, 0, 0);
  }
  if (TDL_UNLIKELY(vm->strays)) {
    tdl_vm_collect_strays(vm);
  }
}

int tdl_vm_wait(tdl_vm *vm) {
  int waited = 0;
  if (vm->wait_ref != LUA_NOREF) {
    lua_rawgeti(vm->L, LUA_REGISTRYINDEX, vm->wait_ref);
    lua_call(vm->L, 0, 1);
    waited = lua_toboolean(vm->L, -1);
    lua_pop(vm->L, 1);
  }
  return waited;
}

int tdl_vm_leave(tdl_vm *vm, int quiet) {
  int may_rest = 1;
  if (TDL_UNLIKELY(vm->leave_ref != LUA_NOREF)) {
    lua_rawgeti(vm->L, LUA_REGISTRYINDEX, vm->leave_ref);
    lua_pushboolean(vm->L, quiet);
    lua_call(vm->L, 1, 1);
    may_rest = lua_toboolean(vm->L, -1);
    lua_pop(vm->L, 1);
  }
  return may_rest;
}

/* The scheduler only takes note: no job ends meanwhile. */
static void tell_scheduler(tdl_vm *vm, uint32_t i) {
  const tdl_entry *e = &vm->entries[i];
  lua_rawgeti(vm->L, LUA_REGISTRYINDEX, vm->cancel_ref);
  lua_pushinteger(vm->L, (lua_Integer)i);
  lua_pushnumber(vm->L, (lua_Number)e->serial);
  lua_pushstring(vm->L, tdl_vm_given_up(vm, e));
  lua_call(vm->L, 3, 0);
}

void tdl_vm_cancel(tdl_vm *vm) {
  tdl_vm_cancel_calls(vm);
  for (uint32_t i = 1; i < vm->entry_count; i++) {
    tdl_entry *e = &vm->entries[i];
    if (e->job != NULL && (e->co != NULL || e->ended) && !e->cancelled &&
        tdl_vm_given_up(vm, e) != NULL) {
      if (vm->cancel_ref != LUA_NOREF) {
        tell_scheduler(vm, i);
      }
      e->cancelled = 1;
      if (e->ended) {
        end_job(vm, i, e->job->status);
      }
    }
  }
}

void tdl_vm_take_leave(tdl_vm *vm) {
  if (vm->progress > 0) {
    tdl_vm_cancel(vm);
    vm->turn = 0;
    tdl_vm_turn(vm);
  }
}

void tdl_vm_abort_all(tdl_vm *vm) {
  tdl_vm_cancel_calls(vm);
  tdl_vm_abort_calls(vm);
  for (uint32_t i = 1; i < vm->entry_count; i++) {
    if (vm->entries[i].job != NULL) {
      vm->entries[i].cancelled = 1; /* there is no scheduler any more */
      tdl_payload_clear(&vm->entries[i].job->bytes);
      end_job(vm, i, tdl_vm_verdict(vm, vm->entries[i].job));
    }
  }
}

/* --- protection (V1) ------------------------------------------------------ */

typedef struct protected_call {
  tdl_vm *vm;
  void (*fn)(tdl_vm *vm);
} protected_call;

static int protected(lua_State *L) {
  protected_call *call = lua_touserdata(L, 1);
  lua_settop(L, 0);
  call->fn(call->vm);
  return 0;
}

/* The entry's coroutine, if it has one, is nobody's from here on: what it
** returns must not end the next job of that number. Needs no memory. */
static void forget_fiber(tdl_vm *vm, uint32_t entry) {
  lua_State *L = vm->L;
  lua_rawgeti(L, LUA_REGISTRYINDEX, vm->fibers_ref);
  lua_pushnil(L);
  while (lua_next(L, -2) != 0) {
    if (lua_tointeger(L, -1) == (lua_Integer)entry) {
      lua_pushvalue(L, -2);
      lua_pushnil(L);
      lua_rawset(L, -5);
    }
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

static void fail_entry(tdl_vm *vm, uint32_t entry) {
  if (vm->entries[entry].job != NULL) {
    forget_fiber(vm, entry);
    tdl_payload_clear(&vm->entries[entry].job->bytes);
    end_job(vm, entry, TREADLE_ENOMEM);
  }
}

int tdl_vm_enter(tdl_vm *vm, void (*fn)(tdl_vm *vm)) {
  protected_call call = {vm, fn};
  return lua_cpcall(vm->L, protected, &call) == 0 ? 0 : TREADLE_ENOMEM;
}

void tdl_vm_recover(tdl_vm *vm) {
  tdl_loop_lose(&vm->worker->loop); /* L3 */
  vm->starved = 1;
  lua_settop(vm->L, 0);
  if (vm->starting != 0) {
    fail_entry(vm, vm->starting);
  } else {
    for (uint32_t i = 1; i < vm->entry_count; i++) {
      fail_entry(vm, i);
    }
  }
  tdl_vm_set_current(vm, 0);
  vm->starting = 0;
  vm->co = NULL; /* its stack is in an unknown state */
  vm->turn = 1;  /* what is ready yet may have to wait for memory */
  tdl_vm_collect(vm);
}
