--- Cancelling: what it settles, what the task sees, and the calls that the task has made.
local helpers = require "helpers"
local treadle = require "treadle"

describe("cancel", function()
  local done, pool

  setup(function()
    done = helpers.watch()
    pool = treadle.pool("tasks", { threads = 1 })
  end)

  teardown(helpers.clean)

  -- A gate that holds the only worker of `pool`; the function that is returned opens it.
  local function occupy()
    local gate = helpers.new_path()
    local f = pool.call.hold(gate, "held")
    helpers.eventually(function() return helpers.read(gate .. ".entered") ~= "" end)
    return function()
      helpers.write(gate, "open")
      return f:await()
    end
  end

  -- The result lay in the inbox, and resolved the future after all.
  it("stays as it is when the result has arrived unseen", function()
    local path = helpers.new_path()
    local f = pool.call.note(path, "done")
    local behind = pool.call.note(path, "behind")
    helpers.eventually(function() return helpers.read(path):find("behind") end)
    assert.is_true(f:cancel())
    assert.equal("behind", behind:await())
    local ok, err = f:pawait()
    assert.same({ false, "cancelled" }, { ok, err.kind })
    assert.equal("cancelled", f:state())
  end)

  it("settles it at once, with the reason", function()
    local open = occupy()
    local f = pool.call.add(1, 2)
    assert.is_true(f:cancel("no longer needed"))
    assert.equal("cancelled", f:state())
    local ok, err = f:pawait()
    assert.same({ false, "cancelled" }, { ok, err.kind })
    assert.matches("no longer needed", err.message, 1, true)
    open()
  end)

  it("wakes who waits for it", function()
    local f = treadle.future()
    local waiter = treadle.spawn(function() return select(2, f:pawait()).kind end)
    f:cancel()
    assert.equal("cancelled", waiter:await())
  end)

  it("of a settled future does nothing", function()
    local f = pool.call.add(1, 2)
    f:wait()
    assert.is_false(f:cancel())
    assert.equal(3, f:await())
    f = treadle.future()
    assert.is_true(f:cancel("first"))
    assert.is_false(f:cancel("second"))
    assert.matches("first", select(2, f:pawait()).message, 1, true)
  end)

  it("keeps a queued job from ever running", function()
    local path, open = helpers.new_path(), occupy()
    local list = {}
    for i = 1, 20 do
      list[i] = pool.call.note(path, tostring(i))
    end
    for i = 2, 20, 2 do
      list[i]:cancel()
    end
    open()
    pool.call.add(1, 2):await()
    local expected = {}
    for i = 1, 19, 2 do
      expected[#expected + 1] = tostring(i)
    end
    assert.same(expected, helpers.lines(path))
  end)

  for _, how in ipairs { "sleep", "await", "yield", "compute" } do
    it("is seen by a task that would " .. how, function()
      local path = helpers.new_path()
      local f = pool.call.until_cancelled(path, how)
      helpers.eventually(function() return helpers.read(path) == "started\n" end)
      f:cancel()
      assert.equal("cancelled", f:state())
      pool.call.add(1, 2):await()
      local kind = (how == "sleep" or how == "await") and "cancelled" or "seen"
      assert.same({ "started", "false " .. kind .. " true" }, helpers.lines(path))
    end)
  end

  it("makes the later waits of the job raise as well", function()
    local path = helpers.new_path()
    local f = pool:run(function(log)
      local t, h = require "treadle", require "helpers"
      h.write(log, "started")
      pcall(t.sleep, 1000)
      local a = pcall(t.sleep, 1000)
      local f = t.future()
      local b = pcall(f.await, f)
      local c = pcall(function() return t.worker.pool.call.add(1, 2):await() end)
      h.write(log, ("%s %s %s"):format(tostring(a), tostring(b), tostring(c)))
    end, { path })
    helpers.eventually(function() return helpers.read(path) == "started" end)
    f:cancel()
    helpers.eventually(function() return helpers.read(path):match("^false") end)
    assert.equal("false false false", helpers.read(path))
  end)

  it("does not concern the next job of the worker", function()
    local path = helpers.new_path()
    local f = pool.call.until_cancelled(path, "sleep")
    helpers.eventually(function() return helpers.read(path) == "started\n" end)
    f:cancel()
    assert.is_false(pool:run(function()
      require("treadle").sleep(0.001)
      return require("treadle").cancelled()
    end):await())
  end)

  it("treadle.cancelled is false in the host", function()
    assert.is_false(treadle.cancelled())
  end)

  it("of a chained future cancels what it follows", function()
    local open = occupy()
    local path = helpers.new_path()
    local first = pool.call.note(path, "ran")
    local second = first:and_then(function() end):finally(function() end)
    second:cancel()
    assert.equal("cancelled", second:state())
    helpers.poll_until(function() return first:state() == "cancelled" end)
    open()
    pool.call.add(1, 2):await()
    assert.equal("", helpers.read(path))
  end)

  it("of a call that waits for an argument keeps it from ever running", function()
    local argument, resolve = treadle.future()
    local path = helpers.new_path()
    local f = pool.call.note(path, argument)
    f:cancel()
    resolve("text")
    pool.call.add(1, 2):await()
    assert.equal("cancelled", f:state())
    assert.equal("", helpers.read(path))
  end)

  it("takes a text, an error or options, and says so of others, at the caller's line", function()
    for _, given in ipairs { "why", { reason = "why" }, { reason = "why", force = false },
      { reason = "why", force = true } } do
      local f = treadle.future()
      f:cancel(given)
      assert.equal("why", select(2, f:pawait()).message)
    end
    local cause = select(2, pool.call.boom("why"):pawait())
    local f = treadle.future()
    f:cancel(cause)
    assert.equal(cause.message, select(2, f:pawait()).message)
    f = treadle.future()
    assert.equal("bad argument #1 to 'cancel' (unknown option 'reson', did you mean 'reason'?)",
      helpers.error_here(function() f:cancel({ reson = "why" }) end))
    assert.equal("bad argument #1 to 'cancel' (option 'force': a boolean expected, got number)",
      (helpers.error_here(function() f:cancel({ force = 1 }) end):gsub("got 1", "got number")))
    assert.equal("pending", f:state())
  end)

  it("gives its options on to what a chained future follows", function()
    local first = treadle.future()
    first:and_then(function() end):cancel { reason = "why", force = true }
    assert.equal("why", select(2, first:pawait()).message)
  end)

  it("leaves no thread and no descriptor", function()
    pool:close(helpers.TIMEOUT)
    done()
  end)
end)

--- Wait for lines of a log; fails with the log when they never come.
local function expect(log, ...)
  for _, line in ipairs { ... } do
    local ok = pcall(helpers.poll_until, function()
      return ("\n" .. helpers.read(log)):find("\n" .. line .. "\n", 1, true)
    end)
    assert(ok, ("no line '%s' in:\n%s"):format(line, helpers.read(log)))
  end
end

local function count_lines(log, line)
  return select(2, ("\n" .. helpers.read(log):gsub("\n", "\n\n")):gsub("\n" .. line .. "\n", ""))
end

--- Let a job's time be over until it writes these lines: it is interrupted soon after, and may
-- have had no time for them, since this machine may be slow.
local function expire(pool, lines, task, ...)
  local timeout, missing = 0.02
  repeat
    local log = helpers.new_path()
    timeout, missing = timeout * 2, false
    local f = pool:run(task, { log, ... }, { timeout = timeout })
    assert(select(2, f:pawait()).kind == "timeout")
    pool:broadcast("after"):await() -- nothing of it runs any more
    for _, line in ipairs(lines) do
      missing = missing or count_lines(log, line) == 0
    end
  until not missing
end

for _, threads in ipairs { 1, 2 } do
  describe(("a job that is given up, in %d worker(s),"):format(threads), function()
    local done, pool

    setup(function()
      done = helpers.watch()
      pool = treadle.pool("kin", { threads = threads })
    end)

    teardown(helpers.clean)

    for _, where in ipairs { "own", "other" } do
      it(("takes along the calls that it waits for, on its %s pool and below"):format(where),
        function()
          local log = helpers.new_path()
          local f = pool.call.chain(log, where, 2)
          expect(log, "leaf started")
          f:cancel("enough")
          expect(log, "leaf cancelled: enough", "chain 0 cancelled: enough",
            "chain 1 cancelled: enough", "chain 2 cancelled: enough")
        end)
    end

    it("takes along its calls after a timeout, too", function()
      local reason = "cancelled: the time for the call is over"
      expire(pool, { "chain 0 " .. reason, "leaf " .. reason }, "chain", "other", 0)
    end)

    it("keeps calls that it has queued from ever running", function()
      local log, gate = helpers.new_path(), helpers.new_path()
      local f = pool:run("queue", { log, gate }, { worker = 1 })
      expect(log, "queued")
      f:cancel("enough")
      expect(log, "queue cancelled: enough")
      helpers.write(gate, "open")
      expect(log, "block done")
      pool:run("after", {}, { worker = 1 }):await()
      assert.equal(0, count_lines(log, "never"))
    end)

    it("takes along a call that computes and asks, also in its own worker", function()
      local log = helpers.new_path()
      local f = pool.call.call_check(log)
      expect(log, "checking")
      f:cancel("enough")
      expect(log, "check cancelled: enough", "call_check cancelled: enough")
    end)

    it("takes along the calls of a task that computes, at its end", function()
      local log, gate = helpers.new_path(), helpers.new_path()
      local f = pool.call.compute(log, "other", gate)
      expect(log, "computing")
      f:cancel("enough")
      assert.equal(0, count_lines(log, "leaf cancelled: enough"))
      helpers.write(gate, "open")
      expect(log, "computed", "leaf cancelled: enough")
    end)

    it("takes along the calls of a task that computes, when it asks", function()
      local log = helpers.new_path()
      local f = pool.call.ask(log, "other")
      expect(log, "asking")
      f:cancel("enough")
      expect(log, "leaf cancelled: enough", "asked")
    end)

    for how, message in pairs { returns = false, raises = "an error of its own" } do
      for _, where in ipairs { "own", "other" } do
        it(("leaves the calls alone if it %s before: on its %s pool"):format(how, where), function()
          local log, gate = helpers.new_path(), helpers.new_path()
          local f = pool.call.leave(log, where, gate, message)
          assert.equal(not message, (f:pawait()))
          assert.is_false(f:cancel())
          expect(log, "hold started")
          helpers.write(gate, "open")
          expect(log, "hold done")
        end)
      end
    end

    it("ends the waits of all coroutines that it spawned, whichever comes first", function()
      local log = helpers.new_path()
      local f = pool.call.spawn(log, 10)
      expect(log, "waiting")
      f:cancel("enough")
      expect(log, "task cancelled: enough")
      helpers.poll_until(function() return count_lines(log, "cancelled true") == 10 end)
      assert.equal(10, count_lines(log, "spawned cancelled: enough"))
      assert.equal(10, count_lines(log, "again cancelled: enough"))
    end)

    it("ends the waits of its coroutines when it computes, at its end", function()
      local log = helpers.new_path()
      local f = pool.call.spawn_and_ask(log)
      expect(log, "waiting")
      f:cancel("enough")
      expect(log, "spawned cancelled: enough")
    end)

    it("does not concern a coroutine that an earlier job has left in its place", function()
      local log, gate = helpers.new_path(), helpers.new_path()
      pool:run("spawn_and_leave", { log, gate }, { worker = 1 }):await()
      expect(log, "hold started")
      local later = helpers.new_path()
      local f = pool:run("leaf", { later }, { worker = 1 })
      expect(later, "leaf started")
      f:cancel("enough")
      expect(later, "leaf cancelled: enough")
      helpers.write(gate, "open")
      expect(log, "hold done", "left done", "cancelled false")
    end)

    it("tells a task that checks why: the reason, the timeout, the end of the pool", function()
      local log = helpers.new_path()
      local f = pool.call.check(log)
      expect(log, "checking")
      f:cancel("enough")
      expect(log, "check cancelled: enough")
      expire(pool, { "check cancelled: the time for the call is over" }, "check")
      repeat -- it is interrupted soon, too
        log = helpers.new_path()
        local doomed = treadle.pool("kin", { threads = threads })
        f = doomed.call.check(log)
        expect(log, "checking")
        doomed:terminate("for good")
        assert.equal("for good", select(2, f:pawait()).message)
        doomed:close(helpers.TIMEOUT)
      until count_lines(log, "check cancelled: for good") == 1
    end)

    it("takes along its calls on another pool when its own is terminated", function()
      local log = helpers.new_path()
      local doomed = treadle.pool("kin", { threads = threads })
      local f = doomed.call.chain(log, "other", 0)
      expect(log, "leaf started")
      doomed:terminate("for good")
      assert.equal("closed", select(2, f:pawait()).kind)
      expect(log, "leaf cancelled: for good")
      doomed:close(helpers.TIMEOUT)
    end)

    it("leaves no thread and no descriptor", function()
      pool:close(helpers.TIMEOUT)
      done()
    end)
  end)
end

describe("a job that is given up, beside another in its pool,", function()
  local done, pool

  setup(function()
    done = helpers.watch()
    pool = treadle.pool("kin", { threads = 2, concurrency = 1000 })
  end)

  teardown(helpers.clean)

  it("takes along the calls of a task that computes", function()
    local log = helpers.new_path()
    local f = pool.call.ask(log, "own")
    expect(log, "asking")
    f:cancel("enough")
    expect(log, "leaf cancelled: enough", "asked")
    local gate = helpers.new_path()
    log = helpers.new_path()
    f = pool.call.compute(log, "own", gate)
    expect(log, "computing")
    f:cancel("enough")
    helpers.write(gate, "open")
    expect(log, "computed", "leaf cancelled: enough")
  end)

  it("stops calls that compute when it is stopped by force", function()
    local log, never = helpers.new_path(), helpers.new_path()
    local f = pool.call.call_block(log, never)
    expect(log, "block started")
    f:cancel { reason = "enough", force = true }
    expect(log, "call_block cancelled: enough")
    pool:broadcast("note", log, "free"):await()
    assert.equal(0, count_lines(log, "block done"))
  end)

  --- A pool that is terminated while one task waits and another computes; what they have noted.
  local function terminated_by(who)
    local log = helpers.new_path()
    local doomed = treadle.pool("kin", { threads = 3 })
    local list = { doomed.call.leaf(log), doomed.call.check(log) }
    expect(log, "leaf started")
    expect(log, "checking")
    if who == "a task" then
      list[3] = doomed:run(function(reason)
        require("treadle").worker.pool:terminate(reason)
        return "asked"
      end, { "for good" })
    else
      doomed:terminate("for good")
    end
    for _, f in ipairs(list) do
      assert.is_true(f:wait(helpers.TIMEOUT))
      local ok, err = f:pawait()
      assert.same({ false, "closed", "for good" }, { ok, err.kind, err.message })
    end
    doomed:close(helpers.TIMEOUT)
    return helpers.read(log)
  end

  for _, who in ipairs { "its home", "a task" } do
    it(("tells tasks why, and ends their waits, when %s ends the pool"):format(who), function()
      local waited, checked = false, false
      for _ = 1, 100 do -- they have 5 ms, and a busy machine may give them none of it
        local log = terminated_by(who)
        waited = waited or log:find("leaf cancelled: for good", 1, true) ~= nil
        checked = checked or log:find("check cancelled: for good", 1, true) ~= nil
        if waited and checked then
          break
        end
      end
      assert.is_true(waited and checked)
    end)
  end

  it("takes along its calls on another pool when its worker ends it", function()
    local log = helpers.new_path()
    local doomed = treadle.pool("kin", { threads = 1, concurrency = 10 })
    local f = doomed.call.chain(log, "other", 0)
    expect(log, "leaf started")
    doomed.call.terminate():wait()
    assert.equal("closed", select(2, f:pawait()).kind)
    expect(log, "leaf cancelled: the pool is closed")
    doomed:close(helpers.TIMEOUT)
  end)

  it("takes along its calls on another pool when its worker loses it", function()
    local log = helpers.new_path()
    local doomed = treadle.pool("kin", { threads = 1, concurrency = 10 })
    local f = doomed.call.chain(log, "other", 0)
    expect(log, "leaf started")
    local busy = doomed.call.block(log, helpers.new_path())
    expect(log, "block started")
    busy:cancel { force = true } -- the state goes, with all that runs in it
    assert.equal("crashed", select(2, f:pawait()).kind)
    expect(log, "leaf cancelled: the worker died")
    doomed:close(helpers.TIMEOUT)
  end)

  it("is one of hundreds, each with calls of its own", function()
    local log, list = helpers.new_path(), {}
    for i = 1, 200 do
      list[i] = pool.call.chain(log, "own", 1)
    end
    helpers.poll_until(function() return count_lines(log, "leaf started") == 200 end)
    for i = 1, 200 do
      assert.is_true(list[i]:cancel("enough"))
    end
    for _, who in ipairs { "leaf", "chain 0", "chain 1" } do
      helpers.poll_until(function()
        return count_lines(log, who .. " cancelled: enough") == 200
      end)
    end
  end)

  it("leaves no thread and no descriptor", function()
    pool:close(helpers.TIMEOUT)
    done()
  end)
end)
