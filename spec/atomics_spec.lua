local ffi = require "ffi"
local helpers = require "helpers"
local treadle = require "treadle"

local atomics = treadle.atomics
local error_here = helpers.error_here

describe("atomics", function()
  it("give the old value", function()
    local b = treadle.buffer("int32_t", 2)
    assert.equal(5, atomics.store(b, 1, 5))
    assert.equal(5, atomics.load(b, 1))
    assert.equal(5, atomics.add(b, 1, 3))
    assert.equal(8, atomics.sub(b, 1, 2))
    assert.equal(6, atomics.band(b, 1, 3))
    assert.equal(2, atomics.bor(b, 1, 12))
    assert.equal(14, atomics.bxor(b, 1, 6))
    assert.equal(8, atomics.exchange(b, 1, -1))
    assert.equal(-1, atomics.compare_exchange(b, 1, 7, 9))
    assert.equal(-1, atomics.compare_exchange(b, 1, -1, 9))
    assert.equal(9, b:get(1))
    assert.equal(0, b:get(0))
  end)

  it("wrap around where the type ends", function()
    for name, range in pairs {
      int8_t = { -128, 127 }, uint8_t = { 0, 255 }, int16_t = { -32768, 32767 },
      uint16_t = { 0, 65535 }, int32_t = { -2 ^ 31, 2 ^ 31 - 1 }, uint32_t = { 0, 2 ^ 32 - 1 },
      int64_t = { -2LL ^ 63, 2LL ^ 63 - 1 }, uint64_t = { 0ULL, 0xffffffffffffffffULL },
      long = { -2LL ^ 63, 2LL ^ 63 - 1 }, char = { -128, 127 },
    } do
      local b = treadle.buffer(name, 1)
      atomics.store(b, 0, range[2])
      assert.is_true(atomics.add(b, 0, 1) == range[2], name)
      assert.is_true(atomics.load(b, 0) == range[1], name)
      assert.is_true(atomics.sub(b, 0, 1) == range[1], name)
      assert.is_true(b:get(0) == range[2], name)
    end
  end)

  it("take numbers and cdata for 64 bits, and give cdata", function()
    local b = treadle.buffer("uint64_t", 1)
    atomics.store(b, 0, 2 ^ 63)
    assert.is_true(atomics.load(b, 0) == 2ULL ^ 63)
    assert.is_true(ffi.istype("uint64_t", atomics.add(b, 0, 1LL)))
    assert.is_true(atomics.add(b, 0, -1) == 2ULL ^ 63 + 1)
    atomics.store(b, 0, -1)
    assert.is_true(atomics.exchange(b, 0, 2 ^ 64 - 2048) == 0xffffffffffffffffULL)
    assert.is_true(atomics.load(b, 0) == 0xfffffffffffff800ULL)
    local narrow = treadle.buffer("uint8_t", 1)
    atomics.store(narrow, 0, 2 ^ 40 + 3)
    assert.equal(3, atomics.exchange(narrow, 0, -2LL))
    assert.equal(254, atomics.load(narrow, 0))
    assert.is_true(ffi.istype("int64_t", atomics.load(treadle.buffer("int64_t", 1), 0)))
  end)

  it("are exact in compiled code", function()
    local b = treadle.buffer("int64_t", 1)
    local last
    for i = 1, 10000 do
      last = atomics.add(b, 0, i)
    end
    assert.is_true(last == 49995000LL)
    assert.is_true(atomics.load(b, 0) == 50005000LL)
  end)

  it("refuse what is no integer", function()
    local b, d = treadle.buffer("int", 2), treadle.buffer("double", 2)
    assert.equal("bad argument #1 to 'add' (a buffer of integers expected, got one of 'double')",
      error_here(function() atomics.add(d, 0, 1) end))
    assert.equal("bad argument #1 to 'load' (a buffer of integers expected, got one of 'bool')",
      error_here(function() atomics.load(treadle.buffer("bool", 1), 0) end))
    assert.equal("bad argument #2 to 'add' (a whole number from 0 to 1 expected, got 2)",
      error_here(function() atomics.add(b, 2, 1) end))
    assert.equal("bad argument #3 to 'add' (a whole number expected, got 0.5)",
      error_here(function() atomics.add(b, 0, 0.5) end))
    assert.equal("bad argument #3 to 'store' (a whole number expected, got inf)",
      error_here(function() atomics.store(b, 0, math.huge) end))
    assert.equal("bad argument #4 to 'compare_exchange' (a whole number expected, got string)",
      error_here(function() atomics.compare_exchange(b, 0, 0, "1") end))
    assert.equal("bad argument #3 to 'notify' (a whole number of at least 0 expected, got -1)",
      error_here(function() atomics.notify(b, 0, -1) end))
    for name in pairs(atomics) do
      assert.equal(("bad argument #1 to '%s' (buffer expected, got nil)"):format(name),
        error_here(function() atomics[name](nil, 0, 1, 2) end))
      assert.equal(("bad argument #1 to '%s' (buffer expected, got table)"):format(name),
        error_here(function() atomics[name](atomics, b, 0, 1, 2) end))
    end
    b:close()
    assert.equal("the buffer is closed", error_here(function() atomics.load(b, 0) end))
    assert.equal("the buffer is closed", error_here(function() atomics.wait(b, 0, 0) end))
  end)

  it("wait at most for the timeout, and not for what is different", function()
    for _, name in ipairs { "int8_t", "uint16_t", "int32_t", "uint64_t" } do
      local b = treadle.buffer(name, 2):fill(-1)
      assert.equal("not-equal", atomics.wait(b, 1, 1))
      assert.equal("not-equal", atomics.wait(b, 1, 1, 0))
      assert.equal("timed-out", atomics.wait(b, 1, -1, 0))
      assert.equal("timed-out", atomics.wait(b, 1, -1, 0.001))
      assert.equal(0, atomics.notify(b, 1))
    end
    local b = treadle.buffer("uint64_t", 1):fill(2ULL ^ 63)
    assert.equal("not-equal", atomics.wait(b, 0, 0))
    assert.equal("timed-out", atomics.wait(b, 0, 2ULL ^ 63, 0))
  end)

  it("wake coroutines of one state, first come, first served", function()
    local b, order, list = treadle.buffer("int", 2), {}, {}
    for k = 1, 3 do
      list[k] = treadle.spawn(function()
        local result = atomics.wait(b, 1, 0)
        order[#order + 1] = k
        return result
      end)
    end
    assert.equal(0, atomics.notify(b, 0))
    assert.equal(0, atomics.notify(b, 1, 0))
    assert.equal(1, atomics.notify(b, 1, 1))
    assert.equal("ok", list[1]:await())
    assert.same({ 1 }, order)
    assert.equal(2, atomics.notify(b, 1))
    assert.same({ "ok", "ok" }, { list[2]:await(), (list[3]:await()) })
    assert.same({ 1, 2, 3 }, order)
    assert.equal(0, atomics.notify(b, 1))
  end)
end)

describe("a wake-up", function()
  it("counts in the moment in which its waiter's time is over", function()
    local b = treadle.buffer("int", 1)
    local woken
    -- both timers are due at the same turn, and the notifier's is the earlier one
    local notifier = treadle.spawn(function()
      treadle.sleep(0.001)
      woken = atomics.notify(b, 0, 1)
    end)
    local late = treadle.spawn(atomics.wait, b, 0, 0, 0.002)
    local next_one = treadle.spawn(atomics.wait, b, 0, 0)
    local stop = treadle.now() + 0.004
    repeat helpers.pause() until treadle.now() > stop
    notifier:await()
    assert.equal(1, woken)
    assert.equal("ok", late:await())
    assert.is_false(next_one:wait(0.001))
    assert.equal(1, atomics.notify(b, 0, 1))
    assert.equal("ok", next_one:await())
  end)
end)

describe("atomics of several states", function()
  local done = helpers.watch()
  local pool

  before_each(function()
    pool = treadle.pool("buffer_tasks", { threads = 4, concurrency = 4 })
  end)
  after_each(function() pool:close() end)

  --- Wakes one, as soon as somebody waits.
  local function wake_one(b, i)
    helpers.poll_until(function() return atomics.notify(b, i, 1) == 1 end)
  end

  it("lose nothing", function()
    for _, name in ipairs { "uint8_t", "uint16_t", "int32_t", "uint64_t" } do
      local b = treadle.buffer(name, 3)
      local list = {}
      for k = 1, 8 do
        list[k] = pool.call.add(b, 1, 25000)
      end
      treadle.all(list):await()
      local full = 2 ^ (8 * #b:string(0, 1))
      assert.equal(200000 % full, tonumber(b:get(1)))
      assert.same({ 0, 0 }, { tonumber(b:get(0)), tonumber(b:get(2)) })
    end
  end)

  it("wake tasks", function()
    local b = treadle.buffer("int", 1)
    local f = pool.call.wait(b, 0, 0)
    wake_one(b, 0)
    assert.equal("ok", f:await())
    assert.equal("not-equal", pool.call.wait(b, 0, 1):await())
    assert.equal("timed-out", pool.call.wait(b, 0, 0, 0.001):await())
    local all = pool.call.wait_all(b, 0, 5)
    for _ = 1, 5 do
      wake_one(b, 0)
    end
    assert.same({ "ok", "ok", "ok", "ok", "ok" }, all:await())
  end)

  it("wake the host, which does not lose a change", function()
    local b = treadle.buffer("int", 1)
    for i = 1, 200 do
      local f = pool:run(function(buf, v)
        local shared = require("treadle").atomics
        shared.store(buf, 0, v)
        shared.notify(buf, 0)
      end, { b, i })
      local result = atomics.wait(b, 0, i - 1, helpers.TIMEOUT)
      assert.is_true(result == "ok" or result == "not-equal", result)
      assert.equal(i, atomics.load(b, 0))
      f:await()
    end
  end)

  it("pass a wake-up on that finds a task cancelled", function()
    local b = treadle.buffer("int", 200)
    for i = 0, 199 do -- each has its own: nothing is passed on to the next round
      local first = pool.call.wait(b, i, 0)
      local second = pool.call.wait(b, i, 0)
      treadle.sleep(0)
      first:cancel()
      helpers.poll_until(function()
        atomics.notify(b, i, 1)
        return second:state() ~= "pending"
      end)
      assert.equal("ok", second:await())
      assert.is_false((first:pawait()))
    end
  end)

  it("leave nobody in the list who is cancelled, late, stopped or terminated", function()
    local b = treadle.buffer("int", 1)
    local cancelled = pool.call.wait(b, 0, 0)
    local late = pool:run("wait", { b, 0, 0 }, { timeout = 0.02 })
    local stopped = pool.call.wait(b, 0, 0)
    assert.is_false(stopped:wait(0.01))
    cancelled:cancel()
    stopped:cancel { force = true }
    for kind, f in pairs { cancelled = cancelled, timeout = late } do
      assert.equal(kind, select(2, f:pawait()).kind)
    end
    assert.equal("cancelled", select(2, stopped:pawait()).kind)
    helpers.poll_until(function() return atomics.notify(b, 0) == 0 end)

    local ended = pool.call.wait(b, 0, 0)
    assert.is_false(ended:wait(0.01))
    pool:terminate()
    assert.equal("closed", select(2, ended:pawait()).kind)
    pool:close()
    assert.equal(0, atomics.notify(b, 0))
  end)

  it("leave nobody in the list whose state is lost #computing", function()
    local b = treadle.buffer("int", 1)
    local started = treadle.event()
    local waits = pool:run("wait", { b, 0, 0 }, { worker = 1 })
    local spins = pool:run("spin", { treadle.buffer("double", 1), started }, { worker = 1 })
    assert.is_true(started:wait(helpers.TIMEOUT))
    spins:cancel { force = true } -- its state is lost, and the one that waits in it
    assert.equal("crashed", select(2, waits:pawait()).kind)
    assert.equal("cancelled", select(2, spins:pawait()).kind)
    helpers.poll_until(function() return atomics.notify(b, 0) == 0 end)
  end)

  it("leave nothing behind", function()
    pool:close()
    done()
  end)
end)
