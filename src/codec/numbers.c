/* The loops are Lua over FFI memory: compiled, they move an element in about
** a nanosecond, where the Lua C API takes ten. They see a plain table only:
** with a metatable an index would run a user's code. */
#include "numbers.h"

#include <lauxlib.h>

/* Numbers that are written before the next look at the output's room: an
** array that begins with a number may not go on with numbers. */
#define CHUNK 8192

static const char source[] = "local ffi, loaded = ...\n"
                             "local type, cast = type, ffi.cast\n"
                             "local double_p = ffi.typeof('double *')\n"
                             "local function put(t, first, n, address)\n"
                             "  local p = cast(double_p, address)\n"
                             "  for i = 0, n - 1 do\n"
                             "    local v = t[first + i]\n"
                             "    if type(v) ~= 'number' then return i end\n"
                             "    p[i] = v\n"
                             "  end\n"
                             "  return n\n"
                             "end\n"
                             "local function get(t, first, n, address)\n"
                             "  local p = cast(double_p, address)\n"
                             "  for i = 0, n - 1 do\n"
                             "    t[first + i] = p[i]\n"
                             "  end\n"
                             "end\n"
                             "assert(type(1) == 'number')\n"
                             "return put, get, loaded.jit.status\n";

/* Pushes the loop in `slot`; 0 and nothing when there is none, or when the
** compiler is off, because interpreted FFI code is slower than the C API. */
static int push_loop(lua_State *L, int store, int slot) {
  int on;
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  return 0;
#endif
  lua_rawgeti(L, store, slot);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    tdl_store_load(L, store, source, "=treadle.codec.numbers",
                   TDL_STORE_PUT_NUMBERS, 3);
    lua_rawgeti(L, store, slot);
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

/* The numbers `first` .. first + n - 1 into `p`, until one is none. */
static uint32_t put_chunk(lua_State *L, int loop, int t, uint32_t first,
                          uint32_t n, uint8_t *p) {
  uint32_t done = 0;
  lua_pushvalue(L, loop);
  lua_pushvalue(L, t);
  lua_pushnumber(L, first);
  lua_pushnumber(L, n);
  lua_pushnumber(L, (double)(uintptr_t)p);
  if (lua_pcall(L, 4, 1, 0) == 0) {
    done = (uint32_t)lua_tonumber(L, -1);
  }
  lua_pop(L, 1);
  return done;
}

int tdl_numbers_put(tdl_encoder *e, int t, uint32_t first, uint32_t n,
                    uint32_t *done) {
  lua_State *L = e->L;
  uint32_t mark = e->w.out->len;
  uint32_t got = 0;
  int loop;
  *done = 0;
  if (lua_getmetatable(L, t)) {
    lua_pop(L, 1);
    return 0;
  }
  if (!push_loop(L, tdl_encode_store(e), TDL_STORE_PUT_NUMBERS)) {
    return 0;
  }
  loop = lua_gettop(L);
  if (tdl_put_tag_32(&e->w, TDL_TAG_NUMBERS, 0) != 0) {
    return e->w.status;
  }
  for (;;) {
    uint32_t ask = n - got < CHUNK ? n - got : CHUNK;
    uint32_t fits = e->w.room / 8;
    uint32_t chunk;
    uint8_t *p;
    if (ask > fits) {
      ask = fits; /* the caller fails at the next element, or there is none */
    }
    if (ask == 0) {
      break;
    }
    p = tdl_put_room(&e->w, (size_t)ask * 8);
    if (p == NULL) {
      return e->w.status;
    }
    chunk = put_chunk(L, loop, t, first + got, ask, p);
    e->w.out->len -= (ask - chunk) * 8;
    e->w.room += (ask - chunk) * 8;
    got += chunk;
    if (chunk < ask) {
      break;
    }
  }
  lua_pop(L, 1);
  if (got < TDL_NUMBERS_MIN) {
    got = 0; /* not worth the caller's trouble */
    e->w.room += e->w.out->len - mark;
    e->w.out->len = mark;
  } else {
    tdl_store_32(e->w.out->data + mark + 1, got);
  }
  *done = got;
  return 0;
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
  if (!push_loop(L, top + 1, TDL_STORE_GET_NUMBERS)) {
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
  if (n >= TDL_NUMBERS_MIN && get_by_loop(L, t, first, n, bytes)) {
    return;
  }
  for (uint32_t i = 0; i < n; i++) {
    lua_pushnumber(L, tdl_load_f64(bytes + (size_t)i * 8));
    lua_rawseti(L, t, (int)(first + i));
  }
}
