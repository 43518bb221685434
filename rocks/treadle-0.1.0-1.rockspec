rockspec_format = "3.0"
package = "treadle"
version = "0.1.0-1"
-- The url is the tree in which this file lies: `luarocks make` needs no other. Who publishes the
-- rock puts in where the repository is.
source = {
  url = "git+file://.",
  tag = "v0.1.0",
}
description = {
  summary = "Run Lua functions on a pool of LuaJIT states, one per thread",
  detailed = [[
    A parallel runtime for LuaJIT: tasks, pools of workers, futures. One C
    module holds all of it; the treadle command runs a script without it.
  ]],
  license = "MIT",
  labels = { "luajit", "threads", "parallel", "async" },
}
supported_platforms = { "linux" }
-- "5.1" is how a rock says LuaJIT, whose interpreter brings the Lua API.
dependencies = { "lua == 5.1" }
external_dependencies = {
  LIBUV = { header = "uv.h", library = "uv" },
}
build = {
  type = "make",
  -- In a folder of its own, so that a rock made in a tree leaves that tree's build as it is.
  -- LUA_INCDIR counts if it has LuaJIT's headers.
  variables = {
    B = "build/rock",
    CC = "$(CC)",
    CFLAGS = "$(CFLAGS)",
    LUA_INCDIR = "$(LUA_INCDIR)",
    LIBUV_INCDIR = "$(LIBUV_INCDIR)",
    LIBUV_LIBDIR = "$(LIBUV_LIBDIR)",
  },
  install_variables = {
    PREFIX = "$(PREFIX)",
    BINDIR = "$(BINDIR)",
    LUALIBDIR = "$(LIBDIR)",
    INCDIR = "$(PREFIX)/include",
    EMBED = "no",
  },
  copy_directories = { "docs", "examples" },
}
deploy = {
  wrap_bin_scripts = false,
}
test = {
  type = "command",
  command = "make test",
}
