--- A task that is stuck on one of two workers costs the other no more than its share of the
-- processors: what the system's scheduler takes for one thread more, and nothing that is treadle's.
--
-- Rounds alternate between an idle and a stuck neighbour. What the kernel has given is compared,
-- not the clock on the wall, which counts what else the machine does, too; that is printed.
package.path = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") .. "/../support/?.lua;"
  .. package.path
local helpers = require "helpers"
local treadle = require "treadle"

local ROUNDS = 15

--- Jobs of one round, how many of them are under way, and additions in each: 80 ms, 4 ms each, so
-- that the worker never waits for the host.
local JOBS, AHEAD, COUNT = 20, 8, 4000000

--- Both threads compute all the time and have the same right to the processors. They get the same,
-- unless one shares its processor with a third and the other does not.
local LEAST_SHARE = 1 / 2

--- What a job may take of its worker's time: two threads on the two halves of one core slow each
-- other down, by less than half.
local MOST_COST = 2

local function median(list)
  table.sort(list)
  return list[math.ceil(#list / 2)]
end

describe("beside a task that is stuck", function()
  local done = helpers.watch()

  it("a worker has its share of the processors", function()
    local pool = treadle.pool("stop_tasks", { threads = 2 })
    local options = { worker = 2 }

    --- Seconds on the wall for each job of worker 2, and of the workers' time in all.
    local function measure()
      local open, sum = {}, 0
      local start, before = treadle.now(), pool:stats().workers
      for i = 1, JOBS + AHEAD do
        if open[i - AHEAD] then
          sum = sum + open[i - AHEAD]:await()
          open[i - AHEAD] = nil
        end
        open[i] = i <= JOBS and pool:run("count", { COUNT }, options) or nil
      end
      assert.equal(JOBS * COUNT, sum)
      local took, after = treadle.now() - start, pool:stats().workers
      return took / JOBS, after[2].cpu - before[2].cpu, after[1].cpu - before[1].cpu
    end

    local alone, beside = { wall = {}, cost = {} }, { wall = {}, cost = {} }
    local theirs, its = 0, 0
    local function note(list, wall, cpu, stuck)
      list.wall[#list.wall + 1] = wall
      list.cost[#list.cost + 1] = cpu / JOBS
      return cpu, stuck
    end
    measure() -- compiles
    for _ = 1, ROUNDS do
      note(alone, measure())
      local log = helpers.new_path()
      local stuck = pool:run("loop", { "empty", log }, { worker = 1 })
      helpers.poll_until(function() return #helpers.lines(log) == 1 end)
      local cpu, lost = note(beside, measure())
      theirs, its = theirs + cpu, its + lost
      assert.equal("pending", stuck:state())
      stuck:cancel { force = true }
      assert.equal("cancelled", select(2, stuck:pawait()).kind)
      pool:run("echo", { 1 }, { worker = 1 }):await() -- the fresh state is there
    end
    pool:close()
    local cost, share = median(beside.cost) / median(alone.cost), theirs / its
    local wall = median(alone.wall) / median(beside.wall)
    print(("# beside a stuck task: %.1f %% of the jobs on the wall, %.2f of its processor time, "
      .. "each at %.2f of the cost"):format(100 * wall, share, cost))
    assert.is_true(its > 0 and share >= LEAST_SHARE, ("share %.3f"):format(share))
    assert.is_true(cost <= MOST_COST, ("cost %.3f"):format(cost))
  end)

  it("nothing is left", function() done() end)
end)

helpers.clean()
