--- What can go wrong with a call, and what of it arrives: `treadle examples/errors.lua`
--
-- What it shows: an error is an object with a kind, a message, the value that was raised and the
-- worker's traceback; a timeout may have a default; what cannot travel is refused with its path.
local treadle = require "treadle"

local tasks = {}

function tasks.divide(a, b)
  if b == 0 then
    error("division by zero")
  end
  return a / b
end

function tasks.fetch(name)
  error { code = 404, name = name }
end

function tasks.dig(depth)
  if depth == 0 then
    error("solid rock")
  end
  return 1 + tasks.dig(depth - 1)
end

function tasks.echo(...)
  return ...
end

tasks.nap = treadle.task { fn = treadle.sleep, timeout = 0.05 }
tasks.nap_or_late = treadle.task { fn = treadle.sleep, timeout = 0.05, default = "late" }

local function heading(text)
  print("\n-- " .. text)
end

local function main()
  local pool = treadle.pool(tasks, { name = "errors" })

  heading "await raises the error; pawait returns it"
  local ok, err = pcall(function()
    return pool.call.divide(1, 0):await()
  end)
  print(ok, err.kind, err.message)
  ok, err = pool.call.divide(1, 0):pawait()
  print(ok, err.kind, err.message)
  print(pool.call.divide(1, 4):pawait())

  heading "a raised table arrives as that table"
  ok, err = pool.call.fetch("moon"):pawait()
  print(ok, err.kind, err.value.code, err.value.name)

  heading "the traceback leads through the worker to the line that called"
  ok, err = pool.call.dig(2):pawait()
  print(ok, err.task, "worker " .. err.worker)
  print(err) -- the message and err.traceback

  heading "a timeout rejects, or gives a default"
  ok, err = pool.call.nap(10):pawait()
  print(ok, err.kind)
  print(pool.call.nap_or_late(10):pawait())

  heading "what cannot travel is refused before it is queued, with its path"
  ok, err = pool.call.echo({ name = "cart", items = { 1, coroutine.create(print) } }):pawait()
  print(ok, err.kind, err.message)

  heading "a misspelt task is an error at the line that calls it"
  print(pcall(function()
    return pool.call.devide(1, 4)
  end))

  heading "a future that rejects can be caught in a chain"
  print(pool.call.divide(1, 0)
    :catch(function(e)
      return "caught: " .. e.kind
    end)
    :await())

  heading "a closed pool takes no calls"
  pool:close()
  ok, err = pool.call.divide(1, 4):pawait()
  print(ok, err.kind)
end

if treadle.is_main then
  main()
end

return tasks
