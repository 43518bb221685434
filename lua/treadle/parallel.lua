--- Parallel loops over lists, ranges, buffers, strings of records and iterators.
-- @module treadle.parallel
local core = require "treadle.core"
local abort = require "treadle.abort"
local body = require "treadle.body"
local errors = require "treadle.error"
local future = require "treadle.future"
local grain = require "treadle.grain"
local inputs = require "treadle.input"
local loop = require "treadle.loop"
local opening = require "treadle.opening"
local options = require "treadle.options"
local parts = require "treadle.parts"
local pools = require "treadle.pool"
local pure = require "treadle.pure"
local results = require "treadle.results"

local M = {}

--- Items of an iterator that a reduction folds into one value.
local LEAF_OF_ITERATOR = 64

local function is_pool(value)
  return pools.is(value), "a pool"
end

local POOL_LOOP_OPTIONS = {
  concurrency = "count", chunk = "count", ordered = "boolean", progress = "callable",
  timeout = "seconds", signal = abort.check, record = "count",
}
local LOOP_OPTIONS = { pool = is_pool }
for name, check in pairs(POOL_LOOP_OPTIONS) do
  LOOP_OPTIONS[name] = check
end
local SORT_OPTIONS = {
  pool = is_pool, concurrency = "count", timeout = "seconds", signal = abort.check,
}
local FOR_OPTIONS = {}
for name, check in pairs(LOOP_OPTIONS) do
  FOR_OPTIONS[name] = name ~= "record" and check or nil
end

-- --- where a loop runs ---------------------------------------------------------------------------

--- The host's pool for loops: a future of it, once it was needed.
local shared

--- The pool of loops that name none: in a task its own, in a host one for all; waits for it.
local function default_pool()
  if core.worker then
    return require("treadle.worker").info.pool
  elseif not shared then
    shared = loop.work(future.new(), opening.pool, "treadle.body", { name = "parallel" })
  elseif shared:state() == "rejected" then
    local before = shared
    shared = nil
    before:await()
  end
  return shared:await()
end

--- The pool of a loop, if it is there already.
local function present_pool(given)
  return given.pool or core.worker and require("treadle.worker").info.pool or nil
end

local cores

--- How many workers a loop would have.
function M.workers_of(given)
  local pool = present_pool(given)
  cores = cores or core.cores() -- asks the kernel
  return math.min(pool and pool.threads or cores, given.concurrency or math.huge)
end

--- The error of a loop whose pool takes no more calls; nil if it does.
function M.refusal(given)
  if given.pool and not core.pool_room(given.pool._handle) then
    return errors.new("closed", "the pool is closed")
  end
end

--- Whether a loop's calls go to the pool of the worker that makes them.
function M.is_own(given)
  local pool = present_pool(given)
  return pool ~= nil and pool._is_own
end

-- --- running one ---------------------------------------------------------------------------------

local function ended(under_way, ok, ...)
  under_way:forget()
  if not ok then
    error((...), 0)
  end
  return ...
end

--- Run what is left of a loop in workers, in a coroutine.
local function run(self, target)
  local given = self.given
  local pool = given.pool or default_pool()
  if not future.is_pending(target) then
    return
  end
  local input = self.input
  local under_way = parts.new {
    pool = pool, input = input, results = self.results, at = self.at,
    body = { -- what is sent, once
      what = self.what, source = input.source, size = input.size, input = input.buffer,
      output = self.output, fn = self.fn, task = self.name, leaf = self.unit, base = self.base,
    },
    name = self.name or "function", chunk = self.chunk, unit = self.unit, task = self.task,
    concurrency = given.concurrency, timeout = given.timeout, progress = given.progress,
  }
  future.set_upstream(target, function(how) under_way:cancel(how) end)
  return ended(under_way, pcall(function()
    under_way:run()
    if future.is_pending(target) then
      return self:finish(under_way)
    end
  end))
end

--- The loop that runs in this state: a pure function begins no other.
local running_here

local function report_here(value)
  return body.report(running_here.own, 0, value)
end

--- Begin a loop.
-- @tparam table self `given`, the options; `what`, see treadle.body; `fn`, or `name`, of a task;
-- `input`, `results`, `output`; `finish(self, parts)`, which gives the future's value; and what
-- treadle.parts asks for. If it may run in this state: `here(self)`, which does that as long as it
-- is best: the rest's first index, nil if there is none; and what the step of that needs
-- @return a future
local function begin(self)
  local given, target = self.given, future.new()
  local signal = given.signal and abort.signal_of(given.signal)
  if signal and signal.aborted then
    return signal:bind(target)
  elseif core.worker and not require("treadle.worker").info.pool then
    error("a parallel loop cannot run while a worker loads its module: put what only the host does "
      .. "behind `if treadle.is_main then`", 3)
  end
  local refusal = M.refusal(given)
  if refusal then
    target:_reject(refusal)
    return target
  end
  if self.here then
    running_here = self
    local ok, at = xpcall(self.here, report_here, self)
    running_here = nil
    if not ok then
      target:_reject(parts.raised({ name = "function" }, 0, at))
      return target
    elseif not at then
      if given.progress and self.input.count > 0 then
        return loop.work(target, function()
          given.progress(self.input.count, self.input.count)
          return self:finish()
        end)
      end
      target:_resolve(self:finish())
      return target
    end
    self.at = at
  end
  target[core.OWN] = M.is_own(given) or nil
  future.set_upstream(target, function() end) -- until there are calls
  loop.work(target, run, self, target)
  return signal and signal:bind(target) or target
end

-- --- arguments -----------------------------------------------------------------------------------

--- Check the function and the options of a loop.
-- @param index of the function among the arguments
-- @param pool the pool whose method was called, nil for a function of the module
-- @tparam[opt=3] number level of the user's code, see treadle.options
-- @return options; the function, nil for a task; the task's name; the function for this state, nil
-- if it may not run here
local function check(name, pool, index, fn, given, given_index, known, level)
  level = level or 3
  given = options.check(given_index, name, given, pool and POOL_LOOP_OPTIONS or known, level)
  if pool then
    local copy = { pool = pool }
    for key, value in pairs(given) do
      copy[key] = value
    end
    given = copy
  end
  if type(fn) == "string" then
    if not given.pool then
      options.bad_argument(index, name, "the name of a task needs the option 'pool'", level)
    elseif not given.pool._record.index[fn] then
      local nearest = options.nearest(fn, given.pool._record.index)
      options.bad_argument(index, name, ("pool '%s' has no task '%s', did you mean '%s'?"):format(
        given.pool.name, fn, tostring(nearest)), level)
    end
    return given, nil, fn
  end
  options.argument(index, name, fn, "function", level)
  if pure.is_alone(fn) then
    return given, fn, nil, fn
  end
  local copy = { pcall(core.copy, unpack({ [index] = fn }, 1, index)) }
  if not copy[1] then
    options.bad_argument(index, name, copy[2], level)
  end
  return given, fn, nil, pure.is(copy[index + 1]) and copy[index + 1] or nil
end

--- The input of a loop.
local function input_of(name, index, value, given)
  if given.record and type(value) ~= "string" then
    options.bad_argument(index, name, "option 'record' is for a string, got a " .. type(value), 3)
  elseif inputs.is_buffer(value) then
    local _, gone = core.ref_look(value)
    if gone then
      options.bad_argument(index, name, gone, 3)
    end
    return inputs.buffer(value)
  elseif type(value) == "string" then
    if not given.record then
      options.bad_argument(index, name, "a string needs the option 'record', the bytes of one", 3)
    elseif #value % given.record ~= 0 then
      options.bad_argument(index, name, ("%d bytes are no whole number of records of %d"):format(
        #value, given.record), 3)
    end
    return inputs.records(value, given.record)
  elseif type(value) == "function" then
    return inputs.iterator(value)
  end
  local list = inputs.table_of(value)
  if not list then
    options.argument(index, name, value, "table or buffer or function or string", 3)
  end
  local n = list.n
  if n ~= nil and (type(n) ~= "number" or n < 0 or n % 1 ~= 0) then
    options.bad_argument(index, name, "field 'n': how many items there are expected", 3)
  end
  return inputs.list(list)
end

--- What is run here of a loop is run over the input itself: its items, by its indices.
local function whole(input)
  if input.source == "list" then
    return input.list
  end
  return input.buffer and input.buffer.ptr or input.text
end

--- Make a loop ready to run in this state.
-- @tparam function fn the loop's function, for here
-- @tparam function here runs it
-- @param to what gets the results
local function prepare_here(self, fn, here, to)
  local input = self.input
  self.own = body.prepare({ what = self.what, source = input.source, size = input.size }, fn)
  self.items, self.to, self.here = whole(input), to, here
end

-- --- the loops -----------------------------------------------------------------------------------

--- A task that has limits of its own is called item by item.
local function limited(given, task)
  local own = task and (given.pool._record.options or {})[given.pool._record.index[task]]
  return own and (own.timeout or own.retries) and task or nil
end

--- Run a loop here, as long as that is best: `step(self, i, j)` is called for its items.
local function run_here(self, step)
  local input = self.input
  return grain.run(step, self, input.first, input.last, input.list, M.workers_of(self.given))
end

local function map_step(self, i, j)
  self.own.loop(self.own.call, self.items, i, j, self.to)
end

local function map_here(self)
  local at = run_here(self, map_step)
  if not self.output then
    self.results:passed(at and at - 1 or self.input.last)
  end
  return at
end

local function finish_results(self)
  return self.results:finish(self.input)
end

--- `pmap` and `pool:map`.
function M.map(name, pool, fn, list, given)
  local shipped, task, here
  given, shipped, task, here = check(name, pool, 1, fn, given, 3, LOOP_OPTIONS)
  local input = input_of(name, 2, list, given)
  local output = input.buffer
    and require("treadle.buffer").new(inputs.element(input.buffer), input.count)
  local got = output and results.buffer(output)
    or results.list(input.count or 0, given.ordered ~= false)
  local self = {
    given = given, what = "map", fn = shipped, name = task, input = input, results = got,
    output = output, chunk = given.chunk, finish = finish_results,
  }
  if input.source == "list" then
    self.task = limited(given, task)
    self.chunk = self.task and 1 or self.chunk
  end
  if here and input.count then
    prepare_here(self, here, map_here, output and output.ptr or got.list)
  end
  return begin(self)
end

local function filter_step(self, i, j)
  self.kept = self.own.loop(self.own.call, self.items, i, j, self.to, self.kept)
end

local function filter_here(self)
  local at, input = run_here(self, filter_step), self.input
  self.results:put({ base = 0, first = input.first, items = self.items },
    self.output and self.kept or self.to)
  return at
end

--- `pfilter`.
local function filter(name, fn, list, given)
  local shipped, task, here
  given, shipped, task, here = check(name, nil, 1, fn, given, 3, LOOP_OPTIONS)
  local input = input_of(name, 2, list, given)
  local output = input.buffer
    and require("treadle.buffer").new(inputs.element(input.buffer), input.count)
  local got = output and results.moved(output)
    or results.kept(given.ordered ~= false, input.size)
  local self = {
    given = given, what = "filter", fn = shipped, name = task, input = input, results = got,
    output = output, chunk = given.chunk, finish = finish_results,
  }
  if here and input.count then
    self.kept = 0
    prepare_here(self, here, filter_here, output and output.ptr or {})
  end
  return begin(self)
end

--- Items that are folded into one value: as many as there are such values, so that neither those
-- who make them nor who folds them has much more to do.
local function leaf_of(input, given)
  return given.chunk or input.count and math.max(1, math.ceil(math.sqrt(input.count)))
    or LEAF_OF_ITERATOR
end

local function reduce_step(self, i, j)
  local own, items, leaf = self.own, self.items, self.unit
  for n = i, j do
    local start = self.input.first + (n - 1) * leaf
    local stop = math.min(start + leaf - 1, self.input.last)
    self.value = own.call(self.value,
      own.loop(own.call, items, start + 1, stop, nil, own.item(items, start)))
  end
end

local function reduce_here(self)
  local input, leaf = self.input, self.unit
  local at = grain.run(reduce_step, self, 1, math.ceil(input.count / leaf), nil,
    M.workers_of(self.given))
  if at then
    self.base = input.first + (at - 1) * leaf
    self.results.first = self.base
    return self.base
  end
end

local function finish_reduce(self, under_way)
  if under_way and self.results.n > 0 then
    return under_way:fold(self.value, self.results.values, self.results.n)
  end
  return self.value
end

--- `preduce` and `pool:reduce`.
function M.reduce(name, pool, fn, init, list, given)
  local shipped, task, here
  given, shipped, task, here = check(name, pool, 1, fn, given, 4, LOOP_OPTIONS)
  local ok, init_copy = pcall(core.copy, nil, init)
  if not ok then
    options.bad_argument(2, name, init_copy, 2)
  end
  local input = input_of(name, 3, list, given)
  local leaf = leaf_of(input, given)
  local self = {
    given = given, what = "reduce", fn = shipped, name = task, input = input, value = init,
    results = results.leaves(input.first, leaf, given.ordered ~= false), base = input.first,
    unit = leaf, chunk = given.chunk and leaf, finish = finish_reduce,
  }
  if here and input.count then
    prepare_here(self, here, reduce_here)
  end
  return begin(self)
end

--- A new list of `fn(item)` for each item of the input.
-- @tparam function|string fn a function, which travels with its upvalues, or the name of a task of
-- the pool that the options name
-- @param input a list, a buffer, a function that returns the next item or nil, or a string with the
-- option `record`
-- @tparam[opt] table given `concurrency`, `chunk`, `pool`, `ordered`, `progress`, `timeout`,
-- `signal`, `record`
-- @return a future of the list; of a buffer, if the input is one
function M.pmap(fn, input, given)
  local f = M.map("pmap", nil, fn, input, given)
  return f
end

--- A new list of those items of the input for which `fn(item)` is true.
-- @return a future of the list; of a buffer, if the input is one
function M.pfilter(fn, input, given)
  local f = filter("pfilter", fn, input, given)
  return f
end

--- Fold the input into one value: `fn(fn(fn(init, item1), item2), ...)`, where `fn` is associative.
-- @return a future of the value
function M.preduce(fn, init, input, given)
  local f = M.reduce("preduce", nil, fn, init, input, given)
  return f
end

local function check_bound(index, value)
  options.argument(index, "pfor", value, "number", 2)
  if value % 1 ~= 0 or math.abs(value) > 2 ^ 53 then
    options.bad_argument(index, "pfor", ("a whole number expected, got %s"):format(value), 2)
  end
end

local function for_step(self, i, j)
  self.own.loop(self.own.call, nil, i, j)
end

local function for_here(self)
  return run_here(self, for_step)
end

local function finish_nothing()
end

--- Call `fn(i)` for the whole numbers from first to last.
-- @return a future of nothing
function M.pfor(first, last, fn, given)
  check_bound(1, first)
  check_bound(2, last)
  local shipped, task, here
  given, shipped, task, here = check("pfor", nil, 3, fn, given, 4, FOR_OPTIONS, 2)
  local self = {
    given = given, what = "each", fn = shipped, name = task, input = inputs.range(first, last),
    results = results.nothing(), chunk = given.chunk, finish = finish_nothing,
  }
  if here then
    prepare_here(self, here, for_here)
  end
  local f = begin(self)
  return f
end

--- Sort a list into a new one, or a buffer in place.
-- @tparam table|userdata list
-- @tparam[opt] function lt whether its first argument comes before its second; without it `<`
-- @tparam[opt] table given `concurrency`, `pool`, `timeout`, `signal`
-- @return a future of the sorted list, or of the buffer
function M.psort(list, lt, given)
  local f = require("treadle.sorting").psort(M, SORT_OPTIONS, list, lt, given)
  return f
end

return M
