--- Lines on standard error that say what a pool does: `debug` of a pool, and TREADLE_DEBUG.
-- @module treadle.debug
local core = require "treadle.core"
local options = require "treadle.options"
local records = require "treadle.records"

core.open "watch"

local M = {}

--- The kinds of lines: name -> bit.
local KINDS = core.DEBUG

--- Check an option `debug`, as `options.check` has it.
function M.check(value)
  local wanted = "a boolean, or a table of booleans"
  if type(value) ~= "table" then
    return type(value) == "boolean", wanted
  end
  for name, on in pairs(value) do
    if not KINDS[name] then
      return false, wanted, ("the unknown namespace '%s', did you mean '%s'?"):format(
        tostring(name), options.nearest(name, KINDS))
    elseif type(on) ~= "boolean" then
      return false, wanted, ("a %s in '%s'"):format(type(on), name)
    end
  end
  return true
end

local all = 0
for _, bit in pairs(KINDS) do
  all = all + bit
end

local warned = {}

--- What TREADLE_DEBUG asks for: a set of names. Each wrong one is named once.
local function from_environment(text)
  local set = {}
  for name in text:gmatch "[^,%s]+" do
    if name == "*" then
      for kind in pairs(KINDS) do
        set[kind] = true
      end
    elseif KINDS[name] then
      set[name] = true
    elseif not warned[name] then
      warned[name] = true
      io.stderr:write(("treadle: TREADLE_DEBUG: unknown namespace '%s', did you mean '%s'? "
        .. "('*': all)\n"):format(name, options.nearest(name, KINDS)))
    end
  end
  return set
end

--- The bits of what is to be told: by the option, by the environment, or both.
function M.mask(value, environment)
  local mask, set = 0, environment and from_environment(environment) or {}
  if value == true then
    return all
  end
  for name, bit in pairs(KINDS) do
    if set[name] or value and value[name] then
      mask = mask + bit
    end
  end
  return mask
end

--- Say a line of that kind, made of a format and what belongs to it, if it is wanted.
-- @param handle of the pool; nil in a worker for its own
function M.say(handle, kind, format, ...)
  if core.debug_wants(handle, KINDS[kind]) then
    core.debug_say(handle, KINDS[kind], format:format(...))
  end
end

--- Say how the pool was made, whose workers have told the names of their tasks.
function M.opened(handle, record, name, shape)
  core.debug_names(handle, records.task_names(record))
  M.say(handle, "pool", "open '%s': %s workers, concurrency %d, %d tasks", name,
    shape.min_threads == shape.max_threads and shape.max_threads
      or ("%d to %d"):format(shape.min_threads, shape.max_threads),
    shape.concurrency, #record.names)
end

return M
