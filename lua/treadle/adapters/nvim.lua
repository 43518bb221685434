--- Joins Neovim: treadle's descriptor is watched in the editor's loop, and what is ready runs as a
-- scheduled callback (vim.schedule), where all of vim.api may be called. A wait outside of a
-- coroutine is vim.wait: the editor's events go on. It comes about by itself where Neovim's own
-- state requires treadle.
-- @module treadle.adapters.nvim
local core = require "treadle.core"
local ending = require "treadle.ending"

local M = {}

--- The longest time that luv's timers are asked for, in milliseconds; and vim.wait.
local LONGEST, PATIENCE = 2 ^ 31 - 1, 200

local function milliseconds(seconds)
  return math.min(math.ceil(math.max(0, seconds) * 1000), LONGEST)
end

--- Whether this state is the editor's own. Threads of luv (vim.uv.new_thread) have a `vim`, too,
-- but no loop of the editor's.
function M.is_here()
  local vim = rawget(_G, "vim")
  return type(vim) == "table" and type(vim.schedule) == "function" and type(vim.wait) == "function"
    and (vim.uv or vim.loop) ~= nil and not (vim.is_thread and vim.is_thread())
end

--- Run `fn` where vim.api may be called: now, or soon.
local function safely(fn)
  if vim.in_fast_event() then
    vim.schedule(fn)
  else
    fn()
  end
end

--- Where the editor looks for Lua modules beside package.path.
local function runtime_path()
  local list = {}
  for _, folder in ipairs(vim.api.nvim_list_runtime_paths()) do
    list[#list + 1] = folder .. "/lua/?.lua"
    list[#list + 1] = folder .. "/lua/?/init.lua"
  end
  return table.concat(list, ";")
end

function M.new()
  if not M.is_here() then
    error("treadle.attach: this is not Neovim's own state", 0)
  end
  local uv = vim.uv or vim.loop
  local adapter = { name = "nvim" }
  local poll, timer, run
  local scheduled, over = false, false
  local leaving, path -- the autocommand; runtime_path(), as last seen

  --- Fast context. The descriptor stays readable until `run` has been: it is not watched meanwhile.
  local function wake()
    if not scheduled and not over then
      scheduled = true
      poll:stop()
      timer:stop()
      vim.schedule(run)
    end
  end

  local function set_timer(seconds)
    if seconds < math.huge then
      timer:start(milliseconds(seconds), 0, wake)
    else
      timer:stop()
    end
  end

  --- The editor ends. It does not close its Lua state: what that would do is done here.
  local function leave()
    ending.end_pools()
    leaving = nil
    return true -- the autocommand is over
  end

  function adapter.watch(fd, turn)
    poll, timer = uv.new_poll(fd), uv.new_timer()
    function run()
      scheduled = false
      if over then
        return
      end
      poll:start("r", wake) -- what the turn runs may wait, too
      local seconds = turn()
      if not over and not scheduled then
        set_timer(seconds)
      end
    end
    poll:start("r", wake)
    safely(function()
      if not over then
        path = runtime_path()
        leaving = vim.api.nvim_create_autocmd("VimLeavePre", { callback = leave })
      end
    end)
    return function()
      over = true
      poll:close()
      timer:close()
      safely(function()
        if leaving then
          vim.api.nvim_del_autocmd(leaving)
          leaving = nil
        end
      end)
    end
  end

  function adapter.rearm(seconds)
    if not scheduled then
      set_timer(seconds)
    end
  end

  function adapter.block(is_done, seconds)
    if vim.in_fast_event() then
      error("nvim: cannot wait in a callback of the event loop (vim.in_fast_event()); do it in a "
        .. "coroutine (treadle.spawn) or in vim.schedule", 0)
    end
    if is_done() then
      return
    elseif not scheduled then
      set_timer(core.next_timeout() or math.huge) -- within a turn nobody else has done it
    end
    -- What ends the wait is an event, whereupon is_done is asked. But some versions (0.7) look for
    -- Ctrl-C at the end of their time only.
    local _, why = vim.wait(math.min(milliseconds(seconds), PATIENCE), is_done, PATIENCE)
    if why == -2 then
      error("Keyboard interrupt", 0)
    end
  end

  --- Later: it may come from a finalizer, which may run in places where text must not change.
  function adapter.report(message)
    vim.schedule(function()
      vim.notify("treadle: " .. message, vim.log.levels.ERROR)
    end)
  end

  --- Workers find modules where the editor does. They do not run the editor's scripts again, which
  -- are not made for that: tasks of a table are sent.
  function adapter.boot(boot)
    path = not vim.in_fast_event() and runtime_path() or path
    boot.path = (path and path .. ";" or "") .. boot.path
    boot.file = nil
  end

  return adapter
end

return M
