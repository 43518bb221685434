--- What a parallel loop goes over: a list, a range, a buffer, a string of records, an iterator.
-- Fields: `source` (see treadle.loops), `first` and `last`, the indices, `count`; an iterator's
-- last index and count are nil until it has ended. `take(first, count)` gives the items of a part
-- as they travel: the items or nil, the indices of its first and last item among them, and what to
-- add to such an index for the input's.
-- @module treadle.input
local core = require "treadle.core"

local M = {}

local List = {}
List.__index = List

function List:take(first, count)
  local items, list = {}, self.list
  for i = 1, count do
    items[i] = list[first + i - 1]
  end
  return items, 1, count, first - 1
end

function M.list(list)
  local n = list.n == nil and #list or list.n
  return setmetatable({
    source = "list", list = list, first = 1, last = n, count = n, has_n = list.n ~= nil,
  }, List)
end

local Range = {}
Range.__index = Range

function Range:take(first, count) -- luacheck: no self
  return nil, first, first + count - 1, 0
end

--- The whole numbers from first to last.
function M.range(first, last)
  return setmetatable({
    source = "range", first = first, last = last, count = math.max(0, last - first + 1),
  }, Range)
end

function M.buffer(buffer)
  local n = #buffer
  return setmetatable({
    source = "buffer", buffer = buffer, first = 0, last = n - 1, count = n,
  }, Range)
end

--- The table of a list that was given: itself, or what a shared one holds; nil when it is none.
function M.table_of(value)
  if type(value) == "table" then
    return value
  elseif type(value) == "userdata" and getmetatable(value) == "treadle.shared" then
    return require("treadle.shared").contents(value)
  end
end

function M.is_buffer(value)
  return type(value) == "userdata" and getmetatable(value) == "treadle.buffer"
end

--- The name of a buffer's element type.
function M.element(buffer)
  local _, _, _, name = core.buffer_look(buffer)
  return name
end

local Records = {}
Records.__index = Records

function Records:take(first, count)
  local size = self.size
  return self.text:sub((first - 1) * size + 1, (first + count - 1) * size), 1, count, first - 1
end

function M.records(text, size)
  local n = #text / size
  return setmetatable({
    source = "records", text = text, size = size, first = 1, last = n, count = n,
  }, Records)
end

local Iterator = {}
Iterator.__index = Iterator

function Iterator:take(first, count)
  local items = {}
  for i = 1, count do
    local item = self.next()
    if item == nil then
      self.count = first + i - 2
      self.last = self.count
      return items, 1, i - 1, first - 1
    end
    items[i] = item
  end
  return items, 1, count, first - 1
end

--- @tparam function next_item returns the next item, nil after the last one
function M.iterator(next_item)
  return setmetatable({ source = "list", next = next_item, first = 1 }, Iterator)
end

return M
