--- The checks of arguments and options.
local ffi = require "ffi"
local helpers = require "helpers"
local treadle = require "treadle"

local options = require "treadle.options"

describe("treadle.options", function()
  it("finds the nearest name, the first in the alphabet of equals", function()
    local known = { threads = 1, timeout = 1, name = 1, data = 1 }
    assert.equal("threads", options.nearest("thread", known))
    assert.equal("timeout", options.nearest("timout", known))
    assert.equal("name", options.nearest("nme", known))
    assert.equal("a1", options.nearest("a", { a2 = 1, a1 = 1, a3 = 1 }))
    assert.is_string(options.nearest(7, known))
    assert.is_nil(options.nearest("x", {}))
  end)

  it("gives an empty table for no options", function()
    assert.same({}, options.check(1, "f", nil, {}))
  end)

  it("says what is wrong with an empty name", function()
    assert.equal("bad argument #1 to 'f' (option 'name': a string that is not empty expected, got "
      .. "string)",
      helpers.error_here(function() options.check(1, "f", { name = "" }, { name = "name" }, 0) end))
  end)

  it("refuses to wait until a time that is none", function() -- it waited for ever
    local f, nan = treadle.future(), 0 / 0
    for name, fn in pairs {
      sleep = function() treadle.sleep(nan) end,
      wait = function() f:wait(nan) end,
      poll = function() treadle.poll(nan) end,
    } do
      assert.equal(("bad argument #1 to '%s' (seconds expected, got nan)"):format(name),
        helpers.error_here(fn))
    end
    assert.is_false(f:wait(-1))
    treadle.sleep(-1)
  end)

  it("does not change the table", function()
    local given = { threads = 2 }
    assert.equal(given, options.check(1, "f", given, { threads = "count" }))
    assert.same({ threads = 2 }, given)
  end)

  it("names argument, function, types and the caller's line", function()
    local function f(x)
      options.argument(1, "f", x, "string or table")
    end
    assert.equal("bad argument #1 to 'f' (string or table expected, got nil)",
      helpers.error_here(function() f() end))
    assert.equal("bad argument #1 to 'f' (string or table expected, got boolean)",
      helpers.error_here(function() f(false) end))
    assert.has_no.errors(function() f("x") end)
    assert.has_no.errors(function() f({}) end)
  end)

  local CHECKS = {
    count = { good = { 1, 2, 1000 }, bad = { 0, -1, 1.5, "1", 0 / 0, math.huge, true } },
    seconds = { good = { 0, 0.5, math.huge }, bad = { -1, "1", 0 / 0, {} } },
    bytes = { good = { 1, 1e9, math.huge }, bad = { 0, -1, "1", 0 / 0 } },
    name = { good = { "x" }, bad = { "", 1, {}, true } },
    string = { good = { "", "x" }, bad = { 1, {} } },
    callable = { good = { print }, bad = { "print", {}, 1 } },
    any = { good = { 1, "x", false, print }, bad = {} },
  }
  for check, values in pairs(CHECKS) do
    it("knows what is a " .. check, function()
      local function f(value)
        options.check(2, "f", { x = value }, { x = check })
      end
      for _, value in ipairs(values.good) do
        f(value)
      end
      for _, value in ipairs(values.bad) do
        local message = helpers.error_here(function() f(value) end)
        assert.matches("bad argument #2 to 'f' (option 'x': ", message, 1, true)
        assert.matches("got " .. (type(value) == "number" and tostring(value) or type(value)),
          message, 1, true)
      end
    end)
  end
end)

it("a null pointer, which equals nil, is none of an argument either", function()
  local null = ffi.new("void *")
  local ch = treadle.channel(null)
  assert.same({ false, "full" }, { ch:try_send(1) })
  local f = treadle.spawn(ch.recv, ch, null)
  ch:send(1, null)
  assert.equal(1, (f:await()))
  assert.is_true(treadle.barrier(1):wait(null))
  assert.same({ 1, 2 }, treadle.psort({ 2, 1 }, null, null):await())
end)

describe("the module's functions check their arguments at the caller's line:", function()
  local CASES = {
    { "sleep", "number expected, got nil", function() treadle.sleep() end },
    { "sleep", "number expected, got string", function() treadle.sleep("1") end },
    { "spawn", "function expected, got nil", function() treadle.spawn() end },
    { "run", "function expected, got table", function() treadle.run({}) end },
    { "poll", "number expected, got string", function() treadle.poll("1") end },
    { "using", "function expected, got nil", function() treadle.using(treadle.event()) end },
    { "using", "a method 'close' expected, got table", function() treadle.using({}, print) end },
    { "using", "a method 'close' expected, got nil", function() treadle.using(nil, print) end },
    { "using", "a method 'close' expected, got number", function() treadle.using(1, print) end },
    { "decode", "string expected, got nil", function() treadle.decode() end },
    { "decode", "string expected, got table", function() treadle.decode({}) end },
    { "class", "string expected, got nil", function() treadle.class() end },
    { "class", "table expected, got nil", function() treadle.class("spec.C") end },
  }
  for _, case in ipairs(CASES) do
    it(case[1] .. ": " .. case[2], function()
      local message = helpers.error_here(case[3])
      assert.matches("'" .. case[1] .. "'", message, 1, true)
      assert.matches((case[2]:gsub("got nil", "got n")), message, 1, true)
    end)
  end
end)
