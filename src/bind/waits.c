#include "waits.h"

#include <sched.h>

#include "../base/alloc.h"
#include "../base/compiler.h"
#include "share.h"

/* Takes it out of all lists. */
static void leave(tdl_bound_wait *w) {
  for (uint32_t i = 0; i < w->count; i++) {
    w->kind->leave(w, i);
  }
}

static void free_wait(tdl_bound_wait *w) {
  treadle_loop *loop = w->bind->loop;
  *w->at = w->next;
  if (w->next != NULL) {
    w->next->at = w->at;
  }
  for (uint32_t i = 0; i < w->count; i++) {
    tdl_bind_end_gift(w->bind, w->places[i].gift, 0);
    tdl_counted_drop(w->places[i].thing);
  }
  tdl_free(w);
  tdl_loop_drop(loop);
}

void tdl_bind_drop_wait(tdl_bound_wait *w) {
  lua_State *L = w->bind->L;
  lua_rawgeti(L, LUA_REGISTRYINDEX, w->bind->waits_ref);
  lua_pushlightuserdata(L, w);
  lua_pushnil(L);
  lua_rawset(L, -3);
  lua_pop(L, 1);
  free_wait(w);
}

static void undo(tdl_bound_wait *w) {
  if (w->kind->undo != NULL) {
    w->kind->undo(w);
  }
  free_wait(w);
}

static void on_told(tdl_note *note, treadle_loop *at) {
  tdl_bound_wait *w = TDL_CONTAINER(note, tdl_bound_wait, note);
  tdl_bind *b = w->bind;
  lua_State *L = b->L;
  int top;
  if (w->told == 0) {
    w->told = 1;
    leave(w); /* the other lists of a select */
  }
  if (b->closing) {
    undo(w);
    return;
  }
  at->noting = note; /* L3 */
  top = lua_gettop(L);
  luaL_checkstack(L, 12, "waits");
  lua_rawgeti(L, LUA_REGISTRYINDEX, b->waits_ref);
  lua_pushlightuserdata(L, w);
  lua_rawget(L, -2);
  if (lua_istable(L, -1)) {
    tdl_bind_resolve(b, L, top + 2, 0);
    at->noting = NULL;
    w->told = 2;
  } else {
    at->noting = NULL;
    undo(w);
  }
  lua_settop(L, top);
}

/* Any thread. */
static void tell(tdl_wait *wait) {
  tdl_bound_wait *w = TDL_CONTAINER(wait, tdl_bound_wait, wait);
  treadle_loop *loop = w->bind->loop;
  tdl_loop_hold(loop); /* until its parker has been looked at */
  tdl_loop_post(loop, &w->note.node);
  tdl_loop_drop(loop);
}

tdl_bound_wait *tdl_bind_new_wait(tdl_bind *b, lua_State *L,
                                  const tdl_wait_kind *kind,
                                  tdl_counted *const *things, uint32_t count) {
  tdl_bound_wait *w = tdl_calloc(sizeof(*w) + count * sizeof(w->places[0]));
  if (w == NULL) {
    luaL_error(L, "not enough memory");
    return NULL;
  }
  b->L = L;
  w->kind = kind;
  w->bind = b;
  w->count = count;
  w->wait.tell = tell;
  w->note.node.kind = TDL_NODE_NOTE;
  w->note.arrive = on_told;
  for (uint32_t i = 0; i < count; i++) {
    w->places[i].waiter.wait = &w->wait;
    w->places[i].waiter.index = i;
    w->places[i].thing = things[i];
    tdl_counted_hold(things[i]);
  }
  tdl_loop_hold(b->loop);
  w->next = b->waits;
  w->at = &b->waits;
  if (w->next != NULL) {
    w->next->at = &w->next;
  }
  b->waits = w; /* from here on the state's end frees it */
  tdl_bind_push_future(b, L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, b->waits_ref);
  lua_pushlightuserdata(L, w);
  lua_pushvalue(L, -3);
  lua_rawset(L, -3);
  lua_pop(L, 1);
  lua_pushlightuserdata(L, w);
  return w;
}

/* 1 when nobody has granted it: it is gone. */
static int give_up(tdl_bound_wait *w) {
  if (w->kind->give_up != NULL ? !w->kind->give_up(w)
                               : !tdl_wait_give_up(&w->wait)) {
    return 0; /* it is about to be told, or was */
  }
  leave(w);
  free_wait(w);
  return 1;
}

/* The wait with the number at 1, the only argument, and the table of waits at
** 2; NULL when it has ended. */
static tdl_bound_wait *wait_of(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  int is_there;
  b->L = L;
  lua_settop(L, 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, b->waits_ref);
  lua_pushvalue(L, 1);
  lua_rawget(L, 2);
  is_there = lua_istable(L, 3);
  lua_settop(L, 2);
  return is_there ? lua_touserdata(L, 1) : NULL;
}

/* The same: the table forgets it. */
static void forget(lua_State *L) {
  lua_pushvalue(L, 1);
  lua_pushnil(L);
  lua_rawset(L, 2);
}

/* wait_leave(number) -> whether nobody has granted it: it has ended then. Else
** its future is resolved, or is about to be */
static int core_wait_leave(lua_State *L) {
  tdl_bound_wait *w = wait_of(L);
  int gone = w == NULL || give_up(w);
  if (gone) {
    forget(L);
  }
  lua_pushboolean(L, gone);
  return 1;
}

/* wait_end(number): nobody waits any more, nor takes what was granted */
static int core_wait_end(lua_State *L) {
  tdl_bound_wait *w = wait_of(L);
  if (w != NULL) {
    forget(L);
    if (w->told == 2) {
      undo(w);
    } else {
      give_up(w);
    }
  }
  return 0;
}

static int deliver(lua_State *L) {
  tdl_bound_wait *w = lua_touserdata(L, 1);
  return w->kind->deliver(w, L);
}

/* wait_take(number) -> what was granted; its future is resolved */
static int core_wait_take(lua_State *L) {
  tdl_bound_wait *w = wait_of(L);
  int status;
  if (w == NULL || w->told != 2) {
    return luaL_error(L, "nothing was granted");
  }
  lua_pushvalue(L, lua_upvalueindex(1)); /* deliver: needs no memory */
  lua_pushvalue(L, 1);
  status = lua_pcall(L, 1, LUA_MULTRET, 0);
  forget(L);
  if (status != 0) {
    undo(w);
    return lua_error(L);
  }
  free_wait(w);
  return lua_gettop(L) - 2;
}

void tdl_bind_end_waits(tdl_bind *b) {
  for (tdl_bound_wait *w = b->waits, *next; w != NULL; w = next) {
    next = w->next;
    give_up(w);
  }
  while (b->waits != NULL) { /* granted: they were told, or are any moment */
    tdl_bound_wait *w = b->waits, *next;
    for (; w != NULL; w = next) {
      next = w->next;
      if (w->told == 2) {
        undo(w);
      }
    }
    if (b->waits != NULL && tdl_loop_dispatch(b->loop) == 0) {
      sched_yield();
    }
  }
}

void tdl_bind_waits(lua_State *L) {
  static const luaL_Reg functions[] = {{"wait_leave", core_wait_leave},
                                       {"wait_end", core_wait_end},
                                       {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
  lua_pushcfunction(L, deliver);
  lua_pushcclosure(L, core_wait_take, 1);
  lua_setfield(L, -2, "wait_take");
}
