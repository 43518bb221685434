/* embedded: the Lua half of treadle, compiled into this library.
** Threads: constant data; any.
** Owns:    nothing.
** Fails:   never. */
#ifndef TDL_BIND_EMBEDDED_H
#define TDL_BIND_EMBEDDED_H

#include <stddef.h>

/* One module: `data` is bytecode for luaL_loadbuffer, which carries its chunk
** name ("@lua/treadle/future.lua") with it. */
struct tdl_embedded {
  const char *name; /* what require takes: "treadle", "treadle.future" */
  const unsigned char *data;
  size_t size;
};

/* Sorted by name; a NULL name ends it. Written by embed.lua. */
extern const struct tdl_embedded tdl_embedded[];

#endif
