/* protos: functions out of bytecode, of prototypes that a state keeps, so that
** the JIT compiler's work on them outlives one payload.
** Threads: the state's own.
** Owns:    caches of functions, in the store.
** Fails:   as the decoder does. */
#ifndef TDL_CODEC_PROTOS_H
#define TDL_CODEC_PROTOS_H

#include "decode.h"

/* Pushes a function; the payload says that it has `n` upvalues. They are nil,
** and no other function's. */
int tdl_protos_push(tdl_decoder *d, const uint8_t *p, size_t len, uint32_t n);

#endif
