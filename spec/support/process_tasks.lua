--- Tasks that do to their process what tasks can do: end it, stop it, take away what it lives on.
local ffi = require "ffi"
local treadle = require "treadle"

ffi.cdef [[
  int getpid(void);
  int getppid(void);
  int kill(int, int);
  int pause(void);
  int close(int);
  void exit(int);
  void _exit(int);
  int nice(int);
  int open(const char *, int, ...);
  long write(int, const void *, size_t);
  long read(int, void *, size_t);
]]

local M = {}

local SIGNALS = { KILL = 9, SEGV = 11, TERM = 15, STOP = 19, CONT = 18 }

local function append(path, text)
  local fd = ffi.C.open(path, 0x441, ffi.cast("int", 384)) -- O_WRONLY | O_CREAT | O_APPEND
  assert(fd >= 0 and ffi.C.write(fd, text, #text) == #text)
  ffi.C.close(fd)
end

function M.echo(...)
  return ...
end

function M.size(text)
  return #text
end

function M.pid()
  return ffi.C.getpid()
end

function M.niceness()
  return ffi.C.nice(0)
end

function M.id()
  return treadle.worker.id
end

function M.data()
  return treadle.worker.data
end

--- How often this state was asked.
function M.age()
  _G.spec_age = (_G.spec_age or 0) + 1
  return _G.spec_age
end

function M.boom(value)
  error(value)
end

function M.note(path, text)
  append(path, (text or "here") .. "\n")
  return text
end

local record

--- Write a number into this process's own file, in the folder that is the pool's data. Some take
-- a while then.
function M.record(number)
  record = record or ffi.C.open(("%s/%d"):format(treadle.worker.data, ffi.C.getpid()), 0x441,
    ffi.cast("int", 384))
  local line = number .. "\n"
  assert(ffi.C.write(record, line, #line) == #line)
  if number % 2 == 0 then
    treadle.sleep(0.001)
  end
  return number
end

function M.hold(gate, text)
  return require("tasks").hold(gate, text)
end

--- Say that it runs, and end the process, or stop it.
function M.die(signal, log)
  if log then
    append(log, "dies\n")
  end
  ffi.C.kill(ffi.C.getpid(), SIGNALS[signal])
  ffi.C.pause()
end

function M.crash()
  ffi.cast("volatile int *", 8)[0] = 1
end

function M.c_exit(code)
  ffi.C.exit(code)
end

function M.lua_exit(code)
  os.exit(code)
end

function M.close_descriptors()
  for fd = 0, 1023 do
    ffi.C.close(fd)
  end
  ffi.C.pause()
end

--- In C for ever, and no signal ends it.
function M.stuck(log)
  append(log, "stuck\n")
  while true do
    ffi.C.pause()
  end
end
jit.off(M.stuck)

function M.compute(log)
  append(log, "computes\n")
  local n = 0
  while true do
    n = n + 1
  end
end

function M.nap(log, seconds)
  append(log, "naps\n")
  treadle.sleep(seconds or 1000)
end

function M.fib(n)
  if n < 2 then
    return n
  end
  local call = treadle.worker.pool.call
  return call.fib(n - 1):await() + call.fib(n - 2):await()
end

--- A pool of its own, of threads or of processes.
function M.nested(runtime, n)
  return treadle.using(treadle.pool("process_tasks", { threads = 2, runtime = runtime,
    permissions = "unrestricted" }),
    function(pool)
      local list = {}
      for i = 1, n do
        list[i] = pool.call.echo(i)
      end
      local sum = 0
      for _, v in ipairs(treadle.all(list):await()) do
        sum = sum + v
      end
      return sum, pool.call.pid():await() == ffi.C.getpid()
    end)
end

function M.with_luv(n)
  local uv = require "luv"
  local f, resolve = treadle.future()
  local timer, turns = uv.new_timer(), 0
  timer:start(1, 1, function()
    turns = turns + 1
    if turns == n then
      timer:close()
      resolve(turns)
    end
  end)
  return f:await()
end

function M.hog()
  local list = {}
  while true do
    list[#list + 1] = ("x"):rep(65536) .. #list
  end
end

function M.print(text)
  print(text)
  io.stderr:write(text, "\n")
end

--- What a call brings to decode ends the process.
local poison = {}
poison.__index = poison
treadle.class("spec_poison", poison, function(p)
  return p.log
end, function(log)
  append(log, "unpacked\n")
  if not treadle.is_main then
    ffi.C.kill(ffi.C.getpid(), SIGNALS.KILL)
    ffi.C.pause()
  end
  return setmetatable({ log = log }, poison)
end)

function M.poison(log)
  return setmetatable({ log = log }, poison)
end

M.brief = treadle.task { fn = M.echo, timeout = 20 }

return M
