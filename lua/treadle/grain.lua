--- Whether a loop is worth its way to the workers: its first items are timed here, and where what
-- is left is too little to gain, it ends here.
-- @module treadle.grain
local core = require "treadle.core"

local M = {}

--- Less than this is not worth a way to the workers; more may be, once the loop has run so long
-- that the JIT compiler has had its chance.
local GAIN_S, PROBE_S = 1e-3, 100e-6

--- How many items are copied to see what their way would cost.
local SAMPLE = 32

--- Seconds that an item takes to a worker, and its result back.
local function way_of(items, at, n)
  local last = math.min(at + SAMPLE - 1, n)
  local sample = {}
  for i = at, last do
    sample[i - at + 1] = items[i]
  end
  core.copy(sample) -- for the first time it needs memory
  local start = core.now()
  if not pcall(core.copy, sample) then
    return 0 -- who sends it will say why not
  end
  return 2 * (core.now() - start) / (last - at + 1)
end

--- Run a loop here as long as that is best.
-- @param step `step(self, i, j)` runs these items
-- @tparam[opt] table items those of a list, which would have to travel
-- @tparam number workers how many would share the work
-- @return the first item that is better run elsewhere, nil if there is none
function M.run(step, self, first, last, items, workers)
  if workers < 2 then
    step(self, first, last)
    return nil
  end
  local i, size = first, 1
  local start = core.now()
  local before, last_each, way = start, nil, nil
  while i <= last do
    local j = math.min(i + size - 1, last)
    step(self, i, j)
    i = j + 1
    if i > last then
      return nil
    end
    local now = core.now()
    local this_each = (now - before) / size
    local each = math.min(this_each, last_each or 0) -- one may have lost its processor
    last_each = this_each
    if each * (last - j) > GAIN_S and now - start > PROBE_S then
      if items and not way then
        way = way_of(items, i, last)
        now = core.now()
      end
      if each * (1 - 1 / workers) > (way or 0) then
        return i
      end
    end
    before = now
    size = size * 8
  end
end

return M
