#include "codec_bind.h"

#include <lauxlib.h>

#include "../codec/classes.h"
#include "../codec/codec.h"
#include "../codec/payload.h"
#include "../codec/raw.h"
#include "../config.h"

/* What the buffer may keep from one call to the next. */
#define KEEP_BYTES (1u << 20)

/* Arguments that are scalars and fit in here need no buffer of the heap, and
** so nothing that an error could leak. */
#define SMALL_BYTES 512

int tdl_bind_bad_argument(lua_State *L, int index, const char *function,
                          const char *message) {
  return luaL_error(L, "bad argument #%d to '%s' (%s)", index, function,
                    message);
}

int tdl_bind_bad_type(lua_State *L, int index, const char *function,
                      const char *expected) {
  const char *got = lua_isnoneornil(L, index) ? "nil" : luaL_typename(L, index);
  return tdl_bind_bad_argument(
      L, index, function,
      lua_pushfstring(L, "%s expected, got %s", expected, got));
}

struct buffer {
  tdl_bytes out;
  int busy; /* an encode is using it, or an error ended the one that did */
};

static int buffer_gc(lua_State *L) {
  struct buffer *b = lua_touserdata(L, 1);
  tdl_payload_clear(&b->out); /* a copy that an error ended */
  tdl_bytes_reset(&b->out, NULL, 0);
  return 0;
}

static struct buffer *push_buffer(lua_State *L) {
  struct buffer *b = lua_newuserdata(L, sizeof(*b));
  tdl_bytes_init(&b->out, NULL, 0);
  b->busy = 0;
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, buffer_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  return b;
}

/* Takes the buffer, upvalue 1, onto the stack. An encode that another one's
** callback or a finaliser calls finds it busy: it brings a new one, which
** serves the next ones too, while the old one goes with the stack that it
** lies on. */
static struct buffer *take_buffer(lua_State *L) {
  struct buffer *b;
  lua_pushvalue(L, lua_upvalueindex(1));
  b = lua_touserdata(L, -1);
  if (b->busy) {
    lua_pop(L, 1);
    b = push_buffer(L);
    lua_pushvalue(L, -1);
    lua_replace(L, lua_upvalueindex(1));
  }
  b->busy = 1;
  return b;
}

static int encode_any(lua_State *L, int n) {
  struct buffer *b;
  int status;
  b = take_buffer(L);
  b->out.len = 0;
  status = tdl_encode_to(L, 1, n, "arguments", &b->out,
                         TDL_PAYLOAD_CEILING_BYTES, TDL_TO_STRING);
  if (status == 0) {
    lua_pushlstring(L, (const char *)b->out.data, b->out.len);
  }
  if (tdl_bytes_heap(&b->out) > KEEP_BYTES) {
    tdl_bytes_reset(&b->out, NULL, 0);
  }
  b->busy = 0;
  return status == 0 ? 1 : luaL_error(L, "%s", lua_tostring(L, -1));
}

static int l_encode(lua_State *L) {
  const int raw = tdl_raw_is_on();
  const int n = raw ? tdl_raw_top(L) : lua_gettop(L);
  uint8_t fixed[SMALL_BYTES];
  tdl_bytes out;
  if (raw && n > 0 && tdl_raw_kind(*tdl_raw_slot(L, 1)) == TDL_RAW_TABLE) {
    return encode_any(L, n);
  }
  tdl_bytes_init(&out, fixed, sizeof(fixed));
  if (!tdl_encode_scalars(L, 1, n, &out)) {
    return encode_any(L, n);
  }
  lua_pushlstring(L, (const char *)out.data, out.len);
  return 1;
}

static int decode(lua_State *L, unsigned flags) {
  size_t len;
  const char *s;
  int n;
  if (tdl_raw_is_on() && tdl_raw_top(L) > 0 &&
      tdl_raw_kind(*tdl_raw_slot(L, 1)) == TDL_RAW_STRING) {
    s = tdl_raw_string_of(*tdl_raw_slot(L, 1), &len);
  } else {
    if (lua_type(L, 1) != LUA_TSTRING) {
      return tdl_bind_bad_type(L, 1, "decode", "string");
    }
    s = lua_tolstring(L, 1, &len);
  }
  n = tdl_decode_flags(L, (const uint8_t *)s, len,
                       TDL_DECODE_NO_THINGS | flags);
  return n >= 0 ? n : luaL_error(L, "%s", lua_tostring(L, -1));
}

static int l_decode(lua_State *L) {
  return decode(L, 0);
}

/* decode_data: the same for bytes that anybody may have made: no code. */
static int l_decode_data(lua_State *L) {
  return decode(L, TDL_DECODE_NO_CODE);
}

/* copy(...) -> the values as another state would get them. Counted things may be
** among them, since the bytes are read once, here and now. */
static int l_copy(lua_State *L) {
  const int n = lua_gettop(L);
  struct buffer *b = take_buffer(L);
  int got;
  b->out.len = 0;
  got = tdl_encode(L, 1, n, "arguments", &b->out, TDL_PAYLOAD_CEILING_BYTES);
  if (got == 0) {
    got = tdl_decode(L, b->out.data, b->out.len);
    tdl_payload_clear(&b->out);
  }
  if (tdl_bytes_heap(&b->out) > KEEP_BYTES) {
    tdl_bytes_reset(&b->out, NULL, 0);
  }
  b->busy = 0;
  return got >= 0 ? got : luaL_error(L, "%s", lua_tostring(L, -1));
}

static void check_class(lua_State *L, int arg, int type) {
  if (lua_type(L, arg) != type) {
    tdl_bind_bad_type(L, arg, "class", lua_typename(L, type));
  }
}

static int l_class(lua_State *L) {
  const char *other;
  check_class(L, 1, LUA_TSTRING);
  check_class(L, 2, LUA_TTABLE);
  lua_settop(L, 4);
  for (int arg = 3; arg <= 4; arg++) {
    if (!lua_isnil(L, arg)) {
      check_class(L, arg, LUA_TFUNCTION);
    }
  }
  if (lua_isnil(L, 3) != lua_isnil(L, 4)) {
    return tdl_bind_bad_argument(L, lua_isnil(L, 3) ? 3 : 4, "class",
                                 "pack and unpack go together");
  }
  other = tdl_class_add(L);
  if (other != NULL) {
    return tdl_bind_bad_argument(
        L, 2, "class",
        lua_pushfstring(L, "metatable is already class '%s'", other));
  }
  return 0;
}

void tdl_bind_codec(lua_State *L) {
  tdl_codec_open(L);
  push_buffer(L);
  lua_pushcclosure(L, l_encode, 1);
  lua_setfield(L, -2, "encode");
  push_buffer(L);
  lua_pushcclosure(L, l_copy, 1);
  lua_setfield(L, -2, "copy");
  lua_pushcfunction(L, l_decode);
  lua_setfield(L, -2, "decode");
  lua_pushcfunction(L, l_decode_data);
  lua_setfield(L, -2, "decode_data");
  lua_pushcfunction(L, l_class);
  lua_setfield(L, -2, "class");
}
