--- Sorts many random doubles with C's qsort, on one core, and on all cores, and proves the results.
--
--   treadle examples/sort.lua [--count N]
--
-- What it shows: treadle.psort sorts a shared buffer in place. Each result has to be in order, to
-- hold the same numbers as before (by a checksum in which their order makes no difference), and to
-- have the same bytes as what qsort makes of them.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path

local bit = require "bit"
local ffi = require "ffi"
local treadle = require "treadle"

local arshift, bnot, bor, bswap, bxor = bit.arshift, bit.bnot, bit.bor, bit.bswap, bit.bxor

local arguments = require "arguments" ("sort", [=[
usage: treadle sort.lua [--count N]
Sorts N random doubles (10,000,000; at most 100,000,000).
]=])
local DEFAULT_COUNT, MOST = 1e7, 1e8
local SEED = 20240229

ffi.cdef [[
int memcmp(const void *a, const void *b, size_t bytes);
void qsort_r(void *base, size_t count, size_t bytes,
  int (*compare)(const void *a, const void *b, void *extra), void *extra);
]]

-- Positive and negative numbers of many sizes.
local function fill(numbers)
  local p, random = numbers.ptr, math.random
  math.randomseed(SEED)
  for i = 0, #numbers - 1 do
    p[i] = (random() - 0.5) * 2 ^ random(0, 20)
  end
end

-- The bits of a buffer's doubles.
local function bits_of(numbers)
  return ffi.cast("int64_t *", numbers.ptr)
end

-- A sum over all numbers, each mixed well: two changes are unlikely to make up for each other.
local function checksum(numbers)
  local p, sum = ffi.cast("uint64_t *", numbers.ptr), 0ULL
  for i = 0, #numbers - 1 do
    local x = bxor(p[i], bit.rshift(p[i], 29)) * 0x9E3779B97F4A7C15ULL
    sum = sum + bxor(x, bit.rshift(x, 32))
  end
  return sum
end

local function is_sorted(numbers)
  local p = numbers.ptr
  for i = 1, #numbers - 1 do
    local in_order = p[i - 1] <= p[i]
    if not in_order then
      return false
    end
  end
  return true
end

-- --- sorting -------------------------------------------------------------------------------------

local SIGN = bit.lshift(1LL, 63)
local big_endian = ffi.abi("le") and bswap or function(x) return x end

-- Turn doubles into eight bytes each, of which the first one counts most, in the same order: the
-- sign of positive numbers and all bits of negative ones are turned over.
local function to_bytes(numbers)
  local p = bits_of(numbers)
  for i = 0, #numbers - 1 do
    p[i] = big_endian(bxor(p[i], bor(arshift(p[i], 63), SIGN)))
  end
end

local function from_bytes(numbers)
  local p = bits_of(numbers)
  for i = 0, #numbers - 1 do
    local x = big_endian(p[i])
    p[i] = bxor(x, bor(bnot(arshift(x, 63)), SIGN))
  end
end

-- A Lua function that qsort calls back would cost more than all the rest. So C compares, too: what
-- qsort_r hands on to the comparison is the third argument of memcmp, how many bytes to compare.
local function c_qsort(numbers)
  local compare = ffi.cast("int (*)(const void *, const void *, void *)", ffi.C.memcmp)
  to_bytes(numbers)
  local start = treadle.now()
  ffi.C.qsort_r(numbers.ptr, #numbers, 8, compare, ffi.cast("void *", 8))
  local time = treadle.now() - start
  from_bytes(numbers)
  return time
end

local function psort(numbers, options)
  local start = treadle.now()
  treadle.psort(numbers, nil, options):await()
  return treadle.now() - start
end

-- --- the program ---------------------------------------------------------------------------------

local function parse(args)
  local count, i = DEFAULT_COUNT, 1
  while i <= #args do
    local word = args[i]
    arguments:help(word)
    if word == "--count" then
      i = i + 1
      count = tonumber(args[i])
      if not count or count % 1 ~= 0 or count < 1 or count > MOST then
        arguments:fail("--count needs a whole number from 1 to %d, got '%s'", MOST,
          args[i] or "nothing")
      end
    elseif word:sub(1, 1) == "-" then
      arguments:fail("unknown option '%s'", word)
    else
      arguments:fail("unknown argument '%s'", word)
    end
    i = i + 1
  end
  return count
end

local function main(...)
  local count = parse { ... }
  local source, numbers = treadle.buffer("double", count), treadle.buffer("double", count)
  local expected = treadle.buffer("double", count)
  fill(source)
  local sum = checksum(source)

  local function check(name, sorted)
    local problem = not is_sorted(sorted) and "is not in order"
      or checksum(sorted) ~= sum and "holds other numbers than before"
      or ffi.C.memcmp(sorted.ptr, expected.ptr, count * 8) ~= 0 and "differs from that of qsort"
    if problem then
      io.stderr:write("sort: the result of ", name, " ", problem, "\n")
      os.exit(1)
    end
  end

  local c_time = c_qsort(expected:copy_from(source))
  check("qsort", expected)
  local one_time = psort(numbers:copy_from(source), { concurrency = 1 })
  check("one core", numbers)
  local all_time = psort(numbers:copy_from(source))
  check("all cores", numbers)
  print(("numbers   %d doubles, %.1f MiB, checksum %s"):format(count, count * 8 / 2 ^ 20,
    bit.tohex(sum)))
  print(("C qsort   %.3f s"):format(c_time))
  print(("one core  %.3f s"):format(one_time))
  print(("parallel  %.3f s, %d workers, their start included"):format(all_time, treadle.cores()))
  print(("speed-up  %.2f; %.2f over C qsort"):format(one_time / all_time, c_time / all_time))
  print("all three are in order, hold the same numbers as before, and agree in every byte")
end

main(...)
