#include "heap.h"

#include <lauxlib.h>
#include <string.h>

#include "../base/alloc.h"

/* Whose block that is follows from its size, which Lua tells when it frees it
** or asks for another. */
static int is_small(size_t size) {
  return size < TDL_HEAP_SMALLEST_BYTES;
}

static int is_kept(size_t size) {
  return size <= TDL_HEAP_LARGEST_BYTES;
}

static size_t class_of(size_t size) {
  return (size - 1) / TDL_HEAP_CLASS_BYTES;
}

static size_t room_of(size_t size) {
  return (class_of(size) + 1) * TDL_HEAP_CLASS_BYTES;
}

static void *take(tdl_heap *heap, size_t size) {
  void **first;
  if (is_small(size)) {
    return heap->allocate(heap->allocate_ud, NULL, 0, size);
  }
  if (!is_kept(size)) {
    return tdl_alloc(size);
  }
  first = heap->kept[class_of(size)];
  if (first == NULL) {
    return tdl_alloc(room_of(size));
  }
  heap->kept[class_of(size)] = *first;
  heap->kept_bytes -= room_of(size);
  return first;
}

static void give(tdl_heap *heap, void *block, size_t size) {
  if (is_small(size)) {
    heap->allocate(heap->allocate_ud, block, size, 0);
  } else if (is_kept(size) &&
             heap->kept_bytes + room_of(size) <= TDL_HEAP_KEEP_BYTES) {
    memcpy(block, &heap->kept[class_of(size)], sizeof(void *));
    heap->kept[class_of(size)] = block;
    heap->kept_bytes += room_of(size);
  } else {
    tdl_free(block);
  }
}

static void *resize(tdl_heap *heap, void *block, size_t old_size, size_t size) {
  void *other;
  if (is_small(old_size) && is_small(size)) {
    return heap->allocate(heap->allocate_ud, block, old_size, size);
  }
  if (!is_small(old_size) && !is_small(size)) {
    if (!is_kept(old_size) && !is_kept(size)) {
      return tdl_realloc(block, size);
    }
    if (is_kept(old_size) && is_kept(size) &&
        class_of(old_size) == class_of(size)) {
      return block;
    }
  }
  other = take(heap, size);
  if (other != NULL) {
    memcpy(other, block, old_size < size ? old_size : size);
    give(heap, block, old_size);
  }
  return other;
}

/* The lua_Alloc. Shrinking must not fail. */
static void *allocate(void *ud, void *block, size_t old_size, size_t size) {
  tdl_heap *heap = ud;
  if (size == 0) {
    if (block != NULL) {
      give(heap, block, old_size);
    }
    return NULL;
  }
  return block == NULL ? take(heap, size) : resize(heap, block, old_size, size);
}

lua_State *tdl_heap_open(tdl_heap *heap) {
  lua_State *L;
  memset(heap, 0, sizeof(*heap));
  heap->donor = luaL_newstate();
  if (heap->donor == NULL) {
    return NULL;
  }
  heap->allocate = lua_getallocf(heap->donor, &heap->allocate_ud);
  L = lua_newstate(allocate, heap);
  if (L == NULL) { /* no memory, or no other allocator: the donor serves */
    L = heap->donor;
    heap->donor = NULL;
  }
  return L;
}

void tdl_heap_close(tdl_heap *heap, lua_State *L) {
  lua_close(L);
  for (size_t i = 0; i < TDL_HEAP_CLASSES; i++) {
    while (heap->kept[i] != NULL) {
      void *block = heap->kept[i];
      memcpy(&heap->kept[i], block, sizeof(void *));
      tdl_free(block);
    }
  }
  if (heap->donor != NULL) {
    lua_close(heap->donor); /* unmaps all the small blocks' memory */
  }
}
