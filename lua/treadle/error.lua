--- What goes wrong at run time: one class of errors, told apart by `kind`.
-- Fields: `kind`, `message`, `task`, `worker`, `traceback`, `value`.
-- @classmod treadle.error
local core = require "treadle.core"

local mt = { __name = "treadle.error" }
mt.__index = mt

--- What a person wants to read: the message, where it was, the traceback.
function mt:__tostring()
  local where = ""
  if self.task then
    where = (" (task '%s'%s)"):format(self.task,
      self.worker and " in worker " .. self.worker or "")
  end
  local text = ("%s%s"):format(self.message, where)
  if self.kind ~= "task" then
    text = ("%s: %s"):format(self.kind, text)
  end
  return self.traceback and text .. "\n" .. self.traceback or text
end

core.class("treadle.error", mt)

local M = {}

--- Tell of an error that no code is given: on standard error, in one piece, since other threads
-- write there, too; or by `M.teller`, where a host has a better place. Also in finalizers.
function M.tell(message)
  if not (M.teller and pcall(M.teller, message)) then
    io.stderr:write("treadle: " .. message .. "\n")
  end
end

--- Make an error object.
-- @tparam string kind one of the kinds of the contract
-- @tparam string message
-- @tparam[opt] table fields the other fields; the table becomes the error
function M.new(kind, message, fields)
  local err = fields or {}
  err.kind = kind
  err.message = message
  return setmetatable(err, mt)
end

--- Raise one that knows where this state was.
-- @tparam[opt=2] number level as for `error`: 2 is who called the function that raises
function M.raise(kind, message, level)
  local traceback = debug.traceback("", 1 + (level or 2)):sub(2)
  error(M.new(kind, message, { traceback = traceback }), 0)
end

--- For where there is no memory to make one; it belongs to no place.
M.NO_MEMORY = M.new("memory", "not enough memory", { _sited = true })

--- Whether a value is such an error.
function M.is(value)
  return type(value) == "table" and getmetatable(value) == mt
end

--- The text of any error value; an error in its `__tostring` is told, too.
function M.text(value)
  local ok, text = pcall(tostring, value)
  if ok and type(text) == "string" then
    return text
  end
  return ("error object (a %s) whose __tostring failed: %s"):format(type(value),
    ok and "it gave no string" or type(text) == "string" and text or type(text))
end

--- What code has raised, as an error object.
-- @tparam[opt] thread co the coroutine that died of it; that which runs, in a message handler
function M.raised(value, co)
  if M.is(value) then
    return value
  end
  local traceback = co and debug.traceback(co) or debug.traceback("", 2):sub(2)
  return M.new("task", M.text(value), { value = value, traceback = traceback })
end

--- The text of a reason that somebody gave, nil for none: an error of ours is its message.
function M.reason(value)
  if value == nil then
    return nil
  end
  return M.is(value) and M.text(value.message) or M.text(value)
end

--- Add the place in this state where an error was met, once.
function M.add_site(err, level)
  if M.is(err) and not err._sited then
    err._sited = true
    local here = debug.traceback("", level + 1):gsub("^\n?stack traceback:\n", "")
    err.traceback = (err.traceback and err.traceback .. "\n" or "")
      .. "awaited at:\n" .. here
  end
  return err
end

return M
