/* Decoding mirrors the encoder's walk (encode.c), and believes nothing:
**
** 1. No length or count is used before it was held against the bytes that
**    are left. For a table these are the bytes that the tables around it do
**    not need themselves (`owed`), so that tables in tables cannot claim the
**    same bytes again: what is allocated is bounded by the payload's size.
** 2. The C stack is bounded by TDL_DEPTH_DECODE.
** 3. Objects are kept by number only when the head says that some are
**    referred to. */
#include "decode.h"

#include <lauxlib.h>
#include <limits.h>
#include <stdarg.h>

#include "cdata.h"
#include "classes.h"
#include "codec.h"
#include "functions.h"
#include "names.h"
#include "numbers.h"
#include "payload.h"
#include "raw.h"
#include "raw_tables.h"
#include "things.h"

/* Lua stack that one step takes, and that it needs at its end (callbacks,
** messages). It is asked for every so many steps, for the first ones at the
** start. */
#define STEP_SLOTS    8
#define STEPS_CHECKED 16
#define STEPS_SLOTS   (STEP_SLOTS * STEPS_CHECKED)
#define END_SLOTS     24

int tdl_decode_fail(tdl_decoder *d, const char *format, ...) {
  va_list args;
  luaL_checkstack(d->L, LUA_MINSTACK, NULL);
  va_start(args, format);
  lua_pushvfstring(d->L, format, args);
  va_end(args);
  return TREADLE_EPAYLOAD;
}

int tdl_decode_malformed(tdl_decoder *d, const char *why) {
  return tdl_decode_fail(d, "malformed payload: %s (byte %d)", why,
                         (int)(d->r.next - d->data));
}

/* ---- objects ---- */

uint32_t tdl_decode_expect(tdl_decoder *d) {
  return d->objects++;
}

void tdl_decode_arrived(tdl_decoder *d, uint32_t id) {
  if (d->flags & TDL_WIRE_REFS) {
    lua_pushvalue(d->L, -1);
    lua_rawseti(d->L, d->base + TDL_DECODER_OBJECTS, (int)id + 1);
  }
}

void tdl_decode_number(tdl_decoder *d) {
  tdl_decode_arrived(d, d->objects++);
}

static int get_ref(tdl_decoder *d) {
  const uint8_t *p = tdl_get_room(&d->r, 4);
  uint32_t id;
  if (p == NULL) {
    return tdl_decode_malformed(d, "truncated");
  }
  id = tdl_load_32(p);
  if (!(d->flags & TDL_WIRE_REFS) || id >= d->objects) {
    return tdl_decode_malformed(d, "a reference to no object");
  }
  lua_rawgeti(d->L, d->base + TDL_DECODER_OBJECTS, (int)id + 1);
  if (lua_isnil(d->L, -1)) {
    return tdl_decode_malformed(d, "a reference to an unfinished object");
  }
  return 0;
}

int tdl_decode_later(tdl_decoder *d) {
  lua_State *L = d->L;
  int slot = d->base + TDL_DECODER_QUEUE;
  int at = (int)d->queued * 2;
  if (!(d->flags & TDL_WIRE_LATER)) {
    return tdl_decode_malformed(d, "a body that does not follow");
  }
  lua_pushvalue(L, -1);
  lua_rawseti(L, slot, at + 1);
  lua_pushnumber(L, d->objects - 1);
  lua_rawseti(L, slot, at + 2);
  d->queued++;
  return 0;
}

static int get_body(tdl_decoder *d, int idx, uint32_t id, int depth) {
  const uint8_t *p;
  uint32_t array;
  uint32_t pairs;
  int status;
  if (lua_isfunction(d->L, idx)) {
    return tdl_decode_upvalues(d, idx, id, depth);
  }
  p = tdl_get_room(&d->r, 1);
  if (p == NULL) {
    return tdl_decode_malformed(d, "truncated");
  }
  d->owed = 0;
  switch (*p) {
  case TDL_TAG_OBJECT:
    return tdl_decode_object_body(d, idx, depth);
  case TDL_TAG_TABLE8:
  case TDL_TAG_TABLE32:
    status = tdl_decode_counts(d, *p == TDL_TAG_TABLE32, &array, &pairs);
    if (status != 0) {
      return status;
    }
    return tdl_decode_fields(d, idx, array, pairs, depth);
  default:
    return tdl_decode_malformed(d, "a body that is no table");
  }
}

int tdl_decode_bodies(tdl_decoder *d, uint32_t from, int depth) {
  lua_State *L = d->L;
  int slot = d->base + TDL_DECODER_QUEUE;
  for (uint32_t i = from; i < d->queued; i++) {
    int idx = lua_gettop(L) + 1;
    uint32_t id;
    int status;
    lua_rawgeti(L, slot, (int)i * 2 + 2);
    id = (uint32_t)lua_tonumber(L, -1);
    lua_pop(L, 1);
    lua_rawgeti(L, slot, (int)i * 2 + 1);
    status = get_body(d, idx, id, depth);
    if (status != 0) {
      return status;
    }
    lua_settop(L, idx - 1);
  }
  d->queued = from;
  return 0;
}

/* ---- tables ---- */

static inline int check_counts(tdl_decoder *d, uint32_t array, uint32_t pairs) {
  /* I1: an element is a byte at least, a pair two. */
  if (TDL_UNLIKELY(array + 2 * (uint64_t)pairs + d->owed >
                   (uint64_t)tdl_get_left(&d->r))) {
    return tdl_decode_malformed(d, "truncated");
  }
  if (TDL_UNLIKELY(array > TDL_TABLE_ARRAY_MAX ||
                   pairs > TDL_TABLE_PAIRS_MAX)) {
    return tdl_decode_fail(d, "cannot make a table of so many elements");
  }
  return 0;
}

int tdl_decode_counts(tdl_decoder *d, int wide, uint32_t *array,
                      uint32_t *pairs) {
  const uint8_t *p = tdl_get_room(&d->r, wide ? 8 : 2);
  if (p == NULL) {
    return tdl_decode_malformed(d, "truncated");
  }
  *array = wide ? tdl_load_32(p) : p[0];
  *pairs = wide ? tdl_load_32(p + 4) : p[1];
  return check_counts(d, *array, *pairs);
}

static int get_table(tdl_decoder *d, uint32_t array, uint32_t pairs, int depth);

/* A number, a short string or a small table here, anything else by tdl_decode_value. */
static inline int get_part(tdl_decoder *d, int depth) {
  const uint8_t *p = d->r.next;
  size_t left = tdl_get_left(&d->r);
  if (left >= 9 && p[0] == TDL_TAG_NUMBER) {
    lua_pushnumber(d->L, tdl_load_f64(p + 1));
    d->r.next = p + 9;
    return 0;
  }
  if (left >= 2 && p[0] == TDL_TAG_STR8 && left - 2 >= p[1]) {
    lua_pushlstring(d->L, (const char *)p + 2, p[1]);
    d->r.next = p + 2 + p[1];
    return 0;
  }
  if (left >= 3 && p[0] == TDL_TAG_TABLE8) {
    d->r.next = p + 3;
    return get_table(d, p[1], p[2], depth);
  }
  return tdl_decode_value(d, depth);
}

static int get_numbers(tdl_decoder *d, int idx, uint32_t first, uint32_t max,
                       uint32_t *n) {
  const uint8_t *p = tdl_get_room(&d->r, 5);
  if (p == NULL) {
    return tdl_decode_malformed(d, "truncated");
  }
  *n = tdl_load_32(p + 1);
  if (*n == 0 || *n > max) {
    return tdl_decode_malformed(d, "more numbers than elements");
  }
  p = tdl_get_room(&d->r, (size_t)*n * 8);
  if (p == NULL) {
    return tdl_decode_malformed(d, "truncated");
  }
  tdl_numbers_get(d->L, idx, first, *n, p);
  return 0;
}

/* The key at the top may be none: rawset would raise. */
static int check_key(tdl_decoder *d) {
  switch (lua_type(d->L, -1)) {
  case LUA_TNIL:
    return tdl_decode_malformed(d, "a key that is nil");
  case LUA_TNUMBER: {
    double n = lua_tonumber(d->L, -1);
    return n != n ? tdl_decode_malformed(d, "a key that is NaN") : 0;
  }
  default:
    return 0;
  }
}

int tdl_decode_fields(tdl_decoder *d, int idx, uint32_t array, uint32_t pairs,
                      int depth) {
  lua_State *L = d->L;
  const uint64_t owed = d->owed;
  int status;
  if (depth >= TDL_DEPTH_DECODE ||
      (depth > 0 && depth % STEPS_CHECKED == 0 &&
       !lua_checkstack(L, STEPS_SLOTS + END_SLOTS))) {
    return tdl_decode_malformed(d, "nested too deeply");
  }
  depth++;
  for (uint32_t i = 1; i <= array;) {
#if TDL_RAW_KNOWN
    if (d->raw && d->r.next < d->r.end && *d->r.next <= TDL_TAG_NUMBER) {
      i += tdl_raw_decode_elements(d, idx, i, array);
      if (i > array) {
        break;
      }
    }
#endif
    if (d->r.next < d->r.end && *d->r.next == TDL_TAG_NUMBERS) {
      uint32_t n = 0;
      status = get_numbers(d, idx, i, array - i + 1, &n);
      if (status != 0) {
        return status;
      }
      i += n;
      continue;
    }
    d->owed = owed + (array - i) + 2 * (uint64_t)pairs;
    status = get_part(d, depth);
    if (status != 0) {
      return status;
    }
    lua_rawseti(L, idx, (int)i++);
  }
  for (uint32_t i = pairs; i > 0; i--) {
    int tag = d->r.next < d->r.end ? *d->r.next : TDL_TAG_NIL;
    d->owed = owed + 2 * (uint64_t)i - 1;
    status = get_part(d, depth);
    if (status == 0 && tag != TDL_TAG_STR8) {
      status = check_key(d);
    }
    if (status != 0) {
      return status;
    }
    d->owed = owed + 2 * ((uint64_t)i - 1);
    status = get_part(d, depth);
    if (status != 0) {
      return status;
    }
    lua_rawset(L, idx);
  }
  return 0;
}

static int get_table(tdl_decoder *d, uint32_t array, uint32_t pairs,
                     int depth) {
  int status = check_counts(d, array, pairs);
  if (status != 0) {
    return status;
  }
  lua_createtable(d->L, (int)array, (int)pairs);
  if (d->flags & TDL_WIRE_REFS) {
    tdl_decode_number(d);
  } else {
    d->objects++;
  }
  return tdl_decode_fields(d, d->raw ? tdl_raw_top(d->L) : lua_gettop(d->L),
                           array, pairs, depth);
}

/* ---- values ---- */

static int get_string(tdl_decoder *d, int wide) {
  const uint8_t *p = tdl_get_room(&d->r, wide ? 4 : 1);
  size_t len;
  if (p == NULL) {
    return tdl_decode_malformed(d, "truncated");
  }
  len = wide ? tdl_load_32(p) : p[0];
  p = tdl_get_room(&d->r, len);
  if (p == NULL) {
    return tdl_decode_malformed(d, "truncated");
  }
  lua_pushlstring(d->L, (const char *)p, len);
  return 0;
}

int tdl_decode_text(tdl_decoder *d, const char **s, size_t *len) {
  const uint8_t *p = tdl_get_room(&d->r, 2);
  if (p == NULL) {
    return tdl_decode_malformed(d, "truncated");
  }
  *len = p[1];
  if (p[0] == TDL_TAG_STR32) {
    if (tdl_get_room(&d->r, 3) == NULL) {
      return tdl_decode_malformed(d, "truncated");
    }
    *len = tdl_load_32(p + 1);
  } else if (p[0] != TDL_TAG_STR8) {
    return tdl_decode_malformed(d, "a name that is no string");
  }
  *s = (const char *)tdl_get_room(&d->r, *len);
  return *s == NULL ? tdl_decode_malformed(d, "truncated") : 0;
}

/* Values that are code; `tag` has been read. */
static int get_code(tdl_decoder *d, tdl_tag tag, int depth) {
  if (!d->code) {
    return tdl_decode_fail(d, "payload holds a function, and functions are "
                              "not accepted here");
  }
  if (!(d->flags & TDL_WIRE_CODE)) {
    return tdl_decode_malformed(d, "a function that was not announced");
  }
  switch (tag) {
  case TDL_TAG_CFUNCTION:
    return tdl_decode_cfunction(d);
  default:
    return tdl_decode_function(d, depth, tag == TDL_TAG_FUNCTION_LATER);
  }
}

int tdl_decode_value(tdl_decoder *d, int depth) {
  lua_State *L = d->L;
  const uint8_t *p = tdl_get_room(&d->r, 1);
  tdl_tag tag;
  if (p == NULL) {
    return tdl_decode_malformed(d, "truncated");
  }
  tag = (tdl_tag)*p;
  switch (tag) {
  case TDL_TAG_NIL:
    lua_pushnil(L);
    return 0;
  case TDL_TAG_FALSE:
  case TDL_TAG_TRUE:
    lua_pushboolean(L, tag == TDL_TAG_TRUE);
    return 0;
  case TDL_TAG_NUMBER:
    p = tdl_get_room(&d->r, 8);
    if (p == NULL) {
      return tdl_decode_malformed(d, "truncated");
    }
    lua_pushnumber(L, tdl_load_f64(p)); /* makes any NaN the plain one */
    return 0;
  case TDL_TAG_STR8:
  case TDL_TAG_STR32:
    return get_string(d, tag == TDL_TAG_STR32);
  case TDL_TAG_TABLE8:
  case TDL_TAG_TABLE32:
    p = tdl_get_room(&d->r, tag == TDL_TAG_TABLE8 ? 2 : 8);
    if (p == NULL) {
      return tdl_decode_malformed(d, "truncated");
    }
    return tag == TDL_TAG_TABLE8
               ? get_table(d, p[0], p[1], depth)
               : get_table(d, tdl_load_32(p), tdl_load_32(p + 4), depth);
  case TDL_TAG_REF:
    return get_ref(d);
  case TDL_TAG_LATER:
    lua_newtable(L);
    tdl_decode_number(d);
    return tdl_decode_later(d);
  case TDL_TAG_OBJECT:
    return tdl_decode_object(d, depth);
  case TDL_TAG_PACKED:
    return tdl_decode_packed(d, depth);
  case TDL_TAG_INT64:
  case TDL_TAG_UINT64:
    return tdl_decode_int64(d, tag);
  case TDL_TAG_CDATA:
    return tdl_decode_cdata(d);
  case TDL_TAG_FUNCTION:
  case TDL_TAG_FUNCTION_LATER:
  case TDL_TAG_CFUNCTION:
    return get_code(d, tag, depth);
  case TDL_TAG_THING:
  case TDL_TAG_PART:
    return tdl_decode_thing(d, tag == TDL_TAG_PART);
  default:
    d->r.next--;
    return tdl_decode_malformed(d, "an unknown tag");
  }
}

/* ---- the list of values ---- */

static int get_values(tdl_decoder *d, uint32_t count) {
  lua_State *L = d->L;
  int status = 0;
  for (uint32_t i = 0; i < count && status == 0; i++) {
    d->owed = count - i - 1;
    status = get_part(d, 0);
  }
  if (status == 0 && d->queued > 0) {
    status = tdl_decode_bodies(d, 0, 0);
  }
  if (status == 0 && d->r.next != d->r.end) {
    status = tdl_decode_malformed(d, "bytes after its end");
  }
  if (d->scratch != NULL) {
    tdl_scratch_give(L, d->base + TDL_DECODER_STORE,
                     d->base + TDL_DECODER_SCRATCH);
  }
  return status;
}

/* The slots that the flags ask for, below the values. */
static void open_slots(tdl_decoder *d) {
  lua_State *L = d->L;
  lua_settop(L, d->base + TDL_DECODER_SLOTS);
  if (d->flags & TDL_WIRE_REFS) {
    lua_newtable(L);
    lua_replace(L, d->base + TDL_DECODER_OBJECTS);
  }
  if (d->flags & TDL_WIRE_LATER) {
    lua_newtable(L);
    lua_replace(L, d->base + TDL_DECODER_QUEUE);
  }
  if (d->flags & TDL_WIRE_CODE) {
    tdl_store_push(L);
    lua_replace(L, d->base + TDL_DECODER_STORE);
    d->scratch = tdl_scratch_take(L, d->base + TDL_DECODER_STORE);
    lua_replace(L, d->base + TDL_DECODER_SCRATCH);
  }
}

int tdl_decode_flags(lua_State *L, const uint8_t *data, size_t len,
                     unsigned flags) {
  tdl_decoder d;
  uint32_t count = 0;
  int status;
  d.L = L;
  d.data = data;
  d.len = len;
  d.r.next = data;
  d.r.end = data + len;
  d.raw = tdl_raw_is_on();
  d.base = d.raw ? tdl_raw_top(L) : lua_gettop(L);
  d.code = (flags & TDL_DECODE_NO_CODE) == 0;
  d.objects = 0;
  d.queued = 0;
  d.owed = 0;
  d.serial = 0;
  d.scratch = NULL;
  status = tdl_get_begin(&d.r, data, len, &count, &d.flags);
  if (TDL_UNLIKELY(status != 0)) {
    return tdl_decode_fail(&d, "malformed payload: not of version %d",
                           TDL_WIRE_VERSION);
  }
  if (TDL_UNLIKELY(
          count > INT_MAX / 2 ||
          !tdl_raw_room(L, d.raw, (int)count + STEPS_SLOTS + END_SLOTS))) {
    return tdl_decode_fail(&d, "payload holds more values than the Lua "
                               "stack");
  }
  if (d.flags & TDL_WIRE_THINGS) {
    size_t list;
    if ((flags & TDL_DECODE_NO_THINGS) ||
        tdl_payload_things(data, len, &list) == 0 ||
        list > tdl_get_left(&d.r)) {
      return tdl_decode_fail(&d, "malformed payload: shared objects");
    }
    d.r.end -= list;
  }
  if (d.flags != 0) {
    open_slots(&d);
  }
  status = get_values(&d, count);
  if (TDL_UNLIKELY(status != 0)) {
    lua_insert(L, d.base + 1);
    lua_settop(L, d.base + 1);
    return status;
  }
  if (d.flags != 0) {
    for (int i = 0; i < TDL_DECODER_SLOTS; i++) {
      lua_remove(L, d.base + 1);
    }
  }
  return (int)count;
}

int tdl_decode(lua_State *L, const uint8_t *data, size_t len) {
  return tdl_decode_flags(L, data, len, 0);
}
