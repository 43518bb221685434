--- Eight states that contend for one shared object, where its own spec has fewer, or none that die:
-- what comes out adds up.
local ffi = require "ffi"
local helpers = require "helpers"
local treadle = require "treadle"

local STATES, TIMEOUT = 8, helpers.TIMEOUT

local seed = tonumber(os.getenv "TDL_SEED") or os.time() % 1e6
print("# TDL_SEED=" .. seed)

local function random(n)
  seed = (seed * 1103515245 + 12345) % 2 ^ 31
  return math.floor(seed / 2 ^ 16) % n + 1
end

--- Memory that all states share, and its address as a number.
local function cells(n)
  local memory = ffi.new("double[?]", n)
  return memory, tonumber(ffi.cast("uintptr_t", ffi.cast("void *", memory)))
end

local function got(f)
  assert.is_true(f:wait(TIMEOUT), "somebody is stuck")
  return f:await()
end

describe("eight states", function()
  local done = helpers.watch()
  local pool

  before_each(function() pool = treadle.pool("contend_tasks", { threads = STATES }) end)
  after_each(function()
    pool:terminate()
    pool:close()
  end)

  it("meet at a barrier five at a time, however many give up", function()
    local count, list, had = 5, {}, { 0, 0, 0, 0, 0 }
    local barrier = treadle.barrier(count)
    for i = 1, STATES do
      list[i] = pool:run("meet", { barrier, count, 200, seed + i }, { worker = i })
    end
    for i = 1, STATES do
      local numbers = got(list[i])
      for number = 1, count do
        had[number] = had[number] + numbers[number]
      end
    end
    assert.is_true(had[1] > 0)
    for number = 2, count do
      assert.equal(had[1], had[number])
    end
    local last = {}
    for i = 1, count - 1 do -- nobody stands there
      last[i] = treadle.spawn(barrier.wait, barrier)
      assert.equal("pending", last[i]:state())
    end
    assert.is_true((barrier:wait(TIMEOUT)))
    treadle.all(last):await()
  end)

  it("pass an event round, and what was written before", function()
    local laps, events, list = 150, {}, {}
    local memory, address = cells(1)
    for i = 1, STATES do
      events[i] = treadle.event()
    end
    for i = 1, STATES do
      list[i] = pool:run("pass", { events, i, laps, address, seed + i }, { worker = i })
    end
    events[1]:set()
    for i = 1, STATES do
      got(list[i])
    end
    assert.equal(STATES * laps, memory[0])
    for i = 1, STATES do
      assert.equal(i == 1, events[i]:is_set())
    end
  end)

  it("lose no wake-up of an integer, though some who wait for it are cancelled", function()
    for _, tokens in ipairs { 1, 3 } do
      local buf = treadle.buffer("int32_t", 1):fill(tokens)
      local memory, address = cells(1)
      local crowd = treadle.pool("contend_tasks", { threads = STATES, concurrency = 4 })
      local list, sum, over = {}, 0, 0
      for i = 1, STATES do
        list[i] = crowd:run("use_tokens", { buf, tokens == 1 and address, 150, seed + i },
          { worker = i })
      end
      while over < STATES do
        local f = crowd:run("wait_for_tokens", { buf }, { worker = random(STATES) })
        f:wait(random(20) * 1e-4)
        f:cancel()
        over = 0
        for i = 1, STATES do
          over = over + (list[i]:state() ~= "pending" and 1 or 0)
        end
      end
      for i = 1, STATES do
        sum = sum + got(list[i])
      end
      assert.equal(STATES * 2 * 150, sum)
      assert.equal(tokens, treadle.atomics.load(buf, 0))
      if tokens == 1 then
        assert.equal(sum, memory[0])
      end
      crowd:close()
      assert.equal(0, treadle.atomics.notify(buf, 0))
    end
  end)

  --- What a lock's next holders are told, until nobody is left who could be told.
  local kinds = {
    mutex = { make = treadle.mutex, units = 1, to = "lock", back = "unlock" },
    write = { make = treadle.rwlock, units = 1, to = "write_lock", back = "write_unlock" },
    semaphore = { make = function() return treadle.semaphore(3) end, units = 3, to = "acquire",
      back = "release" },
  }

  for kind, k in pairs(kinds) do
    it("are told of each holder that died, once: " .. kind, function()
      local lock, memory, address = k.make(), cells(1)
      local told, left, list = treadle.counter(), treadle.counter(), {}
      local crowd = treadle.pool("contend_tasks", { threads = STATES, concurrency = 2 })
      for i = 1, 600 do
        list[i] = crowd.call.visit(kind, lock, k.units == 1 and address, { told, left },
          random(8))
        if random(4) == 1 then
          list[random(i)]:cancel()
        end
      end
      for i = 1, 600 do
        assert.is_true(list[i]:wait(TIMEOUT), "somebody is stuck")
        list[i]:pawait()
      end
      crowd:close() -- those that were cancelled have ended
      local last = 0
      for _ = 1, k.units do
        local ok, state = lock[k.to](lock, TIMEOUT)
        assert.is_true(ok)
        last = last + (state and 1 or 0)
      end
      for _ = 1, k.units do
        lock[k.back](lock)
      end
      assert.equal(left:get(), told:get() + last)
      assert.is_true(left:get() > 0)
      assert.is_true(k.units > 1 or memory[0] >= left:get())
    end)
  end

  it("leave no thread and no descriptor", function()
    pool:close()
    done()
  end)
end)

helpers.clean()
