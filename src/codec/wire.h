/* wire: both halves of the wire format, for code that has no Lua values.
** Threads: see writer.h and reader.h.
** Owns:    nothing.
** Fails:   see there. */
#ifndef TDL_CODEC_WIRE_H
#define TDL_CODEC_WIRE_H

#include "reader.h"
#include "writer.h"

#endif
