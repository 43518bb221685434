--- Tasks that use their own pool, for the specs of workers in processes.
local treadle = require "treadle"

local M = {}

local function own()
  return treadle.worker.pool
end

--- Whether a file is there. Without the helpers: they need more than a strict worker may have.
local function is_there(path)
  local file = io.open(path)
  if file then
    file:close()
  end
  return file ~= nil
end

local function note(log, text)
  local file = assert(io.open(log, "a"))
  file:write(text, "\n")
  file:close()
end

M.note = note

function M.fib(n)
  if n < 2 then
    return n
  end
  local a, b = own().call.fib(n - 1), own().call.fib(n - 2)
  return a:await() + b:await()
end

function M.id()
  return treadle.worker.id
end

function M.echo(...)
  return ...
end

function M.ids(n, opts)
  local list = {}
  for i = 1, n do
    list[i] = own():run("id", {}, opts and opts[i])
  end
  return treadle.all(list):await()
end

function M.size()
  return own().threads
end

function M.boom(text)
  error(text)
end

--- What became of a call of that task.
function M.outcome_of(task, args, opts)
  local f = own():run(task, args, opts)
  local ok, err = f:pawait()
  if ok then
    return "done", err
  end
  return err.kind, err.message, err.traceback, err.worker
end

--- Wait, without computing, until the gate is there.
function M.hold(log, gate)
  note(log, "started")
  local ok, err = pcall(function()
    while not is_there(gate) do
      treadle.sleep(0.001)
    end
  end)
  note(log, ok and "done" or "ended: " .. err.message)
end

--- Hold in another call, and wait for that.
function M.hold_below(log, gate)
  own().call.hold(log, gate):await()
end

--- The same, twice after another in a coroutine that this job leaves behind.
function M.leave(log, gate)
  treadle.spawn(function()
    own().call.hold(log, gate):await()
    own().call.note(log, "again"):await()
  end)
end

--- Die with a call under way in another worker.
function M.die_above(log, gate, trigger)
  own():run("hold", { log, gate }, { worker = 3 - treadle.worker.id })
  while not is_there(trigger) do
    treadle.sleep(0.001)
  end
  local ffi = require "ffi"
  ffi.cdef "void abort(void);"
  ffi.C.abort()
end

--- Many calls with arguments and results of that size: their sum.
function M.many(n, size)
  local list = {}
  for i = 1, n do
    list[i] = own().call.echo(("x"):rep(size), i)
  end
  local sum = 0
  for i = 1, n do
    local text, number = list[i]:await()
    assert(#text == size)
    sum = sum + number
  end
  return sum
end

function M.with_channel()
  return M.outcome_of("echo", { treadle.channel(1) })
end

--- Have another worker fill a shared buffer, which comes back, too; many times.
function M.share(n)
  local buf = treadle.buffer("int", n, { process = true })
  for i = 0, n - 1 do
    local got, same = own():run("fill", { buf, i }, { worker = 3 - treadle.worker.id }):await()
    assert(same and got:get(i) == i)
  end
  local sum = 0
  for i = 0, n - 1 do
    sum = sum + buf:get(i)
  end
  return sum
end

function M.fill(buf, i)
  buf:set(i, i)
  return buf, true
end

function M.method(name, ...)
  local pool = own()
  return pcall(pool[name], pool, ...)
end

function M.cancel_pending(reason)
  local list = {}
  for i = 1, 3 do
    list[i] = own():run("echo", { i }, { worker = 3 - treadle.worker.id })
  end
  local count = own():cancel_pending(reason)
  local kinds = {}
  for i, f in ipairs(list) do
    kinds[i] = (select(2, f:pawait())).message
  end
  return count, kinds
end

function M.resize(n)
  own():resize(n):await()
  return own().threads
end

function M.close_and_call(n)
  own():close()
  return own().call.echo(n):await()
end

function M.terminate(reason)
  own():terminate(reason)
  own().call.echo(1):await()
end

--- Calls of the own pool before the worker has started.
function M.too_early()
  own().call.echo(1)
end

return M
