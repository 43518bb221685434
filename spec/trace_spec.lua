--- Recordings of pools.
local helpers = require "helpers"
local treadle = require "treadle"
local trace_format = require "trace_format"

describe("a recording", function()
  local done, path

  setup(function()
    done = helpers.watch()
  end)

  before_each(function()
    path = helpers.new_path(".json")
  end)

  teardown(function()
    done()
    helpers.clean()
  end)

  local function open(options)
    return treadle.pool("tasks", options or { threads = 2 })
  end

  --- Record `fn(pool)`.
  local function record(options, fn)
    local pool = open(options)
    local trace = pool:trace(path)
    local ok, err = pcall(fn, pool, trace)
    pool:close(helpers.TIMEOUT)
    assert(ok, err)
    return trace_format.check(helpers.read(path)), trace
  end

  local function slices(found, name)
    local list = {}
    for _, slice in ipairs(found.slices) do
      if slice.name == name then
        list[#list + 1] = slice
      end
    end
    return list
  end

  it("has every call, from the host to a worker and back", function()
    local found, trace = record({ threads = 2 }, function(pool)
      local list = {}
      for i = 1, 500 do
        list[i] = pool.call.add(i, 1)
      end
      treadle.all(list):await()
    end)
    assert.same({ begun = 500, ended = 500 }, found.arrows)
    assert.same({ 500, 0 }, { found.calls, found.depth })
    assert.same({ 500, 500, 500 }, { #slices(found, "call add"), #slices(found, "add"),
      #slices(found, "result add") })
    assert.same("done", slices(found, "add")[1].args.outcome)
    assert.same("host", found.names[0])
    for _, slice in ipairs(slices(found, "add")) do
      assert.same("worker " .. slice.tid, found.names[slice.tid])
    end
    assert.same({ found.events, 0 }, { trace:close() })
  end)

  it("tells how many events are in it, also when it is closed again", function()
    local pool = open()
    local trace = pool:trace(path)
    pool.call.add(1, 2):await()
    local count = trace:close()
    pool.call.add(1, 2):await()
    assert.same({ count, 0 }, { trace:close() })
    pool:close()
    assert.same({ count, 0 }, { trace:close() })
    local found = trace_format.check(helpers.read(path))
    assert.same(count, found.events)
    assert.same({ count, 0 }, { found.metadata.process_labels.args.events,
      found.metadata.process_labels.args.lost })
    assert.same(1, found.arrows.begun)
  end)

  it("shows a job that waits in pieces, and the wait between them", function()
    local found = record({ threads = 1, concurrency = 2 }, function(pool)
      local slow = pool.call.sleep(0.005)
      pool.call.add(1, 2):await()
      slow:await()
    end)
    local pieces = slices(found, "sleep")
    assert.same(2, #pieces)
    assert.same({ nil, "done" }, { pieces[1].args.outcome, pieces[2].args.outcome })
    local id = ("%d"):format(pieces[1].args.call)
    local waits = found.spans["wait " .. id]
    assert.same({ "b", "e" }, { waits[1].ph, waits[2].ph })
    assert.is_true(waits[2].ts - waits[1].ts >= 5000)
    assert.is_true(pieces[1].ts + pieces[1].dur <= waits[1].ts + 0.001)
    assert.is_true(waits[2].ts <= pieces[2].ts + 0.001)
  end)

  it("has calls that tasks make, nested ones, with their results", function()
    local found = record({ threads = 2 }, function(pool)
      assert.same(3, pool.call.call_own("add", 1, 2):await())
    end)
    assert.same({ begun = 2, ended = 2 }, found.arrows)
    local outer = slices(found, "call_own")
    assert.same(outer[1].tid, slices(found, "call add")[1].tid)
    assert.same(outer[1].tid, slices(found, "result add")[1].tid)
  end)

  it("says how calls ended that brought no results", function()
    local found = helpers.with_limit(function(seconds)
      local gate = helpers.new_path()
      local found = record({ threads = 1 }, function(pool)
        local log = helpers.new_path()
        pool.call.boom("no"):pawait()
        local running = pool.call.until_cancelled(log)
        helpers.entered(log)
        local queued = pool.call.add(1, 2)
        assert.is_true(queued:cancel())
        assert.is_true(running:cancel())
        assert.same("timeout", helpers.outcome(pool:run("hold", { gate }, { timeout = seconds })))
      end)
      return #helpers.lines(gate .. ".entered") > 0 and found
    end)
    assert.same("task", slices(found, "boom")[1].args.outcome)
    assert.same({ "add cancelled" }, found.marks[0])
    assert.same({ "until_cancelled cancelled", "hold timeout" },
      { found.marks[1][1], found.marks[1][2] })
    assert.same({ begun = 4, ended = 4 }, found.arrows)
    assert.same({ 4, 0 }, { found.calls, found.depth })
  end)

  it("keeps the count right when the queue is emptied by force", function()
    local found = record({ threads = 1 }, function(pool)
      local gate = helpers.new_path()
      local held = pool.call.hold(gate)
      helpers.entered(gate .. ".entered")
      for i = 1, 20 do
        pool.call.add(i, 1)
      end
      assert.same(20, pool:cancel_pending())
      for i = 1, 20 do
        pool.call.add(i, 1)
      end
      helpers.write(gate, "go")
      held:await()
      pool:terminate()
    end)
    assert.same({ 41, 0 }, { found.calls, found.depth })
  end)

  it("shows workers that load, start and are replaced", function()
    local found = record({ threads = 1 }, function(pool)
      pool:recycle():await()
      pool:resize(2):await()
    end)
    assert.same({ "recycled", "started", "closed" }, found.marks[1])
    assert.same({ "started", "closed" }, found.marks[2])
    assert.same(2, #slices(found, "load"))
  end)

  it("survives a worker that is stopped #computing", function()
    local found = helpers.with_limit(function(seconds)
      local entered = treadle.event()
      local found = record({ threads = 1 }, function(pool)
        local computes = pool:run(function()
          entered:set()
          while true do end
        end, {}, { timeout = seconds })
        assert.same("timeout", helpers.outcome(computes))
        assert.same(3, pool.call.add(1, 2):await())
      end)
      return entered:is_set() and found
    end)
    assert.same({ "function timeout", "stopped", "started", "closed" }, found.marks[1])
    assert.same({ begun = 2, ended = 2 }, found.arrows)
  end)

  it("shows what the host runs itself", function()
    local found = record({ threads = 1, inline = true }, function(pool)
      local gate = helpers.new_path()
      local held = pool.call.hold(gate)
      helpers.entered(gate .. ".entered")
      assert.same(3, pool.call.add(1, 2):await())
      helpers.write(gate, "go")
      held:await()
    end)
    local spans = found.spans["host 2"]
    assert.same({ "b", "add in the host", "e" }, { spans[1].ph, spans[1].name, spans[2].ph })
    assert.same({ 2, 0 }, { found.calls, found.depth })
  end)

  it("may be made of a pool again, and of calls that began in the one before", function()
    local pool = open { threads = 1 }
    local gate = helpers.new_path()
    local first = pool:trace(path)
    local held, queued = pool.call.hold(gate), pool.call.add(1, 2)
    helpers.entered(gate .. ".entered")
    first:close()
    local found = trace_format.check(helpers.read(path))
    assert.same({ begun = 2, ended = 0 }, found.arrows)
    assert.same({ 2, 1 }, { found.calls, found.depth })
    local second = pool:trace(path)
    helpers.write(gate, "go")
    held:await()
    queued:await()
    pool.call.add(3, 4):await()
    second:close()
    found = trace_format.check(helpers.read(path))
    assert.same({ begun = 1, ended = 1 }, found.arrows)
    assert.same({ 1, 0 }, { found.calls, found.depth })
    assert.same(2, #slices(found, "add"))
    pool:close()
  end)

  it("is one of a pool at a time, and ends with treadle.using", function()
    local pool = open()
    local ok, err = pcall(treadle.using, pool:trace(path), function()
      local other = pool:trace(helpers.new_path())
      return other
    end)
    assert.is_false(ok)
    assert.matches("trace_spec.lua:%d+: the pool is being recorded already, to '", err)
    pool:trace(path):close()
    pool:close()
  end)

  it("names a file that cannot be written, at the caller's line", function()
    local pool = open()
    local ok, err = pcall(function() pool:trace "/nowhere/out.json" end)
    assert.same(false, ok)
    assert.matches("trace_spec.lua:%d+: cannot write '/nowhere/out.json': No such file", err)
    ok, err = pcall(function() pool:trace(7) end)
    assert.same(false, ok)
    assert.matches("trace_spec.lua:%d+: bad argument #1 to 'trace' %(string expected, got number",
      err)
    pool:close()
  end)

  it("is for the state that made the pool", function()
    local pool = open()
    local ok, err = pool:run(function()
      treadle = require "treadle"
      treadle.worker.pool:trace "/tmp/x"
    end):pawait()
    assert.is_false(ok)
    assert.matches("recorded by the state that made it", err.message)
    pool:close()
  end)

  it("does not keep its pool, and ends with one that was dropped", function()
    local function make()
      local pool = open { threads = 1 }
      pool:trace(path)
      return pool.call.add(1, 2)
    end
    local f = make()
    helpers.poll_until(function()
      collectgarbage()
      return helpers.read(path):find "\n]\n$"
    end)
    assert.same(3, f:await())
    assert.same({ begun = 1, ended = 1 }, trace_format.check(helpers.read(path)).arrows)
  end)

  it("is whole when the state ends without closing anything", function()
    local _, err, code = helpers.child("luajit", [[
      local treadle = require "treadle"
      local pool = treadle.pool("tasks", { threads = 2 })
      local trace = pool:trace(arg[1])
      for i = 1, 50 do pool.call.add(i, 1):await() end
    ]], path)
    assert.same({ "", 0 }, { err, code })
    assert.same({ begun = 50, ended = 50 }, trace_format.check(helpers.read(path)).arrows)
  end)

  it("may be made in a task, of a pool of its own", function()
    local pool = open { threads = 1 }
    pool:run(function(where)
      local inner = require("treadle").pool("tasks", { threads = 2 })
      local trace = inner:trace(where)
      for i = 1, 20 do
        inner.call.add(i, 1):await()
      end
      inner:close()
      assert(trace:close() > 0)
    end, { path }):await()
    pool:close()
    assert.same({ begun = 20, ended = 20 }, trace_format.check(helpers.read(path)).arrows)
  end)

  it("survives a task that is stuck in C, whose worker is written off #computing", function()
    local gate = helpers.new_path()
    local found = helpers.with_limit(function(seconds)
      local entered = treadle.event()
      local found = record({ threads = 1, terminate_timeout = 0.2 }, function(pool)
        local stuck = pool:run(function()
          entered:set()
          os.execute(("while [ ! -e '%s' ]; do sleep 0.01; done"):format(gate))
        end, {}, { timeout = seconds })
        assert.same("timeout", helpers.outcome(stuck))
        assert.same(3, pool.call.add(1, 2):await())
      end)
      return entered:is_set() and found
    end)
    helpers.write(gate, "")
    assert.same("function timeout", found.marks[1][1])
    assert.matches("stuck", table.concat(found.marks[1], " "))
    assert.same(2, found.arrows.begun)
  end)

  it("says that the disk is full", function()
    local pool = open()
    local trace = pool:trace "/dev/full"
    pool.call.add(1, 2):await()
    local ok, err = pcall(function() trace:close() end)
    assert.is_false(ok)
    assert.matches("trace_spec.lua:%d+: cannot write '/dev/full': No space left", err)
    pool:close()
  end)

  it("can be read without its end", function()
    record({ threads = 2 }, function(pool)
      local list = {}
      for i = 1, 3000 do
        list[i] = pool.call.add(i, 1)
      end
      treadle.all(list):await()
    end)
    local text = helpers.read(path)
    local cut = text:sub(1, math.floor(#text / 2)):match("^(.*),\n") .. "]"
    assert.is_table(require("treadle.json").decode(cut))
  end)

  it("quotes names of any bytes", function()
    local found = record({ threads = 1, name = 'a"\\\n\1\255é' }, function(pool)
      pool.call.add(1, 2):await()
    end)
    assert.same('a"\\\n\1\239\191\189é', found.metadata.process_name.args.name)
  end)

  it("holds what several threads do at once", function()
    local n = 20000
    local found = record({ threads = 4, concurrency = 4 }, function(pool)
      local list = {}
      for i = 1, n do
        list[i] = pool.call.add(i, 1)
      end
      for i = 1, 200 do
        list[n + i] = pool.call.call_own("add", i, 1)
      end
      treadle.all(list):await()
    end)
    assert.same({ begun = n + 400, ended = n + 400 }, found.arrows)
    assert.same({ n + 400, 0 }, { found.calls, found.depth })
  end)

  it("is stopped while the workers go on", function()
    local pool = open { threads = 4 }
    local list = {}
    for round = 1, 20 do
      local trace = pool:trace(path)
      for i = 1, 300 do
        list[i] = pool.call.add(i, round)
      end
      trace:close()
      assert.same(300, trace_format.check(helpers.read(path)).arrows.begun)
      treadle.all(list):await()
    end
    pool:close()
  end)
end)
