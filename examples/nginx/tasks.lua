--- The tasks of handlers.lua. The pool's threads load this file; nginx does so to compare.
local sha256 = require "sha256"

local M = {}

--- Slow on purpose, as passwords are hashed.
function M.hash(password, salt, rounds)
  local sum = salt
  for _ = 1, rounds do
    sum = sha256.hex(sum .. password)
  end
  return sum
end

return M
