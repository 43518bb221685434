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
  FOR_OPTIONS[name] = name ~= "record" and name ~= "ordered" and check or nil
end

-- --- where a loop runs ---------------------------------------------------------------------------

--- The host's pool for loops: a future of it, once it was needed.
local shared

--- The pool of loops that name none: in a task its own, in a host one for all; waits for it.
local function default_pool()
  if core.worker then
    return require("treadle.worker").info.pool
  elseif not shared then
    shared = loop.spawn(future.new(), pools.pool, "treadle.body", { name = "parallel" })
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
  local under_way = parts.new {
    pool = pool, body = self.body, input = self.input, results = self.results, at = self.at,
    name = self.body.task or "function", chunk = self.chunk, unit = self.unit, task = self.task,
    concurrency = given.concurrency, timeout = given.timeout, progress = given.progress,
  }
  future.set_upstream(target, function(how) under_way:cancel(how) end)
  return ended(under_way, pcall(function()
    under_way:run()
    if future.is_pending(target) then
      return self.finish(under_way)
    end
  end))
end

--- Begin a loop.
-- @tparam table self `given`, the options; `body`, `input`, `results`; `here()`, which runs it in
-- this state as long as that is best, if it may, by the body `own`: the rest's first index, nil if
-- there is none; `finish(parts)`, which gives the future's value; and what treadle.parts asks for
-- @return a future
local function begin(self)
  local given, target = self.given, future.new()
  local signal = given.signal and abort.signal_of(given.signal)
  if signal and signal.aborted then
    return signal:bind(target)
  elseif core.worker and not require("treadle.worker").info.pool then
    error("a parallel loop cannot run while a worker loads its module: put what only the host does "
      .. "behind `if treadle.is_main then`", 3)
  elseif given.pool and not core.pool_room(given.pool._handle) then
    target:_reject(errors.new("closed", "the pool is closed"))
    return target
  end
  if self.here then
    local ok, at = body.try(self.own, 0, self.here)
    if not ok then
      target:_reject(parts.raised({ name = "function" }, 0, at))
      return target
    elseif not at then
      if given.progress and self.input.count > 0 then
        given.progress(self.input.count, self.input.count)
      end
      target:_resolve(self.finish())
      return target
    end
    self.at = at
  end
  target[core.OWN] = M.is_own(given) or nil
  loop.spawn(target, run, self, target)
  return signal and signal:bind(target) or target
end

-- --- arguments -----------------------------------------------------------------------------------

--- Check the function and the options of a loop.
-- @param index of the function among the arguments
-- @param pool the pool whose method was called, nil for a function of the module
-- @tparam[opt=3] number level of the user's code, see treadle.options
-- @return options; what a body has for the function; the function for this state, nil if it may
-- not run here
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
    return given, { task = fn }
  end
  options.argument(index, name, fn, "function", level)
  local copy = { pcall(core.copy, unpack({ [index] = fn }, 1, index)) }
  if not copy[1] then
    options.bad_argument(index, name, copy[2], level)
  end
  return given, { fn = fn }, pure.is(copy[index + 1]) and copy[index + 1] or nil
end

--- The input of a loop.
local function input_of(name, index, value, given)
  if given.record and type(value) ~= "string" then
    options.bad_argument(index, name, "option 'record' is for a string, got a " .. type(value), 3)
  elseif inputs.is_buffer(value) then
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
  elseif type(value) ~= "table" then
    options.argument(index, name, value, "table or buffer or function or string", 3)
  end
  local n = value.n
  if n ~= nil and (type(n) ~= "number" or n < 0 or n % 1 ~= 0) then
    options.bad_argument(index, name, "field 'n': how many items there are expected", 3)
  end
  return inputs.list(value)
end

--- What is run here of a loop is run over the input itself: its items, by its indices.
local function whole(input)
  if input.source == "list" then
    return input.list
  end
  return input.buffer and input.buffer.ptr or input.text
end

--- A body: what is sent, once.
local function new_body(what, input, fn, output)
  return {
    what = what, source = input.source, size = input.size, input = input.buffer, output = output,
    fn = fn.fn, task = fn.task,
  }
end

--- The same for this state.
local function here_body(what, input, fn, output)
  return body.prepare({
    what = what, source = input.source, size = input.size, input = input.buffer, output = output,
  }, fn)
end

-- --- the loops -----------------------------------------------------------------------------------

--- A task that has limits of its own is called item by item.
local function limited(given, fn)
  local own = fn.task and (given.pool._record.options or {})[given.pool._record.index[fn.task]]
  return own and (own.timeout or own.retries) and fn.task or nil
end

--- How a loop runs here, as long as that is best: `step(i, j)` is called for its items.
local function here_by(self, step)
  local input = self.input
  return function()
    return grain.run(step, input.first, input.last, input.list, M.workers_of(self.given))
  end
end

--- `pmap` and `pool:map`.
function M.map(name, pool, fn, list, given)
  local shipped, here
  given, shipped, here = check(name, pool, 1, fn, given, 3, LOOP_OPTIONS)
  local input = input_of(name, 2, list, given)
  local output = input.buffer
    and require("treadle.buffer").new(inputs.element(input.buffer), input.count)
  local got = output and results.buffer(output)
    or results.list(input.count or 0, given.ordered ~= false)
  local self = {
    given = given, input = input, results = got, chunk = given.chunk,
    body = new_body("map", input, shipped, output),
    finish = function() return got:finish(input) end,
  }
  if input.source == "list" then
    self.task = limited(given, shipped)
    self.chunk = self.task and 1 or self.chunk
  end
  if here and input.count then
    local own, items = here_body("map", input, here, output), whole(input)
    local to = output and output.ptr or got.list
    local run_here = here_by(self, function(i, j) own.loop(here, items, i, j, to) end)
    self.own = own
    self.here = function()
      local at = run_here()
      if not output then
        got:passed(at and at - 1 or input.last)
      end
      return at
    end
  end
  return begin(self)
end

--- `pfilter`.
local function filter(name, fn, list, given)
  local shipped, here
  given, shipped, here = check(name, nil, 1, fn, given, 3, LOOP_OPTIONS)
  local input = input_of(name, 2, list, given)
  local output = input.buffer
    and require("treadle.buffer").new(inputs.element(input.buffer), input.count)
  local got = output and results.moved(output)
    or results.kept(given.ordered ~= false, input.size)
  local self = {
    given = given, input = input, results = got, chunk = given.chunk,
    body = new_body("filter", input, shipped, output),
    finish = function() return got:finish() end,
  }
  if here and input.count then
    local own, items = here_body("filter", input, here, output), whole(input)
    local to, at = output and output.ptr or {}, 0
    local run_here = here_by(self, function(i, j) at = own.loop(here, items, i, j, to, at) end)
    self.own = own
    self.here = function()
      local rest = run_here()
      got:put({ base = 0, first = input.first, items = items }, output and at or to)
      return rest
    end
  end
  return begin(self)
end

--- Items that are folded into one value: as many as there are such values, so that neither those
-- who make them nor who folds them has much more to do.
local function leaf_of(input, given)
  return given.chunk or input.count and math.max(1, math.ceil(math.sqrt(input.count)))
    or LEAF_OF_ITERATOR
end

--- `preduce` and `pool:reduce`.
function M.reduce(name, pool, fn, init, list, given)
  local shipped, here
  given, shipped, here = check(name, pool, 1, fn, given, 4, LOOP_OPTIONS)
  local ok, init_copy = pcall(core.copy, nil, init)
  if not ok then
    options.bad_argument(2, name, init_copy, 2)
  end
  local input = input_of(name, 3, list, given)
  local leaf = leaf_of(input, given)
  local got = results.leaves(input.first, leaf, given.ordered ~= false)
  local self = {
    given = given, input = input, results = got, unit = leaf, chunk = given.chunk and leaf,
    body = new_body("reduce", input, shipped),
  }
  self.body.leaf, self.body.base = leaf, input.first
  function self.finish(under_way)
    if under_way and got.n > 0 then
      return under_way:fold(init, got.values, got.n)
    end
    return init
  end
  if here and input.count then
    local own, items = here_body("reduce", input, here), whole(input)
    local first, last = input.first, input.last
    self.own = own
    self.here = function()
      local at = grain.run(function(i, j)
        for n = i, j do
          local start = first + (n - 1) * leaf
          local stop = math.min(start + leaf - 1, last)
          init = here(init, own.loop(here, items, start + 1, stop, nil, own.item(items, start)))
        end
      end, 1, math.ceil(input.count / leaf), nil, M.workers_of(given))
      if at then
        got.first = first + (at - 1) * leaf
        self.body.base = got.first
      end
      return at and got.first
    end
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

--- Call `fn(i)` for the whole numbers from first to last.
-- @return a future of nothing
function M.pfor(first, last, fn, given)
  check_bound(1, first)
  check_bound(2, last)
  local shipped, here
  given, shipped, here = check("pfor", nil, 3, fn, given, 4, FOR_OPTIONS, 2)
  local input = inputs.range(first, last)
  local self = {
    given = given, input = input, results = results.nothing(), chunk = given.chunk,
    body = new_body("each", input, shipped),
    finish = function() end,
  }
  if here then
    local own = here_body("each", input, here)
    self.own = own
    self.here = here_by(self, function(i, j) own.loop(here, nil, i, j) end)
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
