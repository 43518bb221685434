--- Making a pool: its options, its tasks, what its workers are told.
-- @module treadle.opening
local core = require "treadle.core"
local errors = require "treadle.error"
local future = require "treadle.future"
local inline = require "treadle.inline"
local loop = require "treadle.loop"
local options = require "treadle.options"
local pools = require "treadle.pool"
local records = require "treadle.records"
local schedule = require "treadle.schedule"
local tasks = require "treadle.task"

local M = {}

local require = require -- the script may have its own

local POOL_OPTIONS = {
  threads = "count", concurrency = "count", timeout = "seconds", max_payload = "bytes",
  terminate_timeout = "seconds", data = "any", init = "name", teardown = "name", name = "name",
  min_threads = "tally", max_threads = "count", idle_timeout = "seconds",
  recycle_after = "count", recycle_memory = "bytes", isolate = "boolean", max_memory = "bytes",
  max_queue = "limit", on_full = "on_full", balancer = "balancer", inline = "boolean",
  runtime = "runtime", command = "texts",
  debug = function(value) return require("treadle.debug").check(value) end,
  permissions = function(value) return require("treadle.permissions").check(value) end,
}

local GUARD = "a %s cannot be made while a worker loads its module: "
  .. "put what only the host does behind `if treadle.is_main then`"

--- What a worker needs to know to find each task of a table.
-- @param what "pool" or "thread"
local function describe_tasks(given, file, what, level)
  local list = {}
  for name, value in pairs(given) do
    if type(name) ~= "string" then
      options.bad_argument(1, what, "names of tasks are strings, got a " .. type(name), level)
    end
    local entry = { name = name, options = tasks.call_options(value) }
    if tasks.is_import(value) then
      entry.module, entry.export = value.module, value.name
    else
      local fn = tasks.fn(value)
      if not fn then
        options.bad_argument(1, what, ("task '%s' is a %s, not a function or a task"):format(name,
          type(value)), level)
      end
      local info = debug.getinfo(fn, "S")
      if file and info.source == "@" .. file then
        entry.line = info.linedefined
      end
      local ok, code = pcall(core.encode, fn)
      entry[ok and "code" or "refusal"] = code
    end
    list[#list + 1] = entry
  end
  if #list == 0 and what == "pool" then
    options.bad_argument(1, what, "a table with at least one task expected", level)
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

--- The file whose function called treadle.pool, nil for a string of code or a console.
local function calling_file(level)
  local info = debug.getinfo(level + 1, "S")
  return info and info.source:match("^@(.+)$")
end

--- What only a host can do, and what has no meaning alone.
local function check_options(opts, level)
  local runs_here = opts.inline and "option 'inline'"
    or opts.on_full == "run" and "on_full 'run'"
  local problem
  if opts.on_full and not opts.max_queue then
    problem = "'on_full' needs a 'max_queue'"
  elseif runs_here and core.worker then
    problem = ("%s is for a host: a worker has tasks of its own to run"):format(runs_here)
  elseif runs_here and opts.permissions and opts.permissions ~= "unrestricted" then
    problem = ("%s lets tasks run in the host, which 'permissions' do not confine")
      :format(runs_here)
  elseif runs_here and opts.init then
    problem = ("%s lets tasks run in the host, where 'init' does not run"):format(runs_here)
  elseif opts.command and opts.runtime ~= "process" then
    problem = "'command' starts processes: it needs runtime = \"process\""
  end
  if problem then
    options.bad_argument(2, "pool", problem, level + 1)
  end
end

--- The least and the greatest number of workers.
local function sizes(opts, level)
  local given = opts.min_threads and "min_threads" or opts.max_threads and "max_threads"
  if opts.threads and given then
    options.bad_argument(2, "pool", ("'threads' is a fixed size: it cannot be given with '%s'")
      :format(given), level + 1)
  end
  local max = opts.threads or opts.max_threads or math.max(core.cores(), opts.min_threads or 1)
  local min = opts.min_threads or opts.max_threads and 1 or max
  for _, name in ipairs { "threads", "min_threads", "max_threads" } do
    if (opts[name] or 0) > core.MAX_WORKERS then
      options.bad_argument(2, "pool", ("option '%s': at most %d"):format(name, core.MAX_WORKERS),
        level + 1)
    end
  end
  if min > max then
    options.bad_argument(2, "pool", ("option 'min_threads': at most 'max_threads', %d, expected, "
      .. "got %d"):format(max, min), level + 1)
  end
  return min, max
end

--- What the workers may do: the policy for C, what their Lua half is told, what the pool tells.
local function permit(given, runtime, shape, boot, record, what, level)
  local ok, permitted = pcall(require("treadle.permissions").new, given, runtime, boot)
  if not ok and errors.is(permitted) and permitted.kind == "argument" then
    options.bad_argument(2, what, permitted.message, level + 1)
  elseif not ok then
    error(errors.add_site(permitted, level + 2), 0)
  elseif permitted then
    shape.policy, boot.permissions, record.permissions =
      permitted.policy, permitted.boot, permitted.told
  end
end

--- @param only the name of its task, if the pool can be called like that
-- @param thread for treadle.thread: its `options`, and what its worker is told
local function open(given, opts, level, only, thread)
  local what = thread and "thread" or "pool"
  if core.worker and require("treadle.worker").is_loading() then
    error(GUARD:format(what), level + 1)
  end
  if core.confined then
    errors.raise("permission",
      ("treadle.%s: permission denied: a confined worker starts no workers"):format(what),
      level + 2)
  end
  options.argument(1, what, given, "string or table", level)
  if tasks.is_task(given) or tasks.is_import(given) then
    options.bad_argument(1, what, "module name or table of tasks expected, got one task"
      .. (thread and "" or ": use task:pool()"), level)
  end
  opts = options.check(2, what, opts, thread and thread.options or POOL_OPTIONS, level)
  check_options(opts, level)
  local boot = {
    path = package.path, cpath = package.cpath,
    data = opts.data, init = opts.init, teardown = opts.teardown,
    global = M.is_global or nil, only = only, thread = thread and thread.boot,
  }
  if type(given) == "string" then
    boot.module = given
  else
    boot.file = calling_file(level + 1)
    boot.tasks = describe_tasks(given, boot.file, what, level + 1)
    boot.arg = type(arg) == "table" and arg or nil
  end
  local min, max = 1, 1
  if not thread then
    min, max = sizes(opts, level)
  end
  local name = opts.name or boot.module or boot.file and boot.file:match("([^/]+)%.lua$")
    or boot.file or what
  boot.name = name
  if package.loaded["treadle.attach"] then
    require("treadle.attach").complete(boot)
  end
  local record = {
    what = what,
    started = future.new(),
    closed = future.new(),
    max_memory = opts.max_memory,
    listeners = {}, -- see treadle.events
    changing = {}, -- set of functions that look whether a change of the workers is over
    threads = math.max(min, 1),
    source = { module = boot.module, tasks = not boot.module and given or nil },
  }
  record.schedule = schedule.new(record, opts)
  local environment = os.getenv "TREADLE_DEBUG"
  local mask = (opts.debug ~= nil or environment)
    and require("treadle.debug").mask(opts.debug, environment) or 0
  if mask ~= 0 then
    boot.debug = true
    record.say = require("treadle.debug").say
  end
  local self = pools.new({
    name = name,
    _timeout = opts.timeout,
    _terminate_timeout = opts.terminate_timeout or 5,
    _only = only,
  }, record)
  local shape = {
    name = name,
    min_threads = min,
    max_threads = max,
    idle_timeout = opts.idle_timeout or math.huge,
    concurrency = opts.isolate and 1 or opts.concurrency or 1,
    max_payload = math.min(opts.max_payload or core.MAX_PAYLOAD, core.PAYLOAD_CEILING),
    terminate_timeout = self._terminate_timeout,
    recycle_after = opts.isolate and 1 or opts.recycle_after,
    recycle_memory = opts.recycle_memory,
    max_memory = opts.max_memory,
    max_queue = record.schedule and record.schedule.max_queue or nil,
    balanced = record.schedule and record.schedule.balancer ~= nil,
    inline = opts.inline,
    debug = mask,
    mortal = thread ~= nil,
    processes = opts.runtime == "process",
    command = opts.command,
  }
  record.runtime = opts.runtime or "thread"
  local permissions = opts.permissions or record.runtime == "process" and "strict"
  if permissions then
    permit(permissions, record.runtime, shape, boot, record, what, level)
  end
  local ok, handle = pcall(core.pool_open, record, shape, boot)
  if not ok then
    options.bad_argument(2, what, errors.text(handle), level)
  end
  self._handle = handle
  records.by_handle[handle], records.handle_of[record] = record, handle
  local can_wait, problem = pcall(loop.wait_for, record.started)
  if not can_wait then -- the code was cancelled, or is in a place that cannot wait
    self:terminate()
    error(problem, 0)
  end
  if not record.index then
    self:terminate()
    record.closed:wait(self._terminate_timeout)
    future.seen(record.started)
    error(errors.add_site(future.error(record.started), level + 1), 0)
  end
  if record.say then
    require("treadle.debug").opened(handle, record, name, shape)
  end
  if core.pool_shows() then
    require("treadle.top").show(name, handle, record.names)
  end
  if opts.inline then
    inline.open(record, handle)
  end
  return self
end

--- Make a pool of workers; returns when the first worker has loaded the tasks.
-- @tparam string|table given a module's name, or a table of tasks that the calling file exports
-- @tparam[opt] table opts see the contract
-- @raise a `treadle.error` of kind "load" with the worker's traceback
function M.pool(given, opts)
  return open(given, opts, 1)
end

--- A pool of one task.
function M.single(task, opts)
  return (open({ task = task }, opts, 2, "task"))
end

--- A pool of one worker whose state is not replaced: when that is lost, the pool is over.
-- @tparam table known its options, as for `options.check`
-- @tparam table boot what the worker is told: the channels of treadle.thread
function M.dedicated(given, opts, known, boot)
  return open(given, opts, 2, nil, { options = known, boot = boot })
end

return M
