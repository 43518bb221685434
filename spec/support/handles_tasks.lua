--- Tasks for the tests of handles: they keep, lose, raise and wait with what they are given.
local treadle = require "treadle"

local M = {}

local held, retried = {}, {}

--- An object of this class travels with a handle in what `pack` returns.
local Box = {}
Box.__index = Box

function M.box(handle)
  return setmetatable({ handle = handle }, Box)
end

treadle.class("handles.box", Box, function(box)
  return { box.handle, box.handle, { box.handle } }
end, function(packed)
  return M.box(packed[3][1])
end)

--- One whose pack raises after it was asked for a handle, and one whose unpack does.
local Broken = {}

function M.broken(handle, at)
  return setmetatable({ handle = handle, at = at }, Broken)
end

treadle.class("handles.broken", Broken, function(broken)
  if broken.at == "pack" then error("pack on purpose") end
  return { broken.handle }
end, function()
  error("unpack on purpose")
end)

function M.echo(...)
  return ...
end

function M.nothing()
end

function M.hold(...)
  held[#held + 1] = { ... }
end

function M.let_go()
  held = {}
  collectgarbage()
end

function M.fail(...)
  error({ "on purpose", ... })
end

--- Fails at its first try.
function M.retry(key, ...)
  if not retried[key] then
    retried[key] = true
    error({ ... })
  end
  return ...
end

function M.sleep(seconds, ...)
  treadle.sleep(seconds)
  return ...
end

function M.wait(event)
  return event:wait()
end

--- Computes for ever, with handles in its hands and one that waits.
function M.spin(event)
  treadle.spawn(function() event:wait() end)
  local list = { event, { event } }
  local n = 0
  while list[1] do n = n + 1 end
  return list, n
end

--- Results that cannot travel, after a handle.
function M.unsendable(handle)
  return handle, { handle, coroutine.create(print) }
end

function M.too_large(handle)
  return handle, { handle, ("x"):rep(200000) }
end

function M.unpackable(handle)
  return handle, M.broken(handle, "unpack")
end

--- Passes them on to the next worker, and leaves without the answer.
function M.pass(depth, ...)
  local call = treadle.worker.pool.call
  if depth > 0 then
    call.pass(depth - 1, ...)
    call.echo(...)
  end
  return ...
end

function M.data()
  return treadle.worker.data
end

--- Its default, and its error, are part of what each worker tells the host when it has loaded.
M.late = treadle.task {
  fn = function() treadle.sleep(1000) end, timeout = 0.001, default = treadle.event(),
}
M.later = treadle.task {
  fn = function() treadle.sleep(1000) end, timeout = 0.001, error = { treadle.event() },
}

function M.emit_from_closed(event)
  event:close()
  return pcall(event.is_set, event)
end

return M
