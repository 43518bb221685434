--- The Lua half of a confined worker: an environment without what is denied.
-- The kernel keeps files, programs and sockets away. This module keeps away what would reach around
-- the kernel, in the memory of the process: the FFI, C modules, bytecode, and what shows or changes
-- the functions of treadle. So a script gets globals and a `require` of its own. Those that the
-- state began with are treadle's alone, whose modules keep using them; no table of theirs is the
-- script's.
-- With `ffi = true`, in a process, the rules of the kernel stand alone: the script has what the
-- state has, and what the pool may not do at all says so.
-- @module treadle.confined
local core = require "treadle.core"
local errors = require "treadle.error"

core.open "confine"

local M = {}

-- What treadle's modules go on using, whatever the script does.
local private = _G
local type, pairs, ipairs, rawget, tostring, select = type, pairs, ipairs, rawget, tostring, select
local error, setmetatable, next = error, setmetatable, next
local load, getfenv, setfenv, getmetatable = load, getfenv, setfenv, getmetatable
local require, package, io, os, debug, string = require, package, io, os, debug, string
local getinfo, searchpath, getenv = debug.getinfo, package.searchpath, os.getenv
local find, gsub, gmatch = string.find, string.gsub, string.gmatch

--- What the script may do: see `lua_half` in treadle.permissions.
local allowed

local REASONS = {
  read = "read that", write = "change files", run = "run programs", env = "see that variable",
  ffi = "run C code or see memory", workers = "start workers",
}

local function deny(name, key, reason)
  errors.raise("permission", ("%s: permission denied: this pool may not %s (permissions%s)"):format(
    name, reason or REASONS[key], key == "workers" and "" or "." .. key), 3)
end

local function denied(name, key, reason)
  return function() deny(name, key, reason) end
end

local function copy(t)
  local new = {}
  for key, value in next, t do
    new[key] = value
  end
  return new
end

local function bad_argument(index, name, expected, value)
  error(("bad argument #%d to '%s' (%s expected, got %s)"):format(index, name, expected,
    value == nil and "no value" or type(value)), 3)
end

-- --- the base library --------------------------------------------------------------------------

local BASE = {
  "assert", "collectgarbage", "error", "gcinfo", "ipairs", "newproxy", "next", "pairs", "pcall",
  "print", "rawequal", "rawget", "rawlen", "rawset", "select", "setmetatable", "tonumber",
  "tostring", "type", "unpack", "xpcall", "_VERSION",
}

local public = {}

local function is_c(fn)
  return type(fn) == "function" and getinfo(fn, "S").what == "C"
end

--- Its methods are the originals, and those that the script has added to `string`.
local string_face = {}

--- Userdata of C have a finalizer that takes any other for one of its own.
local function safe_getmetatable(value)
  local kind = type(value)
  if kind == "string" then
    return string_face
  end
  local mt = getmetatable(value)
  if kind == "userdata" and type(mt) == "table" and is_c(rawget(mt, "__gc")) then
    return nil
  end
  return mt
end

--- Functions of treadle and of C have the private globals, which are nobody else's.
local function safe_getfenv(f)
  if f == nil then
    f = 1
  end
  if type(f) == "number" and f > 0 then
    f = f + 1
  elseif is_c(f) then
    return public
  end
  local env = getfenv(f)
  return env == private and public or env
end

local function safe_setfenv(f, env)
  if type(env) ~= "table" then
    bad_argument(2, "setfenv", "table", env)
  end
  local target = f
  if type(f) == "number" and f > 0 then
    target = f + 1
  end
  if is_c(target) or target ~= 0 and getfenv(target) == private then
    error("'setfenv' cannot change environment of given object", 2)
  end
  local result = setfenv(target, env)
  return result
end

local WRONG_MODE = "attempt to load chunk with wrong mode"

--- Text alone: bytecode is not checked by anybody.
local function load_text(chunk, name, mode, count, env)
  if mode ~= nil and not find(mode, "t", 1, true) then
    return nil, WRONG_MODE
  end
  if count >= 4 then
    return load(chunk, name, "t", env)
  end
  return load(chunk, name, "t")
end

local function safe_load(chunk, name, mode, ...)
  if type(chunk) ~= "string" and type(chunk) ~= "function" then
    bad_argument(1, "load", "function", chunk)
  end
  local fn, message = load_text(chunk, name, mode, 3 + select("#", ...), (...))
  return fn, message
end

local function safe_loadstring(text, name, mode, ...)
  if type(text) ~= "string" then
    bad_argument(1, "loadstring", "string", text)
  end
  local fn, message = load_text(text, name or text, mode, 3 + select("#", ...), (...))
  return fn, message
end

-- --- files -------------------------------------------------------------------------------------

local open_file, close_file, read_file, lines_of = io.open, io.close, nil, nil

--- Open it unless a link in /proc leads there.
-- @return the file; nil, why, number
local function open(path, mode)
  local file, message, number = open_file("/dev/null", "r")
  if not file then
    return nil, message, number
  end
  local opened, problem, code = core.reopen(file, path, mode)
  if not opened then
    close_file(file)
  end
  return opened, problem, code
end

local function check_path(value, name)
  if type(value) == "number" then
    return tostring(value)
  elseif type(value) ~= "string" then
    bad_argument(1, name, "string", value)
  end
  return value
end

local function text_of(path)
  local file, message = open(path, "rb")
  if not file then
    return nil, "cannot open " .. message
  end
  local text, problem = read_file(file, "*a")
  close_file(file)
  if not text then
    return nil, "cannot read " .. path .. ": " .. tostring(problem)
  end
  return (gsub(text, "^#[^\n]*", "", 1)) -- a script's first line
end

local function safe_loadfile(path, mode, ...)
  if path == nil then
    deny("loadfile", "read", "read the host's input")
  end
  path = check_path(path, "loadfile")
  local text, message = text_of(path)
  if not text then
    return nil, message
  end
  local fn, problem = load_text(text, "@" .. path, mode, 2 + select("#", ...) + 1, (...))
  return fn, problem
end

local function safe_dofile(path)
  local fn, message = safe_loadfile(path)
  if not fn then
    error(message, 2)
  end
  return fn()
end

local function new_io()
  local new = { close = io.close, type = io.type, write = io.write }
  new.stdout, new.stderr = io.stdout, io.stderr
  local input = allowed.input and io.stdin or nil
  new.stdin = input

  function new.open(path, mode)
    local file, message, number = open(check_path(path, "open"), mode or "r")
    return file, message, number
  end

  local function current(name)
    if not input then
      deny(name, "read", "read the host's input")
    end
    return input
  end

  function new.read(...)
    return read_file(current("io.read"), ...)
  end

  function new.input(file)
    if file == nil then
      return current("io.input")
    elseif io.type(file) ~= "file" then
      local opened, message = open(check_path(file, "input"), "r")
      if not opened then
        error(message, 2)
      end
      file = opened
    end
    input = file
    return file
  end

  function new.output(file)
    if file ~= nil and io.type(file) ~= "file" then
      local opened, message = open(check_path(file, "output"), "w")
      if not opened then
        error(message, 2)
      end
      file = opened
    end
    if file == nil then
      return io.output()
    end
    return io.output(file)
  end

  --- Closes what it has opened at its end.
  local function all_lines(file, iterate)
    local function go_on(first, ...)
      if first == nil then
        close_file(file)
      end
      return first, ...
    end
    return function()
      return go_on(iterate())
    end
  end

  function new.lines(path, ...)
    if path == nil then
      return lines_of(current("io.lines"))
    end
    local file, message = open(check_path(path, "lines"), "r")
    if not file then
      error(message, 2)
    end
    return all_lines(file, lines_of(file, ...))
  end

  new.popen = allowed.run and io.popen or denied("io.popen", "run")
  new.tmpfile = allowed.write and io.tmpfile or denied("io.tmpfile", "write")
  return new
end

local function new_os()
  local new = {
    clock = os.clock, date = os.date, difftime = os.difftime, time = os.time, exit = os.exit,
  }
  new.execute = allowed.run and os.execute or denied("os.execute", "run")
  for _, name in ipairs { "remove", "rename", "tmpname" } do
    new[name] = allowed.write and os[name] or denied("os." .. name, "write")
  end
  new.setlocale = denied("os.setlocale", "ffi", "change the locale of the host")

  function new.getenv(name)
    if type(name) ~= "string" then
      bad_argument(1, "getenv", "string", name)
    end
    if allowed.env ~= true and not (allowed.env and allowed.env[name]) then
      deny(("os.getenv '%s'"):format(name), "env")
    end
    return getenv(name)
  end
  return new
end

-- --- looking at functions ----------------------------------------------------------------------

--- `debug.getinfo` without functions, which may be treadle's.
local function safe_getinfo(co, f, what)
  if type(co) ~= "thread" then
    co, f, what = nil, co, f
    if type(f) == "number" and f >= 0 then
      f = f + 1
    end
  end
  what = what == nil and "nSlu" or gsub(what, "[^nSluL]", "")
  local info
  if co then
    info = getinfo(co, f, what)
  else
    info = getinfo(f, what)
  end
  return info
end

local function new_debug()
  local new = { traceback = debug.traceback, getinfo = safe_getinfo }
  for name in pairs(debug) do
    new[name] = new[name] or denied("debug." .. name, "ffi")
  end
  return new
end

local JIT = { "on", "off", "flush", "status", "version", "version_num", "os", "arch" }

local function new_jit()
  local new = {}
  for _, name in ipairs(JIT) do
    new[name] = jit[name]
  end
  return new
end

-- --- modules -----------------------------------------------------------------------------------

--- Modules of LuaJIT that reach no memory.
local HARMLESS = { ["table.new"] = true, ["table.clear"] = true }

--- Those that do.
local REACHING = {
  ffi = true, ["string.buffer"] = true, ["jit.util"] = true, ["jit.opt"] = true,
  ["jit.profile"] = true,
}

local public_package

local function preloaded(name)
  local loader = public_package.preload[name]
  if loader == nil then
    return ("\n\tno field package.preload['%s']"):format(name)
  end
  return loader
end

local function from_path(name)
  local path, message = searchpath(name, tostring(public_package.path))
  if not path then
    return message
  end
  local fn, problem = safe_loadfile(path)
  if not fn then
    error(("error loading module '%s' from file '%s':\n\t%s"):format(name, path, problem), 0)
  end
  return fn
end

--- Whether there is a C module of that name. It cannot be read: that is not asked for.
local function is_c_module(name)
  local path = gsub(name, "%.", "/")
  for template in gmatch(allowed.cpath, "[^;]+") do
    if core.real_path((gsub(template, "%?", (gsub(path, "%%", "%%%%"))))) then
      return true
    end
  end
  return false
end

--- What a parallel loop of the host's needs here; the script may call it, too.
local function loop_bodies()
  local body = require "treadle.body"
  return { part = body.part, learn = body.learn, fold = body.fold, forget = body.forget }
end

local function from_treadle(name)
  if name == "treadle" or HARMLESS[name] then
    return function() return require(name) end
  elseif name == "treadle.body" then
    return loop_bodies
  elseif REACHING[name] or is_c_module(name) then
    errors.raise("permission", ("require '%s': permission denied: this pool may not run C code "
      .. "or see memory (permissions.ffi)"):format(name), 4)
  end
  return "\n\tno C modules in this pool (permissions.ffi)"
end

local LOADING = newproxy()

local function safe_require(name)
  if type(name) ~= "string" then
    bad_argument(1, "require", "string", name)
  end
  local loaded = public_package.loaded
  local value = loaded[name]
  if value == LOADING then
    error(("loop or previous error loading module '%s'"):format(name), 2)
  elseif value then
    return value
  end
  local messages = {}
  for _, find_loader in ipairs(public_package.loaders) do
    local loader = find_loader(name)
    if type(loader) == "function" then
      loaded[name] = LOADING -- and after an error still, as LuaJIT's own does
      local result = loader(name)
      if result ~= nil then
        loaded[name] = result
      elseif loaded[name] == LOADING then
        loaded[name] = true
      end
      return loaded[name]
    elseif type(loader) == "string" then
      messages[#messages + 1] = loader
    end
  end
  error(("module '%s' not found:%s"):format(name, table.concat(messages)), 2)
end

--- `module(name, ...)` of Lua 5.1, in the script's own globals and package.loaded.
local function safe_module(name, ...)
  if type(name) ~= "string" then
    bad_argument(1, "module", "string", name)
  end
  local M_ = public_package.loaded[name]
  if type(M_) ~= "table" then
    M_ = public
    for part in gmatch(name, "[^.]+") do
      local inner = rawget(M_, part)
      if inner == nil then
        inner = {}
        M_[part] = inner
      elseif type(inner) ~= "table" then
        error(("name conflict for module '%s'"):format(name), 2)
      end
      M_ = inner
    end
    public_package.loaded[name] = M_
  end
  if M_._NAME == nil then
    M_._M, M_._NAME, M_._PACKAGE = M_, name, gsub(name, "[^.]*$", "")
  end
  setfenv(2, M_)
  for i = 1, select("#", ...) do
    (select(i, ...))(M_)
  end
end

local function new_package(boot)
  return {
    loaded = {}, preload = {}, loaders = { preloaded, from_path, from_treadle },
    path = boot.path or package.path, cpath = "", config = package.config,
    loadlib = denied("package.loadlib", "ffi"),
    searchpath = searchpath,
    seeall = function(M_)
      local mt = getmetatable(M_)
      if not mt then
        mt = {}
        setmetatable(M_, mt)
      end
      mt.__index = public
    end,
  }
end

-- --- entering ----------------------------------------------------------------------------------

--- No FFI in this state, for treadle's own modules neither: what has no pointers leaks none. The
-- parser would enter it into package.loaded at the first `1LL` if it had not begun before.
local function drop_ffi()
  require "ffi"
  core.confine(public_package.loaded, private)
  for _, name in ipairs { "ffi", "string.buffer", "jit.profile", "jit.util" } do
    package.loaded[name] = nil
    package.preload[name] = function()
      errors.raise("permission", name .. ": permission denied: this pool may not run C code or see "
        .. "memory (permissions.ffi)", 3)
    end
  end
end

local function guard_methods()
  local strings, files = debug.getmetatable(""), debug.getmetatable(io.stdout)
  setmetatable(string, { __index = public.string })
  string_face.__index = public.string
  strings.__metatable, files.__metatable = string_face, "FILE*"
  local methods = files.__index
  read_file, lines_of = methods.read, methods.lines
  files.__index = copy(methods)
end

local function fill(boot)
  for _, name in ipairs(BASE) do
    public[name] = private[name]
  end
  public._G = public
  public.getmetatable = safe_getmetatable
  public.getfenv, public.setfenv = safe_getfenv, safe_setfenv
  public.load, public.loadstring = safe_load, safe_loadstring
  public.loadfile, public.dofile = safe_loadfile, safe_dofile
  public.require, public.module = safe_require, safe_module
  for _, name in ipairs { "string", "table", "math", "coroutine", "bit" } do
    public[name] = copy(private[name])
  end
  public_package = new_package(boot)
  public.package = public_package
  public.io, public.os, public.debug, public.jit = new_io(), new_os(), new_debug(), new_jit()
  for _, name in ipairs { "_G", "package", "string", "table", "math", "coroutine", "bit", "io",
    "os", "debug", "jit" } do
    public_package.loaded[name] = public[name]
  end
end

--- What `pool:permissions()` says in a worker.
function M.told()
  return allowed.told
end

--- Functions that the kernel would fail, or do half of: theirs are better words.
local SPOKEN = {
  io = { "popen", "tmpfile" }, os = { "execute", "remove", "rename", "tmpname", "getenv" },
}

--- The script has the FFI, and so whatever the state has.
local function enter_whole()
  local spoken = { io = new_io(), os = new_os() }
  for library, names in pairs(SPOKEN) do
    for _, name in ipairs(names) do
      private[library][name] = spoken[library][name]
    end
  end
  core.confine(package.loaded)
  return private
end

--- Confine the state: to be called once, before any code of the script's runs in it.
-- @tparam table boot what the worker is told
-- @treturn table the script's globals
function M.enter(boot)
  allowed = boot.permissions
  core.confined = true
  if allowed.ffi then
    return enter_whole()
  end
  allowed.cpath = boot.cpath or package.cpath
  package.cpath = ""
  fill(boot)
  guard_methods()
  drop_ffi()
  setfenv(0, public)
  local treadle = require "treadle"
  treadle.decode = core.decode_data
  treadle.attach = denied("treadle.attach", "ffi", "join another loop")
  return public
end

return M
