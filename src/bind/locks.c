/* Mutexes, locks for readers and writers, semaphores: treadle.lock's functions;
** and what compiled code calls to take what is free and to give it back. */
#include "../base/compiler.h"
#include "../share/hold.h"
#include "share.h"
#include "waits.h"

/* What Lua sees: 1 done, 0 for take and give of this file. `owner` as there. */
/* clang-format off */
TDL_DECLARE(face, struct {
  int (*take)(void *self, void *handle, double owner, uint32_t units);
  int (*give)(void *self, void *handle, double owner, uint32_t units);
})
/* clang-format on */

typedef struct locks {
  face face; /* first: the FFI's pointer is ours */
  tdl_bind *bind;
} locks;

/* --- who holds ------------------------------------------------------------ */

/* What Lua knows as 0 is for C to tell: the job whose code runs, or the main
** chunk. */
static uint64_t owner_of(const tdl_bind *b, double given) {
  if (given != 0) {
    return (uint64_t)given;
  } else if (b->vm != NULL) {
    const tdl_entry *e = tdl_vm_entry(b->vm, b->vm->current);
    return e != NULL ? tdl_owner_of_job(e->serial) : TDL_OWNER_MAIN;
  }
  return tdl_bind_guest(b, b->loop->guest) != NULL
             ? tdl_owner_of_job(b->guests[b->loop->guest].serial)
             : TDL_OWNER_MAIN;
}

/* owner() -> the number of who runs here, if Lua knows it as 0 */
static int core_owner(lua_State *L) {
  lua_pushnumber(L, (lua_Number)owner_of(tdl_bind_of(L), 0));
  return 1;
}

/* owner_ended(owner): a coroutine that was spawned; also a finalizer's call */
static int core_owner_ended(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  if (b->loop->holds != NULL) {
    tdl_holds_end(b->loop->holds, (uint64_t)luaL_checknumber(L, 1));
  }
  return 0;
}

/* Whether a hold of so many units is one that gives back these: a reader is no
** writer. */
static int covers(const tdl_hold *hold, uint32_t units) {
  return hold->units >= units &&
         (hold->lock->counted.kind != &tdl_rwlock_kind ||
          (hold->units == TDL_LOCK_MAX_UNITS) == (units == TDL_LOCK_MAX_UNITS));
}

/* --- for compiled code ---------------------------------------------------- */

/* The caller knows that the handle is one of a lock; it may be closed. */
static tdl_lock *lock_in(void *handle) {
  return (tdl_lock *)((tdl_ref *)handle)->thing;
}

static int take_free(void *arg, void *handle, double given, uint32_t units) {
  locks *self = arg;
  tdl_holds *holds;
  tdl_lock *l = lock_in(handle);
  uint64_t owner;
  if (TDL_UNLIKELY(tdl_bind_is_barred(self->bind) || l == NULL)) {
    return 0;
  }
  holds = self->bind->loop->holds;
  owner = owner_of(self->bind, given);
  if (TDL_UNLIKELY(holds->spare == NULL ||
                   tdl_holds_find(holds, l, owner) != NULL ||
                   !tdl_lock_take_at_once(l, units))) {
    return 0;
  }
  tdl_holds_add(holds, l, owner, units);
  return 1;
}

static int give_back(void *arg, void *handle, double given, uint32_t units) {
  locks *self = arg;
  tdl_lock *l = lock_in(handle);
  tdl_hold **at;
  if (TDL_UNLIKELY(tdl_bind_is_barred(self->bind) || l == NULL)) {
    return 0;
  }
  at = tdl_holds_find(self->bind->loop->holds, l, owner_of(self->bind, given));
  if (TDL_UNLIKELY(at == NULL || (*at)->units != units ||
                   !tdl_lock_give_at_once(l, units))) {
    return 0;
  }
  tdl_holds_remove(self->bind->loop->holds, at);
  return 1;
}

/* --- the functions: upvalue 1 is the kind --------------------------------- */

static const tdl_kind *kind_of(lua_State *L) {
  return lua_touserdata(L, lua_upvalueindex(1));
}

/* Behind all that may run a finalizer, which may close the handle. NULL: returns
** nothing. */
static tdl_lock *lock_at(lua_State *L) {
  return (tdl_lock *)tdl_bind_find_thing(L, 1, kind_of(L));
}

static int refused(lua_State *L) {
  lua_pushnil(L);
  lua_pushliteral(L, "held");
  return 2;
}

/* Pushed before anything is taken: to push a text may run finalizers, which may
** raise. */
static void push_outcome(lua_State *L) {
  lua_pushboolean(L, 1);
  lua_pushliteral(L, "abandoned");
}

/* Of which so much is returned. */
static int granted(lua_State *L, int told) {
  if (!told) {
    lua_pop(L, 1);
  }
  return told ? 2 : 1;
}

/* Its owner has those units now; there is a spare hold. */
static void enter(tdl_holds *h, tdl_lock *l, uint64_t owner, uint32_t units) {
  tdl_hold **at = tdl_holds_find(h, l, owner);
  if (at != NULL) { /* a semaphore's; or code that its owner runs has them */
    (*at)->units += units;
  } else {
    tdl_holds_add(h, l, owner, units);
  }
}

/* The same behind a wait: the handle may be closed since it began. */
static void enter_awaited(tdl_holds *h, tdl_lock *l, uint64_t owner,
                          uint32_t units) {
  enter(h, l, owner, units);
  tdl_hold_keep(*tdl_holds_find(h, l, owner));
}

/* Whether the owner would wait for itself. */
static int is_deadlock(const tdl_holds *h, const tdl_lock *l, uint64_t owner,
                       uint32_t units) {
  tdl_hold **at = tdl_holds_find(h, l, owner);
  return at != NULL && (l->counted.kind != &tdl_semaphore_kind ||
                        l->units - (*at)->units < units);
}

/* new(units) -> handle */
static int lock_new(lua_State *L) {
  tdl_lock *l;
  if (tdl_lock_new(kind_of(L), (uint32_t)luaL_checknumber(L, 1), &l) != 0) {
    return luaL_error(L, "not enough memory");
  }
  tdl_bind_push_new(L, &l->counted);
  return 1;
}

/* take(handle, owner, units, tries) -> true [, "abandoned"]; false: they are not
** free; nil, "held": the owner would wait for itself; nothing: no live handle */
static int lock_take(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  tdl_holds *h = b->loop->holds;
  uint64_t owner = owner_of(b, luaL_checknumber(L, 2));
  uint32_t units = (uint32_t)luaL_checknumber(L, 3);
  tdl_lock *l;
  int told = 0;
  lua_settop(L, 4);
  push_outcome(L);
  l = lock_at(L);
  if (l == NULL) {
    return 0;
  } else if (is_deadlock(h, l, owner, units)) {
    if (!lua_toboolean(L, 4)) {
      return refused(L);
    }
  } else if (tdl_holds_reserve(h) != 0) {
    return luaL_error(L, "not enough memory");
  } else if (tdl_lock_take(l, units, &told)) {
    enter(h, l, owner, units);
    return granted(L, told);
  }
  lua_pushboolean(L, 0);
  return 1;
}

/* give(handle, owner, units) -> true; false: the owner does not hold them;
** nothing: no live handle */
static int lock_give(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  tdl_holds *h = b->loop->holds;
  tdl_lock *l = lock_at(L);
  uint32_t units = (uint32_t)luaL_checknumber(L, 3);
  tdl_hold **at;
  if (l == NULL) {
    return 0;
  }
  at = tdl_holds_find(h, l, owner_of(b, luaL_checknumber(L, 2)));
  lua_pushboolean(L, at != NULL && covers(*at, units));
  if (lua_toboolean(L, -1)) {
    tdl_lock_give(l, units, 0);
    (*at)->units -= units;
    if ((*at)->units == 0) {
      tdl_holds_remove(h, at);
    }
  }
  return 1;
}

/* close(handle) -> true; nil, "held": somebody here holds it; nothing: no handle
** of that kind */
static int lock_close(lua_State *L) {
  const tdl_ref *ref = tdl_bind_ref_at(L, 1);
  if (ref == NULL || ref->kind != kind_of(L)) {
    return 0;
  } else if (ref->thing != NULL &&
             tdl_holds_any(tdl_bind_of(L)->loop->holds, ref->thing)) {
    return refused(L);
  }
  tdl_bind_close_thing(L, 1);
  lua_pushboolean(L, 1);
  return 1;
}

/* --- waiting -------------------------------------------------------------- */

static tdl_lock *awaited(const tdl_bound_wait *wait) {
  return (tdl_lock *)wait->places[0].thing;
}

static uint32_t units_of(const tdl_bound_wait *wait) {
  return (uint32_t)(uintptr_t)wait->places[0].waiter.offer;
}

static void leave(tdl_bound_wait *wait, uint32_t i) {
  tdl_lock_leave(awaited(wait), &wait->places[i].waiter);
}

static int deliver(tdl_bound_wait *wait, lua_State *L) {
  tdl_holds *h = wait->bind->loop->holds;
  push_outcome(L);
  if (tdl_holds_reserve(h) != 0) {
    return luaL_error(L, "not enough memory");
  }
  enter_awaited(h, awaited(wait), wait->owner, units_of(wait));
  return granted(L, wait->wait.value != NULL);
}

/* What this one was to be told, the next ones are. */
static void undo(tdl_bound_wait *wait) {
  tdl_lock_give(awaited(wait), units_of(wait),
                (uint32_t)(uintptr_t)wait->wait.value);
}

static const tdl_wait_kind wait_kind = {
    .leave = leave, .deliver = deliver, .undo = undo};

/* wait(handle, owner, units) -> future, number for wait_end; or nil, and
** "abandoned" if so: it has them */
static int lock_wait(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  uint64_t owner = owner_of(b, luaL_checknumber(L, 2));
  uint32_t units = (uint32_t)luaL_checknumber(L, 3);
  tdl_counted *thing;
  tdl_bound_wait *w;
  tdl_lock *l;
  int told = 0;
  lua_settop(L, 3);
  push_outcome(L);
  thing = tdl_bind_check_thing(L, 1, kind_of(L));
  l = (tdl_lock *)thing;
  w = tdl_bind_new_wait(b, L, &wait_kind, &thing, 1);
  w->owner = owner;
  if (tdl_holds_reserve(b->loop->holds) != 0) {
    tdl_bind_drop_wait(w);
    return luaL_error(L, "not enough memory");
  }
  if (!tdl_lock_wait(l, &w->places[0].waiter, units, &told)) {
    return 2;
  }
  enter_awaited(b->loop->holds, l, owner, units);
  tdl_bind_drop_wait(w);
  lua_settop(L, 5);
  lua_pushnil(L);
  lua_replace(L, 4);
  return granted(L, told);
}

/* --- for Lua -------------------------------------------------------------- */

/* lock_functions(name of the kind) -> table */
static int core_lock_functions(lua_State *L) {
  static const struct {
    const char *name;
    lua_CFunction function;
  } functions[] = {{"new", lock_new},
                   {"take", lock_take},
                   {"give", lock_give},
                   {"close", lock_close},
                   {"wait", lock_wait}};
  const char *name = luaL_checkstring(L, 1);
  const tdl_kind *kind = name[0] == 'm'   ? &tdl_mutex_kind
                         : name[0] == 'r' ? &tdl_rwlock_kind
                                          : &tdl_semaphore_kind;
  lua_newtable(L);
  for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
    lua_pushlightuserdata(L, (void *)(uintptr_t)kind);
    lua_pushcclosure(L, functions[i].function, 1);
    lua_setfield(L, -2, functions[i].name);
  }
  return 1;
}

/* locks() -> for the FFI: a pointer, and its type's declaration; units that a
** lock has at most. Before anything else of this file, and once. */
static int core_locks(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  locks *self;
  if ((b->loop->holds == NULL && tdl_holds_new(&b->loop->holds) != 0) ||
      tdl_holds_reserve(b->loop->holds) != 0) {
    return luaL_error(L, "not enough memory");
  }
  self = lua_newuserdata(L, sizeof(*self));
  self->face.take = take_free;
  self->face.give = give_back;
  self->bind = b;
  luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushlightuserdata(L, self);
  lua_pushstring(L, face_text);
  lua_pushnumber(L, TDL_LOCK_MAX_UNITS);
  return 3;
}

void tdl_bind_locks(lua_State *L) {
  static const luaL_Reg functions[] = {{"locks", core_locks},
                                       {"lock_functions", core_lock_functions},
                                       {"owner", core_owner},
                                       {"owner_ended", core_owner_ended},
                                       {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
