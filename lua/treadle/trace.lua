--- A recording of a pool, in a file for Perfetto, chrome://tracing and `treadle trace`.
-- @classmod treadle.trace
local core = require "treadle.core"
local errors = require "treadle.error"
local json = require "treadle.json"
local options = require "treadle.options"
local records = require "treadle.records"

core.open "watch"

local M = {}

local methods = {}
local mt = { __name = "treadle.trace", __index = methods }
mt.__metatable = mt.__name

--- `_trace` is the core's, `_record` the pool's, which has it until it is closed; then there are
-- `_events` and `_lost`. It does not hold the pool's handle, so that the pool can be dropped.
function mt:__tostring()
  return ("treadle.trace: %s%s"):format(self._path, self._events and " (closed)" or "")
end

--- Without the quotes.
local function quoted(text)
  return json.quote(text):sub(2, -2)
end

--- Start to record a pool; one recording at a time.
-- @raise at the caller's caller's line
function M.open(handle, record, name, path)
  options.argument(1, "trace", path, "string", 2)
  if record.trace then
    error(("the pool is being recorded already, to '%s'"):format(record.trace._path), 3)
  end
  local names = records.task_names(record)
  for i, task in ipairs(names) do
    names[i] = quoted(task)
  end
  local trace, problem = core.trace_open(handle, path, quoted(name), names)
  if problem then
    error(("cannot write '%s': %s"):format(path, problem), 3)
  elseif not trace then
    error("the pool is closed", 3)
  end
  local self = setmetatable({ _trace = trace, _record = record, _path = path }, mt)
  record.trace = self
  return self
end

--- Stop: what was recorded is in the file. The pool's end does the same.
-- @treturn number how many events are in it
-- @treturn number how many are missing, for want of memory
-- @raise that the file could not be written
function methods:close()
  if getmetatable(self) ~= mt.__name then
    options.misused("close", "trace", self)
  end
  if not self._events then
    local problem
    self._record.trace = nil
    self._events, self._lost, problem = core.trace_close(self._trace,
      records.handle_of[self._record])
    if problem then
      error(("cannot write '%s': %s"):format(self._path, problem), 2)
    end
  end
  return self._events, self._lost
end

--- The pool has ended.
function M.finish(record)
  local ok, err = pcall(methods.close, record.trace)
  if not ok then
    io.stderr:write(("treadle: %s\n"):format(errors.text(err)))
  end
end

return M
