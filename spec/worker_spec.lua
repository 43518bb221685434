--- What a task finds in its worker: identity, its own state, print, os.exit, signals.
local helpers = require "helpers"
local treadle = require "treadle"

describe("in a worker", function()
  local done, pool

  setup(function()
    done = helpers.watch()
    pool = treadle.pool("tasks", { threads = 2, name = "crew", data = { "payload" } })
  end)

  teardown(helpers.clean)

  it("treadle.is_main is false, and treadle is the same module", function()
    assert.same({ false, true }, { pool:run(function()
      return require("treadle").is_main, type(require("treadle").pool) == "function"
    end):await() })
  end)

  it("treadle.worker has id, name, data and pool", function()
    local id, name, data = pool:run("worker", {}, { worker = 2 }):await()
    assert.same({ 2, "crew", { "payload" } }, { id, name, data })
    assert.equal("crew", pool:run(function()
      return require("treadle").worker.pool.name
    end):await())
  end)

  it("the names of the threads show the pool", function()
    helpers.eventually(function()
      local found = 0
      for _, name in ipairs(helpers.thread_names()) do
        found = found + (name:match("crew") and 1 or 0)
      end
      return found == 2
    end)
  end)

  it("globals and modules are its own", function()
    _G.spec_global = "the host's" -- luacheck: ignore
    pool:run("set_global", { "spec_global", "one's" }, { worker = 1 }):await()
    assert.equal("one's", pool:run("get_global", { "spec_global" }, { worker = 1 }):await())
    assert.is_nil(pool:run("get_global", { "spec_global" }, { worker = 2 }):await())
    assert.equal("the host's", _G.spec_global)
    _G.spec_global = nil -- luacheck: ignore
  end)

  it("a module is loaded once, its state stays from job to job", function()
    helpers.module("counting", "local n = 0 return { next = function() n = n + 1 return n end }")
    local other = treadle.pool("counting", { threads = 1 })
    assert.same({ 1, 2, 3 },
      { other.call.next():await(), other.call.next():await(), other.call.next():await() })
    other:close()
  end)

  it("math.random differs from worker to worker, and from pool to pool", function()
    local other = treadle.pool("tasks", { threads = 1 })
    local a, b = unpack(pool:broadcast("random", 5):await())
    local c = other.call.random(5):await()
    assert.are_not.same(a, b)
    assert.are_not.same(a, c)
    assert.are_not.same(b, c)
    other:close()
  end)

  it("os.exit is an error, and the host lives", function()
    local ok, err = pool:run(function() os.exit(3) end):pawait()
    assert.is_false(ok)
    assert.equal("task", err.kind)
    assert.matches("os.exit", err.message, 1, true)
    assert.equal(3, pool.call.add(1, 2):await())
  end)

  it("collectgarbage, debug and coroutines work as they always do", function()
    assert.same({ true, 6, "function" }, { pool:run(function()
      local sum = 0
      for v in coroutine.wrap(function()
        for i = 1, 3 do
          coroutine.yield(i)
        end
      end) do
        sum = sum + v
      end
      collectgarbage()
      return collectgarbage("count") > 0, sum, type(debug.getinfo(1).func)
    end):await() })
  end)

  it("print writes whole lines", function()
    local lines = 200
    local out, err, code = helpers.child("luajit", ([[
      local treadle = require "treadle"
      local pool = treadle.pool("tasks", { threads = 4 })
      pool:broadcast(function(lines)
        local id = require("treadle").worker.id
        for i = 1, lines do
          print(id, i, nil, true, ("x"):rep(50))
        end
      end, %d):await()
      pool:close()
    ]]):format(lines))
    assert.same({ "", 0 }, { err, code })
    local counts, n = { 0, 0, 0, 0 }, 0
    for line in out:gmatch("[^\n]+") do
      local id, i = line:match("^(%d)\t(%d+)\tnil\ttrue\t" .. ("x"):rep(50) .. "$")
      assert.is_truthy(id, line)
      id, i, n = tonumber(id), tonumber(i), n + 1
      assert.equal(counts[id] + 1, i)
      counts[id] = i
    end
    assert.equal(4 * lines, n)
  end)

  it("print, io.write and io.stderr write whole lines, in order, from many threads", function()
    local lines = 10000
    local program = ([[
      local tasks = {}
      function tasks.print(lines, id)
        for i = 1, lines do
          print(id, i, ("x"):rep(200 + i % 7), id)
        end
      end
      function tasks.write(lines, id)
        for i = 1, lines do
          io.write(("%%s\t%%d\t%%s\t%%s\n"):format(id, i, ("x"):rep(200 + i %% 7), id))
        end
      end
      function tasks.complain(lines, id)
        for i = 1, lines do
          io.stderr:write(("%%s\t%%d\t%%s\t%%s\n"):format(id, i, ("x"):rep(200 + i %% 7), id))
        end
      end
      if treadle.is_main then
        local pool = treadle.pool(tasks, { threads = 4 })
        local list = {}
        for i, name in ipairs { "print", "write", "print", "write", "complain", "complain" } do
          list[i] = pool.call[name](LINES, i)
        end
        for i = 1, LINES do
          print("h", i, ("x"):rep(200 + i % 7), "h")
        end
        treadle.all(list):await()
        pool:close()
      end
      return tasks
    ]]):gsub("LINES", lines):gsub("%%%%", "%%")
    local path = helpers.write(helpers.new_path(".lua"), program)
    local out, err, code = helpers.shell(("treadle %s | cat; true"):format(helpers.quote(path)))
    assert.same(0, code)
    local counts, broken = {}, {}
    for line in (out .. err):gmatch("[^\n]*\n") do
      local id, i, text, again = line:match("^(%w)\t(%d+)\t(x+)\t(%w)\n$")
      i = tonumber(i)
      if not id or id ~= again or #text ~= 200 + i % 7 or i ~= (counts[id] or 0) + 1 then
        broken[#broken + 1] = line
      end
      if id then
        counts[id] = i
      end
    end
    assert.same({}, { unpack(broken, 1, 3) })
    assert.same({ h = lines, ["1"] = lines, ["2"] = lines, ["3"] = lines, ["4"] = lines,
      ["5"] = lines, ["6"] = lines }, counts)
  end)

  it("a task may use pools of its own", function()
    assert.same({ 1, 1 }, pool:broadcast(function()
      local inner = require("treadle").pool("tasks", { threads = 1 })
      local id = inner.call.id():await()
      inner:close()
      return id
    end):await())
  end)

  it("a task may spawn what goes on after it has returned", function()
    local path = helpers.new_path()
    local result = pool:run(function(where)
      local t = require "treadle"
      t.spawn(function()
        t.sleep(0.005)
        require("helpers").write(where, "written later")
      end)
      return "returned"
    end, { path }):await()
    assert.equal("returned", result)
    helpers.eventually(function() return helpers.read(path) == "written later" end)
  end)

  it("an error in a plain coroutine that waited is told on stderr", function()
    local out, err, code = helpers.child("luajit", [[
      local treadle = require "treadle"
      local pool = treadle.pool("tasks", { threads = 1 })
      print(pool:run(function()
        local t = require "treadle"
        coroutine.wrap(function() t.sleep(0.001) error("unheard") end)()
        t.sleep(0.02)
        return "fine"
      end):await())
      pool:close()
    ]])
    assert.same({ "fine\n", 0 }, { out, code })
    assert.matches("unheard", err, 1, true)
  end)

  it("treadle.check raises only where the caller has given up", function()
    assert.is_true(pool:run(function()
      return pcall(require("treadle").check)
    end):await())
  end)

  it("a big stack is there", function()
    assert.equal(5000, pool:run(function()
      local function depth(n) return n == 0 and 0 or 1 + depth(n - 1) end
      return depth(5000)
    end):await())
    local text = ("("):rep(150) .. "1" .. (")"):rep(150)
    assert.equal(1, pool:run(function(code)
      return loadstring("return " .. code)()
    end, { text }):await())
  end)

  it("leaves no thread and no descriptor", function()
    pool:close(helpers.TIMEOUT)
    done()
  end)
end)
