/* A class is { name, metatable, pack, unpack }. An object of a class without
** `pack` is its raw fields and the class name; with it, the packed value and
** the name. A packed value is whole, deferred bodies included, before
** anything after it, because `unpack` wants to see it whole. */
#include "classes.h"

#include <lauxlib.h>

enum { CLASS_NAME = 1, CLASS_META, CLASS_PACK, CLASS_UNPACK };

/* The table in a slot of the store at the top, made when it is missing. */
static void push_table(lua_State *L, int slot) {
  lua_rawgeti(L, -1, slot);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_rawseti(L, -3, slot);
  }
}

const char *tdl_class_add(lua_State *L) {
  int name = lua_gettop(L) - 3;
  int names = name + 5;
  int metas = name + 6;
  const char *other;
  luaL_checkstack(L, 10, NULL);
  tdl_store_push(L);
  push_table(L, TDL_STORE_CLASS_NAMES);
  lua_pushvalue(L, -2);
  push_table(L, TDL_STORE_CLASS_METAS);
  lua_remove(L, -2);
  /* Is the metatable another class's? */
  lua_pushvalue(L, name + 1);
  lua_rawget(L, metas);
  if (lua_istable(L, -1)) {
    lua_rawgeti(L, -1, CLASS_NAME);
    if (!lua_rawequal(L, -1, name)) {
      other = lua_tostring(L, -1);
      lua_settop(L, name - 1);
      return other;
    }
  }
  /* The name's former metatable is no class any more. */
  lua_pushvalue(L, name);
  lua_rawget(L, names);
  if (lua_istable(L, -1)) {
    lua_rawgeti(L, -1, CLASS_META);
    lua_pushnil(L);
    lua_rawset(L, metas);
  }
  lua_createtable(L, 4, 0);
  for (int i = CLASS_NAME; i <= CLASS_UNPACK; i++) {
    lua_pushvalue(L, name + i - 1);
    lua_rawseti(L, -2, i);
  }
  lua_pushvalue(L, name);
  lua_pushvalue(L, -2);
  lua_rawset(L, names);
  lua_pushvalue(L, name + 1);
  lua_pushvalue(L, -2);
  lua_rawset(L, metas);
  lua_settop(L, name - 1);
  return NULL;
}

/* ---- encoding ---- */

/* Pushes the class of the metatable at `meta`; 0 and nil when it has none. */
static int push_class_of(tdl_encoder *e, int meta) {
  lua_State *L = e->L;
  lua_rawgeti(L, tdl_encode_store(e), TDL_STORE_CLASS_METAS);
  if (!lua_istable(L, -1)) {
    lua_pop(L, 1);
    lua_pushnil(L);
    return 0;
  }
  lua_pushvalue(L, meta);
  lua_rawget(L, -2);
  lua_remove(L, -2);
  return lua_istable(L, -1);
}

static int put_name(tdl_encoder *e, tdl_tag tag, int class) {
  const char *name;
  size_t len;
  lua_rawgeti(e->L, class, CLASS_NAME);
  name = lua_tolstring(e->L, -1, &len);
  lua_pop(e->L, 1); /* the class keeps it */
  tdl_put_tag(&e->w, tag);
  return tdl_put_string(&e->w, name, len);
}

/* The function at the top, called with the object; its result takes its
** place. */
static int call_pack(tdl_encoder *e, int idx, const tdl_path *path) {
  lua_State *L = e->L;
  lua_pushvalue(L, idx);
  switch (tdl_store_call(L, 1, 1)) {
  case 0:
    return 0;
  case LUA_ERRMEM:
    return TREADLE_ENOMEM;
  default:
    if (lua_isstring(L, -1)) {
      return tdl_encode_refuse(e, path, "cannot pack an object: %s",
                               lua_tostring(L, -1));
    }
    return tdl_encode_refuse(e, path, "cannot pack an object: a %s was raised",
                             lua_typename(L, lua_type(L, -1)));
  }
}

/* With pack: the object's number, then the packed value, whole. */
static int put_packed(tdl_encoder *e, int idx, int class, const tdl_path *path,
                      int depth) {
  lua_State *L = e->L;
  const void *p = lua_topointer(L, idx);
  const int later_depth = e->later_depth;
  const uint32_t queued = e->queued;
  uint32_t *seen;
  uint32_t id;
  int status = tdl_encode_known(e, p, idx, path);
  if (status != 0) {
    return status < 0 ? status : 0;
  }
  seen = tdl_seen_find(tdl_encode_map(e), p);
  id = *seen;
  *seen = TDL_SEEN_OPEN;
  if (put_name(e, TDL_TAG_PACKED, class) != 0) {
    return e->w.status;
  }
  lua_rawgeti(L, class, CLASS_PACK);
  status = call_pack(e, idx, path);
  if (status != 0) {
    return status;
  }
  tdl_encode_pin(e, lua_gettop(L));
  if (e->later_depth < depth + TDL_DEPTH_PACKED) {
    e->later_depth = depth + TDL_DEPTH_PACKED;
  }
  status = tdl_encode_value(e, lua_gettop(L), path, depth + 1);
  if (status == 0) {
    status = tdl_encode_bodies(e, queued, depth + 1);
  }
  e->later_depth = later_depth;
  seen = tdl_seen_find(tdl_encode_map(e), p);
  *seen = id;
  return status;
}

/* With __treadle_pack, which is at the top: its result as any value. The
** object goes under the number of the result. */
static int put_replaced(tdl_encoder *e, int idx, const tdl_path *path,
                        int depth) {
  lua_State *L = e->L;
  const void *p = lua_topointer(L, idx);
  tdl_seen *map = tdl_encode_map(e);
  uint32_t *seen;
  uint32_t *result;
  int status;
  if (map == NULL) {
    return TREADLE_ENOMEM;
  }
  seen = tdl_seen_find(map, p);
  if (seen != NULL && *seen != TDL_SEEN_NONE) {
    lua_pop(L, 1);
    status = tdl_encode_known(e, p, idx, path);
    return status < 0 ? status : 0;
  }
  if (seen == NULL) {
    status = tdl_seen_put(map, p, TDL_SEEN_OPEN);
    if (status != 0) {
      return status;
    }
  } else {
    *seen = TDL_SEEN_OPEN;
  }
  tdl_encode_pin(e, idx);
  status = call_pack(e, idx, path);
  if (status != 0) {
    return status;
  }
  tdl_encode_pin(e, lua_gettop(L));
  status = tdl_encode_value(e, lua_gettop(L), path, depth + 1);
  if (status != 0) {
    return status;
  }
  result = tdl_seen_find(map, lua_topointer(L, -1));
  seen = tdl_seen_find(map, p);
  *seen = result != NULL ? *result : TDL_SEEN_NONE;
  return 0;
}

static int put_fields(tdl_encoder *e, int idx, int class, const tdl_path *path,
                      int depth) {
  if (put_name(e, TDL_TAG_OBJECT, class) != 0) {
    return e->w.status;
  }
  return tdl_encode_fields(e, idx, path, depth);
}

/* Says what the table calls itself, if it does: often a handle of a library. */
static int refuse(tdl_encoder *e, int meta, const tdl_path *path) {
  const char *name = tdl_encode_name(e->L, meta);
  return tdl_encode_refuse(e, path,
                           "cannot send a table with a metatable that is "
                           "no registered class%s%s%s",
                           name != NULL ? ", '" : "", name != NULL ? name : "",
                           name != NULL ? "'" : "");
}

int tdl_encode_object(tdl_encoder *e, int idx, const tdl_path *path,
                      int depth) {
  lua_State *L = e->L;
  int meta = lua_gettop(L);
  int class = meta + 1;
  int packs;
  int status;
  if (!lua_checkstack(L, LUA_MINSTACK) || depth >= TDL_DEPTH_MAX) {
    return tdl_encode_refuse(e, path,
                             "cannot send objects packed into "
                             "objects so deeply");
  }
  if (push_class_of(e, meta)) {
    lua_rawgeti(L, class, CLASS_PACK);
    packs = !lua_isnil(L, -1);
    lua_pop(L, 1);
    if (packs && !e->guarded) {
      return TDL_ENCODE_AGAIN;
    }
    if (packs) {
      status = put_packed(e, idx, class, path, depth);
    } else {
      status = tdl_encode_known(e, lua_topointer(L, idx), idx, path);
      if (status > 0) {
        status = 0;
      } else if (status == 0 && depth >= e->later_depth) {
        status = tdl_put_tag(&e->w, TDL_TAG_LATER);
        if (status == 0) {
          status = tdl_encode_later(e, idx);
        }
      } else if (status == 0) {
        status = put_fields(e, idx, class, path, depth);
      }
    }
  } else {
    lua_pushliteral(L, "__treadle_pack");
    lua_rawget(L, meta);
    if (lua_isnil(L, -1)) {
      return refuse(e, meta, path);
    }
    if (!e->guarded) {
      return TDL_ENCODE_AGAIN;
    }
    status = put_replaced(e, idx, path, depth);
  }
  if (status == 0) {
    lua_settop(L, meta - 1);
  }
  return status;
}

int tdl_encode_object_body(tdl_encoder *e, int idx, const tdl_path *path,
                           int depth) {
  int meta = lua_gettop(e->L);
  int status;
  if (!push_class_of(e, meta)) { /* a callback changed it meanwhile */
    return refuse(e, meta, path);
  }
  status = put_fields(e, idx, meta + 1, path, depth);
  if (status == 0) {
    lua_settop(e->L, meta - 1);
  }
  return status;
}

/* ---- decoding ---- */

/* Reads a class name and pushes the class. */
static int get_class(tdl_decoder *d) {
  lua_State *L = d->L;
  int at = lua_gettop(L) + 1;
  const char *name;
  size_t len;
  int status = tdl_decode_text(d, &name, &len);
  if (status != 0) {
    return status;
  }
  if (!lua_checkstack(L, LUA_MINSTACK * 2)) {
    return tdl_decode_malformed(d, "nested too deeply");
  }
  lua_pushlstring(L, name, len);
  tdl_store_push(L);
  lua_rawgeti(L, at + 1, TDL_STORE_CLASS_NAMES);
  if (lua_istable(L, -1)) {
    lua_pushvalue(L, at);
    lua_rawget(L, -2);
  }
  if (!lua_istable(L, -1)) {
    return tdl_decode_fail(d, "class '%s' is not registered here",
                           lua_tostring(L, at));
  }
  lua_replace(L, at);
  lua_settop(L, at);
  return 0;
}

static int get_counts(tdl_decoder *d, uint32_t *array, uint32_t *pairs) {
  const uint8_t *p = tdl_get_room(&d->r, 1);
  if (p == NULL) {
    return tdl_decode_malformed(d, "truncated");
  }
  if (*p != TDL_TAG_TABLE8 && *p != TDL_TAG_TABLE32) {
    return tdl_decode_malformed(d, "an object without fields");
  }
  return tdl_decode_counts(d, *p == TDL_TAG_TABLE32, array, pairs);
}

/* The object at `idx`, its class at `class`. */
static int get_fields(tdl_decoder *d, int idx, int class, uint32_t array,
                      uint32_t pairs, int depth) {
  int status = tdl_decode_fields(d, idx, array, pairs, depth);
  if (status == 0) {
    lua_rawgeti(d->L, class, CLASS_META);
    lua_setmetatable(d->L, idx);
  }
  return status;
}

int tdl_decode_object_body(tdl_decoder *d, int idx, int depth) {
  int class = lua_gettop(d->L) + 1;
  uint32_t array;
  uint32_t pairs;
  int status = get_class(d);
  if (status == 0) {
    status = get_counts(d, &array, &pairs);
  }
  return status != 0 ? status : get_fields(d, idx, class, array, pairs, depth);
}

int tdl_decode_object(tdl_decoder *d, int depth) {
  lua_State *L = d->L;
  int class = lua_gettop(L) + 1;
  uint32_t array;
  uint32_t pairs;
  int status = get_class(d);
  if (status == 0) {
    status = get_counts(d, &array, &pairs);
  }
  if (status != 0) {
    return status;
  }
  lua_createtable(L, (int)array, (int)pairs);
  tdl_decode_number(d);
  status = get_fields(d, class + 1, class, array, pairs, depth);
  if (status == 0) {
    lua_replace(L, class);
  }
  return status;
}

int tdl_decode_packed(tdl_decoder *d, int depth) {
  lua_State *L = d->L;
  const uint32_t id = tdl_decode_expect(d);
  const uint32_t queued = d->queued;
  int class = lua_gettop(L) + 1;
  int status;
  if (depth >= TDL_DEPTH_DECODE) {
    return tdl_decode_malformed(d, "nested too deeply");
  }
  status = get_class(d);
  if (status != 0) {
    return status;
  }
  lua_rawgeti(L, class, CLASS_UNPACK);
  if (lua_isnil(L, -1)) {
    lua_rawgeti(L, class, CLASS_NAME);
    return tdl_decode_fail(d, "class '%s' has no unpack here",
                           lua_tostring(L, -1));
  }
  status = tdl_decode_value(d, depth + 1);
  if (status == 0) {
    status = tdl_decode_bodies(d, queued, depth + 1);
  }
  if (status != 0) {
    return status;
  }
  switch (tdl_store_call(L, 1, 1)) {
  case 0:
    break;
  case LUA_ERRMEM:
    lua_pushliteral(L, "not enough memory");
    return TREADLE_ENOMEM;
  default:
    lua_rawgeti(L, class, CLASS_NAME);
    return tdl_decode_fail(
        d, "cannot unpack an object of class '%s': %s", lua_tostring(L, -1),
        lua_isstring(L, -2) ? lua_tostring(L, -2) : "an object was raised");
  }
  if (lua_isnil(L, -1)) {
    lua_rawgeti(L, class, CLASS_NAME);
    return tdl_decode_fail(d, "unpack of class '%s' returned nil",
                           lua_tostring(L, -1));
  }
  lua_replace(L, class);
  tdl_decode_arrived(d, id);
  return 0;
}
