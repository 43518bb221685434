--- Coroutines that are cancelled in each of the ways to wait; for the host and for tasks alike.
local treadle = require "treadle"

local M = {}

--- kind of wait -> a function that begins it and does not come back by itself
local waits = {}

function waits.sleep() treadle.sleep(1000) end
function waits.sleep_for_ever() treadle.sleep(math.huge) end
function waits.await() treadle.future():await() end
function waits.pawait() treadle.future():pawait() end
function waits.wait() treadle.future():wait(1000) end
function waits.all() treadle.all({ treadle.future(), treadle.resolved() }):await() end
function waits.as_completed() for _ in treadle.as_completed { (treadle.future()) } do end end
function waits.spawned() treadle.spawn(treadle.sleep, 1000):await() end
function waits.run() treadle.run(treadle.sleep, 1000) end
function waits.chained() treadle.future():and_then(print):await() end
function waits.step() treadle.resolved():and_then(function() treadle.sleep(1000) end):await() end
function waits.send() treadle.channel():send(1) end
function waits.recv() treadle.channel():recv() end
function waits.recv_timeout() treadle.channel():recv(1000) end
function waits.select() treadle.select { { treadle.channel(), "recv" }, timeout = 1000 } end
function waits.event() treadle.event():wait() end
function waits.event_timeout() treadle.event():wait(1000) end
function waits.barrier() treadle.barrier(2):wait() end
function waits.semaphore(s) s:acquire() end
function waits.mutex(m) m:lock() end
function waits.rwlock(l) l:read_lock() end
function waits.group()
  treadle.group(function(g) g:spawn(treadle.sleep, 1000) end)
end
function waits.group_function()
  treadle.group(function() treadle.sleep(1000) end)
end

--- The same -> makes what is held while it waits, and lets it go.
local held = {
  semaphore = { treadle.semaphore, "acquire", "release" },
  mutex = { treadle.mutex, "lock", "unlock" },
  rwlock = { treadle.rwlock, "write_lock", "write_unlock" },
}

local function outcome(ok, err)
  return ok and "done" or ("%s: %s"):format(tostring(err.kind), tostring(err.message))
end

--- Cancel a coroutine in that wait; what it notes, as one string.
function M.cancel_in(name)
  local notes = {}
  local function note(text) notes[#notes + 1] = text end
  local ended, resolve = treadle.future()
  local how = held[name]
  local thing = how and how[1](1)
  if thing then
    thing[how[2]](thing)
  end
  local f = treadle.spawn(function()
    note(outcome(pcall(waits[name], thing)))
    note(tostring(treadle.cancelled()))
    note(outcome(pcall(treadle.check)))
    note(outcome(pcall(waits[name], thing)))
    resolve()
  end)
  treadle.sleep(0)
  note(f:state())
  note(tostring(f:cancel("enough")))
  note(f:state())
  ended:await()
  note(tostring(treadle.cancelled()))
  if thing then
    thing[how[3]](thing)
  end
  return table.concat(notes, ", ")
end

--- What it notes if all is well.
function M.expected()
  return "pending, true, cancelled, cancelled: enough, true, cancelled: enough, "
    .. "cancelled: enough, false"
end

--- The kinds of waits.
function M.names()
  local names = {}
  for name in pairs(waits) do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

--- Wait for a long time, and say what ended it.
function M.nap(entered, left)
  entered:set()
  local _, err = pcall(treadle.sleep, 1000)
  left:send(err.message)
end

--- Compute until the event is set, and then say so.
function M.compute(entered, gate, left)
  entered:set()
  while not gate:is_set() do
    pcall(treadle.sleep, 0)
  end
  left:send("computed")
end

function M.endless() while true do end end
function M.add(a, b) return a + b end
function M.boom(text) error(text) end

--- A group in a task: of calls on its own pool, and coroutines.
function M.group_of_calls(n)
  return treadle.group(function(g)
    local list = {}
    for i = 1, n do
      list[i] = g:call(treadle.worker.pool, "add", i, 0)
    end
    local sum = 0
    for _, f in ipairs(list) do
      sum = sum + f:await()
    end
    return sum
  end)
end

--- The same, and one fails.
function M.group_that_fails(entered, left)
  return treadle.group(function(g)
    g:spawn(M.nap, entered, left)
    entered:wait()
    g:call(treadle.worker.pool, "boom", "no luck")
  end)
end

--- A group that waits until its job is cancelled; says when it has ended.
function M.group_that_waits(entered, left)
  local _, err = pcall(treadle.group, function(g)
    g:spawn(M.nap, entered, left)
  end)
  left:send("group " .. err.kind .. ": " .. err.message)
end

return M
