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
       treadle top SCRIPT ...          the same, and watch its pools
       treadle trace FILE [OPTION...]  show a recording of a pool (treadle trace --help)
       treadle bench [OPTION...]       measure what a call costs here (treadle bench --help)
       treadle test [ARGUMENT...]      run busted's specs, files in parallel (treadle test --help)
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
    local views = package.loaded["treadle.top"]
    if loop.is_busy() or core.is_live(views and views.timers) then
      loop.turn(math.huge)
    elseif not luv.is_loaded() then
      return
    else
      local luv_loop = require "treadle.luv_loop"
      if not luv_loop.is_alive() then
        return
      end
      luv_loop.wait(math.huge, loop.is_ready, true)
      loop.poll()
    end
  end
end

--- Whether an error is what Ctrl-C raises (src/cli/main.c).
local function is_interrupt(err)
  return err == "interrupted" or errors.is(err) and err.value == "interrupted"
end

--- Run a script's chunk to its end.
-- @tparam table script what `find_script` returned
-- @tparam[opt] function finish called when all has ended, before an error is told
-- @treturn number exit code
local function run(script, finish)
  _G.arg = script.args
  _G.treadle = treadle
  _G.print = core.print -- workers write beside it
  require("treadle.opening").is_global = true
  local f = loop.spawn(future.new(), script.chunk, unpack(script.args))
  local ok, err = pcall(function() -- Ctrl-C raises wherever Lua code is
    f:wait()
    if f:state() == "resolved" then
      drain()
    end
  end)
  if ok and f:state() ~= "resolved" then -- as it is: nobody has awaited it here
    ok, err = false, future.error(f)
  end
  if finish then
    finish()
  end
  if not ok then
    if luv.is_loaded() then
      require("treadle.luv_loop").before_close()
    end
    complain(is_interrupt(err) and "interrupted" or errors.text(err))
    return 1
  end
  return 0
end

--- The script that arguments name, or the exit code: they name none, or it does not compile.
-- @treturn table `chunk` and its `args`, with its name in 0
local function find_script(args)
  local name = table.remove(args, 1)
  local chunk, problem
  if name == nil then
    return nil, misuse("a script is missing")
  elseif name == "-e" then
    local code = table.remove(args, 1)
    if not code then
      return nil, misuse("option -e needs a string of code")
    end
    chunk, problem = loadstring(code, "=(command line)")
  elseif name == "-" then
    chunk, problem = loadstring(io.read("*a"), "=stdin")
  elseif name:sub(1, 1) == "-" then
    return nil, misuse(("unknown option '%s'"):format(name))
  else
    chunk, problem = loadfile(name)
  end
  if not chunk then
    complain(problem)
    return nil, 1
  end
  args[0] = name
  return { chunk = chunk, args = args }
end

--- What the first argument may ask for, instead of a script: functions of the arguments behind it
-- and the text of `-v`, that return the exit code.
local commands = {}

commands["-v"] = function(_, versions)
  print(versions)
  return 0
end
commands["--version"] = commands["-v"]

commands["-h"] = function()
  io.stdout:write(USAGE)
  return 0
end
commands["--help"] = commands["-h"]

function commands.top(args)
  local script, code = find_script(args)
  if not script then
    return code
  end
  local live = require "treadle.live" -- src/cli/live.c
  live.open()
  return run(script, live.close)
end

function commands.trace(args)
  return require("treadle.timeline_command").main(args)
end

function commands.bench(args)
  local measure, code = require("treadle.bench").prepare(args)
  return measure and run { chunk = measure, args = {} } or code
end

function commands.test(args)
  return require("treadle.suite").main(args)
end

--- Run the command.
-- @tparam function versions returns the text of `-v`
-- @param ... the command's arguments
-- @treturn number exit code
function M.main(versions, ...)
  local args = { ... }
  local command = args[1] and commands[args[1]]
  if command then
    table.remove(args, 1)
    return command(args, versions)
  end
  local script, code = find_script(args)
  return script and run(script) or code
end

return M
