--- The ends of processes: each way to end x each moment x both interpreters x 1, 2 and 8 workers,
-- in child processes, at moments that a seed chooses. No child hangs, crashes, ends with another
-- code, complains, or leaves a process behind.
--
-- TDL_SEED repeats a plan of 1,000 children; with TDL_FULL it is 5,000: each combination almost
-- three times.
package.path = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") .. "/../support/?.lua;"
  .. package.path
local ffi = require "ffi"
local helpers = require "helpers"

local FULL = os.getenv("TDL_FULL") ~= nil
local CHILDREN = FULL and 5000 or 1000
local CALLS = 10000

--- Children at a time: most of them wait for most of the time.
local AT_ONCE = 6

--- Seconds after which a child hangs; the longest end takes one second by itself.
local LIMIT = 60

--- Seconds after the first Ctrl-C at which a user who sees nothing happen presses it again. Plain
-- LuaJIT needs that in compiled code and when a coroutine caught the error; the command never does.
local AGAIN = 2

ffi.cdef [[
  typedef struct { long pad[64]; } exits_spawn;
  int posix_spawn_file_actions_init(exits_spawn *);
  int posix_spawn_file_actions_addopen(exits_spawn *, int, const char *, int, unsigned);
  int posix_spawn_file_actions_adddup2(exits_spawn *, int, int);
  int posix_spawn_file_actions_addclose(exits_spawn *, int);
  int posix_spawn_file_actions_destroy(exits_spawn *);
  int posix_spawnattr_init(exits_spawn *);
  int posix_spawnattr_setflags(exits_spawn *, short);
  int posix_spawnattr_setpgroup(exits_spawn *, int);
  int posix_spawnattr_setsigdefault(exits_spawn *, const exits_spawn *);
  int posix_spawnattr_setsigmask(exits_spawn *, const exits_spawn *);
  int posix_spawnattr_destroy(exits_spawn *);
  int posix_spawnp(int *, const char *, const exits_spawn *, const exits_spawn *,
                   const char *const *, char **);
  int sigfillset(exits_spawn *);
  int sigemptyset(exits_spawn *);
  int waitpid(int, int *, int);
  int kill(int, int);
  int pipe2(int *, int);
  int close(int);
  extern char **environ;
]]
local C = ffi.C

local WNOHANG, O_RDONLY, O_CREATE_WRITE, O_CLOEXEC = 1, 0, 577, 524288
local SETPGROUP, SETSIGDEF, SETSIGMASK = 2, 4, 8
local SIGINT, SIGKILL, SIGPIPE, SIGTERM = 2, 9, 13, 15

-- --- the plan ------------------------------------------------------------------------------------

local seed = tonumber(os.getenv("TDL_SEED")) or os.time()

--- The same numbers everywhere for one seed.
local function random(n)
  seed = (seed * 16807 + 7) % 2147483647
  return 1 + math.floor(seed / 8) % n
end

local TASKS = [[
  local treadle = require "treadle"
  local M = {}
  local function own() return treadle.worker.pool end
  function M.echo(...) return ... end
  function M.nap() treadle.sleep(1000) end
  function M.compute() local n = 0 while true do n = n + 1 end end
  function M.fib(n)
    if n < 2 then return n end
    local a, b = own().call.fib(n - 1), own().call.fib(n - 2)
    return a:await() + b:await()
  end
  function M.close() own():close() return "asked" end
  function M.terminate() own():terminate() end
  function M.fail() error("task on purpose") end
  function M.exit() os.exit(9) end
  function M.say(i) print("line", i) end
  function M.leave(keep)
    local pool = treadle.pool("exits_tasks", { threads = 2 })
    for i = 1, 100 do pool.call.echo(i) end
    pool.call.nap()
    kept = keep and pool
    return "left"
  end
  return M
]]

--- Loads slowly everywhere but in the first worker.
local SLOW_TASKS = [[
  local treadle = require "treadle"
  if treadle.worker.id > 1 then treadle.sleep(0.02 * treadle.worker.id) end
  return require "exits_tasks"
]]

--- What each child starts with: MODULE, WORKERS, CALLS, PICK (a number) and PAUSE (seconds) are
-- its own.
local PRELUDE = [[
  local treadle = require "treadle"
  local pool
  local list = {}
  local function open(options)
    options = options or {}
    options.threads, options.terminate_timeout = WORKERS, 0.1
    pool = treadle.pool(MODULE, options)
    return pool
  end
  local function flood()
    local echo = pool.call.echo
    for i = 1, CALLS do list[i] = echo(i) end
  end
  -- Settled, with its own value or because the pool was closed.
  local function check()
    for i = 1, #list do
      local ok, value = list[i]:pawait()
      if ok then assert(value == i) else assert(value.kind == "closed", value) end
    end
  end
  local function to_worker(task, ...)
    return pool:run(task, { ... }, { worker = 1 + PICK % WORKERS })
  end
  READY()
]]

--- When: what goes on when the end comes. `endless`: there are tasks that never end. `busy`: and
-- whose worker does nothing else. `starting`: there may be no pool yet.
local MOMENTS = {
  { name = "idle", text = "open()" },
  { name = "in flight", text = "open() flood()" },
  { name = "half way", text = "open() flood() list[1 + PICK % CALLS]:await()" },
  { name = "starting", starting = true,
    text = "treadle.spawn(function() open() flood() end) treadle.sleep(PAUSE)" },
  { name = "started at once", starting = true, text = "treadle.spawn(function() open() end)" },
  { name = "half started", module = "exits_slow_tasks", text = "open() flood()" },
  { name = "nested", text =
    "open() for i = 1, 20 do pool.call.fib(10) end flood() treadle.sleep(PAUSE)" },
  { name = "nested under way", text = "open { concurrency = 3 } pool.call.fib(16)" },
  { name = "sleeping", endless = true, text = "open { concurrency = CALLS + 1 } "
    .. "for i = 1, CALLS do pool.call.nap() end treadle.sleep(PAUSE)" },
  { name = "sleeping in all places", endless = true, busy = true, text =
    "open { concurrency = 50 } for i = 1, CALLS do pool.call.nap() end treadle.sleep(PAUSE)" },
  { name = "computing", endless = true, busy = true, text =
    "open() for i = 1, WORKERS do to_worker('compute') end flood() treadle.sleep(PAUSE)" },
  { name = "timing out", text = [[
    open { concurrency = 50 }
    for i = 1, CALLS do
      pool:run("nap", {}, { timeout = i % 100 * 0.0005, default = false })
    end
    treadle.sleep(PAUSE)]] },
  { name = "being closed", text =
    "open() flood() treadle.spawn(function() pool:close() end) treadle.sleep(0)" },
  { name = "being cancelled", text =
    "open() flood() for i = 1, CALLS, 3 do list[i]:cancel() list[i] = pool.call.echo(i) end" },
  { name = "two pools",
    text = "open() flood() local other = pool open() other.call.nap():cancel()" },
}

local ERROR = { code = 1, err = "on purpose", traceback = true }

--- How: what ends it. `pool`: there must be a pool. `waits`: for what was accepted, so that nothing
-- may be endless. `task`: a task does it. Without `code` it is 0, and nothing is on stderr.
local WAYS = {
  { name = "returning", text = "", drains = true },
  { name = "an error", text = "error 'on purpose'", expect = ERROR },
  { name = "an error object", text = "error(setmetatable({}, { __tostring = function() "
    .. "return 'on purpose' end }))", expect = { code = 1, err = "on purpose" } },
  { name = "os.exit", text = "os.exit(7)", expect = { code = 7 } },
  { name = "os.exit that closes", text = "os.exit(7, true)", expect = { code = 7 } },
  { name = "close", text = "pool:close() check()", pool = true, waits = true },
  { name = "close in time", text = "pool:close(PAUSE) check()", pool = true },
  { name = "terminate", text = "pool:terminate() check()", pool = true },
  { name = "terminate, close", text = "pool:terminate() pool:close() check()", pool = true },
  { name = "collecting", text = "pool, list = nil, {} collectgarbage() collectgarbage()",
    pool = true, drains = true },
  { name = "an error of a coroutine", drains = true,
    text = "assert(not treadle.spawn(error, 'in a coroutine'):pawait())" },
  { name = "close from a task", pool = true, task = true, drains = true, text =
    "local ok, v = to_worker('close'):pawait() assert(ok or v.kind == 'closed', v)" },
  { name = "terminate from a task", pool = true, task = true, text =
    "local ok, v = to_worker('terminate'):pawait() assert(ok or v.kind == 'closed', v) check()" },
  { name = "an error of a task", pool = true, task = true, expect = ERROR, text =
    "local _, e = to_worker('fail'):pawait() assert(e.kind == 'task' or e.kind == 'closed', e) "
      .. "error 'on purpose'" },
  { name = "os.exit of a task", pool = true, task = true, expect = { code = 7 }, text =
    "local _, e = to_worker('exit'):pawait() assert(e.kind == 'task' or e.kind == 'closed', e) "
      .. "os.exit(7, PICK % 2 == 0)" },
  { name = "leaving a pool of a task", pool = true, task = true, text =
    "local ok, v = to_worker('leave', PICK % 2 == 0):pawait() assert(ok or v.kind == 'closed', v) "
      .. "pool:terminate() pool:close() check()" },
  { name = "leaving a pool of a task at exit", pool = true, task = true, expect = { code = 7 },
    text = "to_worker('leave', PICK % 2 == 0) treadle.sleep(PAUSE) os.exit(7, true)" },
  { name = "Ctrl-C", signals = { SIGINT } },
  { name = "Ctrl-C twice", signals = { SIGINT, SIGINT } },
  { name = "Ctrl-C while it ends", signals = { SIGINT }, late = true,
    text = "if pool then pool:terminate() end" },
  { name = "SIGTERM", signals = { SIGTERM }, expect = { signal = SIGTERM } },
  { name = "a closed pipe", pool = true, drains = true, stdout = "pipe", text =
    "for i = 1, 1000 do to_worker('say', i) end" },
  { name = "standard output closed", pool = true, stdout = "closed", text =
    "for i = 1, 1000 do to_worker('say', i) end pool:close(PAUSE)" },
}

--- How a script that waits for a signal waits.
local IDLING = {
  "treadle.sleep(1000)", "treadle.future():await()", "while true do treadle.sleep(0) end",
  "while true do end", "jit.off() jit.flush() while true do end",
}

local function fits(way, moment, program)
  if moment.starting and way.pool or moment.busy and way.task or moment.endless and way.waits then
    return false
  end
  -- the command finishes what a script left
  return not (moment.endless and way.drains and program == "treadle")
end

--- All that may be combined, in an order that the seed gives, as often as it takes.
local function make_plan()
  local all, plan = {}, {}
  for _, way in ipairs(WAYS) do
    for _, moment in ipairs(MOMENTS) do
      for _, program in ipairs { "luajit", "treadle" } do
        for _, workers in ipairs { 1, 2, 8 } do
          if fits(way, moment, program) then
            all[#all + 1] = { way = way, moment = moment, program = program, workers = workers }
          end
        end
      end
    end
  end
  while #plan < CHILDREN do
    for i = #all, 2, -1 do
      local k = random(i)
      all[i], all[k] = all[k], all[i]
    end
    for i = 1, math.min(#all, CHILDREN - #plan) do
      local child = {}
      for key, value in pairs(all[i]) do
        child[key] = value
      end
      child.pick, child.pause = random(1000000), random(30) / 1000
      child.delay, child.idling = random(60) / 1000, IDLING[random(#IDLING)]
      child.gap = random(20) / 1000
      plan[#plan + 1] = child
    end
  end
  return plan, #all
end

local function name_of(child)
  return ("%s, %s, %s, %d workers"):format(child.way.name, child.moment.name, child.program,
    child.workers)
end

-- --- children ------------------------------------------------------------------------------------

local file_actions, attributes = ffi.new "exits_spawn", ffi.new "exits_spawn"
local signals = ffi.new "exits_spawn"
local status, pid, pipe = ffi.new "int[1]", ffi.new "int[1]", ffi.new "int[2]"

--- Start a program in a process group of its own; `stdout` is a path, "pipe" (nobody reads it) or
-- "closed".
local function spawn(words, stdout, stderr)
  local list = ffi.new("const char *[?]", #words + 1)
  for i, word in ipairs(words) do
    list[i - 1] = word
  end
  C.posix_spawn_file_actions_init(file_actions)
  C.posix_spawn_file_actions_addopen(file_actions, 0, "/dev/null", O_RDONLY, 0)
  C.posix_spawn_file_actions_addopen(file_actions, 2, stderr, O_CREATE_WRITE, 384)
  if stdout == "closed" then
    C.posix_spawn_file_actions_addclose(file_actions, 1)
  elseif stdout == "pipe" then
    assert(C.pipe2(pipe, O_CLOEXEC) == 0)
    C.close(pipe[0])
    C.posix_spawn_file_actions_adddup2(file_actions, pipe[1], 1)
  else
    C.posix_spawn_file_actions_addopen(file_actions, 1, stdout, O_CREATE_WRITE, 384)
  end
  C.posix_spawnattr_init(attributes)
  C.posix_spawnattr_setflags(attributes, SETPGROUP + SETSIGDEF + SETSIGMASK)
  C.posix_spawnattr_setpgroup(attributes, 0)
  C.sigfillset(signals)
  C.posix_spawnattr_setsigdefault(attributes, signals)
  C.sigemptyset(signals)
  C.posix_spawnattr_setsigmask(attributes, signals)
  local problem = C.posix_spawnp(pid, words[1], file_actions, attributes, list, C.environ)
  C.posix_spawn_file_actions_destroy(file_actions)
  C.posix_spawnattr_destroy(attributes)
  if stdout == "pipe" then
    C.close(pipe[1])
  end
  assert(problem == 0, "cannot start " .. words[1])
  return pid[0]
end

local now = require("treadle").now

--- What a child has of its own: numbers, and what it does.
local function numbers_of(child)
  return ("local MODULE, WORKERS, CALLS, PICK, PAUSE = %q, %d, %d, %d, %.3f\n"):format(
    child.moment.module or "exits_tasks", child.workers, CALLS, child.pick, child.pause)
end

local function actions_of(child)
  return child.moment.text .. "\n" .. (child.way.text or child.idling) .. "\n"
end

local function script_of(child, ready)
  return numbers_of(child) .. ([[
    local function READY() local f = io.open(%q, "w") f:write("x") f:close() end
  ]]):format(ready) .. PRELUDE .. actions_of(child)
end

local function start(child)
  child.ready, child.stderr = helpers.new_path ".ready", helpers.new_path ".err"
  child.script = helpers.write(helpers.new_path ".lua", script_of(child, child.ready))
  child.started = now()
  child.sent = 0
  child.pid = spawn({ "env", ("LUA_PATH=%s/?.lua;;"):format(helpers.scratch()), child.program,
    child.script }, child.way.stdout or "/dev/null", child.stderr)
end

--- What the threads of a child that hangs are doing.
local function autopsy(child)
  local list = { name_of(child) .. " hangs", numbers_of(child) .. actions_of(child) }
  local tasks = ("/proc/%d/task"):format(child.pid)
  for id in require("lfs").dir(tasks) do
    if id:match("^%d+$") then
      for _, what in ipairs { "comm", "wchan", "stack" } do
        list[#list + 1] = ("%s %s %s"):format(id, what,
          helpers.read(("%s/%s/%s"):format(tasks, id, what)))
      end
    end
  end
  local gdb = io.popen(("command -v gdb >/dev/null && timeout 20 gdb -batch -p %d "
    .. "-ex 'thread apply all bt 16' 2>&1"):format(child.pid))
  list[#list + 1] = gdb:read("*a")
  gdb:close()
  return table.concat(list, "\n")
end

--- Send the signals of the plan when their time has come.
local function signal(child)
  local list, time = child.way.signals, now()
  if not list then
    return
  elseif not child.at then
    if helpers.read(child.ready) ~= "" then
      child.at = time + child.delay
    end
  elseif time >= child.at then
    if child.sent < #list then
      child.sent = child.sent + 1
      C.kill(child.pid, list[child.sent])
      child.at = time + (child.sent < #list and child.gap or AGAIN)
      child.first = child.first or time
    elseif child.program == "luajit" then
      C.kill(child.pid, list[#list])
      child.at, child.again = time + AGAIN, true
    else
      child.at = math.huge
    end
  end
end

--- Whether stderr is as it may be: `allowed` are patterns of whole lines.
local function strange_line(text, allowed)
  for line in text:gmatch("[^\n]+") do
    local fine = false
    for _, pattern in ipairs(allowed) do
      fine = fine or line:match("^" .. pattern .. "$") ~= nil
    end
    if not fine then
      return line
    end
  end
end

--- An uncaught error: one line of message (a path before it), a traceback.
local TRACEBACK = { "[%l/]+: .*on purpose", "stack traceback:", "\t.*",
  "awaited at:" }
local INTERRUPTED = { "[%l/]+: .*interrupted!?", "stack traceback:", "\t.*",
  "treadle: a rejected future was dropped unseen: .*interrupted!?", "awaited at:" }

--- What is wrong with the end of a child, nil if nothing is.
local function verdict(child, code, by)
  local way, err = child.way, helpers.read(child.stderr)
  local expect = way.expect or { code = 0 }
  if way.signals and way.signals[1] == SIGINT then
    if child.program == "treadle" and by == 0 and (code == 130 or way.late and code == 0)
      or child.program == "luajit" and (by == SIGINT or by == 0 and (code == 1
        or way.late and code == 0)) then
      return strange_line(err, INTERRUPTED)
    end
    return "ended otherwise"
  elseif way.stdout == "pipe" and by == SIGPIPE then
    return strange_line(err, {})
  elseif expect.signal then
    return by ~= expect.signal and "not ended by the signal" or strange_line(err, {})
  elseif by ~= 0 or code ~= expect.code then
    return "ended otherwise"
  elseif expect.err then
    if not err:find(expect.err, 1, true) then
      return "no message"
    elseif expect.traceback and not err:find("stack traceback:", 1, true) then
      return "no traceback"
    end
    return strange_line(err, TRACEBACK)
  end
  return strange_line(err, {})
end

--- Look after a child; true when it is over.
local function step(child, failures)
  signal(child)
  if C.waitpid(child.pid, status, WNOHANG) == 0 then
    if now() - child.started > LIMIT then
      failures[#failures + 1] = autopsy(child)
      C.kill(-child.pid, SIGKILL)
      C.waitpid(child.pid, status, 0)
      return true
    end
    return false
  end
  local code, by = math.floor(status[0] / 256), status[0] % 128
  local problem = verdict(child, code, by)
  if C.kill(-child.pid, 0) == 0 then
    problem = "left a process behind"
    C.kill(-child.pid, SIGKILL)
  elseif status[0] % 256 >= 128 then
    problem = "dumped core"
  end
  if child.first then
    child.took = now() - child.first
  end
  if problem then
    failures[#failures + 1] = ("%s: %s (exit code %d, signal %d)\n%s\n%s%s"):format(
      name_of(child), problem, code, by, helpers.read(child.stderr), numbers_of(child),
      actions_of(child))
  end
  for _, path in ipairs { child.ready, child.stderr, child.script } do
    os.remove(path)
  end
  return true
end

local function run(children)
  local failures, running, next_child = {}, {}, 1
  while next_child <= #children or #running > 0 do
    while #running < AT_ONCE and next_child <= #children do
      start(children[next_child])
      running[#running + 1] = children[next_child]
      next_child = next_child + 1
    end
    for i = #running, 1, -1 do
      if step(running[i], failures) then
        table.remove(running, i)
      end
    end
    helpers.pause()
  end
  return failures
end

describe("the end of a process", function()
  local first_seed = seed
  local plan, combinations = make_plan()
  local by_way = {}
  for _, child in ipairs(plan) do
    by_way[child.way.name] = by_way[child.way.name] or {}
    table.insert(by_way[child.way.name], child)
  end
  io.write(("# TDL_SEED=%d: %d children of %d combinations\n"):format(first_seed, #plan,
    combinations))

  setup(function()
    helpers.module("exits_tasks", TASKS)
    helpers.module("exits_slow_tasks", SLOW_TASKS)
  end)

  teardown(helpers.clean)

  for _, way in ipairs(WAYS) do
    local children = by_way[way.name] or {}
    it(("by %s goes well (%d)"):format(way.name, #children), function()
      assert.equal("", table.concat(run(children), "\n"))
    end)
  end

  it("comes at the same moments for the same seed, at others for another", function()
    local function text_of(list)
      local texts = {}
      for i, child in ipairs(list) do
        texts[i] = ("%s %d %g %g %g"):format(name_of(child), child.pick, child.pause, child.delay,
          child.gap)
      end
      return table.concat(texts, "\n")
    end
    seed = first_seed
    assert.equal(text_of(plan), text_of((make_plan())))
    seed = first_seed + 1
    assert.not_equal(text_of(plan), text_of((make_plan())))
  end)
end)
