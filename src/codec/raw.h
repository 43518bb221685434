/* tdl_raw: LuaJIT's values, strings and tables, read where they lie, instead
** of by four calls of the Lua C API for each of them.
** Threads: a state's own; the switch is the process's.
** Owns:    nothing.
** Fails:   by being off: then all goes by the API. It is on only where the
**          probe (raw.c) has found every assumption of this header true.
**
** R1. What is read: base, top and end of the stack; values on it; of a
**     string its length and bytes; of a table both parts and whether it has
**     a metatable.
** R2. What is written: numbers, booleans and nil into the array part of a
**     table that is being decoded, and any value on top of the stack, where
**     lua_checkstack has made room. LuaJIT's collector wants no barrier for
**     either.
** R3. The table is on the stack while it is looked at. Every call of the API
**     may move the stack, free what is not on it and, by a finaliser, change
**     any table: after a call nothing is used that was read before it, but
**     the address of the table itself. */
#ifndef TDL_CODEC_RAW_H
#define TDL_CODEC_RAW_H

#include <lua.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

/* The layout is that of 64-bit references; see LuaJIT's lj_obj.h. */
#if UINTPTR_MAX == UINT64_MAX && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define TDL_RAW_KNOWN 1
#else
#define TDL_RAW_KNOWN 0
#endif

/* A value: a double, or a kind in the upper 17 bits of a NaN and a pointer or
** (in builds that have them) an integer below. */
typedef uint64_t tdl_raw_value;

#define TDL_RAW_KIND(k)       (~(uint64_t)(k) << 47)
#define TDL_RAW_NIL           UINT64_MAX
#define TDL_RAW_FALSE         (~(UINT64_C(1) << 47))
#define TDL_RAW_TRUE          (~(UINT64_C(2) << 47))
#define TDL_RAW_STRING        TDL_RAW_KIND(4)
#define TDL_RAW_TABLE         TDL_RAW_KIND(11)
#define TDL_RAW_INTEGER       TDL_RAW_KIND(13)
#define TDL_RAW_POINTER_BITS  ((UINT64_C(1) << 47) - 1)
#define TDL_RAW_NUMBERS_BELOW TDL_RAW_INTEGER /* doubles, all of them */

typedef struct tdl_raw_string {
  uint64_t gc[2];
  uint32_t hash;
  uint32_t len; /* the bytes follow */
} tdl_raw_string;

typedef struct tdl_raw_node {
  tdl_raw_value value; /* nil: the node is free */
  tdl_raw_value key;
  uint64_t next;
} tdl_raw_node;

typedef struct tdl_raw_table {
  uint64_t gc[2];
  tdl_raw_value *array; /* [0] .. [asize - 1] */
  uint64_t gc_list;
  uint64_t metatable; /* 0: none */
  tdl_raw_node *nodes;
  uint32_t asize;
  uint32_t hmask; /* nodes - 1 */
} tdl_raw_table;

typedef struct tdl_raw_state {
  uint64_t gc[4];
  tdl_raw_value *base;
  tdl_raw_value *top;
  tdl_raw_value *max; /* the last slot */
} tdl_raw_state;

/* Looks once in a process whether LuaJIT is as said above. */
void tdl_raw_open(lua_State *L);

/* For tests: off, or as the probe found. Returns whether it is on now. */
int tdl_raw_use(int on);

/* private */
typedef enum { TDL_RAW_UNKNOWN, TDL_RAW_OFF, TDL_RAW_ON } tdl_raw_answer;
extern atomic_int tdl_raw_used;

static inline int tdl_raw_is_on(void) {
  /* relaxed: a process has one answer, and it guards no other memory. */
  return TDL_RAW_KNOWN &&
         atomic_load_explicit(&tdl_raw_used, memory_order_relaxed) ==
             TDL_RAW_ON;
}

/* The slot of absolute index `idx`. */
static inline tdl_raw_value *tdl_raw_slot(lua_State *L, int idx) {
  return ((tdl_raw_state *)(void *)L)->base + idx - 1;
}

/* lua_gettop. */
static inline int tdl_raw_top(lua_State *L) {
  const tdl_raw_state *s = (const tdl_raw_state *)(void *)L;
  return (int)(s->top - s->base);
}

/* lua_checkstack; its work is done where `raw` and there is room already. */
static inline int tdl_raw_room(lua_State *L, int raw, int n) {
  const tdl_raw_state *s = (const tdl_raw_state *)(void *)L;
  return (raw && s->max - s->top > n) || lua_checkstack(L, n);
}

static inline void tdl_raw_push(lua_State *L, tdl_raw_value v) {
  *((tdl_raw_state *)(void *)L)->top++ = v;
}

static inline void tdl_raw_pop(lua_State *L, int n) {
  ((tdl_raw_state *)(void *)L)->top -= n;
}

static inline uint64_t tdl_raw_kind(tdl_raw_value v) {
  return v & ~TDL_RAW_POINTER_BITS;
}

static inline int tdl_raw_is_double(tdl_raw_value v) {
  return v < TDL_RAW_NUMBERS_BELOW;
}

static inline double tdl_raw_double(tdl_raw_value v) {
  double d;
  memcpy(&d, &v, 8);
  return d;
}

static inline double tdl_raw_integer(tdl_raw_value v) {
  return (int32_t)(uint32_t)v;
}

static inline const char *tdl_raw_string_of(tdl_raw_value v, size_t *len) {
  const tdl_raw_string *s =
      (const tdl_raw_string *)(uintptr_t)(v & TDL_RAW_POINTER_BITS);
  *len = s->len;
  return (const char *)(s + 1);
}

static inline tdl_raw_table *tdl_raw_table_of(tdl_raw_value v) {
  return (tdl_raw_table *)(uintptr_t)(v & TDL_RAW_POINTER_BITS);
}

#endif
