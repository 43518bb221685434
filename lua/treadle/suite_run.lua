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
    options = options, jobs = {}, running = {}, started = 0, ended = 0, problems = 0,
    is_one = children.is_one(),
  }, mt)
  for i, path in ipairs(paths) do
    self.jobs[i] = { path = path, records = {}, next_record = 1, last_record = 0,
      rest = "", printed = { 0, 0 } }
  end
  self:_fill()
  return self
end

-- --- starting ------------------------------------------------------------------------------------

local codes

--- A Lua program that runs the file: its own bytecode, so that any LuaJIT can take it.
local function program(request)
  codes = codes or { string.dump(wire.make), string.dump(file) }
  return ("local wire = loadstring(%q)()\nloadstring(%q)(wire.decode(%q)[1], wire)\n"):format(
    codes[1], codes[2], wire.encode(request):match("^%d+:(.*)$"))
end

local function start(self, job)
  local options = self.options
  local words = { unpack(options.words) }
  words[#words + 1] = job.path -- for those who look at a list of processes
  local ok, pid, events, out, err = pcall(children.start, words,
    program(options.request(job.path)), self.is_one, options.lock)
  if not ok then
    job.is_over, job.problem = true, pid
    self.ended = self.ended + 1
    return
  end
  job.pid, job.events, job.files = pid, events, { out, err }
  job.begun = core.now()
  job.last = job.begun
  self.running[#self.running + 1] = job
end

function methods:_fill()
  while #self.running < self.options.jobs and self.started < #self.jobs do
    self.started = self.started + 1
    start(self, self.jobs[self.started])
  end
end

-- --- what they tell ------------------------------------------------------------------------------

local function take(self, job, bytes)
  job.last = core.now()
  job.rest = wire.split(job.rest .. bytes, function(text)
    job.last_record = job.last_record + 1
    job.records[job.last_record] = text
    if text:find(ERROR) or text:find(FAILURE) then
      self.problems = self.problems + 1
    end
  end)
end

--- Read what is there, without waiting for more: whoever the file left behind may hold the pipe.
local function read(self, job)
  local bytes = children.read(job.events)
  if bytes then
    take(self, job, bytes)
  else
    job.is_silent = true
  end
end

local function read_rest(self, job)
  while not job.is_silent and #children.wait({ job.events }, 0) > 0 do
    read(self, job)
  end
end

-- --- how they end --------------------------------------------------------------------------------

local function ending(kind, code)
  if kind == "signal" then
    return "died of " .. (SIGNALS[code] or "signal " .. code)
  end
  return ("ended with exit code %d"):format(code)
end

--- Close its files, unless they are too large to be kept elsewhere.
local function settle_output(self, job)
  job.sizes = { children.size(job.files[1]), self.is_one and 0 or children.size(job.files[2]) }
  if job.sizes[1] + job.sizes[2] <= KEPT_BYTES then
    job.texts = { children.text(job.files[1], job.sizes[1]),
      children.text(job.files[2], job.sizes[2]) }
    children.close(job.files[1])
    children.close(job.files[2])
    job.files = nil
  end
end

local function finish(self, job, kind, code)
  read_rest(self, job)
  children.close(job.events)
  if job.killed then
    children.kill(job.pid) -- what it has left behind
  end
  settle_output(self, job)
  job.is_over = true
  job.exit_code = kind == "exit" and code or nil
  if kind ~= "exit" or code ~= 0 then
    job.ending = ending(kind, code)
  end
  self.ended = self.ended + 1
end

local function kill(job, why)
  job.killed = job.killed or why
  children.kill(job.pid)
end

--- End one that hangs or prints without end.
local function check_limits(self, job)
  local timeout = self.options.timeout
  if timeout > 0 and core.now() - job.last > timeout then
    kill(job, ("hangs: nothing has happened for %g s (--timeout)"):format(timeout))
  elseif children.size(job.files[1]) + children.size(job.files[2]) > OUTPUT_BYTES then
    kill(job, ("printed more than %d MiB"):format(OUTPUT_BYTES / 1024 / 1024))
  end
end

-- --- waiting -------------------------------------------------------------------------------------

--- Wait for a moment, or until one of them has told something or has ended.
function methods:_turn()
  local fds, of, pause = {}, {}, LOOK_S
  for _, job in ipairs(self.running) do
    if job.is_silent then
      pause = END_S
    else
      fds[#fds + 1] = job.events
      of[job.events] = job
    end
  end
  for _, fd in ipairs(children.wait(fds, pause)) do
    read(self, of[fd])
    of[fd] = nil
  end
  local left = {}
  for _, job in ipairs(self.running) do
    local kind, code = children.reap(job.pid)
    if kind then
      finish(self, job, kind, code)
    else
      left[#left + 1] = job
      if job.is_silent or of[job.events] then
        check_limits(self, job)
      end
    end
  end
  self.running = left
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
  for stream, stop in ipairs { out or math.huge, self.is_one and 0 or err or math.huge } do
    local first = job.printed[stream]
    local to = stream == 1 and STDOUT or STDERR
    if job.texts then
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
function methods:drop(job)
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
end

return M
