/* codec_bind: encode, decode and class for scripts.
** Threads: the state's own.
** Owns:    the buffer that encode writes to, in a userdata.
** Fails:   the functions raise at their caller. */
#ifndef TDL_BIND_CODEC_BIND_H
#define TDL_BIND_CODEC_BIND_H

#include <lua.h>

/* Raise that an argument of the script's function of that name is wrong, as
** luaL_argerror and luaL_typerror do, which know no name where pcall calls. */
int tdl_bind_bad_argument(lua_State *L, int index, const char *function,
                          const char *message);
int tdl_bind_bad_type(lua_State *L, int index, const char *function,
                      const char *expected);

/* Adds the functions to the table at the top of the stack. */
void tdl_bind_codec(lua_State *L);

#endif
