local ffi = require "ffi"
local helpers = require "helpers"
local treadle = require "treadle"

local WORKERS = 8

describe("a semaphore", function()
  local pool

  setup(function() pool = treadle.pool("lock_tasks", { threads = 3 }) end)
  teardown(function() pool:close() end)

  it("gives as many permits as it has", function()
    local s, gate = treadle.semaphore(2), treadle.event()
    local entered, list = treadle.event(), {}
    for i = 1, 2 do
      list[i] = pool.call.hold(s, "semaphore", entered, gate)
      assert.is_true(entered:wait(helpers.TIMEOUT))
      entered:reset()
    end
    assert.is_false(s:try_acquire())
    assert.is_false(s:acquire(0.001))
    local f = pool.call.take(s, "semaphore")
    assert.is_false(f:wait(0.01))
    gate:set()
    assert.is_true((f:await()))
    treadle.all(list):await()
    assert.is_true(s:acquire())
    assert.is_true(s:try_acquire())
    s:release()
    s:release()
    assert.equal(s, pool.call.echo(s):await())
  end)

  it("takes back no more than it has given", function()
    local s = treadle.semaphore(2)
    local message = "release: the semaphore is not held here"
    assert.equal(message, helpers.error_here(function() s:release() end))
    s:acquire()
    s:acquire()
    assert.is_false((treadle.spawn(function() s:release() end):pawait()))
    s:release()
    s:release()
    assert.equal(message, helpers.error_here(function() s:release() end))
  end)

  it("is refused to whoever has all permits", function()
    local s = treadle.semaphore(2)
    s:acquire()
    s:acquire()
    assert.equal("all of the semaphore is taken here already: to wait for it would have no end",
      helpers.error_here(function() s:acquire() end))
    assert.is_false(s:try_acquire())
    s:release()
    assert.is_true(s:acquire())
    s:release()
    s:release()
  end)

  it("checks what it is given", function()
    assert.equal("bad argument #1 to 'semaphore' (a whole number of at least 1 expected, got nil)",
      helpers.error_here(function() treadle.semaphore() end))
    assert.equal("bad argument #1 to 'semaphore' (a whole number of at least 1 expected, got 0)",
      helpers.error_here(function() treadle.semaphore(0) end))
    assert.equal("bad argument #1 to 'semaphore' (at most 1073741822 permits expected, got "
      .. "2000000000)", helpers.error_here(function() treadle.semaphore(2e9) end))
    assert.is_true(treadle.semaphore(1073741822):try_acquire())
  end)

  it("with: passes on what the function returns or raises, and releases", function()
    local s = treadle.semaphore(1)
    assert.equal(3, s:with(function(a, b) return a + b end, 1, 2))
    assert.is_false(pcall(s.with, s, error, "x"))
    assert.is_false(pool.call.raise_in_with(s, "with"):pawait())
    assert.is_true(s:try_acquire())
    s:release()
  end)

  it("gets back the permits of holders that die, and the next ones are told", function()
    local s = treadle.semaphore(3)
    pool.call.leave(s, "semaphore"):await()
    pool.call.raise(s, "semaphore"):pawait()
    -- the second one was told of the first
    assert.same({ true, "abandoned" }, { s:acquire() })
    assert.same({ true }, { s:acquire() })
    assert.same({ true }, { s:acquire() })
    for _ = 1, 3 do
      s:release()
    end
    treadle.spawn(function()
      s:acquire()
      s:acquire()
    end):await()
    assert.same({ true, "abandoned" }, { s:acquire() })
    assert.same({ true, "abandoned" }, { s:try_acquire() })
    assert.same({ true }, { s:acquire() })
    for _ = 1, 3 do
      s:release()
    end
  end)

  it("gets back the permits of holders that are stopped #computing", function()
    local s = treadle.semaphore(2)
    local entered = treadle.event()
    local f = pool.call.leave_in_pcall_loop(s, "semaphore", entered)
    assert.is_true(entered:wait(helpers.TIMEOUT))
    assert.is_true(s:acquire())
    assert.is_false(s:acquire(0.001))
    f:cancel { force = true }
    assert.same({ true, "abandoned" }, { s:acquire(helpers.TIMEOUT) })
    s:release()
    s:release()
  end)

  it("never has more holders than permits, under eight states", function()
    local crowd = treadle.pool("lock_tasks", { threads = WORKERS })
    local s, m = treadle.semaphore(3), treadle.mutex()
    local cell = ffi.new("double[1]")
    local address = tonumber(ffi.cast("uintptr_t", ffi.cast("void *", cell)))
    local list, most = {}, 0
    for i = 1, WORKERS do
      list[i] = crowd:run("count_inside", { s, m, address, 400 }, { worker = i })
    end
    for i = 1, WORKERS do
      most = math.max(most, list[i]:await())
    end
    crowd:close()
    assert.is_true(most >= 1 and most <= 3, most)
    assert.equal(0, cell[0])
    for _ = 1, 3 do
      assert.is_true(s:try_acquire())
    end
    assert.is_false(s:try_acquire())
    for _ = 1, 3 do
      s:release()
    end
  end)
end)

helpers.clean()
