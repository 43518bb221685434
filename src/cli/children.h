/* children: the processes of `treadle test`, one for each file of specs.
** Threads: the main one alone.
** Owns:    descriptors and processes are the script's (lua/treadle/suite.lua),
**          which closes and reaps them; signals, once opened.
** Fails:   start and wait raise Lua errors; the others do not fail. */
#ifndef TDL_CLI_CHILDREN_H
#define TDL_CLI_CHILDREN_H

#include <lua.h>

/* The module; children.c tells what its functions take and give. */
int tdl_children_load(lua_State *L);

#endif
