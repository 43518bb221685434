--- Runs a script with LuaJIT's profiler and writes the stacks of this state, folded; its waits are
-- left out:
--
--   treadle docs/pictures/profile.lua FOLDED SCRIPT [ARGUMENT...]
local profile = require "jit.profile"

local KINDS = { G = ";[garbage collector]", J = ";[compiler]" }

local out, script = ...
local file = assert(io.open(out, "w"))
local counts = {}

profile.start("fi1", function(thread, samples, state)
  local stack = profile.dumpstack(thread, "pF;", -100):gsub(";$", "") -- the root first
  local at = stack:find(script, 1, true)
  if at then -- without what has called the script; in a wait, the loop is at the root
    stack = stack:sub(at):gsub("[^;]*/", "") .. (KINDS[state] or "")
    counts[stack] = (counts[stack] or 0) + samples
  end
end)
arg = { [0] = script, select(3, ...) } -- luacheck: ignore
assert(loadfile(script))(select(3, ...))
profile.stop()

local lines = {}
for stack, count in pairs(counts) do
  lines[#lines + 1] = ("%s %d\n"):format(stack, count)
end
table.sort(lines)
file:write(table.concat(lines))
file:close()
