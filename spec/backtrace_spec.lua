-- What the workers of a pool run now.
require "path"
local helpers = require "helpers"
local treadle = require "treadle"
local core = require "treadle.core"

core.open "looks"

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

  it("names the task that runs, and for how long", function()
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

  it("names a function that was shipped by 0", function()
    pool = treadle.pool("stop_tasks", { threads = 1 })
    pool:run(function() while true do end end)
    helpers.eventually(function()
      local list = core.pool_running(pool._handle)
      return #list == 1 and list[1].task == 0
    end, "it runs")
  end)
end)
