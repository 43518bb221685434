--- Forced stops in a row in one process, of every kind of loop, by deadlines and by hand. None is
-- missed, none crashes, nothing is left; prints how long a stop takes.
--
-- STOPS of them, or TDL_STOPS; with TDL_FULL ten times as many. TDL_SEED repeats the order.
package.path = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") .. "/../support/?.lua;"
  .. package.path
local helpers = require "helpers"
local treadle = require "treadle"

local STOPS = tonumber(os.getenv("TDL_STOPS")) or os.getenv("TDL_FULL") and 20000 or 2000

--- What memory may grow by over all of them: much less than a state for each.
local GROWTH = 32e6

--- Seconds of a deadline: long enough for the loop to be compiled.
local DEADLINE = 0.004

local seed = tonumber(os.getenv("TDL_SEED")) or os.time()
print("# TDL_SEED=" .. seed)
math.randomseed(seed)

local function quantile(list, q)
  table.sort(list)
  return 1000 * list[math.max(1, math.ceil(#list * q))]
end

describe("stops in a row", function()
  local done = helpers.watch()
  local settle, fresh = {}, {} -- seconds

  it("end every loop, and the worker answers again", function()
    local pool = treadle.pool("stop_tasks", { threads = 1 })
    local names = pool:run("loops", {}):await()
    local warm
    for i = 1, STOPS do
      local name = names[math.random(#names)]
      local by_hand = i % 4 == 0
      local start = treadle.now()
      local f, due, kind
      if by_hand then
        f = pool.call.loop(name)
        treadle.sleep(DEADLINE)
        due, kind = treadle.now(), "cancelled"
        f:cancel { force = true }
      else
        f = pool:run("loop", { name }, { timeout = DEADLINE })
        due, kind = start + DEADLINE, "timeout"
      end
      local ok, err = f:pawait()
      local settled = treadle.now()
      assert(not ok and err.kind == kind, ("%d: %s"):format(i, name))
      local _, begun = pool.call.age():await() -- a job that expired in the queue leaves its state
      assert(begun == 0, ("%d: the state of %s serves on"):format(i, name))
      settle[i], fresh[i] = settled - due, treadle.now() - due
      if i == math.floor(STOPS / 10) then
        warm = helpers.resident()
      end
    end
    pool:close()
    local growth = helpers.resident() - warm
    print(("# %d stops: deadline to settled %.2f ms (p50), %.2f (p99); to the next answer of a "
      .. "fresh state %.2f ms (p50), %.2f (p99); memory grew by %.1f MB"):format(STOPS,
      quantile(settle, 0.5), quantile(settle, 0.99), quantile(fresh, 0.5), quantile(fresh, 0.99),
      growth / 1e6))
    assert.is_true(growth < GROWTH, ("%.1f MB"):format(growth / 1e6))
  end)

  it("leave no thread and no descriptor", function() done() end)
end)

helpers.clean()
