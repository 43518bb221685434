--- Tasks with long arguments and results, for workers in processes of their own.
local ffi = require "ffi"
local tasks = require "tasks"

local M = {
  echo = tasks.echo,
  hold = tasks.hold,
}

function M.text(n, letter)
  return letter:rep(n)
end

--- What was sent, as far as it can be said shortly.
function M.weigh(text, times)
  return #text, text:sub(1, 1), text == text:sub(1, 1):rep(#text), times
end

--- A long result, and one that cannot be sent.
function M.half(n)
  return ("h"):rep(n), coroutine.create(print)
end

function M.raise(n)
  error(("e"):rep(n), 0)
end

--- The end of this process.
function M.die()
  ffi.cdef "int raise(int sig);"
  ffi.C.raise(9)
end

return M
