--- The treadle command: runs a script as the main coroutine.
-- @module treadle.command
local treadle = require "treadle"
local core = require "treadle.core"
local errors = require "treadle.error"
local future = require "treadle.future"
local loop = require "treadle.loop"
local luv = require "treadle.luv"

local M = {}

local USAGE = [[
usage: treadle SCRIPT [ARGUMENT...]    run a Lua script
       treadle -e CODE [ARGUMENT...]   run a string of Lua
       treadle - [ARGUMENT...]         run what comes from standard input
       treadle -v | --version          print the versions
       treadle -h | --help             print this
]]

--- In one piece: workers write beside it, and a second Ctrl-C ends the process anywhere.
local function complain(message)
  io.stderr:write("treadle: " .. message .. "\n")
end

local function misuse(message)
  complain(message .. "\n" .. USAGE:sub(1, -2))
  return 2
end

--- Finish what the script left running: coroutines, calls, timers, luv's handles.
local function drain()
  while true do
    if loop.is_busy() or core.is_live() then
      loop.turn(math.huge)
    elseif luv.is_loaded() and luv.is_alive() then
      luv.wait(math.huge, loop.is_ready, true)
      loop.poll()
    else
      return
    end
  end
end

--- Whether an error is what Ctrl-C raises (src/cli/main.c).
local function is_interrupt(err)
  return err == "interrupted" or errors.is(err) and err.value == "interrupted"
end

local function run(chunk, problem, name, args)
  if not chunk then
    complain(problem)
    return 1
  end
  args[0] = name
  _G.arg = args
  _G.treadle = treadle
  require("treadle.pool").is_global = true
  debug.getregistry()["treadle.luv.keep"] = luv.keep -- src/cli/main.c asks it
  local f = loop.spawn(future.new(), chunk, unpack(args))
  local ok, err = pcall(function() -- Ctrl-C raises wherever Lua code is
    f:await()
    drain()
  end)
  if not ok then
    complain(is_interrupt(err) and "interrupted" or errors.text(err))
    return 1
  end
  return 0
end

--- Run the command.
-- @tparam function versions returns the text of `-v`
-- @param ... the command's arguments
-- @treturn number exit code
function M.main(versions, ...)
  local args = { ... }
  local first = table.remove(args, 1)
  if first == nil then
    return misuse("a script is missing")
  elseif first == "-v" or first == "--version" then
    print(versions)
    return 0
  elseif first == "-h" or first == "--help" then
    io.stdout:write(USAGE)
    return 0
  elseif first == "-e" then
    local code = table.remove(args, 1)
    if not code then
      return misuse("option -e needs a string of code")
    end
    local chunk, problem = loadstring(code, "=(command line)")
    return run(chunk, problem, "-e", args)
  elseif first == "-" then
    local chunk, problem = loadstring(io.read("*a"), "=stdin")
    return run(chunk, problem, "-", args)
  elseif first:sub(1, 1) == "-" then
    return misuse(("unknown option '%s'"):format(first))
  end
  local chunk, problem = loadfile(first)
  return run(chunk, problem, first, args)
end

return M
