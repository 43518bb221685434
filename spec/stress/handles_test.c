/* Handles of shared objects against every order of closing: in each round a Lua
** state is opened, a seed decides what its program does with handles (they
** travel, are raised, held, refused half-way, waited for, in upvalues, in
** `data`, in results that nobody takes, in calls that are cancelled), how it
** ends, and it is closed, perhaps around all that. After each round every block
** is free again.
**
** TDL_SEED repeats a run, one round of it: `handles_test ROUND`. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "../c/check.h"
#include "treadle.h"

int luaopen_treadle(lua_State *L); /* bind/core.c */

#ifndef TDL_HANDLES_ROUNDS
#define TDL_HANDLES_ROUNDS 60
#endif

/* Looks at what is left, a millisecond apart. */
#define LOOKS 20000

/* A round takes some hundredths of a second, with a sanitizer a second. */
#define WATCHDOG_SECONDS 120

static uint64_t state; /* splitmix64 */

static uint64_t next_random(void) {
  uint64_t z = (state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/* random() -> below 1; random(n) -> 1 to n */
static int l_random(lua_State *L) {
  if (lua_isnoneornil(L, 1)) {
    lua_pushnumber(L, (double)(next_random() >> 11) / 9007199254740992.0);
  } else {
    uint64_t n = (uint64_t)luaL_checknumber(L, 1);
    lua_pushnumber(L, (double)(next_random() % n + 1));
  }
  return 1;
}

static int l_log(lua_State *L) {
  if (getenv("TDL_VERBOSE") != NULL) {
    printf("# %s\n", luaL_checkstring(L, 1));
  }
  return 0;
}

static const char program[] =
    "package.path = 'spec/support/?.lua;' .. package.path\n"
    "local random, log, may_compute = ...\n"
    "require('handles_program').run(random, log, may_compute)\n";

/* The thread sanitizer holds a signal back from code that only computes. */
#ifdef __SANITIZE_THREAD__
#define MAY_COMPUTE 0
#else
#define MAY_COMPUTE 1
#endif

static int run_round(void) {
  lua_State *L = luaL_newstate();
  int status;
  luaL_openlibs(L);
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "preload");
  lua_pushcfunction(L, luaopen_treadle);
  lua_setfield(L, -2, "treadle");
  lua_settop(L, 0);
  status = luaL_loadbuffer(L, program, sizeof(program) - 1, "=round");
  lua_pushcfunction(L, l_random);
  lua_pushcfunction(L, l_log);
  lua_pushboolean(L, MAY_COMPUTE);
  if (status == 0) {
    status = lua_pcall(L, 3, 0, 0);
  }
  if (status != 0) {
    printf("# %s\n", lua_tostring(L, -1));
  }
  if (next_random() % 2 == 0) { /* else its end collects them, in any order */
    lua_gc(L, LUA_GCCOLLECT, 0);
  }
  lua_close(L);
  return status == 0;
}

static unsigned seed;
static int only = -1;

static int is_free(long blocks) {
  for (int i = 0; i < LOOKS && tdl_alloc_live() != blocks; i++) {
    poll(NULL, 0, 1);
  }
  return tdl_alloc_live() == blocks;
}

static void bark(int signal) {
  static const char text[] = "not ok: it hangs\n";
  ssize_t written = write(1, text, sizeof(text) - 1);
  (void)signal;
  (void)written;
  _exit(1);
}

static void every_handle_is_freed_in_every_order_of_closing(void) {
  int first = only >= 0 ? only : 0;
  int last = only >= 0 ? only : TDL_HANDLES_ROUNDS - 1;
  long blocks = tdl_alloc_live();
  for (int round = first; round <= last; round++) {
    state = seed * 1000003ull + (unsigned)round;
    alarm(WATCHDOG_SECONDS);
    if (!run_round() || !is_free(blocks)) {
      printf("# round %d: %ld blocks, %ld before\n", round, tdl_alloc_live(),
             blocks);
      CHECK(!"everything is free");
    }
    alarm(0);
  }
}

int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  signal(SIGALRM, bark);
  seed = check_seed();
  if (argc > 1) {
    only = atoi(argv[1]);
  }
  RUN(every_handle_is_freed_in_every_order_of_closing);
  return check_any_failed;
}
