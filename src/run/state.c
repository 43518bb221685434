#include "state.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "../codec/codec.h"
#include "../codec/payload.h"

/* --- a state that runs out of memory on demand ---------------------------- */

#ifdef TDL_TEST_ALLOC
static void *allocate(void *ud, void *ptr, size_t old_size, size_t size) {
  tdl_vm *vm = ud;
  if (size > old_size && tdl_alloc_refused(TDL_ALLOC_STATE)) {
    return NULL;
  }
  return vm->allocate(vm->allocate_ud, ptr, old_size, size);
}

/* LuaJIT itself crashes when memory runs out in lua_newstate: refused is the
** whole of it. */
static lua_State *new_state(tdl_vm *vm) {
  lua_State *L = NULL;
  if (!tdl_alloc_refused(TDL_ALLOC_STATE)) {
    tdl_alloc_spare(1);
    L = tdl_heap_open(&vm->heap, TDL_HEAP_BUSY_BYTES);
    tdl_alloc_spare(0);
  }
  if (L != NULL) {
    vm->allocate = lua_getallocf(L, &vm->allocate_ud);
    lua_setallocf(L, allocate, vm);
  }
  return L;
}

/* LuaJIT frees its own allocator only if it is the state's. */
static void restore_allocator(tdl_vm *vm) {
  lua_setallocf(vm->L, vm->allocate, vm->allocate_ud);
}
#else
#define new_state(vm)         tdl_heap_open(&(vm)->heap, TDL_HEAP_BUSY_BYTES)
#define restore_allocator(vm) ((void)0)
#endif

/* --- open and close ------------------------------------------------------- */

int tdl_state_print(lua_State *L) {
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
  lua_pushcfunction(L, tdl_state_print);
  lua_setglobal(L, "print");
  lua_getglobal(L, "os");
  lua_pushcfunction(L, worker_exit);
  lua_setfield(L, -2, "exit");
  /* every state starts with the same seed: a random one for each */
  lua_getglobal(L, "math");
  lua_getfield(L, -1, "randomseed");
  lua_pushnumber(L, (double)(tdl_now_ns() ^
                             ((uint64_t)tdl_worker_number(vm->worker) << 40)));
  lua_call(L, 1, 0);
  tdl_codec_open(L);
  tdl_bind_worker(L, vm);
  lua_newtable(L);
  vm->fibers_ref = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_settop(L, 0);
}

typedef struct boot_call {
  tdl_vm *vm;
  tdl_bytes *report;
  int status;
} boot_call;

/* Of whatever was raised, as text. */
static int traceback(lua_State *L) {
  const char *text = lua_tostring(L, 1);
  if (text == NULL && luaL_callmeta(L, 1, "__tostring")) {
    text = lua_tostring(L, -1);
  }
  if (text == NULL) {
    text = lua_pushfstring(L, "the error is a %s, not a text",
                           luaL_typename(L, 1));
  }
  luaL_traceback(L, L, text, 1);
  return 1;
}

/* The function at that index, if it is one, as a reference. */
static void keep_function(lua_State *L, int index, int *ref) {
  if (lua_isfunction(L, index)) {
    lua_pushvalue(L, index);
    *ref = luaL_ref(L, LUA_REGISTRYINDEX);
  }
}

/* treadle.worker's boot(options) -> tasks, fail, teardown or false, leave or
** false; what follows is the report for the home. */
static int boot(lua_State *L) {
  boot_call *call = lua_touserdata(L, 1);
  tdl_vm *vm = call->vm;
  treadle_pool *pool = vm->worker->pool;
  int n;
  lua_settop(L, 0);
  open_state(vm);
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
  keep_function(L, 2, &vm->fail_ref);
  keep_function(L, 3, &vm->teardown_ref);
  keep_function(L, 4, &vm->leave_ref);
  if (tdl_encode_to(L, 5, lua_gettop(L) - 4, "report", call->report,
                    TDL_PAYLOAD_CEILING_BYTES,
                    pool->far != NULL ? TDL_TO_PROCESS : TDL_TO_STATE) != 0) {
    lua_error(L);
  }
  return 0;
}

/* The report of a state that lacks memory is empty. */
static int protected_boot(lua_State *L) {
  boot_call *call = lua_touserdata(L, 1);
  lua_settop(L, 0);
  lua_pushcfunction(L, traceback);
  lua_pushcfunction(L, boot);
  lua_pushlightuserdata(L, call);
  switch (lua_pcall(L, 1, 0, 1)) {
  case 0:
    call->status = 0;
    break;
  case LUA_ERRMEM:
    break;
  default: /* the message is on top */
    if (!lua_isstring(L, -1)) {
      lua_pushliteral(L, "error object is not a string");
    }
    tdl_payload_clear(call->report);
    if (tdl_encode(L, lua_gettop(L), 1, "report", call->report,
                   TDL_PAYLOAD_CEILING_BYTES) == 0) {
      call->status = TREADLE_ELOAD;
    }
    break;
  }
  return 0;
}

int tdl_state_boot(tdl_vm *vm, tdl_bytes *report) {
  boot_call call = {vm, report, TREADLE_ENOMEM};
  tdl_payload_clear(report); /* the last state's */
  lua_cpcall(vm->L, protected_boot, &call);
  if (vm->heap.is_over) {
    call.status = TREADLE_ENOMEM;
  }
  if (call.status == TREADLE_ENOMEM) {
    tdl_payload_clear(report);
    vm->starved = 1;
  }
  lua_settop(vm->L, 0);
  return call.status;
}

/* The supervisor may look at it from here on, or not any more. */
static void show(tdl_worker *worker, tdl_vm *vm) {
  worker->loop.owner = vm;
  pthread_mutex_lock(&worker->lock);
  worker->seen = vm;
  pthread_mutex_unlock(&worker->lock);
}

static void exceeded(void *worker) {
  tdl_supervisor_exhausted(worker);
}

int tdl_state_open(tdl_worker *worker, tdl_vm **out) {
  tdl_vm *vm = tdl_calloc(sizeof(*vm));
  if (vm == NULL) {
    return TREADLE_ENOMEM;
  }
  vm->worker = worker;
  vm->co_ref = vm->turn_ref = vm->wait_ref = vm->fail_ref = LUA_NOREF;
  vm->fibers_ref = vm->teardown_ref = vm->cancel_ref = LUA_NOREF;
  vm->leave_ref = LUA_NOREF;
  vm->L = new_state(vm); /* NULL without memory or address space */
  if (vm->L == NULL) {
    tdl_free(vm);
    return TREADLE_ENOMEM;
  }
  if (worker->pool->cap_bytes > 0) {
    tdl_heap_cap(&vm->heap, worker->pool->cap_bytes, exceeded, worker);
  }
  show(worker, vm);
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

static int repair_ffi(lua_State *L) {
  const tdl_vm *vm = lua_touserdata(L, 1);
  lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
  if (!lua_istable(L, -1)) {
    return 0; /* nothing was opened at all */
  }
  lua_getfield(L, -1, "ffi");
  lua_getfield(L, LUA_REGISTRYINDEX, TDL_STATE_CONFINED);
  if (lua_toboolean(L, -1)) { /* it was opened, and taken away from there */
    return 0;
  }
  lua_pop(L, 1);
  /* what `require` left there: its mark, or nothing */
  if (!lua_istable(L, -1) && (vm->starved || !lua_isnil(L, -1))) {
    lua_pushcfunction(L, luaopen_ffi);
    lua_call(L, 0, 0);
  }
  return 0;
}

/* LuaJIT (before 2023) crashes in lua_close when memory ran out while it
** opened the FFI library: that is opened again. Where even now there is no
** memory for it, the state stays as it is. */
void tdl_state_close(tdl_vm *vm) {
  restore_allocator(vm);
  if (vm->left || lua_cpcall(vm->L, repair_ffi, vm) == 0) {
    tdl_heap_close(&vm->heap, vm->L);
  }
}

void tdl_state_lose(tdl_vm *vm) {
  tdl_bind_lose(vm);
  tdl_heap_lose(&vm->heap);
}

void tdl_state_tear_down(tdl_vm *vm) {
  if (vm->teardown_ref != LUA_NOREF) {
    lua_cpcall(vm->L, teardown, vm);
  }
}

void tdl_state_free(tdl_vm *vm) {
  show(vm->worker, NULL);
  tdl_free(vm->tasks);
  tdl_free(vm->entries);
  tdl_free(vm);
}
