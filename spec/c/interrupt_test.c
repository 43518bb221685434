/* Stopping what a thread runs in its Lua state, and what cannot be stopped.
 */
#include "../../src/run/interrupt.h"

#include <dirent.h>
#include <errno.h>
#include <lauxlib.h>
#include <lualib.h>
#include <sched.h>
#include <semaphore.h>
#include <string.h>

#include "../../src/run/heap.h"
#include "base/clock.h"
#include "check.h"

#ifndef STOPS
#define STOPS 120 /* spec/stress: 2,000; ten times as many with TDL_FULL */
#endif

#if defined(__SANITIZE_THREAD__)
#define DELIVERS_LATE 1 /* ThreadSanitizer: at the next call of the C library */
#else
#define DELIVERS_LATE 0
#endif

/* Where a checker keeps what was freed, and is slower. */
static int is_checked(void) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return 1;
#else
  const char *preloaded = getenv("LD_PRELOAD");
  return preloaded != NULL && strstr(preloaded, "vgpreload") != NULL;
#endif
}

/* --- the thread that is stopped ------------------------------------------- */

/* What the scripts see of C. */
typedef struct victim {
  tdl_interrupt interrupt;
  pthread_t thread;
  sem_t go, entered, ended; /* to it; from within the script; after it */
  atomic_int leave_c;       /* ends what waits in C */
  atomic_int left_c;        /* it has ended by itself */
  int marks;
  int slow; /* requests for memory that wait for a signal */
  lua_Alloc allocate;
  void *allocate_ud;
  const char *chunk; /* NULL: the thread ends */
  /* about the last round */
  tdl_heap heap;
  lua_State *L;
  int result, status, finalized, is_fresh_right, is_interrupted;
  int is_close_left, was_requested;
} victim;

static void wait_for(sem_t *sem) {
  while (sem_wait(sem) != 0) {
  }
}

static victim *victim_of(lua_State *L) {
  victim *v;
  lua_getfield(L, LUA_REGISTRYINDEX, "victim");
  v = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return v;
}

static int lua_entered(lua_State *L) {
  sem_post(&victim_of(L)->entered);
  return 0;
}

static int lua_finalized(lua_State *L) {
  victim_of(L)->finalized++;
  return 0;
}

/* A call of the C library, from C that is treadle's own. */
static int lua_tick(lua_State *L) {
  sem_t *sem = &victim_of(L)->entered;
  int value;
  sem_getvalue(sem, &value);
  if (value < 0) {
    sem_post(sem);
  }
  free(malloc(1));
  return 0;
}

static int must_leave_c(void *ud) {
  return atomic_load_explicit(&((victim *)ud)->leave_c,
                              memory_order_relaxed); /* a flag */
}

static int lua_stay_in_c(lua_State *L) {
  victim *v = victim_of(L);
  sem_post(&v->entered);
  while (!must_leave_c(v)) {
    sched_yield();
  }
  atomic_store_explicit(&v->left_c, 1, memory_order_relaxed); /* a flag */
  return 0;
}

/* For compiled code, which calls it without leaving: the script has entered
** with the 1,000th call. */
static void mark(void *ud) {
  victim *v = ud;
  if (++v->marks == 1000) {
    sem_post(&v->entered);
  }
}

/* The same; and from then on each signal finds it in C. */
static void linger(void *ud) {
  victim *v = ud;
  mark(v);
  if (v->marks >= 1000) {
    struct timespec second = {1, 0};
    nanosleep(&second, NULL); /* ends with a signal */
  }
}

/* The same, and raises an error then, out of compiled code. */
static void linger_and_raise(void *ud) {
  victim *v = ud;
  linger(v);
  if (v->marks >= 1000) {
    lua_pushliteral(v->L, "raised");
    lua_error(v->L);
  }
}

/* New blocks hold what makes no object, and some come only with a signal. */
static void *slow_allocate(void *ud, void *ptr, size_t old_size, size_t size) {
  victim *v = ud;
  void *block;
  if (ptr == NULL && size > 0 && v->slow > 0) {
    struct timespec second = {1, 0};
    v->slow--;
    nanosleep(&second, NULL);
  }
  block = v->allocate(v->allocate_ud, ptr, old_size, size);
  if (ptr == NULL && block != NULL) {
    memset(block, 0xfe, size);
  }
  return block;
}

static int lua_slow_down(lua_State *L) {
  victim *v = victim_of(L);
  v->allocate = lua_getallocf(L, &v->allocate_ud);
  lua_setallocf(L, slow_allocate, v);
  v->slow = 30;
  return 0;
}

/* Every state has objects with finalizers, which do what the end of a state
** must stand: raise, collect, and read what the script wrote last. */
static const char PRELUDE[] =
    "local finalized = ...\n"
    "shared = {}\n"
    "local function last()\n"
    "  assert(not pcall(error, 'raised'))\n"
    "  assert(not pcall(string.rep))\n"
    "  collectgarbage()\n"
    "  for i = 1, 10 do\n"
    "    if type(shared[i]) == 'string' then assert(#shared[i] >= 0) end\n"
    "  end\n"
    "  finalized()\n"
    "end\n"
    "proxy = newproxy(true)\n"
    "getmetatable(proxy).__gc = last\n"
    "cdata = require 'ffi'.gc(require 'ffi'.new 'int[1]', last)\n";

static const char FRESH[] =
    "local sum, words = 0, {}\n"
    "for i = 1, 2000 do sum = sum + i; words[i % 10 + 1] = 'w' .. i end\n"
    "return sum == 2001000 and words[1] == 'w2000'\n";

static void open_state(victim *v) {
  lua_State *L = v->L = tdl_heap_open(&v->heap, TDL_HEAP_KEEP_BYTES);
  luaL_openlibs(L);
  lua_pushlightuserdata(L, v);
  lua_setfield(L, LUA_REGISTRYINDEX, "victim");
  lua_register(L, "entered", lua_entered);
  lua_register(L, "tick", lua_tick);
  lua_register(L, "slow_down", lua_slow_down);
  lua_register(L, "stay_in_c", lua_stay_in_c);
  lua_pushlightuserdata(L, v);
  lua_setglobal(L, "self");
  lua_pushlightuserdata(L, (void *)(uintptr_t)must_leave_c);
  lua_setglobal(L, "must_leave_c");
  lua_pushlightuserdata(L, (void *)(uintptr_t)mark);
  lua_setglobal(L, "mark");
  lua_pushlightuserdata(L, (void *)(uintptr_t)linger);
  lua_setglobal(L, "linger");
  lua_pushlightuserdata(L, (void *)(uintptr_t)linger_and_raise);
  lua_setglobal(L, "linger_and_raise");
  if (luaL_loadstring(L, PRELUDE) == 0) {
    lua_pushcfunction(L, lua_finalized);
    if (lua_pcall(L, 1, 0, 0) != 0) {
      printf("# prelude: %s\n", lua_tostring(L, -1));
    }
  }
  tdl_interrupt_open(&v->interrupt, L, NULL, NULL);
}

static int run_script(void *arg) {
  victim *v = arg;
  v->status = lua_pcall(v->L, 0, 0, 0);
  return 7;
}

static int close_state(void *arg) {
  victim *v = arg;
  tdl_heap_close(&v->heap, v->L);
  return 0;
}

static int run_fresh(void *arg) {
  victim *v = arg;
  if (luaL_loadstring(v->L, FRESH) == 0 && lua_pcall(v->L, 0, 1, 0) == 0) {
    v->is_fresh_right = lua_toboolean(v->L, -1);
  }
  return 0;
}

static void round_of(victim *v) {
  open_state(v);
  v->result = v->status = v->finalized = v->is_interrupted = 0;
  v->is_fresh_right = 0;
  if (luaL_loadbuffer(v->L, v->chunk, strlen(v->chunk), "=shape") != 0) {
    printf("# %s\n", lua_tostring(v->L, -1));
    abort();
  }
  v->result = tdl_interrupt_run(&v->interrupt, run_script, v);
  if (v->result == TDL_INTERRUPTED) {
    v->is_interrupted = 1;
  } else {
    const char *error = lua_tostring(v->L, -1);
    v->is_interrupted = v->status == LUA_ERRRUN && error != NULL &&
                        strstr(error, "interrupted") != NULL;
    if (!v->is_interrupted) {
      printf("# status %d: %s\n", v->status, error != NULL ? error : "none");
    }
  }
  v->was_requested = tdl_interrupt_is_requested(&v->interrupt);
  tdl_interrupt_seal(&v->interrupt);
  v->is_close_left =
      tdl_interrupt_run(&v->interrupt, close_state, v) == TDL_INTERRUPTED;
  if (v->is_close_left) {
    tdl_heap_lose(&v->heap);
  }
  tdl_interrupt_close(&v->interrupt);
}

/* The next state of the same thread is not hit. */
static void fresh_round(victim *v) {
  int finalized = v->finalized;
  open_state(v);
  tdl_interrupt_run(&v->interrupt, run_fresh, v);
  v->is_fresh_right &= !tdl_interrupt_is_requested(&v->interrupt);
  tdl_interrupt_close(&v->interrupt);
  close_state(v);
  v->finalized = finalized;
}

static void *victim_main(void *arg) {
  victim *v = arg;
  for (;;) {
    wait_for(&v->go);
    if (v->chunk == NULL) {
      return NULL;
    }
    round_of(v);
    sem_post(&v->ended);
    wait_for(&v->go);
    fresh_round(v);
    sem_post(&v->ended);
  }
}

static void victim_start(victim *v) {
  memset(v, 0, sizeof(*v));
  sem_init(&v->go, 0, 0);
  sem_init(&v->entered, 0, 0);
  sem_init(&v->ended, 0, 0);
  pthread_create(&v->thread, NULL, victim_main, v);
}

static void victim_end(victim *v) {
  v->chunk = NULL;
  sem_post(&v->go);
  pthread_join(v->thread, NULL);
  sem_destroy(&v->go);
  sem_destroy(&v->entered);
  sem_destroy(&v->ended);
}

/* --- the thread that stops it --------------------------------------------- */

/* Ended within the next millisecond. */
static int has_ended(victim *v) {
  struct timespec until;
  int r;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_nsec += 1000000;
  until.tv_sec += until.tv_nsec / 1000000000;
  until.tv_nsec %= 1000000000;
  while ((r = sem_timedwait(&v->ended, &until)) != 0 && errno == EINTR) {
  }
  return r == 0;
}

static void enter(victim *v, const char *chunk) {
  /* relaxed: the semaphore orders it */
  atomic_store_explicit(&v->leave_c, 0, memory_order_relaxed);
  atomic_store_explicit(&v->left_c, 0, memory_order_relaxed);
  v->marks = 0;
  v->chunk = chunk;
  sem_post(&v->go);
  wait_for(&v->entered);
}

static void request_until_it_ends(victim *v) {
  do {
    tdl_interrupt_request(&v->interrupt);
  } while (!has_ended(v));
}

/* After a round: all went well, and the next state is not hit. */
static int ended_well(victim *v) {
  tdl_interrupt_request(&v->interrupt); /* too late */
  sem_post(&v->go);
  wait_for(&v->ended);
  return v->is_interrupted && v->is_fresh_right && v->was_requested &&
         !v->is_close_left && v->finalized == 2;
}

static void complain(const victim *v, const char *name) {
  printf("# %s: interrupted %d, requested %d, fresh %d, finalized %d, "
         "close left %d\n",
         name, v->is_interrupted, v->was_requested, v->is_fresh_right,
         v->finalized, v->is_close_left);
}

static int stop(victim *v, const char *chunk, unsigned spins, uint64_t *took) {
  uint64_t start;
  enter(v, chunk);
  for (volatile unsigned i = 0; i < spins; i++) {
  }
  start = tdl_now_ns();
  request_until_it_ends(v);
  *took = tdl_now_ns() - start;
  return ended_well(v);
}

typedef struct shape {
  const char *name, *chunk;
} shape;

static const shape shapes[] = {
    {"empty loop", "entered() while true do end"},
    {"endless for", "entered() local n = 0 "
                    "for i = 1, math.huge do n = n + i end"},
    {"tables", "entered() local t = shared while true do "
               "for i = 1, 100 do t[i] = {i, {}} end end"},
    {"values of other types",
     "entered() local t = shared local i = 0 local s = {} while true do "
     "i = i + 1 t[1] = s t[1] = 'x' t[1] = true t[1] = 'yy' t[1] = i end"},
    {"strings", "entered() while true do local s = '' "
                "for i = 1, 200 do s = s .. i shared[1] = s end end"},
    {"string.rep", "entered() local n = 0 while true do "
                   "n = n % 100 + 1 shared[1] = ('x'):rep(n * 1000) end"},
    {"recursion", "local function f(n) if n > 0 then return 1 + f(n - 1) end "
                  "return 0 end entered() while true do f(150) end"},
    {"deep recursion", "local function f() return 1 + f() end entered() "
                       "while true do pcall(f) end"},
    {"pcall loop", "local function f() while true do end end entered() "
                   "while true do pcall(f) end"},
    {"nested pcalls", "local function f(n) while true do "
                      "if n > 0 then pcall(f, n - 1) end end end entered() "
                      "f(20)"},
    {"xpcall with a looping handler",
     "local function h() while true do end end entered() "
     "while true do xpcall(error, h) end"},
    {"xpcall with an interpreted looping handler",
     "local function h() while true do end end jit.off(h) entered() "
     "while true do xpcall(error, h) end"},
    {"errors", "entered() while true do pcall(error, {}) end"},
    {"coroutine.wrap", "entered() while true do local n = 0 "
                       "for i in coroutine.wrap(function() for i = 1, 50 do "
                       "coroutine.yield(i) end end) do n = n + i end end"},
    {"a loop in a coroutine",
     "entered() coroutine.wrap(function() while true do end end)()"},
    {"coroutines in coroutines",
     "local function f(n) if n > 0 then return coroutine.wrap(f)(n - 1) end "
     "while true do end end entered() f(10)"},
    {"back and forth",
     "local co = coroutine.wrap(function() while true do coroutine.yield() "
     "end end) entered() while true do co() end"},
    {"FFI arrays",
     "local a = require 'ffi'.new('double[1000]') entered() while true do "
     "for i = 1, 999 do a[i] = a[i - 1] + i end end"},
    {"FFI objects", "local ffi = require 'ffi' entered() while true do "
                    "shared[1] = ffi.new('int[10]') end"},
    {"sleeps by the FFI",
     "local ffi = require 'ffi' ffi.cdef 'int usleep(unsigned);' "
     "for i = 1, 200 do ffi.C.usleep(0) end entered() "
     "while true do ffi.C.usleep(300) end"},
    {"C by the FFI", "local ffi = require 'ffi' "
                     "ffi.cdef 'void *memset(void *, int, size_t);' "
                     "local a = ffi.new('char[?]', 1000000) "
                     "for i = 1, 200 do ffi.C.memset(a, i, 10) end entered() "
                     "while true do ffi.C.memset(a, 1, 1000000) end"},
    {"table.sort", "entered() while true do local t = {} "
                   "for i = 1, 100 do t[i] = i * 7 % 101 end "
                   "table.sort(t, function(a, b) return a < b end) end"},
    {"table.sort with a looping comparator",
     "table.sort({3, 1, 2}, function() entered() while true do end end)"},
    {"string.gsub with a looping callback",
     "('abc'):gsub('.', function() entered() while true do end end)"},
    {"string.gsub", "entered() while true do "
                    "shared[1] = ('a b c'):gsub('%a', '%0%0') end"},
    {"not compiled", "jit.off() jit.flush() entered() repeat until false"},
    {"a finalizer", "local p = newproxy(true) getmetatable(p).__gc = "
                    "function() entered() while true do end end "
                    "p = nil collectgarbage() collectgarbage()"},
    {"a finalizer of cdata",
     "local ffi = require 'ffi' local function f() while true do end end "
     "do local c = ffi.gc(ffi.new 'int[1]', function() entered() f() end) end "
     "while true do collectgarbage() end"},
    {"a metamethod", "local t = setmetatable({}, {__index = function() "
                     "while true do end end}) entered() return t.x"},
    {"a comparison", "local m = {__lt = function() while true do end end} "
                     "local a, b = setmetatable({}, m), setmetatable({}, m) "
                     "entered() return a < b"},
    {"load", "entered() local n = 0 while true do n = n + 1 "
             "load('local a = ' .. n .. ' return a + 1')() end"},
    {"a looping reader", "entered() load(function() while true do end end)"},
    {"takes the hook away", "entered() while true do debug.sethook() end"},
    {"sets a hook", "entered() while true do "
                    "debug.sethook(function() end, 'crl', 1) end"},
    {"a looping hook", "debug.sethook(function() entered() debug.sethook() "
                       "while true do end end, 'c') print = nil type(1)"},
    {"an interpreted looping hook",
     "local function h() entered() while true do end end jit.off(h) "
     "debug.sethook(h, 'c') type(1)"},
    {"flushes", "entered() local n = 0 while true do "
                "for i = 1, 100 do n = n + i end jit.flush() end"},
    {"collects", "entered() while true do shared[1] = {} collectgarbage() end"},
    {"gets and sets globals", "entered() while true do x = (x or 0) + 1 end"},
    {"calls C", "entered() while true do tick() end"},
    {"an environment of its own",
     "setfenv(1, {entered = entered}) entered() while true do end"},
    {"next", "for i = 1, 100 do shared[i] = i end entered() while true do "
             "for k, v in pairs(shared) do shared[k] = v + 1 end end"},
};

#define SHAPES (sizeof(shapes) / sizeof(*shapes))

/* Compiled code, or what calls nothing, is not delivered a signal there. */
static int is_stoppable(const shape *s) {
  return (tdl_interrupt_stops_compiled() && !DELIVERS_LATE) ||
         strcmp(s->name, "calls C") == 0;
}

/* --- what must stay as it was --------------------------------------------- */

static int lines_of(const char *path) {
  FILE *f = fopen(path, "r");
  int lines = 0, c;
  while (f != NULL && (c = fgetc(f)) != EOF) {
    lines += c == '\n';
  }
  if (f != NULL) {
    fclose(f);
  }
  return lines;
}

static int threads_now(void) {
  DIR *dir = opendir("/proc/self/task");
  int n = 0;
  while (dir != NULL && readdir(dir) != NULL) {
    n++;
  }
  if (dir != NULL) {
    closedir(dir);
  }
  return n;
}

static long resident_kib(void) {
  FILE *f = fopen("/proc/self/statm", "r");
  long size = 0, pages = 0;
  if (f != NULL) {
    if (fscanf(f, "%ld %ld", &size, &pages) != 2) {
      pages = 0;
    }
    fclose(f);
  }
  return pages * 4;
}

/* --- another thread, which computes all the time -------------------------- */

typedef struct bystander {
  pthread_t thread;
  atomic_int stop;
  long rounds, wrong;
} bystander;

static int lua_round(lua_State *L) {
  bystander *b = lua_touserdata(L, lua_upvalueindex(1));
  b->rounds++;
  b->wrong += lua_tonumber(L, 1) != 125250 || lua_tonumber(L, 2) != 500;
  /* relaxed: a flag */
  lua_pushboolean(L, atomic_load_explicit(&b->stop, memory_order_relaxed));
  return 1;
}

/* --- another one, which looks at what is stopped --------------------------- */

typedef struct looker {
  pthread_t thread;
  tdl_interrupt *at;
  atomic_int stop;
  long answers, wrong;
  tdl_stack stack;
} looker;

static int is_whole(const tdl_stack *s) {
  int whole = s->count <= TDL_STACK_INNER + TDL_STACK_OUTER;
  for (uint32_t i = 0; whole && i < s->count; i++) {
    const tdl_frame *f = &s->frames[i];
    whole = f->kind <= TDL_FRAME_UNKNOWN &&
            memchr(f->source, 0, sizeof(f->source)) != NULL &&
            (f->kind > TDL_FRAME_MAIN || f->line < 1000);
  }
  return whole;
}

static void *looker_main(void *arg) {
  looker *l = arg;
  /* relaxed: a flag */
  while (!atomic_load_explicit(&l->stop, memory_order_relaxed)) {
    tdl_interrupt_ask(l->at, &l->stack);
    for (int i = 0; i < 100 && !tdl_interrupt_has_answered(l->at); i++) {
      tdl_interrupt_prompt(l->at);
      sched_yield();
    }
    if (tdl_interrupt_unask(l->at)) {
      l->answers++;
      l->wrong += !is_whole(&l->stack);
    }
  }
  return NULL;
}

static void *bystander_main(void *arg) {
  static const char chunk[] =
      "local round = ...\n"
      "repeat\n"
      "  local sum, list = 0, {}\n"
      "  for i = 1, 500 do sum = sum + i; list[i] = 'x' .. i end\n"
      "until round(sum, #list)\n";
  bystander *b = arg;
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  if (luaL_loadstring(L, chunk) != 0) {
    b->wrong++;
  }
  lua_pushlightuserdata(L, b);
  lua_pushcclosure(L, lua_round, 1);
  b->wrong += lua_pcall(L, 1, 0, 0) != 0 || lua_gethook(L) != NULL;
  lua_close(L);
  return NULL;
}

/* --- the tests ------------------------------------------------------------ */

static void setup_works_and_is_done_once(void) {
  CHECK(tdl_interrupt_setup() == 0);
  CHECK(tdl_interrupt_setup() == 0);
  CHECK(tdl_interrupt_stops_compiled() == TDL_INTERRUPT_LEAVES);
}

static void each_shape_is_stopped(void) {
  victim v;
  uint64_t took;
  int failed = 0;
  victim_start(&v);
  for (size_t i = 0; i < SHAPES && failed == 0; i++) {
    if (is_stoppable(&shapes[i]) &&
        !stop(&v, shapes[i].chunk, 3000000, &took)) {
      complain(&v, shapes[i].name);
      failed++;
    }
    if (getenv("TDL_VERBOSE") != NULL) {
      printf("# %-45s %s %8.0f us\n", shapes[i].name,
             v.result == TDL_INTERRUPTED ? "left  " : "hooked",
             (double)took / 1e3);
    }
  }
  victim_end(&v);
  CHECK(failed == 0);
}

/* A compiled loop around this call, which runs before anything is stopped. */
#define COMPILED(call)                                                         \
  "local ffi = require 'ffi' local self = ffi.cast('void *', self) "           \
  "local call = ffi.cast('void (*)(void *)', ffi.cast('void *', " call ")) "   \
  "local function loop(n) for i = 1, n do call(self) end end loop(900) "

static int are_stopped(const char *chunk, int left, int rounds) {
  victim v;
  uint64_t took;
  int good = 1;
  victim_start(&v);
  for (int i = 0; i < rounds && is_stoppable(&shapes[0]) && good; i++) {
    good = stop(&v, chunk, 0, &took) && (!left || v.result == TDL_INTERRUPTED);
  }
  victim_end(&v);
  return good;
}

static void compiled_code_is_left(void) {
  CHECK(are_stopped(COMPILED("mark") "loop(math.huge)", 1, 20));
}

static void compiled_code_that_is_always_in_c_is_left(void) {
  CHECK(are_stopped(COMPILED("linger") "loop(math.huge)", 1, 20));
}

/* The signals come while a cdata is being made: it is in the collector's list,
** and nothing yet. */
static void code_that_makes_a_cdata_is_not_left_before_it_is_one(void) {
  CHECK(are_stopped(
      "local ffi = require 'ffi' "
      "local function loop(n) for i = 1, n do "
      "shared[1] = ffi.new('int[20]') end end "
      "loop(1000) slow_down() entered() while true do loop(1e6) end",
      0, 20));
}

/* Each error comes out of C whose return address was diverted. */
static void an_error_passes_through_diverted_code(void) {
  CHECK(are_stopped(COMPILED("linger_and_raise") "pcall(loop, math.huge) "
                                                 "while true do tick() end",
                    0, 20));
}

/* In C that does not call Lua: until it has returned, nothing happens. */
static void code_of_c_is_waited_for(void) {
  static const char *const chunks[] = {
      "while true do stay_in_c() end",
      "pcall(stay_in_c) while true do tick() end",
      "coroutine.wrap(stay_in_c)() while true do tick() end",
  };
  victim v;
  int failed = 0;
  victim_start(&v);
  for (size_t i = 0; i < sizeof(chunks) / sizeof(*chunks) && !failed; i++) {
    if (i == 1 && DELIVERS_LATE) {
      continue;
    }
    enter(&v, chunks[i]);
    for (int n = 0; n < 20 && !failed; n++) {
      tdl_interrupt_request(&v.interrupt);
      failed |= has_ended(&v) ||
                atomic_load_explicit(&v.left_c, memory_order_relaxed);
    }
    /* relaxed: flags */
    atomic_store_explicit(&v.leave_c, 1, memory_order_relaxed);
    request_until_it_ends(&v);
    failed |= !ended_well(&v) ||
              !atomic_load_explicit(&v.left_c, memory_order_relaxed);
  }
  victim_end(&v);
  CHECK(!failed);
}

static void a_search_without_an_end_in_sight_ends_by_itself(void) {
  victim v;
  uint64_t took;
  int good;
  victim_start(&v);
  good = stop(&v,
              "local s = ('a'):rep(150) entered() s:find('.-.-.-.-b') "
              "while true do tick() end",
              0, &took);
  victim_end(&v);
  CHECK(good);
}

/* C of others, here qsort, has called back: neither an error goes through it,
** nor is it left, whether its callback is compiled or not. */
static void code_that_foreign_c_has_called_is_waited_for(void) {
  static const char *const chunk =
      "local ffi = require 'ffi'\n"
      "ffi.cdef 'void qsort(void *, size_t, size_t, "
      "int (*)(const void *, const void *));'\n"
      "local must_leave = ffi.cast('int (*)(void *)', "
      "ffi.cast('void *', must_leave_c))\n"
      "local self = ffi.cast('void *', self)\n"
      "local calls = 0\n"
      "local function compare(a, b)\n"
      "  calls = calls + 1\n"
      "  if calls == 1 then entered() end\n"
      "  while must_leave(self) == 0 do end\n"
      "  return 0\n"
      "end\n"
      "%s\n"
      "local list = ffi.new('int[4]', 4, 3, 2, 1)\n"
      "local function sort() ffi.C.qsort(list, 4, 4, compare) end\n"
      "jit.off(sort)\n" /* or it refuses to be called back */
      "sort()\n"
      "assert(calls > 1)\n"
      "stay_in_c() while true do tick() end";
  static const char *const variants[] = {"", "jit.off(compare)"};
  victim v;
  int failed = 0;
  victim_start(&v);
  for (int i = 0; i < 2 && !failed; i++) {
    char text[2048];
    snprintf(text, sizeof(text), chunk, variants[i]);
    enter(&v, text);
    for (int n = 0; n < 20 && !failed; n++) {
      tdl_interrupt_request(&v.interrupt);
      failed |= has_ended(&v);
    }
    /* relaxed: a flag */
    atomic_store_explicit(&v.leave_c, 1, memory_order_relaxed);
    request_until_it_ends(&v);
    failed |= !ended_well(&v);
  }
  victim_end(&v);
  CHECK(!failed);
}

/* lua_close runs finalizers where no hook acts. The state is lost then. */
static void a_looping_finalizer_at_the_end_of_the_state_is_left(void) {
  static const char *const loops[] = {"", "jit.off(loop) jit.flush()"};
  victim v;
  int failed = 0;
  victim_start(&v);
  for (int i = 0; i < 2 && is_stoppable(&shapes[0]) && !failed; i++) {
    char text[512];
    snprintf(text, sizeof(text),
             "local function loop(n) local i = 0 "
             "while i < n do i = i + 1 end end loop(1000) %s "
             "last = newproxy(true) getmetatable(last).__gc = "
             "function() entered() loop(math.huge) end error('interrupted', 0)",
             loops[i]);
    enter(&v, text);
    request_until_it_ends(&v);
    failed |= !v.is_close_left || !v.is_interrupted;
    (void)ended_well(&v);
    failed |= !v.is_fresh_right;
  }
  victim_end(&v);
  CHECK(!failed);
}

/* Until its handler has run, and what it has left is done with; 1 at the end. */
static int request_once(victim *v) {
  int ended;
  tdl_interrupt_request(&v->interrupt);
  do {
    ended = has_ended(v);
    /* relaxed: a hint; the semaphore orders the rest */
  } while (!ended &&
           atomic_load_explicit(&v->interrupt.sent, memory_order_relaxed) != 0);
  return ended;
}

/* As by a supervisor that hardly gets a processor. */
static void
a_finalizer_that_has_had_its_time_is_left_after_a_few_signals(void) {
  victim v;
  uint64_t before;
  int signals = 1;
  if (!is_stoppable(&shapes[0])) {
    return;
  }
  victim_start(&v);
  enter(&v, "last = newproxy(true) getmetatable(last).__gc = "
            "function() entered() while true do end end "
            "error('interrupted', 0)");
  before = tdl_interrupt_used_ns(&v.interrupt);
  while (tdl_interrupt_used_ns(&v.interrupt) - before <
         TDL_INTERRUPT_SEALED_NS) {
    sched_yield();
  }
  while (!request_once(&v)) {
    signals++;
  }
  CHECK(v.is_close_left && signals < TDL_INTERRUPT_SEALED_SIGNALS / 2);
  (void)ended_well(&v);
  CHECK(v.is_fresh_right);
  victim_end(&v);
}

static int run_and_withdraw(void *arg) {
  victim *v = arg;
  tdl_interrupt_request(&v->interrupt);
  v->was_requested = tdl_interrupt_withdraw(&v->interrupt);
  return run_fresh(v);
}

static void a_request_that_is_taken_back_stops_nothing(void) {
  victim v;
  memset(&v, 0, sizeof(v));
  open_state(&v);
  CHECK(tdl_interrupt_run(&v.interrupt, run_and_withdraw, &v) == 0);
  CHECK(v.was_requested && v.is_fresh_right);
  CHECK(!tdl_interrupt_withdraw(&v.interrupt));
  CHECK(lua_gethook(v.L) == NULL);
  tdl_interrupt_close(&v.interrupt);
  close_state(&v);
  tdl_interrupt_request(&v.interrupt);
  CHECK(!tdl_interrupt_is_requested(&v.interrupt));
}

/* The thread comes and goes while another sends requests all the time. */
static void *come_and_go(void *arg) {
  victim *v = arg;
  open_state(v);
  tdl_interrupt_close(&v->interrupt);
  close_state(v);
  return NULL;
}

static void *request_all_the_time(void *arg) {
  victim *v = arg;
  /* relaxed: a flag */
  while (!atomic_load_explicit(&v->leave_c, memory_order_relaxed)) {
    tdl_interrupt_request(&v->interrupt);
  }
  return NULL;
}

static void no_request_reaches_a_thread_that_has_ended(void) {
  victim v;
  pthread_t requester, thread;
  memset(&v, 0, sizeof(v));
  pthread_create(&requester, NULL, request_all_the_time, &v);
  for (int i = 0; i < STOPS; i++) {
    pthread_create(&thread, NULL, come_and_go, &v);
    pthread_join(thread, NULL);
  }
  /* relaxed: a flag */
  atomic_store_explicit(&v.leave_c, 1, memory_order_relaxed);
  pthread_join(requester, NULL);
  CHECK(!tdl_interrupt_is_requested(&v.interrupt));
}

static int by_size(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

static uint64_t times[10 * STOPS];

static const shape *some_shape(unsigned *seed) {
  const shape *s;
  do {
    s = &shapes[(unsigned)rand_r(seed) % SHAPES];
  } while (!is_stoppable(s));
  return s;
}

static void stops_in_a_row_leave_nothing_behind(void) {
  victim v;
  bystander b = {0};
  static looker l;
  unsigned seed = check_seed();
  int stops = getenv("TDL_FULL") != NULL ? 10 * STOPS : STOPS, failed = 0,
      left = 0;
  stops = is_checked() ? stops / 3 : stops;
  int threads, maps = 0, n = 0;
  long kib = 0;
  victim_start(&v);
  l.at = &v.interrupt;
  pthread_create(&b.thread, NULL, bystander_main, &b);
  pthread_create(&l.thread, NULL, looker_main, &l);
  threads = threads_now();
  for (int i = 0; i < stops && failed == 0; i++) {
    const shape *s = some_shape(&seed);
    unsigned spins = (unsigned)rand_r(&seed) % 1000000;
    if (i == stops / 2) {
      maps = lines_of("/proc/self/maps");
      kib = resident_kib();
    }
    if (!stop(&v, s->chunk, (unsigned)rand_r(&seed) % 4 ? spins : 0,
              &times[n++])) {
      complain(&v, s->name);
      failed++;
    }
    left += v.result == TDL_INTERRUPTED;
  }
  CHECK(failed == 0 && n > 0);
  CHECK(threads_now() == threads);
  /* relaxed: a flag */
  atomic_store_explicit(&l.stop, 1, memory_order_relaxed);
  pthread_join(l.thread, NULL);
  CHECK(l.wrong == 0);
  CHECK(l.answers > 0 || !tdl_interrupt_can_look() || DELIVERS_LATE);
  kib = resident_kib() - kib;
  maps = lines_of("/proc/self/maps") - maps;
  printf("# the second half: %d mappings, %ld KiB more\n", maps, kib);
  /* a state that stays has several, and 200 KiB; C's allocator has its slack */
  CHECK(is_checked() || (maps < 8 && kib < 4 * stops + 6 * 1024));
  victim_end(&v);
  /* relaxed: a flag */
  atomic_store_explicit(&b.stop, 1, memory_order_relaxed);
  pthread_join(b.thread, NULL);
  CHECK(b.rounds > 0 && b.wrong == 0);
  qsort(times, (size_t)n, sizeof(*times), by_size);
  printf("# %d stops, %d by leaving: median %.0f us, worst %.0f us; "
         "%ld rounds beside, %ld stacks read\n",
         n, left, (double)times[n / 2] / 1e3, (double)times[n - 1] / 1e3,
         b.rounds, l.answers);
}

static void hook_of_the_script(lua_State *L, lua_Debug *ar) {
  (void)L;
  (void)ar;
}

static void what_is_taken_back_leaves_the_hook_of_the_script(void) {
  static tdl_interrupt i;
  lua_State *L = luaL_newstate();
  tdl_interrupt_open(&i, L, NULL, NULL);
  lua_sethook(L, hook_of_the_script, LUA_MASKLINE, 0);
  CHECK(!tdl_interrupt_withdraw(&i));
  CHECK(lua_gethook(L) == hook_of_the_script);
  CHECK(lua_gethookmask(L) == LUA_MASKLINE);
  tdl_interrupt_request(&i); /* nothing runs: it sets its hook, no more */
  CHECK(lua_gethook(L) != hook_of_the_script || DELIVERS_LATE);
  CHECK(tdl_interrupt_withdraw(&i));
  CHECK(lua_gethook(L) == NULL || DELIVERS_LATE);
  tdl_interrupt_close(&i);
  lua_close(L);
}

int main(void) {
  RUN(setup_works_and_is_done_once);
  RUN(each_shape_is_stopped);
  RUN(compiled_code_is_left);
  RUN(compiled_code_that_is_always_in_c_is_left);
  RUN(code_that_makes_a_cdata_is_not_left_before_it_is_one);
  RUN(an_error_passes_through_diverted_code);
  RUN(code_of_c_is_waited_for);
  RUN(a_search_without_an_end_in_sight_ends_by_itself);
  RUN(code_that_foreign_c_has_called_is_waited_for);
  RUN(a_looping_finalizer_at_the_end_of_the_state_is_left);
  RUN(a_finalizer_that_has_had_its_time_is_left_after_a_few_signals);
  RUN(a_request_that_is_taken_back_stops_nothing);
  RUN(what_is_taken_back_leaves_the_hook_of_the_script);
  RUN(no_request_reaches_a_thread_that_has_ended);
  RUN(stops_in_a_row_leave_nothing_behind);
  return check_any_failed;
}
