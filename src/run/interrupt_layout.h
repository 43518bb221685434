/* tdl_layout: what of LuaJIT's insides tdl_interrupt must know to leave its
** compiled code, found out by watching a state at work.
** Threads: found once per process, under the caller's lock; then read-only.
** Owns:    nothing; the state that it watches is closed again.
** Fails:   with 0: then code is never left, only interpreted code stopped. */
#ifndef TDL_RUN_INTERRUPT_LAYOUT_H
#define TDL_RUN_INTERRUPT_LAYOUT_H

#include <stddef.h>
#include <unwind.h>

/* What a mapping of compiled code begins with; unwind information follows. */
typedef struct tdl_code_area {
  struct tdl_code_area *next;
  size_t size;
} tdl_code_area;

/* Offsets count in bytes from the main lua_State, in whose block the state's
** other parts lie; `cframe` from the lua_State that it is of. */
typedef struct tdl_layout {
  ptrdiff_t dispatch; /* what the register DISPATCH (r14) holds */
  ptrdiff_t jit_base; /* word: not NULL while compiled code runs */
  ptrdiff_t current;  /* word: the lua_State that runs, in compiled code */
  ptrdiff_t areas;    /* word: the newest tdl_code_area of the state */
  ptrdiff_t cframe;   /* word: the C stack frame of the interpreter, with
                       ** flags in its two lowest bits */
  ptrdiff_t
      vmstate;      /* 32 bits: the number of the trace that runs, or below 0 */
  ptrdiff_t traces; /* word: the list of traces, by number */
  int reads;        /* stacks can be read (interrupt_stack.h) */
  const char *vm;   /* the interpreter's assembler code; a place in it */
  const char *vm_end;
  const char *vm_inside;
  _Unwind_Personality_Fn personality; /* of compiled code */
} tdl_layout;

int tdl_layout_find(tdl_layout *out);

/* The next instruction, in compiled code, is one of those between the birth of
** a cdata and the word that makes it one (the collector knows it already). */
int tdl_layout_is_birth(const unsigned char *code);

#endif
