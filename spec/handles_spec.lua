--- Handles of shared objects through whatever a call goes through. That nothing of it stays behind
-- is shown by spec/stress/handles_test.c, which counts blocks.
local helpers = require "helpers"
local tasks = require "handles_tasks"
local treadle = require "treadle"

describe("a handle", function()
  local pool, event

  local function open(options)
    options = options or {}
    options.threads = options.threads or 1
    options.terminate_timeout = 0.2
    pool = treadle.pool("handles_tasks", options)
    return pool.call
  end

  before_each(function() event = treadle.event() end)
  after_each(function() pool:terminate() end)

  --- The object still does what it should, in both states.
  local function works(e)
    local other = treadle.pool("handles_tasks", { threads = 1 })
    e:reset()
    local f = other.call.wait(e)
    e:set()
    assert.is_true(f:await())
    other:close()
  end

  it("arrives though its sender has closed its own", function()
    local call = open()
    local asleep = call.sleep(0.01)
    local kept = treadle.shared { event } -- of it, another is got later
    local f = call.wait(event)
    event:close()
    kept[1]:set()
    asleep:await()
    assert.is_true(f:await())
    works(kept[1])
  end)

  it("comes home though its worker has lost all of its own", function()
    local call = open()
    local f = call.echo(event)
    f:wait()
    call.let_go():await()
    pool:close()
    assert.is_true(rawequal(event, f:await()))
    works(event)
  end)

  it("is in the value of an error", function()
    local ok, err = open().fail(event, { event }):pawait()
    assert.is_false(ok)
    assert.equal("on purpose", err.value[1])
    assert.is_true(rawequal(event, err.value[2]) and rawequal(event, err.value[3][1]))
  end)

  it("is in the upvalues of a shipped function, and in those of its upvalues", function()
    open()
    local list = { event }
    local function inner() return event, list end
    local one, two = pool:run(function() return inner() end):await()
    assert.is_true(rawequal(event, one) and rawequal(event, two[1]))
  end)

  it("is in data, for each worker and each that follows", function()
    open { threads = 2, data = { event, { event } } }
    for _ = 1, 2 do
      for _, data in ipairs(pool:broadcast("data"):await()) do
        assert.is_true(rawequal(event, data[1]) and rawequal(event, data[2][1]))
      end
      pool:recycle():await()
    end
  end)

  it("is a task's default, made where the task is", function()
    local call = open { threads = 2 }
    local one, two = call.late():await(), call.late():await()
    assert.matches("^treadle.event: ", tostring(one))
    assert.is_true(rawequal(one, two))
    pool:close()
    works(one)
  end)

  it("is packed and unpacked with an object", function()
    local box = open().echo(tasks.box(event)):await()
    assert.is_true(rawequal(event, box.handle))
  end)

  it("is one of ten thousand", function()
    local list = {}
    for i = 1, 10000 do list[i] = i % 10 == 0 and treadle.event() or event end
    local back = open().echo(list):await()
    for i = 1, 10000 do
      if not rawequal(list[i], back[i]) then error("at " .. i) end
    end
  end)

  it("is the same after each way to be refused", function()
    local call = open { max_payload = 100000 }
    for what, case in pairs {
      ["cannot send a coroutine %(arguments%[2%]%[2%]%)"] = function()
        return call.echo(event, { event, coroutine.create(print) })
      end,
      ["payload is larger than max_payload"] = function()
        return call.echo(event, { event, ("x"):rep(200000) })
      end,
      ["pack on purpose %(arguments%[2%]%)"] = function()
        return call.echo(event, tasks.broken(event, "pack"))
      end,
      ["unpack on purpose"] = function() return call.echo(event, tasks.broken(event)) end,
      ["cannot send a coroutine %(results%[2%]%[2%]%)"] = function()
        return call.unsendable(event)
      end,
      ["payload is larger than max_payload .*"] = function() return call.too_large(event) end,
      [".*'handles.broken'.*unpack on purpose"] = function() return call.unpackable(event) end,
    } do
      local ok, err = case():pawait()
      assert.is_false(ok)
      assert.equal("payload", err.kind)
      assert.matches(what, err.message)
    end
    works(event)
  end)

  it("comes back to nobody: cancelled in the queue, given up, rejected, dropped", function()
    local call = open()
    local asleep = call.sleep(0.02, event)
    local queued, late = call.echo(event), pool:run("sleep", { 1000, event }, { timeout = 0.01 })
    queued:cancel()
    for _ = 1, 100 do call.echo(event, { event }) end
    asleep:await()
    assert.equal("cancelled", select(2, queued:pawait()).kind)
    assert.equal("timeout", select(2, late:pawait()).kind)
    works(event)
  end)

  it("outlives pools that end with it in their queues", function()
    local call = open()
    local list = { call.wait(event) }
    for i = 2, 100 do list[i] = call.echo(event, { event }) end
    pool:terminate()
    for i = 1, 100 do assert.is_false((list[i]:pawait())) end
    works(event)
  end)

  it("is let go of by a state that is stopped, with its waits #computing", function()
    local call = open()
    local f = call.spin(event)
    assert.is_false(f:wait(0.05))
    f:cancel { force = true }
    assert.equal("cancelled", select(2, f:pawait()).kind)
    event:set()
    assert.is_true(call.wait(event):await())
    works(event)
  end)

  it("is sent again with a call whose worker was lost #computing", function()
    open { concurrency = 2 }
    local spinning
    local f = pool:run("wait", { event }, { retries = 2 })
    helpers.poll_until(function() return pool:stats().running == 1 end)
    spinning = pool.call.spin(treadle.event())
    helpers.poll_until(function() return pool:stats().running == 2 end)
    assert.is_false(spinning:wait(0.05))
    spinning:cancel { force = true }
    assert.equal("cancelled", select(2, spinning:pawait()).kind)
    event:set()
    assert.is_true(f:await())
    assert.is_true(pool:stats().restarts >= 1)
  end)

  it("goes from worker to worker", function()
    local call = open { threads = 2, concurrency = 2 }
    local one, two = call.pass(5, event, { event }):await()
    assert.is_true(rawequal(event, one) and rawequal(event, two[1]))
    pool:close()
    works(event)
  end)

  --- Calls a function of the core, in whose first allocation a finalizer closes the handle, which
  -- is the only one: all garbage goes there.
  local function closed_within(handle, fn, ...)
    collectgarbage() -- no cycle is under way, that would have seen the proxy alive
    collectgarbage("stop")
    local proxy = newproxy(true)
    getmetatable(proxy).__gc = function() handle:close() end
    local stepmul = collectgarbage("setstepmul", 0) -- all of a cycle in one step
    proxy = nil -- luacheck: ignore
    collectgarbage("restart")
    local a, b, c = fn(handle, ...)
    collectgarbage("setstepmul", stepmul)
    assert.matches("%(closed%)$", tostring(handle))
    return a, b, c
  end

  it("may be closed by a finalizer when its object is about to be used", function()
    local core = require "treadle.core"
    local mutex = core.lock_functions("mutex")
    assert.is_nil(closed_within(treadle.mutex(), mutex.take, 0, 1, false))
    for _, begun in ipairs {
      { closed_within(treadle.event(), core.event_wait) },
      { closed_within(treadle.barrier(2), core.barrier_wait) },
      { closed_within(treadle.buffer("int", 1), core.atomics_wait, 0, 0, 0) },
    } do
      assert.equal("pending", begun[1]:state())
      assert.is_true(core.wait_leave(begun[2]))
    end
    local ok, err = closed_within(treadle.mutex(), function(m)
      return pcall(mutex.wait, m, 0, 1)
    end)
    assert.is_false(ok)
    assert.matches("the mutex is closed", err)
  end)

  it("says that it is closed, once it is", function()
    local ok, err = open().emit_from_closed(treadle.event()):await()
    assert.is_false(ok)
    assert.matches("the event is closed", err)
  end)
end)

describe("what states share", function()
  teardown(helpers.clean)

  for _, name in ipairs {
    "buffer", "move", "atomics", "counter", "channel", "select", "mutex", "rwlock", "semaphore",
    "barrier", "event", "shared", "pairs", "ipairs", "pmap", "psort",
  } do
    it("may be first used as treadle." .. name, function()
      local out, err, code = helpers.child("luajit", [[
        local treadle = require "treadle"
        local first = treadle[...]
        assert(type(first) == (... == "atomics" and "table" or "function"), type(first))
        local buf = treadle.buffer("int", 2)
        local moved = treadle.move(buf)
        treadle.channel(1):send(moved)
        print(tostring(buf))
      ]], name)
      assert.same({ "treadle.buffer (moved)\n", "", 0 }, { out, err, code })
    end)
  end

  it("may be given away by the first call that there is", function()
    local out, err, code = helpers.child("luajit", [[
      local treadle = require "treadle"
      local pool = treadle.pool("string", { threads = 1 })
      assert(pool:run("rep", { "ab", 2 }, { transfer = {} }):await() == "abab")
      pool:close()
    ]])
    assert.same({ "", "", 0 }, { out, err, code })
  end)
end)
