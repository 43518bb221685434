--- The hand-off under load: what once went wrong in it, and must not again.
local treadle = require "treadle"

local LIMIT = 20 -- seconds for what takes a moment

local seed = tonumber(os.getenv("TDL_SEED")) or os.time()
print("# TDL_SEED=" .. seed)
math.randomseed(seed)

describe("the hand-off", function()
  -- A worker was claimed between setting its idle bit and announcing its sleep: the waker saw it
  -- awake and rang nobody, and no worker was ever woken again.
  it("loses no wake-up while many workers lie down and are woken", function()
    local pool = treadle.pool("tasks", { threads = 12 })
    local stop, calls = treadle.now() + 1.5, 0
    while treadle.now() < stop do
      local list = {}
      for i = 1, math.random(3) == 1 and math.random(500) or math.random(20) do
        list[i] = pool.call.echo(i)
        if math.random(5) == 1 then
          local pause = treadle.now() + math.random() * 60e-6
          repeat until treadle.now() > pause
        end
      end
      assert.is_true(treadle.all(list):wait(LIMIT))
      calls = calls + #list
    end
    assert.is_true(calls > 0)
    pool:close()
  end)

  -- They stayed in the supervisor's heap when their records were freed with the worker.
  it("forgets the calls with a timeout that a worker leaves behind", function()
    for round = 1, 30 do
      local pool = treadle.pool("tasks", { threads = 2 })
      pool:run(function()
        local own = require("treadle").worker.pool
        for _ = 1, 20 do
          own:run("sleep", { 60 }, { timeout = 30 + 0.001 * own.threads })
        end
      end):await()
      pool:terminate()
      local other = treadle.pool("tasks", { threads = 1 })
      assert.equal(round, other:run("echo", { round }, { timeout = LIMIT }):await())
      other:close()
    end
  end)

  -- The phase was looked at before the push: a call could stay in the queue of a pool that all
  -- workers had left.
  it("settles every call when a worker closes or terminates the pool meanwhile", function()
    for round = 1, 20 do
      local pool = treadle.pool("tasks", { threads = 2 })
      local how = round % 2 == 0 and "close" or "terminate"
      local list = { pool:run(function(what)
        local own = require("treadle").worker.pool
        own[what](own)
      end, { how }) }
      for i = 1, 500 do
        list[#list + 1] = pool.call.echo(i)
      end
      local outcomes = treadle.all_settled(list)
      assert.is_true(outcomes:wait(LIMIT))
      for _, outcome in ipairs(outcomes:await()) do
        assert.is_true(outcome.ok or outcome.error.kind == "closed")
      end
      pool:close()
    end
  end)

  it("reports no worker for a call that none has taken", function()
    local pool = treadle.pool("tasks", { threads = 1 })
    pool.call.echo(1):await()
    local blocker = pool.call.sleep(0.2)
    local ok, err = pool:run("echo", { 1 }, { timeout = 0.01 }):pawait()
    assert.is_false(ok)
    assert.equal("timeout", err.kind)
    assert.is_nil(err.worker)
    blocker:await()
    pool:close()
  end)

  it("moves half a million calls through one, two and four workers in order", function()
    for _, threads in ipairs { 1, 2, 4 } do
      local pool = treadle.pool("tasks", { threads = threads })
      local echo, sum, n = pool.call.echo, 0, 0
      for _ = 1, 167 do
        local list = {}
        for i = 1, 1000 do
          list[i] = echo(i)
        end
        for i, value in ipairs(treadle.all(list):await()) do
          assert(value == i)
          sum, n = sum + value, n + 1
        end
      end
      assert.equal(167000, n)
      assert.equal(167 * 500500, sum)
      pool:close()
    end
  end)
end)
