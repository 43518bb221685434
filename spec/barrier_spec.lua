local ffi = require "ffi"
local helpers = require "helpers"
local treadle = require "treadle"

describe("a barrier", function()
  local pool

  setup(function() pool = treadle.pool("lock_tasks", { threads = 3 }) end)
  teardown(function() pool:close() end)

  it("lets nobody on before all are there", function()
    local b = treadle.barrier(3)
    local f, g = pool.call.wait_at(b), pool.call.wait_at(b)
    assert.is_false(f:wait(0.01))
    assert.is_false(g:wait(0.01))
    local numbers = { [select(2, b:wait())] = true }
    for _, future in ipairs { f, g } do
      local ok, number = future:await()
      assert.is_true(ok)
      numbers[number] = true
    end
    assert.same({ true, true, true }, numbers)
  end)

  it("of one lets everybody on", function()
    local b = treadle.barrier(1)
    assert.same({ true, 1 }, { b:wait() })
    assert.same({ true, 1 }, { b:wait(0) })
    assert.matches("^treadle.barrier: 0x%x+$", tostring(b))
  end)

  it("serves again and again, and gives each number once", function()
    local b, cells = treadle.barrier(3), ffi.new("double[3]")
    local address = tonumber(ffi.cast("uintptr_t", ffi.cast("void *", cells)))
    local list, rounds = {}, 200
    for i = 1, 3 do
      list[i] = pool:run("meet", { b, address, i - 1, rounds }, { worker = i })
    end
    local numbers = {}
    for i = 1, 3 do
      local wrong
      numbers[i], wrong = list[i]:await()
      assert.equal(0, wrong)
    end
    for round = 1, rounds do
      assert.equal(6, numbers[1][round] + numbers[2][round] + numbers[3][round])
      assert.not_equal(numbers[1][round], numbers[2][round])
    end
  end)

  it("does not count who has given up", function()
    local b = treadle.barrier(2)
    assert.same({ false }, { b:wait(0.001) })
    assert.same({ false, n = 1 }, { n = 1, pool.call.wait_at(b, 0.001):await() })
    local f = pool.call.wait_at(b)
    assert.is_false(f:wait(0.01))
    f:cancel()
    helpers.poll_until(function() return not b:wait(0) end) -- the task has left
    local g = pool.call.wait_at(b)
    assert.is_true((b:wait(helpers.TIMEOUT)))
    assert.is_true((g:await()))
  end)

  it("does not count tasks that were stopped", function()
    local b = treadle.barrier(2)
    local other = treadle.pool("lock_tasks", { threads = 1 })
    local f = other.call.wait_at(b)
    assert.is_false(f:wait(0.01))
    other:terminate()
    other:close()
    assert.is_false(b:wait(0.001))
  end)

  it("checks what it is given", function()
    assert.equal("bad argument #1 to 'barrier' (a whole number of at least 1 expected, got nil)",
      helpers.error_here(function() treadle.barrier() end))
    assert.equal("bad argument #1 to 'wait' (number expected, got string)",
      helpers.error_here(function() treadle.barrier(2):wait("x") end))
    local b = treadle.barrier(2)
    for _, wrong in ipairs { 1, {}, treadle.event() } do
      assert.equal(("bad argument #1 to 'wait' (barrier expected, got %s): call it with a colon")
        :format(type(wrong)), helpers.error_here(function() b.wait(wrong) end))
    end
    b:close()
    assert.equal("the barrier is closed", helpers.error_here(function() b:wait() end))
  end)
end)

helpers.clean()
