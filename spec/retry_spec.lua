--- Calls that are made again when their worker dies.
local helpers = require "helpers"
local treadle = require "treadle"

describe("a call with retries", function()
  local done, pool

  setup(function()
    helpers.module("mortal", [[
      local treadle = require "treadle"
      local M = {}
      local function count(path)
        local f = io.open(path, "a") f:write "try\n" f:close()
        local n = 0
        for _ in io.lines(path) do n = n + 1 end
        return n
      end
      --- Waits until its state dies; not so often.
      function M.victim(path, deaths, ...)
        if count(path) <= deaths then
          treadle.sleep(1000)
        end
        return ...
      end
      function M.fails(path) count(path) error "on purpose" end
      function M.endless(path) count(path) while true do end end
      M.twice = treadle.task { fn = M.victim, retries = 2 }
      M.late = treadle.task { fn = M.victim, retries = 2, timeout = 0.05, default = "late" }
      return M
    ]])
    done = helpers.watch()
    pool = treadle.pool("mortal", { threads = 1, concurrency = 2 })
  end)

  teardown(function()
    pool:close(helpers.TIMEOUT)
    done()
    helpers.clean()
  end)

  local function wait_for_tries(path, n)
    helpers.poll_until(function() return #helpers.lines(path) == n end)
  end

  --- Kill the state of the worker, `times` times, whenever the job is in it.
  local function kill(path, times)
    for i = 1, times do
      wait_for_tries(path, i)
      local killer = helpers.new_path()
      local f = pool.call.endless(killer)
      wait_for_tries(killer, 1)
      f:cancel { force = true }
    end
  end

  it("is made again with the arguments that it had", function()
    local path = helpers.new_path()
    local list = { "x", { 1 } }
    local f = pool:run("victim", { path, 2, list, nil, 5, n = 5 }, { retries = 2 })
    list[1] = "changed"
    kill(path, 2)
    local a, b, c = f:await()
    assert.same({ { "x", { 1 } }, nil, 5 }, { a, b, c })
    assert.equal(3, #helpers.lines(path))
  end)

  it("is made again so, too, with shared objects among them", function()
    local path = helpers.new_path()
    local counter, list = treadle.counter(5), { "x" }
    local f = pool:run("victim", { path, 1, list, counter }, { retries = 1 })
    list[1] = "changed"
    kill(path, 1)
    local a, b = f:await()
    assert.same({ "x" }, a)
    assert.equal(counter, b)
  end)

  it("takes the task's number of retries", function()
    local path = helpers.new_path()
    local f = pool.call.twice(path, 1, "back")
    kill(path, 1)
    assert.equal("back", f:await())
  end)

  it("may have a future among its arguments", function()
    local path = helpers.new_path()
    local f = pool:run("victim", { path, 1, treadle.resolved "later" }, { retries = 1 })
    kill(path, 1)
    assert.equal("later", f:await())
  end)

  it("may be a shipped function's", function()
    local path = helpers.new_path()
    local f = pool:run(function(...) return require("mortal").victim(...) end, { path, 1, "sent" },
      { retries = 1 })
    kill(path, 1)
    assert.equal("sent", f:await())
  end)

  it("is lost when they are used up", function()
    local path = helpers.new_path()
    local f = pool:run("victim", { path, 9 }, { retries = 1 })
    kill(path, 2)
    local _, err = f:pawait()
    assert.same({ "crashed", "victim" }, { err.kind, err.task })
    assert.not_matches("quarantined", err.message)
    assert.equal(2, #helpers.lines(path))
  end)

  it("is quarantined when three workers have died of it", function()
    local path = helpers.new_path()
    local f = pool:run("victim", { path, 9 }, { retries = 9 })
    kill(path, 3)
    local _, err = f:pawait()
    assert.equal("crashed", err.kind)
    assert.matches("quarantined: its worker died 3 times", err.message, 1, true)
    assert.equal(3, #helpers.lines(path))
  end)

  it("is not made again for an error", function()
    local path = helpers.new_path()
    local _, err = pool:run("fails", { path }, { retries = 2 }):pawait()
    assert.equal("task", err.kind)
    assert.equal(1, #helpers.lines(path))
  end)

  it("is not made again when it is cancelled", function()
    local path = helpers.new_path()
    local f = pool:run("endless", { path }, { retries = 2 })
    wait_for_tries(path, 1)
    assert.is_true(f:cancel { force = true })
    assert.equal("cancelled", select(2, f:pawait()).kind)
    assert.is_true(pool:run("victim", { helpers.new_path(), 0, true }):await())
    assert.equal(1, #helpers.lines(path))
  end)

  it("has one budget for all attempts", function()
    assert.equal("late", pool.call.late(helpers.new_path(), 9):await())
  end)

  it("without retries is lost at once", function()
    local path = helpers.new_path()
    local f = pool:run("victim", { path, 1 }, { retries = 0 })
    kill(path, 1)
    assert.equal("crashed", select(2, f:pawait()).kind)
  end)
end)
