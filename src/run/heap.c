#include "heap.h"

#include <lauxlib.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/compiler.h"

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

static void *link_block(tdl_block *b, tdl_block *next) {
  b->next = next;
  b->prev = next->prev;
  b->next->prev = b->prev->next = b;
  return b + 1;
}

static void unlink_block(tdl_block *b) {
  b->next->prev = b->prev;
  b->prev->next = b->next;
}

static void *new_block(tdl_heap *heap, size_t size) {
  tdl_block *b = tdl_alloc(sizeof(*b) + size);
  return b == NULL ? NULL : link_block(b, heap->blocks.next);
}

static void free_block(void *block) {
  tdl_block *b = (tdl_block *)block - 1;
  unlink_block(b);
  tdl_free(b);
}

static void *resize_block(void *block, size_t size) {
  tdl_block *b = (tdl_block *)block - 1;
  tdl_block *next = b->next;
  tdl_block *other;
  unlink_block(b);
  other = tdl_realloc(b, sizeof(*b) + size);
  link_block(other != NULL ? other : b, next);
  return other != NULL ? other + 1 : NULL;
}

static void *take(tdl_heap *heap, size_t size) {
  void **first;
  if (is_small(size)) {
    return heap->allocate(heap->allocate_ud, NULL, 0, size);
  }
  if (!is_kept(size)) {
    return new_block(heap, size);
  }
  first = heap->kept[class_of(size)];
  if (first == NULL) {
    return new_block(heap, room_of(size));
  }
  heap->kept[class_of(size)] = *first;
  heap->kept_bytes -= room_of(size);
  return first;
}

static void give(tdl_heap *heap, void *block, size_t size) {
  if (is_small(size)) {
    heap->allocate(heap->allocate_ud, block, size, 0);
  } else if (is_kept(size) &&
             heap->kept_bytes + room_of(size) <= heap->keep_bytes) {
    memcpy(block, &heap->kept[class_of(size)], sizeof(void *));
    heap->kept[class_of(size)] = block;
    heap->kept_bytes += room_of(size);
  } else {
    free_block(block);
  }
}

static void *resize(tdl_heap *heap, void *block, size_t old_size, size_t size) {
  void *other;
  if (is_small(old_size) && is_small(size)) {
    return heap->allocate(heap->allocate_ud, block, old_size, size);
  }
  if (!is_small(old_size) && !is_small(size)) {
    if (!is_kept(old_size) && !is_kept(size)) {
      other = resize_block(block, size);
      return other == NULL && size < old_size ? block : other;
    }
    if (is_kept(old_size) && is_kept(size) &&
        class_of(old_size) == class_of(size)) {
      return block;
    }
  }
  other = take(heap, size);
  if (other == NULL && size < old_size && !is_small(size)) {
    return block; /* shrinking must not fail; it serves as a smaller one */
  }
  if (other != NULL) {
    memcpy(other, block, old_size < size ? old_size : size);
    give(heap, block, old_size);
  }
  return other;
}

static void *change(tdl_heap *heap, void *block, size_t old_size, size_t size) {
  if (size == 0) {
    if (block != NULL) {
      give(heap, block, old_size);
    }
    return NULL;
  }
  return block == NULL ? take(heap, size) : resize(heap, block, old_size, size);
}

/* Garbage counts. From half of the cap on the collector goes without a pause and
** in longer steps, so that it is done in time; a cycle starts there, and again
** after each further eighth. These calls do no more than set numbers. */
static void hurry(tdl_heap *heap) {
  lua_gc(heap->L, LUA_GCSETPAUSE, 100);
  lua_gc(heap->L, LUA_GCSETSTEPMUL, TDL_HEAP_HURRY_STEPMUL);
  lua_gc(heap->L, LUA_GCRESTART, 0); /* its threshold is the present size */
  heap->hurry_bytes = heap->used_bytes + heap->cap_bytes / 8;
}

static void calm(tdl_heap *heap) {
  lua_gc(heap->L, LUA_GCSETPAUSE, heap->pause);
  lua_gc(heap->L, LUA_GCSETSTEPMUL, heap->stepmul);
  heap->hurry_bytes = heap->cap_bytes / 2;
}

/* A state with a cap grows; 0 to refuse it. */
static int may_grow(tdl_heap *heap, size_t bytes, size_t size) {
  if (heap->used_bytes + bytes > heap->cap_bytes) {
    if (!heap->is_over) {
      heap->is_over = 1;
      heap->exceeded(heap->arg);
    }
    return is_small(size);
  }
  if (heap->used_bytes + bytes > heap->hurry_bytes) {
    hurry(heap);
  } else if (heap->used_bytes < heap->cap_bytes / 2 &&
             heap->hurry_bytes > heap->cap_bytes / 2) {
    calm(heap);
  }
  return 1;
}

/* The lua_Alloc. Shrinking must not fail. */
static void *allocate(void *ud, void *block, size_t old_size, size_t size) {
  tdl_heap *heap = ud;
  void *other;
  if (TDL_UNLIKELY(heap->cap_bytes > 0) && size > old_size &&
      !may_grow(heap, size - old_size, size)) {
    return NULL;
  }
  other = change(heap, block, old_size, size);
  if (other != NULL || size == 0) {
    heap->used_bytes += size - old_size; /* wraps to less */
  }
  return other;
}

void tdl_heap_cap(tdl_heap *heap, size_t cap_bytes, void (*exceeded)(void *arg),
                  void *arg) {
  heap->exceeded = exceeded;
  heap->arg = arg;
  heap->pause = lua_gc(heap->L, LUA_GCSETPAUSE, 100);
  heap->stepmul = lua_gc(heap->L, LUA_GCSETSTEPMUL, 100);
  heap->cap_bytes = cap_bytes;
  calm(heap);
}

int tdl_heap_has_excess(const tdl_heap *heap) {
  return heap->kept_bytes > TDL_HEAP_KEEP_BYTES;
}

void tdl_heap_trim(tdl_heap *heap) {
  for (size_t i = TDL_HEAP_CLASSES; i-- > 0;) {
    void **block;
    while (tdl_heap_has_excess(heap) && (block = heap->kept[i]) != NULL) {
      heap->kept[i] = *block;
      heap->kept_bytes -= (i + 1) * TDL_HEAP_CLASS_BYTES;
      free_block(block);
    }
  }
}

lua_State *tdl_heap_open(tdl_heap *heap, size_t keep_bytes) {
  lua_State *L;
  memset(heap, 0, sizeof(*heap));
  heap->keep_bytes = keep_bytes;
  heap->blocks.next = heap->blocks.prev = &heap->blocks;
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
  heap->L = L;
  return L;
}

void tdl_heap_close(tdl_heap *heap, lua_State *L) {
  lua_close(L);
  tdl_heap_lose(heap);
}

void tdl_heap_lose(tdl_heap *heap) {
  while (heap->blocks.next != &heap->blocks) {
    free_block(heap->blocks.next + 1);
  }
  if (heap->donor != NULL) {
    lua_close(heap->donor); /* unmaps all the small blocks' memory */
  }
}
