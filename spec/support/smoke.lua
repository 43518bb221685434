--- A little of everything, for a tool too slow for the specs: luajit spec/support/smoke.lua
-- Prints "ok" and "not ok" lines for .ci/suite.
local folder = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$")
package.path = folder .. "/?.lua;" .. package.path
local treadle = require "treadle"

local failed = false

local function claim(name, fn)
  local ok, err = xpcall(fn, debug.traceback)
  failed = failed or not ok
  print((ok and "ok " or "not ok ") .. name)
  if not ok then
    print("# " .. tostring(err):gsub("\n", "\n# "))
  end
end

local function same(expected, got)
  if expected ~= got then
    error(("expected %s, got %s"):format(tostring(expected), tostring(got)), 2)
  end
end

local pool = treadle.pool("tasks", { threads = 2, concurrency = 20 })

claim("calls go there and back, in order", function()
  local list = {}
  for i = 1, 200 do
    list[i] = pool.call.echo(i)
  end
  for i, value in ipairs(treadle.all(list):await()) do
    same(i, value)
  end
end)

claim("tables, long strings, cdata and cycles cross", function()
  local numbers, cycle = {}, { ("long"):rep(1000), -0.5, 7LL }
  for i = 1, 1000 do
    numbers[i] = i / 2
  end
  cycle[cycle] = numbers
  local back = pool.call.echo(cycle):await()
  same(cycle[1], back[1])
  same(7LL, back[3])
  same(500, back[back][1000])
end)

claim("closures cross with what they hold", function()
  local n = 20
  same(42, pool:run(function(a) return a + n end, { 22 }):await())
end)

claim("errors come back with their values", function()
  local ok, err = pool.call.boom({ code = 7 }):pawait()
  same(false, ok)
  same(7, err.value.code)
  same("payload", select(2, pool.call.echo(coroutine.create(print)):pawait()).kind)
end)

claim("limits, cancelling and sleeping tasks", function()
  same("late", pool:run("sleep", { 100 }, { timeout = 0.01, default = "late" }):await())
  local f = pool.call.sleep(100)
  f:cancel()
  same("cancelled", f:state())
  same(0, pool.call.sleep(0):await())
end)

claim("nested calls and coroutines", function()
  same(3, treadle.run(function()
    return pool:run(function()
      local own = require("treadle").worker.pool
      return own.call.add(1, 2):await()
    end):await()
  end))
end)

claim("a pool closes, and then takes no more", function()
  pool:close()
  same("closed", select(2, pool.call.echo(1):pawait()).kind)
end)

claim("a module that fails to load, a terminated pool, a dropped one", function()
  same("load", select(2, pcall(treadle.pool, "no_such_module")).kind)
  local other = treadle.pool("tasks", { threads = 1 })
  local f = other.call.sleep(100)
  other:terminate()
  same("closed", select(2, f:pawait()).kind)
  treadle.pool("tasks", { threads = 1 }).call.echo(1):await()
end)

if failed then
  os.exit(1)
end
