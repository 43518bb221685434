--- Several futures as one.
-- @module treadle.combine
local core = require "treadle.core"
local errors = require "treadle.error"
local future = require "treadle.future"
local loop = require "treadle.loop"
local options = require "treadle.options"

local M = {}

local STATE, VALUE, COUNT = core.STATE, core.VALUE, core.COUNT
local WAITER, OWN = core.WAITER, core.OWN
local PENDING, RESOLVED = core.PENDING, core.RESOLVED

--- Check a list of futures: a table whose values are all futures.
-- @treturn number how many
local function check_list(name, list)
  options.argument(1, name, list, "table", 2)
  if future.is(list) then
    options.bad_argument(1, name, "list of futures expected, got one future", 2)
  end
  local n = 0
  for key, value in pairs(list) do
    if not future.is(value) then
      options.bad_argument(1, name, ("list of futures expected, but [%s] is a %s"):format(
        tostring(key), type(value)), 2)
    end
    n = n + 1
  end
  return n
end

--- A pending future whose cancellation cancels those in the list.
local function new_target(list)
  local target = future.new()
  future.set_upstream(target, function(reason)
    for _, f in pairs(list) do
      f:cancel(reason)
    end
  end)
  return target
end

--- Call `done()` when all n of the list are resolved, and `failed(f)` for each that is rejected
--.
local function collect(target, list, n, done, failed)
  local collector = {
    n + 1,
    done = function() future.guard(target, done) end,
    failed = function(f) future.guard(target, failed, f) end,
  }
  local own
  for _, f in pairs(list) do
    local state = f[STATE]
    if state == PENDING then
      own = own or f[OWN]
      if f[WAITER] == nil then
        f[WAITER] = collector
      else
        loop.add_waiter(f, collector)
      end
    elseif state == RESOLVED then
      collector[1] = collector[1] - 1
    else
      future.seen(f)
      failed(f)
    end
  end
  target[OWN] = own
  collector[1] = collector[1] - 1
  if collector[1] == 0 then
    done()
  end
end

--- Call `fn(key, f)` when each is settled, now for those that are; `target` depends on it.
-- @treturn boolean whether one is a pending call on the worker's own pool
local function each_settled(target, list, fn)
  local own
  for key, f in pairs(list) do
    if f[STATE] == PENDING then
      own = own or f[OWN]
      loop.add_waiter(f, function()
        future.guard(target, fn, key, f)
      end)
    else
      future.seen(f)
      fn(key, f)
    end
  end
  return own
end

--- A future of a table with the same keys and each future's first result; the first rejection
-- rejects it at once.
function M.all(list)
  local n = check_list("all", list)
  local target = new_target(list)
  collect(target, list, n, function()
    local values = {}
    for key, f in pairs(list) do
      values[key] = f[VALUE]
      if f[COUNT] ~= nil then
        values[key] = future.value(f)
      end
    end
    target:_resolve(values)
  end, function(f)
    target:_reject(future.error(f))
  end)
  return target
end

--- A future of the first result; rejected when all are, with the last one's error.
function M.any(list)
  local pending = check_list("any", list) + 1
  local target, last_error = new_target(list), nil
  local function give_up()
    pending = pending - 1
    if pending == 0 then
      target:_reject(last_error or errors.new("task", "any: the list is empty"))
    end
  end
  target[OWN] = each_settled(target, list, function(_, f)
    if f[STATE] == RESOLVED then
      target:_resolve(future.value(f))
    else
      last_error = future.error(f)
      give_up()
    end
  end)
  give_up()
  return target
end

--- A future of the first outcome, result or error; pending for ever with an empty list.
function M.race(list)
  check_list("race", list)
  local target = new_target(list)
  target[OWN] = each_settled(target, list, function(_, f)
    if f[STATE] == RESOLVED then
      target:_resolve(future.value(f))
    else
      target:_reject(future.error(f))
    end
  end)
  return target
end

--- A future of a table with the same keys of `{ ok = true, value = v }` or
-- `{ ok = false, error = e }`; never rejected.
function M.all_settled(list)
  local pending = check_list("all_settled", list) + 1
  local target, outcomes = new_target(list), {}
  local function finish()
    pending = pending - 1
    if pending == 0 then
      target:_resolve(outcomes)
    end
  end
  target[OWN] = each_settled(target, list, function(key, f)
    if f[STATE] == RESOLVED then
      outcomes[key] = { ok = true, value = future.value(f) }
    else
      outcomes[key] = { ok = false, error = future.error(f) }
    end
    finish()
  end)
  finish()
  return target
end

--- An iterator of key, future in the order in which they are settled; waits between them.
function M.as_completed(list)
  local left = check_list("as_completed", list)
  local settled, first, last = {}, 1, 0
  local gate
  for i = 1, left do
    settled[i] = false -- so that the keys need no memory
  end
  each_settled(future.new(), list, function(key)
    last = last + 1
    settled[last] = key
    if gate then
      gate:_resolve()
    end
  end)
  return function()
    if left == 0 then
      return nil
    end
    if first > last then
      gate = future.new()
      gate:await()
      gate = nil
    end
    local key = settled[first]
    settled[first] = false
    first, left = first + 1, left - 1
    return key, list[key]
  end
end

return M
