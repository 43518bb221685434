--- What a hostile task might try. Each returns what it got: nil or false is nothing.
-- `w` is the spec's table of paths and numbers: `canary`, a file elsewhere with a secret; `folder`,
-- which may be read; descriptors of the host's: `pipe`, `memfd`; bytes that the host has encoded.
-- luacheck: ignore 122
local treadle = require "treadle"

local M = {}

local function read(path)
  local file, why = io.open(path)
  if not file then
    return nil, why
  end
  local text = file:read("*a")
  file:close()
  return text
end

-- --- reading -------------------------------------------------------------------------------------

function M.open_elsewhere(w) return read(w.canary) end
function M.open_shadow() return read "/etc/shadow" end
function M.open_passwd() return read "/etc/passwd" end
function M.open_secret_in_folder(w) return read(w.folder .. "/.env") end
function M.open_repository_in_folder(w) return read(w.folder .. "/sub/.git/config") end
function M.open_key_in_folder(w) return read(w.folder .. "/server.key") end
function M.open_link_to_secret(w) return read(w.folder .. "/to_secret") end
function M.open_link_elsewhere(w) return read(w.folder .. "/to_canary") end
function M.open_with_dots(w) return read(w.folder .. "/../../../../../.." .. w.canary) end
function M.open_through_root(w) return read("/proc/self/root" .. w.canary) end
function M.open_through_cwd(w) return read("/proc/self/cwd/" .. ("../"):rep(20) .. w.canary) end
function M.open_own_memory() return io.open "/proc/self/mem" and true end
function M.open_memory_to_write() return io.open("/proc/self/mem", "r+b") and true end
function M.open_task_memory(w) return io.open(("/proc/self/task/%d/mem"):format(w.pid), "r+b") end
function M.open_own_maps() return read "/proc/self/maps" end
function M.open_own_environment() return read "/proc/self/environ" end
function M.open_other_environment(w) return read(("/proc/%d/environ"):format(w.pid)) end
function M.open_environment_of_init() return read "/proc/1/environ" end
function M.open_pipe(w) return io.open("/proc/self/fd/" .. w.pipe, "w") end
function M.open_pipe_by_dev(w) return io.open("/dev/fd/" .. w.pipe, "w") end
function M.open_memory_file(w) return read("/proc/self/fd/" .. w.memfd) end
function M.empty_memory_file(w) return io.open("/proc/self/fd/" .. w.memfd, "w") end
function M.open_memory_file_by_thread(w) return read("/proc/thread-self/fd/" .. w.memfd) end
function M.open_memory_file_by_pid(w) return read(("/proc/%d/fd/%d"):format(w.pid, w.memfd)) end
function M.open_memory_file_by_link(w) return read(w.folder .. "/to_memfd") end
function M.open_device() return io.open("/dev/mem", "rb") end
function M.open_terminal() return io.open("/dev/tty", "w") end
function M.list_lines(w) return io.lines(w.canary)() end
function M.change_input(w) return io.input(w.canary):read "*a" end
function M.load_elsewhere(w) return loadfile(w.canary) or dofile(w.canary) end

function M.require_elsewhere(w)
  package.path = w.elsewhere .. "/?.lua"
  return require "evil"
end

function M.search_by_loader(w)
  package.path = w.elsewhere .. "/?.lua"
  return (package.loaders[2] "evil"):match "^$"
end

function M.read_input_of_host() return io.read "*l" end
function M.take_input_of_host() return io.stdin end
function M.lines_of_host() return io.lines()() end

-- --- writing -------------------------------------------------------------------------------------

function M.write_in_folder(w) return io.open(w.folder .. "/plain.txt", "w") end
function M.add_to_folder(w) return io.open(w.folder .. "/new.txt", "w") end
function M.append_elsewhere(w) return io.open(w.canary, "a") end
function M.output_elsewhere(w) return io.output(w.canary) end
function M.remove_elsewhere(w) return os.remove(w.canary) end
function M.rename_elsewhere(w) return os.rename(w.canary, w.canary .. ".gone") end
function M.rename_into(w) return os.rename(w.folder .. "/plain.txt", w.canary) end
function M.make_temporary() return os.tmpname() end
function M.open_temporary() return io.tmpfile() end

-- --- the machine ---------------------------------------------------------------------------------

function M.popen() return io.popen "id" end
function M.execute() return os.execute "true" == 0 end
function M.ask_for_shell() return os.execute() ~= 0 end
function M.exit() return os.exit(1) end
function M.change_locale() return os.setlocale "C" end
function M.read_variable(w) return os.getenv(w.variable) end
function M.start_pool() return treadle.pool("string", { threads = 1 }) end
function M.start_free_pool() return treadle.pool("string", { permissions = "unrestricted" }) end
function M.start_thread() return treadle.thread "string" end
function M.start_task_pool() return treadle.task { fn = function() end }:pool() end
function M.join_loop() return treadle.attach {} end
function M.grow_own_pool() return treadle.worker.pool:resize(200) and false end
function M.profile_own_pool() return treadle.worker.pool:profile(0.001) and false end

-- --- memory --------------------------------------------------------------------------------------

function M.require_ffi() return require "ffi" end
function M.find_loaded_ffi() return package.loaded.ffi end
function M.find_preloaded_ffi() return package.preload.ffi end

function M.parse_ffi_in()
  assert(loadstring "return 1LL, 1ULL, 1i")()
  return package.loaded.ffi or _G.ffi
end

function M.require_buffer_of_luajit() return require "string.buffer" end
function M.require_jit_util() return require "jit.util" end
function M.attach_to_jit() return jit.attach end
function M.tune_jit() return jit.opt or require "jit.opt" end
function M.make_buffer() return treadle.buffer("int32_t", 4).ptr end
function M.use_atomics() return treadle.atomics.add end
function M.load_library() return package.loadlib("libc.so.6", "*") end
function M.require_c_module() return require "lfs" end
function M.require_luv() return require "luv" end

function M.require_on_cpath(w)
  package.cpath = w.cpath
  return require "lfs"
end

function M.ask_every_loader()
  for _, loader in ipairs(package.loaders) do
    local ok, found = pcall(loader, "ffi")
    if ok and type(found) == "function" then
      return found
    end
  end
end

function M.load_bytecode() return loadstring(string.dump(function() return 1 end)) end
function M.load_bytecode_by_mode() return load(string.dump(function() end), "x", "b") end

function M.load_bytecode_in_pieces()
  local code = string.dump(function() return 1 end)
  local at = 0
  return load(function()
    at = at + 1
    return code:sub(at, at)
  end)
end

function M.load_bytecode_from_file(w) return loadfile(w.folder .. "/bytecode.lua") end

function M.require_bytecode(w)
  package.path = w.folder .. "/?.lua"
  return require "bytecode"
end

function M.decode_function(w) return treadle.decode(w.encoded_function) end
function M.decode_builtin(w) return treadle.decode(w.encoded_builtin) end
function M.decode_module(w) return treadle.decode(w.encoded_module) end
function M.decode_array(w) return treadle.decode(w.encoded_array) end
function M.send_function_home() return function() end end
function M.send_builtin_home() return print end

function M.send_function_on()
  return treadle.worker.pool:run(function() return package.loaded.ffi end):await()
end

-- --- treadle's own -------------------------------------------------------------------------------

function M.registry() return debug.getregistry() end
function M.upvalues() return debug.getupvalue(treadle.sleep, 1) end
function M.change_upvalue() return debug.setupvalue(treadle.sleep, 1, nil) end
function M.locals() return debug.getlocal(2, 1) end
function M.hook() return debug.sethook(function() end, "c") end
function M.metatable_of_strings() return debug.setmetatable("", {}) end
function M.function_of_level() return (debug.getinfo(1, "f") or {}).func end
function M.function_of_function() return debug.getinfo(treadle.sleep, "nSf").func end
function M.function_of_coroutine() return debug.getinfo(coroutine.create(print), 0, "f") end

function M.functions_of_callers()
  for level = 1, 20 do
    local info = debug.getinfo(level, "fnSlu>")
    if info and info.func then
      return info.func
    end
  end
end

function M.globals_of_treadle()
  return getfenv(treadle.sleep).ffi or getfenv(treadle.sleep) ~= _G
end

function M.globals_of_callers()
  for level = 0, 20 do
    local ok, env = pcall(getfenv, level)
    if ok and env ~= _G then
      return env
    end
  end
end

function M.globals_of_builtins()
  for _, fn in ipairs { print, getfenv, io.write, io.open, require, treadle.encode } do
    if getfenv(fn) ~= _G then
      return getfenv(fn)
    end
  end
end

function M.change_globals_of_treadle() return setfenv(treadle.sleep, {}) end
function M.change_globals_of_builtin() return setfenv(require, {}) end
function M.internal_modules()
  for name in pairs(package.loaded) do
    if name:find "^treadle%." then
      return name
    end
  end
end
function M.require_core() return require "treadle.core" end
function M.require_internals() return require "treadle.loop" end

function M.module_of_core()
  local look = getfenv
  module "treadle.core" -- luacheck: ignore
  return look(1).reopen
end

function M.finalizer_of_files()
  local mt = getmetatable(io.stdout)
  return type(mt) == "table" and mt.__gc
end

function M.finalizer_of_handle()
  local mt = getmetatable(treadle.worker.pool._handle)
  return type(mt) == "table" and mt.__gc
end

function M.metatable_of_handle()
  local channel = treadle.channel(1)
  return type(getmetatable(channel)) == "table"
end

--- What treadle's modules call must not be what a script has put in its place.
function M.poison_strings(w)
  local caught
  local names = { "format", "find", "gsub", "match", "sub", "rep", "gmatch", "byte" }
  local originals = {}
  for _, name in ipairs(names) do
    originals[name] = string[name]
    string[name] = function(...)
      caught = ...
      return originals[name](...)
    end
  end
  getmetatable("").__index = string
  pcall(treadle.sleep, {})
  pcall(treadle.mutex)
  pcall(treadle.task, { fn = w })
  for _, name in ipairs(names) do
    string[name] = originals[name]
  end
  return caught
end

function M.poison_globals()
  local caught
  local names = { "require", "pairs", "ipairs", "setmetatable", "pcall", "error", "type", "rawset" }
  local originals = {}
  for _, name in ipairs(names) do
    originals[name] = _G[name]
  end
  for _, name in ipairs(names) do
    _G[name] = function(...)
      caught = name
      return originals[name](...)
    end
  end
  local old = getfenv(0)
  setfenv(0, { require = function() caught = "env" end })
  originals.pcall(function() return treadle.semaphore, treadle.all, treadle.group end)
  setfenv(0, old)
  for _, name in originals.ipairs(names) do
    originals.rawset(_G, name, originals[name])
  end
  return caught
end

--- A waiting coroutine yields to the scheduler; who resumes it sees what it yields.
function M.token_of_scheduler()
  local co = coroutine.create(function() treadle.sleep(0.001) end)
  local _, token = coroutine.resume(co)
  if token == nil then
    return nil
  end
  local got = {}
  for _, fn in ipairs { treadle.encode, treadle.decode, treadle.class, treadle.shared, io.lines,
    getmetatable, getfenv, string.format } do
    local ok, value = pcall(fn, token, token, token)
    if ok and type(value) == "table" then
      got[#got + 1] = value
    end
  end
  return got[1]
end

--- All that can be reached from the globals and from treadle, as text: tables, what they inherit
-- from, and functions.
function M.reach()
  for _, name in ipairs { "task", "all", "abort", "group", "pmap", "channel", "select", "shared",
    "mutex", "rwlock", "semaphore", "barrier", "event", "emit", "signal", "effect", "queue",
    "parent", "pool", "thread" } do
    pcall(function() return treadle[name] end)
  end
  local seen, list, queue = {}, {}, { _G, package.loaded, treadle, treadle.worker,
    treadle.worker.pool, treadle.resolved(1), "", io.stdout, print, 1, true,
    coroutine.create(print), treadle.signal(1),
    select(2, pcall(io.popen, "x")) }
  local function visit(value)
    if value ~= nil and not seen[value] then
      seen[value] = true
      queue[#queue + 1] = value
    end
  end
  local i = 1
  while i <= #queue do
    local value = queue[i]
    i = i + 1
    if type(value) == "table" then
      for k, v in next, value do
        visit(k)
        visit(v)
      end
    elseif type(value) == "function" then
      list[#list + 1] = tostring(value)
      visit(getfenv(value))
    elseif type(value) == "userdata" or type(value) == "thread" then
      list[#list + 1] = type(value)
    end
    visit(getmetatable(value))
  end
  return list, seen[1] ~= nil
end

-- --- too much ------------------------------------------------------------------------------------

function M.huge_string() return #("x"):rep(2 ^ 30) end

function M.many_tables()
  local t = {}
  while true do
    t = { t }
  end
end

function M.endless() while true do pcall(function() while true do end end) end end

function M.deep()
  local function f() return 1 + f() end
  return f()
end

return M
