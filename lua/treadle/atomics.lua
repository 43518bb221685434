--- Atomic operations on buffers of integers, and waiting for an integer to change.
-- Results are what the FFI makes of the elements' type: numbers, and cdata for 64 bits.
-- @module treadle.atomics
local buffer = require "treadle.buffer"
local core = require "treadle.core"
local ffi = require "ffi"
local options = require "treadle.options"
local share = require "treadle.share"

local atomics = {}

local element = buffer.element
local int64, uint64 = ffi.typeof "int64_t", ffi.typeof "uint64_t"

--- The operations of C by the integers' type.
local integers = {}
local list, notify = core.atomics_types()
for i, of in ipairs(list) do
  local name, declaration, address = unpack(of)
  local functions = ffi.cast(declaration .. "*", address)
  local operations = {}
  for _, operation in ipairs { "load", "store", "add", "sub", "band", "bor", "bxor", "exchange",
    "compare_exchange" } do
    operations[operation] = functions[operation]
  end
  integers[i] = { ct = ffi.typeof(name), operations = operations }
end
notify = ffi.cast("uint32_t (*)(void *, uint32_t)", notify)

--- type -> its operations, false if it has none
local operations_of = {}

local function find_operations(of)
  local zero = of.ct()
  operations_of[of] = false
  for _, integer in ipairs(integers) do
    if ffi.istype(integer.ct, zero) then
      operations_of[of] = integer.operations
    end
  end
  return operations_of[of]
end

--- The element with that number, and the operations for it.
local function at(buf, i, name)
  local view = element(buf, i, name, 2, 4)
  local operations = operations_of[view.type]
  if not operations then
    operations = operations == nil and find_operations(view.type)
    if not operations then
      options.bad_argument(1, name, ("a buffer of integers expected, got one of '%s'"):format(
        view.type_name), 2)
    end
  end
  return operations, view.data + i, view
end

--- A value as C takes it for integers of any width: what does not fit loses its upper bits. LuaJIT
-- says so of 64-bit integers, and of small numbers only.
local function check(v, index, name)
  if type(v) == "number" and v % 1 == 0 then
    if v >= 0 and v < 2 ^ 31 then
      return v
    elseif v >= -2 ^ 63 and v < 2 ^ 63 then
      return ffi.cast(int64, v)
    elseif v >= 0 and v < 2 ^ 64 then
      return ffi.cast(uint64, v)
    end
  elseif type(v) == "cdata" and (ffi.istype(int64, v) or ffi.istype(uint64, v)) then
    return v
  end
  options.bad_argument(index, name, ("a whole number expected, got %s"):format(
    buffer.shown(v)), 2)
end

--- @treturn number its value
function atomics.load(buf, i)
  local operations, p = at(buf, i, "load")
  return (operations.load(p))
end

--- Set it.
-- @return `v`
function atomics.store(buf, i, v)
  local operations, p = at(buf, i, "store")
  operations.store(p, check(v, 3, "store"))
  return v
end

--- Add to it; without end, as integers do.
-- @return its old value
function atomics.add(buf, i, v)
  local operations, p = at(buf, i, "add")
  return (operations.add(p, check(v, 3, "add")))
end

--- Subtract from it.
-- @return its old value
function atomics.sub(buf, i, v)
  local operations, p = at(buf, i, "sub")
  return (operations.sub(p, check(v, 3, "sub")))
end

--- Clear the bits that `v` does not have.
-- @return its old value
function atomics.band(buf, i, v)
  local operations, p = at(buf, i, "band")
  return (operations.band(p, check(v, 3, "band")))
end

--- Set the bits that `v` has.
-- @return its old value
function atomics.bor(buf, i, v)
  local operations, p = at(buf, i, "bor")
  return (operations.bor(p, check(v, 3, "bor")))
end

--- Flip the bits that `v` has.
-- @return its old value
function atomics.bxor(buf, i, v)
  local operations, p = at(buf, i, "bxor")
  return (operations.bxor(p, check(v, 3, "bxor")))
end

--- Set it.
-- @return its old value
function atomics.exchange(buf, i, v)
  local operations, p = at(buf, i, "exchange")
  return (operations.exchange(p, check(v, 3, "exchange")))
end

--- Set it to `v` if it is `expected`.
-- @return its old value: `expected`, if it has been set
function atomics.compare_exchange(buf, i, expected, v)
  local operations, p = at(buf, i, "compare_exchange")
  return (operations.compare_exchange(p, check(expected, 3, "compare_exchange"),
    check(v, 4, "compare_exchange")))
end

--- Wait, if it is `expected`, until somebody notifies: yields in a coroutine, runs the loop in a
-- main chunk.
-- @tparam[opt] number timeout seconds; without it there is no limit
-- @treturn string "ok", "not-equal" or "timed-out"
function atomics.wait(buf, i, expected, timeout)
  local _, _, view = at(buf, i, "wait")
  local cell = view.type.one()
  cell[0] = check(expected, 3, "wait")
  local bits = ffi.cast(uint64, ffi.cast(int64, cell[0]))
  if timeout ~= nil then
    options.seconds(4, "wait", timeout)
  end
  local result = share.wait(timeout, core.atomics_wait, buf, i, tonumber(bits % 0x100000000ULL),
    tonumber(bits / 0x100000000ULL))
  return result == true and "not-equal" or result or "timed-out"
end

--- Wake those who wait for it, first come, first served.
-- @tparam[opt] number n how many at most; without it all
-- @treturn number how many were woken
function atomics.notify(buf, i, n)
  local _, p = at(buf, i, "notify")
  if n == nil or n == math.huge then
    n = 0xffffffff
  elseif type(n) ~= "number" or not (n >= 0 and n < 2 ^ 32) or n % 1 ~= 0 then
    options.bad_argument(3, "notify", "a whole number of at least 0 expected, got "
      .. buffer.shown(n))
  end
  return (notify(p, n))
end

--- What `treadle.atomics` is.
return atomics
