--- What crosses the border of a process, and what does not, both ways.
local helpers = require "helpers"
local stays = require "crossing_things"
local treadle = require "treadle"

local PROCESS = { process = true }

local function options(more)
  more.runtime, more.permissions, more.threads = "process", "unrestricted", 1
  return more
end

local function refused(text, fut)
  local ok, err = pcall(fut.await, fut)
  assert.is_false(ok)
  assert.equal("payload", err.kind)
  assert.matches("cannot send to another process " .. text, tostring(err), 1, true)
end

describe("what another process cannot have", function()
  local pool

  setup(function()
    pool = treadle.pool("crossing_tasks", options {})
  end)

  teardown(function() pool:close() end)

  for name, make in pairs(stays) do
    it("is refused as an argument, with its path, before the call is queued: " .. name, function()
      local before = pool:stats().done
      refused(name .. " (arguments[2].x[1])", pool.call.echo(1, { x = { make() } }))
      refused(name .. " (arguments[1])", pool.call.echo(make()))
      assert.equal(before, pool:stats().done)
      assert.equal(1, pool.call.echo(1):await())
    end)

    it("is refused as a result, with its path: " .. name, function()
      refused(name .. " (results[2].x[1])", pool.call.make(name))
    end)

    it("stays behind when an error comes with it: " .. name, function()
      local fut = pool.call.fail(name)
      local ok, err = pcall(fut.await, fut)
      assert.is_false(ok)
      assert.equal("task", err.kind)
      assert.is_nil(err.value)
      assert.equal(1, pool.call.echo(1):await())
    end)

    it("leaves what would have been moved beside it where it is: " .. name, function()
      local buf = treadle.buffer("int", 3, PROCESS)
      refused(name .. " (arguments[2])", pool.call.echo(treadle.move(buf), make()))
      assert.equal(3, #buf)
      refused(name .. " (arguments[1])", pool:run("echo", { make(), buf }, { transfer = { buf } }))
      assert.equal(3, #buf)
      buf:close()
      refused(name .. " (results[2])", pool.call.fail_to_give(name))
      assert.equal(3, pool.call.has_buffer():await())
    end)

    it("is refused as the data of a pool: " .. name, function()
      local data = { x = make() }
      local opts = options { data = data }
      local err = helpers.error_here(function() treadle.pool("crossing_tasks", opts) end)
      assert.matches("cannot send to another process " .. name, err, 1, true)
    end)
  end

  it("is refused as an upvalue of a function", function()
    local lock = treadle.mutex()
    refused("a mutex (arguments[1] upvalue 'lock')", pool:run(function() return lock end))
  end)

  it("is refused as the result of a call that its home runs, too", function()
    local own = treadle.pool("crossing_tasks", options { inline = true })
    for _ = 1, 20 do
      refused("a mutex (results[2].x[1])", own.call.make("a mutex"))
    end
    own:close()
  end)
end)

describe("a function that a process sends", function()
  it("runs here if the process may do anything, and is refused if it is confined", function()
    local free = treadle.pool("crossing_tasks", options {})
    assert.equal(1, free.call.make_function():await()())
    free:close()
    local strict = treadle.pool("crossing_results", { runtime = "process", threads = 1 })
    local fut = strict.call.make_function()
    local ok, err = pcall(fut.await, fut)
    assert.is_false(ok)
    assert.equal("payload", err.kind)
    assert.matches("functions", tostring(err), 1, true)
    assert.same({ 1, "text" }, strict.call.make_list():await())
    strict:close()
  end)
end)
