#include "path.h"

#include <lauxlib.h>
#include <string.h>

/* A key longer than this is cut: the message is for a person. */
#define KEY_SHOWN_BYTES 60

/* A path of more steps is cut in the middle. */
#define STEPS_SHOWN 128

static int is_identifier(const char *s, size_t len) {
  if (len == 0 || len > KEY_SHOWN_BYTES || (s[0] >= '0' && s[0] <= '9')) {
    return 0;
  }
  for (size_t i = 0; i < len; i++) {
    char c = s[i];
    if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
          (c >= '0' && c <= '9') || c == '_')) {
      return 0;
    }
  }
  return 1;
}

static void add_quoted(luaL_Buffer *b, const char *s, size_t len) {
  size_t shown = len > KEY_SHOWN_BYTES ? KEY_SHOWN_BYTES : len;
  luaL_addlstring(b, "[\"", 2);
  for (size_t i = 0; i < shown; i++) {
    unsigned char c = (unsigned char)s[i];
    if (c == '"' || c == '\\') {
      luaL_addchar(b, '\\');
      luaL_addchar(b, (char)c);
    } else if (c < ' ') {
      char escape[4] = {'\\', (char)('0' + c / 100), (char)('0' + c / 10 % 10),
                        (char)('0' + c % 10)};
      luaL_addlstring(b, escape, 4);
    } else {
      luaL_addchar(b, (char)c);
    }
  }
  if (shown < len) {
    luaL_addlstring(b, "...", 3);
  }
  luaL_addlstring(b, "\"]", 2);
}

static void add_key(lua_State *L, luaL_Buffer *b, int idx, int dot) {
  size_t len;
  const char *s;
  switch (lua_type(L, idx)) {
  case LUA_TSTRING:
    s = lua_tolstring(L, idx, &len);
    if (is_identifier(s, len)) {
      if (dot) {
        luaL_addchar(b, '.');
      }
      luaL_addlstring(b, s, len);
    } else {
      add_quoted(b, s, len);
    }
    break;
  case LUA_TNUMBER:
    lua_pushfstring(L, "[%f]", lua_tonumber(L, idx));
    luaL_addvalue(b);
    break;
  case LUA_TBOOLEAN:
    luaL_addstring(b, lua_toboolean(L, idx) ? "[true]" : "[false]");
    break;
  default:
    lua_pushfstring(L, "[%s key]", lua_typename(L, lua_type(L, idx)));
    luaL_addvalue(b);
    break;
  }
}

static void add_step(lua_State *L, luaL_Buffer *b, const tdl_path *p) {
  switch (p->kind) {
  case TDL_PATH_VALUE:
  case TDL_PATH_ELEMENT:
    lua_pushfstring(L, "[%d]", (int)p->n);
    luaL_addvalue(b);
    break;
  case TDL_PATH_KEY:
    add_key(L, b, (int)p->n, p->up == NULL || p->up->kind != TDL_PATH_ELIDED);
    break;
  case TDL_PATH_AS_KEY:
    lua_pushfstring(L, "[%s key]", lua_typename(L, lua_type(L, (int)p->n)));
    luaL_addvalue(b);
    break;
  case TDL_PATH_UPVALUE:
    if (p->name != NULL && p->name[0] != '\0') {
      lua_pushfstring(L, " upvalue '%s'", p->name);
    } else {
      lua_pushfstring(L, " upvalue %d", (int)p->n);
    }
    luaL_addvalue(b);
    break;
  case TDL_PATH_ELIDED:
    luaL_addlstring(b, "...", 3);
    break;
  }
}

void tdl_path_push(lua_State *L, const char *list, const tdl_path *path) {
  const tdl_path *steps[STEPS_SHOWN];
  const tdl_path elided = {NULL, TDL_PATH_ELIDED, 0, NULL};
  const tdl_path *p;
  luaL_Buffer b;
  int n = 0;
  int cut = 0;
  for (p = path; p != NULL; p = p->up) {
    if (n < STEPS_SHOWN) {
      steps[n++] = p;
    } else { /* keep the outermost one at hand, it names the value */
      steps[STEPS_SHOWN - 1] = p;
      cut = 1;
    }
  }
  luaL_checkstack(L, LUA_MINSTACK * 2, NULL);
  luaL_buffinit(L, &b);
  luaL_addstring(&b, list);
  for (int i = n - 1; i >= 0; i--) {
    add_step(L, &b, steps[i]);
    if (cut && i == STEPS_SHOWN - 1) {
      add_step(L, &b, &elided);
    }
  }
  luaL_pushresult(&b);
}
