--- What the workers of a pool executed during some time, sampled: `pool:profile(seconds)`.
-- @classmod treadle.profile
local core = require "treadle.core"
local future = require "treadle.future"
local look = require "treadle.look"
local loop = require "treadle.loop"
local options = require "treadle.options"
local records = require "treadle.records"
local share = require "treadle.share"

local methods = {}
local mt = { __name = "treadle.profile", __index = methods }

share.kind("profile", {}) -- the C half is a shared thing, so that it ends with its state

--- How often who waits looks whether the pool has ended meanwhile.
local PAUSE = 0.02

local OPTIONS = {
  interval = function(value)
    return type(value) == "number" and value >= 1e-5, "seconds, a number of at least 1e-5,"
  end,
}

local function check_self(self, name)
  if type(self) ~= "table" or getmetatable(self) ~= mt then
    options.misused(name, "profile", self, 2)
  end
end

--- Begin to sample: see `pool:profile`.
local function new(handle, record, seconds, given)
  options.value(1, "profile", seconds, "seconds", 2)
  given = options.check(2, "profile", given, OPTIONS, 2)
  local self = setmetatable({
    _ends = core.now() + seconds,
    _record = record,
    _ended = future.new(), -- by `stop`
    _thing = core.profile_new(handle, seconds, given.interval or 0.001),
  }, mt)
  return self -- nothing to sample if the pool is over
end

-- --- its end -----------------------------------------------------------------------------------

local function is_over(self)
  return not self._thing or core.profile_is_over(self._thing)
end

--- Wait until it is over: yields inside a coroutine, runs the loop outside one.
-- @return itself
function methods:await()
  check_self(self, "await")
  while not is_over(self) and core.now() < self._ends do
    if loop.wait_for(self._ended, math.min(self._ends, core.now() + PAUSE)) then
      break
    end
  end
  if self._thing then
    core.profile_wait(self._thing) -- its last look
  end
  return self
end

methods.wait = methods.await

--- End it now.
-- @return itself
function methods:stop()
  check_self(self, "stop")
  if self._thing then
    core.profile_stop(self._thing)
    core.profile_wait(self._thing)
  end
  self._ended:_resolve()
  return self
end

-- --- what it saw -------------------------------------------------------------------------------

local function root_of(self, text)
  local task = tonumber(text)
  return task and (records.task_name(self._record, task) or "?") or "(" .. text .. ")"
end

local function frame_namer()
  local name_of, builtins = look.namer(), look.builtin_namer()
  local makers = {}
  function makers.L(defined, source)
    local name = name_of(source, tonumber(defined))
    local where = ("%s:%s"):format(look.short(source), defined)
    return name and ("%s (%s)"):format(name, where) or where
  end
  function makers.M(_, source)
    return ("main chunk (%s)"):format(look.short(source))
  end
  function makers.C(id)
    return (builtins("C", tonumber(id)) or "") .. "[C]"
  end
  function makers.B(id)
    return (builtins("builtin", tonumber(id)) or "") .. "[C]"
  end
  makers.G = function() return "[GC]" end
  makers["?"] = function() return "[C]" end
  makers["+"] = function() return "..." end
  return function(text)
    local kind, id, source = text:match("^(.)(%d*)\t?(.*)$")
    return (makers[kind](id, source):gsub(";", ","))
  end
end

--- All stacks: a list of `{ count, names... }`, the outermost first.
local function stacks_of(self)
  self:await()
  if self._stacks then
    return self._stacks
  end
  local list, known, name_frame = {}, {}, frame_namer()
  local seen, looks, count, unanswered, seconds = {}, 0, 0, 0, 0
  if self._thing then
    seen, looks, count, unanswered, seconds = core.profile_read(self._thing)
  end
  for text, n in pairs(seen) do
    local stack = { count = n }
    for line in text:gmatch("[^\n]+") do
      if #stack == 0 then
        stack[1] = root_of(self, line)
      else
        known[line] = known[line] or name_frame(line)
        stack[#stack + 1] = known[line]
      end
    end
    list[#list + 1] = stack
  end
  self._stacks, self._looks, self._count = list, looks, count
  self._unanswered, self._seconds = unanswered, seconds
  return list
end

--- What a flame graph is drawn from: a line `task;function;function count` for each stack that was
-- seen, the outermost function first. Waits until it is over.
-- @treturn string
function methods:folded()
  check_self(self, "folded")
  local counts, lines = {}, {}
  for _, stack in ipairs(stacks_of(self)) do -- several may look the same
    local line = table.concat(stack, ";")
    counts[line] = (counts[line] or 0) + stack.count
  end
  for line, count in pairs(counts) do
    lines[#lines + 1] = ("%s %d\n"):format(line, count)
  end
  table.sort(lines)
  return table.concat(lines)
end

--- The functions in which most samples were. Waits until it is over.
-- @tparam[opt=10] number n how many of them
-- @treturn table a list of `{ name, self, total, self_share, total_share }`, by `self`: how many
-- samples were in the function itself, and how many in it or in what it has called
function methods:top(n)
  check_self(self, "top")
  n = n == nil and 10 or options.value(1, "top", n, "count")
  local by_name, list, all = {}, {}, 0
  for _, stack in ipairs(stacks_of(self)) do
    local met = {}
    all = all + stack.count
    for i, name in ipairs(stack) do
      if i > 1 or #stack == 1 then -- a task's name is no function, unless it is all there is
        local entry = by_name[name]
        if not entry then
          entry = { name = name, self = 0, total = 0 }
          by_name[name], list[#list + 1] = entry, entry
        end
        entry.total = entry.total + (met[name] and 0 or stack.count)
        entry.self = entry.self + (i == #stack and stack.count or 0)
        met[name] = true
      end
    end
  end
  table.sort(list, function(a, b)
    if a.self ~= b.self then
      return a.self > b.self
    end
    return a.total > b.total or a.total == b.total and a.name < b.name
  end)
  for i = #list, n + 1, -1 do
    list[i] = nil
  end
  for _, entry in ipairs(list) do
    entry.self_share, entry.total_share = entry.self / all, entry.total / all
  end
  return list
end

--- How many stacks were seen. Waits until it is over.
-- @treturn number
-- @treturn number how many looks there were: each sees a stack of each busy worker
-- @treturn number how many of the stacks could not be read
-- @treturn number seconds that the looks took, in all
function methods:samples()
  check_self(self, "samples")
  stacks_of(self)
  return self._count, self._looks, self._unanswered, self._seconds
end

function mt:__tostring()
  if not is_over(self) then
    return "profile (still sampling)"
  end
  local lines = { ("profile of %d samples"):format((self:samples())) }
  for _, entry in ipairs(self:top()) do
    lines[#lines + 1] = ("%5.1f %% %5.1f %%  %s"):format(entry.self_share * 100,
      entry.total_share * 100, entry.name)
  end
  return table.concat(lines, "\n")
end

return { new = new }
