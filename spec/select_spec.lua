local helpers = require "helpers"
local treadle = require "treadle"

describe("treadle.select", function()
  it("takes the one case that can go on", function()
    local a, b = treadle.channel(1), treadle.channel(1)
    b:send({ "b" })
    local index, value, ok = treadle.select { { a, "recv" }, { b, "recv" } }
    assert.same({ 2, { "b" }, true }, { index, value, ok })
    assert.same({ 1, nil, true }, { treadle.select { { a, "send", 1 }, { b, "recv" } } })
    assert.same({ 2, nil, true }, { treadle.select { { a, "send", 2 }, { b, "send", nil } } })
    assert.same({ 1, true }, { a:recv() })
    assert.same({ n = 2, nil, true }, { n = 2, b:recv() })
    assert.same({ nil, false, "empty" }, { a:try_recv() })
  end)

  it("is fair among those that can go on", function()
    local list, count = {}, {}
    for i = 1, 4 do
      list[i] = treadle.channel(1)
      list[i]:send(i)
      count[i] = 0
    end
    for _ = 1, 1000 do
      local index, value = treadle.select { { list[1], "recv" }, { list[2], "recv" },
        { list[3], "recv" }, { list[4], "recv" } }
      assert(index == value)
      count[index] = count[index] + 1
      list[index]:send(index)
    end
    for i = 1, 4 do
      assert.is_true(count[i] > 100, ("case %d was taken %d times of 1000"):format(i, count[i]))
    end
  end)

  it("waits for the first, in a main chunk and in a coroutine", function()
    local a, b = treadle.channel(), treadle.channel()
    local function sender()
      treadle.sleep(0.001)
      b:send("later")
    end
    local f = treadle.spawn(sender)
    assert.same({ 2, "later", true }, { treadle.select { { a, "recv" }, { b, "recv" } } })
    f:await()
    treadle.run(function()
      treadle.spawn(sender)
      assert.same({ 2, "later", true }, { treadle.select { { a, "recv" }, { b, "recv" } } })
      local got = treadle.spawn(function()
        treadle.sleep(0.001)
        return a:recv()
      end)
      assert.same({ 1, nil, true }, { treadle.select { { a, "send", "x" }, { b, "recv" } } })
      assert.equal("x", got:await())
    end)
    assert.same({ false, "full" }, { a:try_send(1) }) -- nobody waits there any more
    assert.same({ false, "full" }, { b:try_send(1) })
  end)

  it("gives up in time", function()
    local a = treadle.channel()
    assert.same({ nil, "timeout" }, { treadle.select { { a, "recv" }, timeout = 0 } })
    assert.same({ nil, "timeout" }, { treadle.select { { a, "recv" }, { a, "send", 1 },
      timeout = 0.001 } })
    assert.same({ nil, false, "empty" }, { a:try_recv() })
  end)

  it("tells a closed channel: false for who receives, an error for who sends", function()
    local a, b = treadle.channel(1), treadle.channel()
    a:send(1)
    a:close()
    assert.same({ 1, 1, true }, { treadle.select { { a, "recv" }, { b, "recv" } } })
    assert.same({ 1, nil, false }, { treadle.select { { a, "recv" }, { b, "recv" } } })
    local ok, err = pcall(treadle.select, { { a, "send", {} }, { b, "recv" } })
    assert.is_false(ok)
    assert.equal("closed", err.kind)
    for _, how in ipairs { "recv", "send" } do
      local f = treadle.spawn(function() return treadle.select { { b, how, 1 } } end)
      assert.equal("pending", f:state())
      b:close()
      if how == "recv" then
        assert.same({ 1, nil, false }, { f:await() })
        b = treadle.channel()
      else
        ok, err = f:pawait()
        assert.is_false(ok)
        assert.equal("closed", err.kind)
      end
    end
  end)

  it("does not meet itself, but another one", function()
    local a = treadle.channel()
    assert.same({ nil, "timeout" },
      { treadle.select { { a, "send", 1 }, { a, "recv" }, timeout = 0 } })
    treadle.run(function()
      local f = treadle.spawn(treadle.select, { { a, "send", "f" }, { a, "recv" } })
      local g = treadle.spawn(treadle.select, { { a, "recv" }, { a, "send", "g" } })
      local i, v, ok = f:await()
      local j, w, fine = g:await()
      assert.is_true(ok and fine)
      assert.equal(i, j)
      assert.equal(i == 1 and "f" or "g", v or w)
    end)
  end)

  it("says what is wrong with a case", function()
    local a = treadle.channel()
    assert.matches("bad argument #1 to 'select' %(table expected, got nil%)",
      helpers.error_here(function() treadle.select() end))
    assert.matches("a list of cases expected, got an empty one",
      helpers.error_here(function() treadle.select {} end))
    assert.matches("case 2: channel expected, got number",
      helpers.error_here(function() treadle.select { { a, "recv" }, { 5, "recv" } } end))
    assert.matches("case 1: \"recv\" or \"send\" expected, got 'receive'",
      helpers.error_here(function() treadle.select { { a, "receive" } } end))
    assert.matches("case 1: .* expected, got userdata",
      helpers.error_here(function() treadle.select { a } end))
    assert.matches("unknown option 'timout', did you mean 'timeout'%?",
      helpers.error_here(function() treadle.select { { a, "recv" }, timout = 1 } end))
    assert.matches("option 'timeout': seconds expected, got string",
      helpers.error_here(function() treadle.select { { a, "recv" }, timeout = "1" } end))
    local many = {}
    for i = 1, 257 do
      many[i] = { a, "recv" }
    end
    assert.matches("at most 256 cases expected, got 257",
      helpers.error_here(function() treadle.select(many) end))
    many[257] = nil
    many.timeout = 0
    assert.same({ nil, "timeout" }, { treadle.select(many) })
  end)

  it("refuses what cannot travel, and sends none of the cases", function()
    local a = treadle.channel(2)
    local ok, err = pcall(treadle.select, { { a, "send", { 1 } },
      { a, "send", { coroutine.create(print) } } })
    assert.is_false(ok)
    assert.equal("payload", err.kind)
    assert.same({ nil, false, "empty" }, { a:try_recv() })
  end)
end)

helpers.clean()
