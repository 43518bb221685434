--- A debug hook in every worker of a pool: `pool:sethook`.
-- @module treadle.hook
local core = require "treadle.core"
local coroutine = require "treadle.coroutines"
local errors = require "treadle.error"
local options = require "treadle.options"

-- the script may have its own
local debug, jit, pcall = debug, jit, pcall

local M = {}

--- For all states of a pool: see `pool:sethook`.
function M.set(handle, fn, mask, count)
  core.open "looks"
  if fn == nil then
    core.pool_sethook(handle)
    return
  end
  options.argument(1, "sethook", fn, "function", 2)
  mask = mask == nil and "" or options.argument(2, "sethook", mask, "string", 2)
  if mask:find("[^crl]") then
    options.bad_argument(2, "sethook", ("letters of 'crl' expected, got '%s'"):format(mask), 2)
  end
  count = count == nil and 0 or options.value(3, "sethook", count, "tally", 2)
  if mask == "" and count == 0 then
    options.bad_argument(2, "sethook", "a hook for nothing: neither events nor a count", 2)
  end
  local ok, err = pcall(core.pool_sethook, handle, fn, mask, count)
  if not ok then
    options.bad_argument(1, "sethook", tostring(err), 2)
  end
end

--- Whether this state compiled before it had a hook; nil while it has none.
local compiled

--- What it raises ends the task that runs, which has a coroutine. The rest of the worker is not
-- its to end: that would never wake those who wait.
local function guarded(fn)
  local told = false
  return function(event, line)
    local co, is_main = coroutine.running()
    if co and not is_main then
      return fn(event, line) -- in its place: debug.getinfo(2) is what runs
    end
    local ok, err = pcall(fn, event, line)
    if not ok and not told then
      told = true
      io.stderr:write(("treadle: error in a debug hook, in worker %d outside of tasks: %s\n")
        :format(core.worker, errors.text(err)))
    end
  end
end

--- In a worker: take over its pool's hook. Code that is compiled already would not call it.
function M.take(fn, mask, count)
  if fn then
    if compiled == nil then
      compiled = jit.status()
    end
    jit.off()
    jit.flush()
    debug.sethook(guarded(fn), mask, count)
  elseif compiled ~= nil then
    debug.sethook()
    if compiled then
      jit.on()
    end
    compiled = nil
  end
end

return M
