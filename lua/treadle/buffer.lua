--- Memory that all states share: an array of numbers or structs.
-- Compiled code reads and writes it in place, by the FFI.
-- @classmod treadle.buffer
local core = require "treadle.core"
local ffi = require "ffi"
local options = require "treadle.options"
local share = require "treadle.share"

local M = {}

local methods, mt = {}, {}

local cast, copy, sizeof, typeof = ffi.cast, ffi.copy, ffi.sizeof, ffi.typeof

--- The message of an error without its place, which is in this file.
local function without_position(err)
  return (tostring(err):gsub("^.-:%d+: ", ""))
end

--- `thing` is nil once the handle is closed.
local handle_type = typeof "struct { void *thing; } *"
local bytes_type = typeof "uint8_t *"
local words_type = typeof "uint32_t *"
local int64, uint64 = typeof "int64_t", typeof "uint64_t"

--- A string of LuaJIT's has at most so many bytes.
local STRING_MAX = 0x7fffff00

--- What a state knows of a handle: `{ handle =, count =, unit =, address =, type =, data = }`;
-- `type` and `data`, a pointer, only if the elements' type is known here.
local views = setmetatable({}, { __mode = "k" })

--- `buf.ptr`, the same as long as somebody has it; and what it keeps alive. Neither keeps the
-- other: the first table is weak in both, the second one in the pointer.
local pointers = setmetatable({}, { __mode = "kv" })
local holders = setmetatable({}, { __mode = "k" })

-- --- types -------------------------------------------------------------------------------------

--- name -> `{ name =, ct =, pointer =, one =, size =, is_number =, is_struct =,
-- is_uint64 = }`; `one` is an
-- array of one element
local types = {}

--- The type with that name and size here; nil, and why not.
local function type_of(name, unit)
  local found = types[name]
  if not found then
    local ok, ct = pcall(typeof, name)
    local size = ok and sizeof(ct)
    if not size then
      return nil, ("C type '%s' is not known here"):format(name)
    end
    local made, sample = pcall(ffi.new, ct)
    if not made or not core.buffer_type(sample) then -- a name that a process has sent
      return nil, ("C type '%s' is no number and no struct without pointers here"):format(name)
    end
    local one = typeof(name .. "[1]")
    local cell = one()
    local zero = cell[0]
    found = {
      name = name, ct = ct, pointer = typeof(name .. " *"), one = one, size = size,
      is_number = type(zero) == "number",
      is_float = type(zero) == "number" and size <= 8 and tonumber(cast(ct, 0.5)) == 0.5,
      cell = cell, words = cast(words_type, cell),
      is_struct = type(zero) == "cdata" and tonumber(zero) == nil,
      is_uint64 = ffi.istype(uint64, zero),
    }
    types[name] = found
  end
  if found.size ~= unit then
    return nil, ("C type '%s' has another size here"):format(name)
  end
  return found
end

--- What the caller of `buffer` names.
local function check_type(given)
  local ok, ct = pcall(typeof, given)
  if not ok then
    options.bad_argument(1, "buffer", without_position(ct), 2)
  end
  local made, sample = pcall(ffi.new, ct)
  local name = made and core.buffer_type(sample)
  if not name or name:match "%]$" or sizeof(ct) == 0 then
    options.bad_argument(1, "buffer", ("a number or a struct without pointers expected, got '%s'")
      :format(tostring(ct):match "^ctype<(.*)>$"), 2)
  end
  return name, sizeof(ct)
end

-- --- handles -----------------------------------------------------------------------------------

-- `level` says where an error of the function that gets it shows: as `error` counts.

--- Raise that there is no live buffer there, for a method or for a function of treadle.atomics.
local function refuse(self, name, level)
  if not methods[name] and core.ref_look(self) ~= "buffer" then
    options.bad_argument(1, name, "buffer expected, got " .. type(self), level)
  end
  share.check(self, "buffer", name, level)
end

local function learn(self, name, level)
  local address, count, unit, type_name, is_far = core.buffer_look(self)
  if not address then
    refuse(self, name, level)
  end
  local view = {
    handle = cast(handle_type, self), count = count, unit = unit, address = address,
    type_name = type_name, type = false, data = false, is_far = is_far,
  }
  views[self] = view
  return view
end

--- What is known of a live buffer.
local function view_of(self, name, level)
  local view = views[self] or learn(self, name, level + 1)
  if view.handle.thing == nil then
    refuse(self, name, level)
  end
  return view
end

--- The same with the elements' type, and a pointer to them.
local function typed(self, name, level)
  local view = view_of(self, name, level + 1)
  if not view.data then
    local found, message = type_of(view.type_name, view.unit)
    if not found then
      error(message .. ": who uses the elements of such a buffer declares it (ffi.cdef)", level)
    end
    view.type, view.data = found, cast(found.pointer, view.address)
  end
  return view
end

local function shown(value)
  return type(value) == "number" and tostring(value) or type(value)
end
M.shown = shown

local function bad_index(view, i, name, index, level)
  options.bad_argument(index, name, view.count == 0 and "the buffer is empty"
    or ("a whole number from 0 to %d expected, got %s"):format(view.count - 1, shown(i)), level - 1)
end

--- The same for the element with that number, which is argument `index`.
local function element(self, i, name, index, level)
  local view = views[self]
  if not view or not view.data or view.handle.thing == nil then
    view = typed(self, name, level + 1)
  end
  if type(i) ~= "number" or not (i >= 0 and i < view.count) or i % 1 ~= 0 then
    bad_index(view, i, name, index, level + 1)
  end
  return view
end
M.element = element

--- Check a range; `n` may be left out: what follows. For methods only.
local function range(view, first, n, name)
  first = first == nil and 0 or first
  if type(first) ~= "number" or not (first >= 0 and first <= view.count) or first % 1 ~= 0 then
    options.bad_argument(1, name, ("a whole number from 0 to %d expected, got %s"):format(
      view.count, shown(first)), 2)
  end
  n = n == nil and view.count - first or n
  if type(n) ~= "number" or not (n >= 0 and n <= view.count - first) or n % 1 ~= 0 then
    options.bad_argument(2, name, ("a whole number from 0 to %d expected, got %s"):format(
      view.count - first, shown(n)), 2)
  end
  return first, n
end

-- --- elements ----------------------------------------------------------------------------------

--- Whether these are the bits of a NaN.
local function is_nan(words, size)
  if size == 4 then
    return words[0] % 2 ^ 31 > 0x7f800000
  end
  local high = words[1] % 2 ^ 31
  return high > 0x7ff00000 or high == 0x7ff00000 and words[0] ~= 0
end

--- The number that lies there, once. Another process may write it, at any time: and LuaJIT, which
-- keeps other values in the bits of NaNs, takes what the FFI reads as it is.
local function checked(view, i)
  local cell, words = view.type.cell, view.type.words
  copy(cell, view.data + i, view.unit)
  if is_nan(words, view.unit) then
    return 0 / 0
  end
  return cell[0]
end

--- The element with that number, from 0; a copy, if it is a struct.
function methods:get(i)
  local view = element(self, i, "get", 1, 3)
  if view.type.is_struct then
    local one = view.type.ct(view.data[i])
    if view.is_far then
      core.buffer_scrub_one(one, view.type_name, view.unit)
    end
    return one
  elseif view.is_far and view.type.is_float then
    return checked(view, i)
  end
  return view.data[i]
end

local function assign(data, i, v)
  data[i] = v
end

--- Raises what the FFI says of a value that is none for this type.
local function assign_checked(view, i, v, index, name, level)
  if type(v) == "number" and v < 0 and view.type.is_uint64 then
    v = int64(v) -- wraps around; the FFI says nothing of a negative number
  end
  local ok, message = pcall(assign, view.data, i, v)
  if not ok then
    options.bad_argument(index, name, without_position(message), level - 1)
  end
end

--- Set the element with that number, from 0.
function methods:set(i, v)
  local view = element(self, i, "set", 1, 3)
  if type(v) == "number" and view.type.is_number then
    view.data[i] = v
  else
    assign_checked(view, i, v, 2, "set", 3)
  end
end

--- Set all elements.
-- @return the buffer
function methods:fill(v)
  local view = typed(self, "fill", 3)
  if view.count > 0 then
    assign_checked(view, 0, v, 1, "fill", 3)
  end
  -- what is filled is copied behind itself, twice as much each time, as long as it is in cache
  local data, bytes = cast(bytes_type, view.address), view.count * view.unit
  local done, most = view.unit, math.max(view.unit, 32768 - 32768 % view.unit)
  while done < bytes do
    local n = math.min(done, most, bytes - done)
    copy(data + done, data, n)
    done = done + n
  end
  return self
end

-- --- parts and copies --------------------------------------------------------------------------

--- A buffer of some of its elements: the same memory.
-- @tparam number first 0-based
-- @tparam[opt] number n all that follow, if it is left out
function methods:slice(first, n)
  local view = view_of(self, "slice", 3)
  first, n = range(view, first, n, "slice")
  return (core.buffer_slice(self, first, n))
end

--- Its bytes as a string.
-- @tparam[opt=0] number first
-- @tparam[opt] number n elements; all that follow, if it is left out
function methods:string(first, n)
  local view = view_of(self, "string", 3)
  first, n = range(view, first, n, "string")
  if n * view.unit > STRING_MAX then
    error(("%.0f bytes: a string has at most %d"):format(n * view.unit, STRING_MAX), 2)
  end
  return (ffi.string(cast(bytes_type, view.address) + first * view.unit, n * view.unit))
end

local function too_long(view, n, what)
  options.bad_argument(1, "copy_from", ("at most %d %s expected, got %d"):format(
    what == "bytes" and view.count * view.unit or view.count, what, n), 3)
end

local function copy_string(self, view, s)
  local n = #s / view.unit
  if n > view.count then
    too_long(view, #s, "bytes")
  elseif n % 1 ~= 0 then
    options.bad_argument(1, "copy_from", ("a multiple of %d bytes expected, got %d"):format(
      view.unit, #s), 2)
  end
  copy(cast(bytes_type, view.address), s, #s)
  core.buffer_scrub(self, n)
end

local function copy_list(view, list)
  local n = #list
  if n > view.count then
    too_long(view, n, "elements")
  end
  for i = 0, n - 1 do
    assign_checked(view, i, list[i + 1], 1, "copy_from", 4)
  end
end

local function copy_buffer(self, view, source)
  local from = typed(source, "copy_from", 4)
  local n = from.count
  if n > view.count then
    too_long(view, n, "elements")
  elseif from.type == view.type then
    core.buffer_copy(self, source)
    if from.is_far then
      core.buffer_scrub(self, n, true)
    end
    return
  end
  for i = 0, n - 1 do
    local v = from.is_far and from.type.is_float and checked(from, i) or from.data[i]
    assign_checked(view, i, v, 1, "copy_from", 4)
  end
end

--- Copy elements into it, from its beginning on; what is behind them stays.
-- @tparam string|table src bytes; a list; or another buffer, whose elements are converted
-- @return the buffer
function methods:copy_from(src)
  local view = typed(self, "copy_from", 3)
  local kind = type(src)
  if kind == "string" then
    copy_string(self, view, src)
  elseif kind == "table" then
    copy_list(view, src)
  elseif getmetatable(src) == mt.__name then
    copy_buffer(self, view, src)
  else
    options.bad_argument(1, "copy_from", "buffer, string or list expected, got " .. kind)
  end
  return self
end

-- --- the kind ----------------------------------------------------------------------------------

local function pointer_of(self)
  local view = typed(self, "ptr", 4)
  local pointer = pointers[self]
  if not pointer then
    pointer = cast(view.type.pointer, view.address)
    pointers[self], holders[pointer] = pointer, self
  end
  return pointer
end

--- `buf.ptr`: an FFI pointer to its elements, which keeps it alive.
function mt:__index(key)
  if key == "ptr" then
    return (pointer_of(self))
  end
  return methods[key]
end

--- How many elements it has.
function mt:__len()
  return view_of(self, "#", 3).count
end

share.kind("buffer", methods, mt)

local OPTIONS = { process = "boolean" }

local function make(name, unit, n, process)
  local self, reason = core.buffer_new(name, unit, n, process)
  if not self then -- buffers that nobody uses any more may have it
    collectgarbage()
    self, reason = core.buffer_new(name, unit, n, process)
  end
  if not self then
    local what = ("a buffer of %.0f bytes"):format(n * unit)
    error(reason and ("cannot make %s for processes: %s"):format(what, reason)
      or "not enough memory for " .. what, 3)
  end
  return self
end

--- Make a buffer.
-- @param ctype the FFI type of its elements, a name or a ctype; or a string whose bytes it gets
-- @tparam[opt] number n how many elements; left out where `ctype` is the string
-- @tparam[opt] table given options: `process`: in memory that other processes can have, too
function M.new(ctype, n, given)
  if type(ctype) ~= "cdata" and (n == nil and given == nil or type(n) == "table") then
    options.argument(1, "buffer", ctype, "string")
    given = options.check(2, "buffer", n, OPTIONS)
    local self = make("uint8_t", 1, #ctype, given.process)
    copy_string(self, typed(self, "buffer", 3), ctype)
    return self
  elseif type(ctype) ~= "string" and type(ctype) ~= "cdata" then
    options.argument(1, "buffer", ctype, "string or ctype")
  end
  local name, unit = check_type(ctype)
  if type(n) ~= "number" or n % 1 ~= 0 or n < 0 or n > 2 ^ 53 then
    options.bad_argument(2, "buffer", "a whole number of at least 0 expected, got " .. shown(n))
  end
  given = options.check(3, "buffer", given, OPTIONS)
  return (make(name, unit, n, given.process))
end

return M
