/* The treadle command: a Lua state, the runtime preloaded, and Ctrl-C. What it
** does is in lua/treadle/command.lua. */
#include <errno.h>
#include <lauxlib.h>
#include <lua.h>
#include <luajit.h>
#include <lualib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include <uv.h>

#include "../bind/bind.h"
#include "../run/child.h"
#include "../run/heap.h"
#include "../run/loop.h"
#include "../run/spawn.h"
#include "../treadle.h"
#include "children.h"
#include "live.h"

#define EXIT_INTERRUPTED 130
#define RUN_PLAIN        "%test-file" /* suite.lua knows the word */

/* From Ctrl-C to the end at the latest, whatever runs then. */
#define INTERRUPT_LIMIT_US 800000

int luaopen_treadle(lua_State *L); /* bind/core.c */

static lua_State *volatile main_state;   /* NULL once it is being closed */
static treadle_loop *volatile main_loop; /* with a reference of its own */
static volatile sig_atomic_t interrupted;

/* --- Ctrl-C --------------------------------------------------------------- */

/* 1: luv's loop runs, and raises the error at its end (luv_loop.lua). */
static int is_kept(lua_State *L) {
  int kept;
  lua_getfield(L, LUA_REGISTRYINDEX, "treadle.luv.keep");
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    return 0;
  }
  lua_pushvalue(L, -2);
  lua_call(L, 1, 1);
  kept = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return kept;
}

static void stop_hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  lua_sethook(L, NULL, 0, 0);
  lua_pushliteral(L, "interrupted"); /* command.lua knows the word */
  if (!is_kept(L)) {
    lua_error(L);
  }
  lua_pop(L, 1);
}

static void on_alarm(int sig) {
  (void)sig;
  _exit(EXIT_INTERRUPTED);
}

/* Lua code is stopped by a hook, as LuaJIT's own command does it; a state that
** sleeps is woken, for libuv goes back to sleep after a signal. Compiled loops
** and C functions see no hook: for them there is the alarm, as there is for a
** second Ctrl-C. */
static void on_interrupt(int sig) {
  struct itimerval limit = {{0, 0}, {0, INTERRUPT_LIMIT_US}};
  lua_State *L = main_state;
  treadle_loop *loop = main_loop;
  int error = errno;
  interrupted = 1;
  signal(sig, on_alarm);
  signal(SIGALRM, on_alarm);
  setitimer(ITIMER_REAL, &limit, NULL);
  if (L != NULL) {
    lua_sethook(L, stop_hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 1);
  }
  if (loop != NULL) {
    tdl_loop_ring(loop);
  }
  errno = error;
}

static void catch_interrupt(void) {
  struct sigaction action;
  memset(&action, 0, sizeof(action));
  action.sa_handler = on_interrupt; /* no SA_RESTART: waits must return */
  sigaction(SIGINT, &action, NULL);
}

/* --- the state ------------------------------------------------------------ */

typedef struct arguments {
  int argc;
  char **argv;
  int code;
} arguments;

static int traceback(lua_State *L) {
  if (lua_isstring(L, 1)) {
    luaL_traceback(L, L, lua_tostring(L, 1), 1);
  }
  return 1;
}

/* Fills package.preload; require then finds it in this program. */
static void preload(lua_State *L) {
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "preload");
  lua_pushcfunction(L, luaopen_treadle);
  lua_setfield(L, -2, "treadle");
  lua_pushcfunction(L, tdl_live_load);
  lua_setfield(L, -2, "treadle.live");
  lua_pushcfunction(L, tdl_children_load);
  lua_setfield(L, -2, "treadle.children");
  lua_pop(L, 2);
}

static int forget_state(lua_State *L) {
  (void)L;
  main_state = NULL;
  return 0;
}

/* A signal may come when the state is freed, and a script may close it itself
** (os.exit with true): only the collector is there in each case. */
static void watch_end(lua_State *L) {
  lua_newuserdata(L, 1);
  lua_newtable(L);
  lua_pushcfunction(L, forget_state);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  luaL_ref(L, LUA_REGISTRYINDEX);
}

/* Whoever rings has a reference: Ctrl-C may come when the state is gone. */
static void drop_loop(void) {
  treadle_loop *loop = main_loop;
  main_loop = NULL;
  if (loop != NULL) {
    tdl_loop_drop(loop);
  }
}

/* A nursery of `treadle test` (children.c), which forks: treadle is not there
** until a script asks for it, for it does not survive that. */
static int run_plain(lua_State *L, arguments *a) {
  int is_loaded = luaL_loadfile(L, a->argv[2]) == 0;
  if (!is_loaded || lua_pcall(L, 0, 0, 0) != 0) {
    fprintf(stderr, "treadle: %s\n", lua_tostring(L, -1));
  } else {
    a->code = EXIT_SUCCESS;
  }
  return 0;
}

static int protected_main(lua_State *L) {
  arguments *a = lua_touserdata(L, 1);
  lua_settop(L, 0);
  watch_end(L);
  luaL_openlibs(L);
  preload(L);
  if (a->argc > 2 && strcmp(a->argv[1], RUN_PLAIN) == 0) {
    return run_plain(L, a);
  }
  lua_pushcfunction(L, traceback);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "treadle");
  lua_call(L, 1, 0);
  tdl_loop_hold(tdl_bind_of(L)->loop);
  main_loop = tdl_bind_of(L)->loop;
  lua_getglobal(L, "require");
  lua_pushliteral(L, "treadle.command");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "main");
  lua_pushfstring(L, "treadle %s (%s, libuv %s)", TREADLE_VERSION,
                  LUAJIT_VERSION, uv_version_string());
  luaL_checkstack(L, a->argc, "too many arguments");
  for (int i = 1; i < a->argc; i++) {
    lua_pushstring(L, a->argv[i]);
  }
  if (lua_pcall(L, a->argc, 1, 1) != 0) {
    fprintf(stderr, "treadle: %s\n",
            lua_isstring(L, -1) ? lua_tostring(L, -1) : "error object");
    a->code = EXIT_FAILURE;
  } else {
    a->code = (int)lua_tointeger(L, -1);
  }
  return 0;
}

int main(int argc, char **argv) {
  arguments a = {argc, argv, EXIT_FAILURE};
  tdl_heap heap;
  lua_State *L;
  if (argc == 2 && strcmp(argv[1], TDL_SPAWN_ARGUMENT) == 0) {
    return tdl_child_main();
  }
  L = tdl_heap_open(&heap, TDL_HEAP_KEEP_BYTES);
  if (L == NULL) {
    fputs("treadle: not enough memory\n", stderr);
    return EXIT_FAILURE;
  }
  main_state = L;
  catch_interrupt();
  if (lua_cpcall(L, protected_main, &a) != 0) {
    fprintf(stderr, "treadle: %s\n", lua_tostring(L, -1));
    a.code = EXIT_FAILURE;
  }
  fflush(stdout);
  tdl_heap_close(&heap, L);
  drop_loop();
  return interrupted ? EXIT_INTERRUPTED : a.code;
}
