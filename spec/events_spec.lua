--- What a pool tells of its workers and jobs.
local helpers = require "helpers"
local treadle = require "treadle"

describe("a pool tells", function()
  local done, pool, heard

  setup(function()
    done = helpers.watch()
  end)

  before_each(function()
    heard = {}
    pool = treadle.pool("tasks", { threads = 1 })
  end)

  after_each(function()
    pool:close(helpers.TIMEOUT)
  end)

  teardown(function()
    done()
    helpers.clean()
  end)

  local function listen(...)
    local stops = {}
    for i, name in ipairs { ... } do
      stops[i] = pool:on(name, function(event) heard[#heard + 1] = event end)
    end
    return stops
  end

  local function names()
    local list = {}
    for i, event in ipairs(heard) do
      list[i] = event.event
    end
    return list
  end

  it("the start and the end of a job", function()
    listen("job_start", "job_done", "job_error")
    pool.call.add(1, 2):await()
    pool.call.boom("too bad"):pawait()
    helpers.poll_until(function() return #heard == 4 end)
    assert.same({ "job_start", "job_done", "job_start", "job_error" }, names())
    assert.same({ event = "job_start", worker = 1, task = "add" }, heard[1])
    assert.same({ 1, "add" }, { heard[2].worker, heard[2].task })
    assert.is_true(heard[2].duration >= 0 and heard[2].duration < helpers.TIMEOUT)
    assert.same({ "boom", "task" }, { heard[4].task, heard[4].kind })
  end)

  it("how a job ended that was given up before, when its code has ended", function()
    helpers.with_limit(function(seconds)
      pool:close(helpers.TIMEOUT)
      heard, pool = {}, treadle.pool("tasks", { threads = 1 })
      listen("job_done", "job_error")
      local gate = helpers.new_path()
      assert.equal("timeout", helpers.outcome(pool:run("hold", { gate }, { timeout = seconds })))
      return #helpers.lines(gate .. ".entered") > 0
    end)
    local path = helpers.new_path()
    local f = pool.call.hold(path)
    helpers.poll_until(function() return #helpers.lines(path .. ".entered") == 1 end)
    f:cancel()
    local ignores = helpers.new_path() -- and returns
    local g = pool.call.block(ignores)
    helpers.poll_until(function() return #helpers.lines(ignores .. ".entered") == 1 end)
    g:cancel()
    helpers.write(ignores, "")
    assert.equal(3, pool.call.add(1, 2):await())
    helpers.poll_until(function() return #heard == 4 end)
    local told = {}
    for i, event in ipairs(heard) do
      told[i] = ("%s %s %s"):format(event.event, event.task, tostring(event.kind))
    end
    assert.same({ "job_error hold timeout", "job_error hold cancelled",
      "job_error block cancelled", "job_done add nil" }, told)
  end)

  it("of functions that travel", function()
    listen "job_start"
    pool:run(function() end):await()
    helpers.poll_until(function() return #heard == 1 end)
    assert.equal("function", heard[1].task)
  end)

  it("the replacement of a worker's state, and its end", function()
    listen("worker_start", "worker_exit")
    pool:recycle():await()
    helpers.poll_until(function() return #heard == 2 end)
    local path = helpers.new_path()
    local f = pool.call.block(path)
    helpers.eventually(function() return #helpers.lines(path .. ".entered") == 1 end)
    f:cancel { force = true }
    helpers.poll_until(function() return #heard == 4 end)
    pool:close()
    helpers.poll_until(function() return #heard == 5 end)
    assert.same({ "worker_exit", "worker_start", "worker_exit", "worker_start", "worker_exit" },
      names())
    assert.same({ "recycled", "stopped", "closed" },
      { heard[1].reason, heard[3].reason, heard[5].reason })
  end)

  it("once each time that nothing is queued or running any more", function()
    listen "drain"
    pool:drained():await()
    assert.same({}, heard) -- there was nothing
    for turn = 1, 20 do
      local list = {}
      for i = 1, turn do
        list[i] = pool.call.add(i, i)
      end
      pool:drained():await()
      helpers.poll_until(function() return #heard == turn end)
      pool:drained():await()
      assert.same({ "drain" }, { heard[turn].event })
      for i = 1, turn do
        assert.equal(2 * i, list[i]:await())
      end
    end
    treadle.all { pool:drained(), pool:drained() }:await()
    assert.equal(20, #heard)
  end)

  it("that it is empty without anybody else's look", function()
    listen "drain"
    for turn = 1, 20 do
      pool.call.add(turn, 1):await()
      helpers.poll_until(function() return #heard == turn end)
    end
  end)

  it("that it is empty not before what was given up has ended", function()
    local path = helpers.new_path()
    local f = pool.call.block(path)
    helpers.eventually(function() return #helpers.lines(path .. ".entered") == 1 end)
    listen "drain" -- in the middle of it
    local drained = pool:drained()
    f:cancel()
    assert.is_false(drained:wait(0.01))
    assert.same({}, heard)
    helpers.write(path, "")
    helpers.poll_until(function() return #heard == 1 end)
    assert.equal("resolved", drained:state())
  end)

  it("that it is empty to who comes while a call that was given up runs on", function()
    local path = helpers.new_path()
    local f = pool.call.block(path)
    helpers.eventually(function() return #helpers.lines(path .. ".entered") == 1 end)
    f:cancel()
    listen "drain"
    helpers.write(path, "")
    helpers.poll_until(function() return #heard == 1 end)
  end)

  it("that it is empty after what tasks left behind", function()
    listen "drain"
    local path = helpers.new_path()
    pool:run(function(gate)
      require("treadle").worker.pool.call.block(gate)
    end, { path }):await()
    helpers.eventually(function() return #helpers.lines(path .. ".entered") == 1 end)
    assert.is_false(pool:drained():wait(0.01))
    assert.same({}, heard)
    helpers.write(path, "")
    helpers.poll_until(function() return #heard == 1 end)
  end)

  for _, how in ipairs { "close", "terminate" } do
    it(("that it is empty when it ends by %s, if it was not before"):format(how), function()
      listen "drain"
      pool.call.add(1, 2)
      pool[how](pool)
      helpers.poll_until(function() return #heard == 1 end)
      pool:close()
      pool:terminate()
      local other = treadle.pool("tasks", { threads = 1 })
      other:on("drain", function(event) heard[#heard + 1] = event end)
      other[how](other)
      other:close()
      treadle.spawn(treadle.sleep, 0):await()
      assert.equal(1, #heard)
    end)
  end

  it("that it is empty to all who listen, and not to who has gone", function()
    local stops = listen("drain", "drain", "job_done")
    stops[1]()
    pool.call.add(1, 2):await()
    helpers.poll_until(function() return #heard == 2 end)
    assert.same({ "job_done", "drain" }, names())
    stops[2]()
    pool.call.add(1, 2):await()
    pool:drained():await()
    helpers.poll_until(function() return #heard == 3 end)
    listen "drain"
    pool:drained():await()
    assert.same({ "job_done", "drain", "job_done" }, names())
  end)

  it("nothing any more to who has unsubscribed", function()
    local stops = listen("job_start", "job_done")
    stops[1]()
    stops[1]()
    pool.call.add(1, 2):await()
    helpers.poll_until(function() return #heard == 1 end)
    assert.equal("job_done", heard[1].event)
    stops[2]()
    pool.call.add(1, 2):await()
    pool:recycle():await()
    assert.equal(1, #heard)
  end)

  it("nothing to who has unsubscribed, also of what was on its way", function()
    local narrow = treadle.pool("tasks", { threads = 1, max_queue = 1 })
    local counts = { once = 0, stopped = 0, kept = 0 }
    local once, stopped
    once = narrow:on("queue_full", function()
      counts.once = counts.once + 1
      once()
    end)
    stopped = narrow:on("queue_full", function() counts.stopped = counts.stopped + 1 end)
    narrow:on("queue_full", function() counts.kept = counts.kept + 1 end)
    local gate, list = helpers.new_path(), {}
    list[1] = narrow.call.hold(gate)
    helpers.entered(gate .. ".entered", 1)
    for i = 2, 11 do
      list[i] = narrow.call.sleep(0) -- one of them waits
    end
    stopped()
    helpers.write(gate, "open")
    treadle.all_settled(list):await()
    helpers.poll_until(function() return counts.kept == 9 end)
    assert.same({ 1, 0 }, { counts.once, counts.stopped })
    narrow:close(helpers.TIMEOUT)
  end)

  it("goes on when a listener fails", function()
    local stop = pool:on("job_done", function() error "on purpose" end)
    listen "job_done"
    local stderr = io.stderr
    local text = ""
    io.stderr = { write = function(_, ...) text = text .. table.concat { ... } end } -- luacheck: ignore
    pool.call.add(1, 2):await()
    helpers.poll_until(function() return #heard == 1 end)
    io.stderr = stderr -- luacheck: ignore
    stop()
    assert.matches("error in a listener to 'job_done': .*on purpose", text)
  end)

  it("which events there are", function()
    assert.equal("bad argument #1 to 'on' (unknown event 'job_dome', did you mean 'job_done'?)",
      helpers.error_here(function() pool:on("job_dome", print) end))
    assert.equal("bad argument #2 to 'on' (function expected, got nil)",
      helpers.error_here(function() pool:on("job_done") end))
  end)
end)
