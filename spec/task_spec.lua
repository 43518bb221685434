--- treadle.task and treadle.import.
local helpers = require "helpers"
local treadle = require "treadle"

describe("treadle.task", function()
  local done, pool

  setup(function()
    done = helpers.watch()
    pool = treadle.pool("tasks", { threads = 1, concurrency = 100 })
  end)

  teardown(helpers.clean)

  it("wraps a function that workers run", function()
    assert.equal(3, pool.call.wrapped(1, 2):await())
  end)

  it("gives the task's limits to every call", function()
    assert.equal("late", pool.call.slow(1000):await())
    assert.equal(false, pool.call.false_default(1000):await())
    assert.equal("timeout", select(2, pool.call.strict(1000):pawait()).kind)
    assert.matches("too slow", tostring(select(2, pool.call.named_error(1000):pawait())), 1, true)
  end)

  it("gives its limits to calls of broadcast and run, too", function()
    assert.equal("late", pool:run("slow", { 1000 }):await())
    assert.same({ "late" }, pool:broadcast("slow", 1000):await())
  end)

  it("gives its limits to calls that a task makes", function()
    assert.equal("late", pool.call.call_own("slow", 1000):await())
  end)

  it("checks its fields at the caller's line", function()
    local task = treadle.task
    assert.equal("bad argument #1 to 'task' (table expected, got nil)",
      helpers.error_here(function() task() end))
    assert.matches("field 'fn' missing", helpers.error_here(function() task({}) end), 1, true)
    assert.matches("option 'fn': a function expected, got number",
      (helpers.error_here(function() task({ fn = 1 }) end):gsub("got 1", "got number")), 1, true)
    assert.matches("unknown option 'timout', did you mean 'timeout'?",
      helpers.error_here(function() task({ fn = print, timout = 1 }) end), 1, true)
    assert.matches("option 'timeout'",
      helpers.error_here(function() task({ fn = print, timeout = -1 }) end), 1, true)
    assert.matches("need a 'timeout'",
      helpers.error_here(function() task({ fn = print, default = 1 }) end), 1, true)
    assert.matches("need a 'timeout'",
      helpers.error_here(function() task({ fn = print, error = "x" }) end), 1, true)
  end)

  it("does not follow later changes of the table it was given", function()
    local given = { fn = function() return "first" end }
    local task = treadle.task(given)
    given.fn = function() return "second" end
    local single = task:pool { threads = 1 }
    assert.equal("first", single():await())
    single:close()
  end)

  it("makes a pool that the task itself can call like it, too", function()
    local task = treadle.task { fn = function(n)
      return n == 0 and 0 or 1 + require("treadle").worker.pool(n - 1):await()
    end }
    local single = task:pool { threads = 1 }
    assert.equal(5, single(5):await())
    single:close()
  end)

  it("makes a pool whose options are checked at the caller's line", function()
    local task = treadle.task { fn = print }
    assert.matches("did you mean 'threads'?",
      helpers.error_here(function() task:pool({ thread = 1 }) end), 1, true)
  end)

  it("leaves no thread and no descriptor", function()
    pool:close(helpers.TIMEOUT)
    done()
  end)
end)

describe("treadle.import", function()
  local done

  setup(function()
    done = helpers.watch()
  end)

  teardown(helpers.clean)

  it("names a task of a module that the host never loads", function()
    local pool = treadle.pool({
      sum = treadle.import { module = "tasks", name = "add" },
      late = treadle.import { module = "tasks", name = "sleep", timeout = 0.02, default = "late" },
    }, { threads = 1 })
    assert.equal(3, pool.call.sum(1, 2):await())
    assert.equal("late", pool.call.late(1000):await())
    assert.is_nil(package.loaded.tasks)
    pool:close()
  end)

  it("of a module or an export that there is not is an error of loading", function()
    for _, case in ipairs { { "no_such_module", "f" }, { "tasks", "no_such_task" } } do
      local tasks = { f = treadle.import { module = case[1], name = case[2] } }
      local ok, err = pcall(treadle.pool, tasks, { threads = 1 })
      assert.is_false(ok)
      assert.equal("load", err.kind)
      assert.matches("no_such", err.message, 1, true)
    end
  end)

  it("checks its fields at the caller's line", function()
    local import = treadle.import
    assert.equal("bad argument #1 to 'import' (table expected, got string)",
      helpers.error_here(function() import("tasks") end))
    assert.matches("field 'module' missing",
      helpers.error_here(function() import({ name = "f" }) end), 1, true)
    assert.matches("field 'name' missing",
      helpers.error_here(function() import({ module = "f" }) end), 1, true)
    assert.matches("option 'module': a string expected",
      helpers.error_here(function() import({ module = 1, name = "f" }) end), 1, true)
    assert.matches("did you mean 'module'?",
      helpers.error_here(function() import({ modul = "m", name = "f" }) end), 1, true)
  end)

  it("leaves no thread and no descriptor", function() done() end)
end)
