/* direct: calls and results of plain values, for compiled Lua by the FFI.
** Threads: the state's own.
** Owns:    the job that is being filled.
** Fails:   by sending Lua to the functions of calls.c and loops.c, which can do
**          all that these cannot.
**
** A function called by the FFI must not touch the Lua state. So Lua makes and
** settles the futures (lua/treadle/direct.lua), and C moves the values. */
#ifndef TDL_BIND_DIRECT_H
#define TDL_BIND_DIRECT_H

#include "bind.h"

/* Sets core.direct in the table on top of the stack: what direct.lua needs. */
void tdl_bind_direct(tdl_bind *b, lua_State *L);

#endif
