--- Sorting a piece and merging two, in lists and in the memory of buffers; what the workers of
-- `psort` run, and what runs where there are none. Each kernel is compiled from source for what it
-- compares, so that the JIT compiler makes the comparison part of it. All are stable.
-- Pieces of lists and memory are given by their first index and the one behind their last.
-- @module treadle.sort
local bit = require "bit"
local ffi = require "ffi"
local loops = require "treadle.loops"

local M = {}

--- Keys of a group fit into a core's cache, with their scratch.
M.GROUP = 65536

-- --- by comparison -------------------------------------------------------------------------------

local MERGING = [[
local lt = ...
--- Merge src[i .. i_end - 1] and src[j .. j_end - 1] to dst[k ...], `count` items of them.
local function merge(src, dst, i, i_end, j, j_end, k, count)
  local stop = k + count
  while k < stop and i < i_end and j < j_end do
    if LESS(src[j], src[i]) then
      dst[k] = src[j]
      j = j + 1
    else
      dst[k] = src[i]
      i = i + 1
    end
    k = k + 1
  end
  while k < stop and i < i_end do
    dst[k] = src[i]
    i, k = i + 1, k + 1
  end
  while k < stop do
    dst[k] = src[j]
    j, k = j + 1, k + 1
  end
end

--- How many of the first `count` items of the merged pieces are the first piece's.
local function split(src, i, i_end, j, j_end, count)
  local low, high = math.max(0, count - (j_end - j)), math.min(count, i_end - i)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if LESS(src[j + count - middle - 1], src[i + middle]) then
      high = middle
    else
      low = middle + 1
    end
  end
  return low
end

--- Sort a piece of src, with dst for scratch; whether the result is in dst.
local function sort(src, dst, from, to)
  local width, is_swapped = 1, false
  while width < to - from do
    for i = from, to - 1, 2 * width do
      local j, stop = math.min(i + width, to), math.min(i + 2 * width, to)
      merge(src, dst, i, j, j, stop, i, stop - i)
    end
    src, dst, is_swapped = dst, src, not is_swapped
    width = 2 * width
  end
  return is_swapped
end
return { merge = merge, split = split, sort = sort }
]]

--- What the JIT compiler made of one comparison is kept for the next one like it.
local made = setmetatable({}, { __mode = "k" })
local by_order

--- The kernels for one way to compare; `lt` nil: by `<`.
local function kernels(lt)
  if not lt then
    by_order = by_order or assert(loadstring((MERGING:gsub("LESS(%b())", function(pair)
      return "(" .. pair:sub(2, -2):gsub(", ", " < ") .. ")"
    end)), "=treadle.sort"))()
    return by_order
  end
  local chunk = made[loops.origin(lt)]
  if not chunk then
    chunk = assert(loadstring((MERGING:gsub("LESS", "lt")), "=treadle.sort"))
    made[loops.origin(lt)] = chunk
  end
  return chunk(lt)
end
M.kernels = kernels

--- A sorted copy of a list of n items.
function M.list(list, n, lt)
  local copy, scratch = {}, {}
  for i = 1, n do
    copy[i] = list[i]
  end
  return kernels(lt).sort(copy, scratch, 1, n + 1) and scratch or copy
end

--- The order of a list of n items: the indices of its items, sorted.
function M.order(list, n, lt)
  local less = lt or function(a, b) return a < b end
  local indices = {}
  for i = 1, n do
    indices[i] = i
  end
  return M.list(indices, n, function(a, b) return less(list[a], list[b]) end)
end

--- The order of two sorted lists, one behind the other.
function M.merged(a, b, lt)
  local n, m, values, indices, order = #a, #b, a, {}, {}
  for i = 1, m do
    values[n + i] = b[i]
  end
  local less = lt or function(x, y) return x < y end
  for i = 1, n + m do
    indices[i] = i
  end
  kernels(function(x, y) return less(values[x], values[y]) end).merge(indices, order, 1, n + 1,
    n + 1, n + m + 1, 1, n + m)
  return order
end

-- --- numbers by their digits ---------------------------------------------------------------------
-- The bits of a number, read as a whole number with a sign, are its key: where keys are ordered, so
-- are numbers. Of those below zero a float's other bits are inverted; of one without a sign the
-- first bit. Doing that again undoes it. Keys are sorted byte by byte, the least one first.

local RADIX = [[
local ffi, band, bxor, rshift, arshift = ...
local min, max = math.min, math.max
local counts = ffi.new("int32_t[?]", PASSES * 256)

--- Turn numbers into keys.
local function turn(words, from, to)
  for i = from, to - 1 do
    CLEAN
    TURN
  end
end

--- And back.
local function restore(words, from, to)
  for i = from, to - 1 do
    TURN
  end
end

local function count(words, from, to)
  ffi.fill(counts, ffi.sizeof(counts))
  local d
  for i = from, to - 1 do
    COUNT
  end
end

MOVES

--- Sort the keys of a piece, with `other` for scratch; whether the result is there.
local function sort(items, other, from, to)
  local words = WORDS
  count(words, from, to)
  local is_swapped = false
  for pass = 0, PASSES - 1 do
    local at, base, is_needed = from, pass * 256, true
    for d = 0, 255 do
      local n = counts[base + d]
      if n == to - from then -- all have the same byte
        is_needed = false
      end
      counts[base + d] = at
      at = at + n
    end
    if is_needed then
      moves[pass](is_swapped and other or items, is_swapped and items or other, from, to)
      is_swapped = not is_swapped
    end
  end
  return is_swapped
end
--- The least and the greatest key, as numbers.
local function bounds(keys, n)
  local low, high = 1 / 0, -1 / 0
  for i = 0, n - 1 do
    local key = tonumber(keys[i])
    low, high = min(low, key), max(high, key)
  end
  return low, high
end

--- Count how many keys each bin has: as numbers they may lose bits, and keep their order. The
-- numbers are everybody's, and may have changed since `low` and `scale` were found.
local function spread(keys, n, low, scale, top, bins)
  for i = 0, n - 1 do
    local bin = min(max((tonumber(keys[i]) - low) * scale, 0), top)
    bins[bin] = bins[bin] + 1
  end
end

--- Deal keys out: those of a bin to the place in `other` where its group goes on, if it still has
-- `room`.
local function deal(keys, n, low, scale, top, groups, places, other, room)
  for i = 0, n - 1 do
    local group = groups[min(max((tonumber(keys[i]) - low) * scale, 0), top)]
    local at = places[group]
    if at < room then
      other[at] = keys[i]
      places[group] = at + 1
    end
  end
end
return {
  turn = turn, restore = restore, sort = sort, bounds = bounds, spread = spread, deal = deal,
}
]]

local MOVE = [[
moves[PASS] = function(src, dst, from, to)
  local words = WORDS
  for i = from, to - 1 do
    local d = BASE + DIGIT
    local at = counts[d]
    dst[at] = src[i]
    counts[d] = at + 1
  end
end
]]

local KEYS = { [1] = "int8_t", [2] = "int16_t", [4] = "int32_t", [8] = "int64_t" }

--- How the bits of a number of some type are its key's.
local TURNS = {
  float4 = "local x = words[i] words[i] = bxor(x, band(arshift(x, 31), 0x7fffffff))",
  float8 = [[
    local x = words[2 * i + HIGH]
    local mask = arshift(x, 31)
    words[2 * i + HIGH] = bxor(x, band(mask, 0x7fffffff))
    words[2 * i + LOW] = bxor(words[2 * i + LOW], mask)]],
  unsigned1 = "words[i] = bxor(words[i], 0x80)",
  unsigned2 = "words[i] = bxor(words[i], 0x8000)",
  unsigned4 = "words[i] = bxor(words[i], 0x80000000)",
  unsigned8 = "words[2 * i + HIGH] = bxor(words[2 * i + HIGH], 0x80000000)",
}

--- What is no number comes last, whatever its sign is.
local CLEANS = {
  float4 = "if band(words[i], 0x7fffffff) > 0x7f800000 then words[i] = 0x7fc00000 end",
  float8 = [[
    local high = band(words[2 * i + HIGH], 0x7fffffff)
    if high > 0x7ff00000 or high == 0x7ff00000 and words[2 * i + LOW] ~= 0 then
      words[2 * i + HIGH], words[2 * i + LOW] = 0x7ff80000, 0
    end]],
}

local function digit_of(bytes, pass)
  local word = bytes < 8 and "words[i]" or pass < 4 and "words[2 * i + LOW]"
    or "words[2 * i + HIGH]"
  local digit = ("band(rshift(%s, %d), 255)"):format(word, pass % 4 * 8)
  return pass == bytes - 1 and ("bxor(%s, 128)"):format(digit) or digit
end

local function make_radix(bytes, turn)
  local count, moves = {}, { "local moves = {}" }
  local view = bytes < 8 and "items" or 'ffi.cast("int32_t *", items)'
  for pass = 0, bytes - 1 do
    count[#count + 1] = ("d = %d + %s counts[d] = counts[d] + 1"):format(pass * 256,
      digit_of(bytes, pass))
    moves[#moves + 1] = (MOVE:gsub("%u+", {
      PASS = pass, BASE = pass * 256, DIGIT = digit_of(bytes, pass),
      WORDS = (view:gsub("items", "src")),
    }))
  end
  local low = ffi.abi("le") and "0" or "1"
  local text = RADIX:gsub("%u+", {
    TURN = TURNS[turn] or "", CLEAN = CLEANS[turn] or "", WORDS = view,
    COUNT = table.concat(count, "\n"), MOVES = table.concat(moves, "\n"),
  }):gsub("PASSES", tostring(bytes)):gsub("LOW", low):gsub("HIGH", low == "0" and "1" or "0")
  return assert(loadstring(text, "=treadle.sort"))(ffi, bit.band, bit.bxor, bit.rshift,
    bit.arshift)
end

local radixes = {}

--- How the numbers of an element type are sorted by their digits: nil if they are no numbers.
-- @return the kernels above; and `keys(memory)` and `words(memory)`, memory as they want it
local function radix(element)
  if radixes[element] == nil then
    local is_number = pcall(function() return ffi.new(element) + 0 end)
    local bytes = is_number and KEYS[ffi.sizeof(element)] and ffi.sizeof(element)
    if not bytes then
      radixes[element] = false
    else
      local box = ffi.new(element .. "[1]")
      box[0] = 0.5
      local is_float = bytes >= 4 and tonumber(box[0]) == 0.5
      if not is_float then
        box[0] = 0
        box[0] = box[0] - 1
      end
      local sign = is_float and "float" or tonumber(box[0]) < 0 and "signed" or "unsigned"
      local pointer = ffi.typeof(KEYS[bytes] .. " *")
      local words = bytes < 8 and pointer or ffi.typeof "int32_t *"
      local kernel = make_radix(bytes, sign .. bytes)
      kernel.keys = function(memory) return ffi.cast(pointer, memory) end
      kernel.words = function(memory) return ffi.cast(words, memory) end
      radixes[element] = kernel
    end
  end
  return radixes[element] or nil
end

--- Whether elements of this type are sorted by their keys. Keys must not lie where numbers are
-- expected: many are no numbers that the FFI may read.
function M.has_keys(element)
  return radix(element) ~= nil
end

--- Keys of so many numbers at a time lie in a core's own cache.
local BLOCK = 8192

--- Call `fn(keys, n, ...)` for the numbers from..to - 1 of `source`, some at a time.
local function in_blocks(element, source, from, to, fn, ...)
  local kernel = radix(element)
  kernel.block = kernel.block or ffi.new(element .. "[?]", BLOCK)
  for at = from, to - 1, BLOCK do
    local n = math.min(BLOCK, to - at)
    ffi.copy(kernel.block, source + at, n * ffi.sizeof(element))
    kernel.turn(kernel.words(kernel.block), 0, n)
    fn(kernel.keys(kernel.block), n, ...)
  end
end

--- The least and the greatest key of the numbers from..to - 1 of `source`.
function M.bounds(element, source, from, to)
  local low, high = math.huge, -math.huge
  in_blocks(element, source, from, to, function(keys, n)
    local least, greatest = radix(element).bounds(keys, n)
    low, high = math.min(low, least), math.max(high, greatest)
  end)
  return low, high
end

--- Count how many of the numbers from..to - 1 of `source` are in each bin.
-- @param ... what the kernel takes: low, scale, top, bins
function M.spread(element, source, from, to, ...)
  in_blocks(element, source, from, to, radix(element).spread, ...)
end

--- Deal their keys out to the groups in `memory`.
-- @tparam number room how many keys it holds
function M.deal(element, source, from, to, memory, room, low, scale, top, groups, places)
  in_blocks(element, source, from, to, radix(element).deal, low, scale, top, groups, places,
    radix(element).keys(memory), room)
end

--- Sort the keys from..to - 1 of `memory`, and put their numbers to the same place of `result`.
function M.finish(element, memory, result, from, to)
  local kernel, n = radix(element), to - from
  local scratch = kernel.scratch
  if not scratch or n > kernel.room then
    scratch = ffi.new(element .. "[?]", n)
    if n <= M.GROUP * 2 then
      kernel.scratch, kernel.room = scratch, n
    end
  end
  memory = memory + from
  local sorted = kernel.sort(kernel.keys(memory), kernel.keys(scratch), 0, n) and scratch or memory
  kernel.restore(kernel.words(sorted), 0, n)
  ffi.copy(result + from, sorted, n * ffi.sizeof(element))
end

--- Sort the first n numbers of `memory`, which are few.
function M.sort_numbers(element, memory, n)
  local kernel, keys = radix(element), ffi.new(element .. "[?]", n)
  ffi.copy(keys, memory, n * ffi.sizeof(element))
  kernel.turn(kernel.words(keys), 0, n)
  M.finish(element, ffi.cast(ffi.typeof(element .. "*"), keys), memory, 0, n)
end

--- Sort the items from..to - 1 of `memory` by `lt`, or `<`; `other` is as large.
-- @tparam boolean to_other whether they are to lie there then
function M.sort_memory(element, memory, other, from, to, to_other, lt)
  if kernels(lt).sort(memory, other, from, to) ~= to_other then
    local src, dst = to_other and memory or other, to_other and other or memory
    ffi.copy(dst + from, src + from, (to - from) * ffi.sizeof(element))
  end
end

--- Merge two neighbours, i..j - 1 and j..stop - 1, of src into dst: of what comes out of that the
-- items first..last - 1, counted from 0.
function M.merge_memory(src, dst, i, j, stop, first, last, lt)
  local own = kernels(lt)
  local taken = own.split(src, i, j, j, stop, first)
  own.merge(src, dst, i + taken, j, j + first - taken, stop, i + first, last - first)
end

return M
