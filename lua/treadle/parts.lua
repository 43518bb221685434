--- How a parallel loop gets to the workers: in parts, a few of them under way at a time, each as
-- large as what was measured of those before it says.
-- A part names the loop's body by an id. The body goes to each worker before the first parts: once,
-- unless the worker gets a new state meanwhile. One that does not know it answers so, and is sent
-- it again; the part goes to whoever is free.
-- @module treadle.parts
local core = require "treadle.core"
local body = require "treadle.body"
local errors = require "treadle.error"
local future = require "treadle.future"
local inline = require "treadle.inline"
local loop = require "treadle.loop"

local M = {}

local methods = {}
local mt = { __index = methods }

--- A part takes at least so long: then its way, some microseconds, does not matter.
local LEAST_S = 100e-6

--- An iterator is asked for no more items at once, nor for more than take so long.
local AHEAD, AHEAD_S = 256, 1e-3

--- More items of a list do not travel at once: workers would wait for what they are written to.
local TRAVEL = 8192

--- Fresh states in the place of known ones until the body goes with every part: the pool isolates.
local LOST = 4

-- What is sent; their code travels each time, and is small.
local function send_part(...)
  return require("treadle.body").part(...)
end

local function send_body(...)
  require("treadle.body").learn(...)
end

local function send_fold(...)
  return require("treadle.body").fold(...)
end

local function send_forget(id)
  require("treadle.body").forget(id)
end

--- Ids of this state: nobody else's, also of a state that had its place before.
local origin = {}
local prefix = ("%s %.9f "):format(tostring(origin), core.now())
local count = 0

--- Make the parts of a loop ready.
-- @tparam table self `pool`; `body`, see treadle.body; `input`, see treadle.input; `results`, whose
-- `put(part, result)` gets what came back; `chunk`, items of a part, if that is given; `unit`, each
-- part but the last has a multiple of so many; `at`, where to begin, if it is not the first item;
-- `task`, the name of one that is called item by item; `concurrency`, `timeout`, `progress`
function M.new(self)
  count = count + 1
  self.id = prefix .. count
  self.workers = math.max(1, math.min(self.pool.threads, self.concurrency or math.huge))
  self.window = self.concurrency or 2 * self.workers
  self.flying, self.flights = 0, {} -- how many parts; part, or lesson, -> its future
  self.landed, self.first_landed, self.last_landed = {}, 1, 0
  self.again = {} -- parts that must be sent once more
  self.knows = {} -- worker -> "soon" or "now"
  self.lost = 0
  self.deadline = self.timeout and self.timeout < math.huge and core.now() + self.timeout or nil
  self.at = self.at or self.input.first
  self.done = self.at - self.input.first
  local name = self.body.task
  if name and not core.worker then
    body.set_finder(self.id, function() return inline.task(self.pool._record, name) end)
  end
  return setmetatable(self, mt)
end

-- --- sending -------------------------------------------------------------------------------------

local function time_left(self)
  return self.deadline and math.max(0, self.deadline - core.now())
    or self.pool._timeout and math.huge -- its own limit is for calls
end

--- Make a call for the loop; with the body or without it.
local function call(self, fn, with_body, ...)
  local along = (with_body or self.lost > LOST) and self.body or nil
  return self.pool:run(fn, { self.id, along, n = select("#", ...) + 2, ... },
    { timeout = time_left(self) })
end

--- What comes back is looked at in its order.
local function await_landing(self, part, f)
  self.flights[part] = f
  future.on_settled(f, function()
    self.last_landed = self.last_landed + 1
    self.landed[self.last_landed] = part
    if self.gate then
      self.gate:_resolve()
    end
  end)
end

local function send(self, part)
  local f
  if self.task then
    f = self.pool:run(self.task, { part.items[1] }, { timeout = self.deadline and time_left(self) })
  else
    f = call(self, send_part, part.with_body, part.base, part.first, part.last, part.items)
  end
  self.flying = self.flying + 1
  await_landing(self, part, f)
end

--- How many items the next part has.
local function size(self)
  local left = self.input.last and self.input.last - self.at + 1
  local n = self.chunk
  if not n then
    local each = self.each
    if not each then
      n = 1
    elseif not left then
      n = math.min(AHEAD, math.max(1, math.floor(AHEAD_S / each)))
    else
      -- the fair share of what is left shrinks towards the end
      n = math.max(math.ceil(LEAST_S / each), math.ceil(left / (2 * self.workers)))
      if self.input.take_costs then
        n = math.min(n, TRAVEL)
      end
    end
  end
  if self.unit then
    n = math.ceil(n / self.unit) * self.unit
  end
  return left and math.min(n, left) or n
end

--- The next part, or nil if there is none.
local function next_part(self)
  local part = table.remove(self.again)
  if part then
    return part
  elseif self.input.last and self.at > self.input.last then
    return nil
  end
  local items, first, last, base = self.input:take(self.at, size(self))
  if last < first then
    return nil
  end
  self.at = self.at + last - first + 1
  return { items = items, first = first, last = last, base = base }
end

-- --- what comes back -----------------------------------------------------------------------------

local function range_of(part)
  local first, last = part.base + part.first, part.base + part.last
  return first == last and ("at index %d"):format(first)
    or ("at one of the indices %d to %d"):format(first, last)
end

--- The error of a loop whose function has raised one.
local function raised(self, worker, failure)
  local where = failure.index and (" (at index %d)"):format(failure.index) or ""
  return errors.new(failure.kind or "task", tostring(failure.message) .. where, {
    index = failure.index, task = self.name, worker = worker > 0 and worker or nil,
    traceback = failure.traceback, value = failure.value,
  })
end
M.raised = raised

--- The error of a loop of which a part was lost.
local function lost(self, part, err)
  if not errors.is(err) then
    return err
  elseif err.kind == "timeout" and self.deadline then
    return errors.new("timeout", ("the loop has not ended within %g s"):format(self.timeout),
      { task = self.name })
  end
  return errors.new(err.kind, ("%s (%s)"):format(errors.text(err.message), range_of(part)), {
    index = part.first == part.last and part.base + part.first or nil, task = self.name,
    worker = err.worker, traceback = err.traceback, value = err.value,
  })
end

--- Send a part in halves: it was too large.
local function halve(self, part)
  local items, half = part.items, math.floor((part.first + part.last) / 2)
  local left, right = {}, {}
  if type(items) == "string" then
    local cut = (half - part.first + 1) * self.input.size
    left, right = items:sub(1, cut), items:sub(cut + 1)
  else
    for i = part.first, part.last do
      local half_items, start = i <= half and left or right, i <= half and 0 or half
      half_items[i - start] = items[i]
    end
  end
  table.insert(self.again, {
    items = right, first = 1, last = part.last - half, base = part.base + half,
  })
  table.insert(self.again, { items = left, first = 1, last = half, base = part.base })
end

--- Send the body to a worker: it gets there before all parts that have not begun.
local function teach(self, worker)
  self.knows[worker] = "soon"
  await_landing(self, { student = worker },
    self.pool:run(send_body, { self.id, self.body }, { worker = worker }))
end

--- A worker has answered that it does not know the body.
local function bounced(self, part, worker)
  if worker == 0 or worker > self.pool.threads then -- it is no worker's number
    part.with_body = true
  elseif self.knows[worker] ~= "soon" then
    if self.knows[worker] then -- it has got a new state
      self.lost = self.lost + 1
    end
    teach(self, worker)
  end
  table.insert(self.again, part)
end

local function settle(self, part, f)
  self.flights[part] = nil
  if part.student then
    self.knows[part.student] = f:pawait() and "now" or nil
    return
  end
  self.flying = self.flying - 1
  local returned, ok, worker, seconds, result = f:pawait()
  if not returned then
    local err = ok
    local kind = errors.is(err) and err.kind
    if kind == "queue_full" then
      table.insert(self.again, part)
      self.window = math.max(1, self.flying)
      if self.flying == 0 then
        self.pool:ready():await()
      end
      return
    elseif kind == "payload" and not err.worker and part.last > part.first and part.items
      and not self.unit then
      return halve(self, part)
    end
    error(lost(self, part, err), 0)
  elseif self.task then -- it was a call of that task
    worker, seconds, result = 0, nil, { ok }
  elseif not ok and result.unknown then
    return bounced(self, part, worker)
  elseif not ok then
    error(raised(self, worker, result), 0)
  end
  self.knows[worker] = "now"
  local n = part.last - part.first + 1
  if seconds then
    local each = math.max(seconds, 1e-9) / n
    self.each = self.each and (self.each + each) / 2 or each
  end
  self.results:put(part, result)
  self.done = self.done + n
  if self.progress then
    self.progress(self.done, self.input.count)
  end
end

-- --- the loop ------------------------------------------------------------------------------------

local function run(self)
  if not self.task then
    for worker = 1, self.pool.threads do
      teach(self, worker)
    end
  end
  while not self.is_over do
    while self.flying < self.window do
      local part = next_part(self)
      if not part or self.is_over then
        break
      end
      send(self, part)
    end
    if self.flying == 0 then
      return
    end
    while self.first_landed > self.last_landed do
      self.gate = future.new()
      self.gate:await()
      self.gate = nil
      if self.is_over then
        return
      end
    end
    local part = self.landed[self.first_landed]
    self.landed[self.first_landed] = nil
    self.first_landed = self.first_landed + 1
    settle(self, part, self.flights[part])
  end
end

--- Stop: cancel what is under way. What comes back from then on is dropped.
function methods:cancel(given)
  if self.is_over then
    return
  end
  self.is_over = true
  for _, f in pairs(self.flights) do
    f:cancel(given)
  end
  if self.gate then
    self.gate:_resolve()
  end
end

--- Let the workers forget the body: the loop is over.
function methods:forget()
  body.set_finder(self.id, nil)
  body.forget(self.id)
  for _, lesson in pairs(self.flights) do -- nothing else is left
    lesson:cancel()
  end
  loop.work(future.new(), function()
    for worker in pairs(self.knows) do
      if worker > 0 and worker <= self.pool.threads then
        future.on_settled(self.pool:run(send_forget, { self.id }, { worker = worker }),
          function() end)
      end
    end
  end)
end

--- Run the loop; waits for its end.
-- @raise the error of the first part that fails; the others are cancelled
function methods:run()
  local ok, err = pcall(run, self)
  if not ok then -- what has no time left must end, however it computes
    self:cancel {
      reason = "another part of the loop has failed",
      force = self.deadline ~= nil and errors.is(err) and err.kind == "timeout",
    }
  end
  self.is_over = true
  if not ok then
    error(err, 0)
  end
end

--- Fold values, of which there are n, into one value, in a worker; waits for it. The last thing.
function methods:fold(value, values, n)
  local with_body = false
  while true do
    local ok, worker, _, result = call(self, send_fold, with_body, value, values, n):await()
    if ok then
      self.knows[worker] = "now"
      return result
    elseif not result.unknown then
      error(raised(self, worker, result), 0)
    end
    with_body = true
  end
end

return M
