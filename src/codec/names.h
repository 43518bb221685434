/* names: C functions, treadle's own and modules travel as what package.loaded
** calls them.
** Threads: the state's own.
** Owns:    a map of functions, in the store; rebuilt when it misses one.
** Fails:   as the decoder does. */
#ifndef TDL_CODEC_NAMES_H
#define TDL_CODEC_NAMES_H

#include "decode.h"
#include "encode.h"

/* Pushes the module and the name (nil: the module itself) of the function at `idx`, or nothing and returns 0. */
int tdl_names_of_function(lua_State *L, int store, int idx);

/* Pushes the name of the loaded module that the value at `idx` is, or
** nothing and returns 0. */
int tdl_names_of_module(lua_State *L, int idx);

/* Pushes what follows the tag CFUNCTION or MODULE. */
int tdl_decode_cfunction(tdl_decoder *d);
int tdl_decode_module(tdl_decoder *d);

#endif
