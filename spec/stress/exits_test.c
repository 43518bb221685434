/* The ends of states and of pools in one process, over and over, with calls
** in flight: a Lua state opened and closed around pools, as an engine that
** embeds LuaJIT does it; one state whose pools end in every way; pools of a C
** program. After each round there are as many threads, descriptors and (in a
** test build) blocks as before.
**
** TDL_SEED repeats a run; with TDL_FULL it is 1,000 rounds of 10,000 calls. */
#include <dirent.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "../c/check.h"
#include "treadle.h"

int luaopen_treadle(lua_State *L); /* bind/core.c */

/* Looks at /proc, a millisecond apart, until a thread that was joined is gone
** there, too: the kernel tells the joiner first. */
#define LOOKS 20000

static int full;
static unsigned rounds, calls, seed;

static unsigned next_random(unsigned below) {
  seed = seed * 1664525u + 1013904223u;
  return (seed >> 8) % below;
}

/* --- what the kernel sees ------------------------------------------------- */

static int count_entries(const char *path) {
  int n = 0;
  DIR *dir = opendir(path);
  while (dir != NULL && readdir(dir) != NULL) {
    n++;
  }
  if (dir != NULL) {
    closedir(dir);
  }
  return n;
}

static long resident_pages(void) {
  long size = 0, resident = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  if (f != NULL) {
    if (fscanf(f, "%ld %ld", &size, &resident) != 2) {
      resident = 0;
    }
    fclose(f);
  }
  return resident;
}

typedef struct settled {
  int threads, descriptors;
  long blocks;
} settled;

static settled look(void) {
  settled now = {count_entries("/proc/self/task"),
                 count_entries("/proc/self/fd"), tdl_alloc_live()};
  return now;
}

/* 1 when nothing is there that was not there before. */
static int is_as_before(const settled *before, unsigned round,
                        const char *way) {
  settled now = look();
  for (int i = 0; i < LOOKS && (now.threads > before->threads ||
                                now.blocks != before->blocks);
       i++) {
    poll(NULL, 0, 1);
    now = look();
  }
  if (now.threads > before->threads || now.descriptors > before->descriptors ||
      now.blocks != before->blocks) {
    printf("# round %u, %s: threads %d -> %d, descriptors %d -> %d, blocks %ld "
           "-> %ld\n",
           round, way, before->threads, now.threads, before->descriptors,
           now.descriptors, before->blocks, now.blocks);
    return 0;
  }
  return 1;
}

/* Resident memory settles in the first half of the rounds, in which every way
** to end has come up many times. After that it may grow by a quarter and 16
** MiB: the allocator keeps an arena for each of a few threads, and how full
** one gets depends on which thread frees what. A round with its calls takes
** 3 MB and more, so that a loss in one way to end shows. A test build counts
** single blocks instead: a sanitizer keeps what was freed. */
static int is_within(long half, long end) {
  long limit = half + half / 4 + (16L << 20) / sysconf(_SC_PAGESIZE);
  printf(
      "# resident: %ld pages after half of the rounds, %ld at the end, limit "
      "%ld\n",
      half, end, limit);
  return tdl_alloc_live() >= 0 || end <= limit;
}

/* --- Lua ------------------------------------------------------------------ */

/* Tasks that compute until they may stop look at this, by FFI. */
static atomic_int gate;

TREADLE_API int exits_gate(void);

int exits_gate(void) {
  return atomic_load_explicit(&gate, memory_order_relaxed); /* a flag */
}

static void set_gate(int open) {
  atomic_store_explicit(&gate, open, memory_order_relaxed); /* a flag */
}

static int open_gate(lua_State *L) {
  (void)L;
  set_gate(1);
  return 0;
}

static void stop_hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  lua_sethook(L, NULL, 0, 0);
  luaL_error(L, "stopped");
}

/* stop_after(n): an error after n more instructions, as an engine limits a
** script and as Ctrl-C stops one; 0: none after all */
static int stop_after(lua_State *L) {
  int n = (int)luaL_checkinteger(L, 1);
  lua_sethook(L, n > 0 ? stop_hook : NULL, n > 0 ? LUA_MASKCOUNT : 0, n);
  return 0;
}

static const char prelude[] =
    "local treadle = require 'treadle'\n"
    "local way, workers, calls, random = ...\n"
    "local tasks = {}\n"
    "function tasks.echo(...) return ... end\n"
    "function tasks.nap() require('treadle').sleep(1000) end\n"
    "function tasks.compute()\n"
    "  local ffi = require 'ffi'\n"
    "  ffi.cdef 'int exits_gate(void);'\n"
    "  while ffi.C.exits_gate() == 0 do end\n"
    "end\n"
    "function tasks.fib(n)\n"
    "  if n < 2 then return n end\n"
    "  local call = require('treadle').worker.pool.call\n"
    "  local a, b = call.fib(n - 1), call.fib(n - 2)\n"
    "  return a:await() + b:await()\n"
    "end\n"
    "function tasks.close() require('treadle').worker.pool:close() end\n"
    "function tasks.stop() require('treadle').worker.pool:terminate() end\n"
    "function tasks.fail() error('on purpose') end\n"
    "function tasks.leave(keep)\n"
    "  local t = require 'treadle'\n"
    "  local pool = t.pool('string', { threads = 2 })\n"
    "  for i = 1, 50 do pool.call.rep('x', i) end\n"
    "  kept = keep and pool or nil\n"
    "end\n"
    "local function open(options)\n"
    "  return treadle.pool(tasks, options or { threads = workers,\n"
    "    concurrency = 1 + random % 3, name = 'exits' })\n"
    "end\n"
    "local list = {}\n"
    "local function flood(pool)\n"
    "  local echo = pool.call.echo\n"
    "  for i = 1, calls do list[i] = echo(i) end\n"
    "  return pool\n"
    "end\n"
    /* Settled once, with its own value or because the pool was closed. */
    "local function check()\n"
    "  for i = 1, calls do\n"
    "    local f = list[i]\n"
    "    if f then\n"
    "      local ok, v = f:pawait()\n"
    "      local state = f:state()\n"
    "      if ok then assert(v == i and state == 'resolved', state)\n"
    "      else assert(v.kind == 'closed' and state == 'rejected', v) end\n"
    "    end\n"
    "  end\n"
    "end\n"
    "local future = require 'treadle.future'\n"
    "local told = {}\n"
    "local function watch()\n"
    "  for i = 1, #list do\n"
    "    told[i] = 0\n"
    "    future.on_settled(list[i], function() told[i] = told[i] + 1 end)\n"
    "  end\n"
    "end\n"
    "local function told_once()\n"
    "  for _ = 1, 3 do treadle.poll() end\n"
    "  for i = 1, #told do assert(told[i] == 1, told[i]) end\n"
    "end\n"
    "local ends = {}\n";

/* What a state that is then closed leaves behind. */
static const char state_ends[] =
    "function ends.flight() kept = flood(open()) end\n"
    "function ends.some() kept = flood(open())\n"
    "  list[1 + random % calls]:await() end\n"
    "function ends.dropped() flood(open()) end\n"
    "function ends.error() kept = flood(open()) error('on purpose') end\n"
    "function ends.closed() flood(open()):close() check() end\n"
    "function ends.terminated() kept = flood(open()) kept:terminate()\n"
    "  check() end\n"
    "function ends.closing() kept = flood(open())\n"
    "  treadle.spawn(function() kept:close() end) end\n"
    "function ends.starting()\n"
    "  treadle.spawn(function() kept = open() flood(kept) end)\n"
    "  treadle.sleep(random % 4 * 0.001) end\n"
    "function ends.nested() kept = open()\n"
    "  for i = 1, 20 do kept.call.fib(8) end end\n"
    "function ends.left() kept = open()\n"
    "  kept.call.leave(random % 2 == 0):await() flood(kept) end\n"
    "function ends.timeouts() kept = open()\n"
    "  for i = 1, 100 do\n"
    "    kept:run('nap', {}, { timeout = i % 20 * 0.001, default = 0 })\n"
    "  end end\n"
    "function ends.many() kept = {}\n"
    "  for i = 1, 5 do kept[i] = open() kept[i].call.echo(i) end end\n"
    "function ends.idle() kept = open() end\n"
    "function ends.computing() kept = open()\n"
    "  for i = 1, workers do kept:run('compute', {}, { worker = i }) end\n"
    "  flood(kept) end\n"
    /* An engine's limit, or Ctrl-C: an error at any instruction. */
    "function ends.stopped()\n"
    "  jit.off() jit.flush() calls = 20\n"
    "  pcall(function()\n"
    "    stop_after(1 + random % 3000)\n"
    "    kept = flood(open()) kept:terminate() kept:close()\n"
    "  end)\n"
    "  stop_after(0) end\n"
    "function ends.sleeping() kept = open()\n"
    "  for i = 1, 100 do kept.call.nap() end end\n"
    "return ends[way]()\n";

/* How a pool ends in a state that goes on. */
static const char pool_ends[] =
    "function ends.close() local pool = flood(open()) watch() pool:close()\n"
    "  check() end\n"
    "function ends.terminate() local pool = flood(open()) watch()\n"
    "  pool:terminate() pool:close() check() end\n"
    "function ends.close_in_time() local pool = flood(open()) watch()\n"
    "  for i = 1, 50 do pool.call.nap() end pool:close(0.001) check() end\n"
    "function ends.drop() flood(open()) watch() end\n"
    "function ends.error()\n"
    "  local f = treadle.spawn(function() local pool = flood(open()) watch()\n"
    "    error('on purpose ' .. tostring(pool)) end)\n"
    "  assert(not f:pawait()) end\n"
    "function ends.from_task() local pool = flood(open()) watch()\n"
    "  pool:run('close', {}, { worker = 1 }):await()\n"
    "  local _, err = pool.call.echo(1):pawait()\n"
    "  assert(err.kind == 'closed') pool:close() check() end\n"
    "function ends.stop_from_task() local pool = flood(open()) watch()\n"
    "  pool:run('stop', {}, { worker = 1 }):pawait() pool:close() check() end\n"
    "function ends.starting()\n"
    "  local f = treadle.spawn(function() return open() end)\n"
    "  for _ = 1, random % 3 do treadle.poll() end\n"
    "  local pool = f:await() pool:terminate() pool:close() end\n"
    "function ends.nested() local pool = open() local fibs = {}\n"
    "  for i = 1, 20 do fibs[i] = pool.call.fib(8) end\n"
    "  if random % 2 == 0 then pool:terminate() end pool:close()\n"
    "  for i = 1, 20 do local ok, v = fibs[i]:pawait()\n"
    "    assert(ok and v == 21 or v.kind == 'closed') end end\n"
    "function ends.failing() local pool = flood(open()) watch()\n"
    "  local f = pool.call.fail() pool:close()\n"
    "  assert(select(2, f:pawait()).kind == 'task') check() end\n"
    "function ends.left() local pool = flood(open()) watch()\n"
    "  pool:run('leave', { random % 2 == 0 }, { worker = 1 }):await()\n"
    "  if random % 3 == 0 then pool:terminate() end pool:close() check() end\n"
    "function ends.given_up()\n"
    "  local pool = open { threads = workers, terminate_timeout = 0.005 }\n"
    "  local f = pool:run('compute', {}, { worker = 1 }) flood(pool) watch()\n"
    "  pool:close(0.001) check() open_gate()\n"
    "  assert(select(2, f:pawait()).kind == 'closed') end\n"
    "function ends.no_start()\n"
    "  assert(not pcall(treadle.pool, 'no.such.module',\n"
    "    { threads = workers })) end\n"
    "function ends.timeouts() local pool, fs = open(), {}\n"
    "  for i = 1, 100 do fs[i] = pool:run('nap', {},\n"
    "    { timeout = i % 20 * 0.001, default = i }) end\n"
    "  fs[random % 100 + 1]:await() pool:terminate() pool:close()\n"
    "  for i = 1, 100 do local ok, v = fs[i]:pawait()\n"
    "    assert(ok and v == i or v.kind == 'closed') end end\n"
    "ends[way]() return told_once\n";

static void open_state(lua_State **out) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "preload");
  lua_pushcfunction(L, luaopen_treadle);
  lua_setfield(L, -2, "treadle");
  lua_pop(L, 2);
  lua_register(L, "stop_after", stop_after);
  lua_register(L, "open_gate", open_gate);
  *out = L;
}

/* Loads the chunk and calls it for one way to end; leaves its result. */
static int run_chunk(lua_State *L, const char *text, const char *way) {
  static const int workers[] = {1, 2, 8};
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  luaL_addstring(&b, prelude);
  luaL_addstring(&b, text);
  luaL_pushresult(&b);
  if (luaL_loadbuffer(L, lua_tostring(L, -1), lua_objlen(L, -1), "=exits") !=
      0) {
    return -1;
  }
  lua_remove(L, -2);
  set_gate(0);
  lua_pushstring(L, way);
  lua_pushinteger(L, workers[next_random(3)]);
  lua_pushinteger(L, (lua_Integer)calls);
  lua_pushinteger(L, (lua_Integer)next_random(1u << 20));
  return lua_pcall(L, 4, 1, 0);
}

static const char *message(lua_State *L) {
  const char *text;
  lua_getglobal(L, "tostring");
  lua_insert(L, -2);
  lua_call(L, 1, 1);
  text = lua_tostring(L, -1);
  return text == NULL ? "?" : text;
}

static int is_well(lua_State *L, int status, unsigned round, const char *way) {
  if (status != 0) {
    printf("# round %u, %s: %s\n", round, way, message(L));
  }
  return status == 0;
}

static void states_close_with_calls_in_flight(void) {
  static const char *const ways[] = {
      "flight",  "some",     "dropped",  "error",    "closed",   "terminated",
      "closing", "starting", "nested",   "left",     "timeouts", "many",
      "idle",    "stopped",  "sleeping", "computing"};
  enum { WAYS = sizeof(ways) / sizeof(ways[0]) };
  long half = 0;
  settled before = look();
  lua_State *L;
  for (unsigned r = 0; r < rounds; r++) {
    const char *way = ways[r < WAYS ? r : next_random(WAYS)];
    int status;
    open_state(&L);
    status = run_chunk(L, state_ends, way);
    if (status != 0 && strcmp(way, "error") != 0) {
      printf("# round %u, %s: %s\n", r, way, message(L));
    }
    CHECK((status != 0) == (strcmp(way, "error") == 0));
    lua_close(L);
    set_gate(1); /* who was left to himself ends now */
    CHECK(is_as_before(&before, r, way));
    if (r == rounds / 2) {
      half = resident_pages();
    }
  }
  CHECK(is_within(half, resident_pages()));
}

/* Runs the collector and the loop until the threads of dropped pools have
** ended. Traces hold functions that hold a pool: they go, too. */
static int settle(lua_State *L, int threads) {
  static const char text[] =
      "require('jit').flush() collectgarbage() collectgarbage()\n"
      "require('treadle').poll(0.001)";
  int i = 0;
  do {
    if (luaL_dostring(L, text) != 0) {
      printf("# %s\n", message(L));
      return 0;
    }
  } while (count_entries("/proc/self/task") > threads && ++i < LOOKS);
  return i < LOOKS;
}

static void one_state_ends_pools(void) {
  static const char *const ways[] = {
      "close",    "terminate", "close_in_time",  "drop",    "error",
      "starting", "from_task", "stop_from_task", "nested",  "failing",
      "left",     "no_start",  "timeouts",       "given_up"};
  enum { WAYS = sizeof(ways) / sizeof(ways[0]) };
  long half = 0;
  settled before = look(), inside;
  lua_State *L;
  open_state(&L);
  CHECK(run_chunk(L, pool_ends, "timeouts") == 0);
  lua_settop(L, 0);
  CHECK(settle(L, before.threads));
  inside = look();
  for (unsigned r = 0; r < rounds; r++) {
    const char *way = ways[r < WAYS ? r : next_random(WAYS)];
    CHECK(is_well(L, run_chunk(L, pool_ends, way), r, way));
    CHECK(settle(L, inside.threads));
    CHECK(is_well(L, lua_pcall(L, 0, 0, 0), r, way)); /* told_once */
    CHECK(settle(L, inside.threads));
    /* Jobs, timers and their bytes stay for the next calls until the state is
    ** closed: blocks are counted then. */
    inside.blocks = tdl_alloc_live();
    CHECK(is_as_before(&inside, r, way));
    if (r == rounds / 2) {
      half = resident_pages();
    }
  }
  CHECK(is_within(half, resident_pages()));
  lua_close(L);
  CHECK(is_as_before(&before, rounds, "lua_close"));
}

/* --- a C program ---------------------------------------------------------- */

static char dir[] = "/tmp/treadle-exits-XXXXXX";
static char path[64], file[64];

typedef struct outcome {
  int told, status;
} outcome;

static void keep(int status, treadle_values *values, void *ctx) {
  outcome *o = ctx;
  (void)values;
  o->told++;
  o->status = status;
}

static int submit(treadle_pool *pool, const char *task, double timeout,
                  outcome *o) {
  treadle_call *call;
  int status = treadle_call_new(pool, treadle_pool_task(pool, task), 1, &call);
  if (status == 0) {
    treadle_put_number(treadle_arguments(call), 1000);
    status = treadle_submit(call, timeout, keep, o);
  }
  return status;
}

static int is_told_once(const outcome *out, unsigned n) {
  for (unsigned i = 0; i < n; i++) {
    if (out[i].told != 1) {
      printf("# call %u: told %d times\n", i, out[i].told);
      return 0;
    }
  }
  return 1;
}

static void pools_of_a_c_program_end(void) {
  static const unsigned workers[] = {1, 2, 8};
  static const char *const names[] = {"close", "close soon", "close of naps",
                                      "terminate", "terminate with timeouts"};
  outcome *out = calloc(calls, sizeof(*out));
  settled before = look();
  CHECK(out != NULL);
  for (unsigned r = 0; r < rounds; r++) {
    treadle_pool_options o = {.module = "exits_tasks", .path = path};
    treadle_loop *loop;
    treadle_pool *pool;
    unsigned way = next_random(5), naps = next_random(20);
    o.threads = workers[next_random(3)];
    memset(out, 0, calls * sizeof(*out));
    CHECK(treadle_loop_open(&loop) == 0);
    CHECK(treadle_pool_open(loop, &o, &pool, NULL, 0) == 0);
    for (unsigned i = 0; i < calls; i++) {
      CHECK(submit(pool, i < naps && way > 1 ? "nap" : "echo",
                   i % 7 == 0 && way == 4 ? i * 1e-6 : -1, &out[i]) == 0);
    }
    for (unsigned i = next_random(3); i > 0; i--) {
      treadle_poll(loop, 0);
    }
    switch (way) {
    case 0:
      treadle_pool_close(pool, -1);
      break;
    case 1:
    case 2:
      treadle_pool_close(pool, next_random(3) * 1e-3);
      break;
    default:
      treadle_pool_terminate(pool);
      break;
    }
    CHECK(is_told_once(out, calls));
    treadle_loop_close(loop);
    CHECK(is_told_once(out, calls));
    CHECK(is_as_before(&before, r, names[way]));
  }
  free(out);
}

static int write_module(void) {
  FILE *f;
  if (mkdtemp(dir) == NULL) {
    return -1;
  }
  snprintf(path, sizeof(path), "%s/?.lua", dir);
  snprintf(file, sizeof(file), "%s/exits_tasks.lua", dir);
  f = fopen(file, "w");
  if (f == NULL) {
    return -1;
  }
  fputs("return { echo = function(...) return ... end,\n"
        "  nap = function(n) require('treadle').sleep(n) end }\n",
        f);
  return fclose(f);
}

/* libuv's first loop makes two descriptors, a sanitizer's first thread another
** thread, and both stay with the process. */
static void warm_up(void) {
  treadle_pool_options o = {.module = "exits_tasks", .path = path};
  treadle_loop *loop;
  treadle_pool *pool;
  if (treadle_loop_open(&loop) == 0) {
    treadle_fd(loop);
    if (treadle_pool_open(loop, &o, &pool, NULL, 0) == 0) {
      treadle_pool_close(pool, -1);
    }
    treadle_loop_close(loop);
  }
}

int main(void) {
  full = getenv("TDL_FULL") != NULL;
  rounds = full ? 1000 : 200;
  calls = full ? 10000 : 1000;
  seed = check_seed();
  if (write_module() != 0) {
    printf("not ok cannot write %s\n", file);
    return 1;
  }
  warm_up();
  RUN(states_close_with_calls_in_flight);
  RUN(one_state_ends_pools);
  RUN(pools_of_a_c_program_end);
  unlink(file);
  rmdir(dir);
  return check_any_failed;
}
