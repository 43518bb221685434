/* things: counted things as Lua values, to and from a payload.
** Threads: the state's own; the hooks are set before the first state is used.
** Owns:    nothing.
** Fails:   encode with a status and a message, decode with a message. */
#ifndef TDL_CODEC_THINGS_H
#define TDL_CODEC_THINGS_H

#include "../base/counted.h"
#include "decode.h"
#include "encode.h"

/* What a value says of the thing behind it. */
typedef struct tdl_thing_use {
  uint32_t part;     /* which part of it the value is; 0: all of it */
  int moved;         /* it is to be moved */
  const char *why;   /* it cannot be sent: "a closed channel" */
  const char *stays; /* what it is that no other process can have: "mutex" */
} tdl_thing_use;

/* How Lua knows them. */
typedef struct tdl_thing_hooks {
  /* The thing behind the userdata at `idx`; NULL when it is none, or when it
  ** cannot be sent: then `use->why` says so ("a closed channel"). */
  tdl_counted *(*of)(lua_State *L, int idx, tdl_thing_use *use);
  /* Pushes the state's value for that part; takes a reference of its own. 0 and
  ** nothing pushed when the thing has no such part. */
  int (*push)(lua_State *L, tdl_counted *thing, uint32_t part);
} tdl_thing_hooks;

void tdl_things_hook(const tdl_thing_hooks *hooks);

/* Writes the userdata at absolute index `idx`. */
int tdl_encode_thing(tdl_encoder *e, int idx, const tdl_path *path);

/* Appends the list of what was written. */
int tdl_encode_things(tdl_encoder *e);

/* Pushes the thing, or the part of it; the tag has been read. */
int tdl_decode_thing(tdl_decoder *d, int is_part);

#endif
