/* Userdata for counted things. */
#include <string.h>

#include "../base/alloc.h"
#include "../base/compiler.h"
#include "../codec/things.h"
#include "../config.h"
#include "../share/buffer.h"
#include "../share/hold.h"
#include "../share/shared.h"
#include "../treadle.h"
#include "codec_bind.h"
#include "share.h"
#include "streams.h"

/* --- making and finding them ---------------------------------------------- */

/* Pushes treadle.KIND's metatable. */
static void push_metatable(tdl_bind *b, lua_State *L, const tdl_kind *kind) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, b->kinds_ref);
  lua_getfield(L, -1, kind->name);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, b->require_ref);
    lua_pushfstring(L, "treadle.%s", kind->name);
    lua_call(L, 1, 0);
    lua_getfield(L, -1, kind->name);
  }
  lua_remove(L, -2);
}

static int collect(lua_State *L) {
  lua_gc(L, LUA_GCCOLLECT, 0);
  return 0;
}

/* Bytes behind a handle, and what its descriptor is worth; a slice has the whole
** one's. */
static size_t weight_of(const tdl_counted *thing) {
  const tdl_buffer *buffer = (const tdl_buffer *)thing;
  return thing->kind == &tdl_buffer_kind && buffer->whole == buffer
             ? tdl_buffer_bytes(buffer) +
                   (tdl_buffer_fd(buffer) >= 0 ? TDL_BUFFER_FILE_BYTES : 0)
             : 0;
}

/* The collector knows nothing of the memory behind a handle. So when as much as
** the state held then, and a good piece, has come since the last time, the
** garbage goes. */
static void weigh(tdl_bind *b, lua_State *L, const tdl_counted *fresh) {
  int top = lua_gettop(L);
  b->weight += weight_of(fresh);
  if (TDL_LIKELY(b->weight <= b->weight_limit ||
                 b->weight <= TDL_BUFFER_GARBAGE_BYTES)) {
    return;
  }
  lua_cpcall(L, collect, NULL); /* finalizers may raise */
  lua_settop(L, top);
  b->weight_limit = 0;
  for (const tdl_ref *ref = b->refs; ref != NULL; ref = ref->next) {
    b->weight_limit += weight_of(ref->thing);
  }
  b->weight = 0;
}

static void push(lua_State *L, tdl_counted *thing, int is_new) {
  tdl_bind *b = tdl_bind_of(L);
  tdl_ref *ref;
  luaL_checkstack(L, 8, NULL);
  lua_rawgeti(L, LUA_REGISTRYINDEX, b->refs_ref);
  lua_pushlightuserdata(L, thing);
  lua_rawget(L, -2);
  ref = lua_touserdata(L, -1);
  if (ref != NULL && ref->thing == thing && !ref->going) {
    lua_remove(L, -2);
    return;
  }
  lua_pop(L, 1);
  ref = lua_newuserdata(L, sizeof(*ref));
  ref->thing = NULL;
  ref->kind = thing->kind;
  ref->moved = ref->going = 0;
  ref->bind = b;
  ref->at = NULL;
  push_metatable(b, L, thing->kind);
  lua_setmetatable(L, -2); /* finalized from here on */
  lua_pushlightuserdata(L, thing);
  lua_pushvalue(L, -2);
  lua_rawset(L, -4);
  lua_remove(L, -2);
  if (!is_new) {
    tdl_counted_hold(thing);
  }
  ref->thing = thing;
  ref->next = b->refs;
  ref->at = &b->refs;
  if (ref->next != NULL) {
    ref->next->at = &ref->next;
  }
  b->refs = ref;
  weigh(b, L, thing);
}

void tdl_bind_push_thing(lua_State *L, tdl_counted *thing) {
  push(L, thing, 0);
}

/* Pushes what the state has for the thing, or nil. Needs no memory. */
static void push_known(tdl_bind *b, lua_State *L, tdl_counted *thing) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, b->refs_ref);
  lua_pushlightuserdata(L, thing);
  lua_rawget(L, -2);
  lua_remove(L, -2);
}

static int make_new(lua_State *L) {
  push(L, lua_touserdata(L, 1), 1);
  return 0;
}

/* Even a C function that is pushed takes memory; lua_cpcall asks for that when
** it can be refused. */
void tdl_bind_push_new(lua_State *L, tdl_counted *thing) {
  if (lua_cpcall(L, make_new, thing) != 0) {
    tdl_counted_drop(thing);
    lua_error(L);
  }
  push_known(tdl_bind_of(L), L, thing); /* it had no time to be collected */
}

static int make_known(lua_State *L) {
  push(L, lua_touserdata(L, 1), 0);
  return 0;
}

void tdl_bind_push_fleeting(lua_State *L, tdl_counted *thing) {
  int status;
  tdl_counted_hold(thing);
  status = lua_cpcall(L, make_known, thing);
  tdl_counted_drop(thing);
  if (status != 0) {
    lua_error(L);
  }
  push_known(tdl_bind_of(L), L, thing); /* as above */
}

tdl_ref *tdl_bind_ref_at(lua_State *L, int index) {
  tdl_bind *b = tdl_bind_of(L);
  tdl_ref *ref = lua_touserdata(L, index);
  if (ref == NULL || lua_type(L, index) != LUA_TUSERDATA ||
      !lua_getmetatable(L, index)) {
    return NULL;
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, b->kinds_ref);
  lua_insert(L, -2);
  lua_rawget(L, -2); /* by its metatable, too */
  if (!lua_toboolean(L, -1)) {
    ref = NULL;
  }
  lua_pop(L, 2);
  return ref;
}

tdl_counted *tdl_bind_find_thing(lua_State *L, int index,
                                 const tdl_kind *kind) {
  const tdl_ref *ref = tdl_bind_ref_at(L, index);
  return ref != NULL && ref->kind == kind ? ref->thing : NULL;
}

static const char *gone(const tdl_ref *ref) {
  return ref->moved ? "the %s was moved" : "the %s is closed";
}

tdl_counted *tdl_bind_check_thing(lua_State *L, int index,
                                  const tdl_kind *kind) {
  tdl_ref *ref = tdl_bind_ref_at(L, index);
  if (ref == NULL || ref->kind != kind) {
    luaL_typerror(L, index, kind->name);
  } else if (ref->thing == NULL) {
    luaL_error(L, gone(ref), kind->name);
  }
  return ref->thing;
}

/* ref_look(value) -> the name of its kind, and, if it is closed, a text that says
** so; nothing when it is no handle */
static int core_ref_look(lua_State *L) {
  const tdl_ref *ref = tdl_bind_ref_at(L, 1);
  if (ref == NULL) {
    return 0;
  }
  lua_pushstring(L, ref->kind->name);
  if (ref->thing != NULL) {
    return 1;
  }
  lua_pushfstring(L, gone(ref), ref->kind->name);
  return 2;
}

/* --- for the codec -------------------------------------------------------- */

/* What treadle.move returns, and the list of a call's option `transfer`: their
** environment holds the handles. */
typedef struct parcel {
  int is_transfer;
} parcel;

static const char parcel_key = 0; /* its address: where the metatable is */

static const parcel *parcel_at(lua_State *L, int index) {
  const parcel *p = lua_touserdata(L, index);
  int is_parcel = 0;
  if (lua_type(L, index) == LUA_TUSERDATA && lua_getmetatable(L, index)) {
    lua_pushlightuserdata(L, (void *)(uintptr_t)&parcel_key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    is_parcel = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
  }
  return is_parcel ? p : NULL;
}

/* What another process cannot have: all but memory that was made for it. */
static const char *what_stays(const tdl_counted *thing) {
  if (thing->kind == &tdl_buffer_kind) {
    return tdl_buffer_fd((const tdl_buffer *)thing) >= 0
               ? NULL
               : "buffer that was made without the option 'process'";
  }
  return thing->kind == &tdl_shared_kind ? "shared table" : thing->kind->name;
}

static tdl_counted *thing_of(lua_State *L, int index, tdl_thing_use *use) {
  const parcel *p = parcel_at(L, index);
  tdl_ref *ref;
  if (p != NULL && !p->is_transfer) {
    lua_getfenv(L, index);
    lua_rawgeti(L, -1, 1);
    ref = tdl_bind_ref_at(L, lua_gettop(L)); /* the environment keeps it */
    lua_pop(L, 2);
    use->moved = 1;
  } else {
    ref = tdl_bind_ref_at(L, index);
    if (ref == NULL) {
      ref = tdl_bind_shared_at(L, index, &use->part);
    }
  }
  if (ref == NULL) {
    return NULL;
  } else if (ref->thing == NULL) {
    use->why = ref->moved ? "a moved buffer" : "a closed handle";
  } else {
    use->stays = what_stays(ref->thing);
  }
  return ref->thing;
}

static int push_part(lua_State *L, tdl_counted *thing, uint32_t part) {
  if (thing->kind == &tdl_shared_kind) {
    return tdl_bind_push_shared(L, thing, part);
  } else if (part != 0) {
    return 0;
  }
  tdl_bind_push_thing(L, thing);
  return 1;
}

static const tdl_thing_hooks hooks = {thing_of, push_part};

/* --- their end ------------------------------------------------------------ */

static void let_go(tdl_ref *ref) {
  tdl_counted *thing = ref->thing;
  size_t weight;
  if (thing != NULL) {
    ref->thing = NULL;
    if (thing->kind == &tdl_stream_kind) {
      tdl_stream_let_go(ref->bind, thing);
    }
    *ref->at = ref->next;
    if (ref->next != NULL) {
      ref->next->at = ref->at;
    }
    weight = weight_of(thing);
    ref->bind->weight -=
        weight < ref->bind->weight ? weight : ref->bind->weight;
    if (ref->bind->loop != NULL && ref->bind->loop->holds != NULL) {
      tdl_holds_keep(ref->bind->loop->holds, thing);
    }
    tdl_counted_drop(thing);
  }
}

/* ref_close(handle): lets go of the thing now; also its finalizer */
static int core_ref_close(lua_State *L) {
  tdl_ref *ref = tdl_bind_ref_at(L, 1);
  if (ref == NULL) {
    return luaL_typerror(L, 1, "handle");
  }
  let_go(ref);
  return 0;
}

void tdl_bind_close_thing(lua_State *L, int index) {
  let_go(tdl_bind_ref_at(L, index));
}

static int ref_gc(lua_State *L) {
  let_go(lua_touserdata(L, 1));
  return 0;
}

/* --- moves ---------------------------------------------------------------- */

static int lies_in(const tdl_ref *ref, const tdl_buffer *moved) {
  return ref->kind == &tdl_buffer_kind &&
         tdl_buffer_lies_in((const tdl_buffer *)ref->thing, moved);
}

/* H4. The payload has a reference of its own. */
static void give_away(tdl_bind *b, const tdl_buffer *moved, int going) {
  tdl_ref *next;
  for (tdl_ref *ref = b->refs; ref != NULL && !tdl_buffer_is_sole(moved);
       ref = next) {
    next = ref->next;
    if (lies_in(ref, moved) && ref->going >= going) {
      ref->moved = 1;
      let_go(ref);
    }
  }
}

void tdl_bind_sent(tdl_bind *b, const tdl_bytes *bytes) {
  size_t size;
  uint32_t n;
  if (TDL_LIKELY(bytes->len == 0 || !(bytes->data[0] & TDL_WIRE_THINGS))) {
    return;
  }
  n = tdl_payload_things(bytes->data, bytes->len, &size);
  for (uint32_t i = 0; i < n; i++) {
    if (tdl_payload_is_moved(bytes->data, bytes->len, i)) {
      give_away(
          b, (const tdl_buffer *)tdl_payload_thing(bytes->data, bytes->len, i),
          0);
    }
  }
}

static void set_going(tdl_bind *b, const tdl_counted *moved, int change) {
  for (tdl_ref *ref = b->refs; ref != NULL; ref = ref->next) {
    if (lies_in(ref, (const tdl_buffer *)moved)) {
      ref->going += change;
      ref->going = ref->going < 0 ? 0 : ref->going; /* made meanwhile */
    }
  }
}

int tdl_bind_gift(tdl_bind *b, const tdl_bytes *bytes, tdl_counted ***gift) {
  size_t size;
  uint32_t n, count = 0;
  *gift = NULL;
  if (TDL_LIKELY(!(bytes->data[0] & TDL_WIRE_THINGS))) {
    return 0;
  }
  n = tdl_payload_things(bytes->data, bytes->len, &size);
  for (uint32_t i = 0; i < n; i++) {
    if (!tdl_payload_is_moved(bytes->data, bytes->len, i)) {
      continue;
    } else if (*gift == NULL) {
      *gift = tdl_calloc((n - i + (size_t)1) * sizeof(**gift));
      if (*gift == NULL) {
        return TREADLE_ENOMEM;
      }
    }
    (*gift)[count] = tdl_payload_thing(bytes->data, bytes->len, i);
    set_going(b, (*gift)[count], 1);
    tdl_counted_hold((*gift)[count++]);
  }
  return 0;
}

void tdl_bind_end_gift(tdl_bind *b, tdl_counted **gift, int is_accepted) {
  for (uint32_t i = 0; gift != NULL && gift[i] != NULL; i++) {
    if (is_accepted) {
      give_away(b, (const tdl_buffer *)gift[i], 1);
    } else {
      set_going(b, gift[i], -1);
    }
    tdl_counted_drop(gift[i]);
  }
  tdl_free(gift);
}

void tdl_bind_sent_results(tdl_vm *vm, const tdl_bytes *bytes) {
  if (vm->bind != NULL) {
    tdl_bind_sent(vm->bind, bytes);
  }
}

static parcel *push_parcel(lua_State *L, int is_transfer) {
  parcel *p = lua_newuserdata(L, sizeof(*p));
  p->is_transfer = is_transfer;
  lua_pushlightuserdata(L, (void *)(uintptr_t)&parcel_key);
  lua_rawget(L, LUA_REGISTRYINDEX);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "treadle.move");
    lua_setfield(L, -2, "__metatable");
    lua_pushlightuserdata(L, (void *)(uintptr_t)&parcel_key);
    lua_pushvalue(L, -2);
    lua_rawset(L, LUA_REGISTRYINDEX);
  }
  lua_setmetatable(L, -2);
  return p;
}

/* move(buffer) -> what gives it away as an argument or a result */
static int core_move(lua_State *L) {
  const tdl_ref *ref = tdl_bind_ref_at(L, 1);
  if (ref == NULL || ref->kind != &tdl_buffer_kind) {
    return tdl_bind_bad_type(L, 1, "move", "buffer");
  }
  tdl_bind_check_thing(L, 1, &tdl_buffer_kind);
  push_parcel(L, 0);
  lua_createtable(L, 1, 0);
  lua_pushvalue(L, 1);
  lua_rawseti(L, -2, 1);
  lua_setfenv(L, -2);
  return 1;
}

/* transfer(list) -> the same for the list of a call, behind its arguments; or
** nil, message */
static int core_transfer(lua_State *L) {
  int n;
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  n = (int)lua_objlen(L, 1);
  push_parcel(L, 1);
  lua_createtable(L, n, 0);
  for (int i = 1; i <= n; i++) {
    const tdl_ref *ref;
    lua_rawgeti(L, 1, i);
    ref = tdl_bind_ref_at(L, 4);
    if (ref == NULL || ref->kind != &tdl_buffer_kind) {
      lua_pushnil(L);
      lua_pushfstring(L, "a list of buffers expected, got a %s in it",
                      luaL_typename(L, 4));
      return 2;
    } else if (ref->thing == NULL) {
      lua_pushnil(L);
      lua_pushfstring(L, gone(ref), "buffer");
      return 2;
    }
    lua_rawseti(L, 3, i);
  }
  lua_setfenv(L, 2);
  return 1;
}

int tdl_bind_is_transfer(lua_State *L, int index) {
  const parcel *p = parcel_at(L, index);
  return p != NULL && p->is_transfer;
}

int tdl_bind_transfer(lua_State *L, int index, tdl_bytes *bytes) {
  int n, top = lua_gettop(L);
  luaL_checkstack(L, 8, NULL);
  lua_getfenv(L, index);
  n = (int)lua_objlen(L, top + 1);
  for (int i = 1; i <= n; i++) {
    const tdl_ref *ref;
    lua_rawgeti(L, top + 1, i);
    ref = tdl_bind_ref_at(L, top + 2);
    lua_settop(L, top + 1);
    if (ref->thing == NULL || !tdl_payload_move(bytes, ref->thing)) {
      lua_settop(L, top);
      if (ref->thing == NULL) {
        lua_pushfstring(L, gone(ref), "buffer");
      } else {
        lua_pushfstring(L, "buffer %d of 'transfer' is not among the arguments",
                        i);
      }
      return TREADLE_EPAYLOAD;
    }
  }
  lua_settop(L, top);
  return 0;
}

void tdl_bind_lose_refs(tdl_bind *b) {
  while (b->refs != NULL) {
    let_go(b->refs);
  }
}

/* --- metatables ----------------------------------------------------------- */

static int ref_equal(lua_State *L) {
  const tdl_ref *a = tdl_bind_ref_at(L, 1), *b = tdl_bind_ref_at(L, 2);
  lua_pushboolean(L, a != NULL && b != NULL && a->thing != NULL &&
                         a->thing == b->thing);
  return 1;
}

static int ref_tostring(lua_State *L) {
  const tdl_ref *ref = tdl_bind_ref_at(L, 1);
  if (ref == NULL || ref->thing == NULL) {
    lua_pushfstring(L, "treadle.%s (%s)", ref != NULL ? ref->kind->name : "?",
                    ref != NULL && ref->moved ? "moved" : "closed");
  } else {
    lua_pushfstring(L, "treadle.%s: %p", ref->kind->name, (void *)ref->thing);
  }
  return 1;
}

/* kind(name, metatable): what userdata of that kind get; adds to the metatable
** what all kinds have */
static int core_kind(lua_State *L) {
  static const luaL_Reg common[] = {{"__gc", ref_gc},
                                    {"__eq", ref_equal},
                                    {"__tostring", ref_tostring},
                                    {NULL, NULL}};
  tdl_bind *b = tdl_bind_of(L);
  luaL_checkstring(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  luaL_setfuncs(L, common, 0);
  lua_rawgeti(L, LUA_REGISTRYINDEX, b->kinds_ref);
  lua_pushvalue(L, 2);
  lua_pushboolean(L, 1);
  lua_rawset(L, 3);
  lua_pushvalue(L, 1);
  lua_pushvalue(L, 2);
  lua_rawset(L, 3);
  return 0;
}

void tdl_bind_forget_kind(lua_State *L, const char *name) {
  tdl_bind *b = tdl_bind_of(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, b->kinds_ref);
  lua_pushnil(L);
  while (lua_next(L, -2) != 0) { /* the name may be no string of Lua's now */
    if (lua_type(L, -2) == LUA_TSTRING &&
        strcmp(lua_tostring(L, -2), name) == 0) {
      lua_pushvalue(L, -2);
      lua_pushnil(L);
      lua_rawset(L, -5);
    }
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

void tdl_bind_hook_things(void) {
  tdl_things_hook(&hooks);
}

void tdl_bind_refs(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"ref_close", core_ref_close}, {"ref_look", core_ref_look},
      {"kind", core_kind},           {"move", core_move},
      {"transfer", core_transfer},   {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
