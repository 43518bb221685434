/* cdata: FFI data without pointers, both ways.
** Threads: the state's own.
** Owns:    Lua functions over the FFI library, in the store.
** Fails:   as the encoder and the decoder do. */
#ifndef TDL_CODEC_CDATA_H
#define TDL_CODEC_CDATA_H

#include "decode.h"
#include "encode.h"

#define TDL_CDATA_NAME_BYTES 255

/* A type's name and dimensions; nothing that would declare something. */
int tdl_cdata_is_type_name(const char *s, size_t len);

int tdl_encode_cdata(tdl_encoder *e, int idx, const tdl_path *path);

/* Pushes what follows the tag CDATA. */
int tdl_decode_cdata(tdl_decoder *d);

/* Pushes what follows the tag INT64 or UINT64. */
int tdl_decode_int64(tdl_decoder *d, tdl_tag tag);

/* Pushes the name by which the type of the cdata at absolute index `idx`
** travels; nil when it holds pointers, or has no name. */
void tdl_cdata_push_name(lua_State *L, int idx);

/* Makes ordinary NaNs of those in `n` elements of `unit` bytes; the name is one
** of push_name's, of a type that the state knows. With `all` in unions, too, where
** the bits may be another member's. May raise. */
void tdl_cdata_scrub(lua_State *L, const char *name, uint8_t *data, size_t unit,
                     size_t n, int all);

#endif
