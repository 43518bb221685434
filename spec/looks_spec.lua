-- Looks disturb nothing: results are the same, stops stop, waits in C are not cut short.
require "path"
local helpers = require "helpers"
local treadle = require "treadle"
local sums = require "look_sums"
local lfs = require "lfs"

local ROUNDS = rawget(_G, "LOOK_ROUNDS") or 3 -- spec/stress: more
local SIZES = { 300, 3000 }

local names = {}
for name in pairs(sums) do
  names[#names + 1] = name
end
table.sort(names)

describe("looks", function()
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

  it("change no result #computing", function()
    local profile = pool:profile(3600, { interval = 2e-5 })
    for round = 1, ROUNDS do
      local size = SIZES[round % #SIZES + 1]
      local expected, found = {}, {}
      for _, name in ipairs(names) do
        found[name] = pool.call.sum(name, size)
        expected[name] = sums[name](size)
      end
      for name, f in pairs(found) do
        assert.equal(expected[name], f:await(), name)
      end
    end
    local stacks = profile:stop():samples()
    assert.is_true(stacks > 0)
  end)

  it("let stops and timeouts through, and these let looks through #computing", function()
    local profile = pool:profile(3600, { interval = 5e-5 })
    local loops = pool.call.loops():await()
    for round = 1, ROUNDS do
      local list = {}
      for i, name in ipairs(loops) do
        list[i] = pool:run("loop", { name }, { timeout = 0.001 * (i % 3) + 0.002 })
      end
      for _, f in ipairs(list) do
        assert.equal("timeout", helpers.outcome(f))
      end
      local log = helpers.new_path(".log")
      local f = pool.call.loop(loops[round % #loops + 1], log)
      helpers.entered(log)
      pool:backtrace()
      f:cancel { force = true }
      assert.equal("cancelled", helpers.outcome(f))
      assert.equal(sums.tables(100), pool.call.sum("tables", 100):await())
    end
    profile:stop()
  end)

  it("find workers between their jobs, too", function()
    local profile = pool:profile(3600, { interval = 2e-5 })
    for round = 1, ROUNDS do
      local list = {}
      for i = 1, 2000 do
        list[i] = pool.call.echo(i)
      end
      for i, f in ipairs(list) do
        assert.equal(i, (f:await()), round)
      end
    end
    profile:stop()
  end)

  --- Whether a thread of that name waits in poll(2), as the kernel tells.
  local function is_in_poll(name)
    for id in lfs.dir("/proc/self/task") do
      local folder = "/proc/self/task/" .. id
      if id:match("^%d+$") and helpers.read(folder .. "/comm") == name .. "\n" then
        return helpers.read(folder .. "/syscall"):match("^7 ") ~= nil
      end
    end
  end

  it("do not end a call of the kernel that waits", function()
    pool:resize(1):await()
    local log = helpers.new_path(".log")
    local f = pool.call.stand_still(log, 200)
    helpers.entered(log)
    helpers.eventually(function() return is_in_poll("look_task/1") end, "it waits")
    local seen = 0
    while f:state() == "pending" do
      for _, entry in ipairs(pool:backtrace()) do
        seen = seen + (entry.traceback:find("stand_still", 1, true) and 1 or 0)
      end
      treadle.poll()
    end
    assert.equal(0, f:await())
    assert.is_true(seen > 0)
  end)
end)
