/* tdl_leave: leaves code of a Lua state in which no hook is looked at.
** Threads: the state's own, in a signal handler or a hook; setup: once per process,
**          before all else.
** Owns:    nothing.
** Fails:   by doing nothing: the thread is where it may not be left. Try again.
**
** I2  Code is left only where it holds no lock and no block of memory: in
**     LuaJIT's compiled code, in its assembler code, and on the way from C back
**     to compiled code (the return address is diverted). All other code is C,
**     and is waited for: text segments tell (segments.h).
** I3  Nothing is left, and no error raised, while C code of others has frames
**     between tdl_interrupt_run and the place: C that called back into Lua (a
**     module's callback, luv, an FFI callback through qsort) may not expect
**     to be ended. The thread counts as stuck in C until it has returned. The
**     unwinder walks the C stack and each return address is looked up: only
**     LuaJIT's and treadle's segments, and those of the program or library
**     that they are part of, may be there.
** I5  Compiled code is not left between two instructions that belong together:
**     the halves of a value, the birth of a cdata and its kind. What lua_close
**     and finalizers find is whole. */
#ifndef TDL_RUN_INTERRUPT_LEAVE_H
#define TDL_RUN_INTERRUPT_LEAVE_H

#include <ucontext.h>

#include "interrupt.h"

/* Without a layout no code is left. */
void tdl_leave_setup(const tdl_layout *layout);

/* once per process, before the first signal is sent: that of a request. */
void tdl_leave_use(int signal);

/* Whether all frames from that place on the stack to the base are LuaJIT's or
** treadle's (I3). Takes the unwinder's locks, so that the thread must hold none:
** it is in a hook, or where code may be left (I2). */
int tdl_leave_only_ours(const tdl_interrupt *i, const void *from);

/* In the handler, with the layout, while the thread is in tdl_interrupt_run: goes
** back there if that may be done here. If not, and the thread is in C that compiled
** code has called, it comes here again when that returns. */
void tdl_leave(tdl_interrupt *i, ucontext_t *context, int is_hooked);

#endif
