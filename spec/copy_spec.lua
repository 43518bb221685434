--- core.copy: values as another state would get them, without a string between.
local core = require "treadle.core"
local treadle = require "treadle"

describe("a copy", function()
  it("is what encode and decode make", function()
    local n = 0
    local function add(x) n = n + x return n end
    local list, again, copy = core.copy({ 1, { 2 } }, nil, add)
    assert.same({ 1, { 2 } }, list)
    assert.is_nil(again)
    assert.equal(3, copy(3))
    assert.equal(0, n)
    assert.equal(0, select("#", core.copy()))
    assert.equal(2, select("#", core.copy(nil, nil)))
  end)

  it("may hold shared things, which stay the same", function()
    local e = treadle.event()
    local copy = core.copy({ e, e })
    assert.is_true(rawequal(e, copy[1]) and rawequal(e, copy[2]))
    local get = core.copy(function() return e end)
    assert.is_true(rawequal(e, get()))
  end)

  it("of what cannot travel is refused, with the path", function()
    local co = coroutine.create(print)
    for _ = 1, 3 do
      assert.error_matches(function() core.copy(1, { x = { co } }) end,
        "^cannot send a coroutine %(arguments%[2%]%.x%[1%]%)$")
      assert.equal(7, core.copy(7))
    end
  end)

  it("works within another one", function()
    local mt = { __treadle_pack = function(o) return core.copy({ o[1] }) end }
    assert.same({ { 5 } }, core.copy({ setmetatable({ 5 }, mt) }))
    local failing = { __treadle_pack = function() error("no", 0) end }
    assert.error_matches(function() core.copy(setmetatable({}, failing)) end, "no")
    assert.same({ { 5 } }, core.copy({ setmetatable({ 5 }, mt) }))
  end)
end)
