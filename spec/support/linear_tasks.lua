--- Processes whose calls of one shared object are recorded (linear.lua): what they call, the seed
-- says.
local treadle = require "treadle"

local M = {}

--- Units of a lock for readers and writers.
local ALL = 0x3fffffff

local function roller(seed)
  local state = seed % 2 ^ 31
  return function(n)
    state = (state * 1103515245 + 12345) % 2 ^ 31
    return math.floor(state / 2 ^ 16) % n + 1
  end
end

--- Lets time pass, so that calls of others fall in between: this thread goes on, or another
-- coroutine does.
local function pause(roll)
  local how = roll(4)
  if how == 1 then
    treadle.sleep(0)
  elseif how == 2 then
    local stop = treadle.now() + roll(20) * 1e-6
    repeat until treadle.now() >= stop
  end
end

--- Short enough that some are over while it waits, some not.
local function limit(roll)
  return (roll(4) - 1) * 1e-4 * roll(3)
end

--- Note when a call that is about to be made stands in the queue at the latest: this runs in a turn
-- of the loop, which comes when the call yields.
local function watch(record)
  treadle.spawn(function()
    treadle.sleep(0)
    record.came = not record.ended and treadle.now() or nil
  end)
end

--- Call a method, and note when.
local function note(records, record, fn, ...)
  if record.waits then
    watch(record)
  end
  record.began = treadle.now()
  local a, b = fn(...)
  record.ended = treadle.now()
  records[#records + 1] = record
  return a, b
end

-- --- locks ---------------------------------------------------------------------------------------

--- Permits that one process has at most: to wait for more than there are would be refused.
local MOST = 2

--- Per kind, the ways to take it: units, and the methods.
local WAYS = {
  mutex = { { 1, "lock", "try_lock", "unlock" } },
  rwlock = {
    { 1, "read_lock", "read_try_lock", "read_unlock" },
    { 1, "read_lock", "read_try_lock", "read_unlock" },
    { ALL, "write_lock", "write_try_lock", "write_unlock" },
  },
  semaphore = { { 1, "acquire", "try_acquire", "release" } },
}

local function take(records, lock, units, waits, method, timeout)
  local record = { op = "take", units = units, waits = waits }
  local ok, told = note(records, record, lock[method], lock, timeout)
  record.ok, record.told = ok, told == "abandoned"
  assert(ok == true and (told == nil or told == "abandoned") or ok == false and told == nil)
  return ok
end

local function give(records, lock, way)
  note(records, { op = "give", units = way[1] }, lock[way[4]], lock)
end

--- A coroutine that takes it and ends.
local function die(records, lock, way, timeout)
  local record = { op = "give", units = way[1], dead = true }
  local took
  treadle.spawn(function()
    took = take(records, lock, way[1], true, way[2], timeout)
    record.began = treadle.now()
  end):await()
  record.ended = treadle.now()
  if took then
    records[#records + 1] = record
  end
end

local function use_lock(kind)
  return function(lock, roll, count)
    local records, held, ways = {}, {}, WAYS[kind]
    for _ = 1, count do
      local how, way = roll(8), ways[roll(#ways)]
      if #held > 0 and (kind ~= "semaphore" or #held == MOST or how <= 4) then
        give(records, lock, table.remove(held))
      elseif how == 1 then
        die(records, lock, way, limit(roll))
      elseif how <= 3 then
        if take(records, lock, way[1], false, way[3]) then
          held[#held + 1] = way
        end
      -- who has one and waits for another without an end may wait for one who does the same
      elseif take(records, lock, way[1], true, way[2], (#held > 0 or how <= 5) and limit(roll)
        or nil) then
        held[#held + 1] = way
      end
      pause(roll)
    end
    while #held > 0 do
      give(records, lock, table.remove(held))
    end
    return records
  end
end

local uses = {
  mutex = use_lock "mutex",
  rwlock = use_lock "rwlock",
  semaphore = use_lock "semaphore",
}

-- --- the others ----------------------------------------------------------------------------------

function uses.event(e, roll, count)
  local records = {}
  for _ = 1, count do
    local how = roll(8)
    if how <= 2 then
      note(records, { op = "set" }, e.set, e)
    elseif how <= 4 then
      note(records, { op = "reset" }, e.reset, e)
    elseif how == 5 then
      local record = { op = "is_set" }
      record.ok = note(records, record, e.is_set, e)
    else
      local record = { op = "wait", waits = true }
      record.ok = note(records, record, e.wait, e, limit(roll))
    end
    pause(roll)
  end
  return records
end

function uses.counter(c, roll, count)
  local records = {}
  for _ = 1, count do
    local how, n, record = roll(5), roll(1000), { result = 0 }
    if how == 1 then
      record.op = "get"
      record.result = note(records, record, c.get, c)
    elseif how == 2 then
      record.op, record.a, record.result = "set", n, n
      note(records, record, c.set, c, n)
    elseif how == 3 then
      record.op, record.a = "count", -n
      record.result = note(records, record, c.sub, c, n)
    else
      record.op, record.a = "count", n
      record.result = note(records, record, c.add, c, n)
    end
    pause(roll)
  end
  return records
end

local function operate(records, roll, buf)
  local atomics, n = treadle.atomics, roll(3)
  local record = { a = n }
  local how = roll(8)
  if how == 1 then
    record.op = "get"
    record.result = note(records, record, atomics.load, buf, 0)
  elseif how == 2 then
    record.op = "set"
    record.result = note(records, record, atomics.store, buf, 0, n)
  elseif how == 3 then
    record.op = "add"
    record.result = note(records, record, atomics.add, buf, 0, n)
  elseif how == 4 then
    record.op = "exchange"
    record.result = note(records, record, atomics.exchange, buf, 0, n)
  elseif how == 5 then
    record.op, record.b = "compare_exchange", roll(3)
    record.result = note(records, record, atomics.compare_exchange, buf, 0, n, record.b)
  elseif how == 6 then
    record.op = "bxor"
    record.result = note(records, record, atomics.bxor, buf, 0, n)
  elseif how == 7 then
    record.op = "notify"
    record.result = note(records, record, atomics.notify, buf, 0, n)
  else
    record.op, record.waits = "wait", true
    record.result = note(records, record, atomics.wait, buf, 0, n, limit(roll))
  end
end

function uses.atomics(buf, roll, count)
  local records = {}
  for _ = 1, count do
    operate(records, roll, buf)
    pause(roll)
  end
  return records
end

--- More waits: with few other values than the one that is waited for.
function uses.waits(buf, roll, count)
  local records, atomics = {}, treadle.atomics
  for _ = 1, count do
    local how = roll(8)
    if how == 1 then
      local record = { op = "exchange", a = roll(2) - 1 }
      record.result = note(records, record, atomics.exchange, buf, 0, record.a)
    elseif how <= 4 then
      local record = { op = "notify", a = roll(3) - 1 }
      record.result = note(records, record, atomics.notify, buf, 0, record.a)
    else
      local record = { op = "wait", a = 0, waits = true }
      record.result = note(records, record, atomics.wait, buf, 0, 0, limit(roll))
    end
    pause(roll)
  end
  return records
end

function uses.barrier(b, roll, count)
  local records = {}
  for _ = 1, count do
    local record = { op = "wait", waits = true }
    record.ok, record.number = note(records, record, b.wait, b, limit(roll))
    pause(roll)
  end
  return records
end

--- One state's part of histories, one for each thing of the list: so many processes in it, so many
-- calls of each. All states begin a history together.
function M.take_part(kind, list, together, processes, count, seed)
  local parts = {}
  for h, thing in ipairs(list) do
    local fibers = {}
    together:wait()
    for f = 1, processes do
      fibers[f] = treadle.spawn(uses[kind], thing, roller(seed + 7919 * h + f), count)
    end
    parts[h] = {}
    for f = 1, processes do
      parts[h][f] = fibers[f]:await()
    end
  end
  return parts
end

return M
