--- Tasks that leave traces, for calls that wait behind others.
local process_tasks = require "process_tasks"
local tasks = require "tasks"
local treadle = require "treadle"

local M = {
  echo = tasks.echo,
  hold = tasks.hold,
  note = process_tasks.note,
  pid = process_tasks.pid,
}

--- Waits until the gate is there, then emits more than its caller has room for.
function M.hold_and_emit(gate, n)
  tasks.hold(gate)
  for i = 1, n do
    treadle.emit(i)
  end
  return n
end

--- Waits until the gate is there, then for calls on its own pool.
function M.hold_and_call(gate, path, n)
  tasks.hold(gate)
  local list = {}
  for i = 1, n do
    list[i] = treadle.worker.pool.call.note(path, "inner " .. i)
  end
  treadle.all(list):await()
  return n
end

return M
