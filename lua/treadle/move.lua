--- Giving a buffer away with a call: `treadle.move` and the option `transfer`.
-- @module treadle.move
local core = require "treadle.core"
local options = require "treadle.options"
require "treadle.share" -- opens the functions of C

local M = {}

--- As an argument, a result, a message: the receiver gets the buffer, and this state's handles that
-- lie within it are closed in the moment in which the call is accepted, or the message is sent.
-- @param buffer
-- @return what stands for it among the arguments
M.new = core.move

--- Put the list of option `transfer` behind a call's arguments.
-- @tparam table args the list of arguments, left as it is
-- @tparam number n how many there are
-- @tparam table list of buffers
-- @treturn table
function M.append(args, n, list, level)
  local transfer, message = core.transfer(list)
  if not transfer then
    options.bad_argument(3, "run", "option 'transfer': " .. message, (level or 1) + 1)
  end
  local all = { unpack(args, 1, n) }
  all[n + 1] = transfer
  return all
end

return M
