--- Rounds of attacks by a worker's process on its host, which must live through each of them.
local treadle = require "treadle"

--- How long an attack may take: it ends with the process at the latest.
local DEADLINE = 0.5

--- Calls that wait behind one.
local AHEAD = 50

--- How each attack may end: undisturbed, found out, or with a forged result, of which the status
-- may be any.
local ENDS = { resolved = true, crashed = true, timeout = true, task = true, memory = true,
  payload = true, load = true, cancelled = true, closed = true, queue_full = true,
  permission = true }

--- An attack on a host that has calls ahead of the attacker, and of another one. What the attacker
-- does not end it ends by force: it may do nothing at all.
local function attack_what_is_ahead(narrow, name)
  local f = narrow:run("attack", { name, math.random(2 ^ 31 - 1) },
    { worker = 1, timeout = DEADLINE })
  f:catch(function() end)
  local list = {}
  for i = 1, AHEAD do
    list[i] = narrow.call.echo(i)
  end
  f:wait(2 * DEADLINE)
  for i = 1, AHEAD do
    if not list[i]:wait(DEADLINE) then
      list[i]:cancel { force = true }
    end
    local ok, value = list[i]:pawait()
    assert(ok and (value == i or f:state() == "resolved") or not ok and ENDS[value.kind],
      "a call of another process")
  end
end

--- Make `rounds` attacks, by name or any of them.
-- @return counts of ends by kind
return function(rounds, name)
  local counts = {}
  local pool = treadle.pool("hostile_tasks", { runtime = "process", threads = 2, concurrency = 2,
    permissions = "unrestricted", terminate_timeout = 0.1 })
  local narrow = treadle.pool("hostile_tasks", { runtime = "process", threads = 2,
    permissions = "unrestricted", terminate_timeout = 0.1 })
  local names = pool.call.names():await()
  for _ = 1, rounds do
    local mate = pool:run("nap", {}, { worker = 1, timeout = DEADLINE })
    mate:catch(function() end)
    local f = pool:run("attack", { name or names[math.random(#names)], math.random(2 ^ 31 - 1) },
      { worker = 1, timeout = DEADLINE })
    local ok, err = f:pawait()
    local how = ok and "resolved" or err.kind
    assert(ENDS[how], how)
    counts[how] = (counts[how] or 0) + 1
    assert(pool:run("echo", { 42 }, { worker = 2 }):await() == 42, "the other worker goes on")
    mate:cancel { force = true }
    -- what is left of it is found out now, or at the latest by a call
    for _ = 1, 5 do
      ok, err = pool:run("echo", { 7 }, { worker = 1, timeout = 20 }):pawait()
      if ok and err == 7 then
        break
      end
    end
    assert(ok and err == 7, "the attacker is replaced")
    attack_what_is_ahead(narrow, name or names[math.random(#names)])
  end
  local s = pool:stats()
  assert(s.queued + s.running + s.done + s.failed + s.cancelled == s.submitted, "counts add up")
  pool:terminate()
  narrow:terminate()
  return counts
end
