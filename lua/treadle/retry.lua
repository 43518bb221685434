--- Calls that are made again when their worker dies.
-- An error that the task raised is never tried again, nor what was given up: only the loss of a
-- worker is (kind "crashed"). A call whose worker dies again and again is likely the cause.
-- @module treadle.retry
local core = require "treadle.core"
local errors = require "treadle.error"
local future = require "treadle.future"
local loop = require "treadle.loop"

local M = {}

--- Workers that may die of one call; then it is quarantined, however many retries it has left.
local DEATHS = 3

local function is_loss(err)
  return errors.is(err) and err.kind == "crashed"
end

local function quarantined(err)
  return errors.new("crashed",
    ("quarantined: its worker died %d times while it ran"):format(DEATHS),
    { task = err.task, worker = err.worker, traceback = err.traceback })
end

local function pack(...)
  return { n = select("#", ...), ... }
end

--- Make a call, and make it again when it is lost.
-- The arguments are copied now, for all attempts.
-- @tparam number retries how often at most
-- @tparam function send makes an attempt: `send(args...)` returns its future
-- @return a future of the call's results
function M.call(retries, send, ...)
  local values = pack(pcall(core.copy, ...))
  if not values[1] then -- it is refused with its reason, or a future that is awaited first
    values = pack(true, ...)
  end
  local target = future.new()
  local attempt = send(...)
  future.set_upstream(target, function(reason) attempt:cancel(reason) end)
  future.stand_for(target, attempt)

  local function settle(deaths, ok, ...)
    if ok then
      return target:_resolve(...)
    end
    local err = ...
    if not is_loss(err) or deaths > retries or not future.is_pending(target) then
      local is_cancelled = errors.is(err) and err.kind == "cancelled"
      return target:_reject(err, is_cancelled and core.CANCELLED or nil)
    elseif deaths == DEATHS then
      return target:_reject(quarantined(err))
    end
    attempt = send(unpack(values, 2, values.n))
    future.stand_for(target, attempt)
    return settle(deaths + 1, attempt:pawait())
  end

  loop.work(future.new(), function() settle(1, attempt:pawait()) end)
  return target
end

return M
