/* numbers: runs of numbers in arrays, on their way in.
** Threads: the state's own.
** Owns:    a Lua function in the store, loaded when first needed.
** Fails:   never: what is the slowest way works always. */
#ifndef TDL_CODEC_NUMBERS_H
#define TDL_CODEC_NUMBERS_H

#include "decode.h"

/* A call of the loop costs as much as this many elements one by one. */
#define TDL_NUMBERS_MIN 20

/* Sets the elements `first` to first + n - 1 of the table at `t`. */
void tdl_numbers_get(lua_State *L, int t, uint32_t first, uint32_t n,
                     const uint8_t *bytes);

#endif
