/* share: counted things and waits for them, in one Lua state.
** Threads: the state's own.
** Owns:    a reference for each userdata, until it is closed or collected.
** Fails:   functions of this layer raise Lua errors at the user.
**
** H1  A state has one userdata for a thing, as long as it lives: `==` and table
**     keys do what they should.
** H2  From its making until its finalizer has run a userdata is in `refs`: a
**     state that is lost runs no finalizers.
** H3  A wait that was granted, and that nobody takes, is undone by its kind: the
**     message goes back, the lock is let go. It is taken by the code that
**     waits, when that goes on: until then it may still be cancelled, or its
**     state be lost. A wait holds its things from its making on.
** H4  A moved buffer's handles are closed when its payload has been accepted,
**     not before: where a call is refused there is nothing to give back. Whoever
**     takes a payload of Lua's says so (tdl_bind_sent, tdl_bind_end_gift). */
#ifndef TDL_BIND_SHARE_H
#define TDL_BIND_SHARE_H

#include "../base/counted.h"
#include "../share/wait.h"
#include "bind.h"

/* The userdata. */
typedef struct tdl_ref {
  tdl_counted *thing; /* first, for the FFI; NULL once it is closed */
  const tdl_kind *kind;
  int moved; /* that is why it is closed */
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
int tdl_bind_gift(const tdl_bytes *bytes, tdl_counted ***gift);
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

/* How a kind of wait is ended. */
struct tdl_bound_wait;
typedef struct tdl_wait_kind {
  /* takes that waiter out of its list, if it stands there */
  void (*leave)(struct tdl_bound_wait *wait, uint32_t index);
  /* the code that waits goes on: pushes what it was granted, how many values.
  ** Nothing is left to undo then; if it raises, nothing was taken */
  int (*deliver)(struct tdl_bound_wait *wait, lua_State *L);
  void (*undo)(struct tdl_bound_wait *wait); /* H3; NULL: nothing to undo */
  /* as tdl_wait_give_up, where that needs the thing's lock; NULL: it does not */
  int (*give_up)(struct tdl_bound_wait *wait);
} tdl_wait_kind;

/* A wait of this state's. Its future is waits[address], until what was granted
** is taken, or it is given up. */
typedef struct tdl_bound_wait {
  tdl_wait wait;
  tdl_note note;
  const tdl_wait_kind *kind;
  tdl_bind *bind;
  struct tdl_bound_wait *next, **at;
  int told;       /* 1: the note has arrived (L3); 2: its future knows */
  uint64_t owner; /* the kind's: for whom */
  uint32_t count; /* waiters */
  struct tdl_place_held {
    tdl_waiter waiter;
    tdl_counted *thing; /* a reference */
    tdl_counted **gift; /* of what it offers, if that gives something away */
  } places[];
} tdl_bound_wait;

/* A wait for things none of which knows it yet; holds them from the first on, since
** what follows may run a finalizer that closes their handles. Pushes its future,
** and its number for core.wait_end. Raises without memory. */
tdl_bound_wait *tdl_bind_new_wait(tdl_bind *b, lua_State *L,
                                  const tdl_wait_kind *kind,
                                  tdl_counted *const *things, uint32_t count);

/* It was not needed: it stands in no list, and nobody knows it. */
void tdl_bind_drop_wait(tdl_bound_wait *wait);

/* The end of the state: all waits are given up or undone; all references let go,
** where no finalizer will. */
void tdl_bind_end_waits(tdl_bind *b);
void tdl_bind_lose_refs(tdl_bind *b);

/* The end of the state: what it keeps for channels. */
void tdl_bind_end_channels(tdl_bind *b);

/* Each adds its functions to the table on top of the stack. */
void tdl_bind_refs(lua_State *L);
void tdl_bind_waits(lua_State *L);
void tdl_bind_event(lua_State *L);
void tdl_bind_buffer(lua_State *L);
void tdl_bind_atomics(lua_State *L);
void tdl_bind_counter(lua_State *L);
void tdl_bind_channel(lua_State *L);
void tdl_bind_shared(lua_State *L);
void tdl_bind_locks(lua_State *L);
void tdl_bind_barrier(lua_State *L);

#endif
