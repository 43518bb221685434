--- Time limits: of a call, of the job that makes it.
local helpers = require "helpers"
local treadle = require "treadle"

describe("a time limit", function()
  local done, pool, wide

  setup(function()
    done = helpers.watch()
    pool = treadle.pool("tasks", { threads = 1 })
    wide = treadle.pool("tasks", { threads = 2, concurrency = 100 })
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

  it("rejects with kind timeout", function()
    local ok, err = wide.call.strict(1000):pawait()
    assert.same({ false, "timeout", "strict" }, { ok, err.kind, err.task })
    ok, err = wide:run("sleep", { 1000 }, { timeout = 0.01 }):pawait()
    assert.same({ false, "timeout", "sleep" }, { ok, err.kind, err.task })
  end)

  it("resolves to the default where one is given", function()
    assert.equal("late", wide.call.slow(1000):await())
    assert.equal(false, wide.call.false_default(1000):await())
    assert.equal(false, wide:run("sleep", { 1000 }, { timeout = 0.01, default = false }):await())
    assert.same({ 1 }, wide:run("sleep", { 1000 }, { timeout = 0.01, default = { 1 } }):await())
  end)

  it("rejects with the error where one is given", function()
    local ok, err = wide.call.named_error(1000):pawait()
    assert.is_false(ok)
    assert.matches("too slow", tostring(err), 1, true)
    local value = { code = 7 }
    ok, err = wide:run("sleep", { 1000 }, { timeout = 0.01, error = value }):pawait()
    assert.is_false(ok)
    assert.equal(value, err)
  end)

  it("gives the results that come in time", function()
    assert.equal(0, wide.call.slow(0):await())
    assert.equal(0, wide:run("sleep", { 0 }, { timeout = helpers.TIMEOUT }):await())
  end)

  it("prefers the call's limit to the task's", function()
    local ok, err = wide:run("slow", { 1000 }, { timeout = 0.01 }):pawait()
    assert.same({ false, "timeout" }, { ok, err.kind })
  end)

  it("counts the time in the queue: an expired job never runs", function()
    local path, open = helpers.new_path(), occupy()
    local f = pool:run("note", { path, "ran" }, { timeout = 0.02 })
    local ok, err = f:pawait()
    assert.same({ false, "timeout" }, { ok, err.kind })
    open()
    pool.call.add(1, 2):await()
    assert.equal("", helpers.read(path))
  end)

  it("expires while the host computes and never polls", function()
    local path, open = helpers.new_path(), occupy()
    local f = pool:run("note", { path, "ran" }, { timeout = 0.02 })
    local stop = treadle.now() + 0.1
    while treadle.now() < stop do end -- no turn of the loop
    open()
    pool.call.add(1, 2):await()
    assert.equal("", helpers.read(path))
    assert.equal("timeout", select(2, f:pawait()).kind)
  end)

  it("expires for a task that computes", function()
    local gate = helpers.new_path()
    local ok, err = pool:run("block", { gate }, { timeout = 0.02 }):pawait()
    helpers.write(gate, "open")
    assert.same({ false, "timeout" }, { ok, err.kind })
    assert.equal(3, pool.call.add(1, 2):await())
  end)

  it("ends the waits of a task that runs", function()
    local lines = helpers.with_limit(function(seconds)
      local path = helpers.new_path()
      local f = pool:run("until_cancelled", { path, "sleep" }, { timeout = seconds, default = 1 })
      assert.equal(1, f:await())
      pool.call.add(1, 2):await()
      local lines = helpers.lines(path)
      return #lines > 0 and lines
    end)
    assert.same({ "started", "false cancelled true" }, lines)
  end)

  it("counts the time of its arguments", function()
    local argument = treadle.future()
    local ok, err = pool:run("echo", { argument }, { timeout = 0.02 }):pawait()
    assert.same({ false, "timeout" }, { ok, err.kind })
    assert.equal("late",
      pool:run("echo", { argument }, { timeout = 0.02, default = "late" }):await())
  end)

  it("of 0 expires, and the job never runs", function()
    local path = helpers.new_path()
    for _ = 1, 100 do
      local ok, err = pool:run("note", { path, "ran" }, { timeout = 0 }):pawait()
      assert.same({ false, "timeout" }, { ok, err.kind })
    end
    assert.equal("late", pool:run("note", { path, "ran" },
      { timeout = 0, default = "late" }):await())
    assert.equal(3, pool.call.add(1, 2):await())
    assert.equal("", helpers.read(path))
  end)

  it("below 0, or none at all, is refused at the caller's line", function()
    for _, timeout in ipairs { -1, 0 / 0, "1" } do
      assert.matches("option 'timeout': seconds, a number of at least 0 expected",
        helpers.error_here(function() pool:run("echo", {}, { timeout = timeout }) end), 1, true)
    end
  end)

  it("is limited in many calls at once", function()
    local list = {}
    for i = 1, 200 do
      list[i] = wide:run("sleep", { i % 2 == 0 and 1000 or 0 },
        { timeout = i % 2 == 0 and 0.05 or helpers.TIMEOUT })
    end
    for i, outcome in ipairs(treadle.all_settled(list):await()) do
      assert.equal(i % 2 == 1, outcome.ok)
    end
  end)

  it("is what a call came to that fails when its time is over", function()
    local function fail_at(time)
      local now = require("treadle").now
      repeat until now() >= time
      error({ at = now() })
    end
    for _ = 1, 50 do -- mostly before anybody else looks at the clock
      local f = pool:run(fail_at, { treadle.now() + 0.001 + 2e-5 }, { timeout = 0.001 })
      local latest = treadle.now() + 0.001
      local _, err = f:pawait()
      if err.kind ~= "timeout" then
        assert.equal("task", err.kind)
        assert.is_true(err.value.at < latest, "raised when its time was over")
      end
    end
  end)

  it("never expires with math.huge", function()
    assert.equal(1, pool:run("echo", { 1 }, { timeout = math.huge }):await())
  end)

  it("leaves no thread and no descriptor", function()
    pool:close(helpers.TIMEOUT)
    wide:close(helpers.TIMEOUT)
    done()
  end)
end)

it("a call whose maker's time is over owes no warning", function()
  local _, err = helpers.child("luajit", [[
    local treadle = require "treadle"
    local pool = treadle.pool("tasks", { threads = 2 })
    pool:run(function()
      require("treadle").worker.pool.call.sleep(1)
      os.execute("sleep 0.025") -- not long enough to be stopped
    end, {}, { timeout = 0.01 }):wait()
    pool:broadcast(function() require("treadle").poll() end):await()
    pool:broadcast(function() collectgarbage() collectgarbage() end):await()
    pool:close()
  ]])
  assert.equal("", err)
end)

local OVER = "the time for the call that made it is over"

for _, threads in ipairs { 1, 2 } do
  describe(("a call made by a job with a time limit, in %d worker(s),"):format(threads), function()
    local done, pool

    setup(function()
      done = helpers.watch()
      pool = treadle.pool("kin", { threads = threads, concurrency = 100 })
      pool:broadcast("after"):await() -- the workers' other pools are there
    end)

    teardown(helpers.clean)

    --- What a task wrote whose time was over when it ran. If it had no time to write, however
    -- slow this machine is, it gets more.
    local function expired(pattern, task, ...)
      local timeout, text = 0.02
      repeat
        local log = helpers.new_path()
        timeout = timeout * 2
        local f = pool:run(task, { log, ... }, { timeout = timeout })
        assert.equal("timeout", select(2, f:pawait()).kind)
        pool:broadcast("note", log, "end"):await() -- it computes no more
        text = helpers.read(log):match(pattern)
      until text
      return text
    end

    --- What a call that was made with `options` came to, in a job whose time is over first.
    local function watch(options, where)
      return expired("watch ([^\n]+)\n", "watch", where or "other", options)
    end

    --- The same in a job that has time enough.
    local function watch_all(options)
      local log = helpers.new_path()
      pool:run("watch", { log, "other", options }, { timeout = helpers.TIMEOUT }):await()
      return helpers.read(log):match("watch ([^\n]+)\n")
    end

    it("has no more time than that", function()
      assert.equal("rejected timeout: " .. OVER, watch())
      assert.equal("rejected timeout: " .. OVER, watch({ timeout = helpers.TIMEOUT }))
    end)

    it("of its own pool has no more time than that", function()
      assert.equal("rejected timeout: " .. OVER, watch(nil, "own"))
    end)

    it("may have less", function()
      assert.equal("rejected timeout: no result within 0.02 s",
        watch_all({ timeout = 0.02 }))
      assert.equal("resolved done", watch_all({ timeout = 0.02, default = "late" }))
    end)

    it("does not take its own default when the job's time is over", function()
      assert.equal("rejected timeout: " .. OVER,
        watch({ timeout = helpers.TIMEOUT, default = "late" }))
    end)

    it("hands it down to the calls that it makes", function()
      assert.equal("timeout: " .. OVER, expired("bottom ([^\n]+)\n", "down", 3))
    end)

    it("never runs if it is queued when the time is over", function()
      local log, gate = helpers.new_path(), helpers.new_path()
      local f = pool:run("queue", { log, gate }, { timeout = 0.1, worker = 1 })
      assert.equal("timeout", select(2, f:pawait()).kind)
      helpers.write(gate, "open")
      pool:run("after", {}, { worker = 1 }):await()
      assert.is_nil(helpers.read(log):find("never", 1, true))
    end)

    it("is not limited by that of an earlier job", function()
      local log, gate = helpers.new_path(), helpers.new_path()
      pool:run("note", { log, "first" }, { timeout = 0.05, worker = 1 }):wait()
      local f = pool:run("pass", { log, "other", gate }, { worker = 1 })
      treadle.sleep(0.05)
      helpers.write(gate, "open")
      assert.is_true(f:pawait())
    end)

    it("leaves no thread and no descriptor", function()
      pool:close(helpers.TIMEOUT)
      done()
    end)
  end)
end
