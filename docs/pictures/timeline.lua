--- The program of timeline.svg and of ../trace.html: a burst of work, tasks that wait and that
-- call others, a failure, a cancellation.
--
--   treadle docs/pictures/timeline.lua FILE
local treadle = require "treadle"
local tasks = {}
function tasks.resize(n) local s = 0 for i = 1, n * 1e5 do s = s + i % 7 end return s end
function tasks.fetch(s) treadle.sleep(s) return tasks.resize(2) end
function tasks.album(n)
  local list = {}
  for i = 1, n do list[i] = treadle.worker.pool.call.resize(4 + i) end
  treadle.all(list):await()
  return tasks.resize(3)
end
function tasks.check() error "not a picture" end
if treadle.is_main then
  local pool = treadle.pool(tasks, { threads = 3, concurrency = 3, name = "pictures" })
  treadle.using(pool:trace(arg[1]), function()
    local list = {}
    for i = 1, 6 do list[#list + 1] = pool.call.resize(6 + i) end
    list[#list + 1] = pool.call.fetch(0.004)
    list[#list + 1] = pool.call.fetch(0.006)
    list[#list + 1] = pool.call.album(4)
    treadle.sleep(0.006)
    list[#list + 1] = pool.call.check()
    local late = pool.call.fetch(1)
    list[#list + 1] = late
    for i = 1, 5 do list[#list + 1] = pool.call.resize(3 + i) end
    treadle.sleep(0.008)
    late:cancel()
    treadle.all_settled(list):await()
  end)
  pool:close()
end
return tasks
