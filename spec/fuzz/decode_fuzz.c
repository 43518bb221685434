/* decode_fuzz: libFuzzer over the decoder, without code.
** Threads: one.
** Owns:    one Lua state for many inputs, so that what one leaves behind is
**          what the next one finds; a new one now and then.
** Fails:   by crashing, which is the point.
**
** Tables are gone through in place first, then by the Lua API alone.
**
** What is decoded is encoded and decoded again: the second payload comes
** from the encoder and must be accepted. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>

#include "../../src/bind/codec_bind.h"
#include "../../src/codec/codec.h"
#include "../../src/codec/raw.h"

/* Inputs that one state sees: LuaJIT never forgets an FFI type. */
#define INPUTS_PER_STATE 20000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char setup[] =
    "local codec = ...\n"
    "local ffi = require 'ffi'\n"
    "ffi.cdef [[ struct point { double x, y; };\n"
    "  struct pair { struct point a; float f[3]; int n; }; ]]\n"
    "codec.class('P', {})\n"
    "local S = {}\n"
    "codec.class('S', S, function(o) return o[1] end,\n"
    "  function(v) return setmetatable({ v }, S) end)\n";

static int open_state(lua_State *state) {
  luaL_openlibs(state);
  if (luaL_loadbuffer(state, setup, sizeof(setup) - 1, "=setup") != 0) {
    return lua_error(state);
  }
  lua_newtable(state);
  tdl_bind_codec(state);
  lua_call(state, 1, 0);
  return 0;
}

struct input {
  const uint8_t *data;
  size_t size;
};

static int run(lua_State *state) {
  const struct input *in = lua_touserdata(state, 1);
  tdl_bytes out;
  int top = lua_gettop(state);
  int n = tdl_decode_flags(state, in->data, in->size, TDL_DECODE_NO_CODE);
  if (n < 0) {
    if (lua_gettop(state) != top + 1 || !lua_isstring(state, -1)) {
      abort();
    }
    return 0;
  }
  if (lua_gettop(state) != top + n) {
    abort();
  }
  tdl_bytes_init(&out, NULL, 0);
  if (tdl_encode(state, top + 1, n, "values", &out, 1u << 30) == 0) {
    int again = tdl_decode_flags(state, out.data, out.len, TDL_DECODE_NO_CODE);
    if (again != n) {
      fprintf(stderr, "%s\n", again < 0 ? lua_tostring(state, -1) : "count");
      abort();
    }
  }
  tdl_bytes_reset(&out, NULL, 0);
  return 0;
}

static lua_State *L;

/* Also at exit, so that a leak checker then sees leaks only. */
static void close_state(void) {
  if (L != NULL) {
    lua_close(L);
    L = NULL;
  }
}

static void make_state(void) {
  static int is_registered;
  L = luaL_newstate();
  if (L == NULL || lua_cpcall(L, open_state, NULL) != 0) {
    abort();
  }
  if (!is_registered) {
    is_registered = atexit(close_state) == 0;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static unsigned count;
  struct input in = {data, size};
  if (count++ % INPUTS_PER_STATE == 0) {
    close_state();
    make_state();
  }
  for (int raw = 1; raw >= 0; raw--) {
    tdl_raw_use(raw);
    if (lua_cpcall(L, run, &in) != 0) {
      const char *message = lua_tostring(L, -1);
      fprintf(stderr, "raised: %s\n", message != NULL ? message : "?");
      abort();
    }
  }
  return 0;
}
