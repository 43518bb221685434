--- What describes a task: a function, a function with options, or a name in a module.
-- @module treadle.task
local options = require "treadle.options"

local M = {}

local task_mt = { __name = "treadle.task" }
task_mt.__index = task_mt

local import_mt = { __name = "treadle.import" }
import_mt.__index = import_mt

local TASK_OPTIONS = {
  fn = "callable", timeout = "seconds", default = "any", error = "any", priority = "priority",
  retries = "tally",
}

local IMPORT_OPTIONS = {
  module = "name", name = "name", timeout = "seconds", default = "any", error = "any",
  priority = "priority", retries = "tally",
}

--- The options of a call that travel from the worker's module to the host.
local CALL_OPTIONS = { "timeout", "default", "error", "priority", "retries" }

local function check_limits(name, given)
  if given.timeout == nil and (given.default ~= nil or given.error ~= nil) then
    options.bad_argument(1, name, "'default' and 'error' need a 'timeout'", 2)
  end
end

--- A task with options.
-- @tparam table given `fn`, and `timeout` (s), `default`, `error`, `priority`, `retries`
function M.task(given)
  options.argument(1, "task", given, "table")
  options.check(1, "task", given, TASK_OPTIONS)
  if given.fn == nil then
    options.bad_argument(1, "task", "field 'fn' missing: the function to run")
  end
  check_limits("task", given)
  local self = {}
  for key, value in pairs(given) do
    self[key] = value
  end
  return setmetatable(self, task_mt)
end

--- A task of a module that the host never loads.
-- @tparam table given `module`, `name`, and the options of a task
function M.import(given)
  options.argument(1, "import", given, "table")
  options.check(1, "import", given, IMPORT_OPTIONS)
  for _, field in ipairs { "module", "name" } do
    if given[field] == nil then
      options.bad_argument(1, "import", ("field '%s' missing"):format(field))
    end
  end
  check_limits("import", given)
  local self = {}
  for key, value in pairs(given) do
    self[key] = value
  end
  return setmetatable(self, import_mt)
end

--- A pool of this one task; it can be called like the task itself.
function task_mt:pool(given)
  return require("treadle.opening").single(self, given)
end

function M.is_task(value)
  return type(value) == "table" and getmetatable(value) == task_mt
end

function M.is_import(value)
  return type(value) == "table" and getmetatable(value) == import_mt
end

--- The function of an export: itself, or a task's; nil when it is neither.
function M.fn(value)
  if type(value) == "function" then
    return value
  end
  return M.is_task(value) and value.fn or nil
end

--- A plain table of a task's options for the host, or false if it has none.
function M.call_options(value)
  if type(value) ~= "table" then
    return false
  end
  local found = {}
  for _, key in ipairs(CALL_OPTIONS) do
    found[key] = value[key]
  end
  found.has_default = value.default ~= nil or nil
  found.has_error = value.error ~= nil or nil
  return next(found) ~= nil and found or false
end

return M
