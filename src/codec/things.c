#include "things.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdatomic.h>
#include <string.h>

#include "../base/alloc.h"
#include "payload.h"

/* All states give the same ones. */
static const tdl_thing_hooks *_Atomic given_hooks;

void tdl_things_hook(const tdl_thing_hooks *given) {
  /* relaxed: constants of this library */
  atomic_store_explicit(&given_hooks, given, memory_order_relaxed);
}

static const tdl_thing_hooks *hooks(void) {
  /* relaxed: see above */
  return atomic_load_explicit(&given_hooks, memory_order_relaxed);
}

/* The scratch holds a reference until the payload does: an error on the way
** leaves none behind. */
static int keep(tdl_encoder *e, tdl_counted *thing, int moved) {
  tdl_scratch *s;
  if (tdl_encode_map(e) == NULL) {
    return TREADLE_ENOMEM;
  }
  s = e->scratch;
  if (s->thing_count == s->thing_cap) {
    uint32_t cap = s->thing_cap == 0 ? 8 : s->thing_cap * 2;
    uintptr_t *things = tdl_realloc(s->things, cap * sizeof(*things));
    if (things == NULL) {
      return TREADLE_ENOMEM;
    }
    s->things = things;
    s->thing_cap = cap;
  }
  tdl_counted_hold(thing);
  s->things[s->thing_count++] =
      (uintptr_t)thing | (moved ? TDL_PAYLOAD_MOVED : 0);
  return 0;
}

/* It has been written already: it is moved, too. */
static void move(tdl_encoder *e, const tdl_counted *thing) {
  tdl_scratch *s = e->scratch;
  for (uint32_t i = 0; i < s->thing_count; i++) {
    if (tdl_payload_address(s->things[i]) == thing) {
      s->things[i] |= TDL_PAYLOAD_MOVED;
    }
  }
}

/* What is refused: one of ours that cannot travel, an open file, or by the name
** that its metatable has. Leaves that on the stack. */
static int refuse(tdl_encoder *e, int idx, const char *why,
                  const tdl_path *path) {
  lua_State *L = e->L;
  const char *name = NULL;
  luaL_checkstack(L, LUA_MINSTACK, NULL);
  if (why == NULL && lua_getmetatable(L, idx)) {
    luaL_getmetatable(L, LUA_FILEHANDLE);
    if (lua_rawequal(L, -1, -2)) {
      why = "a file";
    }
    lua_pop(L, 1);
    name = why == NULL ? tdl_encode_name(L, lua_gettop(L)) : NULL;
  }
  return tdl_encode_refuse(e, path, "cannot send %s%s%s%s",
                           why != NULL ? why : "a userdata",
                           name != NULL ? ", '" : "", name != NULL ? name : "",
                           name != NULL ? "'" : "");
}

int tdl_encode_thing(tdl_encoder *e, int idx, const tdl_path *path) {
  const tdl_thing_hooks *h = hooks();
  tdl_thing_use use = {0, 0, NULL, NULL};
  tdl_counted *thing = h != NULL ? h->of(e->L, idx, &use) : NULL;
  uint8_t *p;
  int status;
  if (thing == NULL) {
    return refuse(e, idx, use.why, path);
  }
  if (e->target == TDL_TO_STRING) {
    return tdl_encode_refuse(e, path, "cannot keep in a string %s",
                             thing->kind->name);
  } else if (e->target == TDL_TO_PROCESS && use.stays != NULL) {
    return tdl_encode_refuse(e, path, "cannot send to another process %s %s",
                             strchr("aeiou", use.stays[0]) ? "an" : "a",
                             use.stays);
  }
  /* several values may be one thing, but not one part of it */
  status = tdl_encode_known(
      e, use.part == 0 ? (void *)thing : lua_touserdata(e->L, idx), idx, path);
  if (status != 0) {
    if (status > 0 && use.moved) {
      move(e, thing);
    }
    return status < 0 ? status : 0;
  }
  status = keep(e, thing, use.moved);
  if (status != 0) {
    return status;
  }
  e->flags |= TDL_WIRE_THINGS;
  status = tdl_put_tag_32(&e->w, use.part == 0 ? TDL_TAG_THING : TDL_TAG_PART,
                          e->scratch->thing_count - 1);
  if (status != 0 || use.part == 0) {
    return status;
  }
  p = tdl_put_room(&e->w, 4);
  if (p == NULL) {
    return e->w.status;
  }
  tdl_store_32(p, use.part);
  return 0;
}

int tdl_encode_things(tdl_encoder *e) {
  tdl_scratch *s = e->scratch;
  size_t size = s->thing_count * sizeof(*s->things);
  uint8_t *p = tdl_put_room(&e->w, size + 4);
  if (p == NULL) {
    return e->w.status;
  }
  memcpy(p, s->things, size);
  tdl_store_32(p + size, s->thing_count);
  s->thing_count = 0; /* they are the payload's */
  return 0;
}

int tdl_decode_thing(tdl_decoder *d, int is_part) {
  const tdl_thing_hooks *h = hooks();
  const uint8_t *p = tdl_get_room(&d->r, is_part ? 8 : 4);
  tdl_counted *thing;
  if (p == NULL) {
    return tdl_decode_malformed(d, "truncated");
  }
  thing = d->flags & TDL_WIRE_THINGS
              ? tdl_payload_thing(d->data, d->len, tdl_load_32(p))
              : NULL;
  if (thing == NULL || h == NULL) {
    return tdl_decode_malformed(d, "a shared object that does not follow");
  }
  luaL_checkstack(d->L, LUA_MINSTACK, NULL);
  if (!h->push(d->L, thing, is_part ? tdl_load_32(p + 4) : 0)) {
    return tdl_decode_malformed(d, "a part that the shared object has not");
  }
  tdl_decode_number(d);
  return 0;
}
