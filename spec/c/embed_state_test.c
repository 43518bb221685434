/* treadle.h beside a Lua state of the program's own: luaopen_treadle, the state's
** loop, and calls from C on pools that its script has opened. */
#include <lauxlib.h>
#include <lualib.h>
#include <string.h>

#include "treadle.h"

#include "check.h"
#include "embed_kit.h"

static lua_State *open_state(void) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "preload");
  lua_pushcfunction(L, luaopen_treadle);
  lua_setfield(L, -2, "treadle");
  lua_settop(L, 0);
  return L;
}

static int script(lua_State *L, const char *text) {
  int status = luaL_dostring(L, text);
  if (status != 0) {
    printf("# %s\n", lua_tostring(L, -1));
  }
  return status == 0;
}

static treadle_call *begin_text(treadle_pool *pool, const char *task,
                                const char *text) {
  treadle_call *call = NULL;
  if (treadle_call_new(pool, treadle_pool_task(pool, task), 1, &call) == 0) {
    treadle_put_text(treadle_arguments(call), text);
  }
  return call;
}

static treadle_pool *global_pool(lua_State *L, const char *name) {
  treadle_pool *pool;
  lua_getglobal(L, name);
  pool = treadle_state_pool(L, -1);
  lua_pop(L, 1);
  return pool;
}

static void calls_from_c_and_from_lua_share_a_pool(void) {
  lua_State *L = open_state();
  treadle_pool *pool;
  outcome out = {0};
  CHECK(script(L, "treadle = require 'treadle'\n"
                  "pool = treadle.pool('string', { threads = 2 })"));
  pool = global_pool(L, "pool");
  CHECK(pool != NULL);
  CHECK(treadle_pool_task(pool, "nope") == TREADLE_EINVAL);
  CHECK(treadle_pool_task_count(pool) > 5);
  for (int i = 0; i < 200; i++) {
    CHECK(treadle_submit(begin_text(pool, "len", "four"), -1, keep, &out) == 0);
    if (i % 10 == 0) {
      CHECK(script(L, "f = pool.call.upper('x')\n"
                      "assert(f:await() == 'X')"));
    }
  }
  while (out.calls < 200) {
    CHECK(treadle_state_poll(L, 1) >= 0);
  }
  CHECK(out.status == 0 && out.number[0] == 4);
  CHECK(lua_gettop(L) == 0);
  treadle_pool_release(pool);
  lua_close(L);
}

static void a_script_that_awaits_runs_the_callbacks(void) {
  lua_State *L = open_state();
  treadle_pool *pool;
  outcome out = {0};
  CHECK(script(L, "treadle = require 'treadle'\n"
                  "pool = treadle.pool('string', { threads = 1 })"));
  pool = global_pool(L, "pool");
  CHECK(treadle_submit(begin_text(pool, "len", "seven x"), -1, keep, &out) ==
        0);
  /* behind it in the queue of the only worker */
  CHECK(script(L, "treadle.run(function()\n"
                  "  assert(pool.call.len('abc'):await() == 3) end)"));
  CHECK(out.calls == 1 && out.number[0] == 7);
  treadle_pool_release(pool);
  lua_close(L);
}

static void options_of_the_scripts_tasks_and_pool_hold(void) {
  lua_State *L = open_state();
  treadle_pool *pool;
  treadle_call *call;
  outcome out = {0}, other = {0};
  CHECK(script(
      L, "treadle = require 'treadle'\n"
         "local nap = function() require('treadle').sleep(60) end\n"
         "pool = treadle.pool({ brief = treadle.task { fn = nap,\n"
         "  timeout = 0.01 }, nap = nap }, { threads = 1, max_queue = 1 })"));
  pool = global_pool(L, "pool");
  CHECK(treadle_pool_room(pool) == 2);
  CHECK(treadle_submit(begin_text(pool, "brief", ""), -1, keep, &out) == 0);
  while (out.calls == 0) {
    CHECK(treadle_state_poll(L, 1) >= 0);
  }
  CHECK(out.status == TREADLE_ETIMEOUT);
  while (treadle_pool_room(pool) != 2) {
    CHECK(treadle_state_poll(L, 0.001) >= 0);
  }
  call = begin_text(pool, "nap", "");
  CHECK(treadle_submit(call, -1, keep, &other) == 0);
  CHECK(treadle_submit(begin_text(pool, "nap", ""), -1, keep, &out) == 0);
  CHECK(treadle_submit(begin_text(pool, "nap", ""), -1, keep, &out) ==
        TREADLE_EQUEUEFULL);
  CHECK(treadle_cancel(call) == 0 && other.status == TREADLE_ECANCELLED);
  CHECK(script(L, "pool:terminate()"));
  CHECK(out.calls == 2 && out.status == TREADLE_ECLOSED);
  CHECK(treadle_submit(begin_text(pool, "nap", ""), -1, keep, &out) == 0);
  CHECK(script(L, "pool:close()"));
  while (out.calls == 2) { /* a closed pool refuses */
    CHECK(treadle_state_poll(L, 1) >= 0);
  }
  CHECK(out.calls == 3 && out.status == TREADLE_ECLOSED);
  CHECK(global_pool(L, "pool") == NULL);
  treadle_pool_release(pool);
  lua_close(L);
}

static void a_state_that_ends_settles_the_calls_from_c(void) {
  lua_State *L = open_state();
  treadle_pool *pool;
  outcome out = {0};
  CHECK(script(L, "treadle = require 'treadle'\n"
                  "pool = treadle.pool({ nap = function()\n"
                  "  require('treadle').sleep(60) end }, { threads = 1 })"));
  pool = global_pool(L, "pool");
  CHECK(treadle_submit(begin_text(pool, "nap", ""), -1, keep, &out) == 0);
  CHECK(treadle_submit(begin_text(pool, "nap", ""), -1, keep, &out) == 0);
  treadle_pool_release(pool);
  CHECK(out.calls == 0);
  lua_close(L);
  CHECK(out.calls == 2 && out.status == TREADLE_ECLOSED);
}

static void a_pool_of_the_scripts_is_not_cs_to_end(void) {
  lua_State *L = open_state();
  treadle_pool *pool;
  outcome out = {0};
  CHECK(script(L, "treadle = require 'treadle'\n"
                  "pool = treadle.pool('string', { threads = 1 })"));
  pool = global_pool(L, "pool");
  CHECK(treadle_submit(begin_text(pool, "len", "four"), -1, keep, &out) == 0);
  CHECK(treadle_pool_close(pool, -1) == TREADLE_EINVAL);
  CHECK(treadle_pool_close(pool, 0) == TREADLE_EINVAL);
  CHECK(treadle_pool_terminate(pool) == TREADLE_EINVAL);
  while (out.calls == 0) {
    CHECK(treadle_state_poll(L, 1) >= 0);
  }
  CHECK(out.status == 0 && out.number[0] == 4);
  CHECK(script(L, "assert(pool.call.upper('x'):await() == 'X')\n"
                  "pool:close()"));
  treadle_pool_release(pool);
  lua_close(L);
}

static void the_states_loop_is_the_scripts_to_poll(void) {
  lua_State *L = open_state();
  treadle_pool_options o = {.module = "string"};
  treadle_loop *loop = treadle_state_loop(L);
  treadle_pool *pool;
  char error[100];
  CHECK(treadle_state_poll(L, -1) == 0); /* nobody has required the module */
  CHECK(loop != NULL && loop == treadle_state_loop(L));
  CHECK(treadle_poll(loop, 0) == TREADLE_EINVAL);
  CHECK(treadle_poll_for(loop, 1) == TREADLE_EINVAL);
  CHECK(treadle_arm(loop) == TREADLE_EINVAL);
  CHECK(treadle_pool_open(loop, &o, &pool, error, sizeof(error)) ==
        TREADLE_EINVAL);
  CHECK(strstr(error, "loop") != NULL);
  CHECK(treadle_fd(loop) >= 0);
  CHECK(treadle_next_timeout(loop) < 0);
  CHECK(script(L, "treadle = require 'treadle'\n"
                  "assert(treadle.core == nil)\n"
                  "timer = treadle.spawn(treadle.sleep, 60)"));
  CHECK(treadle_next_timeout(loop) > 1 && treadle_next_timeout(loop) < 61);
  CHECK(treadle_ready(loop) == 0);
  treadle_loop_close(loop); /* is the state's: nothing happens */
  CHECK(script(L, "timer:cancel()"));
  lua_close(L);
}

static void an_error_of_the_script_comes_out_of_the_poll(void) {
  lua_State *L = open_state();
  CHECK(script(L, "treadle = require 'treadle'\n"
                  "treadle.poll = function() error('from the script') end"));
  CHECK(treadle_state_poll(L, 0) == TREADLE_ETASK);
  CHECK(strstr(lua_tostring(L, -1), "from the script") != NULL);
  lua_settop(L, 0);
  lua_pushnumber(L, 1);
  CHECK(treadle_state_pool(L, 1) == NULL);
  lua_newtable(L);
  CHECK(treadle_state_pool(L, -1) == NULL);
  lua_close(L);
}

int main(void) {
  RUN(calls_from_c_and_from_lua_share_a_pool);
  RUN(a_script_that_awaits_runs_the_callbacks);
  RUN(options_of_the_scripts_tasks_and_pool_hold);
  RUN(a_state_that_ends_settles_the_calls_from_c);
  RUN(a_pool_of_the_scripts_is_not_cs_to_end);
  RUN(the_states_loop_is_the_scripts_to_poll);
  RUN(an_error_of_the_script_comes_out_of_the_poll);
  return check_any_failed;
}
