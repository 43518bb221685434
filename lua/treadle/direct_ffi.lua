--- Calls of plain values and their results, in a form that the JIT compiler can compile: the FFI
-- moves the values (src/bind/direct.c), and the futures are made and settled here. Whatever is not
-- plain goes the other way: `core.caller` and `core.poll`.
-- @module treadle.direct_ffi
local core = require "treadle.core"

local M = {}

local STATE, VALUE, COUNT = core.STATE, core.VALUE, core.COUNT
local WAITER = core.WAITER
local PENDING, RESOLVED = core.PENDING, core.RESOLVED

local ffi = require "ffi"

local futures = core.direct.futures
local OTHER, NOTHING, NONE = core.direct.OTHER, core.direct.NOTHING, core.direct.NONE
local TRUE, FALSE = core.direct.TRUE, core.direct.FALSE
local NUMBER, STRING = core.direct.NUMBER, core.direct.STRING

local self = ffi.cast(core.direct.declaration .. "*", core.direct.self)
local open, submit = self.open, self.submit
local next_result, reported, hold_back = self.next, self.reported, self.hold_back
local spin = self.spin
local put_nil, put_boolean = self.put_nil, self.put_boolean
local put_number, put_string = self.put_number, self.put_string

--- Write an argument; 0 when it cannot be done here.
local function put(value)
  local kind = type(value)
  if kind == "number" then
    return put_number(self, value)
  elseif kind == "string" then
    return put_string(self, value, #value)
  elseif kind == "boolean" then
    return put_boolean(self, value and 1 or 0)
  elseif kind == "nil" then
    return put_nil(self)
  end
  return 0
end

--- Make a call of `n` arguments, at most 3: its future, or nil when it cannot be done here.
local function call(mt, handle, task, n, a, b, c)
  if open(self, handle, n) == 0 then
    return nil
  elseif n > 0 and put(a) == 0 or n > 1 and put(b) == 0 or n > 2 and put(c) == 0 then
    self.opened = 0
    return nil
  end
  local slot = self.opened
  local future = setmetatable({ PENDING, nil, nil, nil, slot, nil, false }, mt)
  futures[slot] = future
  if submit(self, task) == 0 then
    futures[slot] = nil
    return nil
  end
  return future
end

function M.caller(handle, task, mt)
  local other = core.caller(handle, task)
  return function(...)
    local n = select("#", ...)
    local future
    if n <= 3 then
      future = call(mt, handle, task, n, ...)
    end
    return future or other(...)
  end
end

function M.receive(tell)
  local events = 0
  local kind = next_result(self)
  while kind > OTHER do
    local slot = self.slot
    local future = futures[slot]
    local value
    if kind == NUMBER then
      value = self.number
    elseif kind == STRING then
      local ok
      ok, value = pcall(ffi.string, self.text, self.length)
      if not ok then -- no memory, or a finalizer's error
        hold_back(self)
        return events, true
      elseif futures[slot] ~= future then -- a finalizer has cancelled it
        future = nil
      end
    elseif kind == TRUE or kind == FALSE then
      value = kind == TRUE
    end
    if not future or future[STATE] ~= PENDING then -- cancelled when the result was under way
      futures[slot] = nil
      hold_back(self)
      return events, true
    end
    futures[slot] = nil
    if kind == NONE then
      future[COUNT] = 0
    else
      future[VALUE] = value
    end
    future[STATE] = RESOLVED
    reported(self)
    if future[WAITER] ~= nil then
      tell(future)
    end
    events = events + 1
    kind = next_result(self)
  end
  return events, kind ~= NOTHING
end

function M.spin()
  return spin(self) ~= 0
end

return M
