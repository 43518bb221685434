--- The worker's side of parallel loops: their bodies, and what runs one over a part of the input.
-- A body travels to a worker once and is kept there under its id until its loop is over; the parts
-- only name it. The functions of this module are also the tasks of the process's pool of loops.
-- @module treadle.body
local core = require "treadle.core"
local errors = require "treadle.error"
local loop = require "treadle.loop"
local loops = require "treadle.loops"

local M = {}

--- Bodies by id, and the ids in the order of their arrival. A loop whose state was lost cannot say
-- that it is over: of more than KEPT the oldest goes. Whoever still needs it sends it again.
local KEPT = 32
local bodies, ids = {}, {}

--- id of a body -> a function that finds its task's function in this state
local finders = {}

--- Tell how to find a body's function in the home of a pool, where its jobs may run, too.
-- @tparam[opt] function fn nil: the loop is over
function M.set_finder(id, fn)
  finders[id] = fn
end

--- How long a part may run until it looks again whether anybody still wants it.
local LOOK_S = 1e-3

local function keep(id, body)
  if not bodies[id] then
    ids[#ids + 1] = id
    if #ids > KEPT then
      bodies[table.remove(ids, 1)] = nil
    end
  end
  bodies[id] = body
end

--- The body with that id, `body` if it has come along; nil if this state does not know it.
local function find(id, body)
  if body then
    keep(id, M.prepare(body, finders[id] and finders[id]()))
  end
  return bodies[id]
end

--- The task: learn a body, whose parts come next.
function M.learn(id, body)
  find(id, body)
end

--- Forget a body: its loop is over.
function M.forget(id)
  bodies[id] = nil
  for i, other in ipairs(ids) do
    if other == id then
      table.remove(ids, i)
      return
    end
  end
end

--- Make what was sent ready to run: its function, and the loop around it.
-- @tparam table body `what`: "map", "each", "filter" or "reduce"; `source`: "list", "range",
-- "buffer" or "records"; `fn`, or `task`, the name of one; `input`, `output`: buffers; `size`: of a
-- record; `leaf`: how many items are folded into one value
-- @tparam[opt] function fn in the place of the body's own
function M.prepare(body, fn)
  fn = fn or body.fn or require("treadle.worker").task(body.task)
  body.call = fn
  body.loop, body.item = loops.make(fn, body.what, body.source, body.size)
  body.items = body.input and body.input.ptr
  body.results = body.output and body.output.ptr
  return body
end

--- Call `step(i, j)` for consecutive pieces of first to last, and look between them whether the job
-- was given up.
local function in_pieces(step, first, last)
  local i, size, before = first, 1, core.now()
  while i <= last do
    local j = math.min(i + size - 1, last)
    step(i, j)
    i = j + 1
    if i <= last then
      loop.check()
      local now = core.now()
      if now - before < LOOK_S / 2 then
        size = size * 2
      elseif now - before > LOOK_S * 2 then
        size = math.max(1, math.floor(size / 2))
      end
      before = now
    end
  end
end

local run = {}

function run.map(body, first, last, items)
  local results = body.results or {}
  in_pieces(function(i, j) body.loop(body.call, items, i, j, results) end, first, last)
  return not body.results and results or nil
end

function run.each(body, first, last, items)
  in_pieces(function(i, j) body.loop(body.call, items, i, j) end, first, last)
end

--- The indices of the items that are to stay; of a buffer their number: they themselves are moved
-- to where the part begins.
function run.filter(body, first, last, items)
  local results, at = body.results or {}, body.results and first or 0
  in_pieces(function(i, j) at = body.loop(body.call, items, i, j, results, at) end, first, last)
  return body.results and at - first or results
end

--- A value for each leaf.
function run.reduce(body, first, last, items)
  local values, n = {}, 0
  for start = first, last, body.leaf do
    local stop = math.min(start + body.leaf - 1, last)
    local value = body.item(items, start)
    in_pieces(function(i, j)
      value = body.loop(body.call, items, i, j, nil, value)
    end, start + 1, stop)
    n = n + 1
    values[n] = value
  end
  return values
end

--- The index at which the loop is that has raised an error.
local function index_of(body, base)
  local level = 2
  local info = debug.getinfo(level, "f")
  while info and info.func ~= body.loop do
    level = level + 1
    info = debug.getinfo(level, "f")
  end
  local n, name, value = 0, nil, nil
  while info and name ~= "i" do
    n = n + 1
    name, value = debug.getlocal(level, n)
    if not name then -- it calls nothing now
      return nil
    end
  end
  return info and value + base
end

--- What of an error can travel; a message handler's.
function M.report(body, base, value)
  local failure = { index = index_of(body, base), traceback = debug.traceback("", 3):sub(2) }
  if errors.is(value) then
    failure.kind, failure.message = value.kind, value.message
    failure.value = value.value
  else
    failure.message, failure.value = errors.text(value), value
  end
  if not pcall(core.copy, failure.value) then
    failure.value = nil
  end
  return failure
end

--- Call `fn(...)`, which runs the body's loop.
-- @tparam number base what is added to an index of the loop for one of the input
-- @return true and the results, or false and a table about the error
function M.try(body, base, fn, ...)
  return xpcall(fn, function(value)
    return M.report(body, base, value)
  end, ...)
end

local UNKNOWN = { unknown = true }

local function answer(began, ok, result)
  return ok, core.worker or 0, core.now() - began, result
end

--- The task: run a part of a loop.
-- @param id of the body
-- @param body itself, if this worker may not know it
-- @return whether all went well, the number of the worker, how long it took, the results
function M.part(id, body, base, first, last, items)
  body = find(id, body)
  if not body then
    return false, core.worker or 0, 0, UNKNOWN
  end
  return answer(core.now(), M.try(body, base, run[body.what], body, first, last,
    body.items or items))
end

--- The task: fold the values of a reduction's leaves into one.
function M.fold(id, body, value, values, n)
  body = find(id, body)
  if not body then
    return false, core.worker or 0, 0, UNKNOWN
  end
  local whole = M.prepare({ what = "reduce", source = "list" }, body.call)
  return answer(core.now(), xpcall(function()
    in_pieces(function(i, j)
      value = whole.loop(whole.call, values, i, j, nil, value)
    end, 1, n)
    return value
  end, function(problem)
    local failure = M.report(whole, 0, problem)
    failure.index = failure.index and (failure.index - 1) * body.leaf + body.base
    return failure
  end))
end

return M
