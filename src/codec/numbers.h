/* numbers: long runs of numbers in arrays, moved by compiled Lua loops.
** Threads: the state's own.
** Owns:    two Lua functions in the store, loaded when first needed.
** Fails:   never for want of the loops: then the caller moves the numbers
**          itself, one by one. */
#ifndef TDL_CODEC_NUMBERS_H
#define TDL_CODEC_NUMBERS_H

#include "encode.h"

/* A call of a loop costs as much as this many elements one by one. */
#define TDL_NUMBERS_MIN 20

/* Writes the elements `first` and following of the table at `t`, up to `n`
** of them and as long as they are numbers. `done`: how many those were; 0
** for fewer than TDL_NUMBERS_MIN. */
int tdl_numbers_put(tdl_encoder *e, int t, uint32_t first, uint32_t n,
                    uint32_t *done);

/* Sets the elements `first` to first + n - 1 of the table at `t`. */
void tdl_numbers_get(lua_State *L, int t, uint32_t first, uint32_t n,
                     const uint8_t *bytes);

#endif
