/* tdl_stack: the Lua functions that a thread is in, read without its help.
** Threads: the thread itself, in a signal handler, wherever it was interrupted;
**          or another one while it stands still in the kernel.
** Owns:    nothing.
** Fails:   with 0: nothing is known at this moment. Ask again at another one.
**
** R1  Nothing is written, no lock is taken, nothing is allocated, no function of
**     LuaJIT's is called: what is looked at cannot notice.
** R2  Memory is read through the kernel, which refuses what is not there.
**     Whatever is found is checked against what must be true of it: a function
**     is tagged as one, lies below the stack's end, and the place in its code is
**     in its code. So a moment at which LuaJIT is halfway through something
**     gives nothing, or frames that were there a moment ago.
**     A coroutine is followed by those that have resumed it: their frames lie on
**     the C stack one behind the other.
** R3  Compiled code keeps no frames. Where they would be if it ended now is
**     written down in each of its snapshots, for its exits; the place in the
**     code tells which one that is. A line is that of the latest snapshot.
**
** Whether LuaJIT's objects have the shapes that are expected (interrupt_objects.h)
** in this process is proved first, by reading stacks that are known
** (tdl_stack_find). */
#ifndef TDL_RUN_INTERRUPT_STACK_H
#define TDL_RUN_INTERRUPT_STACK_H

#include <lua.h>
#include <stddef.h>
#include <stdint.h>

#include "../config.h"
#include "interrupt_layout.h"

enum tdl_frame_kind {
  TDL_FRAME_LUA,
  TDL_FRAME_MAIN,    /* a chunk's own code */
  TDL_FRAME_C,       /* a function of C */
  TDL_FRAME_BUILTIN, /* one of LuaJIT's own */
  TDL_FRAME_UNKNOWN
};

typedef struct tdl_frame {
  enum tdl_frame_kind kind;
  int32_t line;    /* below 0: not known */
  int32_t defined; /* the line where its definition begins */
  uint64_t id;     /* of C's: its address; of LuaJIT's: its number */
  char source[TDL_STACK_SOURCE_BYTES]; /* as debug.getinfo's, cut at its end */
} tdl_frame;

enum tdl_stack_place {
  TDL_IN_INTERPRETER,
  TDL_IN_COMPILED,
  TDL_IN_C, /* that Lua has called, or LuaJIT's own */
  TDL_IN_COLLECTOR
};

typedef struct tdl_stack {
  enum tdl_stack_place place;
  uint32_t count;   /* of `frames`, the innermost first */
  uint32_t skipped; /* frames between the first TDL_STACK_INNER and the rest */
  tdl_frame frames[TDL_STACK_INNER + TDL_STACK_OUTER];
} tdl_stack;

/* Where the thread was. */
typedef struct tdl_registers {
  uintptr_t pc, base, next, dispatch; /* rip, rdx, rbx, r14 */
} tdl_registers;

/* The layout's list of traces holds one of that number, with that place in its
** code. */
int tdl_stack_is_list(const tdl_layout *layout, lua_State *L, uint32_t number,
                      uintptr_t pc);

/* 1 when stacks can be read. Once per process; L is the state that was watched
** for the layout, and is still open. */
int tdl_stack_find(tdl_layout *layout, lua_State *L);

/* L is the main state; without registers the thread is in C, and stands
** still. */
int tdl_stack_read(const tdl_layout *layout, lua_State *L,
                   const tdl_registers *at, tdl_stack *out);

/* any thread; of a coroutine that has yielded and lives, while its state may run
** others. */
int tdl_stack_read_suspended(lua_State *co, tdl_stack *out);

#endif
