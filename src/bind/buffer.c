/* What treadle.buffer asks of C; elements are read and written by the FFI. */
#include "../share/buffer.h"

#include <errno.h>
#include <string.h>

#include "../codec/cdata.h"
#include "../treadle.h"
#include "share.h"

static tdl_buffer *check_buffer(lua_State *L, int index) {
  return (tdl_buffer *)tdl_bind_check_thing(L, index, &tdl_buffer_kind);
}

/* buffer_type(cdata) -> the name by which its type travels, or nil */
static int core_buffer_type(lua_State *L) {
  luaL_checkany(L, 1);
  tdl_cdata_push_name(L, 1);
  return 1;
}

/* buffer_new(type, unit, count, process) -> handle; or nil: there is too little
** memory; or nil, message. The count is a whole number from 0 to 2^53. */
static int core_buffer_new(lua_State *L) {
  const char *type = luaL_checkstring(L, 1);
  size_t unit = (size_t)luaL_checknumber(L, 2);
  size_t count = (size_t)luaL_checknumber(L, 3);
  tdl_buffer *b;
  int status = lua_toboolean(L, 4) ? tdl_buffer_open(type, unit, count, &b)
                                   : tdl_buffer_new(type, unit, count, &b);
  if (status == TREADLE_ESYSTEM) {
    const char *reason = strerror(errno);
    lua_pushnil(L);
    lua_pushstring(L, reason);
    return 2;
  } else if (status != 0) {
    return 0;
  }
  tdl_bind_push_new(L, &b->counted);
  return 1;
}

/* buffer_slice(buffer, first, count) -> handle */
static int core_buffer_slice(lua_State *L) {
  tdl_buffer *of = check_buffer(L, 1), *b;
  double first = luaL_checknumber(L, 2), count = luaL_checknumber(L, 3);
  luaL_argcheck(L,
                first >= 0 && count >= 0 && first + count <= (double)of->count,
                2, "outside of the buffer");
  if (tdl_buffer_slice(of, (size_t)first, (size_t)count, &b) != 0) {
    return luaL_error(L, "not enough memory");
  }
  tdl_bind_push_new(L, &b->counted);
  return 1;
}

/* buffer_copy(to, from): all bytes of the second, which fit, and may overlap */
static int core_buffer_copy(lua_State *L) {
  const tdl_buffer *to = check_buffer(L, 1), *from = check_buffer(L, 2);
  luaL_argcheck(L, tdl_buffer_bytes(from) <= tdl_buffer_bytes(to), 2,
                "too long");
  memmove(to->data, from->data, tdl_buffer_bytes(from));
  return 0;
}

/* buffer_scrub(buffer, n, all): makes ordinary NaNs of those in the first
** elements, whose bytes come from anywhere; with `all` in unions, too; the type is
** known here */
static int core_buffer_scrub(lua_State *L) {
  const tdl_buffer *b = check_buffer(L, 1);
  double n = luaL_checknumber(L, 2);
  luaL_argcheck(L, n >= 0 && n <= (double)b->count, 2, "too many");
  tdl_cdata_scrub(L, b->type, b->data, b->unit, (size_t)n, lua_toboolean(L, 3));
  return 0;
}

/* buffer_scrub_one(cdata, type, unit): the same, of a struct for an element on its own */
static int core_buffer_scrub_one(lua_State *L) {
  const char *type = luaL_checkstring(L, 2);
  size_t unit = (size_t)luaL_checknumber(L, 3);
  tdl_cdata_scrub(L, type, (uint8_t *)(uintptr_t)lua_topointer(L, 1), unit, 1,
                  1);
  return 0;
}

/* buffer_look(value) -> address, elements, bytes of one, type, whether other
** processes may have it; nothing when it is no live buffer */
static int core_buffer_look(lua_State *L) {
  const tdl_buffer *b =
      (tdl_buffer *)tdl_bind_find_thing(L, 1, &tdl_buffer_kind);
  if (b == NULL) {
    return 0;
  }
  lua_pushlightuserdata(L, b->data);
  lua_pushnumber(L, (lua_Number)b->count);
  lua_pushnumber(L, (lua_Number)b->unit);
  lua_pushstring(L, b->type);
  lua_pushboolean(L, tdl_buffer_fd(b) >= 0);
  return 5;
}

void tdl_bind_buffer(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"buffer_type", core_buffer_type},
      {"buffer_new", core_buffer_new},
      {"buffer_slice", core_buffer_slice},
      {"buffer_copy", core_buffer_copy},
      {"buffer_scrub", core_buffer_scrub},
      {"buffer_scrub_one", core_buffer_scrub_one},
      {"buffer_look", core_buffer_look},
      {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
