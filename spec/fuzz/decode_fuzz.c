/* decode_fuzz: libFuzzer over the decoder, without code.
** Threads: one.
** Owns:    one Lua state for many inputs, so that what one leaves behind is
**          what the next one finds; a new one now and then.
** Fails:   by crashing, which is the point.
**
** Tables are gone through in place first, then by the Lua API alone.
**
** 1. What is decoded is encoded and decoded again: the second payload comes
**    from the encoder and must be accepted.
** 2. The state's memory is malloc's, so that the address sanitizer sees it,
**    and the decoder may take no more of it than an input of this size
**    justifies: neither in one block nor in all. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <sanitizer/allocator_interface.h>
#include <stdio.h>
#include <stdlib.h>

#include "../../src/bind/codec_bind.h"
#include "../../src/codec/codec.h"
#include "../../src/codec/raw.h"

/* Inputs that one state sees: LuaJIT never forgets an FFI type. */
#define INPUTS_PER_STATE 20000

/* Bytes that decoding may take. For each byte of input: the dearest is a table
** whose body follows, one byte for an object of 64 and for its places in three
** lists, which double when they grow (131 measured). In any case: what LuaJIT
** takes for itself when it looks up a type, compiles a trace, grows a stack. */
#define MEMORY_PER_BYTE 160
#define MEMORY_AT_LEAST (128u << 10)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- memory (2) ---- */

static struct {
  int on; /* while the decoder runs */
  size_t now, allowed;
} memory;

static void on_malloc(const volatile void *ptr, size_t size) {
  (void)ptr;
  if (memory.on) {
    memory.now += size;
    if (memory.now > memory.allowed) {
      memory.on = 0;
      fprintf(stderr, "%zu bytes allocated at once, %zu in all, %zu allowed\n",
              size, memory.now, memory.allowed);
      abort();
    }
  }
}

/* What lived before may go; it does not make room for more. */
static void on_free(const volatile void *ptr) {
  if (memory.on && ptr != NULL) {
    size_t size = __sanitizer_get_allocated_size(ptr);
    memory.now = memory.now > size ? memory.now - size : 0;
  }
}

static void *allocate(void *ud, void *ptr, size_t old_size, size_t size) {
  (void)ud;
  (void)old_size;
  if (size == 0) {
    free(ptr);
    return NULL;
  }
  return realloc(ptr, size);
}

static int decode_within(lua_State *L, const uint8_t *data, size_t size) {
  int n;
  memory.now = 0;
  memory.allowed = MEMORY_AT_LEAST + MEMORY_PER_BYTE * size;
  memory.on = 1;
  n = tdl_decode_flags(L, data, size,
                       TDL_DECODE_NO_CODE | TDL_DECODE_NO_THINGS);
  memory.on = 0;
  return n;
}

/* ---- the state ---- */

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
  int n = decode_within(state, in->data, in->size);
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
  L = lua_newstate(allocate, NULL);
  if (L == NULL || lua_cpcall(L, open_state, NULL) != 0) {
    abort();
  }
  if (!is_registered) {
    is_registered =
        atexit(close_state) == 0 &&
        __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) != 0;
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
