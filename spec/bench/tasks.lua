--- What the workers of the bench run.
-- @module tasks
local tasks = {}

function tasks.echo(value)
  return value
end

--- Computes a little: 1 ms for 1,000,000.
function tasks.count(n)
  local sum = 0
  for _ = 1, n do sum = sum + 1 end
  return sum
end

--- Never ends.
function tasks.endless()
  while true do end
end

--- Sends back what it receives.
function tasks.bounce(from, to)
  for value in from:iter() do to:send(value) end
end

--- Receives as many as it is told to, again and again: says so after each lot.
function tasks.consume(from, lots)
  local count = 0
  for value in from:iter() do
    if value == "lot" then
      lots:send(count)
      count = 0
    else
      count = count + 1
    end
  end
end

--- Emits 1 to n.
function tasks.emit(n)
  local emit = require("treadle").emit
  for i = 1, n do emit(i) end
end

-- The FFI is loaded by the first use: a worker of the other rows does without it.
local buffer, ffi
local stamp = 0

--- Takes a string and returns another one of the same length that no state has seen yet.
function tasks.fresh(text)
  ffi = ffi or require "ffi"
  if not buffer then
    buffer = ffi.new("double[?]", #text / 8)
    ffi.fill(buffer, #text, 98)
  end
  stamp = stamp + 1
  buffer[0], buffer[#text / 8 - 1] = -stamp, -stamp
  return ffi.string(buffer, #text)
end

--- Pins the thread that calls it to the index-th core that it may use, counted from 0.
-- @treturn boolean whether there is one
function tasks.pin(index)
  ffi = ffi or require "ffi"
  ffi.cdef [[
  int sched_getaffinity(int thread, size_t size, uint8_t *set);
  int sched_setaffinity(int thread, size_t size, const uint8_t *set);
  ]]
  local size = 128 -- 1,024 cores
  local set, one = ffi.new("uint8_t[?]", size), ffi.new("uint8_t[?]", size)
  if ffi.C.sched_getaffinity(0, size, set) < 0 then return false end
  for core = 0, 8 * size - 1 do
    local byte, mask = math.floor(core / 8), 2 ^ (core % 8)
    if set[byte] % (2 * mask) >= mask then
      if index == 0 then
        one[byte] = mask
        return ffi.C.sched_setaffinity(0, size, one) == 0
      end
      index = index - 1
    end
  end
  return false
end

return tasks
