--- The tasks of luv_server.lua. Only the workers load this file.
local treadle = require "treadle"
local uv = require "luv"

local M = {}

M.count_primes = require("primes").count

-- Call a luv function whose last parameter is a callback(err, result); wait for the result.
local function await_luv(fn, ...)
  local future, resolve, reject = treadle.future()
  local arguments = { ... }
  arguments[#arguments + 1] = function(err, result)
    if err then
      reject(err)
    else
      resolve(result)
    end
  end
  assert(fn(unpack(arguments)))
  return future:await()
end

--- The first `size` bytes of a file, read with luv after a luv timer of `delay` seconds.
function M.read_later(delay, path, size)
  local timer = uv.new_timer()
  await_luv(timer.start, timer, delay * 1000, 0)
  timer:close()
  local file = await_luv(uv.fs_open, path, "r", 0)
  local bytes = await_luv(uv.fs_read, file, size, 0)
  await_luv(uv.fs_close, file)
  return bytes
end

return M
