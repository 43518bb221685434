--- Tasks of a confined process: what it may send.
local M = {}

function M.make_function()
  return function() return 1 end
end

function M.make_list()
  return { 1, "text" }
end

return M
