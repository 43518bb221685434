--- LuaJIT's own functions of coroutines. nginx, which schedules coroutines, has put others in their
-- place, and keeps these beside them; elsewhere they are where they always are.
-- @module treadle.coroutines
if not rawget(coroutine, "_create") then
  return coroutine
end

local M = {}

for _, name in ipairs { "create", "resume", "running", "status", "yield" } do
  M[name] = coroutine["_" .. name] or coroutine[name]
end

return M
