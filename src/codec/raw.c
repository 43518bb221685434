/* The probe makes a Lua state whose memory is one block of ours, so that a
** pointer at a wrong offset is known by lying outside of it, and nothing is
** followed before that has been asked. In this state it makes values by the
** API and compares what it reads with what the API tells:
**
** 1. Every kind of value that raw.h knows, on the stack, and the ends of the
**    stack itself; lengths and bytes of strings.
** 2. Tables of many shapes (array part alone, hash part alone, both, neither,
**    grown, with holes, with removed keys): the same pairs in the same order
**    as lua_next finds, and their metatables.
** 3. What is written into an array part or into a slot of the stack comes
**    back from the API.
**
** The same library made this state and all others of the process. */
#include "raw.h"

#include <stddef.h>

#include "../base/alloc.h"

/* What the probe found. relaxed: as in tdl_raw_is_on. */
static atomic_int found;
atomic_int tdl_raw_used;

#if TDL_RAW_KNOWN

/* A state takes some 20 KiB of it, the tables below as much. */
#define ARENA_BYTES (256u << 10)

struct arena {
  uint8_t *start;
  size_t used;
};

static void *arena_alloc(void *ud, void *p, size_t old, size_t n) {
  struct arena *a = ud;
  uint8_t *fresh = a->start + a->used;
  if (n == 0) {
    return NULL;
  }
  if (p != NULL && n <= old) {
    return p;
  }
  if (n > ARENA_BYTES - a->used) {
    return NULL;
  }
  a->used += (n + 15) & ~(size_t)15;
  if (p != NULL) {
    memcpy(fresh, p, old);
  }
  return fresh;
}

/* Whether `n` bytes at `p` are the arena's. */
static int is_ours(const struct arena *a, const void *p, uint64_t n) {
  uintptr_t start = (uintptr_t)a->start;
  uintptr_t at = (uintptr_t)p;
  return at % 8 == 0 && at >= start && at <= start + a->used &&
         n <= start + a->used - at;
}

struct probe {
  struct arena arena;
  lua_State *L;
  int ok;
};

static int check_stack(struct probe *p) {
  lua_State *L = p->L;
  const tdl_raw_state *s = (const tdl_raw_state *)(void *)L;
  return is_ours(&p->arena, s, sizeof(*s)) &&
         is_ours(&p->arena, s->base, 8 * (uint64_t)LUA_MINSTACK) &&
         is_ours(&p->arena, s->top, 0) &&
         (uintptr_t)s->top - (uintptr_t)s->base == 8 * (size_t)lua_gettop(L);
}

/* The end of the stack is where lua_checkstack begins to move it. */
static int check_room(struct probe *p) {
  lua_State *L = p->L;
  const tdl_raw_state *s = (const tdl_raw_state *)(void *)L;
  for (int n = 1; n < 400; n++) {
    const tdl_raw_value *base = s->base;
    ptrdiff_t room = s->max - s->top; /* just enough: versions differ */
    if (!is_ours(&p->arena, s->max, 8) || !lua_checkstack(L, n) ||
        !check_stack(p) || (room != n && (s->base == base) != (room > n)) ||
        s->max - s->top < n) {
      return 0;
    }
  }
  return 1;
}

/* The value at the top. */
static tdl_raw_value top_of(struct probe *p) {
  return *tdl_raw_slot(p->L, lua_gettop(p->L));
}

static int check_string(struct probe *p, size_t n) {
  lua_State *L = p->L;
  char text[300];
  const char *s;
  size_t len;
  int same;
  memset(text, 'x', n);
  lua_pushlstring(L, text, n);
  same = check_stack(p) && tdl_raw_kind(top_of(p)) == TDL_RAW_STRING &&
         (const void *)tdl_raw_table_of(top_of(p)) == lua_topointer(L, -1) &&
         is_ours(&p->arena, lua_topointer(L, -1), sizeof(tdl_raw_string) + n);
  if (same) {
    s = tdl_raw_string_of(top_of(p), &len);
    same = len == n && s == lua_tolstring(L, -1, NULL);
  }
  lua_pop(L, 1);
  return same;
}

static int check_number(struct probe *p, double d) {
  tdl_raw_value v;
  double back = d + 1;
  lua_pushnumber(p->L, d);
  v = top_of(p);
  if (tdl_raw_is_double(v)) {
    back = tdl_raw_double(v);
  } else if (tdl_raw_kind(v) == TDL_RAW_INTEGER) {
    back = tdl_raw_integer(v);
  }
  lua_pushinteger(p->L, (lua_Integer)7);
  v = top_of(p);
  lua_pop(p->L, 2);
  return (back == d || (d != d && back != back)) &&
         (tdl_raw_is_double(v) ? tdl_raw_double(v) == 7
                               : v == (TDL_RAW_INTEGER | 7));
}

static int check_scalars(struct probe *p) {
  static const double numbers[] = {0, 42.5, -1, 1e308, -1e308, 5e-324};
  static const size_t lengths[] = {0, 1, 7, 8, 255, 300};
  lua_State *L = p->L;
  int same = check_stack(p);
  if (!same) {
    return 0;
  }
  for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
    same = same && check_number(p, numbers[i]);
  }
  same = same && check_number(p, 1 / numbers[0]) &&
         check_number(p, -1 / numbers[0]) &&
         check_number(p, numbers[0] / numbers[0]);
  lua_pushnil(L);
  same = same && check_stack(p) && top_of(p) == TDL_RAW_NIL;
  lua_pushboolean(L, 0);
  same = same && check_stack(p) && top_of(p) == TDL_RAW_FALSE;
  lua_pushboolean(L, 1);
  same = same && check_stack(p) && top_of(p) == TDL_RAW_TRUE;
  /* What is neither number nor string nor table is not taken for one. */
  lua_pushlightuserdata(L, p);
  lua_newuserdata(L, 8);
  lua_pushthread(L);
  lua_pushcfunction(L, lua_error);
  for (int i = 1; i <= 4; i++) {
    tdl_raw_value v = *tdl_raw_slot(L, lua_gettop(L) + 1 - i);
    uint64_t kind = tdl_raw_kind(v);
    same = same && !tdl_raw_is_double(v) && kind != TDL_RAW_STRING &&
           kind != TDL_RAW_TABLE && kind != TDL_RAW_INTEGER &&
           v != TDL_RAW_NIL && v != TDL_RAW_FALSE && v != TDL_RAW_TRUE;
  }
  lua_pop(L, 7);
  for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
    same = same && check_string(p, lengths[i]);
  }
  return same;
}

/* Whether lua_next, from the key at the top, comes to this pair. */
static int next_is(struct probe *p, int t, tdl_raw_value key,
                   tdl_raw_value value) {
  lua_State *L = p->L;
  tdl_raw_value k;
  if (!lua_next(L, t) || top_of(p) != value) {
    return 0;
  }
  lua_pop(L, 1);
  k = top_of(p);
  if (tdl_raw_is_double(key) && tdl_raw_kind(k) == TDL_RAW_INTEGER) {
    return tdl_raw_double(key) == tdl_raw_integer(k);
  }
  return k == key;
}

/* The table at the top: its parts, pair by pair as lua_next finds them. */
static int check_pairs(struct probe *p) {
  lua_State *L = p->L;
  const int idx = lua_gettop(L);
  const tdl_raw_table *t = tdl_raw_table_of(top_of(p));
  int same =
      tdl_raw_kind(top_of(p)) == TDL_RAW_TABLE &&
      (const void *)t == lua_topointer(L, idx) &&
      is_ours(&p->arena, t, sizeof(*t)) &&
      (t->asize == 0 || is_ours(&p->arena, t->array, 8 * (uint64_t)t->asize)) &&
      is_ours(&p->arena, t->nodes,
              sizeof(*t->nodes) * ((uint64_t)t->hmask + 1));
  if (!same) {
    return 0;
  }
  lua_pushnil(L);
  for (uint32_t i = 0; same && i < t->asize; i++) {
    if (t->array[i] != TDL_RAW_NIL) {
      double d = i;
      tdl_raw_value key;
      memcpy(&key, &d, 8);
      same = next_is(p, idx, key, t->array[i]);
    }
  }
  for (uint32_t i = 0; same && i <= t->hmask; i++) {
    if (t->nodes[i].value != TDL_RAW_NIL) {
      same = next_is(p, idx, t->nodes[i].key, t->nodes[i].value);
    }
  }
  if (same) {
    same = !lua_next(L, idx);
  }
  lua_settop(L, idx);
  return same;
}

static int check_metatable(struct probe *p) {
  lua_State *L = p->L;
  const tdl_raw_table *t = tdl_raw_table_of(top_of(p));
  int same = t->metatable == 0;
  lua_newtable(L);
  same = same && tdl_raw_table_of(top_of(p))->metatable == 0;
  lua_setmetatable(L, -2);
  lua_getmetatable(L, -1);
  same = same && t->metatable == (uintptr_t)lua_topointer(L, -1);
  lua_pop(L, 1);
  lua_pushnil(L);
  lua_setmetatable(L, -2);
  return same && t->metatable == 0;
}

/* Makes a table by `fill` keys of each kind, looked at after each of them. */
static int check_table(struct probe *p, int narray, int nhash, int elements,
                       int fields) {
  lua_State *L = p->L;
  int same;
  lua_createtable(L, narray, nhash);
  same = check_pairs(p);
  same = same && tdl_raw_table_of(top_of(p))->asize >= (uint32_t)narray &&
         (tdl_raw_table_of(top_of(p))->asize == 0) == (narray == 0) &&
         tdl_raw_table_of(top_of(p))->hmask + 1 >= (uint32_t)nhash;
  for (int i = 1; same && i <= elements; i++) {
    lua_pushnumber(L, i + 0.5);
    lua_rawseti(L, -2, i);
    same = check_pairs(p);
  }
  for (int i = 1; same && i <= fields; i++) {
    lua_pushfstring(L, "field %d", i);
    lua_pushboolean(L, i & 1);
    lua_rawset(L, -3);
    lua_pushnumber(L, i * 0.25);
    lua_newtable(L);
    lua_rawset(L, -3);
    same = check_pairs(p);
  }
  for (int i = 1; same && i <= elements; i += 3) {
    lua_pushnil(L);
    lua_rawseti(L, -2, i);
    same = check_pairs(p);
  }
  for (int i = 1; same && i <= fields; i += 2) {
    lua_pushfstring(L, "field %d", i);
    lua_pushnil(L);
    lua_rawset(L, -3);
    same = check_pairs(p);
  }
  same = same && check_metatable(p);
  lua_pop(L, 1);
  return same;
}

static int check_writing(struct probe *p) {
  lua_State *L = p->L;
  const double d = -0.125;
  tdl_raw_table *t;
  int same;
  lua_createtable(L, 3, 0);
  t = tdl_raw_table_of(top_of(p));
  same = t->asize > 3 && t->array[1] == TDL_RAW_NIL;
  if (same) {
    memcpy(&t->array[1], &d, 8);
    t->array[2] = TDL_RAW_TRUE;
    t->array[3] = TDL_RAW_FALSE;
    lua_rawgeti(L, -1, 1);
    lua_rawgeti(L, -2, 2);
    lua_rawgeti(L, -3, 3);
    same = lua_type(L, -3) == LUA_TNUMBER && lua_tonumber(L, -3) == d &&
           lua_isboolean(L, -2) && lua_toboolean(L, -2) &&
           lua_isboolean(L, -1) && !lua_toboolean(L, -1);
    lua_pop(L, 3);
    t->array[1] = TDL_RAW_NIL;
    lua_rawgeti(L, -1, 1);
    same = same && lua_isnil(L, -1);
    lua_pop(L, 1);
  }
  tdl_raw_push(L, top_of(p));
  tdl_raw_push(L, TDL_RAW_TRUE);
  same = same && lua_gettop(L) == 3 && lua_isboolean(L, 3) &&
         lua_rawequal(L, 1, 2);
  tdl_raw_pop(L, 1);
  same = same && lua_gettop(L) == 2 && lua_istable(L, -1);
  lua_settop(L, 0);
  return same;
}

static int probe(lua_State *L) {
  struct probe *p = lua_touserdata(L, 1);
  lua_settop(L, 0);
  lua_gc(L, LUA_GCSTOP, 0);
  p->ok = check_scalars(p) && check_room(p) && check_table(p, 0, 0, 0, 0) &&
          check_table(p, 0, 0, 9, 0) && check_table(p, 0, 0, 0, 9) &&
          check_table(p, 0, 0, 9, 9) && check_table(p, 1, 1, 1, 1) &&
          check_table(p, 40, 0, 40, 3) && check_table(p, 0, 9, 20, 9) &&
          check_writing(p);
  return 0;
}

/* ON, OFF, or UNKNOWN when memory was short. */
static int ask(void) {
  struct probe p = {{tdl_calloc(ARENA_BYTES), 0}, NULL, 0};
  int answer = TDL_RAW_UNKNOWN;
  if (p.arena.start == NULL) {
    return TDL_RAW_UNKNOWN;
  }
  p.L = lua_newstate(arena_alloc, &p.arena);
  if (p.L != NULL) {
    answer = lua_cpcall(p.L, probe, &p) == 0 && p.ok ? TDL_RAW_ON : TDL_RAW_OFF;
    lua_close(p.L);
  } else {
    answer = TDL_RAW_OFF;
  }
  tdl_free(p.arena.start);
  return answer;
}

/* What can be told without following anything: a build with 32-bit references
** has a shorter head of strings, and no lua_newstate. */
static int is_likely(lua_State *L) {
  int same;
  lua_pushliteral(L, "raw");
  same = (uintptr_t)lua_tolstring(L, -1, NULL) - sizeof(tdl_raw_string) ==
         (uintptr_t)lua_topointer(L, -1);
  lua_pop(L, 1);
  return same;
}

#endif

void tdl_raw_open(lua_State *L) {
  int answer = TDL_RAW_OFF;
  if (atomic_load_explicit(&found, memory_order_relaxed) != TDL_RAW_UNKNOWN) {
    return; /* above */
  }
#if TDL_RAW_KNOWN
  answer = is_likely(L) ? ask() : TDL_RAW_OFF;
#endif
  (void)L;
  atomic_store_explicit(&found, answer, memory_order_relaxed); /* above */
  atomic_store_explicit(&tdl_raw_used, answer,
                        memory_order_relaxed); /* above */
}

int tdl_raw_use(int on) {
  int answer = atomic_load_explicit(&found, memory_order_relaxed); /* above */
  atomic_store_explicit(&tdl_raw_used, on ? answer : TDL_RAW_OFF,
                        memory_order_relaxed); /* above */
  return on && answer == TDL_RAW_ON;
}
