local helpers = require "helpers"
local treadle = require "treadle"

describe("an event", function()
  local pool

  before_each(function() pool = treadle.pool("share_tasks", { threads = 2 }) end)
  after_each(function() pool:close() end)

  it("is not set at first, and is what it was made", function()
    local e = treadle.event()
    assert.is_false(e:is_set())
    e:set()
    assert.is_true(e:is_set())
    assert.is_true(e:wait())
    e:reset()
    assert.is_false(e:is_set())
    assert.is_false(e:wait(0))
    assert.is_false(e:wait(0.001))
  end)

  it("travels, and comes back as the same", function()
    local e = treadle.event()
    assert.equal(e, pool.call.echo(e):await())
    assert.is_true(rawequal(e, pool.call.echo({ e, e }):await()[2]))
    assert.matches("^treadle.event: 0x%x+$", tostring(e))
  end)

  it("wakes a task that waits", function()
    local e = treadle.event()
    local f = pool.call.wait_event(e)
    assert.is_false(f:wait(0.01))
    e:set()
    assert.is_true(f:await())
  end)

  it("wakes the host that waits", function()
    local e = treadle.event()
    local f = pool.call.set_event(e, 0.01)
    assert.is_true(e:wait(helpers.TIMEOUT))
    f:await()
  end)

  it("ends the wait of a task that is cancelled", function()
    local e = treadle.event()
    local f = pool.call.wait_event(e)
    assert.is_false(f:wait(0.01))
    f:cancel()
    e:set()
    assert.is_true(pool.call.wait_event(e):await())
  end)

  it("is refused once it is closed, and by what keeps strings", function()
    local e = treadle.event()
    assert.error_matches(function() treadle.encode(e) end,
      "cannot keep in a string event %(arguments%[1%]%)")
    e:close()
    e:close()
    for _, name in ipairs { "set", "reset", "is_set", "wait" } do
      assert.equal("the event is closed", helpers.error_here(function() (e[name])(e) end))
      assert.equal(("bad argument #1 to '%s' (event expected, got table): call it with a colon")
        :format(name), helpers.error_here(function() (e[name])({}) end))
    end
    local ok, err = pool.call.echo(e):pawait()
    assert.is_false(ok)
    assert.equal("payload", err.kind)
    assert.equal("treadle.event (closed)", tostring(e))
  end)

  it("says at the caller's line what it is not", function()
    local e, other = treadle.event(), treadle.barrier(1)
    for _, name in ipairs { "set", "reset", "is_set", "wait", "close" } do
      assert.matches("^bad argument #1 to '" .. name .. "' %(event expected, got nil",
        helpers.error_here(function() e[name](nil) end))
      assert.matches("^bad argument #1 to '" .. name .. "' %(event expected, got userdata",
        helpers.error_here(function() e[name](other, 1) end))
    end
    assert.equal("bad argument #1 to 'wait' (event expected, got number): call it with a colon",
      helpers.error_here(function() e.wait(0.1) end))
    assert.equal("bad argument #1 to 'wait' (number expected, got string)",
      helpers.error_here(function() e:wait("1") end))
    e:close()
    for _, name in ipairs { "set", "reset", "is_set", "wait" } do
      assert.equal("the event is closed", helpers.error_here(function() e[name](e) end))
    end
  end)

  it("outlives the handle of the state that made it", function()
    local e = treadle.event()
    local f = pool.call.wait_event(e)
    e:close()
    assert.is_false(f:wait(0.01))
    pool:terminate()
    assert.is_false((f:pawait()))
  end)
end)
