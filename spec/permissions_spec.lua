--- Permissions of threads: how they are asked for, what is in force, what goes on to work.
local helpers = require "helpers"
local treadle = require "treadle"

local THREAD_LIMITS = { memory = "max_memory", cpu = "timeout", files = "process" }

local function shell(line)
  assert(os.execute(line) == 0, line)
end

local function contains(list, value)
  for _, element in ipairs(list) do
    if element == value then
      return true
    end
  end
  return false
end

describe("permissions", function()
  local done, elsewhere, folder, pools

  --- A pool that is closed after the test.
  local function open(permissions, options)
    options = options or {}
    options.threads = options.threads or 1
    options.permissions = permissions
    local pool = treadle.pool("confined_tasks", options)
    pools[#pools + 1] = pool
    return pool
  end

  setup(function()
    done = helpers.watch()
    local file = assert(io.popen "mktemp -d")
    elsewhere = file:read "*l"
    file:close()
    folder = elsewhere .. "/folder"
    shell(("mkdir -p %s/clean %s/deep/inner"):format(folder, folder))
    helpers.write(folder .. "/clean/file.txt", "a\nb\n")
    helpers.write(folder .. "/deep/inner/.env", "secret")
    helpers.write(folder .. "/deep/inner/open.txt", "open")
    helpers.write(folder .. "/deep/beside.txt", "beside")
    helpers.write(elsewhere .. "/outside.txt", "outside")
  end)

  before_each(function()
    pools = {}
  end)

  after_each(function()
    for _, pool in ipairs(pools) do
      pool:close()
    end
  end)

  teardown(function()
    shell("rm -rf " .. helpers.quote(elsewhere))
    done()
    helpers.clean()
  end)

  -- --- asking for them ---------------------------------------------------------------------------

  describe("are asked for:", function()
    local function refusal(permissions)
      local ok, err = pcall(treadle.pool, "confined_tasks",
        { threads = 1, permissions = permissions })
      assert.is_false(ok)
      return tostring(err)
    end

    it("an unknown mode names the nearest one", function()
      assert.matches("got 'strikt', did you mean 'strict'%?", refusal "strikt")
      assert.matches("'strict', 'unrestricted' or a table expected, got boolean", refusal(true))
    end)

    it("an unknown key names the nearest one", function()
      assert.matches("unknown key 'raed', did you mean 'read'%?", refusal { raed = {} })
      assert.matches("unknown key '1'", refusal { "strict" })
    end)

    it("a value that is none is told by its key", function()
      assert.matches("key 'read': true, false or a list of paths expected, got 1",
        refusal { read = 1 })
      assert.matches("key 'read': .* got string", refusal { read = "/tmp" })
      assert.matches("key 'read': .* got table", refusal { read = { 1 } })
      assert.matches("key 'read': .* got table", refusal { read = { path = "/tmp" } })
      assert.matches("key 'env': .* got table", refusal { env = { "A=B" } })
      assert.matches("key 'net': a list of ports", refusal { net = { bind = { 65536 } } })
      assert.matches("key 'net': .*'conect', did you mean 'connect'%?",
        refusal { net = { conect = {} } })
      assert.matches("key 'ffi': a boolean expected", refusal { ffi = 1 })
      assert.matches("key 'memory': a whole number of at least 1 expected, got 0",
        refusal { memory = 0 })
    end)

    it("a path that is not there is refused", function()
      assert.matches("'read': '/no/such/path': No such file",
        refusal { read = { "/no/such/path" } })
      assert.matches("name the folder in which it is to be made",
        refusal { write = { elsewhere .. "/new" } })
    end)

    it("the error is at the caller's line", function()
      assert.matches("^bad argument #2 to 'pool' %(option 'permissions': unknown key",
        helpers.error_here(function() treadle.pool("tasks", { permissions = { x = 1 } }) end))
      assert.matches("^bad argument #2 to 'thread' %(option 'permissions': unknown key",
        helpers.error_here(function() treadle.thread("tasks", { permissions = { x = 1 } }) end))
    end)

    for key, instead in pairs(THREAD_LIMITS) do
      it("'" .. key .. "' is refused for threads, and what there is instead is named", function()
        local message = refusal { [key] = 10 }
        assert.matches("limits a process, not a thread", message)
        assert.matches(instead, message)
      end)
    end

    it("what a thread cannot be kept to is refused: the FFI, sockets, variables", function()
      assert.matches("'ffi' cannot be given to a thread that is restricted",
        refusal { ffi = true })
      assert.matches("'net' is of no use", refusal { net = true })
      assert.matches("'net' is of no use", refusal { net = { connect = { 443 } } })
      assert.matches("see the whole environment", refusal { run = { "/bin/echo" } })
    end)

    it("running tasks in the host is refused", function()
      for _, options in ipairs { { inline = true }, { max_queue = 1, on_full = "run" } } do
        options.permissions = "strict"
        local ok, err = pcall(treadle.pool, "confined_tasks", options)
        assert.is_false(ok)
        assert.matches("which 'permissions' do not confine", tostring(err))
      end
    end)
  end)

  -- --- what is in force --------------------------------------------------------------------------

  describe("are told:", function()
    it("without any, all is allowed", function()
      for _, permissions in ipairs { "unrestricted", false } do
        local told = open(permissions or nil):permissions()
        assert.equal("unrestricted", told.mode)
        assert.same({}, told.enforced_by)
        assert.is_true(told.read and told.write and told.run and told.net and told.env and told.ffi)
      end
    end)

    it("strict is the same as an empty table, but for its name", function()
      local strict, custom = open("strict"):permissions(), open({}):permissions()
      assert.equal("strict", strict.mode)
      assert.equal("custom", custom.mode)
      strict.mode, custom.mode = nil, nil
      assert.same(strict, custom)
    end)

    it("what was asked for, what enforces it, what cannot be enforced", function()
      local told = open({ read = { folder }, env = { "HOME" } }):permissions()
      assert.same({ folder }, told.read)
      assert.same({ "HOME" }, told.env)
      assert.is_false(told.write or told.run or told.net or told.ffi)
      assert.same({ read = "landlock", write = "landlock", run = "seccomp", net = "seccomp",
        env = "lua", ffi = "lua" }, told.enforced_by)
      assert.equal("thread", told.runtime)
      assert.is_true(#told.not_enforced >= 3)
      assert.is_true(contains(told.secrets, folder .. "/deep/inner/.env"))
      assert.is_true(contains(told.paths.read, folder .. "/clean"))
      assert.is_false(contains(told.paths.read, folder))
      assert.same({ "/dev/null" }, told.paths.write)
    end)

    it("what is told is a copy", function()
      local pool = open "strict"
      pool:permissions().mode = "changed"
      pool:permissions().paths.read[1] = "changed"
      assert.equal("strict", pool:permissions().mode)
      assert.not_equal("changed", pool:permissions().paths.read[1])
    end)

    it("the same in a worker, and of a thread", function()
      local pool = open "strict"
      assert.same(pool:permissions(), pool.call.permissions():await())
      local thread = treadle.thread("confined_tasks", { permissions = "strict" })
      assert.equal("strict", thread:permissions().mode)
      local ok, err = thread.call.popen("id"):pawait()
      thread:close()
      assert.is_false(ok)
      assert.equal("permission", err.kind)
    end)
  end)

  -- --- files -------------------------------------------------------------------------------------

  describe("of files:", function()
    it("a folder is read, nothing beside it", function()
      local pool = open { read = { folder .. "/clean" } }
      assert.equal("a\nb\n", pool.call.read(folder .. "/clean/file.txt"):await())
      assert.same({ "a", "b" }, pool.call.lines(folder .. "/clean/file.txt"):await())
      assert.same({ false }, { (pool.call.try_read(elsewhere .. "/outside.txt"):await()) })
      assert.same({ false }, { (pool.call.try_read(folder .. "/deep/beside.txt"):await()) })
    end)

    it("a single file is read, relative paths are those of the host", function()
      local pool = open { read = { elsewhere .. "/outside.txt" } }
      assert.equal("outside", pool.call.read(elsewhere .. "/outside.txt"):await())
      assert.is_false((pool.call.try_read(folder .. "/clean/file.txt"):await()))
    end)

    it("around a secret the rest of a folder is granted entry by entry", function()
      local pool = open { read = { folder } }
      assert.equal("open", pool.call.read(folder .. "/deep/inner/open.txt"):await())
      assert.equal("beside", pool.call.read(folder .. "/deep/beside.txt"):await())
      local ok, why = pool.call.try_read(folder .. "/deep/inner/.env"):await()
      assert.is_false(ok)
      assert.matches("Permission denied", why)
      helpers.write(folder .. "/deep/inner/later.txt", "later")
      assert.is_false((pool.call.try_read(folder .. "/deep/inner/later.txt"):await()))
      helpers.write(folder .. "/clean/later.txt", "later")
      assert.is_true((pool.call.try_read(folder .. "/clean/later.txt"):await()))
    end)

    it("a secret that is listed itself is meant", function()
      local pool = open { read = { folder .. "/deep/inner/.env" } }
      assert.equal("secret", pool.call.read(folder .. "/deep/inner/.env"):await())
    end)

    it("read = true is everything but the memory of the process", function()
      local pool = open { read = true }
      assert.equal("secret", pool.call.read(folder .. "/deep/inner/.env"):await())
      assert.is_false((pool.call.try_read("/proc/self/mem"):await()))
      assert.is_false((pool.call.try_read("/proc/self/environ"):await()))
    end)

    it("a folder is written, if that was asked for", function()
      local pool = open { read = { folder .. "/clean" }, write = { folder .. "/clean" } }
      pool.call.write(folder .. "/clean/made.txt", "made"):await()
      assert.equal("made", helpers.read(folder .. "/clean/made.txt"))
      assert.equal("first 2", pool.call.output(folder .. "/clean/made.txt"):await())
      assert.is_true(pool.call.remove(folder .. "/clean/made.txt"):await())
      local ok = pool.call.write(elsewhere .. "/made.txt", "made"):pawait()
      assert.is_false(ok)
      assert.equal("", helpers.read(elsewhere .. "/made.txt"))
    end)

    it("modules of package.path are loaded, the script of the table form is", function()
      helpers.module("confined_helper", "return { answer = 42 }")
      local pool = open "strict"
      assert.same({ answer = 42 }, pool.call.require("confined_helper"):await())
      local out, err, code = helpers.child("treadle", [[
        local treadle = require "treadle"
        local tasks = {}
        function tasks.twice(x) return x * 2 end
        if treadle.is_main then
          local pool = treadle.pool(tasks, { threads = 1, permissions = "strict" })
          print(pool.call.twice(21):await())
          local added = 1
          print(pool:run(function(x) return x + added end, { 41 }):await())
          pool:close()
        end
        return tasks
      ]])
      assert.same({ "42\n42\n", "", 0 }, { out, err, code })
    end)
  end)

  -- --- programs and variables --------------------------------------------------------------------

  describe("of parallel loops:", function()
    for _, runtime in ipairs { "thread", "process" } do
      it("those of the host run in confined workers: " .. runtime, function()
        local pool, list = open("strict", { threads = 2, runtime = runtime }), {}
        for i = 1, 100 do
          list[i] = i
        end
        local squares = treadle.pmap(function(x)
          return x * x
        end, list, { pool = pool, chunk = 10 }):await()
        assert.equal(100, #squares)
        assert.equal(10000, squares[100])
        assert.equal(5050, treadle.preduce(function(x, y)
          return x + y
        end, 0, list, { pool = pool, chunk = 10 }):await())
      end)
    end
  end)

  describe("of programs:", function()
    it("listed ones run, others do not", function()
      local pool = open { run = { "/bin/echo" }, env = true }
      assert.equal("hello\n", pool.call.popen("/bin/echo hello"):await())
      assert.not_equal(0, pool.call.execute("/bin/cat /dev/null 2>/dev/null"):await())
      assert.equal("", pool.call.popen("/bin/cat /etc/passwd 2>/dev/null"):await())
    end)

    it("a program is confined as its worker is", function()
      local pool = open { run = { "/bin/cat" }, env = true, read = { folder .. "/clean" } }
      assert.equal("a\nb\n", pool.call.popen("/bin/cat " .. folder .. "/clean/file.txt"):await())
      assert.equal("", pool.call.popen(("/bin/cat %s/outside.txt 2>/dev/null"):format(elsewhere))
        :await())
    end)
  end)

  it("listed variables are seen, others raise", function()
    local pool = open { env = { "PATH" } }
    assert.equal(os.getenv "PATH", pool.call.getenv("PATH"):await())
    local ok, err = pool.call.getenv("HOME"):pawait()
    assert.is_false(ok)
    assert.equal("permission", err.kind)
    assert.equal("os.getenv 'HOME': permission denied: this pool may not see that variable "
      .. "(permissions.env)", err.message)
  end)

  -- --- what goes on to work ----------------------------------------------------------------------

  describe("leave intact:", function()
    it("what libraries use of Lua", function()
      assert.same({
        trimmed = "text", upper = "X", one = 1, kind = "table", kept = true, set = "y", own = true,
        info = "confined_tasks.lua", trace = "here\nstack traceback:", int = "3LL",
        date = "string", clock = "number", jit = "boolean", bits = 2, new = "function", same = true,
      }, open("strict").call.libraries():await())
    end)

    it("compiled code, and a loop that is stopped while it runs", function()
      local pool = open "strict"
      assert.equal(open().call.hot(1e6):await(), pool.call.hot(1e6):await())
      local ok, err = pool:run("endless", {}, { timeout = 0.02 }):pawait()
      assert.is_false(ok)
      assert.equal("timeout", err.kind)
      assert.equal(3, pool.call.add(1, 2):await())
    end)

    it("max_memory", function()
      local pool = open("strict", { max_memory = 32 * 2 ^ 20 })
      local ok, err = pool.call.crowd():pawait()
      assert.is_false(ok)
      assert.equal("memory", err.kind)
      assert.equal(3, pool.call.add(1, 2):await())
    end)

    it("force, and the pool's end while its tasks run", function()
      local pool = open("strict", { threads = 2 })
      local f = pool.call.endless()
      assert.equal(3, pool.call.add(1, 2):await())
      assert.is_true(f:cancel { force = true })
      pool.call.endless()
      pool:terminate()
    end)

    it("calls on the own pool, with a timeout, too; channels, locks, coroutines", function()
      local pool = open "strict"
      assert.equal(20, pool.call.nested(20):await())
      assert.equal(6, pool.call.nested_in_time(5):await())
      assert.same({ { 1, 2 }, "spawned" }, { pool.call.shared_things():await() })
      assert.equal("slept", pool.call.sleep(0.001):await())
    end)

    it("print, io.write and standard error", function()
      local out, err = helpers.child("treadle", [[
        local treadle = require "treadle"
        local pool = treadle.pool("confined_tasks", { threads = 1, permissions = "strict" })
        pool.call.print("one", 2):await()
        pool:close()
      ]])
      assert.equal("one\t2\nwritten\n", out)
      assert.equal("to stderr\n", err)
    end)
  end)

  -- --- for as long as the pool lives -------------------------------------------------------------

  describe("hold for every worker:", function()
    local function is_confined(pool, worker)
      local ok, err = pool:run("popen", { "id" }, { worker = worker }):pawait()
      return not ok and err.kind == "permission"
        and not (pool:run("try_read", { elsewhere .. "/outside.txt" }, { worker = worker }):await())
    end

    it("after a timeout, a crash of memory, and recycling", function()
      local pool = open("strict", { max_memory = 32 * 2 ^ 20 })
      assert.is_true(is_confined(pool))
      pool:run("endless", {}, { timeout = 0.02 }):pawait()
      assert.is_true(is_confined(pool))
      pool.call.crowd():pawait()
      assert.is_true(is_confined(pool))
      pool:recycle():await()
      assert.is_true(is_confined(pool))
    end)

    it("those that come later", function()
      local pool = open("strict", { threads = 1 })
      pool:resize(3):await()
      for worker = 1, 3 do
        assert.is_true(is_confined(pool, worker))
      end
      pool:resize(1):await()
      pool:resize(2):await()
      assert.is_true(is_confined(pool, 2))
    end)

    it("a fresh state for each job", function()
      local pool = open("strict", { isolate = true })
      for _ = 1, 3 do
        assert.is_true(is_confined(pool))
      end
    end)
  end)

  it("the host, other pools and what the process starts later are not confined", function()
    local before = helpers.threads()
    local strict = open "strict"
    strict:run("endless", {}, { timeout = 0.02 }):pawait()
    local free = open()
    assert.equal("outside", free.call.read(elsewhere .. "/outside.txt"):await())
    assert.equal("x\n", free.call.popen("echo x"):await())
    local confined = 0
    for id in require("lfs").dir "/proc/self/task" do
      local status = helpers.read("/proc/self/task/" .. id .. "/status")
      confined = confined + (status:match "Seccomp:%s+2" and 1 or 0)
    end
    assert.equal(1, confined) -- the one worker, and not the supervisor
    assert.is_true(helpers.threads() > before)
  end)

  it("a worker that the kernel does not confine never runs, and its pool says why", function()
    local out, err, code = helpers.child("treadle", [[
      local ffi = require "ffi"
      ffi.cdef "long syscall(long, ...); int prctl(int, ...);"
      local C, int = ffi.C, ffi.typeof "int"
      local no_pipes = ffi.new("uint64_t[1]", 1024) -- what a ruleset is about: making pipes
      assert(C.prctl(int(38), int(1), int(0), int(0), int(0)) == 0)
      for _ = 1, 16 do -- the kernel takes no more than so many, one within another
        local rules = C.syscall(444, no_pipes, ffi.new("size_t", 8), int(0))
        assert(C.syscall(446, rules, int(0)) == 0)
      end
      local treadle = require "treadle"
      local ok, err = pcall(treadle.pool, "confined_tasks", { threads = 2, permissions = "strict" })
      print(ok, err.kind, err.message)
      local pool = treadle.pool("confined_tasks", { threads = 1 })
      print(pool.call.add(1, 2):await())
      pool:close()
    ]])
    assert.equal("", err)
    assert.equal(0, code)
    assert.equal("false\tpermission\tthe worker cannot be confined: "
      .. "Landlock: Argument list too long\n3\n", out)
  end)

  it("its worker starts no other: pools, threads and more workers are refused", function()
    local pool = open "strict"
    local ok, err = pool:run(function() require("treadle").pool("tasks") end):pawait()
    assert.is_false(ok)
    assert.equal("permission", err.kind)
    assert.equal("treadle.pool: permission denied: a confined worker starts no workers",
      err.message)
  end)

  it("an error of kind permission keeps it, and its traceback", function()
    local ok, err = open("strict").call.popen("id"):pawait()
    assert.is_false(ok)
    assert.same({ "permission", "io.popen: permission denied: this pool may not run programs "
      .. "(permissions.run)", "popen", 1 }, { err.kind, err.message, err.task, err.worker })
    assert.matches("confined_tasks.lua:%d+: in function", err.traceback)
  end)
end)
