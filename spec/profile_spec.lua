--- pool:profile(): what workers executed during some time.
require "path"
local helpers = require "helpers"
local treadle = require "treadle"

describe("pool:profile()", function()
  local done, pool

  setup(function() done = helpers.watch() end)
  before_each(function() pool = treadle.pool("look_tasks", { threads = 2 }) end)
  after_each(function()
    pool:terminate()
    pool:close()
    pool = nil
  end)
  teardown(function()
    done()
    helpers.clean()
  end)

  --- Sample for as long as it takes to see so many stacks.
  local function sample(count)
    return helpers.with_limit(function(seconds)
      local profile = pool:profile(seconds)
      return profile:samples() >= count and profile
    end)
  end

  local function run(...)
    local log = helpers.new_path(".log")
    pool.call.loop((...), log)
    helpers.entered(log)
  end

  it("sees nothing of workers that are idle", function()
    helpers.eventually(function() return #pool:backtrace() == 0 end, "nothing runs")
    for line in pool:profile(0.01):folded():gmatch("[^\n]+") do
      assert.truthy(line:find("^%("), line) -- no task's; the scheduler may take a turn
    end
    local none = pool:profile(0)
    assert.equal("", none:folded())
    assert.same({}, none:top())
    assert.equal(0, (none:samples()))
    assert.equal("profile of 0 samples", tostring(none))
  end)

  it("counts stacks, the task first #computing", function()
    run("sorting")
    local profile = sample(10)
    local sum = 0
    for line in profile:folded():gmatch("[^\n]+") do
      local stack, count = line:match("^(.*) (%d+)$")
      assert.truthy(stack:find("^loop;pcall") or stack == "loop", line)
      sum = sum + count
    end
    assert.equal(sum, (profile:samples()))
    assert.truthy(profile:folded():find("loops.sorting (", 1, true))
    assert.equal(profile:folded(), profile:folded())
  end)

  it("adds up what functions took #computing", function()
    run("counting")
    local profile = sample(10)
    local top = profile:top(1)
    assert.equal(1, #top)
    assert.truthy(top[1].name:find("^loops.counting %(.*stop_tasks.lua:%d+%)$"))
    local all = 0
    for i, entry in ipairs(profile:top(1000)) do
      all = all + entry.self
      assert.is_true(entry.total >= entry.self and entry.total_share <= 1)
      assert.is_true(i == 1 or entry.self <= top[1].self)
    end
    assert.equal(profile:samples(), all)
    assert.truthy(tostring(profile):find("%% +loops.counting"))
  end)

  it("sees both workers #computing", function()
    run("empty")
    run("strings")
    assert.is_true(helpers.with_limit(function(seconds)
      local text = pool:profile(seconds):folded()
      return text:find("loops.empty", 1, true) and text:find("loops.strings", 1, true) and true
    end))
  end)

  it("ends early, and waits for its end", function()
    local profile = pool:profile(3600)
    assert.equal("profile (still sampling)", tostring(profile))
    assert.equal(profile, profile:stop())
    assert.equal(profile, profile:await())
    assert.equal(profile, profile:stop())
    local other = pool:profile(3600)
    local f = treadle.spawn(function() return other:await():folded() end)
    assert.equal("pending", f:state())
    other:stop()
    assert.equal("string", type(f:await()))
  end)

  it("ends with its pool", function()
    local profile = pool:profile(3600)
    local f = treadle.spawn(function() return profile:wait() end)
    pool:close()
    assert.equal(profile, f:await())
    assert.equal("", pool:profile(3600):folded())
  end)

  it("ends when nobody holds it", function()
    local before = helpers.threads()
    pool:profile(3600)
    helpers.eventually(function()
      collectgarbage()
      return helpers.threads() <= before
    end, "its thread has ended")
  end)

  it("can be asked for by a task #computing", function()
    run("empty")
    local text = pool:run(function()
      local own = require("treadle").worker.pool
      local seconds = 0.01
      while true do
        local text = own:profile(seconds):folded()
        if text:find("loops.empty", 1, true) then
          return text
        end
        seconds = seconds * 2
      end
    end):await()
    assert.truthy(text:find("loop;", 1, true))
  end)

  it("refuses what is no time and what is no option", function()
    assert.truthy(helpers.error_here(function() pool:profile() end):find(
      "bad argument #1 to 'profile' (seconds, a number of at least 0 expected, got nil)", 1, true))
    assert.truthy(helpers.error_here(function() pool:profile(1, { intervall = 1 }) end):find(
      "unknown option 'intervall', did you mean 'interval'?", 1, true))
    assert.truthy(helpers.error_here(function() pool:profile(1, { interval = 0 }) end):find(
      "option 'interval'", 1, true))
    local profile = pool:profile(0)
    assert.truthy(helpers.error_here(function() profile:top(0) end):find("bad argument #1 to 'top'",
      1, true))
    assert.truthy(helpers.error_here(function() profile.folded() end):find("with a colon", 1, true))
  end)
end)
