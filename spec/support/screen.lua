--- A terminal for the specs: what is to be seen after some bytes were written to it. It knows what
-- treadle writes; anything else that it does not know is an error.
local Screen = {}
Screen.__index = Screen

--- An empty one.
function Screen.new(columns, rows)
  return setmetatable({ columns = columns, rows = rows, lines = { {} }, row = 1, column = 1,
    top = 1, modes = {} }, Screen)
end

function Screen:_down()
  self.row = self.row + 1
  self.lines[self.row] = self.lines[self.row] or {}
  self.top = math.max(self.top, self.row - self.rows + 1)
end

function Screen:_put(character)
  if self.column > self.columns then
    self.column = 1
    self:_down()
  end
  self.lines[self.row][self.column] = character
  self.column = self.column + 1
end

function Screen:_erase_line()
  for column = self.column, self.columns do
    self.lines[self.row][column] = nil
  end
end

local function escape(self, number, final)
  if final == "A" then -- stops at the first row that is in sight
    self.row = math.max(self.top, self.row - tonumber(number))
  elseif final == "K" and number == "" then
    self:_erase_line()
  elseif final == "J" and number == "" then
    self:_erase_line()
    for row = self.row + 1, #self.lines do
      self.lines[row] = nil
    end
  elseif final == "m" then
    self.style = number ~= "0" and number ~= "" and number or nil
  else
    error(("an escape sequence that is not expected: %s%s"):format(number, final))
  end
end

--- Write to it; "\n" goes to the first column of the next row, as a terminal's driver sees to.
function Screen:write(bytes)
  local at = 1
  while at <= #bytes do
    local byte = bytes:byte(at)
    if byte == 27 then
      local number, final, after = bytes:match("^%[([%d;?]*)(%a)()", at + 1)
      assert(number, "a broken escape sequence")
      escape(self, number, final)
      at = after
    elseif byte == 10 then
      self.column = 1
      self:_down()
      at = at + 1
    elseif byte == 9 then
      self.column = math.min(self.columns, self.column + 8 - (self.column - 1) % 8)
      at = at + 1
    elseif byte == 13 then
      self.column = 1
      at = at + 1
    else
      local character = bytes:match("^[%z\1-\127\194-\244][\128-\191]*", at)
      assert(character and byte >= 32, "not expected: byte " .. byte)
      self:_put(character)
      at = at + #character
    end
  end
  return self
end

--- All rows from the first that was ever written to, without spaces at their ends.
function Screen:text()
  local list = {}
  for row, line in ipairs(self.lines) do
    local parts = {}
    for column = 1, self.columns do
      parts[column] = line[column] or " "
    end
    list[row] = table.concat(parts):gsub(" +$", "")
  end
  return table.concat(list, "\n")
end

return Screen
