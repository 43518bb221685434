--- The tasks of stream_spec.
local stop_tasks = require "stop_tasks"
local treadle = require "treadle"

local M = {}

--- Emits 1 to n: how many of them were wanted.
function M.count(n)
  for i = 1, n do
    if not treadle.emit(i) then
      return i - 1
    end
  end
  return n
end

--- The same; `begun` counts the values, each before it is emitted.
function M.counted(n, begun, value)
  for i = 1, n do
    begun:add(1)
    treadle.emit(value or i)
  end
end

function M.emit_all(...)
  for i = 1, select("#", ...) do
    assert(treadle.emit((select(i, ...))) == true)
  end
end

local ends = {}

function ends.result()
  return "result"
end

function ends.error()
  error({ code = 7 })
end

function ends.wait()
  treadle.sleep(1000)
end

function ends.compute()
  while true do end
end

function ends.stuck()
  return stop_tasks.stuck(nil, 21)
end

--- Emits 1 to n, sets `entered`, ends in that way.
function M.produce(n, how, entered)
  for i = 1, n do
    treadle.emit(i)
  end
  if entered then
    entered:set()
  end
  return ends[how]()
end

--- Emits until it cannot: puts what ended that into the channel, and the same for what is emitted
-- after it.
function M.until_refused(outcomes, entered)
  local i, ok, result = 0, true, true
  while ok and result do
    i = i + 1
    if entered and i == 1 then
      treadle.spawn(function() -- runs when the loop of this state turns: emit waits
        treadle.sleep(0)
        entered:set()
      end)
    end
    ok, result = pcall(treadle.emit, i)
  end
  outcomes:send(ok and "unwanted" or result.kind)
  ok, result = pcall(treadle.emit, 0)
  outcomes:send(ok and "unwanted" or result.kind)
end

function M.emit_bad(what)
  local ok, err
  if what == "nil" then
    ok, err = pcall(function() treadle.emit(nil) end)
  elseif what == "large" then
    ok, err = pcall(treadle.emit, ("x"):rep(2000))
  elseif what == "large table" then
    ok, err = pcall(treadle.emit, { ("x"):rep(2000) })
  else
    ok, err = pcall(treadle.emit, { coroutine.create(print) })
  end
  treadle.emit("after")
  return ok, type(err) == "table" and err.kind or "", type(err) == "table" and err.message or err
end

--- Emits until nobody wants it, and goes on with something else.
function M.until_unwanted(unwanted)
  while treadle.emit(0) do end -- luacheck: ignore
  unwanted:set()
  treadle.sleep(1000)
end

--- From coroutines of its own, which take turns.
function M.from_coroutines(n)
  local list = {}
  for i = 1, n do
    list[i] = treadle.spawn(function()
      treadle.sleep(0)
      assert(treadle.emit(i))
    end)
  end
  treadle.all(list):await()
end

--- Leaves a coroutine behind that emits later: puts what becomes of that into the channel.
function M.leave_behind(outcomes, go)
  treadle.spawn(function()
    go:wait()
    local ok, err = pcall(treadle.emit, 1)
    outcomes:send(ok or err)
  end)
  return "left"
end

function M.twice(n)
  return 2 * n
end

--- Passes on what another call emits, with a further call for each.
function M.relay(n)
  local call, sum = treadle.worker.pool.call, 0
  for v in call.count(n):stream() do
    local twice = call.twice(v):await()
    sum = sum + twice
    treadle.emit(twice)
  end
  return sum
end

function M.read_and_fail(waits)
  for _ in treadle.worker.pool.call.count(1e9):stream() do
    if waits then
      treadle.sleep(0)
    end
    error "enough of it"
  end
end

--- The same by a coroutine that outlives the job.
function M.leave_reader(n)
  treadle.spawn(function(next_value) -- no upvalue: those live as long as compiled code
    for _ = 1, n do
      next_value()
      treadle.sleep(0)
    end
  end, treadle.worker.pool.call.count(1e9):stream())
  return "left"
end

function M.emit_several()
  treadle.emit(1, nil, "three")
  treadle.emit(2)
  treadle.emit(3, "b", nil)
  return "sent"
end

--- Calls within calls that all emit.
function M.tree(depth)
  if depth == 0 then
    for i = 1, 300 do
      treadle.emit(i)
    end
    return
  end
  local call = treadle.worker.pool.call
  local a, b = call.tree(depth - 1), call.tree(depth - 1)
  local from_a, from_b = a:stream(), b:stream()
  for v in from_a do
    treadle.emit(v)
  end
  for v in from_b do
    treadle.emit(v)
  end
end

--- Emits, then dies with its worker's state; not more often than `deaths`.
function M.mortal(log, deaths, entered)
  local file = assert(io.open(log, "a"))
  file:write("here\n")
  file:close()
  local n = 0
  for _ in io.lines(log) do
    n = n + 1
  end
  treadle.emit("attempt " .. n)
  if n <= deaths then
    entered:set()
    treadle.sleep(1000)
  end
  return "done"
end

return M
