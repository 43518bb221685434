--- What a file of specs told (treadle.suite_file) is told to busted here once more, so that its
-- output handlers and its counts see the file as if it had run in this process.
-- @module treadle.suite_replay
local M = {}

--- Attributes that say nothing about an environment: there is none to be kept here.
local NO_ATTRIBUTES = {}

--- What must not change of the element that busted has made for the file.
local KEPT = { attributes = true, descriptor = true, name = true, trace = true }

local methods = {}
local mt = { __index = methods }

--- @tparam table busted its core
-- @tparam table file the element of the file
function M.new(busted, file)
  return setmetatable({ busted = busted, file = file, elements = {}, open = {} }, mt)
end

--- Call a function while busted looks at an element.
local function inside(self, element, fn)
  local context, attributes = self.busted.context, element.attributes
  element.attributes = NO_ATTRIBUTES
  context.push(element)
  element.attributes = attributes
  local ok, err = pcall(fn)
  context.pop()
  if not ok then
    error(err, 0)
  end
end

local function learn(self, change)
  local element = self.elements[change.number]
  if not element and change.fields.descriptor == "file" then
    element = self.file
  elseif not element then
    element = {}
    inside(self, self.elements[change.parent] or self.file, function()
      self.busted.context.attach(element)
    end)
  end
  self.elements[change.number] = element
  for k, v in pairs(change.fields) do
    if element ~= self.file or not KEPT[k] then
      element[k] = v
    end
  end
end

--- Which of busted's blocks an error of an output handler counts for.
local function descriptor_of(channel, element)
  if channel[1] == "test" then
    return element.descriptor == "pending" and "it" or "test"
  end
  return channel[1]
end

local function publish(self, channel, element, ...)
  local busted, n, args = self.busted, select("#", ...), { ... }
  if not element or not busted.context.parent(element) then
    busted.publish(channel, element, ...)
    return
  end
  local function tell()
    busted.publish(channel, element, unpack(args, 1, n))
  end
  inside(self, element, function()
    if channel[2] == "start" or channel[2] == "end" then
      busted.safe(descriptor_of(channel, element), tell, element)
    else
      tell()
    end
  end)
end

local function note(self, channel, element)
  local open = self.open
  if channel[2] == "start" then
    open[#open + 1] = { channel[1], element }
  elseif channel[2] == "end" and open[#open] and open[#open][2] == element then
    open[#open] = nil
  end
end

--- @tparam table record `send_event` of treadle.suite_file made it; [1] to [3] are not looked at
function methods:event(record)
  local channel, changes, elements, n = record[4], record[5], record[6], record[7]
  for _, change in ipairs(changes) do
    learn(self, change)
  end
  local args = {}
  for i = 1, n do
    args[i] = record[7 + i]
    if elements[i] then
      args[i] = self.elements[elements[i]] or self.busted.context.parent(self.file)
    end
  end
  note(self, channel, args[1])
  publish(self, channel, unpack(args, 1, n))
end

local function close(self, ago)
  local busted = self.busted
  local channel, element = unpack(table.remove(self.open))
  local parent = element ~= self.file and busted.context.parent(element) or nil
  element.endtick, element.endtime = busted.monotime() - ago, busted.gettime() - ago
  element.duration = element.endtick - (element.starttick or element.endtick)
  publish(self, { channel, "end" }, element, parent, channel == "test" and "error" or nil)
end

--- The file has not come to its end: an error where it was, and the ends of what it had begun.
-- @tparam string reason
-- @tparam number ago how many seconds ago that was
function methods:fail(reason, ago)
  local top = self.open[#self.open]
  local element = top and top[2] or self.file
  local at = element.trace or {}
  local message = ("%s: %s"):format(self.file.name, reason)
  publish(self, { "error", element.descriptor }, element, self.busted.context.parent(element),
    message, {
      what = "Lua", source = "@" .. self.file.name, message = message, traceback = "",
      short_src = at.short_src or self.file.name, currentline = at.currentline or 0,
    })
  while #self.open > 0 do
    close(self, ago)
  end
end

return M
