/* Out of memory at each single request: a program runs again and again, each
** time with another request refused. What may happen is an error; what was
** submitted is reported once, nobody hangs, nothing is left behind.
**
** `oom_test SWEEP N` runs one sweep with request N alone. The test of this
** name takes some requests of the long sweeps, spec/stress/oom_every_test.c
** takes all of them. */
#include <dirent.h>
#include <lauxlib.h>
#include <limits.h>
#include <lualib.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "codec/codec.h"
#include "treadle.h"

/* Requests of a long sweep that are refused; all of a shorter one. */
#ifndef OOM_SAMPLES
#define OOM_SAMPLES 200
#endif

/* A run takes milliseconds; under valgrind a second. */
#define WATCHDOG_SECONDS 60

TREADLE_API int luaopen_treadle(lua_State *L);
TREADLE_API int luaopen_codec_module(lua_State *L);

/* --- one request refused -------------------------------------------------- */

/* The host's Lua state, whose allocator is this test's. */
static struct {
  long fail_in;
  long live; /* blocks */
} host = {-1, 0};

static void *host_allocate(void *ud, void *ptr, size_t old, size_t size) {
  void *new;
  (void)ud;
  if (size == 0) {
    host.live -= ptr != NULL;
    free(ptr);
    return NULL;
  }
  if (size > old && host.fail_in >= 0 && host.fail_in-- == 0) {
    return NULL;
  }
  new = realloc(ptr, size);
  host.live += ptr == NULL && new != NULL;
  return new;
}

typedef enum who { HOST, OWN, WORKERS } who;

static void refuse_in(who whose, long n) {
  if (whose == HOST) {
    host.fail_in = n;
  } else {
#ifdef TDL_TEST_ALLOC
    tdl_alloc_fail_in(whose == OWN ? TDL_ALLOC_OWN : TDL_ALLOC_STATE, n);
#endif
  }
}

static long left(who whose) {
#ifdef TDL_TEST_ALLOC
  if (whose != HOST) {
    return tdl_alloc_left(whose == OWN ? TDL_ALLOC_OWN : TDL_ALLOC_STATE);
  }
#endif
  return whose == HOST ? host.fail_in : -1;
}

/* --- what a run must leave as it was --------------------------------------- */

/* LuaJIT's loadfile loses a file that it has opened if there is no memory for
** its name: not counted. */
static int is_script(const char *dir, const char *name) {
  char path[300], target[300];
  ssize_t length;
  snprintf(path, sizeof(path), "%s/%s", dir, name);
  length = readlink(path, target, sizeof(target));
  return length > 4 && memcmp(target + length - 4, ".lua", 4) == 0;
}

static long entries(const char *path) {
  DIR *dir = opendir(path);
  const struct dirent *entry;
  long n = 0;
  while (dir != NULL && (entry = readdir(dir)) != NULL) {
    n += !is_script(path, entry->d_name);
  }
  closedir(dir);
  return n;
}

typedef struct traces {
  long blocks, host_blocks, descriptors, threads;
} traces;

static traces look(void) {
  traces t = {tdl_alloc_live(), host.live, entries("/proc/self/fd"),
              entries("/proc/self/task")};
  return t;
}

/* Of the process without a pool: a sanitizer's, too, which comes with the first
** that is made. */
static long first_threads;

static void *nothing(void *arg) {
  return arg;
}

static void count_threads(void) {
  pthread_t thread;
  pthread_create(&thread, NULL, nothing, NULL);
  pthread_join(thread, NULL);
  first_threads = look().threads;
  for (int i = 0; i < 100; i++) { /* it may be in the list for a moment yet */
    long threads = look().threads;
    first_threads = threads < first_threads ? threads : first_threads;
    usleep(100);
  }
}

/* A thread that was joined is in the list for a moment yet, also one of the run
** before; one that stays is the watchdog's. */
static int left_behind(const traces *before) {
  traces now;
  while (look().threads > first_threads) {
    usleep(100);
  }
  now = look(); /* what the last thread gave back */
  if (now.blocks == before->blocks && now.host_blocks == before->host_blocks &&
      now.descriptors == before->descriptors) {
    return 0;
  }
  printf("# left behind: %ld blocks, %ld of the host's state, "
         "%ld descriptors\n",
         now.blocks - before->blocks, now.host_blocks - before->host_blocks,
         now.descriptors - before->descriptors);
  return 1;
}

/* --- sweeps ---------------------------------------------------------------- */

typedef struct sweep {
  const char *name;
  who whose;
  int cost; /* a run takes as long as so many of the others */
  /* Runs the program; calls refuse() where the counting begins. 0: it broke a
  ** promise, and has said which. */
  int (*run)(int refusal);
} sweep;

static const sweep *sweeping;
static long refused_request;
static long requests_left; /* of those before the refused one */
static int relented;

static void refuse(void) {
  refuse_in(sweeping->whose, refused_request);
  relented = refused_request < 0;
}

/* From here on there is memory. */
static void relent(void) {
  if (!relented) {
    requests_left = left(sweeping->whose);
    relented = 1;
  }
  refuse_in(sweeping->whose, -1);
}

static void bark(int signal) {
  static const char text[] = "not ok: it hangs\n";
  ssize_t written = write(1, text, sizeof(text) - 1);
  (void)signal;
  (void)written;
  _exit(1);
}

/* Runs with request n refused, LONG_MAX: none. The number of requests left. */
static long run_with(const sweep *s, long n, int warming) {
  traces before = look();
  int fine;
  sweeping = s;
  refused_request = n;
  if (n == LONG_MAX) {
    printf("# %s, nothing refused\n", s->name);
  } else {
    printf("# %s %ld\n", s->name, n);
  }
  fflush(stdout);
  alarm(WATCHDOG_SECONDS);
  fine = s->run(n != LONG_MAX);
  relent();
  if (!fine || (!warming && left_behind(&before))) {
    check_failed = 1;
  }
  alarm(0);
  return requests_left;
}

/* All requests of the program, or OOM_SAMPLES of them; a run that fails is
** followed by one that does not. */
static void run_sweep(const sweep *s) {
  long requests, step;
  check_failed = 0;
  run_with(s, LONG_MAX, 1); /* makes what a process has once */
  requests = LONG_MAX - run_with(s, LONG_MAX, 0);
  step = requests / OOM_SAMPLES + 1;
  step = step * s->cost;
  for (long n = step > 1 ? random() % step : 0; n < requests && !check_failed;
       n += 1 + (step > 1 ? random() % (2 * step - 1) : 0)) {
    run_with(s, n, 0);
  }
  if (!check_failed) {
    run_with(s, LONG_MAX, 0);
  }
  printf("# %s: %ld requests, each %ld.\n%s out_of_memory_%s\n", s->name,
         requests, step, check_failed ? "not ok" : "ok", s->name);
  check_any_failed |= check_failed;
}

#define MUST(condition)                                                        \
  do {                                                                         \
    if (!(condition)) {                                                        \
      printf("# %s:%d: %s\n", __FILE__, __LINE__, #condition);                 \
      fine = 0;                                                                \
    }                                                                          \
  } while (0)

/* --- a C program ----------------------------------------------------------- */

#ifdef TDL_TEST_ALLOC
typedef struct outcome {
  int submitted, reports, status, expected;
  double number;
  char text[400];
  treadle_call *call;
} outcome;

static void keep(int status, treadle_values *values, void *ctx) {
  outcome *o = ctx;
  treadle_value v;
  o->reports++;
  o->status = status;
  while (treadle_get(values, &v) == 0) {
    if (v.type == TREADLE_NUMBER) {
      o->number += v.number;
    } else if (v.type == TREADLE_NUMBERS) {
      for (size_t i = 0; i < v.length; i++) {
        double number;
        memcpy(&number, v.string + i * sizeof(number), sizeof(number));
        o->number += number;
      }
    } else if (v.type == TREADLE_STRING && o->text[0] == 0) {
      snprintf(o->text, sizeof(o->text), "%.*s", (int)v.length, v.string);
    }
  }
}

static treadle_call *new_call(treadle_pool *pool, const char *name,
                              unsigned count) {
  treadle_call *call;
  int status =
      treadle_call_new(pool, treadle_pool_task(pool, name), count, &call);
  return status == 0 ? call : NULL;
}

/* NULL: memory was short when it was made. */
static void submit(treadle_call *call, outcome *o, double timeout,
                   int expected) {
  o->expected = expected;
  if (call != NULL && treadle_submit(call, timeout, keep, o) == 0) {
    o->call = call;
    o->submitted = 1;
  }
}

enum {
  ADD,
  BIG,
  TABLE,
  ERROR,
  LATE,
  CANCELLED,
  NESTED,
  ALL_WORKERS,
  SPAWNED,
  SHARED,
  CALLS
};

/* More buffers than the list of them begins with. */
static treadle_call *share(treadle_pool *pool) {
  treadle_buffer *b;
  treadle_call *call;
  if (treadle_buffer_new("double", 10, &b) != 0) {
    return NULL;
  }
  call = new_call(pool, "echo", 7);
  if (call != NULL) {
    for (int i = 0; i < 6; i++) {
      treadle_put_buffer(treadle_arguments(call), b);
    }
    treadle_put_number(treadle_arguments(call), 42);
    treadle_call_priority(call, TREADLE_HIGH);
  }
  treadle_buffer_drop(b);
  return call;
}

static void submit_all(treadle_pool *pool, outcome *out) {
  static const double numbers[30] = {1, 2, 3};
  static char text[100000];
  treadle_call *call;
  memset(text, 'x', sizeof(text));
  if ((call = new_call(pool, "add", 2)) != NULL) {
    treadle_put_number(treadle_arguments(call), 20);
    treadle_put_number(treadle_arguments(call), 22);
  }
  submit(call, &out[ADD], -1, 0);
  if ((call = new_call(pool, "echo", 2)) != NULL) {
    treadle_put_string(treadle_arguments(call), text, sizeof(text));
    treadle_put_number(treadle_arguments(call), 42);
  }
  submit(call, &out[BIG], 60, 0);
  if ((call = new_call(pool, "echo", 2)) != NULL) {
    treadle_put_table(treadle_arguments(call), 30, 1);
    treadle_put_numbers(treadle_arguments(call), numbers, 30);
    treadle_put_string(treadle_arguments(call), "key", 3);
    treadle_put_string(treadle_arguments(call), text, 1000);
    treadle_put_number(treadle_arguments(call), 42);
  }
  submit(call, &out[TABLE], -1, 0);
  submit(new_call(pool, "fail", 0), &out[ERROR], -1, TREADLE_ETASK);
  if ((call = new_call(pool, "wait", 1)) != NULL) {
    treadle_put_number(treadle_arguments(call), 1e6);
  }
  submit(call, &out[LATE], 0.002, TREADLE_ETIMEOUT);
  if ((call = new_call(pool, "wait", 1)) != NULL) {
    treadle_put_number(treadle_arguments(call), 1e6);
  }
  submit(call, &out[CANCELLED], -1, TREADLE_ECANCELLED);
  if ((call = new_call(pool, "fib", 1)) != NULL) {
    treadle_put_number(treadle_arguments(call), 4);
  }
  submit(call, &out[NESTED], -1, 0);
  submit(new_call(pool, "workers", 0), &out[ALL_WORKERS], -1, 0);
  if ((call = new_call(pool, "spawned", 1)) != NULL) {
    treadle_put_number(treadle_arguments(call), 5);
  }
  submit(call, &out[SPAWNED], -1, 0);
  submit(share(pool), &out[SHARED], -1, 0);
}

/* The outcome that belongs there; or, after a refusal, an error that says so:
** CLOSED where the second worker could not start, which ends the pool. */
static int is_right(const outcome *o, int i, int refusal) {
  static const double numbers[CALLS] = {
      [ADD] = 42,         [BIG] = 42,     [TABLE] = 42 + 6, [NESTED] = 3,
      [ALL_WORKERS] = 84, [SPAWNED] = 15, [SHARED] = 42};
  if (o->reports != o->submitted || (!o->submitted && !refusal)) {
    return 0;
  }
  return !o->submitted ||
         (o->status == o->expected && o->number == numbers[i]) ||
         (refusal &&
          (o->status == TREADLE_ENOMEM || o->status == TREADLE_ECLOSED ||
           (o->status == TREADLE_ETASK && strstr(o->text, "memory") != NULL)));
}

static int run_calls(treadle_loop *loop, treadle_pool *pool, int refusal) {
  outcome out[CALLS];
  int fine = 1, reports;
  memset(out, 0, sizeof(out));
  submit_all(pool, out);
  do { /* the other calls must not wait for the one that is given up last */
    treadle_poll(loop, 0.001);
    reports = 0;
    for (int i = 0; i < CALLS; i++) {
      reports += out[i].reports == out[i].submitted;
    }
  } while (reports < CALLS - out[CANCELLED].submitted);
  if (out[CANCELLED].submitted && out[CANCELLED].reports == 0) {
    /* without memory it may have ended, and its report is on its way */
    MUST(treadle_cancel(out[CANCELLED].call) == 0 || refusal);
  }
  treadle_pool_close(pool, -1);
  for (int i = 0; i < CALLS; i++) {
    if (!is_right(&out[i], i, refusal)) {
      printf("# call %d: submitted %d, reports %d, %s, %g, %s\n", i,
             out[i].submitted, out[i].reports,
             treadle_status_text(out[i].status), out[i].number, out[i].text);
      fine = 0;
    }
  }
  return fine;
}

static int run_program(int refusal) {
  treadle_pool_options o = {.module = "oom_tasks",
                            .path = "spec/support/?.lua",
                            .threads = 2,
                            .concurrency = 4};
  treadle_loop *loop;
  treadle_pool *pool;
  char error[400] = "";
  int fine = 1, status;
  refuse();
  status = treadle_loop_open(&loop);
  if (status != 0) {
    MUST(refusal && status == TREADLE_ENOMEM);
    return fine;
  }
  if (treadle_writer_new(1, &o.data) == 0) {
    treadle_put_text(o.data, "data");
  }
  status = treadle_pool_open(loop, &o, &pool, error, sizeof(error));
  treadle_writer_free(o.data);
  if (status == 0) {
    fine = run_calls(loop, pool, refusal);
  } else {
    MUST(refusal && (status == TREADLE_ENOMEM ||
                     (status == TREADLE_ELOAD && strstr(error, "memory"))));
    if (!fine) {
      printf("# %s: %s\n", treadle_status_text(status), error);
    }
  }
  treadle_loop_close(loop);
  return fine;
}
#endif

/* --- a Lua program ---------------------------------------------------------- */

static int begin_to_refuse(lua_State *L) {
  (void)L;
  refuse();
  return 0;
}

static int is_about_memory(lua_State *L) {
  const char *text;
  lua_getglobal(L, "tostring");
  lua_pushvalue(L, -2);
  text = lua_pcall(L, 1, 1, 0) == 0 ? lua_tostring(L, -1) : NULL;
  if (text == NULL || strstr(text, "memory") == NULL) {
    printf("# error: %s\n", text != NULL ? text : "?");
    return 0;
  }
  return 1;
}

/* With what the module of that name returns. */
static lua_State *new_host_of(const char *program) {
  lua_State *L = lua_newstate(host_allocate, NULL);
  luaL_openlibs(L);
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "preload");
  lua_pushcfunction(L, luaopen_treadle);
  lua_setfield(L, -2, "treadle");
  lua_pushliteral(L, "spec/support/?.lua");
  lua_setfield(L, -3, "path");
  lua_settop(L, 0);
  /* LuaJIT itself crashes in lua_close if it ran out of memory in there */
  /* LuaJIT does not survive a refusal while it compiles: treadle takes the
  ** compiled way, which is interpreted here */
  lua_pushstring(L, program);
  lua_setglobal(L, "program");
  if (luaL_dostring(L, "require 'ffi' require 'treadle' local it = "
                       "require(program) jit.off() return it") != 0) {
    printf("# %s\n", lua_tostring(L, -1));
  }
  return L;
}

static lua_State *new_host(void) {
  return new_host_of("oom_program");
}

/* The program that begins to count by itself. */
static int play_host(lua_State *L, int refusal) {
  int fine = 1;
  lua_getfield(L, 1, "run");
  lua_pushcfunction(L, begin_to_refuse);
  lua_pushboolean(L, refusal);
  if (lua_pcall(L, 2, 0, 0) != 0) {
    MUST(is_about_memory(L));
    MUST(refusal);
  }
  return fine;
}

static int run_and_settle(lua_State *L, int refusal) {
  int fine = play_host(L, refusal);
  relent();
  lua_getfield(L, 1, "settle");
  if (lua_pcall(L, 0, 0, 0) != 0) {
    printf("# settle: %s\n", lua_tostring(L, -1));
    fine = 0;
  }
  lua_close(L);
  return fine;
}

static int run_host(int refusal) {
  return run_and_settle(new_host(), refusal);
}

static int run_channels(int refusal) {
  return run_and_settle(new_host_of("oom_channels"), refusal);
}

static int run_streams(int refusal) {
  return run_and_settle(new_host_of("oom_streams"), refusal);
}

static int run_waits(int refusal) {
  return run_and_settle(new_host_of("oom_waits"), refusal);
}

/* A host left in the middle. */
static int run_host_and_leave(int refusal) {
  lua_State *L = new_host();
  int fine = play_host(L, refusal);
  lua_close(L);
  return fine;
}

/* The module alone. */
static int run_require(int refusal) {
  lua_State *L = new_host();
  int fine = 1;
  lua_getglobal(L, "require");
  lua_pushliteral(L, "treadle");
  refuse();
  if (lua_pcall(L, 1, 0, 0) != 0) {
    MUST(is_about_memory(L));
    MUST(refusal);
  }
  relent();
  lua_close(L);
  return fine;
}

/* --- the codec -------------------------------------------------------------- */

static const char values_text[] =
    "local codec, ffi = ...\n"
    "local Point, Packed = {}, {}\n"
    "codec.class('point', Point)\n"
    "codec.class('packed', Packed, function(p) return { p.x, print } end,\n"
    "  function(t) return setmetatable({ x = t[1] }, Packed) end)\n"
    "local cycle = { name = 'cycle' }\n"
    "cycle.cycle = cycle\n"
    "local deep = {}\n"
    "for _ = 1, 300 do deep = { deep } end\n"
    "local numbers, objects = {}, {}\n"
    "for i = 1, 500 do numbers[i] = i / 3 end\n"
    "for i = 1, 100 do objects[i] = { i, cycle } end\n"
    "local n = 1\n"
    "local function count(k) n = n + k return k > 0 and count(k - 1) or n end\n"
    "return 1, ('x'):rep(3000), cycle, deep, numbers, objects, count,\n"
    "  function() return n, cycle end, string.format, string, 5LL,\n"
    "  ffi.new('double[3]', 1, 2, 3), ffi.new('complex', 1, 2),\n"
    "  setmetatable({ x = 1 }, Point), setmetatable({ x = 2 }, Packed), nil\n";

static const char check_text[] =
    "local n = select('#', ...)\n"
    "local t = { ... }\n"
    "assert(n == 16 and #t[2] == 3000 and t[3].cycle == t[3])\n"
    "for _ = 1, 300 do t[4] = t[4][1] end\n"
    "assert(next(t[4]) == nil and t[5][500] == 500 / 3)\n"
    "assert(t[6][100][2] == t[3] and t[7](3) == 7 and t[8]() == 7)\n"
    "assert(t[9] == string.format and t[10].rep == string.rep)\n"
    "assert(t[11] == 5)\n"
    "assert(t[12][2] == 3 and t[13].im == 2 and t[14].x == 1)\n"
    "assert(t[15].x == 2)\n";

static tdl_bytes payload;

/* The values lie on the stack; leaves what came of them, or raises. */
static int there_and_back(lua_State *L) {
  int n = lua_gettop(L);
  int fine = 1, got;
  refuse();
  payload.len = 0;
  if (tdl_encode(L, 1, n, "arguments", &payload, 1u << 30) != 0) {
    MUST(lua_gettop(L) == n + 1 && payload.len == 0);
    return fine ? lua_error(L) : 0;
  }
  MUST(lua_gettop(L) == n);
  got = tdl_decode(L, payload.data, payload.len);
  MUST(lua_gettop(L) == n + (got < 0 ? 1 : got));
  return got < 0 ? lua_error(L) : fine ? got : 0;
}

/* 1: it went well; 0: it raised, the error is on top. */
static int try_codec(lua_State *L) {
  lua_settop(L, 1); /* the list of values */
  lua_pushcfunction(L, there_and_back);
  for (int i = 1; i <= 16; i++) {
    lua_rawgeti(L, 1, i);
  }
  return lua_pcall(L, 16, LUA_MULTRET, 0) == 0;
}

static int run_codec(int refusal) {
  lua_State *L = new_host();
  int fine = 1, n;
  lua_settop(L, 0);
  tdl_bytes_init(&payload, NULL, 0);
  lua_newtable(L);
  MUST(luaL_loadstring(L, values_text) == 0);
  lua_pushcfunction(L, luaopen_codec_module);
  lua_call(L, 0, 1);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "ffi");
  lua_call(L, 1, 1);
  MUST(lua_pcall(L, 2, 16, 0) == 0);
  for (int i = 16; i > 0; i--) {
    lua_rawseti(L, 1, i);
  }
  if (!try_codec(L)) {
    MUST(is_about_memory(L));
    MUST(refusal);
  }
  relent();
  refused_request = -1;
  if (!try_codec(L)) {
    printf("# later: %s\n", lua_tostring(L, -1));
    fine = 0;
  } else {
    n = lua_gettop(L) - 1;
    MUST(luaL_loadstring(L, check_text) == 0);
    lua_insert(L, 2);
    if (lua_pcall(L, n, 0, 0) != 0) {
      printf("# later: %s\n", lua_tostring(L, -1));
      fine = 0;
    }
  }
  tdl_bytes_reset(&payload, NULL, 0);
  lua_close(L);
  return fine;
}

/* --- main ------------------------------------------------------------------ */

static const sweep sweeps[] = {
#ifdef TDL_TEST_ALLOC
    {"program", OWN, 1, run_program},
    {"program_in_workers", WORKERS, 1, run_program},
    {"host_own", OWN, 1, run_host},
    {"host_own_and_leave", OWN, 10, run_host_and_leave},
    {"host_workers", WORKERS, 1, run_host},
    {"codec_own", OWN, 1, run_codec},
    {"channels_own", OWN, 1, run_channels},
    {"streams_own", OWN, 1, run_streams},
    {"streams_workers", WORKERS, 1, run_streams},
#endif
    {"codec_state", HOST, 1, run_codec},
    {"require", HOST, 1, run_require},
    {"channels_state", HOST, 1, run_channels},
    {"streams_state", HOST, 1, run_streams},
    {"waits_state", HOST, 1, run_waits},
    {"host_state", HOST, 1, run_host},
    {"host_state_and_leave", HOST, 10, run_host_and_leave},
};

static int is_sweep(const char *name) {
  for (size_t i = 0; i < sizeof(sweeps) / sizeof(sweeps[0]); i++) {
    if (strcmp(sweeps[i].name, name) == 0) {
      return 1;
    }
  }
  return 0;
}

int main(int argc, char **argv) {
  count_threads();
  signal(SIGALRM, bark);
  srandom(check_seed());
  if (argc > 1 && !is_sweep(argv[1])) {
    argc = 1; /* what is meant for other programs */
  }
  for (size_t i = 0; i < sizeof(sweeps) / sizeof(sweeps[0]); i++) {
    if (argc > 1 && strcmp(sweeps[i].name, argv[1]) != 0) {
      continue;
    }
    if (argc < 3) {
      run_sweep(&sweeps[i]);
    } else {
      run_with(&sweeps[i], LONG_MAX, 1);
      run_with(&sweeps[i], atol(argv[2]), 0);
      check_any_failed |= check_failed;
    }
  }
  return check_any_failed;
}
