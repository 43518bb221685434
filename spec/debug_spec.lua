--- Lines on standard error: the option `debug` and TREADLE_DEBUG.
local helpers = require "helpers"
local treadle = require "treadle"

describe("debug lines", function()
  teardown(helpers.clean)

  local HEAD = [[
    local tasks = {}
    function tasks.add(a, b) return a + b end
    function tasks.fail() error "no" end
    function tasks.nap(s) treadle.sleep(s) end
    function tasks.spin() while true do end end
    if treadle.is_main then
      local function open(options)
        options.name, options.threads = "demo", options.threads or 1
        return treadle.pool(tasks, options)
      end
  ]]
  local TAIL = [[
    end
    return tasks
  ]]

  --- The lines of a script, without their times and durations, and what else it wrote.
  local function lines_of(body, environment)
    local path = helpers.write(helpers.new_path(".lua"), HEAD .. body .. TAIL)
    local out, err, code = helpers.shell(("%s treadle %s"):format(environment or "",
      helpers.quote(path)))
    assert.same(0, code, err)
    local list = {}
    for line in err:gmatch "(.-)\n" do
      local who, kind, text = line:match "^%[treadle (%w+) (%l+) %+%d+%.%d%d%dms%] (.*)$"
      list[#list + 1] = who and ("%s %s %s"):format(who, kind, (text:gsub("%d+%.%d%dms", "Tms")))
        or line
    end
    return list, out
  end

  --- Those of one kind.
  local function kind(list, name)
    local found = {}
    for _, line in ipairs(list) do
      local who, text = line:match("^(%w+) " .. name .. " (.*)$")
      if who then
        found[#found + 1] = who .. " " .. text
      end
    end
    return found
  end

  it("are none unless they are asked for", function()
    assert.same({}, lines_of [[
      local pool = open {}
      pool.call.add(1, 2):await()
      pool:close()
      open({ debug = false }):close()
      open({ debug = {} }):close()
      open({ debug = { job = false } }):close()
    ]])
  end)

  it("follow a job", function()
    assert.same({
      "host job queued add", "w1 job started add", "w1 job done add Tms",
      "host job queued fail", "w1 job started fail", "w1 job failed fail Tms: task",
      "host job queued function", "w1 job started function", "w1 job done function Tms",
    }, lines_of [[
      local pool = open { debug = { job = true } }
      pool.call.add(1, 2):await()
      pool.call.fail():pawait()
      pool:run(function() end):await()
      pool:close()
    ]])
  end)

  it("say who made a call, and what the host runs", function()
    local list = lines_of [[
      local pool = open { threads = 1, debug = { job = true } }
      pool:run(function() treadle.worker.pool.call.add(1, 2):await() end):await()
      pool:close()
      pool = open { inline = true, debug = { job = true } }
      local held = pool:run("nap", { 60 }, { worker = 1 })
      pool.call.add(1, 2):await()
      held:cancel()
      pool:close()
    ]]
    assert.same({ "host job queued function", "w1 job started function", "w1 job queued add",
      "w1 job started add", "w1 job done add Tms", "w1 job done function Tms" },
      { unpack(list, 1, 6) })
    local text = table.concat(list, "\n")
    assert.matches("host job started add\n.*host job done add\n", text)
  end)

  it("tell of cancellations and deadlines", function()
    local list = helpers.with_limit(function(seconds)
      local list = lines_of(([[
        local pool = open { debug = { signal = true, job = true } }
        local running, queued = pool.call.nap(60), pool.call.add(1, 2)
        repeat until pool:stats().running == 1
        queued:cancel "not needed"
        running:cancel "enough"
        pool:run("nap", { 60 }, { timeout = %g }):pawait()
        running = pool.call.nap(60)
        repeat until pool:stats().running == 1
        running:cancel { force = true }
        pool:close()
      ]]):format(seconds))
      local signals = kind(list, "signal")
      -- its time was over before it began: nobody has settled it, or in the queue
      return signals[4] and not signals[3]:find("queued", 1, true) and list
    end)
    assert.same({
      "host cancellation of add, queued: not needed",
      "host cancellation of nap, running in w1: enough",
    }, { unpack(kind(list, "signal"), 1, 2) })
    assert.matches("^host deadline of nap, running in w1: ", kind(list, "signal")[3])
    assert.same("host cancellation of nap, running in w1: by force", kind(list, "signal")[4])
    local jobs = table.concat(kind(list, "job"), "\n")
    assert.matches("host cancelled add, queued\nhost cancelled nap, running in w1", jobs)
    assert.matches("host timeout nap, running in w1", jobs)
    assert.matches("w1 failed nap Tms: cancelled", jobs)
  end)

  it("tell of an interrupt, and of the state that comes after it #computing", function()
    local list = helpers.with_limit(function(seconds)
      local list = lines_of(([[
        local pool = open { debug = { signal = true, worker = true } }
        pool:run("spin", {}, { timeout = %g }):pawait()
        pool.call.add(1, 2):await()
        pool:close()
      ]]):format(seconds))
      return not kind(list, "signal")[1]:find("queued", 1, true) and list
    end)
    assert.same({ "w1 started in Tms", "w1 exits: stopped", "w1 started in Tms",
      "w1 exits: closed" }, kind(list, "worker"))
    assert.same("w1 interrupted", kind(list, "signal")[2])
  end)

  it("follow a pool and its workers", function()
    local list = lines_of [[
      local pool = open { max_queue = 0, debug = { pool = true, worker = true } }
      local held = pool.call.nap(60)
      repeat until pool:stats().running == 1
      pool.call.add(1, 2):pawait()
      held:cancel()
      pool:resize(2):await()
      pool:recycle():await()
      pool:cancel_pending()
      pool:close(5)
      pool = open { debug = { pool = true } }
      pool:terminate "because"
      pool:close()
    ]]
    assert.same({
      "host open 'demo': 1 workers, concurrency 1, 4 tasks",
      "host queue full: add, which is rejected",
      "host resize: 2", "host recycle", "host cancelled what was pending: 0 calls",
      "host close: within 5 s", "host closed",
      "host open 'demo': 1 workers, concurrency 1, 4 tasks",
      "host terminate: because", "host close: once all is done", "host closed",
    }, kind(list, "pool"))
    local workers = table.concat(kind(list, "worker"), "\n")
    assert.matches("w2 started in Tms", workers)
    assert.matches("w1 exits: recycled", workers)
  end)

  it("say what a worker loads, and why it cannot", function()
    helpers.module("debug_module", "return { f = function() end }")
    local list = lines_of [[
      open({ debug = { load = true } }):close()
      package.path = arg[0]:match "^(.*/)" .. "?.lua;" .. package.path
      treadle.pool("debug_module", { threads = 1, debug = { load = true } }):close()
      print(pcall(treadle.pool, "no_such_module", { threads = 1, debug = { load = true } }))
    ]]
    assert.matches("^w1 load loaded '.*file%d+%.lua' in Tms: 4 tasks$", list[1])
    assert.same("w1 load loaded module 'debug_module' in Tms: 1 tasks", list[2])
    assert.matches("^w1 load failed: .*module 'no_such_module' not found", list[3])
    assert.same(3, #list)
  end)

  it("tell the size of payloads, and what is refused", function()
    assert.same({
      "host payload add: arguments, 20 bytes", "w1 payload add: results, 11 bytes",
      "host payload refused: add: cannot send a coroutine (arguments[2].x)",
    }, lines_of [[
      local pool = open { debug = { payload = true } }
      pool.call.add(1, 2):await()
      pool.call.add(1, { x = coroutine.create(print) }):pawait()
      pool:close()
    ]])
  end)

  it("can be asked for from outside, beside what the script asks for", function()
    local body = [[
      local pool = open { debug = { worker = true } }
      pool.call.add(1, 2):await()
      pool:close()
    ]]
    local list = lines_of(body, "TREADLE_DEBUG=load,job")
    assert.same({ 1, 3, 2, 0 }, { #kind(list, "load"), #kind(list, "job"), #kind(list, "worker"),
      #kind(list, "pool") })
    list = lines_of(body, "TREADLE_DEBUG='*'")
    assert.same({ 1, 3, 2, 3, 2 }, { #kind(list, "load"), #kind(list, "job"),
      #kind(list, "worker"), #kind(list, "pool"), #kind(list, "payload") })
    list = lines_of((body:gsub("{ worker = true }", "true")))
    assert.same(11, #list)
  end)

  it("name what is nearest to an unknown namespace, once", function()
    assert.same({
      "treadle: TREADLE_DEBUG: unknown namespace 'jobs', did you mean 'job'? ('*': all)",
    },
      lines_of("for _ = 1, 2 do open({}):close() end", "TREADLE_DEBUG=jobs"))
    for value, message in pairs {
      [{ jobs = true }] = "got the unknown namespace 'jobs', did you mean 'job'?",
      [{ job = 1 }] = "got a number in 'job'",
      [3] = "a boolean, or a table of booleans expected, got 3",
    } do
      local ok, err = pcall(function() treadle.pool("tasks", { debug = value }) end)
      assert.is_false(ok)
      assert.matches("debug_spec.lua:%d+: bad argument #2 to 'pool' %(option 'debug': ", err)
      assert.truthy(err:find(message, 1, true), err)
    end
  end)

  it("are whole when several threads write them", function()
    local list = lines_of [[
      local pool = open { threads = 4, debug = { job = true } }
      local list = {}
      for i = 1, 2000 do
        list[i] = pool.call.add(i, 1)
      end
      treadle.all(list):await()
      pool:close()
    ]]
    assert.same({ 6000, 6000 }, { #list, #kind(list, "job") })
  end)

  it("are cut where they are too long, and stay one line", function()
    local list = lines_of [[
      tasks[("x"):rep(3000)] = tasks.add
      tasks["a\nb"] = tasks.add
      local pool = open { debug = { job = true } }
      pool.call[("x"):rep(3000)](1, 2):await()
      pool.call["a\nb"](1, 2):await()
      pool:close()
    ]]
    assert.matches("^host job queued x+%.%.%.$", list[1])
    assert.same("host job queued a b", list[4])
    assert.same(6, #list)
  end)
end)
