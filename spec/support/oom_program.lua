--- A host's program for the test that runs out of memory: a bit of everything.
local M = {}

local pool
local made, count = {}, 0
local endless, event

for i = 1, 100 do
  made[i] = false -- to keep one needs no memory
end

local function keep(f)
  count = count + 1
  made[count] = f
  return f
end

--- Whether an error may be the outcome of a refused request: a worker that cannot start for want
-- of memory ends the pool, and one that cannot end a late job loses its state, with other jobs.
local refusal

local function is_excused(text)
  return refusal and (text:find("memory", 1, true) or text:find("pool is closed", 1, true)
    or text:find("state was lost", 1, true))
end

--- The outcome of a future: what `check` says of its results, or an error for want of memory.
local function expect(f, check, kind)
  local ok, a, b = f:pawait()
  if ok then
    assert(check and check(a, b), "wrong results")
  elseif not (kind and a.kind == kind) and not is_excused(tostring(a)) then
    error("unexpected: " .. tostring(a), 0)
  end
end

local function is(expected)
  return function(value)
    return value == expected
  end
end

--- `refuse` begins to count requests, one of which is refused if `is_refused`.
function M.run(refuse, is_refused)
  refusal = is_refused
  local treadle = require "treadle"
  local Point = { __index = {} }
  treadle.class("oom.point", Point)
  refuse()
  pool = treadle.pool("oom_tasks", { threads = 2, concurrency = 4 })
  local call = pool.call
  local offset = 2
  local text = ("x"):rep(20000)
  local added = keep(call.add(20, 22))
  local big = keep(call.echo(text, 42))
  local list = keep(call.echo({ 1, 2, 3, { name = text }, [2.5] = true }))
  local failed = keep(call.fail())
  local failed_with_table = keep(call.fail_with_table())
  local late = keep(pool:run("wait", { 1e6 }, { timeout = 0.002 }))
  local default = keep(pool:run("wait", { 1e6 }, { timeout = 0.002, default = 7 }))
  endless = keep(call.wait(1e6))
  local nested = keep(call.fib(4))
  local broadcast = keep(pool:broadcast("add", 40, 2))
  local workers = keep(call.workers())
  local spawned_there = keep(call.spawned(5))
  local shipped = keep(pool:run(function(n) return n + offset end, { 40 }))
  local point = keep(call.point(1, 2))
  local chained = keep(call.add(1, 2):and_then(function(n)
    treadle.sleep(0)
    return call.add(n, 39)
  end))
  local caught = keep(call.fail():catch(function() return 42 end))
  local waited_for = keep(call.add(added, 0))
  local slept = keep(treadle.spawn(function()
    treadle.sleep(0.001)
    return 1, 2
  end))
  local spawned = keep(treadle.spawn(function()
    return call.add(20, 22):await()
  end))
  local raised = keep(treadle.spawn(function()
    error("wrong")
  end))
  event = treadle.event()
  local large = {}
  for i = 1, 300 do
    large[i] = i
  end
  local shared = treadle.shared {
    1, 2, large = large, inner = { {} }, event = event, f = function() return offset end,
  }
  local handles = keep(call.echo(event, { shared, event, shared.inner }))
  local looked = keep(call.look(shared))
  local waited = keep(call.wait_for(event))
  local waited_here = keep(treadle.spawn(function()
    event:wait()
    return shared.inner[1]
  end))
  event:set()
  local all = keep(treadle.all { added, keep(call.add(1, 1)), a = keep(call.add(2, 1)) })
  local any = keep(treadle.any { keep(call.fail()), keep(call.add(21, 21)) })
  local settled = keep(treadle.all_settled { failed, added })
  endless:cancel()
  expect(added, is(42))
  expect(big, function(a, b) return a == text and b == 42 end)
  expect(list, function(t) return #t == 4 and t[4].name == text and t[2.5] end)
  expect(failed, nil, "task")
  expect(failed_with_table, nil, "task")
  expect(late, nil, "timeout")
  expect(default, is(7))
  expect(endless, nil, "cancelled")
  expect(nested, is(3))
  expect(broadcast, function(t) return t[1] == 42 and t[2] == 42 end)
  expect(workers, is(42))
  expect(spawned_there, is(15))
  expect(shipped, is(42))
  expect(point, function(p) return getmetatable(p) == Point and p.x == 1 and p.y == 2 end)
  expect(chained, is(42))
  expect(caught, is(42))
  expect(waited_for, is(42))
  expect(slept, function(a, b) return a == 1 and b == 2 end)
  expect(spawned, is(42))
  expect(raised, nil, "task")
  expect(all, function(t) return t[1] == 42 and t[2] == 2 and t.a == 3 end)
  expect(any, is(42), refusal and "task")
  expect(settled, function(t) return not t[1].ok and (t[2].value == 42 or not t[2].ok) end)
  expect(handles, function(a, b)
    return rawequal(a, event) and rawequal(b[1], shared) and rawequal(b[2], event)
      and rawequal(b[3], shared.inner)
  end)
  expect(looked, function(n, e) return n == 2 + 299 + 2 + 300 + 3 and rawequal(e, event) end)
  expect(waited, is(true))
  expect(waited_here, function(t) return rawequal(t, shared.inner[1]) end)
  for f in treadle.as_completed { a = keep(call.add(1, 2)), b = keep(call.add(3, 4)) } do
    assert(f == "a" or f == "b")
  end
  local text_sent = treadle.encode({ 1, 2, 3, { text } }, Point.__index)
  assert(treadle.decode(text_sent)[4][1] == text)
  pool:close()
end

--- There is memory again: every future is settled, and the pool ends.
function M.settle()
  local treadle = require "treadle"
  if endless then
    endless:cancel()
  end
  if event then
    event:set()
  end
  if pool then
    pool:close()
  end
  for i = 1, count do
    made[i]:wait()
    assert(made[i]:state() ~= "pending")
  end
  pool, event, made, count = nil, nil, {}, 0
  local other = treadle.pool("oom_tasks", { threads = 1 })
  assert(other.call.add(1, 2):await() == 3)
  assert(treadle.run(function()
    treadle.sleep(0)
    return other.call.fib(5):await()
  end) == 5)
  other:close()
end

return M
