/* functions: Lua functions as bytecode and upvalues; C functions and modules
** by name (names.c); both ways.
** Threads: the state's own.
** Owns:    caches of bytecode and of functions, in the store.
** Fails:   as the encoder and the decoder do. */
#ifndef TDL_CODEC_FUNCTIONS_H
#define TDL_CODEC_FUNCTIONS_H

#include "decode.h"
#include "encode.h"

int tdl_encode_function(tdl_encoder *e, int idx, const tdl_path *path,
                        int depth);

/* The upvalues of the function at `idx`: its body. */
int tdl_encode_upvalues(tdl_encoder *e, int idx, const tdl_path *path,
                        int depth);

/* Pushes what follows the tag FUNCTION or FUNCTION_LATER. */
int tdl_decode_function(tdl_decoder *d, int depth, int later);

/* Reads the upvalues of the function at `idx`, object `id`. */
int tdl_decode_upvalues(tdl_decoder *d, int idx, uint32_t id, int depth);

#endif
