/* The memory of a Lua state: what is small, kept, or large, and moves between.
 */
#include "../../src/run/heap.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

#define BLOCKS 24
#define ROUNDS 20000

/* A size of one of the three kinds, near their limits more often than not. */
static size_t some_size(unsigned *seed) {
  static const size_t around[] = {
      1, TDL_HEAP_SMALLEST_BYTES,
      TDL_HEAP_SMALLEST_BYTES + TDL_HEAP_CLASS_BYTES,
      TDL_HEAP_LARGEST_BYTES / 2, TDL_HEAP_LARGEST_BYTES};
  size_t size = around[(unsigned)rand_r(seed) % 5];
  size_t step = (unsigned)rand_r(seed) % 5;
  return size + step > 2 ? size + step - 2 : 1;
}

/* Both ends are enough to see a block that was moved or given twice. */
static void mark(unsigned char *block, size_t size, unsigned char with) {
  block[0] = block[size / 2] = block[size - 1] = with;
}

static int is_marked(const unsigned char *block, size_t size, unsigned char c) {
  return block[0] == c && block[size - 1] == c && block[size / 2] == c;
}

static void blocks_keep_their_contents_whatever_their_size_becomes(void) {
  tdl_heap heap;
  lua_State *L = tdl_heap_open(&heap, TDL_HEAP_BUSY_BYTES);
  unsigned char *block[BLOCKS] = {NULL};
  size_t size[BLOCKS] = {0};
  unsigned seed = 42;
  void *ud;
  lua_Alloc allocate;
  int all_right = 1, bounded = 1;
  CHECK(L != NULL);
  if (L == NULL) {
    return;
  }
  allocate = lua_getallocf(L, &ud);
  for (int round = 0; round < ROUNDS; round++) {
    int i = (int)((unsigned)rand_r(&seed) % BLOCKS);
    size_t next = (unsigned)rand_r(&seed) % 4 == 0 ? 0 : some_size(&seed);
    unsigned char *moved = allocate(ud, block[i], size[i], next);
    if (next > 0 && size[i] > 0) { /* the first byte stays in any case */
      all_right = all_right && moved != NULL && moved[0] == (unsigned char)i;
      all_right = all_right && (next < size[i] ||
                                is_marked(moved, size[i], (unsigned char)i));
    }
    all_right = all_right && (moved == NULL) == (next == 0);
    block[i] = moved;
    size[i] = next;
    if (next > 0) {
      mark(moved, next, (unsigned char)i);
    }
    for (int k = 0; k < BLOCKS; k++) {
      all_right = all_right && (block[k] == NULL ||
                                is_marked(block[k], size[k], (unsigned char)k));
    }
    bounded = bounded && heap.kept_bytes <= TDL_HEAP_BUSY_BYTES;
  }
  for (int i = 0; i < BLOCKS; i++) {
    allocate(ud, block[i], size[i], 0);
  }
  CHECK(all_right);
  CHECK(bounded && tdl_heap_has_excess(&heap));
  tdl_heap_trim(&heap);
  CHECK(heap.kept_bytes > 0 && heap.kept_bytes <= TDL_HEAP_KEEP_BYTES);
  tdl_heap_close(&heap, L);
}

static void a_freed_block_is_the_next_one_of_its_size(void) {
  tdl_heap heap;
  lua_State *L = tdl_heap_open(&heap, TDL_HEAP_BUSY_BYTES);
  void *ud;
  lua_Alloc allocate = lua_getallocf(L, &ud);
  size_t size = TDL_HEAP_SMALLEST_BYTES;
  void *block = allocate(ud, NULL, 0, size), *other;
  CHECK(allocate(ud, block, size, 0) == NULL);
  other = allocate(ud, NULL, 0, size);
  CHECK(other == block);
  allocate(ud, other, size, 0);
  tdl_heap_close(&heap, L);
}

static void a_state_runs_on_it_and_leaves_nothing(void) {
  static const char chunk[] =
      "local size, kept = ...\n"
      "local list = {}\n"
      "for i = 1, 200 do\n"
      "  list[i % 7 + 1] = ('x'):rep(size + i) .. i\n"
      "  if #list[1 + i % #list] <= size then error('lost') end\n"
      "end\n"
      "local grown = {}\n"
      "for i = 1, 100000 do grown[i] = i end\n"
      "for i = 1, 100000 do assert(grown[i] == i) end\n"
      "return #list\n";
  tdl_heap heap;
  lua_State *L = tdl_heap_open(&heap, TDL_HEAP_BUSY_BYTES);
  luaL_openlibs(L);
  CHECK(luaL_loadbuffer(L, chunk, sizeof(chunk) - 1, "=chunk") == 0);
  lua_pushnumber(L, TDL_HEAP_SMALLEST_BYTES);
  CHECK(lua_pcall(L, 1, 1, 0) == 0);
  CHECK(lua_tointeger(L, -1) == 7);
  tdl_heap_close(&heap, L);
}

int main(void) {
  RUN(blocks_keep_their_contents_whatever_their_size_becomes);
  RUN(a_freed_block_is_the_next_one_of_its_size);
  RUN(a_state_runs_on_it_and_leaves_nothing);
  return check_any_failed;
}
