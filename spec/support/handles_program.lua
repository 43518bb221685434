--- A host's program for the stress test of handles: a seed decides what it does with them, in which
-- order, and how it ends. `run` may leave anything behind: the state is closed after it.
local M = {}

--- Kinds of shared objects; those that this build of treadle has.
local KINDS = {
  event = function(treadle) return treadle.event() end,
  shared = function(treadle)
    return treadle.shared { 1, "two", { 3, inner = { treadle.event() } } }
  end,
  buffer = function(treadle) return treadle.buffer("double", 10) end,
  counter = function(treadle) return treadle.counter(1) end,
  channel = function(treadle) return treadle.channel(2) end,
  mutex = function(treadle) return treadle.mutex() end,
  semaphore = function(treadle) return treadle.semaphore(1) end,
}

local NAMES = { "event", "shared", "buffer", "counter", "channel", "mutex", "semaphore" }

--- `random(n)`: 1 to n. Without `may_compute` no task computes for ever.
function M.run(random, log, may_compute)
  local treadle = require "treadle"
  local tasks = require "handles_tasks"
  local names = {}
  for _, name in ipairs(NAMES) do
    if treadle[name] then names[#names + 1] = name end
  end

  local handles, futures, kept = {}, {}, {}
  local function new()
    local handle = KINDS[names[random(#names)]](treadle)
    handles[#handles + 1] = handle
    return handle
  end
  local function any()
    if #handles == 0 or random(4) == 1 then return new() end
    local handle = handles[random(#handles)]
    if tostring(handle):find("closed", 1, true) then return new() end
    return handle
  end

  local pool = treadle.pool("handles_tasks", {
    threads = random(3), concurrency = random(3), data = { any(), { any() } },
    max_payload = 150000, inline = random(4) == 1, terminate_timeout = 0.2,
    name = "handles",
  })
  local call = pool.call
  local function keep(f)
    if random(3) > 1 then futures[#futures + 1] = f end
    return f
  end

  local ways = {
    function() keep(call.echo(any(), { any(), any() })) end,
    function() keep(call.hold(any(), { x = any() })) end,
    function() keep(call.fail(any())) end,
    function() keep(call.let_go()) end,
    function() keep(pool:run("retry", { random(1000), any() }, { retries = 2 })) end,
    function() keep(call.sleep(random() * 0.002, any())) end,
    function() keep(call.sleep(1000, any())):cancel() end,
    function() keep(pool:run("sleep", { 1000, any() }, { timeout = 0.001 })) end,
    function() keep(call.wait(treadle.event())) end,
    function() keep(call.unsendable(any())) end,
    function() keep(call.too_large(any())) end,
    function() keep(call.unpackable(any())) end,
    function() keep(call.pass(random(4), any(), any())) end,
    function() keep(call.data()) end,
    function() keep(call.late()) end,
    function() keep(call.later()) end,
    function() keep(call.echo(tasks.box(any()))) end,
    function() keep(call.echo(any(), tasks.broken(any(), "pack"))) end,
    function() keep(call.echo(any(), tasks.broken(any(), "unpack"))) end,
    function() keep(call.echo(any(), coroutine.create(print))) end,
    function() keep(call.echo(any(), { any(), ("x"):rep(200000) })) end,
    function()
      local one, two = any(), { any() }
      keep(pool:run(function() return one, two end))
    end,
    function() -- a function whose upvalues cannot be sent, after one that can
      local one, two = any(), coroutine.create(print)
      keep(pool:run(function() return one, two end))
    end,
    function() pool:broadcast("hold", any()) end,
    function() pool:cancel_pending() end,
    function()
      local handle = treadle.event()
      handles[#handles + 1] = handle
      keep(call.echo(handle))
      handle:close()
    end,
    function() collectgarbage() end,
    function()
      for i = #handles, 1, -1 do
        if random(2) == 1 then table.remove(handles, i) end
      end
    end,
    function() kept[#kept + 1] = keep(call.echo(any())) end,
    function()
      local f = futures[random(#futures + 1)]
      if f then f:wait(0.001) end
    end,
    function() kept[#kept + 1] = treadle.spawn(function() treadle.event():wait() end) end,
    function() keep(treadle.spawn(function() return any() end)) end,
    function() keep(call.nothing(any())):and_then(function() return any() end) end,
    function() keep(call.emit_from_closed(treadle.event())) end,
  }
  local rare = {
    function()
      local list, handle = {}, any()
      for i = 1, 10000 do list[i] = i % 100 == 0 and new() or handle end
      keep(call.echo(list))
    end,
    function() pool:recycle() end,
    function() pool:resize(random(3)) end,
  }
  if may_compute then
    rare[#rare + 1] = function() keep(call.spin(treadle.event())):cancel { force = true } end
    rare[#rare + 1] = function() keep(call.spin(treadle.event())) end
  end

  for _ = 1, 10 + random(60) do
    if random(30) == 1 then
      rare[random(#rare)]()
    else
      ways[random(#ways)]()
    end
  end

  -- Finalizers that look at shared tables: whose own may have run before.
  local shared = treadle.shared { { 1 }, large = { 2, ("x"):rep(1000) }, event = treadle.event() }
  for i = 1, random(4) do
    local t = treadle.shared { i, inner = shared.large, list = {} }
    local proxy = newproxy(true)
    getmetatable(proxy).__gc = function()
      for _, look in ipairs {
        function() return shared[1][1] + t[1] + #t.inner end,
        function() return call.echo(t.list, shared.event) end,
        function() for _ in treadle.pairs(t) do shared.event:set() end end,
        function() return treadle.shared { shared, t } end,
      } do
        pcall(look)
      end
    end
    kept[#kept + 1] = proxy
  end

  local ending = random(6)
  log(("%d calls kept, ending %d"):format(#futures, ending))
  if ending == 1 then
    pool:close(0.05)
  elseif ending == 2 then
    pool:terminate("on purpose")
  elseif ending == 3 then
    pool:terminate()
    for _, f in ipairs(futures) do f:wait() end
  elseif ending == 4 then
    for _, f in ipairs(futures) do f:wait(0.001) end
  elseif ending == 5 then
    pool, call = nil, nil -- luacheck: ignore
    collectgarbage()
  end
  for _, f in ipairs(futures) do f:catch(function() end) end
  _G.KEPT = { handles, futures, kept, pool } -- until the state is closed
end

return M
