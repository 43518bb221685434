/* treadle.shared's functions: making a shared table of Lua's, and reading it.
**
** What a state has of a shared table:
**
**   view -> metatable -> __index: a plain table with what was read of it
**    | environment
**   home = { handle, views }   views: number of a table -> view, weak
**
** 1. Each table in it has at most one view in a state, a userdata, as long as
**    anybody there holds that: `==` and table keys do what they should.
** 2. A view keeps the home, and so the handle (refs.c), whose finalizer lets go
**    of the thing. A view has no finalizer.
** 3. A view that a finalizer meets may find that the handle, garbage with it, was
**    finalized first: its `thing` is NULL then. */
#include "../share/shared.h"

#include <string.h>

#include "../codec/codec.h"
#include "../codec/encode.h"
#include "codec_bind.h"
#include "share.h"

/* The userdata. */
typedef struct view {
  tdl_ref *ref; /* the home's handle */
  uint32_t table;
} view;

enum { HOME_HANDLE = 1, HOME_VIEWS };

/* --- views ---------------------------------------------------------------- */

static view *view_at(lua_State *L, int index) {
  view *v = lua_touserdata(L, index);
  tdl_ref *ref = NULL;
  if (lua_type(L, index) != LUA_TUSERDATA ||
      lua_objlen(L, index) != sizeof(*v)) {
    return NULL;
  }
  luaL_checkstack(L, 6, NULL);
  lua_getfenv(L, index);
  if (lua_istable(L, -1)) {
    lua_rawgeti(L, -1, HOME_HANDLE);
    ref = tdl_bind_ref_at(L, -1);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return ref != NULL && ref->kind == &tdl_shared_kind && v->ref == ref ? v
                                                                       : NULL;
}

/* The shared table of a view, which is open. */
static tdl_shared *shared_of(lua_State *L, const view *v) {
  if (v->ref->thing == NULL) {
    luaL_error(L, "the shared table is closed");
  }
  return (tdl_shared *)v->ref->thing;
}

static view *check_view(lua_State *L, int index) {
  view *v = view_at(L, index);
  if (v == NULL) {
    luaL_typerror(L, index, "shared table");
  }
  return v;
}

tdl_ref *tdl_bind_shared_at(lua_State *L, int index, uint32_t *part) {
  view *v = view_at(L, index < 0 ? lua_gettop(L) + index + 1 : index);
  if (v == NULL) {
    return NULL;
  }
  *part = v->table;
  return v->ref;
}

/* Pushes the home of the handle at `handle`. */
static void push_home(lua_State *L, int handle) {
  tdl_bind *b = tdl_bind_of(L);
  lua_getfenv(L, handle);
  lua_rawgeti(L, -1, HOME_HANDLE);
  if (lua_rawequal(L, -1, handle)) {
    lua_pop(L, 1);
    return;
  }
  lua_pop(L, 2); /* the environment that a new userdata has */
  lua_createtable(L, 2, 0);
  lua_pushvalue(L, handle);
  lua_rawseti(L, -2, HOME_HANDLE);
  lua_newtable(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, b->refs_ref);
  lua_getmetatable(L, -1); /* weak values */
  lua_setmetatable(L, -3);
  lua_pop(L, 1);
  lua_rawseti(L, -2, HOME_VIEWS);
  lua_pushvalue(L, -1);
  lua_setfenv(L, handle);
}

/* Pushes a new metatable for a view: lua/treadle/shared.lua makes it, by `view`
** of the handle's. In all of them a field has the same place, which is what
** compiled code looks at. */
static void push_metatable(lua_State *L, int home) {
  int top = lua_gettop(L);
  lua_rawgeti(L, home, HOME_HANDLE);
  lua_getmetatable(L, -1);
  lua_getfield(L, -1, "view");
  lua_call(L, 0, 1);
  lua_replace(L, top + 1);
  lua_settop(L, top + 1);
}

/* Pushes the view of that table. */
static void push_view(lua_State *L, int home, tdl_ref *ref, uint32_t table) {
  int top = lua_gettop(L);
  view *v;
  luaL_checkstack(L, 10, NULL);
  lua_rawgeti(L, home, HOME_VIEWS);
  lua_rawgeti(L, -1, (int)table + 1);
  if (!lua_isnil(L, -1)) {
    lua_replace(L, top + 1);
    return;
  }
  lua_pop(L, 1);
  v = lua_newuserdata(L, sizeof(*v));
  v->ref = ref;
  v->table = table;
  lua_pushvalue(L, home);
  lua_setfenv(L, -2);
  push_metatable(L, home);
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_rawseti(L, top + 1, (int)table + 1);
  lua_replace(L, top + 1);
}

int tdl_bind_push_shared(lua_State *L, tdl_counted *thing, uint32_t part) {
  int top = lua_gettop(L);
  if (part >= ((tdl_shared *)thing)->tables.count) {
    return 0;
  }
  luaL_checkstack(L, 10, NULL);
  tdl_bind_push_thing(L, thing);
  push_home(L, top + 1);
  push_view(L, top + 2, lua_touserdata(L, top + 1), part);
  lua_replace(L, top + 1);
  lua_settop(L, top + 1);
  return 1;
}

/* --- reading -------------------------------------------------------------- */

/* Pushes a cell's value; `home` is the index of its home. */
static void push_cell(lua_State *L, const tdl_shared *s, const tdl_cell *cell,
                      int home, tdl_ref *ref) {
  const uint8_t *bytes;
  switch (cell->kind) {
  case TDL_CELL_FALSE:
  case TDL_CELL_TRUE:
    lua_pushboolean(L, cell->kind == TDL_CELL_TRUE);
    break;
  case TDL_CELL_NUMBER:
    lua_pushnumber(L, cell->as.number);
    break;
  case TDL_CELL_STRING:
    bytes = tdl_shared_bytes(s, cell);
    lua_pushlstring(L, (const char *)bytes, cell->length);
    break;
  case TDL_CELL_TABLE:
    push_view(L, home, ref, cell->as.table);
    break;
  default:
    bytes = tdl_shared_bytes(s, cell);
    if (tdl_decode(L, bytes, cell->length) != 1) {
      luaL_error(L, "cannot read a value of a shared table: %s",
                 lua_tostring(L, -1));
    }
    break;
  }
}

/* Whether the cell's value, under the key at `key`, is in the cache and must not
** be read again: it would be another copy. */
static int is_kept(lua_State *L, const tdl_cell *cell, int cache, int key) {
  int kept;
  if (cell->kind != TDL_CELL_PAYLOAD) {
    return 0;
  }
  lua_pushvalue(L, key);
  lua_rawget(L, cache);
  kept = !lua_isnil(L, -1);
  lua_pop(L, 1);
  return kept;
}

/* Reads all of the table into the one at `cache`. */
static void fill(lua_State *L, const tdl_shared *s, const tdl_shared_table *t,
                 int cache, int home, tdl_ref *ref) {
  const tdl_cell *cell = tdl_shared_cells(s, t);
  int top = lua_gettop(L);
  for (uint32_t i = 1; i <= t->array; i++, cell++) {
    if (cell->kind == TDL_CELL_PAYLOAD) {
      lua_pushnumber(L, i);
      if (is_kept(L, cell, cache, top + 1)) {
        lua_settop(L, top);
        continue;
      }
    }
    push_cell(L, s, cell, home, ref);
    lua_rawseti(L, cache, (int)i);
    lua_settop(L, top);
  }
  for (uint32_t i = 0; i < t->pairs; i++, cell += 2) {
    push_cell(L, s, cell, home, ref);
    if (is_kept(L, cell + 1, cache, top + 1)) {
      lua_settop(L, top);
      continue;
    }
    push_cell(L, s, cell + 1, home, ref);
    lua_rawset(L, cache);
  }
}

/* shared_open(view) -> metatable, cache, length, count: its metatable; a table
** with all that it holds, or, where it holds much, an empty one, and how many
** entries there are; what its length is */
static int core_shared_open(lua_State *L) {
  view *v = check_view(L, 1);
  const tdl_shared *s = shared_of(L, v);
  const tdl_shared_table *t = tdl_shared_table_of(s, v->table);
  lua_settop(L, 1);
  lua_getfenv(L, 1);
  lua_getmetatable(L, 1);
  if (t->array + (uint64_t)t->pairs <= TDL_SHARED_WHOLE_COUNT) {
    lua_createtable(L, (int)t->array, (int)t->pairs);
    fill(L, s, t, 4, 2, v->ref);
    lua_pushnumber(L, t->length);
    return 3;
  }
  lua_newtable(L);
  lua_pushnumber(L, t->length);
  lua_pushnumber(L, (double)t->array + t->pairs);
  return 4;
}

/* shared_fill(view, cache): reads all of it */
static int core_shared_fill(lua_State *L) {
  view *v = check_view(L, 1);
  const tdl_shared *s = shared_of(L, v);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  lua_getfenv(L, 1);
  fill(L, s, tdl_shared_table_of(s, v->table), 2, 3, v->ref);
  return 0;
}

/* shared_look(view, cache, key) -> value or nil: reads that one */
static int core_shared_look(lua_State *L) {
  view *v = check_view(L, 1);
  const tdl_shared *s = shared_of(L, v);
  const tdl_cell *found;
  const char *text = NULL;
  size_t length;
  tdl_cell key = {0};
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 3);
  switch (lua_type(L, 3)) {
  case LUA_TBOOLEAN:
    key.kind = lua_toboolean(L, 3) ? TDL_CELL_TRUE : TDL_CELL_FALSE;
    break;
  case LUA_TNUMBER:
    key.kind = TDL_CELL_NUMBER;
    key.as.number = lua_tonumber(L, 3) + 0.0; /* -0 is 0 */
    break;
  case LUA_TSTRING:
    key.kind = TDL_CELL_STRING;
    text = lua_tolstring(L, 3, &length);
    key.length = (uint32_t)length;
    break;
  default:
    return 0;
  }
  found = tdl_shared_find(s, tdl_shared_table_of(s, v->table), &key, text);
  if (found == NULL) {
    return 0;
  }
  lua_getfenv(L, 1);
  push_cell(L, s, found, 4, v->ref);
  lua_pushvalue(L, 3);
  lua_pushvalue(L, 5);
  lua_rawset(L, 2);
  return 1;
}

/* shared_meta(view) -> its metatable; nothing when it is something else */
static int core_shared_meta(lua_State *L) {
  return view_at(L, 1) != NULL && lua_getmetatable(L, 1) ? 1 : 0;
}

/* shared_tostring(view): the same in all states */
static int core_shared_tostring(lua_State *L) {
  view *v = check_view(L, 1);
  lua_pushfstring(L, "treadle.shared: %p",
                  (const void *)tdl_shared_table_of(shared_of(L, v), v->table));
  return 1;
}

/* --- making --------------------------------------------------------------- */

/* Stack of the maker. */
enum { SOURCE = 1, HANDLE, SEEN, QUEUE, TABLE, KEY, VALUE };

/* Where a value is: in that table, under that element or the key in that cell. */
typedef struct origin {
  uint32_t table;
  uint32_t element;
  size_t key;
} origin;

typedef struct maker {
  lua_State *L;
  tdl_shared *shared;
  origin *origins; /* of the tables: in a userdata at QUEUE[0] */
  size_t cap;
  origin at; /* of the value that is being added */
} maker;

static void check(maker *m, int status) {
  if (status != 0) {
    luaL_error(m->L, "not enough memory");
  }
}

/* Steps of a path that are shown. */
#define STEPS 12

/* Pushes where the value is: "table.items[3]". */
static void push_path(maker *m) {
  tdl_path steps[STEPS + 1];
  lua_State *L = m->L;
  origin at = m->at;
  int n = 0;
  luaL_checkstack(L, STEPS + LUA_MINSTACK, NULL);
  while ((at.element != 0 || at.key != 0) && n < STEPS) {
    tdl_path *step = &steps[n++];
    step->kind = at.element != 0 ? TDL_PATH_ELEMENT : TDL_PATH_KEY;
    step->n = at.element;
    step->name = NULL;
    step->up = &steps[n];
    if (at.element == 0) {
      const tdl_cell *key = (tdl_cell *)m->shared->cells.items + at.key - 1;
      push_cell(L, m->shared, key, 0, NULL);
      step->n = (uint32_t)lua_gettop(L);
    }
    at = m->origins[at.table];
  }
  steps[n].kind = TDL_PATH_ELIDED;
  steps[n].up = NULL;
  if (n > 0 && at.element == 0 && at.key == 0) {
    steps[n - 1].up = NULL;
  }
  tdl_path_push(L, "table", n > 0 ? steps : NULL);
}

static void refuse(maker *m, const char *what) {
  push_path(m);
  luaL_error(m->L, "cannot share %s (%s)", what, lua_tostring(m->L, -1));
}

/* Makes the cell of the table at `index`, which is added if it is a new one. */
static void put_table(maker *m, int index, tdl_cell *cell) {
  lua_State *L = m->L;
  uint32_t number;
  cell->kind = TDL_CELL_TABLE;
  lua_pushvalue(L, index);
  lua_rawget(L, SEEN);
  if (!lua_isnil(L, -1)) {
    cell->as.table = (uint32_t)lua_tonumber(L, -1);
    lua_pop(L, 1);
    return;
  }
  lua_pop(L, 1);
  if (lua_getmetatable(L, index)) {
    refuse(m, "a table with a metatable");
  }
  check(m, tdl_shared_add_table(m->shared, &number));
  if (number >= INT32_MAX) {
    luaL_error(L, "cannot share so many tables");
  }
  if (number == m->cap) {
    size_t cap = m->cap == 0 ? 16 : m->cap * 2;
    origin *more = lua_newuserdata(L, cap * sizeof(*more));
    if (number > 0) {
      memcpy(more, m->origins, number * sizeof(*more));
    }
    lua_rawseti(L, QUEUE, 0);
    m->origins = more;
    m->cap = cap;
  }
  m->origins[number] = m->at;
  lua_pushvalue(L, index);
  lua_pushnumber(L, number);
  lua_rawset(L, SEEN);
  lua_pushvalue(L, index);
  lua_rawseti(L, QUEUE, (int)number + 1);
  cell->as.table = number;
}

/* Any other value: by the codec, with its refusals. */
static void put_payload(maker *m, int index, tdl_cell *cell) {
  lua_State *L = m->L;
  int status = tdl_encode(L, index, 1, "", &m->shared->payload,
                          TDL_PAYLOAD_CEILING_BYTES);
  if (status != 0) {
    const char *why = lua_tostring(L, -1); /* "cannot send ... ([1])" */
    push_path(m);
    lua_pushfstring(L, "(%s", lua_tostring(L, -1));
    luaL_error(L, "%s", luaL_gsub(L, why, "([1]", lua_tostring(L, -1)));
  }
  check(m, tdl_shared_put_payload(m->shared, cell));
}

static void put_string(maker *m, int index, tdl_cell *cell) {
  lua_State *L = m->L;
  size_t length;
  const char *s = lua_tolstring(L, index, &length);
  lua_pushvalue(L, index);
  lua_rawget(L, SEEN);
  if (lua_isnil(L, -1)) {
    check(m, tdl_shared_put_string(m->shared, s, length, cell));
    lua_pushvalue(L, index);
    lua_pushnumber(L, (double)cell->as.at);
    lua_rawset(L, SEEN);
  } else {
    cell->kind = TDL_CELL_STRING;
    cell->length = (uint32_t)length;
    cell->as.at = (uint64_t)lua_tonumber(L, -1);
  }
  lua_pop(L, 1);
}

static void add(maker *m, int index) {
  lua_State *L = m->L;
  tdl_cell cell = {0};
  switch (lua_type(L, index)) {
  case LUA_TBOOLEAN:
    cell.kind = lua_toboolean(L, index) ? TDL_CELL_TRUE : TDL_CELL_FALSE;
    break;
  case LUA_TNUMBER:
    cell.kind = TDL_CELL_NUMBER;
    cell.as.number = lua_tonumber(L, index);
    break;
  case LUA_TSTRING:
    put_string(m, index, &cell);
    break;
  case LUA_TTABLE:
    put_table(m, index, &cell);
    break;
  default:
    put_payload(m, index, &cell);
    break;
  }
  check(m, tdl_shared_add(m->shared, &cell));
}

/* Whether the number at `index` is one of the elements that were added. */
static int is_element(lua_State *L, int index, uint32_t array) {
  double n;
  if (lua_type(L, index) != LUA_TNUMBER) {
    return 0;
  }
  n = lua_tonumber(L, index);
  return n >= 1 && n <= array && n == (double)(uint32_t)n;
}

/* Adds the cells of that table, which lies at TABLE. */
static void add_cells(maker *m, uint32_t number) {
  lua_State *L = m->L;
  tdl_shared *s = m->shared;
  uint32_t array = 0;
  tdl_shared_open(s, number);
  m->at.table = number;
  m->at.key = 0;
  for (;;) {
    lua_rawgeti(L, TABLE, (int)array + 1);
    if (lua_isnil(L, -1)) {
      break;
    }
    m->at.element = ++array;
    add(m, KEY);
    lua_settop(L, TABLE);
  }
  m->at.element = 0;
  lua_settop(L, TABLE);
  lua_pushnil(L);
  while (lua_next(L, TABLE)) {
    int kind = lua_type(L, KEY);
    if (!is_element(L, KEY, array)) {
      if (kind != LUA_TSTRING && kind != LUA_TNUMBER && kind != LUA_TBOOLEAN) {
        m->at = m->origins[number];
        lua_pushfstring(L, "a table with a %s as a key",
                        kind == TDL_LUA_TCDATA ? "cdata"
                                               : lua_typename(L, kind));
        refuse(m, lua_tostring(L, -1));
      }
      add(m, KEY);
      m->at.key = s->cells.count;
      add(m, VALUE);
    }
    lua_settop(L, KEY);
  }
  tdl_shared_shape(s, number, array, (uint32_t)lua_objlen(L, TABLE));
}

static void let_go_of_moved(lua_State *L, const tdl_shared *s) {
  for (size_t i = 0; i < s->holders.count; i++) {
    tdl_bytes bytes = tdl_shared_payload(s, i);
    tdl_bind_sent(tdl_bind_of(L), &bytes);
  }
}

/* shared_new(table) -> view */
static int core_shared_new(lua_State *L) {
  maker m = {0};
  tdl_cell root;
  if (view_at(L, 1) != NULL) { /* it is one */
    lua_settop(L, 1);
    return 1;
  }
  if (!lua_istable(L, 1)) {
    return tdl_bind_bad_type(L, 1, "shared", "table");
  }
  lua_settop(L, 1);
  luaL_checkstack(L, LUA_MINSTACK, NULL);
  m.L = L;
  check(&m, tdl_shared_new(&m.shared));
  tdl_bind_push_new(L, &m.shared->counted); /* also in an error it is dropped */
  lua_newtable(L);
  lua_newtable(L);
  put_table(&m, SOURCE, &root);
  for (uint32_t i = 0; i < m.shared->tables.count; i++) {
    lua_rawgeti(L, QUEUE, (int)i + 1);
    lua_pushnil(L);
    lua_rawseti(L, QUEUE, (int)i + 1);
    add_cells(&m, i);
    lua_settop(L, QUEUE);
  }
  check(&m, tdl_shared_finish(m.shared));
  let_go_of_moved(L, m.shared);
  tdl_bind_push_shared(L, &m.shared->counted, 0);
  return 1;
}

void tdl_bind_shared(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"shared_new", core_shared_new},
      {"shared_open", core_shared_open},
      {"shared_fill", core_shared_fill},
      {"shared_look", core_shared_look},
      {"shared_meta", core_shared_meta},
      {"shared_tostring", core_shared_tostring},
      {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
