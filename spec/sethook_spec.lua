--- pool:sethook(): a debug hook in every worker.
require "path"
local helpers = require "helpers"
local treadle = require "treadle"

describe("pool:sethook()", function()
  local done, pool

  --- Tasks that say what the hook of their state has counted.
  setup(function()
    done = helpers.watch()
    helpers.module("hook_tasks", [[
      local M = {}
      function M.count(n)
        hooked = 0
        local sum = 0
        for i = 1, n do
          sum = sum + i
        end
        return hooked, sum
      end
      function M.state() return debug.gethook() ~= nil, (jit.status()) end
      function M.nap() require("treadle").sleep(0) end
      function M.crash() while true do end end
      return M
    ]])
  end)
  before_each(function() pool = treadle.pool("hook_tasks", { threads = 2 }) end)
  after_each(function()
    pool:terminate()
    pool:close()
    pool = nil
  end)
  teardown(function()
    done()
    helpers.clean()
  end)

  local function count() _G.hooked = (_G.hooked or 0) + 1 end

  local function states()
    local list = {}
    for worker = 1, pool.threads do
      list[worker] = { pool:run("state", {}, { worker = worker }):await() }
    end
    return list
  end

  it("is called in every worker, compiled loops included", function()
    pool:broadcast("count", 1000):await() -- compiled now
    pool:sethook(count, "", 10):await()
    for worker = 1, 2 do
      local hooked, sum = pool:run("count", { 1000 }, { worker = worker }):await()
      assert.is_true(hooked >= 100)
      assert.equal(500500, sum)
    end
    assert.same({ { true, false }, { true, false } }, states())
  end)

  it("is taken away again, and code is compiled as before", function()
    local before = states()
    pool:sethook(count, "c"):await()
    pool:sethook():await()
    assert.equal(0, (pool.call.count(100):await()))
    assert.same(before, states())
    pool:sethook():await()
    assert.same(before, states())
  end)

  it("is in states that come later", function()
    pool:sethook(count, "l"):await()
    pool:recycle():await()
    assert.same({ { true, false }, { true, false } }, states())
    pool:resize(3):await()
    assert.same({ { true, false }, { true, false }, { true, false } }, states())
    pool:run("crash", {}, { timeout = 0.001, default = 0 }):await()
    for _ = 1, 10 do
      local hooked = pool.call.count(10):await()
      assert.is_true(hooked >= 10)
    end
  end)

  it("brings along what the function refers to", function()
    local key = "seen_" .. "here"
    pool:sethook(function(event) _G[key] = event end, "r"):await()
    assert.equal("return", pool:run(function() return _G.seen_here end):await())
  end)

  it("does not get lost by looks and by stops that come too late", function()
    pool:sethook(count, "", 10):await()
    local profile = pool:profile(3600, { interval = 5e-5 })
    for _ = 1, 20 do
      local hooked = pool.call.count(20000):await()
      assert.is_true(hooked >= 2000)
    end
    profile:stop()
    assert.same({ { true, false }, { true, false } }, states())
  end)

  it("raises in the task, which fails, and nowhere else", function()
    for _, mask in ipairs { "l", "c", "r", "crl" } do
      pool:sethook(function() error("by the hook", 0) end, mask):await()
      local calls = { pool.call.count(1), pool.call.nap(),
        pool:run(function() return 1 end) }
      for _, call in ipairs(calls) do
        assert.equal("task", helpers.outcome(call))
        assert.equal("by the hook", select(2, call:pawait()).value)
      end
      assert.is_true(pool:sethook():wait(helpers.TIMEOUT))
      assert.equal(1, select(2, pool.call.count(1):await()))
      assert.equal(0, pool:stats().restarts)
    end
  end)

  it("can be asked for by a task", function()
    pool:run(function()
      local own = require("treadle").worker.pool
      own:sethook(function() _G.hooked = (_G.hooked or 0) + 1 end, "", 10):await()
    end):await()
    helpers.eventually(function()
      local list = states()
      return list[1][1] and list[2][1]
    end, "both have it")
  end)

  it("resolves when the pool has ended, too", function()
    pool:close()
    assert.equal("resolved", helpers.outcome(pool:sethook(count, "c")))
  end)

  it("refuses what is no hook", function()
    local function message(fn) return helpers.error_here(fn) end
    assert.truthy(message(function() pool:sethook(1) end):find("bad argument #1 to 'sethook'", 1,
      true))
    assert.truthy(message(function() pool:sethook(print) end):find("bad argument #2 to 'sethook'",
      1, true))
    assert.truthy(message(function() pool:sethook(print, "x") end):find("letters of 'crl'", 1,
      true))
    assert.truthy(message(function() pool:sethook(print, "c", -1) end):find("bad argument #3", 1,
      true))
    local co = coroutine.create(print)
    assert.truthy(message(function() pool:sethook(function() return co end, "c") end):find(
      "bad argument #1 to 'sethook'", 1, true))
    assert.truthy(message(function() pool.sethook() end):find("with a colon", 1, true))
  end)
end)
