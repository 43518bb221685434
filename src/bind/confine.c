/* Permissions: making a policy, and what a confined state asks of C. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <lualib.h>

#include "../base/status.h"
#include "../codec/codec.h"
#include "../config.h"
#include "../confine/confine.h"
#include "../run/state.h"
#include "bind.h"

#define POLICY_NAME "treadle.policy"

/* --- policies ------------------------------------------------------------- */

typedef struct policy_box {
  tdl_policy *policy; /* NULL: a pool has taken it */
} policy_box;

static policy_box *check_policy(lua_State *L, int index) {
  policy_box *box = luaL_checkudata(L, index, POLICY_NAME);
  if (box->policy == NULL) {
    luaL_error(L, "the policy is a pool's");
  }
  return box;
}

static int policy_gc(lua_State *L) {
  policy_box *box = luaL_checkudata(L, 1, POLICY_NAME);
  tdl_policy_free(box->policy);
  box->policy = NULL;
  return 0;
}

struct tdl_policy **tdl_bind_policy(lua_State *L, int index) {
  policy_box *box = NULL;
  lua_getfield(L, index, "policy");
  if (!lua_isnil(L, -1)) {
    box = luaL_checkudata(L, -1, POLICY_NAME);
  }
  lua_pop(L, 1); /* the table keeps it */
  return box == NULL ? NULL : &box->policy;
}

static void check(lua_State *L, int status) {
  if (status != 0) {
    luaL_error(L, "%s", tdl_status_text(status));
  }
}

static uint64_t number_field(lua_State *L, const char *key) {
  uint64_t n;
  lua_getfield(L, 1, key);
  n = lua_tonumber(L, -1) < 0x1p63 ? (uint64_t)lua_tonumber(L, -1) : INT64_MAX;
  lua_pop(L, 1);
  return n;
}

/* Pushes the list at that key; returns its length. */
static int list_field(lua_State *L, const char *key) {
  lua_getfield(L, 1, key);
  luaL_checktype(L, -1, LUA_TTABLE);
  return (int)lua_objlen(L, -1);
}

/* policy{ may =, memory =, cpu =, files =, paths = { path, access, ... },
** ports = { port, use, ... }, env = { name, ... } } -> policy. All is checked by
** the caller; numbers are those of policy.h. */
static int core_policy(lua_State *L) {
  policy_box *box;
  int n;
  luaL_checktype(L, 1, LUA_TTABLE);
  box = lua_newuserdata(L, sizeof(*box));
  box->policy = NULL;
  luaL_setmetatable(L, POLICY_NAME);
  check(L, tdl_policy_new(&box->policy));
  box->policy->may = (uint32_t)number_field(L, "may");
  box->policy->memory_bytes = number_field(L, "memory");
  box->policy->cpu_seconds = number_field(L, "cpu");
  box->policy->files = number_field(L, "files");
  n = list_field(L, "paths");
  for (int i = 1; i < n; i += 2) {
    lua_rawgeti(L, -1, i);
    lua_rawgeti(L, -2, i + 1);
    check(L, tdl_policy_add_path(box->policy, luaL_checkstring(L, -2),
                                 (uint32_t)lua_tointeger(L, -1)));
    lua_pop(L, 2);
  }
  n = list_field(L, "ports");
  for (int i = 1; i < n; i += 2) {
    lua_rawgeti(L, -1, i);
    lua_rawgeti(L, -2, i + 1);
    check(L, tdl_policy_add_port(box->policy, (uint32_t)lua_tointeger(L, -2),
                                 (uint32_t)lua_tointeger(L, -1)));
    lua_pop(L, 2);
  }
  n = list_field(L, "env");
  for (int i = 1; i <= n; i++) {
    lua_rawgeti(L, -1, i);
    check(L, tdl_policy_add_env(box->policy, luaL_checkstring(L, -1)));
    lua_pop(L, 1);
  }
  lua_settop(L, 2);
  return 1;
}

/* policy_lacks(policy, process) -> why it cannot be enforced here; or nil */
static int core_policy_lacks(lua_State *L) {
  char why[256];
  const policy_box *box = check_policy(L, 1);
  if (tdl_confine_check(box->policy, lua_toboolean(L, 2), why, sizeof(why)) ==
      0) {
    return 0;
  }
  lua_pushstring(L, why);
  return 1;
}

/* policy_bytes(policy) -> for a process, which reads it with tdl_policy_read */
static int core_policy_bytes(lua_State *L) {
  const policy_box *box = check_policy(L, 1);
  tdl_bytes bytes;
  int status;
  tdl_bytes_init(&bytes, NULL, 0);
  status = tdl_policy_write(box->policy, &bytes);
  if (status == 0) {
    lua_pushlstring(L, (const char *)bytes.data, bytes.len);
  }
  tdl_bytes_reset(&bytes, NULL, 0);
  check(L, status);
  return 1;
}

/* --- folders, for who makes a policy -------------------------------------- */

static int push_error(lua_State *L) {
  int error = errno;
  lua_pushnil(L);
  lua_pushstring(L, strerror(error));
  lua_pushinteger(L, error);
  return 3;
}

/* real_path(path) -> without links, and whether it is a folder; nil, why */
static int core_real_path(lua_State *L) {
  char path[PATH_MAX];
  struct stat st;
  if (realpath(luaL_checkstring(L, 1), path) == NULL || stat(path, &st) != 0) {
    return push_error(L);
  }
  lua_pushstring(L, path);
  lua_pushboolean(L, S_ISDIR(st.st_mode));
  return 2;
}

static const char *kind_of(DIR *dir, const struct dirent *entry) {
  struct stat st;
  if (entry->d_type == DT_DIR) {
    return "folder";
  } else if (entry->d_type != DT_UNKNOWN) {
    return entry->d_type == DT_LNK ? "link" : "file";
  } else if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) !=
             0) {
    return "gone";
  }
  return S_ISDIR(st.st_mode) ? "folder" : S_ISLNK(st.st_mode) ? "link" : "file";
}

/* Reads it into the table at index 2. */
static int read_entries(lua_State *L) {
  DIR *dir = lua_touserdata(L, 1);
  const struct dirent *entry;
  while ((entry = readdir(dir)) != NULL) {
    if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
      lua_pushstring(L, kind_of(dir, entry));
      lua_setfield(L, 2, entry->d_name);
    }
  }
  return 0;
}

/* entries(path) -> name -> "folder", "link", "file" or "gone"; nil, why */
static int core_entries(lua_State *L) {
  DIR *dir = opendir(luaL_checkstring(L, 1));
  int status;
  if (dir == NULL) {
    return push_error(L);
  }
  lua_settop(L, 1);
  lua_newtable(L);
  lua_pushcfunction(L, read_entries);
  lua_pushlightuserdata(L, dir);
  lua_pushvalue(L, 2);
  status = lua_pcall(L, 2, 0, 0);
  closedir(dir);
  if (status != 0) {
    return lua_error(L);
  }
  return 1;
}

/* --- in a confined state -------------------------------------------------- */

/* confine(loaded, globals): the scripts' package.loaded, for names in payloads;
** the globals that our modules keep, also those that are loaded later. The FFI
** library has been opened; it can be taken out of package.loaded now. Without
** globals the scripts have those, and the FFI. */
static int core_confine(lua_State *L) {
  int has_ffi = lua_isnoneornil(L, 2);
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 2);
  if (has_ffi) {
    lua_pop(L, 1);
    tdl_codec_confine(L, 1);
    return 0;
  }
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
  lua_getfield(L, -1, "ffi");
  lua_setfield(L, LUA_REGISTRYINDEX, TDL_STATE_CONFINED);
  lua_pop(L, 1);
  tdl_bind_of(L)->globals_ref = luaL_ref(L, LUA_REGISTRYINDEX);
  tdl_codec_confine(L, 0);
  return 0;
}

/* What fopen makes of a mode, -1: it is none. */
static int flags_of(const char *mode) {
  int flags = mode[0] == 'r'   ? 0
              : mode[0] == 'w' ? O_CREAT | O_TRUNC
              : mode[0] == 'a' ? O_CREAT | O_APPEND
                               : -1;
  int both = 0;
  for (size_t i = 1; flags >= 0 && mode[i] != 0; i++) {
    if (mode[i] == '+' && !both) {
      both = 1;
    } else if (mode[i] != 'b') {
      return -1;
    }
  }
  if (flags < 0) {
    return -1;
  }
  return flags | O_CLOEXEC |
         (both             ? O_RDWR
          : mode[0] == 'r' ? O_RDONLY
                           : O_WRONLY);
}

/* What the kernel takes as its struct open_how. */
struct how {
  uint64_t flags, mode, resolve;
};
#define NO_MAGIC_LINKS 2u

/* reopen(file, path, mode) -> the file, which is that one now, the old one closed;
** or nil, why, number. Links to what is open, as in /proc/self/fd, are not
** followed: what they lead to, a pipe of the host's, say, is no file that could
** have been granted. LuaJIT's file is a FILE * first. */
static int core_reopen(lua_State *L) {
  FILE **file = luaL_checkudata(L, 1, LUA_FILEHANDLE);
  const char *path = luaL_checkstring(L, 2);
  const char *mode = luaL_checkstring(L, 3);
  int flags = flags_of(mode), fd;
  struct how how = {(uint64_t)(unsigned)flags, 0, NO_MAGIC_LINKS};
  FILE *opened;
  luaL_argcheck(L, flags >= 0, 3, "invalid mode");
  luaL_argcheck(L, *file != NULL, 1, "closed file");
  luaL_argcheck(L, strlen(path) == lua_objlen(L, 2), 2, "a path has no zeros");
  how.mode = flags & O_CREAT ? 0666 : 0;
  fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
  if (fd < 0) {
    int n = push_error(L);
    lua_pushfstring(L, "%s: %s", path, lua_tostring(L, -2));
    lua_replace(L, -3);
    return n;
  }
  opened = fdopen(fd, mode);
  if (opened == NULL) {
    int n = push_error(L);
    close(fd);
    return n;
  }
  fclose(*file);
  *file = opened;
  lua_settop(L, 1);
  return 1;
}

/* --- the part ------------------------------------------------------------- */

void tdl_bind_confine(lua_State *L) {
  static const luaL_Reg functions[] = {{"policy", core_policy},
                                       {"policy_lacks", core_policy_lacks},
                                       {"policy_bytes", core_policy_bytes},
                                       {"real_path", core_real_path},
                                       {"entries", core_entries},
                                       {"confine", core_confine},
                                       {"reopen", core_reopen},
                                       {NULL, NULL}};
  static const struct {
    const char *name;
    uint32_t value;
  } numbers[] = {{"MAY_READ", TDL_MAY_READ},
                 {"MAY_WRITE", TDL_MAY_WRITE},
                 {"MAY_RUN", TDL_MAY_RUN},
                 {"MAY_NET", TDL_MAY_NET},
                 {"MAY_START", TDL_MAY_START},
                 {"MAY_ENV", TDL_MAY_ENV},
                 {"MAY_FFI", TDL_MAY_FFI},
                 {"MAY_BIND", TDL_MAY_BIND},
                 {"MAY_RETOUCH", TDL_MAY_RETOUCH},
                 {"MAY_CONNECT", TDL_MAY_CONNECT},
                 {"POLICY_ENTRIES", TDL_POLICY_ENTRIES}};
  if (luaL_newmetatable(L, POLICY_NAME)) {
    lua_pushcfunction(L, policy_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushliteral(L, POLICY_NAME);
    lua_setfield(L, -2, "__metatable");
  }
  lua_pop(L, 1);
  luaL_setfuncs(L, functions, 0);
  for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
    tdl_bind_set_number(L, numbers[i].name, numbers[i].value);
  }
}
