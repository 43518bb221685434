--- Runs a script and writes what the workers of its pools executed, as folded stacks:
--
--   treadle docs/pictures/profile.lua FOLDED SCRIPT [ARGUMENT...]
local treadle = require "treadle"

local LONG = 3600 -- seconds: a profile ends with its pool

local out, script = ...
local file = assert(io.open(out, "w"))

local profiles = {}
local open = treadle.pool
treadle.pool = function(...)
  local pool = open(...)
  profiles[#profiles + 1] = pool:profile(LONG)
  return pool
end

arg = { [0] = script, select(3, ...) } -- luacheck: ignore
assert(loadfile(script))(select(3, ...))

for _, profile in ipairs(profiles) do
  local folded = profile:stop():folded()
  file:write((folded:gsub("[^ ;(]*/", ""))) -- files without their folders
end
file:close()
