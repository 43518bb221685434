/* The loop is Lua over FFI memory: compiled, it moves an element in about a
** nanosecond, where the Lua C API takes ten. It sees a plain table only: with
** a metatable an index would run a user's code. It is for where raw.h is off,
** and for tables whose array part was not made in advance. */
#include "numbers.h"

#include <lauxlib.h>

#include "raw_tables.h"

static const char source[] = "local ffi, loaded = ...\n"
                             "local cast = ffi.cast\n"
                             "local double_p = ffi.typeof('double *')\n"
                             "local function get(t, first, n, address)\n"
                             "  local p = cast(double_p, address)\n"
                             "  for i = 0, n - 1 do\n"
                             "    t[first + i] = p[i]\n"
                             "  end\n"
                             "end\n"
                             "return get, loaded.jit.status\n";

/* Pushes the loop; 0 and nothing when there is none, or when the
** compiler is off, because interpreted FFI code is slower than the C API. */
static int push_loop(lua_State *L, int store) {
  int on;
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  return 0;
#endif
  lua_rawgeti(L, store, TDL_STORE_GET_NUMBERS);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    tdl_store_load(L, store, source, "=treadle.codec.numbers",
                   TDL_STORE_GET_NUMBERS, 2);
    lua_rawgeti(L, store, TDL_STORE_GET_NUMBERS);
  }
  if (!lua_isfunction(L, -1)) {
    lua_pop(L, 1);
    return 0;
  }
  lua_rawgeti(L, store, TDL_STORE_JIT_STATUS);
  on = lua_pcall(L, 0, 1, 0) == 0 && lua_toboolean(L, -1);
  lua_pop(L, on ? 1 : 2);
  return on;
}

/* LuaJIT keeps other values in the bits of NaNs, and its FFI takes a NaN out
** of memory as it is: such bits would be a forged object. */
static int has_nan(const uint8_t *bytes, uint32_t n) {
  const uint64_t inf = UINT64_C(0x7ff0000000000000);
  uint64_t found = 0;
  for (uint32_t i = 0; i < n; i++) {
    uint64_t bits = tdl_load_64(bytes + (size_t)i * 8) & (UINT64_MAX >> 1);
    found |= inf - bits; /* the top bit: bits are above infinity's */
  }
  return (found >> 63) != 0;
}

static int get_by_loop(lua_State *L, int t, uint32_t first, uint32_t n,
                       const uint8_t *bytes) {
  int top = lua_gettop(L);
  int ok;
  if (has_nan(bytes, n)) {
    return 0;
  }
  if (lua_getmetatable(L, t)) {
    lua_pop(L, 1);
    return 0;
  }
  tdl_store_push(L);
  if (!push_loop(L, top + 1)) {
    lua_settop(L, top);
    return 0;
  }
  lua_pushvalue(L, t);
  lua_pushnumber(L, first);
  lua_pushnumber(L, n);
  lua_pushnumber(L, (double)(uintptr_t)bytes);
  ok = lua_pcall(L, 4, 0, 0) == 0;
  lua_settop(L, top);
  return ok;
}

void tdl_numbers_get(lua_State *L, int t, uint32_t first, uint32_t n,
                     const uint8_t *bytes) {
#if TDL_RAW_KNOWN
  if (tdl_raw_is_on() && tdl_raw_decode_numbers(L, t, first, n, bytes)) {
    return;
  }
#endif
  if (n >= TDL_NUMBERS_MIN && get_by_loop(L, t, first, n, bytes)) {
    return;
  }
  for (uint32_t i = 0; i < n; i++) {
    lua_pushnumber(L, tdl_load_f64(bytes + (size_t)i * 8));
    lua_rawseti(L, t, (int)(first + i));
  }
}
