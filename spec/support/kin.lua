--- Tasks that make calls of their own, and what becomes of those. They write to a log, a file.
local helpers = require "helpers"
local treadle = require "treadle"

local M = {}

local function note(log, text)
  local file = assert(io.open(log, "a"))
  file:write(text, "\n")
  file:close()
end

--- The pool to call: the worker's own, or one of this worker's.
local other
local function pool_of(where)
  if where == "own" then
    return treadle.worker.pool
  end
  other = other or treadle.pool("kin", { threads = 1 })
  return other
end

--- Compute until it is true: nothing else runs in this worker meanwhile.
local function until_true(fn)
  while not fn() do
    helpers.pause()
  end
end

local function is_there(path)
  return helpers.read(path) ~= ""
end

local function is_noted(log, text)
  return helpers.read(log):find(text, 1, true) ~= nil
end

local function outcome(ok, err)
  return ok and "done" or err.kind .. ": " .. err.message
end

M.note = note

--- Wait for a long time; note what ends that.
function M.leaf(log)
  note(log, "leaf started")
  note(log, "leaf " .. outcome(pcall(treadle.sleep, 1000)))
end

--- Wait until the gate is open.
function M.hold(log, gate)
  note(log, "hold started")
  until_true(function()
    treadle.sleep(0.001)
    return is_there(gate)
  end)
  note(log, "hold done")
end

--- The same, as one computation.
function M.block(log, gate)
  note(log, "block started")
  until_true(function() return is_there(gate) end)
  note(log, "block done")
end

--- Wait for a call that computes until the gate is open, in another worker.
function M.call_block(log, gate)
  local worker = treadle.worker
  local f = worker.pool:run("block", { log, gate }, { worker = 3 - worker.id })
  note(log, "call_block " .. outcome(pcall(f.await, f)))
end

--- Wait for a call that computes and asks.
function M.call_check(log)
  local f = treadle.worker.pool.call.check(log)
  note(log, "call_check " .. outcome(pcall(f.await, f)))
end

function M.terminate()
  treadle.worker.pool:terminate()
end

--- A chain of calls that wait for one another, with a leaf at the end.
function M.chain(log, where, n)
  local call = pool_of(where).call
  local f = n > 0 and call.chain(log, where, n - 1) or call.leaf(log)
  note(log, ("chain %d %s"):format(n, outcome(pcall(f.await, f))))
end

--- Make a call and compute until the gate is open.
function M.compute(log, where, gate)
  pool_of(where).call.leaf(log)
  until_true(function() return is_noted(log, "leaf started") end)
  note(log, "computing")
  until_true(function() return is_there(gate) end)
  note(log, "computed")
end

--- Make a call, ask until this job is cancelled, and then compute on until the call has ended.
function M.ask(log, where)
  pool_of(where).call.leaf(log)
  until_true(function() return is_noted(log, "leaf started") end)
  note(log, "asking")
  until_true(treadle.cancelled)
  until_true(function() return is_noted(log, "leaf cancelled") end)
  note(log, "asked")
end

--- Make a call that waits for the gate, and end before it does.
function M.leave(log, where, gate, message)
  pool_of(where).call.hold(log, gate)
  until_true(function() return where == "own" or is_noted(log, "hold started") end)
  if message then
    error(message)
  end
end

--- Queue a call behind one that blocks the only worker of another pool.
function M.queue(log, gate)
  local call = pool_of("other").call
  call.block(log, gate)
  until_true(function() return is_noted(log, "block started") end)
  local f = call.note(log, "never")
  note(log, "queued")
  note(log, "queue " .. outcome(pcall(f.await, f)))
end

--- Wait for a call that waits for the gate.
function M.pass(log, where, gate)
  return pool_of(where).call.hold(log, gate):await()
end

--- What comes after all calls that were queued before it.
function M.after()
  return pool_of("other").call.note(os.tmpname(), "after"):await()
end

--- Make a call with these options and look at it, without waiting, until it is settled.
function M.watch(log, where, options)
  local f = pool_of(where):run("leaf", { log }, options)
  until_true(function() return f:state() ~= "pending" end)
  note(log, "watch " .. f:state() .. " " .. outcome(f:pawait()))
end

--- The same at the end of a chain of n calls.
function M.down(log, n)
  local call = treadle.worker.pool.call
  local f = n > 0 and call.down(log, n - 1) or pool_of("other").call.leaf(log)
  if n == 0 then
    until_true(function() return f:state() ~= "pending" end)
    note(log, "bottom " .. outcome(f:pawait()))
  else
    f:await()
  end
end

--- n coroutines that wait, as the task itself does.
function M.spawn(log, n)
  for _ = 1, n do
    treadle.spawn(function()
      note(log, "spawned " .. outcome(pcall(treadle.sleep, 1000)))
      note(log, "again " .. outcome(pcall(treadle.sleep, 1000)))
      note(log, "cancelled " .. tostring(treadle.cancelled()))
    end)
  end
  note(log, "waiting")
  note(log, "task " .. outcome(pcall(treadle.sleep, 1000)))
end

--- A coroutine waits while the task itself computes until it is cancelled.
function M.spawn_and_ask(log)
  treadle.spawn(function()
    note(log, "spawned " .. outcome(pcall(treadle.sleep, 1000)))
  end)
  note(log, "waiting")
  until_true(treadle.cancelled)
end

--- A coroutine that outlives the task.
function M.spawn_and_leave(log, gate)
  treadle.spawn(function()
    note(log, "left " .. outcome(pcall(M.hold, log, gate)))
    note(log, "cancelled " .. tostring(treadle.cancelled()))
  end)
end

--- Compute, checking, until that raises.
function M.check(log)
  note(log, "checking")
  local ok, err
  repeat
    ok, err = pcall(treadle.check)
  until not ok
  note(log, "check " .. outcome(ok, err))
end

return M
