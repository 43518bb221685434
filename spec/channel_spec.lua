local helpers = require "helpers"
local history = require "history"
local treadle = require "treadle"

local HUGE = 2 ^ 53

local function closed_kind(...)
  local ok, err = pcall(...)
  assert.is_false(ok)
  return err.kind
end

describe("a channel", function()
  it("keeps what was sent, in order, up to its capacity", function()
    local ch = treadle.channel(3)
    assert.is_true(ch:send(1))
    assert.is_true(ch:try_send("two"))
    assert.is_true(ch:send(false))
    assert.same({ false, "full" }, { ch:try_send(4) })
    assert.same({ 1, true }, { ch:recv() })
    assert.same({ "two", true }, { ch:try_recv() })
    assert.same({ false, true }, { ch:recv() })
    assert.same({ n = 3, nil, false, "empty" }, { n = select("#", ch:try_recv()), ch:try_recv() })
  end)

  it("carries every kind of value, and nil as one", function()
    local ch = treadle.channel(20)
    local cyclic = { a = { 1, 2, 3 }, text = "x" }
    cyclic.self = cyclic
    local values = { n = 11, nil, true, false, 0, -0.0, 1 / 0, HUGE, "", ("x"):rep(300),
      ("long "):rep(5000), cyclic }
    for round = 1, 3 do
      for i = 1, values.n do
        ch:send(values[i])
      end
      for i = 1, values.n do
        local v, ok = ch:recv()
        assert.is_true(ok)
        if i == values.n then
          assert.equal(v, v.self)
          assert.same({ 1, 2, 3 }, v.a)
        else
          assert.equal(values[i], v, "value " .. i .. " of round " .. round)
        end
      end
    end
    ch:send(0 / 0)
    local nan = ch:recv()
    assert.is_true(nan ~= nan)
    ch:send(-0.0)
    assert.equal(-1 / 0, 1 / ch:recv())
  end)

  it("does the same for code that is compiled", function()
    local ch, n = treadle.channel(2), 0
    for i = 1, 1000 do
      ch:send(i)
      ch:send("s" .. i)
      local v = ch:recv()
      local s, ok = ch:try_recv()
      assert(ok and s == "s" .. i)
      n = n + v
      ch:send(i % 2 == 0)
      assert(ch:recv() == (i % 2 == 0))
      ch:try_send(nil)
      v, ok = ch:recv()
      assert(v == nil and ok)
      ch:send({ i })
      assert(ch:recv()[1] == i)
    end
    assert.equal(500500, n)
  end)

  it("refuses what cannot travel, and keeps nothing of it", function()
    local ch = treadle.channel(1)
    local ok, err = pcall(ch.send, ch, { coroutine.create(print) })
    assert.is_false(ok)
    assert.equal("payload", err.kind)
    assert.matches("cannot send a coroutine %(message%[1%]%[1%]%)", err.message)
    assert.equal("payload", closed_kind(ch.try_send, ch, print and coroutine.create(print)))
    assert.same({ nil, false, "empty" }, { ch:try_recv() })
  end)

  it("says what it was given instead of a channel or a number", function()
    local ch = treadle.channel(1)
    assert.matches("bad argument #1 to 'recv' %(channel expected, got table%)",
      helpers.error_here(function() ch.recv({}) end))
    assert.matches("bad argument #1 to 'send' %(channel expected, got userdata%)",
      helpers.error_here(function() ch.send(io.stdout, 1) end))
    for _, name in ipairs { "iter", "close", "try_send", "try_recv" } do
      assert.matches("bad argument #1 to '" .. name .. "' %(channel expected, got nil%)",
        helpers.error_here(function() ch[name]() end))
    end
    assert.matches("bad argument #1 to 'recv' %(number expected, got string%)",
      helpers.error_here(function() ch:recv("1") end))
    assert.matches("bad argument #2 to 'send' %(number expected, got boolean%)",
      helpers.error_here(function() ch:send(1, true) end))
    assert.matches("bad argument #1 to 'channel'",
      helpers.error_here(function() treadle.channel(-1) end))
    assert.matches("bad argument #1 to 'channel'",
      helpers.error_here(function() treadle.channel("3") end))
  end)

  it("without a buffer hands over from coroutine to coroutine", function()
    local ch, log = treadle.channel(), {}
    assert.same({ false, "full" }, { ch:try_send(1) })
    treadle.run(function()
      treadle.spawn(function()
        for i = 1, 3 do
          ch:send(i)
          log[#log + 1] = "sent " .. i
        end
        ch:close()
      end)
      assert.same({}, log)
      for v in ch:iter() do
        log[#log + 1] = v
      end
    end)
    table.sort(log, function(a, b) return tostring(a) < tostring(b) end)
    assert.same({ 1, 2, 3, "sent 1", "sent 2", "sent 3" }, log)
  end)

  it("with math.huge takes as much as is sent", function()
    local ch = treadle.channel(math.huge)
    for i = 1, 10000 do
      assert(ch:try_send(i))
    end
    ch:close()
    local n = 0
    for v in ch:iter() do
      n = n + 1
      assert(v == n)
    end
    assert.equal(10000, n)
  end)

  it("gives up in time, and then nothing was sent or received", function()
    local ch = treadle.channel(1)
    assert.same({ nil, false, "timeout" }, { ch:recv(0) })
    assert.same({ nil, false, "timeout" }, { ch:recv(0.001) })
    assert.same({ nil, false, "timeout" }, { ch:recv(-1) })
    ch:send(1, 0)
    assert.same({ false, "timeout" }, { ch:send(2, 0) })
    assert.same({ false, "timeout" }, { ch:send({ 2 }, 0.001) })
    assert.same({ 1, true }, { ch:recv(1) })
    assert.same({ nil, false, "empty" }, { ch:try_recv() })
    assert.is_true(ch:send(3, math.huge))
    assert.equal(3, (ch:recv(math.huge)))
  end)

  it("that is closed gives what is in it, and then says so", function()
    local ch = treadle.channel(3)
    ch:send(1)
    ch:send({ 2 })
    ch:close()
    ch:close()
    assert.equal("closed", closed_kind(ch.send, ch, 3))
    assert.equal("closed", closed_kind(ch.send, ch, {}))
    assert.equal("closed", closed_kind(ch.send, ch, 3, 1))
    local _, err = pcall(function() ch:send(3) end)
    assert.matches("channel_spec.lua:%d+", err.traceback)
    assert.same({ false, "closed" }, { ch:try_send(3) })
    assert.same({ false, "closed" }, { ch:try_send({}) })
    assert.equal(1, (ch:recv()))
    assert.same({ 2 }, (ch:try_recv()))
    assert.same({ nil, false, "closed" }, { ch:recv() })
    assert.same({ nil, false, "closed" }, { ch:recv(1) })
    assert.same({ nil, false, "closed" }, { ch:try_recv() })
    assert.is_nil(ch:iter()())
  end)

  it("gives an iterator that is called without arguments, by whoever has it", function()
    local ch = treadle.channel(10)
    for i = 1, 5 do
      ch:send(i)
    end
    ch:close()
    local next_value = ch:iter()
    assert.equal(1, next_value())
    ch = nil -- luacheck: ignore
    collectgarbage()
    assert.equal(2, next_value("of no meaning"))
    for i = 3, 5 do
      assert.equal(i, next_value())
    end
    assert.is_nil(next_value())
  end)

  it("raises where a for loop would end at a nil", function()
    local ch = treadle.channel(2)
    ch:send(false)
    ch:send(nil)
    local seen = {}
    assert.error_matches(function()
      for v in ch:iter() do
        seen[#seen + 1] = v
      end
    end, "nil was received")
    assert.same({ false }, seen)
    ch:send(nil)
    local next_value = ch:iter()
    assert.equal("nil was received, which ends a for loop: receive it with recv",
      helpers.error_here(function() next_value() end))
  end)

  it("wakes those who wait in the order in which they came", function()
    local ch, got = treadle.channel(1), {}
    treadle.run(function()
      local all = {}
      for i = 1, 5 do
        all[i] = treadle.spawn(function() got[i] = ch:recv() end)
      end
      for i = 1, 5 do
        ch:send(i)
      end
      treadle.all(all):await()
      assert.same({ 1, 2, 3, 4, 5 }, got)
      ch:send(0)
      for i = 1, 5 do
        all[i] = treadle.spawn(function() ch:send(i) end)
      end
      for i = 0, 5 do
        assert.equal(i, (ch:recv()))
      end
      treadle.all(all):await()
    end)
  end)

  it("is the same wherever it travels, also in itself", function()
    local a, b = treadle.channel(2), treadle.channel(1)
    b:send(7)
    a:send({ b, b })
    a:send(a)
    b = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    local list = a:recv()
    assert.is_true(rawequal(list[1], list[2]))
    assert.equal(7, (list[1]:recv()))
    assert.is_true(rawequal(a, (a:recv())))
    assert.matches("^treadle.channel: 0x%x+$", tostring(a))
  end)

  it("gives each message once, also to finalizers that run meanwhile", function()
    local ch, seen, count = treadle.channel(math.huge), {}, 0
    local function note(v)
      v = tonumber(type(v) == "table" and v.n or v)
      assert(not seen[v])
      seen[v] = true
      count = count + 1
    end
    local left = 200
    local function make()
      local proxy = newproxy(true)
      getmetatable(proxy).__gc = function()
        local v, ok = ch:try_recv()
        if ok then
          note(v)
        end
        if left > 0 then
          left = left - 1
          make()
        end
      end
    end
    for _ = 1, 20 do
      make()
    end
    collectgarbage("setpause", 10)
    for i = 1, 5000 do
      ch:send(i % 2 == 0 and { n = i } or tostring(i))
      if i % 3 > 0 then
        local v, ok = ch:try_recv()
        if ok then
          note(v)
        end
      end
    end
    collectgarbage("setpause", 200)
    left = 0
    ch:close()
    for v in ch:iter() do
      note(v)
    end
    assert.equal(5000, count)
  end)

  local function is_moved(buf)
    return tostring(buf) == "treadle.buffer (moved)"
  end

  it("takes a moved buffer from its sender once it is sent, and not before", function()
    local ch = treadle.channel(1)
    local function new() return treadle.buffer("int", 2):fill(7) end
    local a, b = new(), new()
    ch:send({ treadle.move(a), 1 })
    assert.is_true(is_moved(a))
    assert.is_false((ch:try_send(treadle.move(b))))
    assert.is_false((ch:send(treadle.move(b), 0.001)))
    local case = { ch, "send", treadle.move(b) }
    assert.same({ nil, "timeout" }, { treadle.select { case, timeout = 0 } })
    assert.equal(7, b:get(1))
    treadle.run(function()
      local later, chosen, other = new(), new(), new()
      local f = treadle.spawn(ch.send, ch, treadle.move(b))
      local g = treadle.spawn(ch.send, ch, treadle.move(later))
      assert.is_false(is_moved(b) or is_moved(later))
      assert.equal(7, (ch:recv())[1]:get(1))
      assert.is_true(f:await())
      assert.is_true(is_moved(b) and not is_moved(later))
      assert.equal(7, (ch:recv()):get(1))
      assert.is_true(g:await())
      assert.is_true(is_moved(later))
      local full = treadle.channel(0)
      local h = treadle.spawn(treadle.select, {
        { full, "send", treadle.move(other) }, { ch, "send", treadle.move(chosen) } })
      assert.is_false(is_moved(chosen))
      ch:recv()
      h:await()
      assert.is_true(is_moved(chosen) and not is_moved(other))
      assert.equal(7, (ch:recv()):get(1))
      assert.equal(1, (treadle.select { { ch, "send", treadle.move(other) } }))
      assert.is_true(is_moved(other))
    end)
  end)

  it("leaves a buffer with its sender whose wait was cancelled", function()
    local ch, buf = treadle.channel(0), treadle.buffer("int", 1)
    local pool = treadle.pool("channel_tasks", { threads = 1 })
    local was_moved
    helpers.with_limit(function(seconds)
      local f = pool:run("send_moved", { ch, buf }, { timeout = seconds })
      assert.equal("timeout", helpers.outcome(f))
      was_moved = pool.call.was_moved():await()
      return was_moved ~= nil
    end)
    assert.is_false(was_moved)
    assert.is_false(is_moved(buf))
    assert.same({ nil, false, "empty" }, { ch:try_recv() })
    pool:close()
  end)

  it("is freed with what is in it", function()
    local outer = treadle.channel(1)
    for i = 1, 1000 do
      local ch = treadle.channel(2)
      ch:send(outer)
      ch:send(("x"):rep(i))
      outer = ch
    end
    outer = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
  end)
end)

describe("channels between states", function()
  local pool
  local done = helpers.watch()

  before_each(function() pool = treadle.pool("channel_tasks", { threads = 2 }) end)
  after_each(function() pool:close() end)

  it("carry all there is, in order, through any capacity", function()
    for _, capacity in ipairs { 0, 1, 7, 1000 } do
      local to, from = treadle.channel(capacity), treadle.channel(capacity)
      local reply = pool.call.reply(to, from)
      local feeder = treadle.spawn(function()
        for i = 1, 2000 do
          to:send(i % 3 == 0 and { i } or i % 3 == 1 and i or tostring(i))
        end
        to:close()
      end)
      local n = 0
      treadle.run(function()
        for v in from:iter() do
          n = n + 1
          assert(tonumber(type(v) == "table" and v[1] or v) == n)
        end
      end)
      assert.equal(2000, n)
      feeder:await()
      reply:await()
    end
  end)

  it("are the input of a parallel loop", function()
    local ch = treadle.channel(2)
    local feeder = treadle.spawn(function()
      for i = 1, 100 do
        ch:send(i)
      end
      ch:close()
    end)
    local list = treadle.pmap(function(x) return 2 * x end, ch:iter(), { pool = pool }):await()
    assert.same({ 100, 2, 200 }, { #list, list[1], list[100] })
    feeder:await()
  end)

  it("go back and forth in a main chunk", function()
    local to, from = treadle.channel(), treadle.channel()
    local reply = pool.call.reply(to, from)
    for i = 1, 2000 do
      to:send(i)
      assert(from:recv() == i)
    end
    to:close()
    assert.same({ nil, false, "closed" }, { from:recv() })
    reply:await()
  end)

  it("close for everybody who waits, whoever closes them", function()
    for _, who in ipairs { "host", "task" } do
      local ch, full = treadle.channel(0), treadle.channel(0)
      local ready = treadle.event()
      local recv = pool.call.recv_after(ready, ch)
      ready:wait()
      local here = treadle.spawn(ch.recv, ch)
      local send = treadle.spawn(full.send, full, 1)
      if who == "host" then
        ch:close()
        full:close()
      else
        pool.call.try("close", ch):await()
        pool.call.try("close", full):await()
      end
      assert.same({ nil, false, "closed" }, { recv:await() })
      assert.same({ nil, false, "closed" }, { here:await() })
      local ok, err = send:pawait()
      assert.is_false(ok)
      assert.equal("closed", err.kind)
    end
  end)

  it("raise what was refused in a task as in the host", function()
    local ch = treadle.channel(1)
    ch:close()
    assert.same({ false, "closed" }, { pool.call.try("send", ch, 1):await() })
    assert.same({ true, false, "closed" }, { pool.call.try("try_send", ch, 1):await() })
  end)

  it("do not end with the handle, nor with the state, that made them", function()
    local ch = treadle.channel(5)
    local waits = pool.call.recv(ch)
    pool.call.send(ch, 1):await()
    assert.equal(1, waits:await())
    pool.call.send(ch, 2, { 3 }):await()
    pool:terminate()
    assert.equal(2, (ch:recv()))
    assert.same({ 3 }, (ch:recv()))
  end)

  --- A pool of one worker: a task waits, called first, and another one holds the worker, so that
  -- nothing that is granted can be taken. `release` ends that.
  local function hold(task, ...)
    local single = treadle.pool("channel_tasks", { threads = 1, concurrency = 2 })
    local ready, go = treadle.event(), treadle.event()
    local waits = single.call[task](...)
    local holds = single.call.hold(ready, go)
    assert.is_true(ready:wait(helpers.TIMEOUT))
    return single, waits, function() go:set() end, holds
  end

  for _, task in ipairs { "recv", "select" } do
    it("get back what was granted to a task that is cancelled: " .. task, function()
      local ch = treadle.channel(0)
      local single, waits, release = hold(task, ch)
      assert.is_true(ch:try_send("kept"))
      waits:cancel()
      release()
      assert.same({ "kept", true }, { ch:recv(helpers.TIMEOUT) })
      assert.equal("alive", single.call.echo("alive"):await())
      single:close()
    end)

    it("get back what was granted in a state that is stopped, #computing: " .. task, function()
      local ch = treadle.channel(0)
      local single, waits, _, holds = hold(task, ch)
      assert.is_true(ch:try_send("kept"))
      holds:cancel { force = true }
      assert.same({ "kept", true }, { ch:recv(helpers.TIMEOUT) })
      assert.is_false((waits:pawait()))
      assert.equal("alive", single.call.echo("alive"):await())
      single:close()
    end)

    it("get back what was granted in a pool that is terminated, #computing: " .. task, function()
      local ch = treadle.channel(0)
      local single, waits = hold(task, ch)
      assert.is_true(ch:try_send({ "kept" }))
      assert.is_true(ch:try_send("second") == false)
      ch:close() -- what is in it can still be received
      single:terminate()
      single:close()
      helpers.poll_until(function()
        local v, ok, why = ch:try_recv()
        assert(ok or why == "closed")
        return ok and v[1] == "kept"
      end)
      assert.is_false((waits:pawait()))
      assert.same({ nil, false, "closed" }, { ch:recv() })
    end)
  end

  --- Has `meet(ch)` meet a task that waits with a time limit, which is over when the task goes on.
  -- On a slow machine it may be over before: then once more, with a longer one.
  local function meet_late(meet, task, method)
    for _, limit in ipairs { 0.02, 0.2, 2 } do
      local ch = treadle.channel(0)
      local args = method and { method, ch, "x", limit } or { ch, limit }
      local single, waits, release = hold(task, unpack(args))
      local met = meet(ch)
      if met then
        treadle.sleep(1.5 * limit)
      end
      release()
      local a, b = waits:await()
      single:close()
      if met then
        return a, b
      end
    end
    error("it never waited")
  end

  it("have sent what somebody has taken, though its sender is late", function()
    local _, sent = meet_late(function(ch) return ch:try_recv() == "x" end, "try", "send")
    assert.is_true(sent)
  end)

  it("have given what was granted, though its receiver is late", function()
    local value, ok = meet_late(function(ch) return ch:try_send("x") end, "recv")
    assert.same({ "x", true }, { value, ok })
  end)

  it("do not have what was offered by who gave up", function()
    local ch = treadle.channel(0)
    local single, waits, release, holds = hold("try", "send", ch, "x")
    waits:cancel()
    release()
    holds:await()
    single.call.echo():await()
    assert.same({ nil, false, "empty" }, { ch:try_recv() })
    single:close()
  end)

  it("lose nothing when tasks are cancelled as they receive", function()
    local ch, got, seen = treadle.channel(0), treadle.channel(math.huge), {}
    for i = 1, 300 do
      local f
      helpers.poll_until(function()
        if not f or f:state() ~= "pending" then -- it has had one that was put back
          f = pool.call.pass(ch, got)
        end
        return ch:try_send(i) -- it waits, and is granted that
      end)
      f:cancel()
    end
    pool:close()
    got:close()
    ch:close()
    for _, from in ipairs { ch, got } do
      for v in from:iter() do
        assert.is_nil(seen[v])
        seen[v] = true
      end
    end
    assert.equal(300, #seen)
  end)

  it("go on when a task that has received, or only asks, is stopped #computing", function()
    local ch, got = treadle.channel(0), treadle.channel(0)
    local f = pool.call.loop_after_recv(ch, got)
    ch:send(1)
    assert.equal(1, (got:recv()))
    f:cancel { force = true }
    local g = pool.call.spin_on(got)
    assert.is_false(g:wait(0.02))
    g:cancel { force = true }
    assert.is_false((g:pawait()))
    for i = 1, 10 do
      local reply = pool.call.recv(ch)
      ch:send(i)
      assert.equal(i, reply:await())
    end
  end)

  it("forget a message that was being read in a state that is stopped #computing", function()
    local tasks = require "channel_tasks"
    local ch, entered = treadle.channel(0), treadle.event()
    local single = treadle.pool("channel_tasks", { threads = 1 })
    local f = single.call.read_stuck(ch, entered)
    helpers.poll_until(function() return ch:try_send(tasks.stuck()) end)
    assert.is_true(entered:wait(helpers.TIMEOUT))
    f:cancel { force = true }
    assert.equal("alive", single.call.echo("alive"):await()) -- of the next state
    assert.same({ nil, false, "empty" }, { ch:try_recv() })
    single:close()
  end)

  it("end a task's wait at its timeout", function()
    local ch = treadle.channel(0)
    local single = treadle.pool("channel_tasks", { threads = 1, concurrency = 2 })
    for _, fn in ipairs { "recv_after", "drain_after" } do
      local f = helpers.with_limit(function(seconds)
        local ready = treadle.event()
        local f = single:run(fn, { ready, ch }, { timeout = seconds })
        single.call.echo():await() -- in the same worker: `f` waits, if it has begun
        return ready:is_set() and f
      end)
      assert.equal("timeout", helpers.outcome(f))
      local sent = treadle.spawn(ch.send, ch, fn)
      assert.same({ fn, true }, { ch:recv(helpers.TIMEOUT) })
      sent:await()
    end
    single:close()
  end)

  it("nothing is left", function()
    pool:close()
    done()
  end)
end)

describe("eight states that contend for channels", function()
  it("see what could have happened one after the other", function()
    local seed = tonumber(os.getenv "TDL_SEED") or os.time() % 1e6
    print("# TDL_SEED=" .. seed)
    local pool = treadle.pool("channel_tasks", { threads = 7 })
    local capacities = { 0, 1, 5 }
    local channels = {}
    for i, capacity in ipairs(capacities) do
      channels[i] = treadle.channel(capacity)
    end
    local over = treadle.channel(math.huge)
    local tasks = require "channel_tasks"
    local parts = {}
    treadle.run(function()
      local futures = {}
      for id = 1, 7 do
        futures[id] = pool.call.contend(id, seed + id, channels, 300, over)
      end
      futures[8] = treadle.spawn(tasks.contend, 8, seed + 8, channels, 300, over)
      for id = 1, 8 do
        parts[id] = { futures[id]:await() }
      end
    end)
    for i, capacity in ipairs(capacities) do
      local sends, recvs = {}, {}
      for id = 1, 8 do
        for _, record in ipairs(parts[id][1][i]) do
          sends[#sends + 1] = record
        end
        for _, record in ipairs(parts[id][2][i]) do
          recvs[#recvs + 1] = record
        end
      end
      repeat -- what is left in it
        local began = treadle.now()
        local value, ok = channels[i]:try_recv()
        if ok then
          recvs[#recvs + 1] = { value = value, began = began, ended = treadle.now() }
        end
      until not ok
      assert.is_true(#sends > 100, #sends .. " values were sent")
      assert.is_nil(history.fault(sends, recvs, capacity))
    end
    pool:close()
  end)
end)

-- A checker that finds nothing must be seen to find something.
describe("the check of histories", function()
  local function record(value, began, ended)
    return { value = value, began = began, ended = ended }
  end

  it("accepts what is possible", function()
    assert.is_nil(history.fault({ record(1, 0, 1), record(2, 2, 3) },
      { record(2, 4, 9), record(1, 4, 9) }, 2)) -- they overlap
    assert.is_nil(history.fault({ record(1, 0, 5) }, { record(1, 4, 9) }, 0))
    assert.is_nil(history.fault({}, {}, 0))
  end)

  it("finds what is lost, doubled, made up or early", function()
    local sends = { record(1, 0, 1) }
    assert.matches("1 was lost", history.fault(sends, {}, 1))
    assert.matches("twice", history.fault(sends, { record(1, 2, 3), record(1, 4, 5) }, 1))
    assert.matches("2 was never sent", history.fault(sends, { record(2, 2, 3) }, 1))
    assert.matches("before it was sent", history.fault({ record(1, 5, 6) }, { record(1, 2, 3) }, 1))
  end)

  it("finds what was overtaken", function()
    assert.matches("1 was sent before 2", history.fault({ record(1, 0, 1), record(2, 2, 3) },
      { record(2, 4, 5), record(1, 6, 7) }, 2))
  end)

  it("finds a buffer that held too much, and a hand-over that was none", function()
    assert.matches("the capacity is 1", history.fault({ record(1, 0, 1), record(2, 2, 3) },
      { record(1, 4, 5), record(2, 6, 7) }, 1))
    assert.matches("was over before", history.fault({ record(1, 0, 1) }, { record(1, 2, 3) }, 0))
  end)
end)

helpers.clean()
