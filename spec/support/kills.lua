--- Random kills of a pool's processes under a load of numbered calls; each is accounted for.
local helpers = require "helpers"
local lfs = require "lfs"
local processes = require "processes"
local treadle = require "treadle"

local SIGNALS = { KILL = 9, SEGV = 11, STOP = 19 }

--- Calls under way at once.
local LOAD = 200

--- Seconds that a call may take: those of a process that was stopped end by it.
local DEADLINE = 0.3

--- One in so many calls is made again once, and one in so many kills stops the process.
local AGAIN, STOPS = 10, 10

--- Processes that have begun a call, and have not ended.
local function targets(folder)
  local list = {}
  for name in lfs.dir(folder) do
    local pid = tonumber(name)
    local state = pid and processes.state(pid)
    if state and state ~= "Z" and state ~= "T" then
      list[#list + 1] = pid
    end
  end
  return list
end

local function kill_one(folder, counts, stops)
  local list = targets(folder)
  if #list > 0 then
    local signal = stops and math.random(STOPS) == 1 and "STOP"
      or math.random(2) == 1 and "KILL" or "SEGV"
    processes.kill(list[math.random(#list)], SIGNALS[signal])
    counts[signal] = (counts[signal] or 0) + 1
    return true
  end
end

--- How often each number was begun.
local function executions(folder)
  local begun = {}
  for name in lfs.dir(folder) do
    for _, line in ipairs(tonumber(name) and helpers.lines(folder .. "/" .. name) or {}) do
      local i = tonumber(line)
      begun[i] = (begun[i] or 0) + 1
    end
  end
  return begun
end

--- Make `jobs` calls and kill `kills` times meanwhile.
-- @param ahead whether the calls lie ahead of the processes: each has one at a time, and they have
-- no deadlines, so that no process is stopped
-- @return a table of counts: of outcomes by kind ("resolved"), of signals
return function(jobs, kills, ahead)
  local folder = helpers.new_path(".runs")
  assert(lfs.mkdir(folder))
  local pool = treadle.pool("process_tasks", { runtime = "process", threads = 4,
    concurrency = ahead and 1 or 3, data = folder, permissions = "unrestricted" })
  local counts, outcomes, settled, killed, next_job = {}, {}, 0, 0, 0

  local function caller()
    while next_job < jobs do
      next_job = next_job + 1
      local i = next_job
      local ok, v = pool:run("record", { i }, { timeout = not ahead and DEADLINE or nil,
        retries = i % AGAIN == 0 and 1 or nil }):pawait()
      assert(not outcomes[i], "settled twice")
      assert(not ok or v == i, "a result of another call")
      outcomes[i] = ok and "resolved" or v.kind
      counts[outcomes[i]] = (counts[outcomes[i]] or 0) + 1
      settled = settled + 1
      if killed < math.floor(settled * kills / jobs) and kill_one(folder, counts, not ahead) then
        killed = killed + 1
      end
    end
  end

  local callers = {}
  for i = 1, LOAD do
    callers[i] = treadle.spawn(caller)
  end
  treadle.all(callers):await()
  while killed < kills do -- of those that nothing ran in just then
    pool.call.pid():pawait()
    killed = killed + (kill_one(folder, counts, not ahead) and 1 or 0)
  end

  local s = pool:stats()
  assert(s.queued + s.running + s.done + s.failed + s.cancelled == s.submitted, "counts add up")
  pool:close()
  local begun = executions(folder)
  for i = 1, jobs do
    local n, most = begun[i] or 0, i % AGAIN == 0 and 2 or 1
    assert(n <= most, ("%d was begun %d times"):format(i, n))
    assert(n > 0 or outcomes[i] ~= "resolved", ("%d resolved, and has not run"):format(i))
    assert(outcomes[i] == "resolved" or outcomes[i] == "crashed" or outcomes[i] == "timeout",
      ("%d: %s"):format(i, outcomes[i]))
  end
  return counts
end
