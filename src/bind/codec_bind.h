/* codec_bind: encode, decode and class for scripts.
** Threads: the state's own.
** Owns:    the buffer that encode writes to, in a userdata.
** Fails:   the functions raise at their caller. */
#ifndef TDL_BIND_CODEC_BIND_H
#define TDL_BIND_CODEC_BIND_H

#include <lua.h>

/* Adds the functions to the table at the top of the stack. */
void tdl_bind_codec(lua_State *L);

#endif
