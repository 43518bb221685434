/* Waits for shared things: from the coroutine that waits to the thing's list,
** and back by the loop's inbox. */
#include <sched.h>

#include "../base/alloc.h"
#include "../base/compiler.h"
#include "share.h"

/* Takes it out of all lists. */
static void leave(tdl_bound_wait *w) {
  for (uint32_t i = 0; i < w->count; i++) {
    if (w->places[i].thing != NULL) {
      w->kind->leave(w, i);
    }
  }
}

static void free_wait(tdl_bound_wait *w) {
  treadle_loop *loop = w->bind->loop;
  *w->at = w->next;
  if (w->next != NULL) {
    w->next->at = w->at;
  }
  for (uint32_t i = 0; i < w->count; i++) {
    if (w->places[i].thing != NULL) {
      tdl_counted_drop(w->places[i].thing);
    }
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
  if (!w->told) {
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
    int n = w->kind->deliver(w, L);
    tdl_bind_resolve(b, L, top + 2, n);
    lua_pushlightuserdata(L, w);
    lua_pushnil(L);
    lua_rawset(L, top + 1);
    at->noting = NULL;
    free_wait(w);
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
                                  const tdl_wait_kind *kind, uint32_t count) {
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

void tdl_bind_placed(tdl_bound_wait *w, uint32_t index, tdl_counted *thing) {
  tdl_counted_hold(thing);
  w->places[index].thing = thing;
}

static void give_up(tdl_bound_wait *w) {
  if (tdl_wait_give_up(&w->wait)) {
    leave(w);
    free_wait(w);
  } /* else it is about to be told */
}

/* wait_end(number): nobody waits any more, if it has not been settled */
static int core_wait_end(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  tdl_bound_wait *w = lua_touserdata(L, 1);
  lua_settop(L, 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, b->waits_ref);
  lua_pushvalue(L, 1);
  lua_rawget(L, 2);
  if (lua_istable(L, 3)) {
    lua_pushvalue(L, 1);
    lua_pushnil(L);
    lua_rawset(L, 2);
    give_up(w);
  }
  return 0;
}

void tdl_bind_end_waits(tdl_bind *b) {
  for (tdl_bound_wait *w = b->waits, *next; w != NULL; w = next) {
    next = w->next;
    give_up(w);
  }
  while (b->waits != NULL) { /* granted: they are told any moment */
    if (tdl_loop_dispatch(b->loop) == 0) {
      sched_yield();
    }
  }
}

void tdl_bind_waits(lua_State *L) {
  static const luaL_Reg functions[] = {{"wait_end", core_wait_end},
                                       {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
