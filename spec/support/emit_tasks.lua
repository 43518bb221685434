--- Tasks that emit, for the specs of workers in processes.
local treadle = require "treadle"

local M = {}

--- Emit the numbers up to n: how many were wanted.
function M.count(n)
  for i = 1, n do
    if not treadle.emit(i) then
      return i - 1
    end
  end
  return n
end

--- The same, and write how far it has come, once it waits or has ended.
function M.write(path, n)
  local sent = 0
  local writer = treadle.spawn(function()
    treadle.sleep(0) -- goes on when the other waits
    local file = assert(io.open(path, "w"))
    file:write(sent)
    file:close()
  end)
  for i = 1, n do
    if not treadle.emit(i) then
      break
    end
    sent = i
  end
  writer:await()
  return sent
end

function M.give(...)
  for i = 1, select("#", ...) do
    treadle.emit((select(i, ...)))
  end
end

function M.buffer(n)
  local buf = treadle.buffer("int", n, { process = true })
  for i = 0, n - 1 do
    buf:set(i, i)
  end
  treadle.emit(buf, n)
end

function M.code()
  treadle.emit(function() return 42 end)
end

function M.die(n)
  M.count(n)
  local ffi = require "ffi"
  ffi.cdef "void abort(void);"
  ffi.C.abort()
end

function M.stream_below()
  return treadle.worker.pool.call.count(3):stream()()
end

return M
