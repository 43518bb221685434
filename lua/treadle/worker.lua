--- The worker's side: finds the tasks, and describes errors for the way home.
-- `vm.c` requires this module and calls `boot` with what the host sent.
-- @module treadle.worker
local core = require "treadle.core"
local errors = require "treadle.error"
local loop = require "treadle.loop"
local tasks = require "treadle.task"

local M = {}

--- What scripts see as `treadle.worker`.
M.info = { id = core.worker }

local loading, booting = false, true

--- name -> function, once they are loaded
local loaded = {}

--- The function of a task, for what runs it many times.
function M.task(name)
  return loaded[name] or error(("there is no task '%s' here"):format(name), 0)
end

--- The globals of scripts: in a confined worker not treadle's own (treadle.confined).
local user = _G

--- Whether the module is being loaded: no pool may be made then.
function M.is_loading()
  return loading
end

--- Whether its home still waits for it.
function M.is_booting()
  return booting
end

--- Tell the caller what a job raised. What cannot travel is left out. A task that fails because its
-- own pool ends is closed, as every job that runs then. Where the machine, or a limit of the
-- process, has no more memory, Lua raises a text of its own.
local function fail(job, err, co)
  local message = errors.is(err) and err.message or errors.text(err)
  local kind = errors.is(err) and (err.kind == "closed" and core.stopped(job) and "closed"
    or err.kind == "permission" and "permission")
    or err == errors.NO_MEMORY.message and "memory" or "task"
  local traceback = debug.traceback(co)
  if not pcall(core.job_fail, job, kind, message, traceback, err) then
    core.job_fail(job, kind, message, traceback)
  end
end

loop.fail_job = fail
M.fail = fail

--- The names of a module's exports, sorted; raises for one that is no task.
local function export_names(module, exports)
  if type(exports) ~= "table" then
    error(("module '%s' returned a %s, not a table of tasks"):format(module, type(exports)), 0)
  end
  local names = {}
  for name, value in pairs(exports) do
    if type(name) ~= "string" then
      error(("module '%s' exports a %s under a %s, names of tasks are strings"):format(module,
        type(value), type(name)), 0)
    elseif not tasks.fn(value) then
      error(("export '%s' of module '%s' is a %s, not a function or a task"):format(name, module,
        type(value)), 0)
    end
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

--- All tasks of a module.
local function from_module(module)
  if module:find("%.lua$") or module:find("/", 1, true) then -- a path, it seems
    require("treadle.provide").check_name(module)
  end
  local exports = user.require(module)
  local names, fns, opts = export_names(module, exports), {}, {}
  for i, name in ipairs(names) do
    fns[i] = tasks.fn(exports[name])
    opts[i] = tasks.call_options(exports[name])
  end
  return names, fns, opts, exports
end

--- Run the host's script again; its table, or nil and why there is none.
local function run_file(file, args, sources)
  local text = sources and sources[file]
  local chunk, problem
  if text then
    chunk, problem = user.loadstring(text, "@" .. file)
  else
    chunk, problem = user.loadfile(file)
  end
  if not chunk then
    return nil, problem
  end
  local ok, exports = pcall(chunk, unpack(args or {}))
  if not ok then
    exports = errors.text(exports)
    if exports:find("if treadle.is_main then", 1, true) then
      error(exports, 0)
    end
    return nil, exports
  end
  return type(exports) == "table" and exports or {}, "its file does not export it"
end

--- The tasks that the host named, each found in the file, imported, or unpacked.
local function from_table(boot)
  local exports, problem
  local is_exported = boot.thread ~= nil -- it may listen to messages alone
  for _, task in ipairs(boot.tasks) do
    is_exported = is_exported or task.line ~= nil
  end
  if is_exported and boot.file then
    exports, problem = run_file(boot.file, boot.arg, boot.sources)
  end
  exports = exports or {}
  local names, fns, opts = {}, {}, {}
  for i, task in ipairs(boot.tasks) do
    local fn
    if task.module then
      local module = user.require(task.module)
      fn = type(module) == "table" and tasks.fn(module[task.export])
      if not fn then
        error(("module '%s' exports no task '%s'"):format(task.module, task.export), 0)
      end
    else
      local found = tasks.fn(exports[task.name])
      if found and task.line then
        local info = debug.getinfo(found, "S")
        fn = info.source == "@" .. boot.file and info.linedefined == task.line and found
      end
      if not fn and task.code then
        fn = core.decode(task.code)
      end
      if not fn then
        error(("task '%s' cannot be found: %s; and it cannot be sent: %s"):format(task.name,
          problem or "it is not defined in the running file", task.refusal), 0)
      end
    end
    names[i], fns[i], opts[i] = task.name, fn, task.options
    exports[task.name] = exports[task.name] or fn
  end
  return names, fns, opts, exports
end

local function hook(exports, what, name)
  if name == nil then
    return nil
  end
  local fn = tasks.fn(exports[name])
  if not fn then
    error(("option '%s': there is no export '%s'"):format(what, name), 0)
  end
  return fn
end

--- Make the export `on_close` of a thread no task, but what it runs at its end.
local function take_on_close(names, fns, opts)
  for i, name in ipairs(names) do
    if name == "on_close" then
      require("treadle.parent").at_close(fns[i])
      for _, list in ipairs { names, fns, opts } do
        table.remove(list, i)
      end
      return
    end
  end
end

--- Boot the worker.
-- @return the tasks' functions, `fail`, teardown or false, leave or false; then for the host:
-- names, options
function M.boot(boot)
  package.path = boot.path or package.path
  package.cpath = boot.cpath or package.cpath
  if boot.permissions then
    user = require("treadle.confined").enter(boot)
  end
  if boot.arg then
    user.arg = boot.arg
  end
  if boot.sources or boot.source or boot.jit then
    require("treadle.provide").take(boot, user)
  end
  local info = M.info
  info.name, info.data = boot.name, boot.data
  local treadle = require "treadle"
  if boot.global then
    user.treadle = treadle
  end
  local leave = false
  if boot.thread then
    local parent = require "treadle.parent"
    parent.open(boot.thread)
    leave = parent.leave
  end
  loading = true
  local start = core.now()
  local names, fns, opts, exports
  local require, rawset = require, rawset -- the script may have its own
  if boot.module then
    names, fns, opts, exports = from_module(boot.module)
  else
    names, fns, opts, exports = from_table(boot)
  end
  loading = false
  if boot.debug then
    require("treadle.debug").say(nil, "load", "loaded %s in %.2fms: %d tasks", boot.module
      and ("module '%s'"):format(boot.module) or ("'%s'"):format(boot.file or boot.name),
      (core.now() - start) * 1e3, #names)
  end
  if boot.thread then
    take_on_close(names, fns, opts)
  end
  for i, name in ipairs(names) do
    loaded[name] = fns[i]
  end
  setmetatable(info, {
    __index = function(self, key)
      if key == "pool" then
        local own = require("treadle.pool").own(boot.name, names, opts, boot.only,
          boot.thread and "thread")
        rawset(self, key, own)
        return own
      end
    end,
  })
  local init, teardown = hook(exports, "init", boot.init), hook(exports, "teardown", boot.teardown)
  if init then
    init()
  end
  booting = false
  return fns, fail, teardown or false, leave, names, opts
end

return M
