/* codec_module: the codec alone, for its specs and measurements.
** Threads: the state's own.
** Owns:    nothing.
** Fails:   its functions raise. */
#include <lauxlib.h>
#include <lua.h>

#include "../../src/base/bytes.h"
#include "../../src/base/clock.h"
#include "../../src/bind/codec_bind.h"
#include "../../src/codec/codec.h"
#include "../../src/codec/raw.h"
#include "../../src/config.h"
#include "../../src/treadle.h"

TREADLE_API int luaopen_codec_module(lua_State *L);

/* encode_limited(limit, ...) -> string, or nil and the message. */
static int l_encode_limited(lua_State *L) {
  uint32_t limit = (uint32_t)luaL_checknumber(L, 1);
  uint8_t fixed[64];
  tdl_bytes out;
  int status;
  int n = lua_gettop(L);
  tdl_bytes_init(&out, fixed, sizeof(fixed));
  tdl_bytes_append(&out, "head", 4);
  status = tdl_encode(L, 2, n - 1, "arguments", &out, limit);
  if (lua_gettop(L) != n + (status != 0) || memcmp(out.data, "head", 4) != 0 ||
      (status != 0 && out.len != 4) || out.len - 4 > limit) {
    tdl_bytes_reset(&out, NULL, 0);
    return luaL_error(L, "the encoder broke its contract");
  }
  if (status == 0) {
    lua_pushlstring(L, (const char *)out.data + 4, out.len - 4);
    tdl_bytes_reset(&out, NULL, 0);
    return 1;
  }
  tdl_bytes_reset(&out, NULL, 0);
  lua_pushnil(L);
  lua_insert(L, -2);
  return 2;
}

/* decode_data(string) -> true, values; or false, message. No code, no shared
** objects. */
static int l_decode_data(lua_State *L) {
  size_t len;
  const char *s = luaL_checklstring(L, 1, &len);
  int n;
  lua_settop(L, 1);
  lua_pushboolean(L, 1);
  n = tdl_decode_flags(L, (const uint8_t *)s, len,
                       TDL_DECODE_NO_CODE | TDL_DECODE_NO_THINGS);
  if (n < 0) {
    lua_pushboolean(L, 0);
    lua_replace(L, 2);
    n = 1;
  }
  if (lua_gettop(L) != n + 2) {
    return luaL_error(L, "the decoder broke its contract");
  }
  return n + 1;
}

/* use_raw(on) -> whether tables are read in place now. */
static int l_use_raw(lua_State *L) {
  lua_pushboolean(L, tdl_raw_use(lua_toboolean(L, 1)));
  return 1;
}

/* measure(rounds, ...) -> ns for encode, ns for decode of the values. */
static int l_measure(lua_State *L) {
  int rounds = (int)luaL_checkinteger(L, 1);
  int n = lua_gettop(L);
  uint64_t encode = 0;
  uint64_t decode = 0;
  tdl_bytes out;
  tdl_bytes_init(&out, NULL, 0);
  for (int part = 0; part < 10; part++) {
    uint64_t start = tdl_now_ns();
    for (int i = 0; i < rounds / 10; i++) {
      out.len = 0;
      if (tdl_encode(L, 2, n - 1, "arguments", &out, 1u << 30) != 0) {
        return lua_error(L);
      }
    }
    encode += tdl_now_ns() - start;
    start = tdl_now_ns();
    for (int i = 0; i < rounds / 10; i++) {
      if (tdl_decode(L, out.data, out.len) < 0) {
        return lua_error(L);
      }
      lua_settop(L, n);
    }
    decode += tdl_now_ns() - start;
  }
  tdl_bytes_reset(&out, NULL, 0);
  lua_pushnumber(L, (double)encode / rounds);
  lua_pushnumber(L, (double)decode / rounds);
  return 2;
}

TREADLE_API int luaopen_codec_module(lua_State *L) {
  lua_newtable(L);
  tdl_bind_codec(L);
  lua_pushcfunction(L, l_encode_limited);
  lua_setfield(L, -2, "encode_limited");
  lua_pushcfunction(L, l_decode_data);
  lua_setfield(L, -2, "decode_data");
  lua_pushcfunction(L, l_use_raw);
  lua_setfield(L, -2, "use_raw");
  lua_pushcfunction(L, l_measure);
  lua_setfield(L, -2, "measure");
  return 1;
}
