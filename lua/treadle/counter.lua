--- One integer of 64 bits that all states count with.
-- @classmod treadle.counter
local core = require "treadle.core"
local ffi = require "ffi"
local options = require "treadle.options"
local share = require "treadle.share"

local methods = {}

share.kind("counter", methods)

--- Whole numbers up to here are exact.
local LARGEST = 2 ^ 53

--- Compiled code reaches C by these; `thing` is nil once the handle is closed.
local handle_type = ffi.typeof "struct { void *thing; } *"
local add, get, set = core.counter_functions()
add = ffi.cast("double (*)(void *, double)", add)
get = ffi.cast("double (*)(void *)", get)
set = ffi.cast("void (*)(void *, double)", set)

--- handle -> the same for the FFI
local handles = setmetatable({}, { __mode = "k" })

--- The thing behind a handle; raises if there is none.
local function thing_of(self, name)
  local handle = handles[self]
  if not handle then
    share.check(self, "counter", name, 2)
    handle = ffi.cast(handle_type, self)
    handles[self] = handle
  end
  local thing = handle.thing
  if thing == nil then
    share.check(self, "counter", name, 2)
  end
  return thing
end

local function whole(index, name, n)
  if type(n) ~= "number" or n % 1 ~= 0 or n > LARGEST or n < -LARGEST then
    options.bad_argument(index, name, ("a whole number up to 2^53 expected, got %s"):format(
      type(n) == "number" and tostring(n) or type(n)), 2)
  end
  return n
end

--- Add to it.
-- @tparam[opt=1] number n
-- @treturn number the new value
function methods:add(n)
  local thing = thing_of(self, "add")
  return (add(thing, n == nil and 1 or whole(1, "add", n)))
end

--- Subtract from it.
-- @tparam[opt=1] number n
-- @treturn number the new value
function methods:sub(n)
  local thing = thing_of(self, "sub")
  return (add(thing, n == nil and -1 or -whole(1, "sub", n)))
end

--- @treturn number its value
function methods:get()
  return (get(thing_of(self, "get")))
end

--- Give it another value.
function methods:set(n)
  set(thing_of(self, "set"), whole(1, "set", n))
end

--- Make one.
-- @tparam[opt=0] number n its first value
local function new(n)
  return (core.counter_new(n == nil and 0 or whole(1, "counter", n)))
end

return { new = new }
