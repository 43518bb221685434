/* cdata: FFI data without pointers, both ways.
** Threads: the state's own.
** Owns:    Lua functions over the FFI library, in the store.
** Fails:   as the encoder and the decoder do. */
#ifndef TDL_CODEC_CDATA_H
#define TDL_CODEC_CDATA_H

#include "decode.h"
#include "encode.h"

int tdl_encode_cdata(tdl_encoder *e, int idx, const tdl_path *path);

/* Pushes what follows the tag CDATA. */
int tdl_decode_cdata(tdl_decoder *d);

/* Pushes what follows the tag INT64 or UINT64. */
int tdl_decode_int64(tdl_decoder *d, tdl_tag tag);

#endif
