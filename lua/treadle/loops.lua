--- The loops around the functions of parallel loops. Each function has loops of its own, compiled
-- from source: the JIT compiler makes the function part of them, and nobody else's.
-- @module treadle.loops
local has_util, util = pcall(require, "jit.util")

local M = {}

--- An item of the input, by where it comes from.
local ITEMS = {
  list = "items[i]",
  buffer = "items[i]",
  range = "i",
  records = "sub(items, (i - 1) * size + 1, i * size)",
}

--- What is done with it. `at` is a count or a value that the loop goes on with.
local LOOPS = {
  map = "results[i] = fn(ITEM)",
  each = "fn(ITEM)",
  filter = "if fn(ITEM) then KEEP end",
  reduce = "at = fn(at, ITEM)",
}

--- Keeping an item: its index, or in a buffer itself.
local KEEP = {
  list = "at = at + 1 results[at] = i",
  records = "at = at + 1 results[at] = i",
  buffer = "results[at] = items[i] at = at + 1",
}

--- A single item is no loop: the JIT compiler gives up loops that end while it looks.
local TEMPLATE = [[
local sub, size = ...
return function(fn, items, first, last, results, at)
  if first == last then
    local i = first
    BODY
    return at
  end
  for i = first, last do
    BODY
  end
  return at
end, function(items, i)
  return ITEM
end]]

--- prototype, or C function -> kind of loop -> a chunk that makes the loop
local made = setmetatable({}, { __mode = "k" })

--- Lua function -> prototype
local origins = setmetatable({}, { __mode = "k" })

--- What functions have in common that come from the same lines.
local function origin(fn)
  local found = origins[fn]
  if not found then
    found = has_util and util.funcinfo(fn).proto
    origins[fn] = found
  end
  return found or fn
end
M.origin = origin

--- Make the loop that calls `fn`, and a function that finds an item.
-- @return `loop(fn, items, first, last, results, at)` returns `at`; `item(items, i)`
function M.make(fn, what, source, size)
  local from, kind = origin(fn), what .. " " .. source
  local own = made[from]
  if not own then
    own = {}
    made[from] = own
  end
  if not own[kind] then
    local text = TEMPLATE:gsub("BODY", LOOPS[what]):gsub("KEEP", KEEP[source] or "")
      :gsub("ITEM", ITEMS[source])
    own[kind] = { assert(loadstring(text, "=treadle.loops"))(string.sub, size) }
    own[kind].size = size
  end
  if own[kind].size ~= size then
    own[kind] = nil
    return M.make(fn, what, source, size)
  end
  return own[kind][1], own[kind][2]
end

return M
