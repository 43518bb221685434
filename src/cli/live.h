/* live: the view of `treadle top`, in a thread and a Lua state of its own, so
** that it goes on while the script computes.
** Threads: the main one opens and closes; also at exit.
** Owns:    its thread; on a terminal standard output and error, until closed.
** Fails:   open raises a Lua error. */
#ifndef TDL_CLI_LIVE_H
#define TDL_CLI_LIVE_H

#include <lua.h>

/* The module: open(), close(). Each may be called again. */
int tdl_live_load(lua_State *L);

#endif
