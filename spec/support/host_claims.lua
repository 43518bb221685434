--- What holds in every loop that schedules coroutines of its own and that treadle is attached to:
-- shared by the specs of copas and cqueues.
local assert = require "luassert"
local helpers = require "helpers"
local treadle = require "treadle"

local loop = require "treadle.loop"

local M = {}

--- Attach to a host: a table with its `name`, its `library` and
-- `run(...)`, which runs functions in coroutines of the host until all have ended,
-- `finish()`, which goes on with that after an error has left it,
-- `settle()`, which lets it take note that nothing is attached any more,
-- and `warm()`, if there is something that it opens once and keeps.
-- Gets `pool`, `attachment` and `results(fn)`, which runs one function: its results.
function M.open(host)
  treadle.fd()
  if host.warm then
    host.warm()
  end
  host.done = helpers.watch()
  host.attachment = treadle.attach(host.library)
  host.pool = treadle.pool("tasks", { threads = 2, concurrency = 100 })
  function host.results(fn)
    local list
    host.run(function() list = { pcall(fn) } end)
    assert(list[1], list[2])
    return unpack(list, 2)
  end
end

function M.close(host)
  host.pool:close()
  host.attachment:detach()
  host.attachment = nil
  host.settle()
  host.done()
  helpers.clean()
end

--- @param it busted's, of the spec that the claims belong to
function M.declare(it, host)
  it("coroutines await at the same time, each gets its own", function()
    local functions, sum = {}, 0
    for i = 1, 50 do
      functions[i] = function()
        local n = host.pool.call.add(i, i):await()
        sum = sum + n
      end
    end
    host.run(unpack(functions))
    assert.equal(50 * 51, sum)
  end)

  it("errors, time limits and cancellation arrive", function()
    assert.matches("crack", tostring(host.results(function()
      return select(2, host.pool.call.boom("crack"):pawait())
    end)))
    assert.is_false(host.results(function() return treadle.future():wait(0.005) end))
    assert.equal("timeout", host.results(function()
      return select(2, host.pool:run("sleep", { 60 }, { timeout = 0.01 }):pawait())
    end).kind)
    local f, err = treadle.future(), nil
    host.run(function() err = select(2, f:pawait()) end, function()
      treadle.sleep(0.002)
      f:cancel()
    end)
    assert.equal("cancelled", err.kind)
    assert.matches("child", tostring(host.results(function()
      return select(2, pcall(treadle.group, function(g)
        g:spawn(function()
          treadle.sleep(0.002)
          error("child", 0)
        end)
        treadle.sleep(math.huge)
      end))
    end)))
  end)

  it("a full queue is waited for", function()
    local narrow = treadle.pool("tasks", { threads = 1, max_queue = 1, on_full = "wait" })
    local functions, sum = {}, 0
    for i = 1, 20 do
      functions[i] = function()
        local n = narrow.call.echo(i):await()
        sum = sum + n
      end
    end
    host.run(unpack(functions))
    assert.equal(210, sum)
    host.run(function() narrow:close() end)
  end)

  it("a callback in a turn cannot wait", function()
    local problem
    local off = host.pool:on("job_done", function()
      problem = problem or select(2, pcall(treadle.sleep, 0.001))
    end)
    host.run(function()
      host.pool.call.add(1, 2):await()
      while not problem do
        treadle.sleep(0.001)
      end
    end)
    off()
    assert.equal(host.name .. ": cannot wait in a callback; do it in a coroutine (treadle.spawn)",
      problem)
  end)

  it("Ctrl-C in a turn ends the host's loop, which may go on after that", function()
    local function interrupt()
      error("interrupted", 0)
    end
    for i = 1, 3 do
      local gate, open = treadle.future()
      local got
      assert.same({ false, "interrupted" }, { pcall(host.run, function()
        loop.defer(interrupt)
        treadle.sleep(0.001)
        got = gate:await()
      end) })
      assert.equal(i, host.pool.call.echo(i):await()) -- in main code, too
      open "goes on"
      host.finish()
      assert.equal("goes on", got)
    end
    local gather = loop.gather
    function loop.gather()
      loop.gather = gather
      interrupt()
    end
    local turns = treadle.spawn(function() -- until that has happened
      while loop.gather ~= gather do
        treadle.sleep(0.001)
      end
    end)
    assert.same({ false, "interrupted" }, { pcall(treadle.sleep, 60) })
    turns:await()
    assert.equal(3, host.pool.call.add(1, 2):await())
  end)

  it("10000 awaits leave no memory and no descriptor behind", function()
    local function awaits(n)
      host.run(function()
        for i = 1, n do
          assert(host.pool.call.echo(i):await() == i)
        end
      end)
      collectgarbage()
      collectgarbage()
      return collectgarbage "count"
    end
    local before, descriptors = awaits(1000), helpers.descriptors()
    assert.is_true(awaits(10000) < before + 200)
    assert.equal(descriptors, helpers.descriptors())
  end)

  it("can be detached and attached again", function()
    for i = 1, 20 do
      host.attachment:detach()
      assert.equal(i, host.pool.call.echo(i):await())
      host.settle()
      host.attachment = treadle.attach(host.name)
      assert.equal(i, host.results(function() return (host.pool.call.echo(i):await()) end))
    end
  end)

  it("the example answers, run by luajit and by treadle", function()
    local root = helpers.folder .. "/../.."
    for _, program in ipairs { "luajit", "treadle" } do
      local out, err, code = helpers.shell(("exec %s %s/examples/%s_server.lua"):format(
        program, helpers.quote(root), host.name))
      assert.same({ "", 0 }, { err, code })
      assert.matches("client: 2000000 148933\n.*all answers are right\n$", out)
    end
  end)
end

return M
