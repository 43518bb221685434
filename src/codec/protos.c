/* A function without upvalues is loaded once and pushed again: it is the same
** function in many payloads. One with upvalues must be another function each
** time, but of the same prototype, because what the JIT compiler makes of a
** function belongs to its prototype. So its bytecode is loaded as a child of a
** small chunk, the factory, and each call of that makes one:
**
**   local u1, u2, ..., un
**   return function() return u1, u2, ..., un end
**
** The factory is compiled from this source by the LuaJIT that is here, and its
** child is exchanged: a dump is a head and prototypes, each with its length
** before it, children before their parent. Of the child the list of upvalues
** is exchanged, too, so that they are the factory's locals; whether one is
** ever assigned remains as it was. Nothing else is understood or touched, and
** where anything is not as expected, the function is loaded as it came. */
#include "protos.h"

#include <lauxlib.h>

/* The functions that a state remembers by their bytecode, so that the JIT
** compiler's work on them outlives one payload; and the longest of them. */
#define CACHE_COUNT 256
#define CACHE_BYTES 65536

/* A bit of an upvalue's entry: it is never assigned. */
#define UV_IMMUTABLE 0x4000u

/* Flags of a dump: the order of its bytes; it has no names and lines. */
#define DUMP_BIG_ENDIAN 0x01u
#define DUMP_STRIPPED   0x02u

/* More upvalues a function cannot have. */
#define UPVALUES_MAX 255

/* Passes over an unsigned LEB128; 0 when it does not end. */
static int get_uleb(tdl_reader *r, uint32_t *v) {
  *v = 0;
  for (unsigned shift = 0; shift < 32; shift += 7) {
    const uint8_t *p = tdl_get_room(r, 1);
    if (p == NULL) {
      return 0;
    }
    *v |= (uint32_t)(*p & 0x7f) << shift;
    if (*p < 0x80) {
      return 1;
    }
  }
  return 0;
}

/* A dump: where its parts are. */
struct dump {
  uint32_t flags;
  const uint8_t *first; /* the prototypes: length, body, length, body, ... */
  const uint8_t *last;  /* the last one's body */
  uint32_t last_len;
  uint32_t count;
  const uint8_t *end; /* behind the last one */
};

/* What can be told of bytecode without running it: its signature, and that
** its prototypes fill it. LuaJIT checks version and frame layout, and never
** the instructions: bytecode is trusted code (docs/payloads.md). */
static int parse(const uint8_t *p, size_t len, struct dump *dump) {
  tdl_reader r = {p, p + len};
  uint32_t n;
  if (len < 5 || memcmp(p, "\033LJ", 3) != 0) {
    return 0;
  }
  r.next += 4;
  if (!get_uleb(&r, &dump->flags)) {
    return 0;
  }
  if (!(dump->flags & DUMP_STRIPPED) && /* the chunk's name */
      (!get_uleb(&r, &n) || tdl_get_room(&r, n) == NULL)) {
    return 0;
  }
  dump->first = r.next;
  dump->count = 0;
  for (;;) {
    dump->end = r.next;
    if (!get_uleb(&r, &n)) {
      return 0;
    }
    if (n == 0) {
      return r.next == r.end;
    }
    dump->last = tdl_get_room(&r, n);
    dump->last_len = n;
    dump->count++;
    if (dump->last == NULL) {
      return 0;
    }
  }
}

/* The list of upvalues, two bytes each, in the body of a prototype that has
** `n`; NULL when it has others. */
static const uint8_t *find_upvalues(const uint8_t *body, uint32_t len,
                                    uint32_t n) {
  tdl_reader r = {body, body + len};
  const uint8_t *head = tdl_get_room(&r, 4); /* the last byte: how many */
  uint32_t skipped;
  uint32_t code;
  uint32_t lines;
  if (head == NULL || head[3] != n || !get_uleb(&r, &skipped) ||
      !get_uleb(&r, &skipped) || !get_uleb(&r, &code) ||
      !get_uleb(&r, &lines) ||
      (lines != 0 && (!get_uleb(&r, &skipped) || !get_uleb(&r, &skipped))) ||
      tdl_get_room(&r, (size_t)code * 4) == NULL) {
    return NULL;
  }
  return tdl_get_room(&r, (size_t)n * 2);
}

/* ---- loading ---- */

#define PIECES 5

struct pieces {
  struct {
    const uint8_t *s;
    size_t len;
  } list[PIECES];
  int next;
};

static const char *read_piece(lua_State *L, void *ud, size_t *len) {
  struct pieces *p = ud;
  (void)L;
  while (p->next < PIECES && p->list[p->next].len == 0) {
    p->next++;
  }
  if (p->next == PIECES) {
    *len = 0;
    return NULL;
  }
  *len = p->list[p->next].len;
  return (const char *)p->list[p->next++].s;
}

/* Pushes a new function. */
static int load(tdl_decoder *d, const uint8_t *p, size_t len) {
  struct pieces pieces = {{{p, len}}, 0};
  switch (lua_loadx(d->L, read_piece, &pieces, "=treadle", "b")) {
  case 0:
    return 0;
  case LUA_ERRMEM:
    lua_pushliteral(d->L, "not enough memory");
    return TREADLE_ENOMEM;
  default:
    return tdl_decode_fail(d, "cannot load a function: %s",
                           lua_tostring(d->L, -1));
  }
}

/* ---- functions without upvalues ---- */

/* Pushes the two caches; makes them when there are none, or when they are
** full. */
static void push_caches(lua_State *L, int store) {
  lua_rawgeti(L, store, TDL_STORE_LOADED);
  lua_rawgeti(L, store, TDL_STORE_LOADED_COUNT);
  if (lua_isnil(L, -2) || lua_tointeger(L, -1) >= CACHE_COUNT) {
    lua_pop(L, 2);
    lua_newtable(L);
    lua_newtable(L); /* both are made before the store has one */
    lua_pushvalue(L, -2);
    lua_rawseti(L, store, TDL_STORE_LOADED);
    lua_pushvalue(L, -1);
    lua_rawseti(L, store, TDL_STORE_LOADED_SERIALS);
    lua_pushinteger(L, 0);
    lua_rawseti(L, store, TDL_STORE_LOADED_COUNT);
    return;
  }
  lua_pop(L, 1);
  lua_rawgeti(L, store, TDL_STORE_LOADED_SERIALS);
}

static double serial_of(tdl_decoder *d, int store) {
  if (d->serial == 0) {
    lua_rawgeti(d->L, store, TDL_STORE_SERIAL);
    d->serial = lua_tonumber(d->L, -1) + 1;
    lua_pop(d->L, 1);
    lua_pushnumber(d->L, d->serial);
    lua_rawseti(d->L, store, TDL_STORE_SERIAL);
  }
  return d->serial;
}

/* Pushes a function without upvalues: the one of an earlier payload when
** there is one. Never the same one twice in a payload (there they may be
** two), nor one whose globals have been changed. */
static int load_cached(tdl_decoder *d, const uint8_t *p, size_t len) {
  lua_State *L = d->L;
  const int store = d->base + TDL_DECODER_STORE;
  const int loaded = lua_gettop(L) + 1;
  const int serials = loaded + 1;
  const int key = loaded + 2;
  const double serial = serial_of(d, store);
  int status;
  if (len > CACHE_BYTES) {
    return load(d, p, len);
  }
  push_caches(L, store);
  lua_pushlstring(L, (const char *)p, len);
  lua_pushvalue(L, key);
  lua_rawget(L, serials);
  if (lua_tonumber(L, -1) == serial) {
    lua_settop(L, loaded - 1);
    return load(d, p, len);
  }
  lua_settop(L, key);
  lua_pushvalue(L, key);
  lua_rawget(L, loaded);
  if (lua_isfunction(L, -1)) {
    lua_getfenv(L, -1);
    if (!lua_rawequal(L, -1, LUA_GLOBALSINDEX)) {
      lua_pop(L, 2);
      lua_pushnil(L);
    } else {
      lua_pop(L, 1);
    }
  }
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    status = load(d, p, len);
    if (status != 0) {
      return status;
    }
    lua_pushvalue(L, key);
    lua_pushvalue(L, -2);
    lua_rawset(L, loaded);
    lua_rawgeti(L, store, TDL_STORE_LOADED_COUNT);
    lua_pushinteger(L, lua_tointeger(L, -1) + 1);
    lua_rawseti(L, store, TDL_STORE_LOADED_COUNT);
    lua_pop(L, 1);
  }
  lua_pushvalue(L, key);
  lua_pushnumber(L, serial);
  lua_rawset(L, serials);
  lua_replace(L, loaded);
  lua_settop(L, loaded);
  return 0;
}

/* ---- functions with upvalues ---- */

static int append(lua_State *L, const void *p, size_t n, void *buffer) {
  (void)L;
  luaL_addlstring(buffer, p, n);
  return 0;
}

/* Pushes the dump of a factory of `n` upvalues; 0 and nothing when LuaJIT
** cannot have so many. */
static int push_sample(lua_State *L, uint32_t n) {
  const int top = lua_gettop(L);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (int part = 0; part < 2; part++) {
    luaL_addstring(&b, part == 0 ? "local " : " return function() return ");
    for (uint32_t i = 0; i < n; i++) {
      lua_pushfstring(L, i == 0 ? "u%d" : ",u%d", (int)i);
      luaL_addvalue(&b);
    }
  }
  luaL_addstring(&b, " end");
  luaL_pushresult(&b);
  if (luaL_loadstring(L, lua_tostring(L, -1)) != 0) {
    lua_settop(L, top);
    return 0;
  }
  luaL_buffinit(L, &b);
  if (lua_dump(L, append, &b) != 0) {
    lua_settop(L, top);
    return 0;
  }
  luaL_pushresult(&b);
  lua_replace(L, top + 1);
  lua_settop(L, top + 1);
  return 1;
}

/* What factories of `n` upvalues have in common. */
struct template {
  uint32_t flags;         /* of their dumps */
  const uint8_t *locals;  /* their child's list of upvalues */
  const uint8_t *factory; /* their own prototype, its length before it */
  size_t factory_len;
};

/* Pushes a string that holds the parts; 0 and nothing when there are none. */
static int push_template(lua_State *L, int store, uint32_t n,
                         struct template *t) {
  const int top = lua_gettop(L);
  struct dump dump;
  tdl_reader r;
  uint32_t len;
  size_t size;
  const uint8_t *s;
  lua_rawgeti(L, store, TDL_STORE_SAMPLES);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_rawseti(L, store, TDL_STORE_SAMPLES);
  }
  lua_rawgeti(L, top + 1, (int)n);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    if (!push_sample(L, n)) {
      lua_settop(L, top);
      return 0;
    }
    lua_pushvalue(L, -1);
    lua_rawseti(L, top + 1, (int)n);
  }
  lua_replace(L, top + 1);
  s = (const uint8_t *)lua_tolstring(L, top + 1, &size);
  t->locals = NULL;
  if (parse(s, size, &dump) && dump.count == 2) {
    r.next = dump.first;
    r.end = dump.end;
    if (get_uleb(&r, &len)) {
      const uint8_t *child = tdl_get_room(&r, len);
      t->locals = child != NULL ? find_upvalues(child, len, n) : NULL;
      t->flags = dump.flags;
      t->factory = r.next;
      t->factory_len = (size_t)(dump.end - r.next);
    }
  }
  if (t->locals == NULL) {
    lua_settop(L, top);
    return 0;
  }
  return 1;
}

/* Pushes the factory of the dump; 0 and nothing when it is not as expected. */
static int load_factory(tdl_decoder *d, int store, const uint8_t *p,
                        const struct dump *dump, uint32_t n) {
  lua_State *L = d->L;
  const int top = lua_gettop(L);
  const uint8_t *own = find_upvalues(dump->last, dump->last_len, n);
  uint8_t list[UPVALUES_MAX * 2];
  struct template t;
  int ok;
  if (own == NULL || (dump->flags & DUMP_STRIPPED) ||
      !push_template(L, store, n, &t)) {
    return 0;
  }
  /* The same order of bytes in a number, that is. */
  ok = ((t.flags ^ dump->flags) & DUMP_BIG_ENDIAN) == 0;
  for (uint32_t i = 0; ok && i < n; i++) {
    uint16_t from;
    uint16_t to;
    memcpy(&from, own + 2 * (size_t)i, 2);
    memcpy(&to, t.locals + 2 * (size_t)i, 2);
    to = (uint16_t)((to & ~UV_IMMUTABLE) | (from & UV_IMMUTABLE));
    memcpy(list + 2 * (size_t)i, &to, 2);
  }
  if (ok) {
    const uint8_t *rest = own + 2 * (size_t)n;
    struct pieces pieces = {{{p, (size_t)(own - p)},
                             {list, 2 * (size_t)n},
                             {rest, (size_t)(dump->end - rest)},
                             {t.factory, t.factory_len},
                             {(const uint8_t *)"", 1}},
                            0};
    ok = lua_loadx(L, read_piece, &pieces, "=treadle", "b") == 0;
  }
  if (!ok) {
    lua_settop(L, top);
    return 0;
  }
  lua_replace(L, top + 1);
  lua_settop(L, top + 1);
  return 1;
}

/* Pushes the table of factories by bytecode: a new one when it is full. */
static void push_factories(lua_State *L, int store) {
  lua_rawgeti(L, store, TDL_STORE_FACTORIES);
  lua_rawgeti(L, store, TDL_STORE_FACTORY_COUNT);
  if (lua_isnil(L, -2) || lua_tointeger(L, -1) >= CACHE_COUNT) {
    lua_pop(L, 2);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_rawseti(L, store, TDL_STORE_FACTORIES);
    lua_pushinteger(L, 0);
    lua_rawseti(L, store, TDL_STORE_FACTORY_COUNT);
    return;
  }
  lua_pop(L, 1);
}

/* Pushes a new function, of a prototype that is here already if there is
** one. */
static int instantiate(tdl_decoder *d, const uint8_t *p, size_t len,
                       const struct dump *dump, uint32_t n) {
  lua_State *L = d->L;
  const int store = d->base + TDL_DECODER_STORE;
  const int top = lua_gettop(L);
  const int key = top + 2;
  if (len > CACHE_BYTES) {
    return load(d, p, len);
  }
  push_factories(L, store);
  lua_pushlstring(L, (const char *)p, len);
  lua_pushvalue(L, key);
  lua_rawget(L, top + 1);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    if (!load_factory(d, store, p, dump, n)) {
      lua_settop(L, top);
      return load(d, p, len);
    }
    lua_pushvalue(L, key);
    lua_pushvalue(L, -2);
    lua_rawset(L, top + 1);
    lua_rawgeti(L, store, TDL_STORE_FACTORY_COUNT);
    lua_pushinteger(L, lua_tointeger(L, -1) + 1);
    lua_rawseti(L, store, TDL_STORE_FACTORY_COUNT);
    lua_pop(L, 1);
  }
  lua_call(L, 0, 1);
  lua_pushvalue(L, LUA_GLOBALSINDEX); /* the factory's may be another's */
  lua_setfenv(L, -2);
  lua_replace(L, top + 1);
  lua_settop(L, top + 1);
  return 0;
}

int tdl_protos_push(tdl_decoder *d, const uint8_t *p, size_t len, uint32_t n) {
  struct dump dump;
  if (!parse(p, len, &dump) || dump.count == 0) {
    return tdl_decode_malformed(d, "a function without bytecode");
  }
  return n == 0 ? load_cached(d, p, len) : instantiate(d, p, len, &dump, n);
}
