--- Parallel loops beside the same loop without them, in one run.
-- @module loops
local ffi = require "ffi"
local limits = require "limits"

local N = 10e6
local CHEAP = 1000

--- Compiled anew, so that no loop runs on traces recorded for another.
local PLAIN = [[
  local fn = ...
  return function(list, results)
    for i = 1, #list do results[i] = fn(list[i]) end
    return results
  end]]
local OVER = [[
  local fn = ...
  return function(first, last)
    for i = first, last do fn(i) end
  end]]

local function timed(fn)
  local start = limits.now()
  fn()
  return limits.now() - start
end

--- The best of some batches, per turn: the machine's other work only adds.
local function per_turn(fn, turns)
  local best = math.huge
  for _ = 1, 20 do
    best = math.min(best, timed(function()
      for _ = 1, turns do fn() end
    end) / turns)
  end
  return best
end

local function cheap(treadle, rounds, emit)
  local function item(x)
    return math.sin(x) * math.cos(x) + math.sqrt(math.abs(math.sin(x + 1)))
  end
  local list = {}
  for i = 1, CHEAP do list[i] = i end
  local plain = loadstring(PLAIN)(item)
  local function alone() plain(list, {}) end
  local function loop() treadle.pmap(item, list):await() end
  per_turn(alone, 10)
  per_turn(loop, 10)
  for _ = 1, rounds do
    emit("loop.cheap.plain", per_turn(alone, 10))
    emit("loop.cheap", per_turn(loop, 10))
  end
end

local function fill(p)
  for i = 0, N - 1 do p[i] = i / N end
end

local function compute(treadle, rounds, emit, buffer)
  local p = buffer.ptr
  local function body(i)
    local q = buffer.ptr
    q[i] = math.sin(q[i]) * math.exp(q[i])
  end
  local alone = loadstring(OVER)(body)
  fill(p)
  alone(0, N - 1)
  treadle.pfor(0, N - 1, body):await()
  for _ = 1, rounds do
    fill(p)
    emit("loop.compute.plain", timed(function() alone(0, N - 1) end))
    fill(p)
    emit("loop.compute", timed(function() treadle.pfor(0, N - 1, body):await() end))
  end
end

local function memory(treadle, rounds, emit, buffer)
  local function body(i)
    local q = buffer.ptr
    q[i] = 0.5 * q[i] + 1
  end
  treadle.pfor(0, N - 1, body):await()
  for _ = 1, rounds do
    emit("loop.memory.threads", limits.scale(buffer.ptr, N, 2))
    emit("loop.memory", timed(function() treadle.pfor(0, N - 1, body):await() end))
  end
end

local function sorting(treadle, rounds, emit, buffer)
  local given, p = ffi.new("double[?]", N), buffer.ptr
  for i = 0, N - 1 do given[i] = math.random() - 0.5 end
  local function again() ffi.copy(p, given, N * 8) end
  local function sort(concurrency)
    treadle.psort(buffer, nil, { concurrency = concurrency }):await()
  end
  again()
  sort()
  for _ = 1, rounds do
    again()
    emit("sort.two", timed(sort))
    again()
    emit("sort.one", timed(function() sort(1) end))
    again()
    emit("sort.qsort", limits.qsort(p, N))
  end
end

return function(plan, emit)
  local treadle = require "treadle"
  local rounds = plan.rounds > 5 and 5 or 2
  treadle.pmap(function() return require("treadle").version end, { 1, 2 }):await()
  cheap(treadle, 3 * rounds, emit)
  local buffer = treadle.buffer("double", N)
  compute(treadle, rounds, emit, buffer)
  memory(treadle, 3 * rounds, emit, buffer)
  sorting(treadle, rounds, emit, buffer)
end
