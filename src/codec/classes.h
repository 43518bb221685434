/* classes: tables with a metatable, both ways.
** Threads: the state's own.
** Owns:    the registered classes, in the store: { name, metatable, pack,
**          unpack } by name and by metatable.
** Fails:   as the encoder and the decoder do. */
#ifndef TDL_CODEC_CLASSES_H
#define TDL_CODEC_CLASSES_H

#include "decode.h"
#include "encode.h"

/* Registers the class: name, metatable, pack and unpack (or nil) are the four
** values at the top, and are popped. NULL; or the name under which the
** metatable is registered already, which lies in the state's store. */
const char *tdl_class_add(lua_State *L);

/* Writes the table at `idx`; its metatable is at the top, and is popped. */
int tdl_encode_object(tdl_encoder *e, int idx, const tdl_path *path, int depth);

/* The same for the body of an object that was left for later. */
int tdl_encode_object_body(tdl_encoder *e, int idx, const tdl_path *path,
                           int depth);

/* Pushes what follows the tags OBJECT and PACKED. */
int tdl_decode_object(tdl_decoder *d, int depth);
int tdl_decode_packed(tdl_decoder *d, int depth);

/* Fills the table at `idx` with what follows the tag OBJECT. */
int tdl_decode_object_body(tdl_decoder *d, int idx, int depth);

#endif
