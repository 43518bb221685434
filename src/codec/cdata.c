/* FFI types are looked into from Lua: the C API says nothing of them. A type
** travels by its name as ffi.typeof prints and parses it; of a nameless
** struct, by a typedef of it. The data are copied here, from and to the
** address that lua_topointer gives. */
#include "cdata.h"

#include <lauxlib.h>

/* What `describe` says of a value. */
enum { IS_INT64 = 1, IS_UINT64, IS_PLAIN, IS_REFUSED };

/* What `make` says of NaNs in the data: see scrub below. */
enum { NANS_NONE, NANS_DOUBLE, NANS_FLOAT, NANS_INSIDE, NANS_MAYBE };

/* Type names that a state looks up for payloads: LuaJIT never forgets a
** type and has room for 65,536. */
#define TYPES_MAX "4096"

/* typeinfo is not documented; its fields are those of LuaJIT's CType: `info`
** has the kind in its upper 4 bits, flags below it, and the element type's
** number in its lower 16. `sib` is the first field of a struct. */
static const char source[] =
    "local ffi = ...\n"
    "local type, tonumber, tostring, pcall, typeof, typeinfo, sizeof, istype,"
    " new, cast = type, tonumber, tostring, pcall, ffi.typeof, ffi.typeinfo,"
    " ffi.sizeof, ffi.istype, ffi.new, ffi.cast\n"
    "local NUM, STRUCT, ARRAY, ENUM, TYPEDEF, ATTRIB, FIELD, BITFIELD,"
    " CONSTVAL = 0, 1, 3, 5, 7, 8, 9, 10, 11\n"
    "local FP, UNION, VLA, VECTOR, COMPLEX ="
    " 0x04000000, 0x00800000, 0x00100000, 0x08000000, 0x04000000\n"
    "local int64, uint64 = typeof('int64_t'), typeof('uint64_t')\n"
    "local bytes_p, words_p = typeof('uint8_t *'), typeof('uint32_t *')\n"
    "local function look(id)\n"
    "  local t = typeinfo(id)\n"
    "  local info = t.info % 2 ^ 32\n"
    "  return (info - info % 2 ^ 28) / 2 ^ 28, info % 2 ^ 16, info, t\n"
    "end\n"
    "local function has(info, flag)\n"
    "  return info % (2 * flag) >= flag\n"
    "end\n"
    /* Whether the type holds data only. */
    "local function plain(id, top)\n"
    "  local kind, child, info, t = look(id)\n"
    "  if kind == NUM then return t.size ~= nil and t.size <= 8 end\n"
    "  if kind == ENUM then return true end\n"
    "  if kind == TYPEDEF or kind == ATTRIB then return plain(child, top) end\n"
    "  if kind == ARRAY then\n"
    "    if has(info, VECTOR) then return false end\n"
    "    if not t.size and not (top and has(info, VLA)) then"
    " return false end\n"
    "    return plain(child)\n"
    "  end\n"
    "  if kind ~= STRUCT or has(info, VLA) or not t.size then"
    " return false end\n"
    "  while t.sib do\n"
    "    local field = t.sib\n"
    "    kind, child, info, t = look(field)\n"
    "    if kind == FIELD or kind == ATTRIB then\n"
    "      if not plain(child) then return false end\n"
    "    elseif kind ~= BITFIELD and kind ~= CONSTVAL then return false end\n"
    "  end\n"
    "  return true\n"
    "end\n"
    /* A name for the type that another state can look up. */
    "local function name_of(id, text)\n"
    "  local dims = ''\n"
    "  local kind, child, info, t = look(id)\n"
    "  while kind == ARRAY and not has(info, COMPLEX) do\n"
    "    local n = '?'\n"
    "    if t.size then\n"
    "      local size = look(child) and typeinfo(child).size\n"
    "      n = size == 0 and 0 or t.size / size\n"
    "    end\n"
    "    dims = dims .. '[' .. n .. ']'\n"
    "    id = child\n"
    "    kind, child, info, t = look(id)\n"
    "  end\n"
    "  if (kind ~= STRUCT and kind ~= ENUM) or t.name then return text end\n"
    "  local i = 1\n"
    "  local other = typeinfo(i)\n"
    "  while other do\n"
    "    local kind, child = look(i)\n"
    "    if kind == TYPEDEF and child == id and other.name then\n"
    "      return 'ctype<' .. other.name .. dims .. '>'\n"
    "    end\n"
    "    i = i + 1\n"
    "    other = typeinfo(i)\n"
    "  end\n"
    "end\n"
    "local known = {}\n"
    "local function describe(cd)\n"
    "  local ct = typeof(cd)\n"
    "  local id = tonumber(ct)\n"
    /* A type is cdata too, and its number is its value. */
    "  if tonumber(cd) == id and tostring(cd) == tostring(ct) then\n"
    "    return 4, tostring(ct)\n"
    "  end\n"
    "  if istype(int64, cd) then return 1 end\n"
    "  if istype(uint64, cd) then return 2 end\n"
    "  local text = known[id]\n"
    "  if not text then\n"
    "    text = plain(id, true) and name_of(id, tostring(ct))\n"
    "    if not text then return 4, tostring(ct) end\n"
    "    known[id] = text\n"
    "  end\n"
    "  return 3, text, sizeof(cd)\n"
    "end\n"
    /* How NaNs may lie in it; 4: only where a union has other members, too. */
    "local function nans(id)\n"
    "  local kind, child, info, t = look(id)\n"
    "  if kind == NUM then\n"
    "    return has(info, FP) and (t.size == 8 and 1 or 2) or 0\n"
    "  end\n"
    "  if kind == ARRAY or kind == TYPEDEF or kind == ATTRIB then"
    " return nans(child) end\n"
    "  if kind ~= STRUCT then return 0 end\n"
    "  local union, found = has(info, UNION), 0\n"
    "  while t.sib do\n"
    "    kind, child, info, t = look(t.sib)\n"
    "    local inside = (kind == FIELD or kind == ATTRIB) and nans(child) or "
    "0\n"
    "    if inside == 4 or inside ~= 0 and union then found = 4\n"
    "    elseif inside ~= 0 then return 3 end\n"
    "  end\n"
    "  return found\n"
    "end\n"
    "local types, count = {}, 0\n"
    "local function learn(text)\n"
    "  if count >= " TYPES_MAX " then return nil end\n"
    "  count = count + 1\n"
    "  local ok, ct = pcall(typeof, text)\n"
    "  if ct == 'not enough memory' then error(ct, 0) end\n"
    "  if not ok then return nil end\n"
    "  local id = tonumber(ct)\n"
    "  if not plain(id, true) then return nil end\n"
    "  local _, child, _, t = look(id)\n"
    "  local unit = not t.size and typeinfo(child).size\n"
    "  if not t.size and not unit then return nil end\n"
    "  local entry = { ct = ct, size = t.size, unit = unit, nans = nans(id),"
    " id = id }\n"
    "  types[text] = entry\n"
    "  return entry\n"
    "end\n"
    "local function make(text, size)\n"
    "  local t = types[text] or learn(text)\n"
    "  if not t then return nil end\n"
    "  if t.size then\n"
    "    if t.size ~= size then return false end\n"
    "    return new(t.ct), t.nans, t.id\n"
    "  end\n"
    "  if t.unit == 0 or size % t.unit ~= 0 then return false end\n"
    "  return new(t.ct, size / t.unit), t.nans, t.id\n"
    "end\n"
    /* Makes the NaNs in a struct, or in an array of them, plain ones; with `all`
    ** those in unions, too. */
    "local function scrub(id, address, size, all)\n"
    "  local kind, child, info, t = look(id)\n"
    "  if kind == TYPEDEF or kind == ATTRIB then\n"
    "    return scrub(child, address, size, all)\n"
    "  end\n"
    "  if kind == NUM then\n"
    "    if not has(info, FP) then return end\n"
    "    local p = cast(words_p, address)\n"
    "    if t.size == 4 then\n"
    "      if p[0] % 2 ^ 31 > 0x7f800000 then p[0] = 0x7fc00000 end\n"
    "    else\n"
    "      local high = p[1] % 2 ^ 31\n"
    "      if high > 0x7ff00000 or high == 0x7ff00000 and p[0] ~= 0 then\n"
    "        p[0], p[1] = 0, 0x7ff80000\n"
    "      end\n"
    "    end\n"
    "  elseif kind == ARRAY then\n"
    "    local unit = typeinfo(child).size\n"
    "    if nans(child) == 0 or unit == 0 then return end\n"
    "    for offset = 0, (t.size or size) - unit, unit do\n"
    "      scrub(child, address + offset, unit, all)\n"
    "    end\n"
    "  elseif kind == STRUCT and (all or not has(info, UNION)) then\n"
    "    while t.sib do\n"
    "      kind, child, info, t = look(t.sib)\n"
    "      if kind == FIELD or kind == ATTRIB then\n"
    "        scrub(child, address + t.size, size, all)\n"
    "      end\n"
    "    end\n"
    "  end\n"
    "end\n"
    "return describe, make, scrub\n";

/* Pushes the function in `slot`, or nothing and returns 0. */
static int push_function(lua_State *L, int store, int slot) {
  lua_rawgeti(L, store, slot);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    tdl_store_load(L, store, source, "=treadle.codec.cdata",
                   TDL_STORE_CDATA_DESCRIBE, 3);
    lua_rawgeti(L, store, slot);
  }
  if (!lua_isfunction(L, -1)) {
    lua_pop(L, 1);
    return 0;
  }
  return 1;
}

/* ---- encoding ---- */

/* Strips "ctype<" and ">". */
static const char *type_name(lua_State *L, int idx, size_t *len) {
  const char *s = lua_tolstring(L, idx, len);
  if (*len > 7 && memcmp(s, "ctype<", 6) == 0) {
    s += 6;
    *len -= 7;
  }
  return s;
}

static int put_plain(tdl_encoder *e, int idx, const char *name, size_t len,
                     double size, const tdl_path *path) {
  const uint8_t *data = lua_topointer(e->L, idx);
  uint8_t *p;
  /* Its address less one is inside its header: the data of a VLA without
  ** elements may end where another object begins. */
  int status = tdl_encode_known(e, data - 1, idx, path);
  if (status != 0) {
    return status < 0 ? status : 0;
  }
  tdl_put_tag(&e->w, TDL_TAG_CDATA);
  tdl_put_string(&e->w, name, len);
  p = tdl_put_room(&e->w,
                   size < UINT32_MAX - 4 ? 4 + (size_t)size : UINT32_MAX);
  if (p == NULL) {
    return e->w.status;
  }
  tdl_store_32(p, (uint32_t)size);
  memcpy(p + 4, data, (size_t)size);
  return 0;
}

int tdl_encode_cdata(tdl_encoder *e, int idx, const tdl_path *path) {
  lua_State *L = e->L;
  const int top = lua_gettop(L);
  const char *name;
  size_t len;
  uint64_t bits;
  int status;
  if (!lua_checkstack(L, LUA_MINSTACK)) {
    return tdl_encode_refuse(e, path, "cannot send so many values at once");
  }
  if (!push_function(L, tdl_encode_store(e), TDL_STORE_CDATA_DESCRIBE)) {
    return tdl_encode_refuse(e, path,
                             "cannot send cdata without the ffi "
                             "library");
  }
  lua_pushvalue(L, idx);
  status = lua_pcall(L, 1, 3, 0);
  if (status == LUA_ERRMEM) {
    return TREADLE_ENOMEM;
  }
  if (status != 0) {
    return tdl_encode_refuse(e, path, "cannot send cdata: %s",
                             lua_tostring(L, -1));
  }
  switch (lua_tointeger(L, top + 1)) {
  case IS_INT64:
  case IS_UINT64:
    memcpy(&bits, lua_topointer(L, idx), 8);
    status = lua_tointeger(L, top + 1) == IS_INT64
                 ? tdl_put_int64(&e->w, (int64_t)bits)
                 : tdl_put_uint64(&e->w, bits);
    break;
  case IS_PLAIN:
    name = type_name(L, top + 2, &len);
    status = put_plain(e, idx, name, len, lua_tonumber(L, top + 3), path);
    break;
  default:
    name = type_name(L, top + 2, &len);
    lua_pushlstring(L, name, len);
    return tdl_encode_refuse(e, path, "cannot send cdata of type '%s'",
                             lua_tostring(L, -1));
  }
  if (status == 0) {
    lua_settop(L, top);
  }
  return status;
}

void tdl_cdata_push_name(lua_State *L, int idx) {
  const int top = lua_gettop(L);
  const char *name;
  size_t len;
  luaL_checkstack(L, LUA_MINSTACK, NULL);
  tdl_store_push(L);
  if (!push_function(L, top + 1, TDL_STORE_CDATA_DESCRIBE)) {
    lua_pushnil(L);
    lua_replace(L, top + 1);
    return;
  }
  lua_pushvalue(L, idx);
  lua_call(L, 1, 3);
  switch (lua_tointeger(L, top + 2)) {
  case IS_INT64:
    lua_pushliteral(L, "int64_t");
    break;
  case IS_UINT64:
    lua_pushliteral(L, "uint64_t");
    break;
  case IS_PLAIN:
    name = type_name(L, top + 3, &len);
    lua_pushlstring(L, name, len);
    break;
  default:
    lua_pushnil(L);
  }
  lua_replace(L, top + 1);
  lua_settop(L, top + 1);
}

/* ---- decoding ---- */

/* LuaJIT keeps other values in the bits of NaNs, and its FFI takes a NaN out
** of memory as it is: reading such an element would forge an object. */
static void scrub_doubles(uint8_t *p, size_t n) {
  for (; n >= 8; n -= 8, p += 8) {
    uint64_t bits;
    memcpy(&bits, p, 8);
    if ((bits & (UINT64_MAX >> 1)) > UINT64_C(0x7ff0000000000000)) {
      bits = UINT64_C(0x7ff8000000000000);
      memcpy(p, &bits, 8);
    }
  }
}

static void scrub_floats(uint8_t *p, size_t n) {
  for (; n >= 4; n -= 4, p += 4) {
    uint32_t bits;
    memcpy(&bits, p, 4);
    if ((bits & (UINT32_MAX >> 1)) > 0x7f800000u) {
      bits = 0x7fc00000u;
      memcpy(p, &bits, 4);
    }
  }
}

void tdl_cdata_scrub(lua_State *L, const char *name, uint8_t *data, size_t unit,
                     size_t n, int all) {
  const int top = lua_gettop(L), store = top + 1, made = top + 2;
  lua_Integer nans;
  luaL_checkstack(L, LUA_MINSTACK, NULL);
  tdl_store_push(L);
  if (n > 0 && push_function(L, store, TDL_STORE_CDATA_MAKE)) {
    lua_pushstring(L, name);
    lua_pushnumber(L, (lua_Number)unit);
    lua_call(L, 2, 3); /* an element, how NaNs lie in it, its type */
    nans = lua_tointeger(L, made + 1);
    switch (nans == NANS_MAYBE && all ? NANS_INSIDE : nans) {
    case NANS_DOUBLE:
      scrub_doubles(data, n * unit);
      break;
    case NANS_FLOAT:
      scrub_floats(data, n * unit);
      break;
    case NANS_INSIDE:
      for (size_t i = 0; i < n; i++) {
        lua_rawgeti(L, store, TDL_STORE_CDATA_SCRUB);
        lua_pushvalue(L, made + 2);
        lua_pushnumber(L, (lua_Number)(uintptr_t)(data + i * unit));
        lua_pushnumber(L, (lua_Number)unit);
        lua_pushboolean(L, all);
        lua_call(L, 4, 0);
      }
      break;
    default:
      break;
    }
  }
  lua_settop(L, top);
}

/* Fills the new object at `at` (then: how NaNs lie in it, its type). */
static int fill(tdl_decoder *d, int at, const uint8_t *bytes, size_t size) {
  lua_State *L = d->L;
  /* The object is ours alone, and this is its own memory. */
  uint8_t *p = (uint8_t *)(uintptr_t)lua_topointer(L, at);
  lua_Integer nans = lua_tointeger(L, at + 1);
  memcpy(p, bytes, size);
  /* A union from a trusted sender keeps its bits: they may be another member's. */
  switch (nans == NANS_MAYBE && d->code ? NANS_NONE : nans) {
  case NANS_DOUBLE:
    scrub_doubles(p, size);
    break;
  case NANS_FLOAT:
    scrub_floats(p, size);
    break;
  case NANS_INSIDE:
  case NANS_MAYBE:
    tdl_store_push(L);
    lua_rawgeti(L, -1, TDL_STORE_CDATA_SCRUB);
    lua_pushvalue(L, at + 2);
    lua_pushnumber(L, (double)(uintptr_t)p);
    lua_pushnumber(L, (double)size);
    lua_pushboolean(L, !d->code);
    if (lua_pcall(L, 4, 0, 0) != 0) {
      return tdl_decode_fail(d, "cannot make cdata: %s", lua_tostring(L, -1));
    }
    break;
  default:
    break;
  }
  lua_settop(L, at);
  return 0;
}

int tdl_cdata_is_type_name(const char *s, size_t len) {
  for (size_t i = 0; i < len; i++) {
    char c = s[i];
    if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
          (c >= '0' && c <= '9') || c == '_' || c == ' ' || c == '[' ||
          c == ']' || c == '?')) {
      return 0;
    }
  }
  return len > 0 && len <= TDL_CDATA_NAME_BYTES;
}

/* Pushes the object of the named type with these bytes. */
static int make(tdl_decoder *d, const char *name, size_t len,
                const uint8_t *bytes, size_t size) {
  lua_State *L = d->L;
  const int at = lua_gettop(L) + 1;
  int status;
  if (!lua_checkstack(L, LUA_MINSTACK)) {
    return tdl_decode_malformed(d, "nested too deeply");
  }
  tdl_store_push(L);
  if (!push_function(L, at, TDL_STORE_CDATA_MAKE)) {
    return tdl_decode_fail(d, "cannot make cdata without the ffi library");
  }
  lua_remove(L, at);
  lua_pushlstring(L, name, len);
  lua_pushnumber(L, (double)size);
  status = lua_pcall(L, 2, 3, 0);
  if (status == LUA_ERRMEM) {
    lua_pushliteral(L, "not enough memory");
    return TREADLE_ENOMEM;
  }
  if (status != 0) {
    return tdl_decode_fail(d, "cannot make cdata: %s", lua_tostring(L, -1));
  }
  if (lua_type(L, at) != TDL_LUA_TCDATA) {
    lua_pushlstring(L, name, len);
    return tdl_decode_fail(d,
                           lua_isnil(L, at)
                               ? "C type '%s' is not known here"
                               : "C type '%s' has another size here",
                           lua_tostring(L, -1));
  }
  return fill(d, at, bytes, size);
}

int tdl_decode_cdata(tdl_decoder *d) {
  const char *name;
  size_t len;
  size_t size;
  const uint8_t *p;
  int status = tdl_decode_text(d, &name, &len);
  if (status != 0) {
    return status;
  }
  p = tdl_get_room(&d->r, 4);
  if (p == NULL) {
    return tdl_decode_malformed(d, "truncated");
  }
  size = tdl_load_32(p);
  p = tdl_get_room(&d->r, size);
  if (p == NULL) {
    return tdl_decode_malformed(d, "truncated");
  }
  if (!tdl_cdata_is_type_name(name, len)) {
    return tdl_decode_malformed(d, "a C type without a name");
  }
  status = make(d, name, len, p, size);
  if (status == 0) {
    tdl_decode_number(d);
  }
  return status;
}

int tdl_decode_int64(tdl_decoder *d, tdl_tag tag) {
  const uint8_t *p = tdl_get_room(&d->r, 8);
  uint64_t bits;
  uint8_t own[8];
  if (p == NULL) {
    return tdl_decode_malformed(d, "truncated");
  }
  bits = tdl_load_64(p);
  memcpy(own, &bits, 8);
  return tag == TDL_TAG_INT64 ? make(d, "int64_t", 7, own, 8)
                              : make(d, "uint64_t", 8, own, 8);
}
