--- What a task emits, and what its caller gets of it: in each stage, at each end.
local helpers = require "helpers"
local treadle = require "treadle"
require "treadle.channel"

local BUFFER = require("treadle.core").STREAM_BUFFER
--- As many as fit, but not many.
local SOME = math.min(10, BUFFER)

--- Of the build that this spec runs with.
local VARIANT = helpers.shell("command -v treadle"):match("/build/(%w+)/treadle\n$")

--- All values that are left, and the error that ended them, if one did.
local function drain(iterator)
  local list = {}
  local ok, err = pcall(function()
    for v in iterator do
      list[#list + 1] = v
    end
  end)
  return list, not ok and err or nil
end

local function range(n)
  local list = {}
  for i = 1, n do
    list[i] = i
  end
  return list
end

--- Collect what nobody holds any more.
local function collect()
  require("jit").flush() -- a trace holds on to the functions that it calls
  collectgarbage()
  collectgarbage()
end

describe("a stream", function()
  local done, pool, call

  setup(function()
    done = helpers.watch()
    pool = treadle.pool("stream_tasks", { threads = 1, concurrency = 2, max_payload = 1000 })
    call = pool.call
  end)

  teardown(function()
    pool:close(helpers.TIMEOUT)
    done()
    helpers.clean()
  end)

  it("gives what the task emits, in that order, and ends with it", function()
    local f = call.count(1000)
    assert.same(range(1000), (drain(f:stream())))
    assert.equal(1000, f:await())
  end)

  it("gives each kind of value", function()
    local ch = treadle.channel()
    local values = { 1, -0.5, "text", ("long "):rep(100), "", true, false, { 1, { x = 2 } }, ch,
      1 / 0 }
    local list = drain(call.emit_all(unpack(values)):stream())
    assert.same(values, list)
    assert.equal(ch, list[9])
  end)

  it("gives them in a coroutine, too, and to several in turn", function()
    local f = call.count(300)
    local next_value, seen = f:stream(), {}
    local function consume()
      for v in next_value do
        seen[v] = (seen[v] or 0) + 1
        treadle.sleep(0)
      end
    end
    treadle.all({ treadle.spawn(consume), treadle.spawn(consume) }):await()
    assert.equal(300, #seen)
    for i = 1, 300 do
      assert.equal(1, seen[i])
    end
  end)

  it("lets nothing be emitted that its caller has no room for", function()
    local begun, taken = treadle.counter(), 0
    local f = call.counted(20 * BUFFER, begun)
    for v in f:stream() do
      taken = taken + 1
      assert.equal(taken, v)
      if v % 7 == 0 then
        treadle.sleep(0)
      end
      local ahead = begun:get() - taken
      assert(ahead <= BUFFER + 1, ahead .. " ahead")
    end
    assert.equal(20 * BUFFER, taken)
  end)

  it("takes a million values, and the memory of a few", function()
    local begun, n, most = treadle.counter(), 0, 0
    local text = ("x"):rep(100)
    local total = math.min(1e6, 4000 * BUFFER) -- a million, unless constants are shrunk
    local f = call.counted(total, begun, text)
    local next_value = f:stream()
    for _ = 1, 1000 do
      assert(next_value() == text)
      n = n + 1
    end
    local before = helpers.resident()
    for v in next_value do
      n = n + 1
      if n % (total / 10) == 0 then
        assert(v == text)
        most = math.max(most, helpers.resident() - before)
        assert(begun:get() - n <= BUFFER + 1)
      end
    end
    assert.equal(total, n)
    -- a hundredth of what has passed through would be 1 MiB: the rest is the collectors'; and an
    -- AddressSanitizer's quarantine, 256 MiB of blocks that were freed
    local limit = 2 ^ 24 + (VARIANT == "asan" and 300 * 2 ^ 20 or 0)
    assert.is_true(most < limit, most .. " bytes more")
    assert.is_true(pool:stats().workers[1].heap < 2 ^ 24)
  end)

  it("gives two calls of one worker each its own", function()
    local a, b = call.count(1000), call.count(1000)
    local from_a, from_b = a:stream(), b:stream()
    for i = 1, 1000 do
      assert.equal(i, from_a())
      assert.equal(i, from_b())
    end
    assert.is_nil(from_a())
    assert.is_nil(from_b())
  end)

  it("takes what coroutines of the task emit", function()
    local list = drain(call.from_coroutines(50):stream())
    table.sort(list)
    assert.same(range(50), list)
  end)

  it("takes nothing of a coroutine that has outlived its job", function()
    local outcomes, go = treadle.channel(1), treadle.event()
    local f = call.leave_behind(outcomes, go)
    assert.same({}, (drain(f:stream())))
    assert.equal("left", f:await())
    go:set()
    assert.matches("no task runs here", outcomes:recv(), 1, true)
  end)

  it("passes through calls within calls, with one thread", function()
    local single = treadle.pool("stream_tasks", { threads = 1 })
    local f = single.call.relay(3 * BUFFER)
    local list = drain(f:stream())
    assert.equal(3 * BUFFER, #list)
    for i, v in ipairs(list) do
      assert.equal(2 * i, v)
    end
    assert.equal(3 * BUFFER * (3 * BUFFER + 1), f:await())
    assert.equal(8 * 300, #drain(single.call.tree(3):stream()))
    single:close()
  end)

  it("is there for a function that travels with its call", function()
    local emitted = { "a", "b" }
    local f = pool:run(function()
      for _, v in ipairs(emitted) do
        require("treadle").emit(v)
      end
    end)
    assert.same({ "a", "b" }, (drain(f:stream())))
  end)

  it("gives all values of an emit, nils among them too", function()
    local f = call.emit_several()
    local turns = {}
    for a, b, c in f:stream() do
      turns[#turns + 1] = { a, b or "nil", c or "nil" }
    end
    assert.same({ { 1, "nil", "three" }, { 2, "nil", "nil" }, { 3, "b", "nil" } }, turns)
    assert.equal("sent", f:await())
  end)

  -- --- wrong use ---------------------------------------------------------------------------------

  it("refuses nil, and what cannot travel, where it is emitted", function()
    local function outcome(what)
      local f = call.emit_bad(what)
      assert.same({ "after" }, (drain(f:stream())))
      local ok, kind, message = f:await()
      assert.is_false(ok)
      return kind .. ":" .. message
    end
    assert.matches(
      "^:.*stream_tasks.lua:%d+: bad argument #1 to 'emit' %(a value expected, got nil, which",
      outcome("nil"))
    assert.matches("payload:cannot send a coroutine (value[1][1])", outcome("coroutine"), 1, true)
    assert.matches("^payload:.*1000", outcome("large"))
    assert.matches("^payload:.*1000", outcome("large table"))
  end)

  it("is for tasks only", function()
    local text = helpers.error_here(function() treadle.emit(1) end)
    assert.matches("^treadle.emit: no task runs here", text)
    local f = treadle.spawn(function() treadle.emit(1) end)
    assert.matches("no task runs here", tostring(select(2, f:pawait())), 1, true)
  end)

  it("is of a call only, and says of which", function()
    local f = call.twice(1)
    local g = f:and_then(function() end)
    for _, other in ipairs { g, treadle.all { f }, treadle.resolved(1), (treadle.future()) } do
      local text = helpers.error_here(function() other:stream() end)
      assert.matches("this future is no call's", text, 1, true)
    end
    assert.same({}, (drain(f:stream())))
    assert.matches("bad argument #1 to 'stream' %(future expected, got table%)",
      helpers.error_here(function() f.stream({}) end))
  end)

  it("is asked for once", function()
    local f = call.count(3)
    local next_value = f:stream()
    assert.equal(1, next_value())
    assert.matches("asked for already", helpers.error_here(function() f:stream() end), 1, true)
    assert.same({ 2, 3 }, (drain(next_value)))
    assert.is_nil(next_value())
    assert.is_nil(next_value())
  end)

  -- --- nobody wants it ---------------------------------------------------------------------------

  it("does not hold up a task whose caller does not ask", function()
    local n = call.count(1e5):await()
    assert.is_true(n >= BUFFER and n < 1e5)
  end)

  it("says that values were dropped, and what to do", function()
    local f = call.count(BUFFER + 10)
    f:wait()
    local text = helpers.error_here(function() f:stream() end)
    assert.matches("were dropped", text, 1, true)
    assert.matches("right after the call", text, 1, true)
    local unwanted = treadle.event()
    local g = call.until_unwanted(unwanted)
    assert.is_true(unwanted:wait(helpers.TIMEOUT))
    assert.matches("were dropped", helpers.error_here(function() g:stream() end), 1, true)
    assert.equal("pending", g:state())
    g:cancel()
  end)

  it("keeps what nobody has asked for, if it has never been full", function()
    local f, g = call.count(BUFFER), call.produce(SOME, "error")
    f:wait()
    g:wait()
    assert.same(range(BUFFER), (drain(f:stream())))
    local list, err = drain(g:stream())
    assert.same(range(SOME), list)
    assert.same({ code = 7 }, err.value)
    assert.matches("awaited at:.*stream_spec.lua", err.traceback)
    local h = call.twice(4)
    h:wait()
    assert.same({}, (drain(h:stream())))
  end)

  it("of a future that is dropped costs nothing", function()
    for _ = 1, 100 do
      call.count(SOME):await()
    end
    collect()
    assert.equal(2, call.twice(1):await())
  end)

  it("lets the task go on when its iterator is collected", function()
    local f = call.count(1e9)
    local next_value = f:stream()
    assert.equal(1, next_value())
    next_value = nil -- luacheck: ignore
    helpers.poll_until(function()
      collect()
      return f:state() ~= "pending"
    end)
    assert.is_true(f:await() < 1e9)
  end)

  it("lets the task go on when its loop was left, and somebody waits for the call", function()
    local function leave(at)
      local f = call.count(1e9)
      for v in f:stream() do
        if v == at then
          return f
        end
      end
    end
    for _, name in ipairs { "await", "pawait", "wait" } do
      local f = leave(1000)
      f[name](f)
      assert.equal("resolved", f:state())
    end
    local own = treadle.pool("stream_tasks", { threads = 1 })
    local f = own.call.count(1e9)
    pcall(function()
      for v in f:stream() do
        error(v)
      end
    end)
    own:close()
    assert.equal("resolved", f:state())
  end)

  it("lets a call within a call go on when the one that reads it fails", function()
    local own = treadle.pool("stream_tasks", { threads = 1 })
    for _, waits in ipairs { false, true } do
      local f = own.call.read_and_fail(waits)
      local _, err = f:pawait()
      assert.matches("enough of it", err.message, 1, true)
    end
    assert.equal("left", own.call.leave_reader(2 * BUFFER):await())
    own:drained():await()
    own:close()
  end)

  it("ends when its loop was left and the call is cancelled", function()
    local outcomes = treadle.channel(2)
    local f = call.until_refused(outcomes)
    for v in f:stream() do
      if v == BUFFER then
        break
      end
    end
    assert.is_true(f:cancel())
    assert.same({ "cancelled", "cancelled" }, { (outcomes:recv()), (outcomes:recv()) })
  end)

  -- --- its ends ----------------------------------------------------------------------------------

  --- Lose the state of the only worker, by another job.
  local function lose_state(own)
    local entered = treadle.event()
    local f = own.call.produce(0, "compute", entered)
    entered:wait()
    f:cancel { force = true }
  end

  --- `how`: what the task does in the end; `late` and `default`: it is timed out; `act`: what its
  -- caller does; `kind`: of the error.
  local ENDS = {
    result = { how = "result" },
    error = { how = "error", kind = "task" },
    ["a timeout"] = { late = true, how = "wait", kind = "timeout" },
    ["a timeout with a default"] = { late = true, default = "late", how = "wait" },
    ["a timeout of what computes #computing"] = { late = true, how = "compute", kind = "timeout" },
    ["a timeout of what is stuck in C"] = { late = true, how = "stuck", kind = "timeout" },
    cancel = { how = "wait", kind = "cancelled", act = function(f) f:cancel() end },
    ["cancel by force #computing"] = {
      how = "compute", kind = "cancelled", act = function(f) f:cancel { force = true } end,
    },
    close = { how = "result", act = function(_, own) own:close() end },
    terminate = { how = "wait", kind = "closed", act = function(_, own) own:terminate() end },
    ["the loss of its state #computing"] = {
      how = "wait", kind = "crashed", act = function(_, own) lose_state(own) end,
    },
  }

  local function check_end(f, stop, list, err, n)
    assert.same(range(n), list)
    assert.equal(stop.kind, err and err.kind)
    if not stop.kind then
      assert.equal(stop.default or "result", f:await())
    end
    assert.equal(stop.kind or "resolved", helpers.outcome(f))
  end

  for name, stop in pairs(ENDS) do
    for _, n in ipairs { 0, SOME } do
      for _, when in ipairs { "first", "before the end", "after the end" } do
        it(("asked for %s, of %d values, ends as %s says"):format(when, n, name), function()
          local own, f, next_value
          helpers.with_limit(function(seconds)
            own = treadle.pool("stream_tasks", { threads = 1, concurrency = 2 })
            own.call.count(0):await() -- it is loaded: the time of the next call is its own
            local entered = treadle.event()
            f = own:run("produce", { n, stop.how, entered },
              { timeout = stop.late and seconds or nil, default = stop.default })
            next_value = when == "first" and f:stream()
            helpers.poll_until(function() return entered:is_set() or f:state() ~= "pending" end)
            next_value = next_value or when == "before the end" and f:stream()
            local is_early = when ~= "before the end" or f:state() == "pending"
            if entered:is_set() and (is_early or not stop.late) then
              return true
            end
            own:terminate()
          end)
          if stop.act then
            stop.act(f, own)
          end
          if not next_value then
            assert.is_true(f:wait(helpers.TIMEOUT))
            next_value = f:stream()
          end
          local list, err = drain(next_value)
          check_end(f, stop, list, err, n)
          own:terminate()
        end)
      end
    end

    if stop.kind and stop.how == "wait" then
      it("of a task that waits in emit ends as " .. name .. " says", function()
        local own, f, next_value, outcomes
        helpers.with_limit(function(seconds)
          own = treadle.pool("stream_tasks", { threads = 1, concurrency = 2 })
          own.call.count(0):await()
          local entered = treadle.event()
          outcomes = treadle.channel(2)
          f = own:run("until_refused", { outcomes, entered },
            { timeout = stop.late and seconds or nil })
          next_value = f:stream()
          helpers.poll_until(function() return entered:is_set() or f:state() ~= "pending" end)
          if entered:is_set() then
            return true
          end
          own:terminate()
        end)
        if stop.act then
          stop.act(f, own)
        end
        assert.is_true(f:wait(helpers.TIMEOUT))
        local list, err = drain(next_value)
        -- the one that waited may be taken before the task hears of its end
        assert.is_true(#list == BUFFER or #list == BUFFER + 1)
        assert.same(range(#list), list)
        assert.equal(stop.kind, err.kind)
        if name == "cancel" then
          assert.same({ "cancelled", "cancelled" }, { (outcomes:recv()), (outcomes:recv()) })
        end
        own:terminate()
        outcomes:close()
        for kind in outcomes:iter() do -- its state may have been lost before it could say so
          assert.equal("cancelled", kind)
        end
      end)
    end
  end

  it("ends the wait of its consumer, whatever ends the call #computing", function()
    for _, stop in pairs(ENDS) do
      if stop.act and stop.how == "wait" then
        local own = treadle.pool("stream_tasks", { threads = 1, concurrency = 2 })
        local entered = treadle.event()
        local f = own.call.produce(SOME, "wait", entered)
        local next_value = f:stream()
        local g = treadle.spawn(function() return drain(next_value) end)
        entered:wait()
        stop.act(f, own)
        local list, err = g:await()
        assert.same(range(SOME), list)
        assert.equal(stop.kind, err.kind)
        own:terminate()
      end
    end
  end)

  it("is nobody's when the state that has asked is lost #computing", function()
    -- the inner call's producer runs in another worker, and must not wait for ever
    local own = treadle.pool("stream_tasks", { threads = 2 })
    local outcomes, asked = treadle.channel(2), treadle.event()
    local f = own:run(function()
      local inner = require("treadle").worker.pool:run("until_refused", { outcomes },
        { worker = 2 })
      local next_value = inner:stream()
      next_value()
      asked:set()
      while true do end
    end, {}, { worker = 1 })
    assert.is_true(asked:wait(helpers.TIMEOUT))
    f:cancel { force = true }
    local first = outcomes:recv(helpers.TIMEOUT)
    assert.is_true(first == "cancelled" or first == "unwanted", tostring(first))
    own:close(helpers.TIMEOUT)
  end)

  -- --- calls whose job comes later ---------------------------------------------------------------

  it("of a call that waits for its arguments begins when they are there", function()
    local n, resolve = treadle.future()
    local f = call.count(n)
    local next_value = f:stream()
    local g = treadle.spawn(function() return drain(next_value) end)
    treadle.sleep(0)
    resolve(3 * BUFFER)
    assert.same(range(3 * BUFFER), (g:await()))
    assert.equal(3 * BUFFER, f:await())
  end)

  it("of such a call can be asked for late, and is dropped as others", function()
    local f, g = call.count(treadle.resolved(SOME)), call.count(treadle.resolved(1e5))
    f:wait()
    g:wait()
    assert.same(range(SOME), (drain(f:stream())))
    assert.matches("were dropped", tostring(select(2, drain(g:stream()))), 1, true)
  end)

  it("of a call that is never made ends with its error", function()
    local list, err = drain(call.count(treadle.rejected("no number")):stream())
    assert.same({ {}, "no number" }, { list, err })
    local f = call.count(coroutine.create(print))
    assert.equal("payload", select(2, drain(f:stream())).kind)
    local waiting = call.count((treadle.future()))
    local next_value = waiting:stream()
    waiting:cancel()
    assert.equal("cancelled", select(2, drain(next_value)).kind)
    local own = treadle.pool("stream_tasks", { threads = 1 })
    own:close()
    assert.equal("closed", select(2, drain(own.call.count(1):stream())).kind)
    local controller = treadle.abort()
    controller:abort("no more")
    f = pool:run("count", { 1 }, { signal = controller.signal })
    assert.equal("cancelled", select(2, drain(f:stream())).kind)
  end)

  it("of a call that waits for room, or is refused, or runs here", function()
    local own = treadle.pool("stream_tasks", { threads = 1, max_queue = 1, on_full = "wait" })
    treadle.run(function()
      local all = {}
      for i = 1, 5 do
        local f = own.call.count(SOME)
        all[i] = f:stream()
      end
      for i = 1, 5 do
        assert.same(range(SOME), (drain(all[i])))
      end
    end)
    own:close()
    own = treadle.pool("stream_tasks", { threads = 1, max_queue = 1, on_full = "reject" })
    local entered = treadle.event()
    local running = own.call.produce(0, "wait", entered)
    entered:wait()
    local queued, refused = own.call.count(1), own.call.count(1)
    assert.equal("queue_full", select(2, drain(refused:stream())).kind)
    running:cancel()
    assert.same({ 1 }, (drain(queued:stream())))
    own:close()
  end)

  it("of a call with retries gives what each attempt emits #computing", function()
    local log, entered = helpers.new_path(), treadle.event()
    local f = pool:run("mortal", { log, 1, entered }, { retries = 2 })
    local next_value = f:stream()
    local g = treadle.spawn(function() return drain(next_value) end)
    entered:wait()
    lose_state(pool)
    local list, err = g:await()
    assert.is_nil(err)
    assert.same({ "attempt 1", "attempt 2" }, list)
    assert.equal("done", f:await())
  end)

  -- --- guests ------------------------------------------------------------------------------------

  it("of a job that its own home runs works as others do", function()
    local own = treadle.pool("stream_tasks", { threads = 1, inline = true })
    local entered = treadle.event()
    local busy = own.call.produce(0, "wait", entered)
    entered:wait()
    local f = own.call.count(3 * BUFFER)
    assert.same(range(3 * BUFFER), (drain(f:stream())))
    assert.equal(3 * BUFFER, f:await())
    assert.is_true(own.call.count(1e5):await() < 1e5)
    busy:cancel()
    own:close()
  end)

  it("of a call that finds the queue full and runs at once can still be asked for", function()
    local own = treadle.pool("stream_tasks", { threads = 1, max_queue = 1, on_full = "run" })
    local entered = treadle.event()
    local busy = own.call.produce(0, "wait", entered)
    entered:wait()
    local queued = own.call.twice(1)
    local f = own.call.count(3 * BUFFER) -- it has filled its buffer when this returns
    assert.same(range(3 * BUFFER), (drain(f:stream())))
    local g = own.call.count(3 * BUFFER)
    assert.equal(BUFFER, g:await())
    assert.matches("were dropped", select(2, pcall(g.stream, g)), 1, true)
    local h = own.call.until_refused(treadle.channel(2))
    local next_value = h:stream()
    assert.equal(1, next_value())
    h:cancel()
    local list, err = drain(next_value)
    assert.equal("cancelled", err.kind)
    assert.equal(2, list[1])
    busy:cancel()
    queued:await()
    own:close()
  end)

  describe("whose loop was left", function()
    --- Far more than fit.
    local MANY = 1e9

    local function leave(iterator)
      return assert(iterator())
    end

    it("does not keep a later call waiting", function()
      local one = treadle.pool("stream_tasks", { threads = 1 })
      leave(one.call.count(MANY):stream())
      local later = one.call.count(0)
      assert.is_true(treadle.spawn(later.await, later):wait(helpers.TIMEOUT))
      one:close()
    end)

    it("does not keep a later call waiting when its coroutine was cancelled", function()
      local one = treadle.pool("stream_tasks", { threads = 1 })
      local reader = treadle.spawn(function()
        for _ in one.call.count(MANY):stream() do
          treadle.sleep(0)
        end
      end)
      reader:cancel()
      local later = one.call.count(0)
      assert.equal(0, treadle.run(function() return later:await() end))
      one:close()
    end)

    it("does not keep the command from ending", function()
      assert.same({ "", "", 0 }, { helpers.child("treadle", [[
        local treadle = require "treadle"
        local pool = treadle.pool("string", { threads = 1 })
        pool:run(function()
          local t = require "treadle"
          repeat until not t.emit(1)
        end):stream()()
      ]]) })
    end)
  end)

  it("leaves nothing behind when its state ends with it under way", function()
    local _, err, code = helpers.child("luajit", [[
      local treadle = require "treadle"
      local pool = treadle.pool("stream_tasks", { threads = 2, concurrency = 20 })
      local kept, asked, f = {}, {}, nil
      for i = 1, 20 do
        f = pool.call.count(1e9)
        asked[i] = f:stream()
        asked[i]()
        kept[i] = pool.call.count(100)
      end
      os.exit(0, true)
    ]])
    assert.same({ "", 0 }, { err, code })
  end)
end)
