--- Whether what several coroutines have seen of one shared object could have happened one after the
-- other: a search for such an order (after Wing and Gong, with Lowe's memory of what was tried).
--
-- A history is a list of processes, a process a list of records in the order in which it made them:
-- `{ op =, began =, ended =, ... }`, times of treadle.now(). A process makes one call at a time.
-- `came`, where it is known, is when the call stood in the queue at the latest.
--
-- A call that may wait has two moments, both between its times: it comes, and, if it has to stand
-- in the queue, it is served there by what another one does, or leaves. So the order in which who
-- waits is served is checked, too, and not only that nobody has what another one has.
--
-- What it sees: each result, which must follow from the calls before it in one order that no call's
-- times contradict. So it sees two holders, a unit lost or invented, a wake-up too few or too many,
-- who was overtaken, and who was told of a dead holder in another's place. What it cannot see:
-- whether a call took too long; what did not happen to collide in these histories; whether what a
-- lock guards is seen as the last holder left it (the specs of contention and make tsan do). Calls
-- that overlap may be taken in either order, so a fault that shows only in which of them was first
-- goes unseen, as does who waits longer than it must and is served after all.
local linear = {}

--- Steps after which a search is given up, and says so. Most histories of eight processes need one
-- or two for each call; of thousands, the worst needed 30,000.
local MOST = 1e6

local function copy(list, from)
  local new = {}
  for i = from or 1, #list do
    new[#new + 1] = list[i]
  end
  return new
end

local function without(list, p)
  local new = {}
  for i = 1, #list do
    if list[i].p ~= p then
      new[#new + 1] = list[i]
    end
  end
  return new
end

local function places(queue)
  local text = {}
  for i = 1, #queue do
    text[i] = queue[i].p
  end
  return table.concat(text, ",")
end

-- --- models --------------------------------------------------------------------------------------
-- `start()` gives a state; `key(state)` names it. `step(state, record, p, stands)` gives the state
-- after the next moment of process p's call, and the processes whose calls are over with that; nil
-- if it cannot be. `stands`: the call came before, and leaves now.

linear.models = {}

--- tdl_lock's rules: so many units; who waits is served in the order of coming, and nobody goes
-- past the queue; who takes some is told, until as many were taken as dead holders had. Readers
-- that stand together are served together: there the order says no more than whom of them is told,
-- and is left open, since there would be too many of them.
-- Records: op "take" with units, waits, ok, told; op "give" with units, dead.
function linear.models.lock(total, has_readers)
  local model = {}

  --- In the queue, where all that stand together stand in the order of their numbers.
  local function enter(queue, one)
    local i = #queue + 1
    while has_readers and one.record.units == 1 and i > 1 and queue[i - 1].record.units == 1
      and queue[i - 1].p > one.p do
      i = i - 1
    end
    table.insert(queue, i, one)
  end

  function model.start()
    return { free = total, abandoned = 0, queue = {} }
  end

  function model.key(s)
    return ("%d/%d/%s"):format(s.free, s.abandoned, places(s.queue))
  end

  --- Take them for that record, or nil: it says something else.
  local function grant(s, record)
    if not record.ok or record.told ~= (s.abandoned > 0) then
      return nil
    end
    s.free = s.free - record.units
    s.abandoned = s.abandoned - math.min(s.abandoned, record.units)
    return s
  end

  --- Moves who is served next, of those that stand together one who can be, to the head.
  local function choose(s)
    local i = 1
    while has_readers and s.queue[i] and s.queue[i].record.units == 1 do
      if s.queue[i].record.told == (s.abandoned > 0) then
        table.insert(s.queue, 1, table.remove(s.queue, i))
        return
      end
      i = i + 1
    end
  end

  local function serve(s, over)
    while s.queue[1] and s.queue[1].record.units <= s.free do
      choose(s)
      local one = table.remove(s.queue, 1)
      if not grant(s, one.record) then
        return nil
      end
      over[#over + 1] = one.p
    end
    return s, over
  end

  function model.step(s, record, p, stands)
    s = { free = s.free, abandoned = s.abandoned, queue = copy(s.queue) }
    if record.op == "give" then
      s.free = s.free + record.units
      if record.dead then
        s.abandoned = math.min(total, s.abandoned + record.units)
      end
      if s.free > total then
        return nil
      end
      return serve(s, { p })
    elseif stands then
      if record.ok then
        return nil
      end
      s.queue = without(s.queue, p)
      return serve(s, { p })
    elseif #s.queue == 0 and s.free >= record.units then
      if not grant(s, record) then
        return nil
      end
      return s, { p }
    elseif record.waits then
      enter(s.queue, { p = p, record = record })
      return s, {}
    elseif record.ok then
      return nil
    end
    return s, { p }
  end

  return model
end

--- A flag. Records: op "set", "reset", "is_set" with ok, "wait" with ok.
function linear.models.event()
  local model = {}

  function model.start()
    return { set = false, queue = {} }
  end

  function model.key(s)
    return tostring(s.set) .. places(s.queue)
  end

  function model.step(s, record, p, stands)
    if record.op == "set" then
      local over = { p }
      for _, one in ipairs(s.queue) do
        if not one.record.ok then
          return nil
        end
        over[#over + 1] = one.p
      end
      return { set = true, queue = {} }, over
    elseif record.op == "reset" then
      return { set = false, queue = s.queue }, { p }
    elseif record.op == "is_set" then
      if record.ok ~= s.set then
        return nil
      end
      return s, { p }
    elseif stands then
      if record.ok then
        return nil
      end
      return { set = s.set, queue = without(s.queue, p) }, { p }
    elseif s.set then
      if not record.ok then
        return nil
      end
      return s, { p }
    end
    local queue = copy(s.queue) -- in any order: all go on at once
    queue[#queue + 1] = { p = p, record = record }
    table.sort(queue, function(a, b) return a.p < b.p end)
    return { set = false, queue = queue }, {}
  end

  return model
end

--- What integer operations do: value before, argument(s) -> value after, result.
local INTEGER = {
  get = function(v) return v, v end,
  set = function(_, a) return a, a end,
  count = function(v, a) return v + a, v + a end, -- a counter's: the new one
  add = function(v, a) return v + a, v end,
  bxor = function(v, a) return bit.bxor(v, a), v end,
  exchange = function(v, a) return a, v end,
  compare_exchange = function(v, a, b) return v == a and b or v, v end,
}

--- An integer, and those who wait for it. Records: op as above, with a, b, result; op "wait" with a
-- (what is expected), result; op "notify" with a (how many at most), result.
function linear.models.integer(first)
  local model = {}

  function model.start()
    return { value = first, queue = {} }
  end

  function model.key(s)
    return s.value .. "/" .. places(s.queue)
  end

  local function notify(s, record, p)
    local n, over = math.min(record.a, #s.queue), { p }
    if record.result ~= n then
      return nil
    end
    for i = 1, n do
      if s.queue[i].record.result ~= "ok" then
        return nil
      end
      over[#over + 1] = s.queue[i].p
    end
    return { value = s.value, queue = copy(s.queue, n + 1) }, over
  end

  local function wait(s, record, p, stands)
    if stands then
      if record.result ~= "timed-out" then
        return nil
      end
      return { value = s.value, queue = without(s.queue, p) }, { p }
    elseif s.value ~= record.a then
      if record.result ~= "not-equal" then
        return nil
      end
      return s, { p }
    elseif record.result == "not-equal" then
      return nil
    end
    local queue = copy(s.queue)
    queue[#queue + 1] = { p = p, record = record }
    return { value = s.value, queue = queue }, {}
  end

  function model.step(s, record, p, stands)
    if record.op == "notify" then
      return notify(s, record, p)
    elseif record.op == "wait" then
      return wait(s, record, p, stands)
    end
    local value, result = INTEGER[record.op](s.value, record.a, record.b)
    if result ~= record.result then
      return nil
    end
    return { value = value, queue = s.queue }, { p }
  end

  return model
end

--- A place where so many meet. Records: op "wait" with ok, number.
function linear.models.barrier(count)
  local model = {}

  function model.start()
    return { queue = {} }
  end

  function model.key(s)
    return places(s.queue)
  end

  function model.step(s, record, p, stands)
    if stands then
      if record.ok then
        return nil
      end
      return { queue = without(s.queue, p) }, { p }
    end
    local queue = copy(s.queue)
    queue[#queue + 1] = { p = p, record = record }
    if #queue < count then
      return { queue = queue }, {}
    end
    local over, numbers = {}, {}
    for i, one in ipairs(queue) do
      local number = one.record.number
      if not one.record.ok or numbers[number] or not (number >= 1 and number <= count) then
        return nil
      end
      numbers[number] = true
      over[i] = one.p
    end
    return { queue = {} }, over
  end

  return model
end

-- --- the search ----------------------------------------------------------------------------------

local search = {}
search.__index = search

--- The processes that may have the next moment: no call that is not over yet was over before theirs
-- began. The one whose call ends first comes first: nearly always it is the right one.
function search:candidates()
  local list, limit = {}, math.huge
  for p, process in ipairs(self.history) do
    local record = process[self.at[p]]
    if record then
      list[#list + 1] = p
      limit = math.min(limit, not self.stands[p] and record.came or record.ended)
    end
  end
  local function ends(p)
    return self.history[p][self.at[p]].ended
  end
  for i = #list, 1, -1 do
    if self.history[list[i]][self.at[list[i]]].began > limit then
      table.remove(list, i)
    end
  end
  table.sort(list, function(a, b)
    local one, other = ends(a), ends(b)
    return one < other or one == other and a < b
  end)
  return list
end

function search:key(state)
  local text = {}
  for p = 1, #self.history do
    text[p] = self.at[p] .. (self.stands[p] and "+" or "")
  end
  text[#text + 1] = self.model.key(state)
  return table.concat(text, " ")
end

--- Whether the rest may follow on that state.
function search:goes_on(state)
  local key, list = self:key(state), self:candidates()
  if #list == 0 then
    return true
  elseif self.seen[key] then
    return false
  end
  self.seen[key] = true
  self.steps = self.steps + 1
  if self.steps > MOST then
    return false
  end
  for _, p in ipairs(list) do
    local stood = self.stands[p]
    local after, over = self.model.step(state, self.history[p][self.at[p]], p, stood)
    if after then
      self.stands[p] = true
      for _, q in ipairs(over) do
        self.at[q], self.stands[q] = self.at[q] + 1, false
      end
      if self:goes_on(after) then
        return true
      end
      for _, q in ipairs(over) do
        self.at[q], self.stands[q] = self.at[q] - 1, true
      end
      self.stands[p] = stood
    end
  end
  return false
end

local function describe_history(history)
  local lines = {}
  for p, process in ipairs(history) do
    for _, record in ipairs(process) do
      local fields = {}
      for name, value in pairs(record) do
        if name ~= "op" and name ~= "began" and name ~= "ended" then
          fields[#fields + 1] = name .. "=" .. tostring(value)
        end
      end
      table.sort(fields)
      lines[#lines + 1] = ("%.9f .. %.9f  %d: %s %s"):format(record.began, record.ended, p,
        record.op, table.concat(fields, " "))
    end
  end
  table.sort(lines)
  return table.concat(lines, "\n")
end

--- @return nil if the history is possible, or what is wrong
function linear.fault(history, model)
  local self = setmetatable({ history = history, model = model, seen = {}, steps = 0, at = {},
    stands = {} }, search)
  for p = 1, #history do
    self.at[p], self.stands[p] = 1, false
  end
  if self:goes_on(model.start()) then
    return nil
  end
  return (self.steps > MOST and "cannot tell, after %d steps:\n%s"
    or "impossible in any order (%d steps tried):\n%s"):format(self.steps,
    describe_history(history))
end

--- How many calls overlap another process's: none of them would say little.
function linear.overlaps(history)
  local n = 0
  for p, process in ipairs(history) do
    for _, a in ipairs(process) do
      local found = false
      for q, other in ipairs(history) do
        for _, b in ipairs(q ~= p and other or {}) do
          found = found or a.began < b.ended and b.began < a.ended
        end
      end
      n = n + (found and 1 or 0)
    end
  end
  return n
end

return linear
