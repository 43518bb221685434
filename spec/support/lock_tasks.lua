--- Tasks for the specs of locks and barriers.
local ffi = require "ffi"
local treadle = require "treadle"

local M = {}

--- How one takes and gives back a lock of each kind.
local WAYS = {
  mutex = { "lock", "unlock", "try_lock" },
  read = { "read_lock", "read_unlock", "read_try_lock" },
  write = { "write_lock", "write_unlock", "write_try_lock" },
  semaphore = { "acquire", "release", "try_acquire" },
}

local function take(lock, way, timeout)
  return lock[WAYS[way][1]](lock, timeout)
end

local function give(lock, way)
  return lock[WAYS[way][2]](lock)
end

function M.echo(...)
  return ...
end

--- Add 1 to the number at an address, n times, under a mutex. Now and then others may run, or try,
-- while it is held.
function M.count_up(m, address, n, seed)
  local cell = ffi.cast("double *", ffi.cast("uintptr_t", address))
  local taken = 0
  for _ = 1, n do
    seed = (seed * 1103515245 + 12345) % 2 ^ 31
    local how = math.floor(seed / 65536) % 64
    local ok = true
    if how == 1 then
      ok = m:try_lock()
    elseif how == 2 then
      ok = m:lock(0.0001)
    else
      m:lock()
    end
    if ok then
      local value = cell[0]
      if how == 3 then
        treadle.sleep(0)
      end
      cell[0] = value + 1
      taken = taken + 1
      m:unlock()
    end
  end
  return taken
end

--- The same, each time in a `with`, by several coroutines.
function M.count_in_coroutines(m, address, n)
  local cell = ffi.cast("double *", ffi.cast("uintptr_t", address))
  local list = {}
  for i = 1, 4 do
    list[i] = treadle.spawn(function()
      for _ = 1, n do
        m:with(function()
          local value = cell[0]
          treadle.sleep(0)
          cell[0] = value + 1
        end)
      end
    end)
  end
  treadle.all(list):await()
end

--- Take it, say so, wait for the gate, give it back.
function M.hold(lock, way, entered, gate)
  local _, state = take(lock, way)
  entered:set()
  gate:wait()
  give(lock, way)
  return state
end

--- Wait for it, at most so long: the outcome. It is given back.
function M.take(lock, way, timeout)
  local ok, state = take(lock, way, timeout)
  if ok then
    give(lock, way)
  end
  return ok, state
end

function M.try(lock, way)
  local ok, state = lock[WAYS[way][3]](lock)
  if ok then
    give(lock, way)
  end
  return ok, state
end

--- Wait for it, and say so; then note whose turn it is.
function M.note_turn(lock, way, entered, address, number)
  local cell = ffi.cast("double *", ffi.cast("uintptr_t", address))
  local turn = treadle.spawn(function() -- runs up to its wait
    take(lock, way)
    cell[0] = cell[0] + 1
    cell[number] = cell[0]
    give(lock, way)
  end)
  entered:set()
  turn:await()
end

--- Ends that leave it held.
function M.leave(lock, way)
  take(lock, way)
  return "left"
end

function M.leave_in_coroutine(lock, way)
  treadle.spawn(take, lock, way):await()
  return "left"
end

--- What the main chunk of a worker holds.
function M.lock_data()
  treadle.worker.data:lock()
end

--- A coroutine that outlives the task.
function M.leave_behind(lock, way)
  treadle.spawn(function()
    take(lock, way)
    treadle.sleep(1000)
  end)
  return "left behind"
end

--- A coroutine that is left behind, and collected.
function M.drop_coroutine(lock, way)
  treadle.spawn(function()
    take(lock, way)
    treadle.future():await()
  end)
  return "dropped"
end

function M.collect()
  require("jit").flush()
  collectgarbage()
  collectgarbage()
end

function M.raise(lock, way)
  take(lock, way)
  error("in the middle")
end

function M.raise_in_with(lock, method)
  lock[method](lock, function() error("in the middle") end)
end

function M.leave_in_pcall_loop(lock, way, entered)
  take(lock, way)
  entered:set()
  while true do
    pcall(function()
      local n = 0
      while true do
        n = n + 1
      end
    end)
  end
end

--- Compiled code that takes and gives back without an end.
function M.flicker(lock, way, entered)
  local to, back = lock[WAYS[way][1]], lock[WAYS[way][2]]
  entered:set()
  while true do
    to(lock)
    back(lock)
  end
end

function M.stick(lock, way, entered, size)
  take(lock, way)
  entered:set()
  return require("stop_tasks").stuck(nil, size)
end

--- Wait with it in a coroutine that the script has made itself.
function M.in_own_coroutine(lock, way)
  local result
  local done, resolve = treadle.future()
  coroutine.wrap(function()
    take(lock, way)
    treadle.sleep(0.001)
    give(lock, way)
    result = "done"
    resolve()
  end)()
  done:await()
  return result
end

--- Calls of the own pool while it is held.
function M.nested(lock, way, depth)
  take(lock, way)
  local sum = depth
  if depth > 0 then
    give(lock, way)
    sum = sum + treadle.worker.pool.call.nested(lock, way, depth - 1):await()
    take(lock, way)
  end
  give(lock, way)
  return sum
end

--- Use permits, and count under a mutex who does so at a time: the most.
function M.count_inside(s, m, address, n)
  local cell = ffi.cast("double *", ffi.cast("uintptr_t", address))
  local most = 0
  local function add(change)
    m:lock()
    cell[0] = cell[0] + change
    most = math.max(most, cell[0])
    m:unlock()
  end
  for i = 1, n do
    s:acquire()
    add(1)
    if i % 8 == 0 then
      treadle.sleep(0)
    end
    add(-1)
    s:release()
  end
  return most
end

--- Read or write a pair of numbers that a writer makes different for a moment.
function M.use_pair(lock, address, n, seed)
  local pair = ffi.cast("double *", ffi.cast("uintptr_t", address))
  local torn, writes = 0, 0
  for _ = 1, n do
    seed = (seed * 1103515245 + 12345) % 2 ^ 31
    if math.floor(seed / 65536) % 4 == 0 then
      lock:write_lock()
      pair[0] = pair[0] + 1
      if seed % 3 == 0 then
        treadle.sleep(0)
      end
      pair[1] = pair[0]
      writes = writes + 1
      lock:write_unlock()
    else
      lock:read_lock()
      torn = torn + (pair[0] ~= pair[1] and 1 or 0)
      if seed % 3 == 0 then
        treadle.sleep(0)
      end
      torn = torn + (pair[0] ~= pair[1] and 1 or 0)
      lock:read_unlock()
    end
  end
  return torn, writes
end

--- Wait at a barrier so many times: its numbers, and what was wrong.
function M.meet(barrier, address, me, rounds)
  local cells = ffi.cast("double *", ffi.cast("uintptr_t", address))
  local numbers, wrong = {}, 0
  for round = 1, rounds do
    cells[me] = round
    local ok, number = barrier:wait()
    wrong = wrong + (ok == true and 0 or 1)
    for i = 0, 2 do
      wrong = wrong + (cells[i] == round and 0 or 1)
    end
    numbers[round] = number
    barrier:wait() -- nobody writes before all have looked
  end
  return numbers, wrong
end

function M.wait_at(barrier, timeout)
  return barrier:wait(timeout)
end

return M
