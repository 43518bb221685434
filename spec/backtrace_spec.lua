--- pool:backtrace(): what every worker executes now.
require "path"
local helpers = require "helpers"
local treadle = require "treadle"
local core = require "treadle.core"

core.open "looks"

describe("pool:backtrace()", function()
  local done, pool

  --- What the one busy worker executes, once the condition holds.
  local function look(matches)
    local found
    helpers.poll_until(function()
      local list = pool:backtrace()
      found = list[1]
      return #list == 1 and (not matches or matches(found))
    end, function() return found and found.traceback or "somebody is busy" end)
    return found
  end

  local function open(threads)
    pool = treadle.pool("look_tasks", { threads = threads or 1 })
  end

  setup(function() done = helpers.watch() end)
  after_each(function()
    if pool then
      pool:terminate()
      pool:close()
      pool = nil
    end
  end)
  teardown(function()
    done()
    helpers.clean()
  end)

  it("is empty when all are idle, and when the pool has ended", function()
    open(2)
    helpers.eventually(function() return #pool:backtrace() == 0 end, "nothing runs")
    pool:close()
    assert.same({}, pool:backtrace())
  end)

  --- A function that each of these loops is in.
  local WHERE = {
    empty = "loops.empty", counting = "loops.counting", tables = "loops.tables",
    strings = "loops.strings", recursion = "loops.recursion", pcalls = "loops.pcalls",
    errors = "loops.errors", coroutines = "loops.coroutines", in_coroutine = "loops.in_coroutine",
    sorting = "loops.sorting", gsub = "loops.gsub", interpreted = "loops.interpreted",
    metamethod = "loops.metamethod", finalizer = "loops.finalizer",
    finalizer_at_close = "loops.finalizer_at_close",
  }

  for name, where in pairs(WHERE) do
    it("finds the loop '" .. name .. "' #computing", function()
      open()
      local log = helpers.new_path(".log")
      pool.call.loop(name, log)
      helpers.entered(log)
      local entry = look(function(entry) -- between two frames a line may not be known
        return entry.traceback:find("stop_tasks.lua:%d+: in function '" .. where .. "'")
      end)
      assert.equal(1, entry.worker)
      assert.equal("loop", entry.task)
      assert.equal("task", entry.what)
      assert.is_true(entry.since >= 0)
      assert.truthy(entry.traceback:find("^stack traceback:\n\t"))
    end)
  end

  it("names the line in interpreted code #computing", function()
    open()
    local line = debug.getinfo(1, "l").currentline + 2
    pool:run(function() jit.off()
      while true do end
    end)
    look(function(entry)
      return entry.task == "function" and entry.traceback:find(":" .. line .. ": in function <", 1,
        true)
    end)
  end)

  it("follows coroutines to those that resumed them #computing", function()
    open()
    local log = helpers.new_path(".log")
    pool.call.loop("in_coroutine", log)
    helpers.entered(log)
    local text = look(function(entry)
      return entry.traceback:find("loops.in_coroutine", 1, true)
    end).traceback
    assert.truthy(text:find("loops.counting.*loops.in_coroutine"))
  end)

  it("tells what a thread waits for that stands still in C", function()
    open()
    local log = helpers.new_path(".log")
    local f = pool.call.stand_still(log, helpers.TIMEOUT * 1000)
    helpers.entered(log)
    local entry = look(function(entry)
      return entry.traceback:find("in function 'M.stand_still'", 1, true)
    end)
    assert.equal("stand_still", entry.task)
    f:cancel { force = true }
  end)

  it("takes no earlier answer for one of a thread that stands still #computing", function()
    open()
    local go, log = treadle.counter(0), helpers.new_path(".log")
    local f = pool.call.compute_and_stand(go, log, helpers.TIMEOUT * 1000)
    look(function(entry)
      return entry.traceback:find("in function 'M.compute_and_stand'", 1, true)
    end)
    go:add(1)
    helpers.entered(log)
    look(function(entry)
      return entry.traceback:find("in function 'M.stand_still'", 1, true)
    end)
    f:cancel { force = true }
  end)

  it("tells where jobs wait", function()
    pool = treadle.pool("look_tasks", { threads = 1, concurrency = 3 })
    local log = helpers.new_path(".log")
    local first, second = pool.call.nap(log), pool.call.nap(log)
    helpers.entered(log, 2)
    local list
    helpers.eventually(function()
      list = pool:backtrace()
      return #list == 2 and list[1].waiting and list[2].waiting
    end, function() return #list .. " entries" end)
    for _, entry in ipairs(list) do
      assert.equal("nap", entry.task)
      assert.truthy(entry.traceback:find("stop_tasks.lua:%d+: in function 'M.nap'"))
    end
    first:cancel()
    second:cancel()
    helpers.eventually(function() return #pool:backtrace() == 0 end, "they have ended")
  end)

  it("lists workers in their order, the one that asks included #computing", function()
    open(3)
    local log = helpers.new_path(".log")
    pool.call.loop("empty", log)
    pool.call.loop("strings", log)
    helpers.entered(log, 2)
    local list = pool.call.backtrace():await()
    local before = 0
    local own
    for _, entry in ipairs(list) do
      assert.is_true(entry.worker > before)
      before = entry.worker
      own = entry.task == "backtrace" and entry or own
    end
    assert.equal(3, #list)
    assert.truthy(own.traceback:find("in function 'M.backtrace'", 1, true))
  end)

  it("tells that a worker loads its module #computing", function()
    local gate = helpers.new_path(".gate")
    helpers.module("look_slow", ([[
      require "path"
      local helpers = require "helpers"
      if require("treadle").worker.id == 2 then
        while #helpers.lines(%q) == 0 do end
      end
      return { id = function() return 1 end }
    ]]):format(gate))
    pool = treadle.pool("look_slow", { threads = 2 })
    local entry
    helpers.poll_until(function()
      entry = pool:backtrace()[1]
      return entry and entry.traceback:find("look_slow.lua:%d+: in main chunk")
    end, "it loads")
    assert.equal("load", entry.what)
    assert.equal(2, entry.worker)
    assert.is_nil(entry.task)
    helpers.write(gate, "go\n")
  end)

  it("is a method", function()
    open()
    assert.truthy(helpers.error_here(function() pool.backtrace() end):find("call it with a colon"))
  end)
end)

describe("core.pool_running", function()
  local done, pool

  setup(function() done = helpers.watch() end)
  after_each(function()
    pool:terminate()
    pool:close()
    pool = nil
  end)
  teardown(function()
    done()
    helpers.clean()
  end)

  it("names the task that runs, and for how long #computing", function()
    pool = treadle.pool("stop_tasks", { threads = 2 })
    local function is_idle() -- after it has booted
      return #core.pool_running(pool._handle) == 0
    end
    helpers.eventually(is_idle, "nothing runs")
    local log = helpers.new_path(".log")
    local f = pool.call.loop("empty", log)
    helpers.entered(log)
    local list = core.pool_running(pool._handle)
    assert.equal(1, #list)
    assert.equal("loop", pool._record.names[list[1].task])
    local later = core.pool_running(pool._handle)
    assert.is_true(list[1].since >= 0 and later[1].since >= list[1].since)
    assert.equal(list[1].worker, later[1].worker)
    f:cancel { force = true }
    helpers.eventually(is_idle, "the task has ended")
  end)

  it("names a function that was shipped by 0 #computing", function()
    pool = treadle.pool("stop_tasks", { threads = 1 })
    pool:run(function() while true do end end)
    helpers.eventually(function()
      local list = core.pool_running(pool._handle)
      return #list == 1 and list[1].task == 0
    end, "it runs")
  end)
end)
