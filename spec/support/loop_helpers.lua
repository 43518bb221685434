--- What the specs of parallel loops share.
local M = {}

function M.range(n)
  local list = {}
  for i = 1, n do
    list[i] = i
  end
  return list
end

--- Something that only workers do: a function that calls `require` never runs here.
function M.in_worker(x)
  assert(not require("treadle").is_main)
  return x
end

--- Call `fn` while the first looks at the clock find it so much later each time, and then a second.
function M.with_clock(step, fn)
  local core = require "treadle.core"
  local now, time, looks = core.now, 0, 0
  core.now = function()
    looks = looks + 1
    time = time + (looks <= 3 and step or math.min(step, 1))
    return time
  end
  local ok, value = pcall(fn)
  core.now = now
  return assert(ok and value, value)
end

return M
