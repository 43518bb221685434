/* things: counted things as Lua values, to and from a payload.
** Threads: the state's own; the hooks are set before the first state is used.
** Owns:    nothing.
** Fails:   encode with a status and a message, decode with a message. */
#ifndef TDL_CODEC_THINGS_H
#define TDL_CODEC_THINGS_H

#include "../base/counted.h"
#include "decode.h"
#include "encode.h"

/* How Lua knows them. */
typedef struct tdl_thing_hooks {
  /* The thing behind the userdata at `idx`, and whether it is to be moved; NULL
  ** when it is none, or when it cannot be sent: then `why` says so ("a closed
  ** channel"). */
  tdl_counted *(*of)(lua_State *L, int idx, int *moved, const char **why);
  /* Pushes the state's value for the thing; takes a reference of its own. */
  void (*push)(lua_State *L, tdl_counted *thing);
} tdl_thing_hooks;

void tdl_things_hook(const tdl_thing_hooks *hooks);

/* Writes the userdata at absolute index `idx`. */
int tdl_encode_thing(tdl_encoder *e, int idx, const tdl_path *path);

/* Appends the list of what was written. */
int tdl_encode_things(tdl_encoder *e);

/* Pushes the thing; the tag has been read. */
int tdl_decode_thing(tdl_decoder *d);

#endif
