--- Sorting in parallel. Numbers in memory are dealt out to groups of neighbours, each of which is
-- sorted by itself. All else is sorted in pieces, which are then merged pairwise.
-- @module treadle.sorting
local abort = require "treadle.abort"
local core = require "treadle.core"
local ffi = require "ffi"
local future = require "treadle.future"
local inputs = require "treadle.input"
local loop = require "treadle.loop"
local options = require "treadle.options"
local pure = require "treadle.pure"
local sort = require "treadle.sort"

local M = {}

--- Fewer items are sorted here: the way to the workers takes as long. Of a list each item must
-- travel.
local SMALL_BUFFER, SMALL_LIST = 20000, 50000

--- Items of a list in one piece at most.
local PIECE = 250000

--- Keys are told apart by so many bins; these make groups, which fit into a core's cache, but no
-- more than so many.
local BINS, MOST_GROUPS = 65536, 512

--- How many pieces: enough for all, and a power of two.
local function pieces_for(least)
  local n = 1
  while n < least do
    n = 2 * n
  end
  return n
end

-- --- buffers -------------------------------------------------------------------------------------

--- Sort a buffer of numbers in place; `each(n, fn)` runs `fn(1)` to `fn(n)`, in workers or here.
-- The keys are dealt out to groups of neighbours, and each group is sorted by itself. Keys
-- lie in memory of their own until they are numbers again.
local function sort_by_keys(buffer, workers, each)
  local new_buffer = require("treadle.buffer").new
  local element, n = inputs.element(buffer), #buffer
  local bounds = new_buffer("double", 2 * workers)
  each(workers, function(k)
    local from, to = math.floor((k - 1) * n / workers), math.floor(k * n / workers)
    bounds.ptr[2 * k - 2], bounds.ptr[2 * k - 1] =
      require("treadle.sort").bounds(element, buffer.ptr, from, to)
  end)
  local low, high = math.huge, -math.huge
  for k = 0, workers - 1 do
    low, high = math.min(low, bounds.ptr[2 * k]), math.max(high, bounds.ptr[2 * k + 1])
  end
  local count = BINS
  local scale = high > low and (count - 1) / (high - low) or 0
  local bins = new_buffer("int32_t", workers * count)
  each(workers, function(k)
    local from, to = math.floor((k - 1) * n / workers), math.floor(k * n / workers)
    require("treadle.sort").spread(element, buffer.ptr, from, to, low, scale, count - 1,
      bins.ptr + (k - 1) * count)
  end)
  local most = math.min(MOST_GROUPS, math.max(4 * workers, math.ceil(n / sort.GROUP)))
  local groups, starts = new_buffer("uint16_t", count), new_buffer("double", most + 1)
  local places = new_buffer("double", workers * most)
  M.group(bins.ptr, groups.ptr, starts.ptr, places.ptr, n, count, most, workers)
  local keys = new_buffer(element, n)
  each(workers, function(k)
    local from, to = math.floor((k - 1) * n / workers), math.floor(k * n / workers)
    require("treadle.sort").deal(element, buffer.ptr, from, to, keys.ptr, n, low, scale, count - 1,
      groups.ptr, places.ptr + (k - 1) * most)
  end)
  each(most, function(g)
    require("treadle.sort").finish(element, keys.ptr, buffer.ptr, starts.ptr[g - 1], starts.ptr[g])
  end)
  for _, own in ipairs { keys, bounds, bins, groups, starts, places } do
    own:close()
  end
  return buffer
end

--- Put neighbouring bins into groups of about the same size.
-- @param bins how many keys each bin has, for each worker's piece
-- @param groups the group of each bin
-- @param starts where each group begins; one more, where the last one ends
-- @param places where the keys of each piece go in each group
function M.group(bins, groups, starts, places, n, count, most, workers)
  local sum = 0
  for bin = 0, count - 1 do
    local group = math.min(math.floor(sum * most / n), most - 1)
    groups[bin] = group
    for k = 0, workers - 1 do
      local here = bins[k * count + bin]
      places[k * most + group] = places[k * most + group] + here
      sum = sum + here
    end
  end
  local at = 0
  for group = 0, most - 1 do
    starts[group] = at
    for k = 0, workers - 1 do
      local here = places[k * most + group]
      places[k * most + group] = at
      at = at + here
    end
  end
  starts[most] = at
end

--- Sort a buffer in place by comparison.
local function sort_by_order(buffer, lt, workers, each)
  local element, n = inputs.element(buffer), #buffer
  local scratch = require("treadle.buffer").new(element, n)
  local pieces = pieces_for(workers)
  -- the last merge is to end in the buffer
  local rounds = math.floor(math.log(pieces) / math.log(2) + 0.5)
  local is_moved = rounds % 2 == 1
  each(pieces, function(k)
    local from, to = math.floor((k - 1) * n / pieces), math.floor(k * n / pieces)
    require("treadle.sort").sort_memory(element, buffer.ptr, scratch.ptr, from, to, is_moved, lt)
  end)
  local from, to = is_moved and scratch or buffer, is_moved and buffer or scratch
  local width = 1
  while width < pieces do
    local merges = pieces / (2 * width)
    local parts = math.ceil(2 * workers / merges)
    local src, dst, apart = from, to, width
    each(merges * parts, function(t)
      local first, part = math.floor((t - 1) / parts) * 2 * apart, (t - 1) % parts
      local i, j = math.floor(first * n / pieces), math.floor((first + apart) * n / pieces)
      local stop = math.floor((first + 2 * apart) * n / pieces)
      local low = math.floor(part * (stop - i) / parts)
      local high = math.floor((part + 1) * (stop - i) / parts)
      require("treadle.sort").merge_memory(src.ptr, dst.ptr, i, j, stop, low, high, lt)
    end)
    from, to, width = to, from, 2 * width
  end
  scratch:close()
  return buffer
end

--- Positions of keys are counted in 31 bits.
local function has_keys(element, n, lt)
  return lt == nil and n < 2 ^ 31 and sort.has_keys(element)
end

local function sort_buffer(buffer, lt, workers, each)
  if has_keys(inputs.element(buffer), #buffer, lt) then
    return sort_by_keys(buffer, workers, each)
  end
  return sort_by_order(buffer, lt, workers, each)
end

local function each_here(n, fn)
  for i = 1, n do
    fn(i)
  end
end

--- The same here.
local function sort_buffer_here(buffer, lt)
  local element, n = inputs.element(buffer), #buffer
  if not has_keys(element, n, lt) then
    sort.sort_memory(element, buffer.ptr, ffi.new(element .. "[?]", n), 0, n, false, lt)
  elseif n <= SMALL_BUFFER then
    sort.sort_numbers(element, buffer.ptr, n)
  else
    sort_by_keys(buffer, 1, each_here)
  end
  return buffer
end

-- --- lists ---------------------------------------------------------------------------------------

local function is_all_numbers(list, n)
  for i = 1, n do
    if type(list[i]) ~= "number" then
      return false
    end
  end
  return true
end

--- Numbers are sorted where their digits lie in memory.
local function sort_numbers(list, n, workers, each)
  local buffer, sorted = require("treadle.buffer").new("double", n), {}
  local memory = buffer.ptr
  for i = 1, n do
    memory[i - 1] = list[i]
  end
  sort_buffer(buffer, nil, workers, each)
  for i = 1, n do
    sorted[i] = memory[i - 1]
  end
  buffer:close()
  return sorted
end

--- Workers tell the order of what they get; the items themselves stay here.
-- @tparam function map `map(fn, list)` gives the results of `fn` in workers
local function sort_list(list, n, lt, workers, map)
  local pieces = pieces_for(math.max(workers, n / PIECE))
  local runs = {}
  for k = 1, pieces do
    local run = {}
    for i = math.floor((k - 1) * n / pieces) + 1, math.floor(k * n / pieces) do
      run[#run + 1] = list[i]
    end
    runs[k] = run
  end
  local orders = map(function(run)
    return require("treadle.sort").order(run, #run, lt)
  end, runs)
  for k, order in ipairs(orders) do
    local run = runs[k]
    for i = 1, #order do
      order[i] = run[order[i]]
    end
    runs[k] = order
  end
  while #runs > 1 do
    local pairs_of = {}
    for k = 1, #runs, 2 do
      pairs_of[(k + 1) / 2] = { runs[k], runs[k + 1] }
    end
    orders = map(function(pair)
      return require("treadle.sort").merged(pair[1], pair[2], lt)
    end, pairs_of)
    runs = {}
    for k, order in ipairs(orders) do
      local a, b = pairs_of[k][1], pairs_of[k][2]
      local m = #a
      for i = 1, #order do
        local at = order[i]
        order[i] = at <= m and a[at] or b[at - m]
      end
      runs[k] = order
    end
  end
  return runs[1]
end

-- --- the call ------------------------------------------------------------------------------------

--- How many items a list has; none may be nil.
local function check_items(list)
  local n = list.n == nil and #list or list.n
  if type(n) ~= "number" or n < 0 or n % 1 ~= 0 then
    options.bad_argument(1, "psort", "field 'n': how many items there are expected", 3)
  end
  for i = 1, n do
    if list[i] == nil then
      options.bad_argument(1, "psort", ("item %d is nil"):format(i), 3)
    end
  end
  return n
end

--- @tparam table parallel the module
-- @tparam table known its options
function M.psort(parallel, known, list, lt, given)
  local is_buffer = inputs.is_buffer(list)
  if is_buffer then
    local _, gone = core.ref_look(list)
    if gone then
      options.bad_argument(1, "psort", gone, 2)
    end
  else
    list = inputs.table_of(list) or options.argument(1, "psort", list, "table or buffer", 2)
  end
  local here = true
  if lt ~= nil then
    options.argument(2, "psort", lt, "function", 2)
    local ok, problem = pcall(core.copy, nil, lt)
    if not ok then
      options.bad_argument(2, "psort", problem, 2)
    end
    here = pure.is(lt)
  else
    lt = nil -- it may be a null pointer, which equals that
  end
  given = options.check(3, "psort", given, known, 2)
  local n = is_buffer and #list or check_items(list)
  local workers = parallel.workers_of(given)
  local target = future.new()
  local signal = given.signal and abort.signal_of(given.signal)
  if signal and signal.aborted then
    return signal:bind(target)
  end
  local refusal = parallel.refusal(given)
  if refusal then
    target:_reject(refusal)
    return target
  end
  local deadline = given.timeout and core.now() + given.timeout

  --- Parts of one item each.
  local function loop_options()
    return {
      pool = given.pool, concurrency = given.concurrency, chunk = 1,
      timeout = deadline and math.max(0, deadline - core.now()),
    }
  end
  local function await(f)
    future.set_upstream(target, function(how) f:cancel(how) end)
    return f:await()
  end
  local function each(count, fn)
    await(parallel.pfor(1, count, fn, loop_options()))
  end
  local function map(fn, items)
    return await(parallel.pmap(fn, items, loop_options()))
  end

  local function run()
    local sorted
    if is_buffer then
      local is_small = here and (workers < 2 or n < SMALL_BUFFER)
      return is_small and sort_buffer_here(list, lt) or sort_buffer(list, lt, workers, each)
    elseif here and (workers < 2 or n < SMALL_LIST) then
      sorted = sort.list(list, n, lt)
    elseif not lt and is_all_numbers(list, n) then
      sorted = sort_numbers(list, n, workers, each)
    else
      sorted = sort_list(list, n, lt, workers, map)
    end
    if list.n then
      sorted.n = n
    end
    return sorted
  end
  target[core.OWN] = parallel.is_own(given) or nil
  loop.work(target, run)
  return signal and signal:bind(target) or target
end

return M
