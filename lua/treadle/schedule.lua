--- Where a call goes, and whether it is taken: what `key` and `priority`, `balancer`, `max_queue`
-- and `on_full` say. A pool without the last three has no schedule.
-- @module treadle.schedule
local core = require "treadle.core"
local errors = require "treadle.error"
local events = require "treadle.events"
local future = require "treadle.future"
local inline = require "treadle.inline"
local loop = require "treadle.loop"

local M = {}

local methods = {}
local mt = { __name = "treadle.schedule", __index = methods }

local PLACES = { high = core.ANY_HIGH, normal = core.ANY, low = core.ANY_LOW }
local PRIORITIES = { [core.ANY_HIGH] = "high", [core.ANY] = "normal", [core.ANY_LOW] = "low" }

--- The place of a call: a worker's number, if it names one or a key; else one of `core.ANY...`.
-- @tparam table given the call's options
-- @tparam table own the task's
function M.place(handle, given, own)
  if given.worker then
    return given.worker
  elseif given.key ~= nil then
    return core.pool_slot_of(handle, given.key)
  end
  return PLACES[given.priority or own and own.priority or "normal"]
end

-- --- balancers ---------------------------------------------------------------------------------

local balancers = {}

function balancers.round_robin()
  local last = 0
  return function(_, workers)
    last = last % #workers + 1
    return last
  end
end

--- Of equals the next one after the last choice.
function balancers.least_busy()
  local last = 0
  return function(_, workers)
    local best, least
    for i = 1, #workers do
      local worker = workers[(last + i - 1) % #workers + 1]
      local busy = worker.queued + worker.running
      if not best or busy < least then
        best, least = worker.id, busy
      end
    end
    last = best
    return best
  end
end

function balancers.random()
  return function(_, workers)
    return math.random(#workers)
  end
end

local function balance(self, handle, task, place)
  self.workers = core.pool_loads(handle, self.workers)
  local id = self.balancer({ task = task, priority = PRIORITIES[place] }, self.workers)
  if type(id) ~= "number" or not self.workers[id] then
    error(("the balancer chose worker %s: a whole number from 1 to %d expected"):format(
      errors.text(id), #self.workers), 0)
  end
  return id
end

-- --- room --------------------------------------------------------------------------------------

--- Who waits for room stands in line: callers, with `on_full = "wait"`, and futures of
-- `pool:ready()`. `granted` counts callers whom room was given and who have yet to use it; `lent`
-- futures that were resolved and whose owners have yet to go on: they may call then, or not.
local function room(self, handle)
  local free = core.pool_room(handle)
  return free and free - self.granted
end

local function has_line(self)
  return self.first <= self.last
end

local function stand_in_line(self, turn, is_call)
  self.last = self.last + 1
  self.line[self.last] = { turn = turn, is_call = is_call }
end

local function next_in_line(self)
  local one = self.line[self.first]
  self.line[self.first] = nil
  self.first = self.first + 1
  return one
end

local function closed()
  return errors.new("closed", "the pool is closed")
end

--- Nobody waits for room in a pool that is closed: a call is refused there.
function methods:close()
  while has_line(self) do
    local one = next_in_line(self)
    if one.is_call then
      self.granted = self.granted + (future.is_pending(one.turn) and 1 or 0)
      one.turn:_resolve()
    else
      one.turn:_reject(closed())
    end
  end
end

--- Callers that wait for room wait no longer: their calls are cancelled. Returns how many.
function methods:cancel(reason)
  local count = 0
  for i = self.first, self.last do
    local one = self.line[i]
    if one.is_call and future.is_pending(one.turn) then
      one.turn:_reject(errors.new("cancelled", reason))
      count = count + 1
    end
  end
  return count
end

local function give(self, handle, one)
  one.turn:_resolve()
  if one.is_call then
    self.granted = self.granted + 1
    return
  end
  self.lent = self.lent + 1
  loop.defer(function() -- runs behind who waited for it
    self.lent = self.lent - 1
    self:serve(handle)
  end)
end

--- Give what room there is to those who stand in line, in their order.
function methods:serve(handle)
  while has_line(self) do
    local free = room(self, handle)
    if free and free <= self.lent and self.lent == 0 then
      free = core.pool_room(handle, true) -- the event "room" follows if there is none
      free = free and free - self.granted
    end
    if not free then
      return self:close()
    elseif free <= self.lent then
      return
    end
    local one = next_in_line(self)
    if future.is_pending(one.turn) then
      give(self, handle, one)
    end
  end
end

--- A future that resolves when the pool would take a call.
function methods:ready(handle)
  local free = room(self, handle)
  if not free or free > self.lent and not has_line(self) then
    return M.ready(handle)
  end
  local f = future.new()
  stand_in_line(self, f, false)
  self:serve(handle)
  return f
end

--- The same for a pool without a schedule.
function M.ready(handle)
  local f = future.new()
  if core.pool_room(handle) then
    f:_resolve()
  else
    f:_reject(closed())
  end
  return f
end

--- Wait in line.
-- @return whether room was given in time; if not, the error of a call that was cancelled meanwhile
local function wait_for_room(self, handle, deadline, signal)
  local turn = future.new()
  if signal then
    signal:bind(turn)
  end
  stand_in_line(self, turn, true)
  self:serve(handle)
  local ok, err = pcall(loop.wait_for, turn, deadline)
  local problem = future.error(turn)
  if future.is_pending(turn) then
    turn:_resolve() -- it leaves the line
    if ok then
      return false
    end
  elseif problem then
    if ok then
      return false, problem
    end
  else
    self.granted = self.granted - 1
  end
  if not ok then -- the caller was cancelled
    self:serve(handle)
    error(err, 0)
  end
  return true
end

-- --- calls -------------------------------------------------------------------------------------

--- Submit a call that was taken.
local function send(self, handle, task, place, timeout, policy, ...)
  local f, guest = core.submit(handle, task, place, timeout, ...)
  if policy then
    future.limit(f, policy)
  end
  if guest then
    inline.run(self.record, guest)
    loop.gather() -- its results, if it has ended
  end
  return f
end

--- A call that the pool does not take: the future of its caller.
local function refuse(name, policy, kind, message)
  local f = future.new()
  future.stand_for(f, false)
  if kind == "timeout" then
    if policy then
      future.limit(f, policy)
    end
    future.expire(f, { task = name })
  else
    f:_reject(errors.new(kind, message, { task = name }))
  end
  return f
end

--- Make a call.
-- @tparam number task its number
-- @tparam string name its name
-- @tparam number place see `M.place`
-- @tparam[opt] table policy see `future.limit`
-- @tparam number timeout below 0: none
-- @param[opt] signal ends the wait for room
-- @param ... the arguments
function methods:call(handle, task, name, place, policy, timeout, signal, ...)
  local is_bound = place > 0
  if self.max_queue then
    local free = room(self, handle)
    if free and (free <= 0 or self.on_full == "wait" and has_line(self)) then
      events.emit(self.record, { event = "queue_full", task = name })
      if self.record.say then
        self.record.say(handle, "pool", "queue full: %s, which %s", name,
          self.on_full == "wait" and "waits" or self.on_full == "run" and "runs here"
            or "is rejected")
      end
      if self.on_full == "wait" then
        local deadline = timeout >= 0 and timeout < math.huge and core.now() + timeout or nil
        local has_room, problem = wait_for_room(self, handle, deadline, signal)
        if problem then
          return refuse(name, policy, "cancelled", problem.message)
        elseif not has_room then
          return refuse(name, policy, "timeout")
        end
        timeout = deadline and math.max(0, deadline - core.now()) or timeout
      elseif self.on_full == "run" and not is_bound then
        return send(self, handle, task, core.HOME, timeout, policy, ...)
      else
        return refuse(name, policy, "queue_full",
          ("the queue is full: %d calls wait, and all workers are busy"):format(self.max_queue))
      end
    end
  end
  if self.balancer and not is_bound then
    place = balance(self, handle, name, place)
  end
  return send(self, handle, task, place, timeout, policy, ...)
end

--- The schedule that a pool's options ask for, or nil.
function M.new(record, opts)
  local max_queue = opts.max_queue ~= math.huge and opts.max_queue or nil
  local balancer = opts.balancer ~= "shared" and opts.balancer or nil
  if type(balancer) == "string" then
    balancer = balancers[balancer]()
  end
  if not max_queue and not balancer then
    return nil
  end
  return setmetatable({
    record = record,
    max_queue = max_queue,
    on_full = opts.on_full or "reject",
    balancer = balancer,
    workers = {},
    line = {}, first = 1, last = 0,
    granted = 0, lent = 0,
  }, mt)
end

return M
