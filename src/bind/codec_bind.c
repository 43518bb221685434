#include "codec_bind.h"

#include <lauxlib.h>

#include "../codec/classes.h"
#include "../codec/codec.h"
#include "../config.h"

/* What the buffer may keep from one call to the next. */
#define KEEP_BYTES (1u << 20)

static int buffer_gc(lua_State *L) {
  tdl_bytes *out = lua_touserdata(L, 1);
  tdl_bytes_reset(out, NULL, 0);
  return 0;
}

static void push_buffer(lua_State *L) {
  tdl_bytes *out = lua_newuserdata(L, sizeof(*out));
  tdl_bytes_init(out, NULL, 0);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, buffer_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
}

/* The buffer is upvalue 1, and false while an encode is using it: the one
** that a pack function calls then takes another. */
static int l_encode(lua_State *L) {
  const int n = lua_gettop(L);
  tdl_bytes *out;
  int status;
  luaL_checkstack(L, LUA_MINSTACK, "too many arguments");
  lua_pushvalue(L, lua_upvalueindex(1));
  if (!lua_isuserdata(L, -1)) {
    lua_pop(L, 1);
    push_buffer(L);
  }
  lua_pushboolean(L, 0);
  lua_replace(L, lua_upvalueindex(1));
  out = lua_touserdata(L, n + 1);
  out->len = 0;
  status = tdl_encode(L, 1, n, "arguments", out, TDL_PAYLOAD_CEILING_BYTES);
  if (status == 0) {
    lua_pushlstring(L, (const char *)out->data, out->len);
  }
  if (tdl_bytes_heap(out) > KEEP_BYTES) {
    tdl_bytes_reset(out, NULL, 0);
  }
  lua_pushvalue(L, n + 1);
  lua_replace(L, lua_upvalueindex(1));
  return status == 0 ? 1 : luaL_error(L, "%s", lua_tostring(L, -1));
}

static int l_decode(lua_State *L) {
  size_t len;
  const char *s;
  int n;
  luaL_checktype(L, 1, LUA_TSTRING);
  s = lua_tolstring(L, 1, &len);
  lua_settop(L, 1);
  n = tdl_decode(L, (const uint8_t *)s, len);
  return n >= 0 ? n : luaL_error(L, "%s", lua_tostring(L, -1));
}

static void check_function(lua_State *L, int arg) {
  if (!lua_isnil(L, arg)) {
    luaL_checktype(L, arg, LUA_TFUNCTION);
  }
}

static int l_class(lua_State *L) {
  const char *other;
  luaL_checktype(L, 1, LUA_TSTRING);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 4);
  check_function(L, 3);
  check_function(L, 4);
  if (lua_isnil(L, 3) != lua_isnil(L, 4)) {
    return luaL_argerror(L, lua_isnil(L, 3) ? 3 : 4,
                         "pack and unpack go together");
  }
  other = tdl_class_add(L);
  if (other != NULL) {
    return luaL_argerror(
        L, 2, lua_pushfstring(L, "metatable is already class '%s'", other));
  }
  return 0;
}

void tdl_bind_codec(lua_State *L) {
  tdl_codec_open(L);
  push_buffer(L);
  lua_pushcclosure(L, l_encode, 1);
  lua_setfield(L, -2, "encode");
  lua_pushcfunction(L, l_decode);
  lua_setfield(L, -2, "decode");
  lua_pushcfunction(L, l_class);
  lua_setfield(L, -2, "class");
}
