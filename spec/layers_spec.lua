-- A folder below src/ is a layer and includes only downwards; see
-- docs/architecture.md. What a header must look like is checked here, too.
local project = require "files"

local read, output_of = project.read, project.output_of

-- Which layers' headers a layer may include besides its own.
local MAY_INCLUDE = {
  base = {},
  queue = { "base" },
  link = { "base" },
  codec = { "base" },
  job = { "base", "queue", "codec" },
  confine = { "base" },
  share = { "base", "queue", "codec", "job" },
  run = { "base", "queue", "link", "codec", "job", "confine", "share" },
  bind = { "base", "queue", "link", "codec", "job", "confine", "share", "run" },
  cli = { "base", "queue", "link", "codec", "job", "confine", "share", "run", "bind" },
}

-- Included by every layer; includes none.
local FOR_ALL = { ["treadle.h"] = true, ["config.h"] = true }

-- Foreign headers, and the Lua patterns of the files that may include them.
local LUA_USERS = { "^codec/", "^run/vm", "^run/state", "^run/heap", "^run/interrupt", "^bind/",
  "^cli/" }
local FOREIGN = {
  ["lua.h"] = LUA_USERS,
  ["lauxlib.h"] = LUA_USERS,
  ["lualib.h"] = LUA_USERS,
  ["luajit.h"] = LUA_USERS,
  ["uv.h"] = { "^run/", "^cli/" },
}

--- The files below src/, as paths relative to it.
local function sources(suffix)
  local list = {}
  for _, path in ipairs(project.sources("*" .. suffix)) do
    list[#list + 1] = path:match("^src/(.+)$")
  end
  return list
end

local function contains(list, value)
  for _, v in ipairs(list) do
    if v == value then return true end
  end
  return false
end

local function matches_any(path, patterns)
  for _, pattern in ipairs(patterns) do
    if path:match(pattern) then return true end
  end
  return false
end

--- "queue/ring.c" that includes "../base/clock.h" means "base/clock.h".
local function resolve(includer, path)
  local folder = includer:match("^(.*)/[^/]*$") or ""
  return project.normal(folder .. "/" .. path)
end

--- What is wrong with one #include line; nil when nothing is.
-- @param includer the file it stands in, relative to src/
-- @param name     what it includes
-- @param quoted   `"name"` rather than `<name>`
local function include_fault(includer, name, quoted)
  if not quoted then
    local users = FOREIGN[name:match("[^/]+$")]
    if users and not matches_any(includer, users) then
      return ("%s may not include <%s>"):format(includer, name)
    end
    return nil
  end
  local target = resolve(includer, name)
  if FOR_ALL[target] then return nil end
  local from, to = includer:match("^([^/]+)/"), target:match("^([^/]+)/")
  if not to then
    return ("%s includes %s, which is in no layer"):format(includer, target)
  end
  if not from then
    return ("%s is for all and may not include %s"):format(includer, target)
  end
  if not MAY_INCLUDE[from] then
    return ("%s: %s is no layer"):format(includer, from)
  end
  if from ~= to and not contains(MAY_INCLUDE[from], to) then
    return ("%s includes %s: %s may not know %s"):format(includer, target, from, to)
  end
  return nil
end

--- The faults of one file's text.
local function include_faults(includer, text)
  local faults = {}
  for open, name in text:gmatch('#%s*include%s*([<"])([^>"]+)[>"]') do
    faults[#faults + 1] = include_fault(includer, name, open == '"')
  end
  return faults
end

local ATOMICS = {
  "atomic_load", "atomic_store", "atomic_exchange", "atomic_fetch_%w+",
  "atomic_compare_exchange_%w+", "atomic_flag_test_and_set", "atomic_flag_clear",
}

--- Calls that leave the memory order to the default; comments do not count.
local function implicit_orders(text)
  local faults = {}
  text = (text:gsub("/%*.-%*/", ""))
  for name in text:gmatch("[%w_]*(atomic_[%w_]+)%s*%(") do
    for _, pattern in ipairs(ATOMICS) do
      if name:match("^" .. pattern .. "$") and not name:match("_explicit$") then
        faults[#faults + 1] = name
      end
    end
  end
  return faults
end

local function header_faults(path, text)
  local faults = {}
  if not text:match("^/%*") then
    faults[#faults + 1] = path .. " has no head comment"
  end
  for _, field in ipairs { "Threads:", "Owns:", "Fails:" } do
    if not (text:match("^/%*.-%*/") or ""):find("\n** " .. field, 1, true)
      and path ~= "config.h" then
      faults[#faults + 1] = path .. " does not say " .. field
    end
  end
  local first, guard = text:match("^/%*.-%*/%s*#ifndef ([%w_]+)\n#define ([%w_]+)\n")
  if not first or first ~= guard or not text:match("#endif[^\n]*\n$") then
    faults[#faults + 1] = path .. " has no include guard"
  end
  return faults
end

describe("layers:", function()
  local headers, files = sources(".h"), sources(".c")
  for _, header in ipairs(headers) do files[#files + 1] = header end

  it("there are sources to look at", function()
    assert.is_true(#headers > 5 and #files > 10)
  end)

  it("no file includes upwards, and only some know Lua or libuv", function()
    local faults = {}
    for _, path in ipairs(files) do
      for _, fault in ipairs(include_faults(path, read("src/" .. path))) do
        faults[#faults + 1] = fault
      end
    end
    assert.same({}, faults)
  end)

  it("every folder below src/ is a layer", function()
    local faults = {}
    for path in output_of("find src -mindepth 1 -type d"):gmatch("[^\n]+") do
      if not MAY_INCLUDE[path:match("^src/(.+)$")] then
        faults[#faults + 1] = path
      end
    end
    assert.same({}, faults)
  end)

  it("every atomic access names its memory order", function()
    local faults = {}
    for _, path in ipairs(files) do
      for _, name in ipairs(implicit_orders(read("src/" .. path))) do
        faults[#faults + 1] = path .. ": " .. name
      end
    end
    assert.same({}, faults)
  end)

  it("every header opens with its contract and a guard", function()
    local faults = {}
    for _, path in ipairs(headers) do
      for _, fault in ipairs(header_faults(path, read("src/" .. path))) do
        faults[#faults + 1] = fault
      end
    end
    assert.same({}, faults)
  end)

  it("every header compiles alone", function()
    local faults = {}
    local flags = output_of("pkg-config --cflags luajit libuv"):gsub("%s+$", "")
    for _, path in ipairs(headers) do
      local log, status = output_of(("gcc -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror "
        .. "-fsyntax-only -x c %s -include src/%s /dev/null"):format(flags, path))
      if status ~= 0 then faults[#faults + 1] = path .. "\n" .. log end
    end
    assert.same({}, faults)
  end)
end)

-- A checker that finds nothing must be seen to find something.
describe("the layer checker", function()
  it("finds an include that runs upwards, or sideways", function()
    assert.same({ "queue/ring.c includes run/pool.h: queue may not know run" },
      include_faults("queue/ring.c", '#include "../run/pool.h"\n'))
    assert.same({ "codec/encode.c includes queue/ring.h: codec may not know queue" },
      include_faults("codec/encode.c", '# include "../queue/ring.h"\n'))
    assert.same({ "config.h is for all and may not include base/clock.h" },
      include_faults("config.h", '#include "base/clock.h"\n'))
  end)

  it("finds Lua and libuv where they do not belong", function()
    assert.same({ "job/job.h may not include <lua.h>" },
      include_faults("job/job.h", "#include <lua.h>\n"))
    assert.same({ "run/worker.c may not include <lauxlib.h>" },
      include_faults("run/worker.c", "#include <lauxlib.h>\n"))
    assert.same({ "bind/bind.c may not include <uv.h>" },
      include_faults("bind/bind.c", "#include <uv.h>\n"))
  end)

  it("lets pass what is allowed", function()
    assert.same({}, include_faults("run/vm.c",
      '#include "vm.h"\n#include <lua.h>\n#include <uv.h>\n#include "../base/clock.h"\n'
      .. '#include "../config.h"\n#include "../treadle.h"\n#include <stdio.h>\n'))
  end)

  it("finds an access without a memory order, outside of comments", function()
    assert.same({ "atomic_load", "atomic_fetch_add", "atomic_compare_exchange_weak" },
      implicit_orders("atomic_load(&x); atomic_fetch_add (&x, 1);\n"
        .. "atomic_compare_exchange_weak(&x, &y, 1); /* atomic_store(&x) */\n"
        .. "atomic_load_explicit(&x, memory_order_relaxed);\n"
        .. "atomic_thread_fence(memory_order_seq_cst); atomic_init(&x, 0);"))
  end)

  it("finds a header without contract or guard", function()
    assert.same({
      "x.h has no head comment", "x.h does not say Threads:", "x.h does not say Owns:",
      "x.h does not say Fails:", "x.h has no include guard",
    }, header_faults("x.h", "int x(void);\n"))
  end)
end)
