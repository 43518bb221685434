/* What may be among the values of a payload for another process: buffers whose
** memory it can have. Everything else that is shared is refused, with its path. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "codec/codec.h"
#include "codec/payload.h"
#include "config.h"
#include "run/crossing.h"
#include "run/line.h"
#include "share/buffer.h"
#include "treadle.h"

int luaopen_treadle(lua_State *L); /* bind/core.c */

/* cross(...) -> how many shared things the payload has, and whether each is a
** buffer with a descriptor; or nil, message */
static int l_cross(lua_State *L) {
  tdl_bytes bytes;
  size_t size;
  uint32_t n = 0;
  int with_descriptor = 1;
  tdl_bytes_init(&bytes, NULL, 0);
  if (tdl_encode_to(L, 1, lua_gettop(L), "arguments", &bytes,
                    TDL_PAYLOAD_CEILING_BYTES, TDL_TO_PROCESS) != 0) {
    tdl_bytes_reset(&bytes, NULL, 0);
    lua_pushnil(L);
    lua_insert(L, -2);
    return 2;
  }
  if (bytes.data[0] & TDL_WIRE_THINGS) {
    n = tdl_payload_things(bytes.data, bytes.len, &size);
  }
  for (uint32_t i = 0; i < n; i++) {
    const tdl_counted *thing = tdl_payload_thing(bytes.data, bytes.len, i);
    with_descriptor &= thing->kind == &tdl_buffer_kind &&
                       tdl_buffer_fd((const tdl_buffer *)thing) >= 0;
  }
  tdl_payload_clear(&bytes);
  tdl_bytes_reset(&bytes, NULL, 0);
  lua_pushnumber(L, n);
  lua_pushboolean(L, with_descriptor);
  return 2;
}

/* Runs a program that has `treadle`, `cross`, and `refused(text, ...)`. */
static int run(const char *program) {
  lua_State *L = luaL_newstate();
  int status;
  luaL_openlibs(L);
  lua_pushcfunction(L, luaopen_treadle);
  lua_pushliteral(L, "treadle");
  lua_call(L, 1, 1);
  lua_setglobal(L, "treadle");
  lua_pushcfunction(L, l_cross);
  lua_setglobal(L, "cross");
  status = luaL_dostring(
               L, "function refused(text, ...)\n"
                  "  local n, message = cross(...)\n"
                  "  assert(n == nil and message == 'cannot send to another '\n"
                  "    .. 'process ' .. text, message)\n"
                  "end\n") ||
           luaL_dostring(L, program);
  if (status != 0) {
    printf("# %s\n", lua_tostring(L, -1));
  }
  lua_close(L);
  return status == 0;
}

static void plain_values_cross(void) {
  CHECK(run("assert(cross() == 0)\n"
            "assert(cross(1, 'text', { { 2 } }, print) == 0)\n"
            "assert(cross(function() return treadle end) == 0)\n"));
}

static void buffers_for_processes_cross(void) {
  CHECK(run("local b = treadle.buffer('int', 9, { process = true })\n"
            "local n, fine = cross(b, { at = b, part = b:slice(3) })\n"
            "assert(n == 2 and fine)\n"
            "n, fine = cross({ treadle.move(b) })\n"
            "assert(n == 1 and fine and #b == 9)\n"));
}

static void other_buffers_do_not(void) {
  CHECK(run("local text = \"a buffer that was made without the option \"\n"
            "  .. \"'process' (arguments[%s])\"\n"
            "local b = treadle.buffer('int', 9)\n"
            "local far = treadle.buffer('int', 9, { process = true })\n"
            "refused(text:format '1', b)\n"
            "refused(text:format '2].pixels[1', far, { pixels = { b } })\n"
            "refused(text:format '1', treadle.move(b:slice(1)))\n"
            "assert(#b == 9)\n"));
}

static void what_is_of_this_process_is_refused_with_its_path(void) {
  CHECK(run(
      "for text, thing in pairs {\n"
      "  ['a channel'] = treadle.channel(), ['a mutex'] = treadle.mutex(),\n"
      "  ['an event'] = treadle.event(), ['a counter'] = treadle.counter(),\n"
      "  ['a rwlock'] = treadle.rwlock(), ['a barrier'] = treadle.barrier(2),\n"
      "  ['a semaphore'] = treadle.semaphore(1),\n"
      "  ['a shared table'] = treadle.shared { { 1 } },\n"
      "} do\n"
      "  refused(text .. ' (arguments[1])', thing)\n"
      "  refused(text .. ' (arguments[2].x.lock)', 1, { x = { lock = thing } "
      "})\n"
      "  refused(text .. \" (arguments[1] upvalue 'thing')\",\n"
      "    function() return thing end)\n"
      "  local deep = { thing }\n"
      "  for _ = 1, 500 do deep = { deep } end\n"
      "  local n, message = cross(deep)\n"
      "  assert(n == nil and message:find('process ' .. text, 1, true))\n"
      "end\n"
      "refused('a shared table (arguments[1])', treadle.shared { { 1 } "
      "}[1])\n"));
}

static void what_no_state_gets_is_refused_as_ever(void) {
  CHECK(run("local e = treadle.event()\n"
            "e:close()\n"
            "local n, message = cross(e)\n"
            "assert(message == 'cannot send a closed handle (arguments[1])')\n"
            "n, message = cross(coroutine.create(print))\n"
            "assert(message == 'cannot send a coroutine (arguments[1])')\n"));
}

enum { VIEWS = 100000 };

static void *send_views(void *arg) {
  const int *line = arg;
  uint32_t view[64] = {TDL_LINE_VIEW}; /* longer than any message's head */
  for (int sent = 0; sent < VIEWS;) {
    sent += tdl_line_send(*line, view, sizeof(view)) == 0;
  }
  return NULL;
}

static int take_view(void *ctx, int line) {
  uint32_t view[64];
  int *taken = ctx;
  *taken += tdl_line_take(line, view, sizeof(view)) == sizeof(view);
  return 1;
}

/* It was received as a message if it came when nobody had seen it come. */
static void a_view_is_a_view_whenever_it_comes(void) {
  tdl_crossing *c;
  tdl_message m;
  pthread_t thread;
  int ends[2], taken = 0, heard = 0;
  CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) == 0);
  CHECK(tdl_crossing_new(ends[0], 1, &c) == 0);
  tdl_crossing_pass_views(c, take_view, &taken);
  CHECK(pthread_create(&thread, NULL, send_views, &ends[1]) == 0);
  while (taken < VIEWS && heard == 0) {
    heard = tdl_crossing_hear(c, &m);
  }
  CHECK(heard == 0 && taken == VIEWS);
  close(ends[1]);
  pthread_join(thread, NULL);
  CHECK(tdl_crossing_hear(c, &m) == TREADLE_ECLOSED);
  tdl_crossing_cut(c);
  tdl_crossing_end(c);
  close(ends[0]);
}

int main(void) {
  RUN(plain_values_cross);
  RUN(buffers_for_processes_cross);
  RUN(other_buffers_do_not);
  RUN(what_is_of_this_process_is_refused_with_its_path);
  RUN(what_no_state_gets_is_refused_as_ever);
  RUN(a_view_is_a_view_whenever_it_comes);
  return check_any_failed;
}
