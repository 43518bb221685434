--- LuaJIT's own functions of coroutines, as they were when treadle was loaded. A host that
-- schedules coroutines may have put others in their place; nginx keeps these beside them.
-- @module treadle.coroutines
local M = {}

for _, name in ipairs { "create", "resume", "running", "status", "yield" } do
  M[name] = coroutine["_" .. name] or coroutine[name]
end

return M
