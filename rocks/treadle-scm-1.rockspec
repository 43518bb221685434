rockspec_format = "3.0"
package = "treadle"
version = "scm-1"
source = {
  url = "git+file://.",
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
  LIBUV = { header = "uv.h" },
}
build = {
  type = "make",
  install_variables = {
    PREFIX = "$(PREFIX)",
    BINDIR = "$(BINDIR)",
    LUALIBDIR = "$(LIBDIR)",
    INCDIR = "$(PREFIX)/include",
  },
}
test = {
  type = "command",
  command = "make test",
}
