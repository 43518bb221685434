--- Locks, events, barriers, counters and atomics under eight states: many short histories, each of
-- which must have been possible one call after the other (support/linear.lua).
local linear = require "linear"
local treadle = require "treadle"

local STATES = 8

local seed = tonumber(os.getenv "TDL_SEED") or os.time() % 1e6
print("# TDL_SEED=" .. seed)

local models = linear.models

local ALL = 0x3fffffff

local kinds = {
  { name = "mutex", model = models.lock(1), make = treadle.mutex },
  { name = "rwlock", model = models.lock(ALL, true), make = treadle.rwlock },
  { name = "semaphore", model = models.lock(3), make = function() return treadle.semaphore(3) end },
  { name = "event", model = models.event(), make = treadle.event },
  { name = "counter", model = models.integer(0), make = treadle.counter },
  { name = "atomics", model = models.integer(0),
    make = function() return treadle.buffer("int32_t", 1) end },
  { name = "waits", model = models.integer(0),
    make = function() return treadle.buffer("uint8_t", 1) end },
  { name = "barrier", model = models.barrier(3), make = function() return treadle.barrier(3) end },
}

--- So many histories, by so many states with so many processes each. To search all orders in vain
-- takes long: those that are broken on purpose are small.
local SHAPES = {
  { histories = 40, states = STATES, processes = 1, calls = 5 },
  { histories = 20, states = STATES / 2, processes = 2, calls = 5 },
  { histories = 40, states = 3, processes = 1, calls = 6, is_small = true },
}

--- Have all states make them: a list of histories.
local function recorded(pool, kind, shape)
  local things, together, futures = {}, treadle.barrier(shape.states), {}
  for h = 1, shape.histories do
    things[h] = kind.make()
  end
  for id = 1, shape.states do
    futures[id] = pool:run("take_part", { kind.name, things, together, shape.processes, shape.calls,
      seed + 104729 * id }, { worker = id })
  end
  local histories = {}
  for h = 1, shape.histories do
    histories[h] = {}
  end
  local parts = treadle.all(futures):await()
  for id = 1, shape.states do
    for h, processes in ipairs(parts[id]) do
      for _, process in ipairs(processes) do
        table.insert(histories[h], process)
      end
    end
  end
  return histories
end

--- What makes a history impossible, whatever else is in it: by kind, what returns a broken copy, or
-- nothing where the history has no place for it.
local mutants = {}

local function copy(history, change)
  local new, done = {}, false
  for p, process in ipairs(history) do
    new[p] = {}
    for _, one in ipairs(process) do
      local changed = { n = not done and change(one) or nil }
      if changed.n == nil then
        table.insert(new[p], one)
      else
        done = true
        if changed.n ~= "gone" then
          table.insert(new[p], changed.n)
        end
      end
    end
  end
  return done and new or nil
end

local function with(one, field, value)
  local new = {}
  for k, v in pairs(one) do
    new[k] = v
  end
  new[field] = value
  return new
end

--- Whether a call that `is` begins when that one is over.
local function is_followed(history, one, is)
  for _, process in ipairs(history) do
    for _, other in ipairs(process) do
      if other.began > one.ended and is(other) then
        return true
      end
    end
  end
end

local function is_taking(one)
  return one.op == "take" and one.ok
end

local function any(history, is)
  for _, process in ipairs(history) do
    for _, one in ipairs(process) do
      if is(one) then
        return true
      end
    end
  end
end

--- A lock of one unit that is never given back, and taken again.
mutants["a unit that was not given back"] = { mutex = function(history)
  return copy(history, function(one)
    return one.op == "give" and is_followed(history, one, is_taking) and "gone"
  end)
end }

mutants["a lock that two have"] = { mutex = function(history)
  return copy(history, function(one)
    return one.op == "take" and not one.ok and is_followed(history, one, is_taking)
      and with(one, "ok", true)
  end)
end }

local function told_of_nobody(history)
  return not any(history, function(one) return one.dead end) and copy(history, function(one)
    return is_taking(one) and with(one, "told", true)
  end)
end

mutants["a dead holder that was none"] = { mutex = told_of_nobody, rwlock = told_of_nobody,
  semaphore = told_of_nobody }

--- Nobody took anything: then nobody has to be told, and all that is refused is wrong.
local function all_refused(history)
  local broken
  for p in ipairs(history) do
    local only = {}
    for q, process in ipairs(history) do
      only[q] = {}
      for _, one in ipairs(process) do
        if q == p and one.op == "take" and not one.ok then
          only[q] = { one }
          broken = only
        end
      end
    end
  end
  return broken
end

mutants["a free lock that was refused"] = { mutex = all_refused, rwlock = all_refused,
  semaphore = all_refused }

mutants["a flag that nobody has set"] = { event = function(history)
  local unset, seen = {}, false
  for p, process in ipairs(history) do
    unset[p] = {}
    for _, one in ipairs(process) do
      if one.op ~= "set" then
        table.insert(unset[p], one)
        seen = seen or one.ok
      end
    end
  end
  return seen and unset
end }

local function odd_result(history)
  return copy(history, function(one)
    return one.op ~= "set" and type(one.result) == "number" and with(one, "result", 7e7)
  end)
end

mutants["a number that was never there"] = { counter = odd_result, atomics = odd_result }

mutants["a wake-up that nobody gave"] = { waits = function(history)
  local quiet, seen = {}, false
  for p, process in ipairs(history) do
    quiet[p] = {}
    for _, one in ipairs(process) do
      if one.op ~= "notify" then
        table.insert(quiet[p], one)
        seen = seen or one.result == "ok"
      end
    end
  end
  return seen and quiet
end }

mutants["a wake-up that nobody had"] = { waits = function(history)
  return copy(history, function(one)
    return one.op == "notify" and one.result < 3 and with(one, "result", one.result + 1)
  end)
end }

mutants["one who goes on alone"] = { barrier = function(history)
  return copy(history, function(one)
    return one.ok and with(one, "ok", false)
  end)
end }

mutants["a number that two have"] = { barrier = function(history)
  return copy(history, function(one)
    return one.ok and with(one, "number", one.number % 3 + 1)
  end)
end }

describe("eight states", function()
  local pool

  setup(function() pool = treadle.pool("linear_tasks", { threads = STATES }) end)
  teardown(function()
    pool:terminate()
    pool:close()
  end)

  for _, kind in ipairs(kinds) do
    it("make histories that are possible: " .. kind.name, function()
      local overlaps, calls, refuted = 0, 0, {}
      for _, shape in ipairs(SHAPES) do
        for _, history in ipairs(recorded(pool, kind, shape)) do
          assert.is_nil(linear.fault(history, kind.model))
          overlaps = overlaps + linear.overlaps(history)
          for _, process in ipairs(history) do
            calls = calls + #process
          end
          for name, of in pairs(mutants) do
            local mutant = shape.is_small and of[kind.name] and of[kind.name](history)
            if mutant then
              local fault = linear.fault(mutant, kind.model) or "possible"
              assert.is_true(fault:sub(1, 10) == "impossible", name .. ": " .. fault)
              refuted[name] = (refuted[name] or 0) + 1
            end
          end
        end
      end
      assert.is_true(calls > 0)
      local text = {}
      for name, n in pairs(refuted) do
        text[#text + 1] = ("; %s: %d refuted"):format(name, n)
      end
      table.sort(text)
      print(("# %s: %d calls, %d overlap others%s"):format(kind.name, calls, overlaps,
        table.concat(text)))
    end)
  end
end)

-- --- the checker ---------------------------------------------------------------------------------

--- A history of calls `{ process, record, began, ended, came }`; without times one after the other.
local function history(list)
  local new = { {}, {}, {}, {} }
  for i, call in ipairs(list) do
    local record = call[2]
    record.began, record.ended, record.came = call[3] or i, call[4] or i + 0.5, call[5]
    table.insert(new[call[1]], record)
  end
  return new
end

local function possible(model, list)
  assert.is_nil(linear.fault(history(list), model))
end

local function impossible(model, list)
  assert.matches("^impossible", linear.fault(history(list), model) or "possible")
end

local function take(ok, told, units)
  return { op = "take", ok = ok, told = told or false, waits = true, units = units or 1 }
end

local function try(ok, units)
  return { op = "take", ok = ok, told = false, waits = false, units = units or 1 }
end

local function give(units, dead)
  return { op = "give", units = units or 1, dead = dead }
end

describe("the check of histories of locks", function()
  local mutex, semaphore, rwlock = models.lock(1), models.lock(2), models.lock(ALL, true)

  it("accepts what is possible", function()
    possible(mutex, { { 1, take(true) }, { 1, give() }, { 2, take(true) } })
    possible(mutex, { { 1, take(true), 1, 9 }, { 2, take(true), 1, 19 }, { 1, give(), 10, 11 } })
    possible(mutex, { { 1, take(true), 1, 2 }, { 2, take(true), 3, 9 }, { 1, give(), 5, 6 } })
    possible(mutex, { { 1, take(true), 1, 2 }, { 2, take(false), 3, 9 }, { 1, give(), 5, 6 } })
    possible(semaphore, { { 1, take(true) }, { 2, take(true) }, { 3, try(false) }, { 1, give() },
      { 3, try(true) } })
    possible(rwlock, { { 1, take(true) }, { 2, try(true) }, { 3, try(false, ALL) } })
  end)

  it("finds two holders, and a unit too many", function()
    impossible(mutex, { { 1, take(true) }, { 2, take(true) } })
    impossible(mutex, { { 1, take(true) }, { 2, try(true) }, { 1, give() } })
    impossible(mutex, { { 1, give() } })
    impossible(semaphore, { { 1, take(true) }, { 2, take(true) }, { 3, try(true) } })
    impossible(rwlock, { { 1, take(true) }, { 2, take(true, false, ALL) } })
    impossible(rwlock, { { 1, take(true, false, ALL) }, { 2, try(true) } })
  end)

  it("finds what is refused though it is free", function()
    impossible(mutex, { { 1, try(false) } })
    impossible(mutex, { { 1, take(true) }, { 1, give() }, { 2, take(false) } })
    impossible(semaphore, { { 1, take(true) }, { 2, try(false) } })
    impossible(rwlock, { { 1, take(true) }, { 2, try(false) } })
  end)

  it("finds who is not served though it waits", function()
    -- 2 still stands there when all is free: else 3 would not be refused
    impossible(rwlock, { { 1, take(true), 1, 2 }, { 2, take(false, false, ALL), 3, 20 },
      { 1, give(), 10, 11 }, { 3, try(false), 12, 13 } })
    possible(rwlock, { { 1, take(true), 1, 2 }, { 2, take(false, false, ALL), 3, 20 },
      { 3, try(false), 8, 9 }, { 1, give(), 10, 11 }, { 3, try(true), 12, 13 } })
  end)

  it("finds who was overtaken", function()
    -- 2 stands in the queue when 3 comes: a try of 4's in between was refused because of it alone
    impossible(rwlock, { { 1, take(true), 1, 2 }, { 2, take(true, false, ALL), 3, 20 },
      { 4, try(false), 4, 5 }, { 3, take(true), 6, 7 }, { 1, give(), 8, 9 }, { 3, give(), 10, 11 },
      { 2, give(ALL), 21, 22 } })
    possible(rwlock, { { 1, take(true), 1, 2 }, { 2, take(true, false, ALL), 3, 20 },
      { 4, try(false), 4, 5 }, { 3, take(true), 6, 30 }, { 1, give(), 8, 9 },
      { 2, give(ALL), 21, 22 }, { 3, give(), 31, 32 } })
  end)

  it("finds who was overtaken by one who only tried", function()
    impossible(rwlock, { { 1, take(true), 1, 2 }, { 2, take(true, false, ALL), 3, 20, 4 },
      { 3, try(true), 5, 6 }, { 3, give(), 7, 8 }, { 1, give(), 9, 10 } })
    possible(rwlock, { { 1, take(true), 1, 2 }, { 2, take(true, false, ALL), 3, 20 },
      { 3, try(true), 5, 6 }, { 3, give(), 7, 8 }, { 1, give(), 9, 10 } })
  end)

  it("finds who was told of nobody, who was not told, and who was told twice", function()
    impossible(mutex, { { 1, take(true, true) } })
    impossible(mutex, { { 1, take(true) }, { 1, give(1, true) }, { 2, take(true) } })
    impossible(mutex, { { 1, take(true) }, { 1, give(1, true) }, { 2, take(true, true) },
      { 2, give() }, { 1, take(true, true) } })
    possible(mutex, { { 1, take(true) }, { 1, give(1, true) }, { 2, take(true, true) },
      { 2, give() }, { 1, take(true) } })
    -- all readers are told of a writer, until there was another one
    possible(rwlock, { { 1, take(true, false, ALL) }, { 1, give(ALL, true) },
      { 2, take(true, true) }, { 3, take(true, true) }, { 2, give() }, { 3, give() },
      { 1, take(true, true, ALL) }, { 1, give(ALL) }, { 2, take(true) } })
    impossible(rwlock, { { 1, take(true) }, { 1, give(1, true) }, { 2, take(true, true) },
      { 3, take(true, true) } })
  end)
end)

describe("the check of histories of events", function()
  local event = models.event()

  it("tells what is possible from what is not", function()
    possible(event, { { 1, { op = "wait", ok = true }, 1, 9 }, { 2, { op = "set" }, 3, 4 },
      { 2, { op = "reset" }, 5, 6 }, { 3, { op = "is_set", ok = false }, 7, 8 } })
    impossible(event, { { 1, { op = "is_set", ok = true } } })
    impossible(event, { { 1, { op = "wait", ok = true } }, { 2, { op = "set" } } })
    impossible(event, { { 1, { op = "set" } }, { 2, { op = "wait", ok = false } } })
    impossible(event, { { 1, { op = "set" } }, { 2, { op = "reset" } },
      { 3, { op = "is_set", ok = true } } })
    impossible(event, { { 1, { op = "wait", ok = false }, 1, 9 }, { 2, { op = "set" }, 0.1, 0.2 } })
  end)
end)

describe("the check of histories of integers", function()
  local integer = models.integer(0)

  local function op(name, a, result, b)
    return { op = name, a = a, b = b, result = result }
  end

  it("tells what is possible from what is not", function()
    possible(integer, { { 1, op("count", 2, 5), 1, 9 }, { 2, op("count", 3, 3), 1, 9 } })
    impossible(integer, { { 1, op("count", 2, 2), 1, 9 }, { 2, op("count", 3, 3), 1, 9 } })
    impossible(integer, { { 1, op("count", 2, 2) }, { 2, op("get", 0, 0) } })
    impossible(integer, { { 1, op("compare_exchange", 0, 0, 1), 1, 9 },
      { 2, op("compare_exchange", 0, 0, 2), 1, 9 } })
    impossible(integer, { { 1, op("exchange", 1, 0), 1, 9 }, { 2, op("exchange", 2, 0), 1, 9 } })
  end)

  it("finds a wake-up that was lost, invented or early", function()
    possible(integer, { { 1, op("wait", 0, "ok"), 1, 9 }, { 2, op("notify", 1, 1), 3, 4 } })
    impossible(integer, { { 1, op("wait", 0, "ok"), 1, 9 }, { 2, op("notify", 1, 0), 3, 4 } })
    impossible(integer, { { 1, op("wait", 0, "timed-out"), 1, 9 },
      { 2, op("notify", 1, 1), 3, 4 } })
    impossible(integer, { { 1, op("wait", 0, "ok"), 1, 2 }, { 2, op("notify", 1, 1), 3, 4 } })
    impossible(integer, { { 1, op("wait", 0, "timed-out"), 3, 9 }, { 2, op("set", 1, 1), 1, 2 } })
    impossible(integer, { { 1, op("wait", 1, "not-equal"), 3, 9 }, { 2, op("set", 1, 1), 1, 2 } })
  end)
end)

describe("the check of histories of barriers", function()
  local barrier = models.barrier(2)

  local function wait(number)
    return { op = "wait", ok = number ~= nil, number = number }
  end

  it("tells what is possible from what is not", function()
    possible(barrier, { { 1, wait(1), 1, 9 }, { 2, wait(2), 3, 4 } })
    possible(barrier, { { 1, wait(), 1, 2 }, { 2, wait(), 3, 4 } })
    impossible(barrier, { { 1, wait(1), 1, 2 }, { 2, wait(2), 3, 4 } })
    impossible(barrier, { { 1, wait(1), 1, 9 }, { 2, wait(1), 3, 4 } })
    impossible(barrier, { { 1, wait(1), 1, 9 }, { 2, wait(), 3, 4 } })
    impossible(barrier, { { 1, wait(3), 1, 9 }, { 2, wait(2), 3, 4 } })
  end)
end)
