/* tdl_channels: what a state keeps for its use of channels, with the functions
** that compiled Lua calls by the FFI (its face).
** Threads: the state's own; who grants a quick wait writes into that.
** Owns:    messages: empty ones, those that are being written or read.
** Fails:   take with NULL; the face by sending Lua the other way.
**
** N1  A call of the face leaves nothing in any list when it returns.
** N2  What the face has received, and Lua has not taken yet, is `in`, and has a
**     ticket. Meanwhile the face refuses: a finalizer, or whoever comes after an
**     error (no memory for Lua's stack) goes the other way, and there it is put
**     back. Who shows the ticket of something that was put back receives anew.
**     A message that is being written or read otherwise is in the list `open`,
**     and nowhere else.
** N3  `open` grows and shrinks like the C stack. What is above somebody's own
**     message when he takes it out was left there by an error. */
#ifndef TDL_BIND_CHANNELS_H
#define TDL_BIND_CHANNELS_H

#include "../codec/codec.h"
#include "../share/channel.h"
#include "share.h"
#include "waits.h"

typedef struct tdl_channels tdl_channels;

/* Made at the first use; Lua keeps it until all finalizers have run. */
tdl_channels *tdl_channels_new(tdl_bind *b, lua_State *L, lua_CFunction decode);

/* Pushes that function; needs no memory. */
void tdl_channels_push_decode(const tdl_channels *d, lua_State *L);

/* Sets what lua/treadle/channel.lua needs in the table on top of the stack. */
void tdl_channels_face(tdl_channels *d, lua_State *L);

/* An empty message, NULL without memory; takes back an empty one, or NULL; one
** that is to be emptied. */
tdl_message *tdl_channels_take(tdl_channels *d);
void tdl_channels_give(tdl_channels *d, tdl_message *m);
void tdl_channels_recycle(tdl_channels *d, tdl_message *m);

/* N3: on top of `open`; out of it. The first of it is what was opened last. */
void tdl_channels_enter(tdl_channels *d, tdl_message *m);
void tdl_channels_leave(tdl_channels *d, tdl_message *m);
tdl_message *tdl_channels_open(const tdl_channels *d);

/* N2: what the face has received, if it has that ticket: the caller's from now
** on; puts it back, whatever it is. */
tdl_message *tdl_channels_take_in(tdl_channels *d, uint32_t ticket);
void tdl_channels_put_back_in(tdl_channels *d);

/* Sends `*m`, which is NULL then, or as it was. With `spin` it may wait for a
** moment. */
tdl_channel_status tdl_channels_send(tdl_channels *d, tdl_channel *c,
                                     tdl_message **m, int spin);

/* Receives `*m`. */
tdl_channel_status tdl_channels_receive(tdl_channels *d, tdl_channel *c,
                                        tdl_message **m, int spin);

/* What treadle.channel has for others: what the state keeps; raises if that
** module is not loaded. */
tdl_channels *tdl_channels_of(lua_State *L);

/* Writes the value at `index` into a new message for that receiver, which is
** `open` then. NULL: pushes a text and "payload". Raises without memory. `what`
** stands in the text for the value. */
tdl_message *tdl_channels_write(tdl_channels *d, lua_State *L, int index,
                                const char *what, uint32_t max_payload,
                                tdl_target target);

/* Sends it, or with `waits` begins a wait for that: pushes what core.channel_send
** returns for it, how many. */
int tdl_channels_send_written(tdl_channels *d, lua_State *L, tdl_channel *c,
                              tdl_message *m, int waits);

/* A wait that was no spin begins; has ended. */
void tdl_channels_waits(tdl_channels *d);
void tdl_channels_has_waited(tdl_channels *d);

/* Some number. */
uint32_t tdl_channels_random(tdl_channels *d);

#endif
