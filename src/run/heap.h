/* tdl_heap: the memory of one Lua state.
** Threads: the state's own.
** Owns:    the state's blocks; freed ones of some sizes, for their next use.
** Fails:   with NULL, which Lua reports as "not enough memory".
**
** Small blocks come from LuaJIT's own allocator. That one maps every block of
** 128 KiB or more by itself and unmaps it when it is freed, so that a string
** of 1 MiB costs 256 page faults each time. Here such blocks come from malloc,
** and freed ones wait for their next use, up to a limit.
**
** A heap may have a cap. LuaJIT does not survive the refusal of a small block
** everywhere (its compiler crashes), so that beyond the cap only large ones are
** refused, and `exceeded` is told at once, to have the state stopped. */
#ifndef TDL_RUN_HEAP_H
#define TDL_RUN_HEAP_H

#include <lua.h>

#include "../config.h"

#define TDL_HEAP_CLASSES (TDL_HEAP_LARGEST_BYTES / TDL_HEAP_CLASS_BYTES)

/* In front of a large block: LuaJIT loses blocks when it runs out of memory. */
typedef struct tdl_block {
  _Alignas(16) struct tdl_block *next;
  struct tdl_block *prev;
} tdl_block;

typedef struct tdl_heap {
  lua_State *donor; /* runs nothing; its allocator serves the small blocks */
  lua_Alloc allocate;
  void *allocate_ud;
  void *kept[TDL_HEAP_CLASSES];  /* each block begins with the next one */
  size_t kept_bytes, keep_bytes; /* now, and at most */
  tdl_block blocks; /* a ring of all large ones, the kept ones, too */
  lua_State *L;
  size_t used_bytes;  /* what the state has, garbage included */
  size_t hurry_bytes; /* from there on the collector is hurried */
  size_t cap_bytes;
  int pause, stepmul; /* the collector's, when it is not */
  int is_over;        /* it has been beyond its cap */
  void (*exceeded)(void *arg);
  void *arg;
} tdl_heap;

/* A state with this heap, which keeps so much of what is freed; or NULL. Where
** LuaJIT takes no allocator but its own
** (32-bit references on 64-bit machines), a state without it. */
lua_State *tdl_heap_open(tdl_heap *heap, size_t keep_bytes);

/* From here on its state may have so much. The first time that it has more,
** `exceeded` is called, from within an allocation: it may not touch the state.
*/
void tdl_heap_cap(tdl_heap *heap, size_t cap_bytes, void (*exceeded)(void *arg),
                  void *arg);

/* Whether it keeps more than TDL_HEAP_KEEP_BYTES; frees what is beyond. */
int tdl_heap_has_excess(const tdl_heap *heap);
void tdl_heap_trim(tdl_heap *heap);

/* Closes the state that open returned, and frees all its memory. */
void tdl_heap_close(tdl_heap *heap, lua_State *L);

/* Frees the memory of a state that cannot be closed: its lua_close was left
** (interrupt.h). What it got from elsewhere stays: machine code, files, what
** userdata refers to. */
void tdl_heap_lose(tdl_heap *heap);

#endif
