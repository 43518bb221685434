--- What parallel loops bring: put together from what comes back of each part.
-- Each kind has `put(part, result)` and `finish(input)`, which returns the whole.
-- @module treadle.results
local ffi = require "ffi"
local input = require "treadle.input"
local has_new, new_table = pcall(require, "table.new")

local M = {}

local function kind(methods)
  methods.__index = methods
  return methods
end

-- --- nothing -------------------------------------------------------------------------------------

local Nothing = kind {}

function Nothing.put() end
function Nothing.finish() end

function M.nothing()
  return setmetatable({}, Nothing)
end

-- --- a list of one result for each item ----------------------------------------------------------

local List = kind {}

--- @tparam number n how many are expected, 0 if that is not known
-- @tparam boolean is_ordered whether their order is that of the items
function M.list(n, is_ordered)
  return setmetatable({
    list = has_new and new_table(n, 0) or {}, n = 0, is_ordered = is_ordered, has_nils = false,
  }, List)
end

function List:put(part, result)
  local list, count = self.list, part.last - part.first + 1
  local at = self.is_ordered and part.base + part.first - 1 or self.n
  for i = 1, count do
    local value = result[i]
    list[at + i] = value
    if value == nil then
      self.has_nils = true
    end
  end
  self.n = self.n + count
end

--- The first `n` results are in the list: the loop has begun here.
function List:passed(n)
  local list = self.list
  self.n = n
  for i = 1, n do
    if list[i] == nil then
      self.has_nils = true
      return
    end
  end
end

--- `n` is in the list if it was in the input, or if `#` cannot tell it.
function List:finish(from)
  if self.has_nils or from.has_n then
    self.list.n = self.n
  end
  return self.list
end

-- --- a list of the items that stay ---------------------------------------------------------------

local Kept = kind {}

--- @tparam[opt] number size of a record
function M.kept(is_ordered, size)
  return setmetatable({ parts = {}, is_ordered = is_ordered, size = size }, Kept)
end

function Kept:put(part, result)
  local items, values = part.items, {}
  if type(items) == "string" then
    local size = self.size
    for i, index in ipairs(result) do
      values[i] = items:sub((index - 1) * size + 1, index * size)
    end
  else
    for i, index in ipairs(result) do
      values[i] = items[index]
    end
  end
  self.parts[#self.parts + 1] = { first = part.base + part.first, values = values }
end

function Kept:finish()
  local list, n = {}, 0
  if self.is_ordered then
    table.sort(self.parts, function(a, b) return a.first < b.first end)
  end
  for _, part in ipairs(self.parts) do
    for _, value in ipairs(part.values) do
      n = n + 1
      list[n] = value
    end
  end
  return list
end

-- --- the same of buffers -------------------------------------------------------------------------

local Buffer = kind {}

function M.buffer(output)
  return setmetatable({ output = output }, Buffer)
end

function Buffer.put() end

function Buffer:finish()
  return self.output
end

local Moved = kind {}

--- @param output has the elements that stay of each part where the part begins
function M.moved(output)
  return setmetatable({ output = output, spans = {}, n = 0 }, Moved)
end

function Moved:put(part, result)
  if result > 0 then
    self.spans[#self.spans + 1] = { first = part.first, n = result }
    self.n = self.n + result
  end
end

function Moved:finish()
  local element = input.element(self.output)
  local whole = require("treadle.buffer").new(element, self.n)
  local size, at = ffi.sizeof(element), 0
  table.sort(self.spans, function(a, b) return a.first < b.first end)
  for _, span in ipairs(self.spans) do
    ffi.copy(whole.ptr + at, self.output.ptr + span.first, span.n * size)
    at = at + span.n
  end
  self.output:close()
  return whole
end

-- --- the values of a reduction's leaves ----------------------------------------------------------

local Leaves = kind {}

function M.leaves(first, leaf, is_ordered)
  return setmetatable({
    first = first, leaf = leaf, is_ordered = is_ordered, values = {}, n = 0,
  }, Leaves)
end

function Leaves:put(part, result)
  local leaf = self.leaf
  local at = self.is_ordered and (part.base + part.first - self.first) / leaf or self.n
  local count = math.ceil((part.last - part.first + 1) / leaf)
  for i = 1, count do
    self.values[at + i] = result[i]
  end
  self.n = self.n + count
end

function Leaves.finish() end

return M
