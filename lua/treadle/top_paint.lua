--- Draws lines that change at the bottom of a terminal; other text goes above them and stays.
-- Nothing is hidden, switched or saved there: between two writes the terminal is as a program finds
-- it, whatever ends this one. What is drawn anew is erased by going up so many rows.
-- @module treadle.top_paint
local text = require "treadle.top_text"

local M = {}

local methods = {}
local mt = { __index = methods }

--- How many rows a line takes that was written to a terminal.
local function rows_of(line, columns)
  local width = text.width((line:gsub("\27%[[%d;]*m", "")))
  return math.max(1, math.ceil(width / columns))
end

--- A painter of an empty area.
function M.new()
  return setmetatable({ drawn = {}, whole = {}, partial = "" }, mt)
end

--- Text that is to go above the lines. What is behind its last end of a line stays with them until
-- that line is whole.
function methods:add(more)
  local all = self.partial .. more
  local at = all:match ".*()\n"
  if at then
    self.whole[#self.whole + 1] = all:sub(1, at)
    all = all:sub(at + 1)
  end
  self.partial = all
end

--- What to write so that the terminal shows the text that was added, and below it these lines.
-- @tparam table lines none wider than the terminal
-- @tparam number columns of the terminal
-- @tparam number rows of the terminal: what does not fit is left out, so that it can be erased
-- @tparam[opt] boolean is_last text that waits for the end of its line goes above, too
function methods:paint(lines, columns, rows, is_last)
  local up, out = 0, {}
  for _, line in ipairs(self.drawn) do
    up = up + rows_of(line, columns)
  end
  if is_last and self.partial ~= "" then
    self:add "\n"
  end
  out[1] = "\r" .. (up > 0 and ("\27[%dA"):format(up) or "") .. (#self.whole > 0 and "\27[J" or "")
  for _, whole in ipairs(self.whole) do
    out[#out + 1] = whole
    if whole:find("\27", 1, true) then -- its colours are not the view's
      out[#out + 1] = "\27[0m"
    end
  end
  self.whole, self.drawn = {}, {}
  if self.partial ~= "" then -- a prompt, say
    self.drawn[1] = text.cut(self.partial:gsub("\t", "  "), columns)
  end
  local room = rows - 1 - #self.drawn -- the cursor is in the row below
  for i, line in ipairs(lines) do
    if i > room or i == room and lines[i + 1] then
      self.drawn[#self.drawn + 1] = "..."
      break
    end
    self.drawn[#self.drawn + 1] = line
  end
  for _, line in ipairs(self.drawn) do
    out[#out + 1] = "\27[K" .. line .. "\n"
  end
  out[#out + 1] = "\27[J"
  return table.concat(out)
end

return M
