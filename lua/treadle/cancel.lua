--- Cancelling what runs in coroutines: of jobs, of groups, and those that were spawned. Who is
-- cancelled finds out when it waits or asks (loop.lua); here its present wait is ended.
-- Loaded when something is first cancelled.
-- @module treadle.cancel
local core = require "treadle.core"
local futures = require "treadle.future"
local loop = require "treadle.loop"
local scopes = require "treadle.scopes"

local targets, waiting, fibers = loop.targets, loop.waiting, loop.fibers

local M = {}

--- What was cancelled since the last turn, if there is such: `entries` of jobs, a list of
-- coroutines, and whether there are more (`search`).
local given_up

--- The code of a coroutine was cancelled for that reason and does not wait for a future.
function M.abandon(future, reason, co)
  pcall(futures.abandon, future, reason, co and targets[co])
end

--- Whether what a coroutine runs was cancelled: it may have left the group that was.
local function is_cancelled(co)
  local job = fibers[co]
  return scopes.reason(co) or job and core.cancelled(job)
end

local function end_wait(co)
  local future = waiting[co]
  if future and is_cancelled(co) then
    loop.end_wait(co, future) -- which abandons it
  end
end

--- Wake the coroutines that were cancelled, alone or with their jobs: their waits raise.
local function end_waits()
  local what = given_up
  given_up = nil
  if not what then -- there was no memory to say more, and who cancels knows that
    return
  elseif what.search then
    for co in pairs(waiting) do
      local job = fibers[co]
      if scopes.reason(co) or job and what.entries[job] and core.cancelled(job) then
        what[#what + 1] = co
      end
    end
  end
  for i = 1, #what do
    end_wait(what[i])
  end
end

--- At the next turn, before another job can begin, waits end.
local function give_up(co, search)
  if not given_up then
    local fresh = { entries = {}, search = false }
    loop.defer(end_waits)
    given_up = given_up or fresh -- a finalizer may have been first
  end
  given_up[#given_up + 1] = co
  given_up.search = given_up.search or search
  scopes.look()
end

--- A job was cancelled.
function M.job(entry, serial, reason)
  local scope = scopes.find_job(serial)
  if scope then
    scope.reason = reason
  end
  give_up(nil, true)
  given_up.entries[entry] = true
end

--- The group of a coroutine was cancelled: its code, and what that has spawned beside the group's
-- children, which are the group's business.
function M.group(scope, co, reason)
  scope.reason = scope.reason or reason
  give_up(co, scope.begets)
end

--- A spawned coroutine is cancelled: its present wait and all later ones raise.
-- @param rest a future that is told its end, in the place of its own
-- @return that, or nil if somebody else is told
function M.coroutine(co, reason, rest)
  local target = targets[co]
  give_up(co, scopes.cancel(co, reason))
  if not target.future then
    targets[co] = rest
    return rest
  end
end

return M
