--- The processes of `treadle test`: so many at once, each with a file of specs. What each of them
-- tells and prints is kept until somebody takes it, file by file.
-- @module treadle.suite_run
local children = require "treadle.children" -- src/cli/children.c
local core = require "treadle.core"
local file = require "treadle.suite_file"
local wire = require "treadle.suite_wire"

local M = {}

--- What a file may print: an endless loop that prints fills no disk.
local OUTPUT_BYTES = 256 * 1024 * 1024

--- What was printed is kept in memory up to this size, once its process has ended.
local KEPT_BYTES = 1024 * 1024

--- Seconds between two looks at those that say nothing; at one that has said all that it will.
local LOOK_S, END_S = 0.05, 0.001

local STDOUT, STDERR = 1, 2

local SIGNALS = {
  [1] = "SIGHUP", [2] = "SIGINT", [3] = "SIGQUIT", [4] = "SIGILL", [5] = "SIGTRAP",
  [6] = "SIGABRT", [7] = "SIGBUS", [8] = "SIGFPE", [9] = "SIGKILL", [10] = "SIGUSR1",
  [11] = "SIGSEGV", [12] = "SIGUSR2", [13] = "SIGPIPE", [14] = "SIGALRM", [15] = "SIGTERM",
  [24] = "SIGXCPU", [25] = "SIGXFSZ", [31] = "SIGSYS",
}

--- How the events begin that are a test's failure, or an error.
local FAILURE, ERROR = "^n%d+:n%d+:s5:event{n1:s7:failure", "^n%d+:n%d+:s5:event{n1:s5:error"

local methods = {}
local mt = { __index = methods }

--- @tparam table options `jobs`: how many at once; `timeout`: seconds without a sign of life, 0 for
-- no limit; `words`: of the command that runs a Lua file; `request(path)`: for treadle.suite_file;
-- `lock`: a descriptor; `tick`: called now and then, with the run
-- @tparam table paths of the files, in the order in which they are wanted
function M.new(options, paths)
  local self = setmetatable({
    options = options, jobs = {}, nurseries = {}, running = {}, started = 0, ended = 0,
    problems = 0, is_one = children.is_one(),
  }, mt)
  for i, path in ipairs(paths) do
    self.jobs[i] = {
      path = path, records = {}, next_record = 1, last_record = 0, rest = "", printed = { 0, 0 },
    }
  end
  self:_fill()
  return self
end

-- --- starting ------------------------------------------------------------------------------------

local code

--- The Lua program of a nursery: its own bytecode, so that any LuaJIT can take it.
local function program()
  code = code or ("loadstring(%q)(loadstring(%q)())\n"):format(string.dump(file),
    string.dump(wire.make))
  return code
end

--- A nursery that has nothing to do; a new one if there is none.
local function find_nursery(self)
  for _, nursery in ipairs(self.nurseries) do
    if not nursery.job then
      return nursery
    end
  end
  local nursery, options = { rest = "" }, self.options
  nursery.pid, nursery.events, nursery.ends, nursery.requests =
    children.start(options.words, program(), options.lock)
  table.insert(self.nurseries, nursery)
  return nursery
end

local function start(self, job)
  local nursery = find_nursery(self)
  local out = children.scratch()
  local err = self.is_one and out or children.scratch()
  local request = self.options.request(job.path)
  request.command, request.out, request.err = children.pid(), out, err
  children.write(nursery.requests, wire.encode(request))
  nursery.job = job
  job.nursery, job.files = nursery, { out, not self.is_one and err or nil }
  job.begun = core.now()
  job.last = job.begun
  table.insert(self.running, job)
end

function methods:_fill()
  while #self.running < self.options.jobs and self.started < #self.jobs do
    self.started = self.started + 1
    start(self, self.jobs[self.started])
  end
end

-- --- what they tell ------------------------------------------------------------------------------

--- Read what is there of a child's events.
local function read_events(self, nursery)
  local bytes, job = children.read(nursery.events), nursery.job
  if not bytes or not job then
    return bytes
  end
  job.last = core.now()
  job.rest = wire.split(job.rest .. bytes, function(text)
    if not job.pid then
      job.pid = wire.decode(text)[4]
      return
    end
    job.last_record = job.last_record + 1
    job.records[job.last_record] = text
    if text:find(ERROR) or text:find(FAILURE) then
      self.problems = self.problems + 1
    end
  end)
  return bytes
end

-- --- how they end --------------------------------------------------------------------------------

local function ending(kind, number)
  if kind == "signal" then
    return "died of " .. (SIGNALS[number] or "signal " .. number)
  end
  return ("ended with exit code %d"):format(number)
end

--- Close its files, unless they are too large to be kept elsewhere.
local function settle_output(job)
  job.sizes = { children.size(job.files[1]), job.files[2] and children.size(job.files[2]) or 0 }
  if job.sizes[1] + job.sizes[2] <= KEPT_BYTES then
    job.texts = {}
    for i, fd in ipairs(job.files) do
      job.texts[i] = children.text(fd, job.sizes[i])
      children.close(fd)
    end
    job.files = nil
  end
end

local function remove(list, value)
  for i, other in ipairs(list) do
    if other == value then
      table.remove(list, i)
      return
    end
  end
end

--- A job is over: what it told, and how it ended, is all there.
local function finish(self, job, kind, exit_code)
  if job.killed and job.pid then
    children.kill(job.pid) -- what it has left behind
  end
  settle_output(job)
  job.is_over, job.over_at = true, core.now()
  job.exit_code = kind == "exit" and exit_code or nil
  if kind ~= "exit" or exit_code ~= 0 then
    job.ending = ending(kind, exit_code)
  end
  job.nursery.job = nil
  self.ended = self.ended + 1
  remove(self.running, job)
end

local function close(self, nursery)
  children.kill(nursery.pid)
  for _, fd in ipairs { nursery.events, nursery.ends, nursery.requests } do
    children.close(fd)
  end
  while not children.reap(nursery.pid) do
    children.wait({}, END_S)
  end
  remove(self.nurseries, nursery)
end

--- A nursery says that its child has ended; or it is gone itself, which a spec may have done.
local function read_ends(self, nursery)
  local bytes = children.read(nursery.ends)
  while #children.wait({ nursery.events }, 0) > 0 and read_events(self, nursery) do end
  if bytes then
    nursery.rest = wire.split(nursery.rest .. bytes, function(text)
      local kind, number = unpack(wire.decode(text))
      nursery.is_ready = true
      if kind ~= "ready" then
        finish(self, nursery.job, kind, number)
      end
    end)
    return
  end
  local job = nursery.job
  close(self, nursery)
  if job then
    job.problem = nursery.is_ready and "its parent process is gone" or nil
    finish(self, job, "exit", 1)
  end
end

--- End a job with all that it has started; before it has told its name, its nursery.
local function kill(job, why)
  job.killed = job.killed or why
  children.kill(job.pid or job.nursery.pid)
end

--- End one that hangs or prints without end.
local function check_limits(self, job)
  local timeout = self.options.timeout
  if timeout > 0 and core.now() - job.last > timeout then
    kill(job, ("hangs: nothing has happened for %g s (--timeout)"):format(timeout))
    return
  end
  local size = 0
  for _, fd in ipairs(job.files) do
    size = size + children.size(fd)
  end
  if size > OUTPUT_BYTES then
    kill(job, ("printed more than %d MiB"):format(OUTPUT_BYTES / 1024 / 1024))
  end
end

-- --- waiting -------------------------------------------------------------------------------------

--- Wait for a moment, or until one of them has told something or has ended.
function methods:_turn()
  local fds, of = {}, {}
  for _, nursery in ipairs(self.nurseries) do
    fds[#fds + 1], fds[#fds + 2] = nursery.events, nursery.ends
    of[nursery.events], of[nursery.ends] = nursery, nursery
  end
  local told = {}
  for _, fd in ipairs(children.wait(fds, LOOK_S)) do
    local nursery = of[fd]
    if nursery.job then
      told[nursery.job] = true
    end
    if fd == nursery.ends then
      read_ends(self, nursery)
    else
      read_events(self, nursery)
    end
  end
  for _, job in ipairs(self.running) do
    if not told[job] then
      check_limits(self, job)
    end
  end
  self:_fill()
  self.options.tick(self)
end

--- The next that a file has told, waiting for it.
-- @treturn table of what treadle.suite_file sent; nil when all is told, or a signal has come
function methods:next(job)
  while job.next_record > job.last_record do
    if job.is_over or children.caught() then
      return nil
    end
    self:_turn()
  end
  local at = job.next_record
  local text = job.records[at]
  job.records[at] = nil
  job.next_record = at + 1
  return wire.decode(text)
end

--- Print what a file has printed up to there, or all.
function methods:print(job, out, err)
  for stream, stop in ipairs { out or math.huge, err or math.huge } do
    local first = job.printed[stream]
    local to = stream == 1 and STDOUT or STDERR
    if stream == 2 and self.is_one then
      stop = first -- it is all in one
    elseif job.texts then
      stop = math.min(stop, job.sizes[stream])
      local target = to == STDOUT and io.stdout or io.stderr
      target:write(job.texts[stream]:sub(first + 1, stop))
    elseif job.files then
      stop = math.min(stop, children.size(job.files[stream]))
      children.copy(job.files[stream], first, stop, to)
    else
      stop = first
    end
    job.printed[stream] = math.max(first, stop)
  end
end

--- Forget what it has printed.
function methods.drop(_, job)
  for _, fd in ipairs(job.is_over and job.files or {}) do
    children.close(fd)
  end
  job.files, job.texts = nil, nil
end

--- End all that runs, and wait until it has ended.
function methods:stop()
  self.started = #self.jobs
  for _, job in ipairs(self.running) do
    kill(job, "interrupted")
  end
  while #self.running > 0 do
    self:_turn()
  end
  for i = #self.nurseries, 1, -1 do
    close(self, self.nurseries[i])
  end
end

return M
