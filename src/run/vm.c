#include "vm.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>

#include "../base/alloc.h"
#include "../base/compiler.h"
#include "../base/stamp.h"
#include "../codec/codec.h"

/* --- entries -------------------------------------------------------------- */

static uint32_t new_entry(tdl_vm *vm, tdl_job *job) {
  uint32_t i = vm->free_entry;
  if (TDL_UNLIKELY(i == 0)) {
    uint32_t count = vm->entry_count == 0 ? 16 : vm->entry_count * 2;
    tdl_entry *entries = tdl_realloc(vm->entries, count * sizeof(*entries));
    if (entries == NULL) {
      return 0;
    }
    vm->entries = entries;
    if (vm->entry_count == 0) {
      vm->entry_count = 1; /* 0 is none */
    }
    for (uint32_t k = count; k-- > vm->entry_count;) {
      entries[k].job = NULL;
      entries[k].used = 0;
      entries[k].next_free = vm->free_entry;
      vm->free_entry = k;
    }
    vm->entry_count = count;
    i = vm->free_entry;
  }
  vm->free_entry = vm->entries[i].next_free;
  vm->entries[i].job = job;
  vm->entries[i].co = NULL;
  vm->entries[i].calls = 0;
  vm->entries[i].used = 1;
  vm->progress++;
  return i;
}

static int is_exempt(const tdl_entry *e) {
  return e->job != NULL && e->co != NULL && e->calls > 0; /* V3 */
}

static void free_entry_if_done(tdl_vm *vm, uint32_t i) {
  tdl_entry *e = &vm->entries[i];
  if (e->used && e->job == NULL && e->calls == 0) {
    e->used = 0;
    e->next_free = vm->free_entry;
    vm->free_entry = i;
  }
}

int tdl_vm_add_calls(tdl_vm *vm, uint32_t i, int calls) {
  tdl_entry *e = &vm->entries[i];
  int was;
  if (i == 0 || i >= vm->entry_count || !e->used) {
    return 0; /* a coroutine that a job left behind */
  }
  was = is_exempt(e);
  e->calls = (uint32_t)((int)e->calls + calls);
  vm->exempt += (uint32_t)(is_exempt(e) - was);
  free_entry_if_done(vm, i);
  return 1;
}

/* The entry's job is over: sends it home with what is in its bytes. */
static void end_job(tdl_vm *vm, uint32_t i, int status) {
  tdl_entry *e = &vm->entries[i];
  tdl_job *job = e->job;
  vm->exempt -= (uint32_t)is_exempt(e);
  e->job = NULL;
  e->co = NULL;
  vm->progress--;
  free_entry_if_done(vm, i);
  job->status = (int8_t)status;
  tdl_job_finish(job); /* settled meanwhile: it goes home all the same (J2) */
  tdl_loop_send_home(job);
}

int tdl_vm_has_room(const tdl_vm *vm) {
  return vm->progress - vm->exempt < vm->worker->pool->concurrency;
}

void tdl_vm_fail(tdl_vm *vm, uint32_t entry, int status) {
  end_job(vm, entry, status);
}

/* An error that never was a Lua value. */
static void fail_text(tdl_vm *vm, uint32_t entry, int status, lua_State *L,
                      const char *text) {
  tdl_bytes *bytes = &vm->entries[entry].job->bytes;
  int top = lua_gettop(L);
  bytes->len = 0;
  if (text != NULL && lua_checkstack(L, 1)) {
    lua_pushstring(L, text);
    tdl_encode(L, top + 1, 1, "error", bytes, TDL_PAYLOAD_CEILING_BYTES);
  }
  lua_settop(L, top);
  end_job(vm, entry, status);
}

void tdl_vm_finish(tdl_vm *vm, uint32_t entry, lua_State *L, int n) {
  tdl_job *job = vm->entries[entry].job;
  int status;
  job->bytes.len = 0;
  status = tdl_encode(L, lua_gettop(L) - n + 1, n, "results", &job->bytes,
                      vm->worker->pool->max_payload);
  TDL_STAMP(job, ANSWERED);
  if (TDL_LIKELY(status == 0)) {
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
  lua_rawgeti(L, LUA_REGISTRYINDEX, vm->fail_ref);
  lua_pushinteger(L, (lua_Integer)entry);
  lua_xmove(co, L, 1); /* the error; leaves room for one more */
  lua_pushthread(co);
  lua_xmove(co, L, 1);
  if (lua_pcall(L, 3, 0, 0) != 0 && vm->entries[entry].job != NULL) {
    fail_text(vm, entry, TREADLE_ETASK, L, lua_tostring(L, -1));
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
  vm->exempt += (uint32_t)is_exempt(&vm->entries[entry]);
  new_coroutine(vm);
}

void tdl_vm_run(tdl_vm *vm, tdl_job *job) {
  lua_State *co = vm->co;
  uint32_t entry;
  int n, status;
  job->worker =
      (uint16_t)vm->worker->id; /* before it is RUNNING: see tdl_job */
  if (TDL_UNLIKELY(!tdl_job_start(job))) {
    tdl_loop_send_home(job);
    return;
  }
  TDL_STAMP(job, STARTED);
  entry = new_entry(vm, job);
  if (TDL_UNLIKELY(entry == 0)) {
    job->status = TREADLE_ENOMEM;
    job->bytes.len = 0;
    tdl_job_finish(job);
    tdl_loop_send_home(job);
    return;
  }
  vm->current = entry;
  if (TDL_UNLIKELY(job->timed) &&
      tdl_now_ns() >= job->deadline_ns) { /* expired: it never runs */
    vm->current = 0;
    job->bytes.len = 0;
    end_job(vm, entry, TREADLE_ETIMEOUT);
    return;
  }
  if (job->task > 0) { /* else the function is the first argument */
    lua_rawgeti(co, LUA_REGISTRYINDEX, vm->tasks[job->task]);
  }
  n = tdl_decode(co, job->bytes.data, job->bytes.len);
  if (TDL_UNLIKELY(n < 0)) {
    fail_text(vm, entry, n, vm->L, lua_tostring(co, -1));
    vm->current = 0;
    lua_settop(co, 0);
    return;
  }
  TDL_STAMP(job, DECODED);
  status = lua_resume(co, job->task > 0 ? n : n - 1);
  TDL_STAMP(job, RAN);
  if (TDL_LIKELY(status == 0)) {
    tdl_vm_finish(vm, entry, co, lua_gettop(co));
    lua_settop(co, 0);
  } else if (status == LUA_YIELD && lua_touserdata(co, -1) == vm) {
    suspend(vm, entry, co);
  } else {
    if (status == LUA_YIELD) { /* nobody would resume it */
      lua_pushliteral(co, "coroutine.yield in a task, outside of a coroutine "
                          "that it made: nobody would resume it "
                          "(treadle.sleep(0) lets others run)");
    }
    fail_error(vm, entry, co);
    new_coroutine(vm);
  }
  vm->current = 0; /* not earlier: an error out of here fails the entry (V1) */
}

void tdl_vm_turn(tdl_vm *vm) {
  if (vm->turn_ref != LUA_NOREF) {
    lua_rawgeti(vm->L, LUA_REGISTRYINDEX, vm->turn_ref);
    lua_call(vm->L, 0, 0);
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

void tdl_vm_cancel(tdl_vm *vm, const tdl_job *job, uint32_t generation) {
  for (uint32_t i = 1; i < vm->entry_count; i++) {
    if (vm->entries[i].job == job && tdl_job_generation(job) == generation &&
        vm->entries[i].co != NULL && vm->cancel_ref != LUA_NOREF) {
      lua_rawgeti(vm->running, LUA_REGISTRYINDEX, vm->cancel_ref);
      lua_pushinteger(vm->running, (lua_Integer)i);
      lua_call(vm->running, 1, 0);
      return;
    }
  }
}

void tdl_vm_abort_all(tdl_vm *vm) {
  for (uint32_t i = 1; i < vm->entry_count; i++) {
    if (vm->entries[i].job != NULL) {
      vm->entries[i].job->bytes.len = 0;
      end_job(vm, i, TREADLE_ECLOSED);
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
  if (call->vm->co == NULL) {
    new_coroutine(call->vm);
  }
  call->fn(call->vm);
  return 0;
}

int tdl_vm_enter(tdl_vm *vm, void (*fn)(tdl_vm *vm)) {
  protected_call call = {vm, fn};
  int status = lua_cpcall(vm->L, protected, &call);
  if (status == 0) {
    return 0;
  }
  tdl_loop_lose(&vm->worker->loop); /* L3 */
  if (vm->current != 0) {
    uint32_t entry = vm->current;
    vm->current = 0;
    if (vm->entries[entry].job != NULL) {
      vm->entries[entry].job->bytes.len = 0;
      end_job(vm, entry, TREADLE_ENOMEM);
    }
  }
  lua_settop(vm->L, 0);
  vm->co = NULL; /* its stack is in an unknown state */
  lua_gc(vm->L, LUA_GCCOLLECT, 0);
  return TREADLE_ENOMEM;
}

/* --- open and close ------------------------------------------------------- */

/* Writes one line in one piece: lines of several workers never mix. */
static int worker_print(lua_State *L) {
  int n = lua_gettop(L);
  luaL_Buffer b;
  lua_getglobal(L, "tostring");
  luaL_buffinit(L, &b);
  for (int i = 1; i <= n; i++) {
    lua_pushvalue(L, n + 1);
    lua_pushvalue(L, i);
    lua_call(L, 1, 1);
    if (lua_type(L, -1) != LUA_TSTRING) {
      return luaL_error(L, "'tostring' must return a string to 'print'");
    }
    lua_replace(L, i); /* the buffer may use the top */
  }
  for (int i = 1; i <= n; i++) {
    if (i > 1) {
      luaL_addchar(&b, '\t');
    }
    lua_pushvalue(L, i);
    luaL_addvalue(&b);
  }
  luaL_addchar(&b, '\n');
  luaL_pushresult(&b);
  {
    size_t len;
    const char *line = lua_tolstring(L, -1, &len);
    fwrite(line, 1, len, stdout);
  }
  return 0;
}

static int worker_exit(lua_State *L) {
  return luaL_error(L, "os.exit is the host's: a worker cannot end the "
                       "process");
}

static void open_state(tdl_vm *vm) {
  lua_State *L = vm->L;
  luaL_openlibs(L);
  lua_pushcfunction(L, worker_print);
  lua_setglobal(L, "print");
  lua_getglobal(L, "os");
  lua_pushcfunction(L, worker_exit);
  lua_setfield(L, -2, "exit");
  /* every state starts with the same seed: a random one for each */
  lua_getglobal(L, "math");
  lua_getfield(L, -1, "randomseed");
  lua_pushnumber(L, (double)(tdl_now_ns() ^ ((uint64_t)vm->worker->id << 40)));
  lua_call(L, 1, 0);
  tdl_codec_open(L);
  tdl_bind_worker(L, vm);
  lua_newtable(L);
  vm->fibers_ref = luaL_ref(L, LUA_REGISTRYINDEX);
  new_coroutine(vm);
  lua_settop(L, 0);
}

typedef struct boot_call {
  tdl_vm *vm;
  tdl_bytes *report;
  int status;
} boot_call;

static int traceback(lua_State *L) {
  if (lua_isstring(L, 1)) {
    luaL_traceback(L, L, lua_tostring(L, 1), 1);
  }
  return 1;
}

/* treadle.worker's boot(options) -> tasks, fail, teardown or false; what
** follows is the report for the home. */
static void boot(boot_call *call) {
  tdl_vm *vm = call->vm;
  lua_State *L = vm->L;
  treadle_pool *pool = vm->worker->pool;
  int n;
  lua_getglobal(L, "require");
  lua_pushliteral(L, "treadle.worker");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "boot");
  lua_replace(L, 1);
  lua_settop(L, 1);
  n = tdl_decode(L, pool->boot.data, pool->boot.len);
  if (n < 0) {
    lua_error(L);
  }
  lua_call(L, n, LUA_MULTRET);
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  vm->task_count = (uint32_t)lua_objlen(L, 1);
  vm->tasks = tdl_calloc((vm->task_count + 1) * sizeof(*vm->tasks));
  if (vm->tasks == NULL) {
    luaL_error(L, "not enough memory");
  }
  for (uint32_t i = 1; i <= vm->task_count; i++) {
    lua_rawgeti(L, 1, (int)i);
    vm->tasks[i] = luaL_ref(L, LUA_REGISTRYINDEX);
  }
  lua_pushvalue(L, 2);
  vm->fail_ref = luaL_ref(L, LUA_REGISTRYINDEX);
  if (lua_isfunction(L, 3)) {
    lua_pushvalue(L, 3);
    vm->teardown_ref = luaL_ref(L, LUA_REGISTRYINDEX);
  }
  if (tdl_encode(L, 4, lua_gettop(L) - 3, "report", call->report,
                 TDL_PAYLOAD_CEILING_BYTES) != 0) {
    lua_error(L);
  }
}

static int protected_open(lua_State *L) {
  boot_call *call = lua_touserdata(L, 1);
  lua_settop(L, 0);
  open_state(call->vm);
  return 0;
}

static int protected_boot(lua_State *L) {
  boot_call *call = lua_touserdata(L, 1);
  lua_settop(L, 0);
  boot(call);
  return 0;
}

static int make_vm(boot_call *call) {
  lua_State *L = call->vm->L;
  int status = lua_cpcall(L, protected_open, call);
  if (status == 0) {
    lua_pushcfunction(L, traceback);
    lua_pushcfunction(L, protected_boot);
    lua_pushlightuserdata(L, call);
    status = lua_pcall(L, 1, 0, 1);
  }
  if (status != 0) { /* the message is on top */
    size_t len;
    const char *text = lua_tolstring(L, -1, &len);
    if (text == NULL) {
      text = "error object is not a string";
    }
    lua_pushstring(L, text);
    call->report->len = 0;
    tdl_encode(L, lua_gettop(L), 1, "report", call->report,
               TDL_PAYLOAD_CEILING_BYTES);
    status = TREADLE_ELOAD;
  }
  lua_settop(L, 0);
  return status;
}

int tdl_vm_open(tdl_worker *worker, tdl_vm **out, tdl_bytes *report) {
  tdl_vm *vm = tdl_calloc(sizeof(*vm));
  boot_call call = {vm, report, 0};
  int status = TREADLE_ENOMEM;
  if (vm == NULL) {
    return status;
  }
  vm->worker = worker;
  vm->co_ref = vm->turn_ref = vm->wait_ref = vm->fail_ref = LUA_NOREF;
  vm->fibers_ref = vm->teardown_ref = vm->cancel_ref = LUA_NOREF;
  vm->L = tdl_heap_open(&vm->heap); /* NULL without memory or address space */
  if (vm->L != NULL) {
    worker->loop.owner = vm;
    status = make_vm(&call);
  }
  if (status != 0) {
    worker->loop.owner = NULL;
    tdl_vm_close(vm);
    return status;
  }
  *out = vm;
  return 0;
}

/* Its error has nobody to go to but the terminal. */
static int teardown(lua_State *L) {
  tdl_vm *vm = lua_touserdata(L, 1);
  lua_settop(L, 0);
  lua_pushcfunction(L, traceback);
  lua_rawgeti(L, LUA_REGISTRYINDEX, vm->teardown_ref);
  if (lua_pcall(L, 0, 0, 1) != 0) {
    fprintf(stderr, "treadle: error in teardown of pool '%s': %s\n",
            vm->worker->pool->name, lua_tostring(L, -1));
  }
  return 0;
}

void tdl_vm_close(tdl_vm *vm) {
  if (vm->L != NULL) {
    if (vm->teardown_ref != LUA_NOREF) {
      lua_cpcall(vm->L, teardown, vm);
    }
    tdl_heap_close(&vm->heap, vm->L);
  }
  tdl_free(vm->tasks);
  tdl_free(vm->entries);
  tdl_free(vm);
}
