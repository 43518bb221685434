/* waits: a Lua state's waits for counted things, from the coroutine that waits to
** the thing's list, and back by the loop's inbox.
** Threads: the state's own; whoever grants a wait tells it.
** Owns:    a wait until it has ended, and its references of the things.
** Fails:   functions of this layer raise Lua errors at the user.
**
** H3  A wait that was granted, and that nobody takes, is undone by its kind: the
**     message goes back, the lock is let go. It is taken by the code that
**     waits, when that goes on: until then it may still be cancelled, or its
**     state be lost. A wait holds its things from its making on. */
#ifndef TDL_BIND_WAITS_H
#define TDL_BIND_WAITS_H

#include "../base/counted.h"
#include "../share/wait.h"
#include "bind.h"

/* How a kind of wait is ended. */
struct tdl_bound_wait;
typedef struct tdl_wait_kind {
  /* takes that waiter out of its list, if it stands there */
  void (*leave)(struct tdl_bound_wait *wait, uint32_t index);
  /* the code that waits goes on: pushes what it was granted, how many values.
  ** Nothing is left to undo then; if it raises, nothing was taken */
  int (*deliver)(struct tdl_bound_wait *wait, lua_State *L);
  void (*undo)(struct tdl_bound_wait *wait); /* H3; NULL: nothing to undo */
  /* as tdl_wait_give_up, where that needs the thing's guard; NULL: no */
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

/* The end of the state: all waits are given up or undone. */
void tdl_bind_end_waits(tdl_bind *b);

#endif
