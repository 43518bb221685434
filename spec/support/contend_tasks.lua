--- What eight states do to one shared object (contend_spec).
local ffi = require "ffi"
local treadle = require "treadle"

local M = {}

local function roller(seed)
  local state = seed % 2 ^ 31
  return function(n)
    state = (state * 1103515245 + 12345) % 2 ^ 31
    return math.floor(state / 2 ^ 16) % n + 1
  end
end

local function cell_at(address)
  return ffi.cast("double *", ffi.cast("uintptr_t", address))
end

--- Call `fn(roll)` in so many coroutines, and wait for them.
local function in_coroutines(n, seed, fn)
  local list = {}
  for f = 1, n do
    list[f] = treadle.spawn(fn, roller(seed + 7919 * f))
  end
  return treadle.all(list):await()
end

--- Come to a barrier again and again, and not always wait for long: how often which number was had.
function M.meet(barrier, count, times, seed)
  local had = {}
  for number = 1, count do
    had[number] = 0
  end
  in_coroutines(2, seed, function(roll)
    for _ = 1, times do
      local ok, number = barrier:wait((roll(3) - 1) * roll(20) * 1e-4)
      if ok then
        had[number] = had[number] + 1
      end
      if roll(4) == 1 then
        treadle.sleep(0)
      end
    end
  end)
  return had
end

--- One of a ring: wait for the own event, count, set the next one's. Others look on, and give up.
function M.pass(events, me, laps, address, seed)
  local cell = cell_at(address)
  local own, following = events[me], events[me % #events + 1]
  local over = false
  local looker = treadle.spawn(function(roll)
    while not over do
      local e = events[roll(#events)]
      if roll(2) == 1 then
        e:is_set()
        treadle.sleep(0)
      else
        e:wait(roll(10) * 1e-5)
      end
    end
  end, roller(seed))
  for _ = 1, laps do
    own:wait()
    own:reset()
    cell[0] = cell[0] + 1
    following:set()
  end
  over = true
  looker:await()
end

--- A semaphore made of an integer: tokens that are taken and given back so many times. Who waits is
-- woken once for each token that comes back. Where there is one token only, it guards an address.
function M.use_tokens(tokens, address, times, seed)
  local atomics, cell = treadle.atomics, address and cell_at(address)
  local taken = 0
  in_coroutines(2, seed, function(roll)
    for _ = 1, times do
      local n = atomics.load(tokens, 0)
      while n == 0 or atomics.compare_exchange(tokens, 0, n, n - 1) ~= n do
        if n == 0 then
          atomics.wait(tokens, 0, 0, roll(3) == 1 and roll(10) * 1e-4 or nil)
        end
        n = atomics.load(tokens, 0)
      end
      if cell then
        cell[0] = cell[0] + 1
      end
      taken = taken + 1
      if roll(8) == 1 and not treadle.cancelled() then
        pcall(treadle.sleep, 0)
      end
      atomics.add(tokens, 0, 1)
      atomics.notify(tokens, 0, 1)
    end
  end)
  return taken
end

--- Wait as one of those, and take nothing, so that another one must be woken instead. It is to be
-- cancelled: where that comes with a wake-up, treadle has to pass it on.
function M.wait_for_tokens(tokens)
  while true do
    if treadle.atomics.wait(tokens, 0, 0) == "ok" then
      treadle.atomics.notify(tokens, 0, 1)
    end
    treadle.sleep(0)
  end
end

local WAYS = {
  mutex = { "lock", "unlock" },
  write = { "write_lock", "write_unlock" },
  semaphore = { "acquire", "release" },
}

--- Take it once, count that at an address, if there is one, and give it back, or leave it. `counts`
-- are counters of who was told, and of who left it. Between the taking and the counting nothing
-- ends a task.
function M.visit(kind, lock, address, counts, how)
  local to, back = unpack(WAYS[kind])
  local told, left = counts[1], counts[2]
  local function enter(leaves)
    local _, state = lock[to](lock)
    if state then
      told:add()
    end
    if leaves then
      left:add()
    end
    if address then
      local cell = cell_at(address)
      cell[0] = cell[0] + 1
    end
  end
  if how == 1 then
    enter(true)
    return
  elseif how == 2 then
    enter(true)
    error("in the middle")
  elseif how == 3 then
    treadle.spawn(enter, true):await()
    return
  end
  enter()
  if how == 4 then
    pcall(treadle.sleep, 0)
  end
  lock[back](lock)
end

return M
