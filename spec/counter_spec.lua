local helpers = require "helpers"
local treadle = require "treadle"

local error_here = helpers.error_here

describe("a counter", function()
  it("counts", function()
    local c = treadle.counter()
    assert.equal(0, c:get())
    assert.equal(1, c:add())
    assert.equal(6, c:add(5))
    assert.equal(5, c:sub())
    assert.equal(-5, c:sub(10))
    c:set(7)
    assert.equal(7, c:get())
    assert.equal(-3, treadle.counter(-3):get())
    assert.matches("^treadle.counter: 0x%x+$", tostring(c))
  end)

  it("is exact up to 2^53, and in itself beyond", function()
    local c = treadle.counter(2 ^ 53)
    assert.equal(2 ^ 53, c:get())
    assert.equal(2 ^ 53, c:add(1)) -- rounded
    assert.equal(2 ^ 53 + 2, c:add(1)) -- and not lost
    c:sub(2)
    assert.equal(2 ^ 53, c:get())
    assert.equal(0, c:sub(2 ^ 53))
  end)

  it("counts in compiled code", function()
    local c, sum = treadle.counter(), 0
    for i = 1, 10000 do
      sum = sum + c:add(i) - c:sub(i)
    end
    assert.equal(50005000, sum)
    assert.equal(0, c:get())
  end)

  it("refuses what it cannot count", function()
    local c = treadle.counter()
    for _, n in ipairs { 0.5, 0 / 0, math.huge, 2 ^ 54, -2 ^ 54 } do
      for _, name in ipairs { "add", "sub", "set" } do
        assert.matches("^bad argument #1 to '" .. name .. "' %(a whole number up to 2%^53 expected",
          error_here(function() c[name](c, n) end))
      end
      assert.matches("^bad argument #1 to 'counter' %(a whole number up to 2%^53 expected",
        error_here(function() treadle.counter(n) end))
    end
    assert.matches("expected, got string", error_here(function() c:add("1") end))
    assert.matches("^bad argument #1 to 'set' .*expected, got nil",
      error_here(function() c:set() end))
    assert.equal("bad argument #1 to 'get' (counter expected, got nil): call it with a colon",
      error_here(function() c.get() end))
    assert.equal("bad argument #1 to 'add' (counter expected, got userdata): call it with a colon",
      error_here(function() c.add(treadle.event()) end))
    c:close()
    assert.equal("the counter is closed", error_here(function() c:get() end))
    assert.equal("the counter is closed", error_here(function() c:add() end))
    assert.equal("the counter is closed", error_here(function() c:set(1) end))
  end)

  it("is counted by all states", function()
    local pool = treadle.pool("buffer_tasks", { threads = 4 })
    local c, list = treadle.counter(), {}
    for k = 1, 8 do
      list[k] = pool.call.count(c, 25000)
    end
    treadle.all(list):await()
    assert.equal(200000, c:get())
    assert.is_true(rawequal(c, (pool.call.echo(c):await())))
    pool:close()
  end)
end)
