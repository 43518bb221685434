/* tdl_layout: what of LuaJIT's insides tdl_interrupt must know to leave its
** compiled code, found out by watching a state at work.
** Threads: found once per process, under the caller's lock; then read-only.
** Owns:    nothing; the state that it watches is closed again.
** Fails:   with 0: then code is never left, only interpreted code stopped. */
#ifndef TDL_RUN_INTERRUPT_LAYOUT_H
#define TDL_RUN_INTERRUPT_LAYOUT_H

#include <stddef.h>

/* Offsets count in bytes from the main lua_State, in whose block the state's
** other parts lie; `cframe` from the lua_State that it is of. */
typedef struct tdl_layout {
  ptrdiff_t dispatch; /* what the register DISPATCH (r14) holds */
  ptrdiff_t jit_base; /* word: not NULL while compiled code runs */
  ptrdiff_t current;  /* word: the lua_State that runs, in compiled code */
  ptrdiff_t cframe;   /* word: the C stack frame of the interpreter, with
                       ** flags in its two lowest bits */
  const char *vm;     /* the interpreter's assembler code; a place in it */
  const char *vm_end;
  const char *vm_inside;
} tdl_layout;

int tdl_layout_find(tdl_layout *out);

#endif
