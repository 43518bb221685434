--- A host of handoff_test.c that is a Lua state: `return function(seed, jobs, workers, answered)`.
-- Makes at least `jobs` calls through pools of `workers` workers and raises at the first answer
-- that is not its call's own. `answered(n)` tells the watchdog. The same seed makes the same calls.
local treadle = require "treadle"

local MAX_BURST = 5000
local HOST = 0 -- the caller; calls for one worker have callers of their own, above
local ALONE = 100000

local random = math.random

local function payload(number)
  local n = random(10)
  return ("%d;"):format(number):rep(n == 1 and random(0, 60) or random(0, 6))
end

local function expect(call, number, text)
  if number ~= call.number or text ~= call.payload then
    error(("call %d got the answer of call %s"):format(call.number, tostring(number)), 0)
  end
end

return function(seed, jobs, workers, answered)
  math.randomseed(seed)
  local made, number, nested = 0, 0, 0
  local pool, may_close

  local function new_call(task)
    made, number = made + 1, number + 1
    return { task = task, number = number, payload = payload(number), may = {} }
  end

  --- Whether a call may end with this error.
  local function is_allowed(call, err)
    return call.may[err.kind] or call.fails and err.message == "failed " .. call.number
      or may_close and err.message:find("clos", 1, true) -- closed, or closing: the reason why
  end

  --- Take a call's answer. Waits.
  local function take(call)
    local ok, a, b, c = call.future:pawait()
    if ok then
      expect(call, a, b)
      nested = nested + (c or 0)
    elseif not is_allowed(call, a) then
      error(("call %d (%s): %s"):format(call.number, call.task, tostring(a)), 0)
    end
    answered(1)
  end

  local function cancel(call)
    call.may.cancelled = true
    call.future:cancel()
  end

  local function echo()
    local call = new_call("echo")
    call.future = pool.call.echo(HOST, call.number, call.payload)
    return call
  end

  --- Calls of every kind.
  local function any()
    local call, kind = new_call("echo"), random(100)
    local args, given = { HOST, call.number, call.payload }, nil
    if kind <= 2 then
      call.task, args[4] = "nap", random(0, 1) * 0.001
    elseif kind <= 8 then
      call.task, args[4] = "nest", random(10)
    elseif kind <= 12 then
      call.task, call.fails = "fail", true
    elseif kind <= 30 then
      local worker = random(workers)
      args[1], given = ALONE + worker, { worker = worker }
    elseif kind <= 45 then
      given = { timeout = 1000 }
    elseif kind <= 50 then
      given, call.may.timeout = { timeout = random(0, 20) * 1e-4 }, true
    end
    call.future = pool:run(call.task, args, given)
    if random(20) == 1 then
      cancel(call)
    end
    return call
  end

  --- A burst: all calls, then all answers; now and then some are cancelled in between.
  local function burst(make, size)
    local list = {}
    for i = 1, size do
      list[i] = make()
    end
    if make == any then
      for _ = 1, random(0, 10) do
        cancel(list[random(size)])
      end
    end
    for i = 1, size do
      take(list[i])
    end
  end

  --- Coroutines that call and wait in turn.
  local function dialogues()
    local list = {}
    for i = 1, random(8) do
      local turns = random(40)
      list[i] = treadle.spawn(function()
        for _ = 1, turns do
          take(echo())
        end
      end)
    end
    for _, future in ipairs(list) do
      future:await()
    end
  end

  local function end_round()
    local how, list = random(10), {}
    for i = 1, random(0, 1000) do
      list[i] = echo()
    end
    if how <= 5 then
      pool:close()
    else
      may_close = true
      if how <= 7 then
        pool:terminate()
      elseif how == 8 then
        pool:close(0)
      else
        local call = new_call("shut")
        call.future = pool:run("shut", { HOST, call.number, call.payload,
          how == 9 and "close" or "terminate" })
        list[#list + 1] = call
        for _ = 1, 200 do
          list[#list + 1] = echo()
        end
      end
    end
    for _, call in ipairs(list) do
      take(call)
    end
    pool:close()
    may_close = false
  end

  while made < jobs do
    number = 0
    pool = treadle.pool("handoff_tasks", { threads = workers, concurrency = random(3) })
    for _ = 1, random(25) do
      local size = 1 + random(0, math.min(2 ^ random(0, 13), MAX_BURST) - 1)
      local kind = random(10)
      if kind <= 6 then
        burst(echo, size)
      elseif kind <= 8 then
        burst(any, math.min(size, 600))
      else
        dialogues()
      end
      if random(4) == 1 then
        treadle.sleep(random() * 0.003)
      end
    end
    end_round()
  end
  return made + nested
end
