--- Cancelling spawned coroutines: what they see, in every wait, and what is given up with them.
local helpers = require "helpers"
local treadle = require "treadle"

local core = require "treadle.core"
local tasks = require "spawn_tasks"

--- Run the loop until nothing is ready.
local function settle()
  while treadle.poll() > 0 do end
end

describe("a spawned coroutine that is cancelled", function()
  local pool, done

  setup(function()
    done = helpers.watch()
    pool = treadle.pool("spawn_tasks", { threads = 2 })
  end)

  teardown(helpers.clean)

  for _, name in ipairs(tasks.names()) do
    it(("ends its wait, from a main chunk: %s"):format(name), function()
      assert.equal(tasks.expected(), tasks.cancel_in(name))
      settle()
      assert.is_false(core.is_live()) -- no timer, no call
    end)

    it(("ends its wait, from a coroutine: %s"):format(name), function()
      assert.equal(tasks.expected(), treadle.run(tasks.cancel_in, name))
    end)

    it(("ends its wait, in a task: %s"):format(name), function()
      assert.equal(tasks.expected(), pool.call.cancel_in(name):await())
    end)
  end

  it("ends its wait for a pool to come to rest", function()
    local entered, left = treadle.event(), treadle.channel(1)
    local call = pool.call.nap(entered, left)
    entered:wait()
    local err
    local f = treadle.spawn(function()
      err = select(2, pcall(function() pool:drained():await() end))
    end)
    f:cancel("enough")
    settle()
    assert.equal("enough", err.message)
    call:cancel("now")
    assert.equal("now", (left:recv()))
    pool:drained():await()
  end)

  it("takes along the call that it alone awaits", function()
    local entered, left = treadle.event(), treadle.channel(1)
    local call = pool.call.nap(entered, left)
    local f = treadle.spawn(function() call:await() end)
    entered:wait()
    f:cancel("enough")
    assert.equal("enough", (left:recv()))
    assert.equal("cancelled", call:state())
  end)

  it("leaves alone a call that others await, too", function()
    local entered, gate, left = treadle.event(), treadle.event(), treadle.channel(1)
    local call = pool.call.compute(entered, gate, left)
    local f = treadle.spawn(function() call:await() end)
    local other = treadle.spawn(function() call:await() return "awaited" end)
    f:cancel()
    settle()
    assert.equal("pending", call:state())
    gate:set()
    assert.equal("awaited", other:await())
    assert.equal("computed", (left:recv()))
  end)

  it("leaves alone what it did not await, and a future of nobody's work", function()
    local own, resolve = treadle.future()
    local entered, gate, left = treadle.event(), treadle.event(), treadle.channel(1)
    local call
    local f = treadle.spawn(function()
      call = pool.call.compute(entered, gate, left)
      own:await()
    end)
    f:cancel()
    settle()
    assert.equal("pending", own:state())
    assert.equal("pending", call:state())
    resolve(1)
    assert.equal(1, own:await())
    gate:set()
    call:await()
    left:recv()
  end)

  it("takes along what it awaits through others", function()
    local first, second = treadle.spawn(treadle.sleep, 1000), treadle.spawn(treadle.sleep, 1000)
    local f = treadle.spawn(function() treadle.all({ first, second }):await() end)
    f:cancel("enough")
    settle()
    assert.equal("enough", select(2, first:pawait()).message)
    assert.equal("enough", select(2, second:pawait()).message)
  end)

  it("takes along a call that waits for its arguments, not the arguments", function()
    local argument = treadle.spawn(function() treadle.sleep(0.01) return 1 end)
    local call = pool.call.add(argument, 2)
    local f = treadle.spawn(function() call:await() end)
    f:cancel()
    settle()
    assert.equal("cancelled", call:state())
    assert.equal(1, argument:await())
  end)

  it("takes along what it has spawned, and what that has", function()
    local notes = {}
    local function nap(name)
      local text = name .. " " .. select(2, pcall(treadle.sleep, 1000)).message
      notes[#notes + 1] = text
    end
    local f = treadle.spawn(function()
      treadle.spawn(function()
        treadle.spawn(nap, "grandchild")
        nap("child")
      end)
      treadle.sleep(0)
      nap("parent")
    end)
    local beside = treadle.spawn(treadle.sleep, 1000)
    treadle.sleep(0.01)
    f:cancel("enough")
    settle()
    table.sort(notes)
    assert.same({ "child enough", "grandchild enough", "parent enough" }, notes)
    assert.equal("pending", beside:state())
    beside:cancel()
  end)

  it("leaves what it has spawned if it has ended", function()
    local child
    local f = treadle.spawn(function()
      child = treadle.spawn(function() treadle.sleep(0.01) return "alive" end)
    end)
    assert.is_false(f:cancel())
    assert.equal("alive", child:await())
  end)

  it("keeps no chain of makers alive", function()
    local weak = setmetatable({}, { __mode = "v" })
    local last, resolve = treadle.future()
    local function step(n)
      weak[n] = coroutine.running()
      treadle.sleep(0)
      if n < 100 then
        treadle.spawn(step, n + 1)
      else
        last:await()
      end
    end
    treadle.spawn(step, 1)
    helpers.poll_until(function() return weak[100] end)
    jit.flush()
    collectgarbage()
    collectgarbage()
    local count = 0
    for _ in pairs(weak) do
      count = count + 1
    end
    assert.is_true(count <= 2)
    resolve()
  end)

  it("is kept by its future, and collected with it", function()
    local weak, notes = setmetatable({}, { __mode = "v" }), {}
    local function wait(i)
      weak[i] = coroutine.running()
      notes[i] = select(2, pcall(function() treadle.future():await() end)).message
    end
    local f = treadle.spawn(wait, 1)
    treadle.spawn(wait, 2)
    jit.flush()
    collectgarbage()
    collectgarbage()
    assert.is_nil(weak[2])
    f:cancel("enough")
    settle()
    assert.equal("enough", notes[1])
  end)

  it("wakes coroutines of the script that wait in it", function()
    local err
    local f = treadle.spawn(function()
      coroutine.wrap(function()
        err = select(2, pcall(treadle.sleep, 1000))
      end)()
      treadle.future():await()
    end)
    f:cancel("enough")
    settle()
    assert.equal("enough", err.message)
  end)

  it("may cancel itself, and be cancelled again", function()
    local f, err
    f = treadle.spawn(function()
      treadle.sleep(0)
      assert(f:cancel("first") == true and f:cancel("second") == false)
      err = select(2, pcall(treadle.sleep, 1000))
    end)
    assert.equal("first", select(2, f:pawait()).message)
    settle()
    assert.equal("first", err.message)
  end)

  it("is cancelled though what it waits for has just come: what came is not lost", function()
    local ch, err = treadle.channel(1), nil
    local f = treadle.spawn(function() err = select(2, pcall(ch.recv, ch)) end)
    ch:send("kept")
    f:cancel("enough")
    settle()
    assert.equal("enough", err.message)
    assert.equal("kept", (ch:recv(helpers.TIMEOUT)))
  end)

  it("has ended in the turn in which it would be cancelled", function()
    local gate, open = treadle.future()
    local f = treadle.spawn(function() gate:await() return "done" end)
    open()
    treadle.poll()
    assert.is_false(f:cancel())
    assert.equal("done", f:await())
  end)

  it("frees the locks that it holds", function()
    local m = treadle.mutex()
    local f = treadle.spawn(function()
      m:with(function() treadle.sleep(1000) end)
    end)
    assert.is_false(m:try_lock())
    f:cancel()
    settle()
    assert.is_true(m:try_lock())
    m:unlock()
  end)

  it("may be one of ten thousand", function()
    local count, list = 0, {}
    for i = 1, 1e4 do
      list[i] = treadle.spawn(function()
        if not pcall(treadle.sleep, 1000) then
          count = count + 1
        end
      end)
    end
    for i = 1, 1e4 do
      list[i]:cancel()
    end
    settle()
    assert.equal(1e4, count)
    assert.is_false(core.is_live())
  end)

  it("tells an error of its cleanup", function()
    local out, err, code = helpers.child("treadle", [[
      treadle.spawn(function()
        pcall(treadle.sleep, 1000)
        error("in the cleanup")
      end):cancel()
    ]])
    assert.same({ "", 0 }, { out, code })
    assert.matches("dropped unseen: .*in the cleanup", err)
  end)

  it("does not keep the command from exiting", function()
    local out, err, code = helpers.child("treadle", [[
      for _, wait in ipairs {
        function() treadle.event():wait() end, function() treadle.sleep(1000) end,
        function() treadle.channel():recv() end, function() treadle.future():await() end,
      } do
        treadle.spawn(function()
          local ok, err = pcall(wait)
          print(ok, err.message)
        end):cancel("why")
      end
    ]])
    assert.same({ ("false\twhy\n"):rep(4), "", 0 }, { out, err, code })
  end)

  it("with force is cancelled as without", function()
    local err
    local f = treadle.spawn(function() err = select(2, pcall(treadle.sleep, 1000)) end)
    assert.is_true(f:cancel { force = true, reason = "enough" })
    settle()
    assert.equal("enough", err.message)
  end)

  it("may be a step of a chain", function()
    local notes = {}
    for _, how in ipairs { "and_then", "finally" } do
      local f = treadle.resolved()[how](treadle.resolved(), function()
        local text = select(2, pcall(treadle.sleep, 1000)).message
        notes[#notes + 1] = text
      end)
      settle()
      f:cancel("enough")
      settle()
    end
    assert.same({ "enough", "enough" }, notes)
  end)

  it("leaves no thread and no descriptor", function()
    pool:close(helpers.TIMEOUT)
    done()
  end)
end)
