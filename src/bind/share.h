/* share: counted things as values of one Lua state; waits for them are in waits.h.
** Threads: the state's own.
** Owns:    a reference for each userdata, until it is closed or collected.
** Fails:   functions of this layer raise Lua errors at the user.
**
** H1  A state has one userdata for a thing, as long as it lives: `==` and table
**     keys do what they should.
** H2  From its making until its finalizer has run a userdata is in `refs`: a
**     state that is lost runs no finalizers.
** H4  A moved buffer's handles are closed when its payload has been accepted,
**     not before: where a call is refused there is nothing to give back. Whoever
**     takes a payload of Lua's says so (tdl_bind_sent, tdl_bind_end_gift).
** H5  While a message waits that would move a buffer, the handles that it would
**     close are `going`: where the state itself receives it, it gets one that is
**     not. */
#ifndef TDL_BIND_SHARE_H
#define TDL_BIND_SHARE_H

#include "../base/counted.h"
#include "bind.h"

/* The userdata. */
typedef struct tdl_ref {
  tdl_counted *thing; /* first, for the FFI; NULL once it is closed */
  const tdl_kind *kind;
  int moved; /* that is why it is closed */
  int going; /* so many waiting messages would move it (H5) */
  struct tdl_bind *bind;
  struct tdl_ref *next, **at;
} tdl_ref;

/* Pushes the state's userdata for the thing; takes a reference of its own. Loads
** the module treadle.KIND, which has made the metatable by core.kind, if need
** be. */
void tdl_bind_push_thing(lua_State *L, tdl_counted *thing);

/* The same for one just made, whose only reference it takes over, also where it
** raises. */
void tdl_bind_push_new(lua_State *L, tdl_counted *thing);

/* The same for one that others may let go of while memory for the userdata is
** found: a finalizer may end what holds it. */
void tdl_bind_push_fleeting(lua_State *L, tdl_counted *thing);

/* The thing of that kind in the userdata there; raises when it is something
** else, or closed. */
tdl_counted *tdl_bind_check_thing(lua_State *L, int index,
                                  const tdl_kind *kind);

/* The same for those whose Lua half raises (share.check): NULL. */
tdl_counted *tdl_bind_find_thing(lua_State *L, int index, const tdl_kind *kind);

/* Closes the userdata there. */
void tdl_bind_close_thing(lua_State *L, int index);

/* Moves (refs.c, H4): a payload of this state's has been accepted, and what it
** gives away is let go of; raises nothing. The same for a worker's state. */
void tdl_bind_sent(tdl_bind *b, const tdl_bytes *bytes);

/* For a payload that may be read before its sender goes on: what it gives away, a
** list of references that ends with NULL; NULL when that is nothing. 0 or
** TREADLE_ENOMEM. Then its end: they are let go of if it was accepted. */
int tdl_bind_gift(tdl_bind *b, const tdl_bytes *bytes, tdl_counted ***gift);
void tdl_bind_end_gift(tdl_bind *b, tdl_counted **gift, int is_accepted);

/* Whether the value there is the list of a call's option `transfer`; gives away
** what is in the list: 0, or TREADLE_EPAYLOAD and a message. */
int tdl_bind_is_transfer(lua_State *L, int index);
int tdl_bind_transfer(lua_State *L, int index, tdl_bytes *bytes);

/* No metatable was made for that kind after all; needs no memory. */
void tdl_bind_forget_kind(lua_State *L, const char *name);

/* The userdata there, NULL when it is another one. */
tdl_ref *tdl_bind_ref_at(lua_State *L, int index);

/* The same for a shared table, which has userdata of its own kind: one for each
** table in it, that is its part of the thing. */
tdl_ref *tdl_bind_shared_at(lua_State *L, int index, uint32_t *part);
int tdl_bind_push_shared(lua_State *L, tdl_counted *thing, uint32_t part);

/* The end of the state: all references are let go of, where no finalizer will. */
void tdl_bind_lose_refs(tdl_bind *b);

/* The end of the state: what it keeps for channels. */
void tdl_bind_end_channels(tdl_bind *b);

/* The codec knows userdata of this layer from here on. */
void tdl_bind_hook_things(void);

/* Each adds its functions to the table on top of the stack. */
void tdl_bind_refs(lua_State *L);
void tdl_bind_waits(lua_State *L);
void tdl_bind_event(lua_State *L);
void tdl_bind_buffer(lua_State *L);
void tdl_bind_atomics(lua_State *L);
void tdl_bind_counter(lua_State *L);
void tdl_bind_channel(lua_State *L);
void tdl_bind_streams(lua_State *L);
void tdl_bind_shared(lua_State *L);
void tdl_bind_locks(lua_State *L);
void tdl_bind_barrier(lua_State *L);

#endif
