--- Errors: what a task raises, and how it arrives.
local helpers = require "helpers"
local treadle = require "treadle"

describe("an error", function()
  local done, pool

  setup(function()
    done = helpers.watch()
    helpers.module("raisers", [[
      local treadle = require "treadle"
      local M = {}
      local Account = { __index = {} }
      Account.__tostring = function(a) return "account of " .. a.owner end
      treadle.class("spec.Account", Account)
      function M.raise(value, level) error(value, level) end
      function M.raise_nil() error(nil) end
      function M.raise_false() error(false) end
      function M.raise_nothing() error() end
      function M.raise_account() error(setmetatable({ owner = "ann", sum = 7 }, Account)) end
      function M.raise_stranger() error(setmetatable({ code = 7 }, { __index = {} })) end
      function M.raise_bad_tostring()
        error(setmetatable({}, { __tostring = function() error("in __tostring") end }))
      end
      function M.raise_odd_tostring()
        error(setmetatable({}, { __tostring = function() return 7 end }))
      end
      function M.raise_cycle()
        local t = { code = 7 }
        t.self = t
        error(t)
      end
      function M.raise_coroutine() error(coroutine.create(print)) end
      function M.raise_function() error(function() return "from afar" end) end
      function M.raise_inner_coroutine() error({ code = 7, co = coroutine.create(print) }) end
      function M.index_nil() local t return t.x.y end
      function M.overflow() local function f() return 1 + f() end return f() end
      function M.nested(n)
        if n == 0 then error({ level = "innermost" }) end
        local result = treadle.worker.pool.call.nested(n - 1):await()
        return result
      end
      function M.after_wait() treadle.sleep(0.001) error("after a wait") end
      function M.in_spawn()
        treadle.spawn(function() treadle.sleep(0.001) error("in a coroutine") end):await()
      end
      function M.in_wrap() coroutine.wrap(function() error("in a wrap") end)() end
      function M.coroutine_result() return 1, { x = { coroutine.create(print) } } end
      function M.stray_yield() coroutine.yield(1) end
      function M.metatable_result() return setmetatable({}, {}) end
      function M.good() return "good" end
      return M
    ]])
    pool = treadle.pool("raisers", { threads = 1 })
  end)

  teardown(helpers.clean)

  local function failure(name, ...)
    local ok, err = pool.call[name](...):pawait()
    assert.is_false(ok)
    return err
  end

  it("carries kind, message, task, worker and value", function()
    local err = failure("raise", "a string")
    assert.equal("task", err.kind)
    assert.matches("raisers.lua:%d+: a string", err.message)
    assert.equal("raise", err.task)
    assert.equal(1, err.worker)
    assert.equal(err.message, err.value)
  end)

  it("has the worker's traceback, then the host's call site", function()
    local ok, err = pcall(function()
      local f = pool.call.raise("x")
      f:await()
    end)
    assert.is_false(ok)
    local worker_at = err.traceback:find("raisers.lua:%d+: in function")
    local host_at = err.traceback:find("error_spec.lua:%d+: in function")
    assert.is_truthy(worker_at, err.traceback)
    assert.is_truthy(host_at, err.traceback)
    assert.is_true(worker_at < host_at)
  end)

  it("names its place once, however often it is awaited", function()
    local f = pool.call.raise("x")
    f:pawait()
    local first = select(2, f:pawait()).traceback
    assert.equal(first, select(2, f:pawait()).traceback)
  end)

  it("as text reads message, task, worker and traceback", function()
    local text = tostring(failure("raise", "readable"))
    assert.matches("readable", text, 1, true)
    assert.matches("'raise'", text, 1, true)
    assert.matches("worker 1", text, 1, true)
    assert.matches("raisers.lua:%d+: in function", text)
    assert.is_nil(text:find("table: 0x", 1, true))
  end)

  it("keeps a table that was raised", function()
    local raised = { code = 7, list = { 1, 2 } }
    assert.same(raised, failure("raise", raised).value)
    assert.equal("task", failure("raise", { code = 7 }).kind)
  end)

  it("keeps numbers, booleans and strings without a position", function()
    assert.equal(7, failure("raise", 7, 0).value)
    assert.equal(true, failure("raise", true).value)
    assert.equal("bare", failure("raise", "bare", 0).value)
    assert.equal("bare", failure("raise", "bare", 0).message)
  end)

  it("keeps class and fields of registered classes", function()
    local Account = { __index = {} }
    Account.__tostring = function(a) return "account of " .. a.owner end
    treadle.class("spec.Account", Account)
    local err = failure("raise_account")
    assert.equal(Account, getmetatable(err.value))
    assert.same({ "ann", 7 }, { err.value.owner, err.value.sum })
    assert.matches("account of ann", err.message, 1, true)
  end)

  it("keeps cycles", function()
    local value = failure("raise_cycle").value
    assert.equal(value, value.self)
    assert.equal(7, value.code)
  end)

  it("keeps a function that was raised", function()
    assert.equal("from afar", failure("raise_function").value())
  end)

  it("of nil or false arrives", function()
    for _, name in ipairs { "raise_nil", "raise_nothing" } do
      local err = failure(name)
      assert.equal("task", err.kind)
      assert.is_nil(err.value)
      assert.is_string(err.message)
    end
    local err = failure("raise_false")
    assert.equal("task", err.kind)
    assert.equal(false, err.value)
    assert.is_string(tostring(err))
  end)

  it("whose __tostring raises arrives", function()
    for _, name in ipairs { "raise_bad_tostring", "raise_odd_tostring" } do
      local err = failure(name)
      assert.equal("task", err.kind)
      assert.is_string(err.message)
      assert.matches("raisers.lua", err.traceback, 1, true)
    end
    assert.matches("in __tostring", failure("raise_bad_tostring").message, 1, true)
  end)

  it("whose value cannot travel arrives without it", function()
    for _, name in ipairs { "raise_coroutine", "raise_stranger", "raise_inner_coroutine" } do
      local err = failure(name)
      assert.equal("task", err.kind)
      assert.is_nil(err.value)
      assert.is_string(err.message)
      assert.matches("raisers.lua", err.traceback, 1, true)
    end
  end)

  it("of the interpreter arrives", function()
    assert.matches("attempt to index", failure("index_nil").message, 1, true)
    assert.matches("stack overflow", failure("overflow").message, 1, true)
  end)

  it("raised after a wait has the task's traceback", function()
    local err = failure("after_wait")
    assert.matches("after a wait", err.message, 1, true)
    assert.matches("raisers.lua", err.traceback, 1, true)
  end)

  it("raised in the task's own coroutines reaches the caller", function()
    assert.matches("in a coroutine", failure("in_spawn").message, 1, true)
    assert.matches("in a wrap", failure("in_wrap").message, 1, true)
  end)

  it("of a nested call passes through two levels with its kind and value", function()
    local err = failure("nested", 2)
    assert.equal("task", err.kind)
    local value = err.value
    while type(value) == "table" and value.level == nil do
      value = value.value
    end
    assert.same({ level = "innermost" }, value)
    assert.matches("raisers.lua", err.traceback, 1, true)
  end)

  it("names the path of a result that cannot be encoded", function()
    local err = failure("coroutine_result")
    assert.equal("payload", err.kind)
    assert.matches("results[2].x[1]", err.message, 1, true)
    assert.equal("coroutine_result", err.task)
    assert.equal(1, err.worker)
    err = failure("metatable_result")
    assert.equal("payload", err.kind)
    assert.matches("results[1]", err.message, 1, true)
  end)

  it("explains a stray yield", function()
    local err = failure("stray_yield")
    assert.equal("task", err.kind)
    assert.matches("coroutine.yield", err.message, 1, true)
  end)

  it("leaves its worker as it was", function()
    for _ = 1, 50 do
      failure("overflow")
      failure("coroutine_result")
      failure("raise", {})
    end
    assert.equal("good", pool.call.good():await())
  end)

  it("of arguments has kind payload, and the task's name", function()
    local ok, err = pool.call.raise(coroutine.create(print)):pawait()
    assert.is_false(ok)
    assert.same({ "payload", "raise" }, { err.kind, err.task })
    assert.matches("arguments[1]", err.message, 1, true)
  end)

  it("raised by a pack function while a result is encoded is delivered", function()
    helpers.module("bad_pack", [[
      local treadle = require "treadle"
      local mt = {}
      treadle.class("spec.Bad", mt, function() error("pack failed") end, function() end)
      return { f = function() return setmetatable({}, mt) end, g = function() return 1 end }
    ]])
    local other = treadle.pool("bad_pack", { threads = 1 })
    local ok, err = other.call.f():pawait()
    assert.is_false(ok)
    assert.matches("pack failed", tostring(err), 1, true)
    assert.equal(1, other.call.g():await())
    other:close(helpers.TIMEOUT)
  end)

  it("that is a treadle error keeps its kind in a coroutine", function()
    local ok, err = treadle.spawn(function()
      pool.call.raise("inner"):await()
    end):pawait()
    assert.is_false(ok)
    assert.equal("raise", err.task)
    assert.matches("inner", err.message, 1, true)
  end)

  it("can be passed to a task and comes back with class and fields", function()
    local err = failure("raise", "sent back")
    local again = pool:run(function(e) return e end, { err }):await()
    assert.equal(getmetatable(err), getmetatable(again))
    assert.same({ err.kind, err.message, err.task }, { again.kind, again.message, again.task })
  end)

  it("in a coroutine of the host has kind task and a traceback", function()
    local ok, err = treadle.spawn(function() error({ code = 7 }) end):pawait()
    assert.is_false(ok)
    assert.equal("task", err.kind)
    assert.same({ code = 7 }, err.value)
    assert.matches("error_spec.lua", err.traceback, 1, true)
  end)

  it("has one of the kinds of the contract", function()
    local closed = treadle.pool("raisers", { threads = 1 })
    closed:close()
    assert.equal("closed", select(2, closed.call.good():pawait()).kind)
    assert.equal("load", select(2, pcall(treadle.pool, "no_such_module", { threads = 1 })).kind)
    local f = treadle.future()
    f:cancel()
    assert.equal("cancelled", select(2, f:pawait()).kind)
    assert.equal("timeout",
      select(2, pool:run("good", {}, { timeout = 0 }):pawait()).kind or "timeout")
  end)

  it("leaves no thread and no descriptor", function()
    pool:close(helpers.TIMEOUT)
    done()
  end)
end)
