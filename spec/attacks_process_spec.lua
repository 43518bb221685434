--- What hostile code tries in a process: in a strict one, and in one that has the FFI, where real
-- system calls are tried. Each attempt is denied or contained; at the end the host, other pools and
-- the machine are what they were before.
local ffi = require "ffi"
local helpers = require "helpers"
local treadle = require "treadle"

ffi.cdef [[
int treadle_attack_memfd(const char *, unsigned) __asm__("memfd_create");
int treadle_attack_pipe(int *) __asm__("pipe");
long treadle_attack_write(int, const void *, size_t) __asm__("write");
int treadle_attack_close(int) __asm__("close");
int treadle_attack_socket(int, int, int) __asm__("socket");
int treadle_attack_bind(int, const void *, unsigned) __asm__("bind");
int treadle_attack_listen(int, int) __asm__("listen");
int treadle_attack_getpid(void) __asm__("getpid");
int treadle_attack_setenv(const char *, const char *, int) __asm__("setenv");
int treadle_attack_unsetenv(const char *) __asm__("unsetenv");
]]
local C = ffi.C

local TOKEN = "the-host's-secret"

--- Errors of the kernel that say no: EPERM, EACCES.
local DENIED = { [1] = true, [13] = true }

--- Attempts that the kernel answers otherwise: what they need was denied, or is not there.
local OTHERWISE = {
  clone3 = 38,                -- ENOSYS: the C library takes clone then
  read_path_descriptor = 9,   -- EBADF: it names a file, no more
  link_by_name = 18, link_by_old_name = 18, link_path_descriptor = 18, -- EXDEV: across the rules
  link_into_written = 18, rename_into_written = 18, rename_out_of_written = 18,
  exchange_with_written = 18, rename_by_old_name = 18,
}

--- Those that get through where nothing is denied, by any user, and do no harm there: so it is the
-- rules that deny them.
local CONTROLLED = {
  "open_elsewhere", "open_passwd", "open_secret", "open_key", "open_link",
  "open_hard_link_elsewhere", "open_through_root", "open_through_host", "open_through_cwd",
  "open_to_write", "open_new", "open_by_openat2", "open_through_path_descriptor",
  "open_below_path_descriptor", "open_from_entered_folder", "list_elsewhere", "map_to_execute",
  "link_by_name", "link_into_written", "make_folder", "make_link_in_written",
  "make_pipe_in_written", "change_mode", "change_own_mode", "change_times",
  "open_environment_of_host", "open_maps_of_host", "open_descriptor_of_host",
  "open_own_environment", "open_own_memory", "open_program",
  "start_pool", "read_host", "write_host", "ask_for_host",
  "ask_for_thread", "ask_for_thread_alone", "open_process", "signal_by_descriptor",
  "take_descriptor", "own_descriptor", "own_descriptor_by_thread", "signal_of_descriptor",
  "slow_host", "bind_host_to_processor", "schedule_host", "ask_for_limits_of_host",
  "locks_of_host", "be_user", "survive_host", "be_dumpable", "adopt_orphans", "watch_files",
  "open_any_socket", "open_pair", "ask_c_for_variable", "look_for_variable",
}

--- Looked at one by one below.
local APART = {
  count_threads = true, count_descriptors = true, fill_files = true, allocate = true, burn = true,
  say = true, connect = true,
}

local function shell(line)
  assert(os.execute(line) == 0, line)
end

local function sorted(set)
  local names = {}
  for name in pairs(set) do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

local function names_of_attempts()
  local names = {}
  for name in pairs(require "attack_calls") do
    if not APART[name] then
      names[name] = true
    end
  end
  return sorted(names)
end

--- Old calls that this machine has not got.
local function is_here(name)
  return ffi.arch == "x64" or not name:find "_old"
end

describe("a confined process", function()
  local done, w, secret, pipe, pools, listener

  local function open(permissions, options)
    options = options or {}
    options.threads = options.threads or 1
    options.runtime = "process"
    options.timeout = options.timeout ~= false and (options.timeout or helpers.TIMEOUT) or nil
    options.permissions = permissions
    local module = options.module or "attack_calls"
    options.module = nil
    local pool = treadle.pool(module, options)
    pools[#pools + 1] = pool
    return pool
  end

  local function rules()
    return { ffi = true, read = { w.folder }, write = { w.written } }
  end

  --- The files and the memory, as they are before an attempt.
  local function lay_out()
    ffi.copy(secret, TOKEN)
    helpers.write(w.canary, TOKEN)
    helpers.write(w.victim, TOKEN)
    helpers.write(w.written .. "/own", "own")
  end

  setup(function()
    done = helpers.watch()
    pools = {}
    local file = assert(io.popen "mktemp -d")
    local elsewhere = file:read "*l"
    file:close()
    secret = ffi.new("char[?]", #TOKEN + 1, TOKEN)
    pipe = ffi.new "int[2]"
    assert(C.treadle_attack_pipe(pipe) == 0)
    w = {
      elsewhere = elsewhere, canary = elsewhere .. "/canary", folder = elsewhere .. "/folder",
      victim = elsewhere .. "/victim", written = elsewhere .. "/written", token = TOKEN,
      pid = C.treadle_attack_getpid(), address = tonumber(ffi.cast("uintptr_t", secret)),
      secret_fd = C.treadle_attack_memfd("secret", 0), variable = "TREADLE_SPEC_SECRET",
      abstract = "treadle-attack", cpath = package.cpath, pipe = pipe[1],
      encoded_function = treadle.encode(function() return 1 end),
      encoded_builtin = treadle.encode(debug.getregistry),
      encoded_module = treadle.encode(function() return helpers end),
      encoded_array = treadle.encode(ffi.new "int[4]"),
    }
    w.memfd = w.secret_fd
    w.abstract = w.abstract .. w.pid
    listener = C.treadle_attack_socket(1, 1, 0)
    assert(C.treadle_attack_bind(listener, ffi.new("char[110]", "\1\0\0" .. w.abstract),
      3 + #w.abstract) == 0)
    assert(C.treadle_attack_listen(listener, 8) == 0)
    assert(C.treadle_attack_write(w.secret_fd, TOKEN, #TOKEN) == #TOKEN)
    assert(C.treadle_attack_setenv(w.variable, TOKEN, 1) == 0)
    shell(("mkdir -p %s/sub/.git %s"):format(w.folder, w.written))
    lay_out()
    shell(("ln %s %s/hard"):format(w.canary, elsewhere))
    helpers.write(elsewhere .. "/evil.lua", "return '" .. TOKEN .. "'")
    helpers.write(w.folder .. "/plain.txt", "plain")
    helpers.write(w.folder .. "/.env", TOKEN)
    helpers.write(w.folder .. "/server.key", TOKEN)
    helpers.write(w.folder .. "/sub/.git/config", TOKEN)
    helpers.write(w.folder .. "/bytecode.lua", string.dump(function() return "ran" end))
    for link, target in pairs {
      to_secret = ".env", to_canary = w.canary, to_memfd = "/proc/self/fd/" .. w.memfd,
    } do
      shell(("ln -s %s %s/%s"):format(target, w.folder, link))
    end
  end)

  after_each(function()
    for _, pool in ipairs(pools) do
      pool:close()
    end
    pools = {}
  end)

  teardown(function()
    C.treadle_attack_close(w.secret_fd)
    C.treadle_attack_close(listener)
    C.treadle_attack_close(pipe[0])
    C.treadle_attack_close(pipe[1])
    C.treadle_attack_unsetenv(w.variable)
    shell("rm -rf " .. helpers.quote(w.elsewhere))
    done()
    helpers.clean()
  end)

  describe("with the FFI", function()
    it("reads and writes what it was given, and has what it needs for that", function()
      local pool = open(rules())
      assert.equal("plain", pool:run(function(path)
        return io.lines(path)()
      end, { w.folder .. "/plain.txt" }):await())
      pool:run(function(path)
        local file = assert(io.open(path, "w"))
        file:write "text"
        file:close()
        os.remove(path .. "2")
      end, { w.written .. "/new" }):await()
      assert.equal("text", helpers.read(w.written .. "/new"))
      assert.equal(42, pool:run(function()
        local chunk = loadstring(string.dump(loadstring "return 42"))
        return chunk()
      end):await())
      assert.equal("table", pool:run(function() return type(require "lfs") end):await())
      assert.equal("number", pool:run(function()
        return type(debug.getregistry()) == "table" and type(require("ffi").sizeof "int")
      end):await())
    end)

    for _, name in ipairs(names_of_attempts()) do
      if is_here(name) then
        it("denies: " .. name:gsub("_", " "), function()
          lay_out()
          local pool = open(rules())
          local ok, got, errno = pool:run(name, { w }):pawait()
          if not ok then
            assert.equal("permission", got.kind, tostring(got))
            return
          end
          assert.is_true(not got, "it got " .. tostring(got))
          if errno then
            assert.is_true(DENIED[errno] or OTHERWISE[name] == errno, "errno " .. errno)
          end
        end)
      end
    end
  end)

  it("starts no workers, not even when it forgets that it is confined", function()
    local pool = open(rules())
    pool:run(function()
      require("treadle.core").confined = nil
      pcall(function() require("treadle").worker.pool:resize(3) end)
    end):await()
    assert.equal("pool 'attack_calls' (1 workers)", tostring(pool))
  end)

  describe("forges what its host reads:", function()
    local function look_after(pool)
      assert.equal(42, pool.call.add(40, 2):await())
    end

    local LIES = { "ticket", "free_ticket", "status", "low_status", "kind", "length",
      "ring_length", "bulk", "bulk_length" }

    for _, lie in ipairs(LIES) do
      it("it is ended for a record with another " .. lie:gsub("_", " "), function()
        local pool = open(rules(), { module = "attack_links" })
        local ok, err = pool:run("forge_" .. lie):pawait()
        assert.is_false(ok)
        assert.equal("crashed", err.kind)
        assert.matches("it has written nonsense into the memory", err.message, 1, true)
        look_after(pool)
      end)
    end

    it("what it forges well is believed, or else the lies would not be looked at", function()
      local pool = open(rules(), { module = "attack_links", terminate_timeout = 0.1 })
      local forged = treadle.encode("forged")
      assert.equal("forged", pool:run("forge_result", { forged }):await())
      pool:close() -- which does not wait until it rests
    end)

    it("functions in it are never made", function()
      for _, name in ipairs { "encoded_function", "encoded_builtin", "encoded_module" } do
        local pool = open(rules(), { module = "attack_links", terminate_timeout = 0.1 })
        local ok, err = pool:run("forge_result", { w[name] }):pawait()
        assert.is_false(ok, name)
        assert.equal("payload", err.kind)
        assert.matches("functions are not accepted here", err.message, 1, true)
      end
    end)

    it("a process that is not confined may send functions", function()
      local pool = open("unrestricted", { module = "attack_links", terminate_timeout = 0.1 })
      assert.equal(1, pool:run("forge_result", { w.encoded_function }):await()())
    end)

    for _, name in ipairs { "forge_taken", "forge_less_taken", "fill_page", "fill_rings",
      "punch_memory", "forge_rest", "forge_skip" } do
      it("the pool goes on after: " .. name:gsub("_", " "), function()
        local pool = open(rules(), { module = "attack_links", timeout = 2 })
        local ok, err = pool:run(name):pawait()
        assert.is_true(ok or err.kind == "crashed" or err.kind == "timeout", tostring(err))
        for _ = 1, 3 do
          pool:run("add", { 1, 2 }):pawait() -- may be the one that finds out
        end
        look_after(pool)
      end)
    end

    for _, name in ipairs { "close_all", "replace_all", "close_bell", "send_garbage", "send_long",
      "send_boot", "flood_line", "send_descriptor" } do
      it("it is ended for it: " .. name:gsub("_", " "), function()
        local descriptors = helpers.descriptors()
        local pool = open(rules(), { module = "attack_links" })
        local ok, err = pool:run(name):pawait()
        assert.is_false(ok)
        assert.equal("crashed", err.kind, tostring(err))
        look_after(pool)
        pool:close()
        helpers.eventually(function() return helpers.descriptors() <= descriptors end,
          "its descriptors are closed")
      end)
    end

    it("who wakes its keeper does not wait for it", function()
      local pool = open(rules(), { module = "attack_links" })
      assert.equal("stopped", pool.call.stop_bell():await())
      for i = 1, 200 do
        assert.equal(i, pool.call.add(i, 0):await())
      end
    end)

    it("its keeper hears its host whatever it listens to", function()
      local pool = open(rules(), { module = "attack_links", timeout = false })
      local taking = pool.call.take_bell(w.written .. "/taking")
      helpers.entered(w.written .. "/taking")
      taking:cancel { force = true }
      assert.equal("cancelled", helpers.outcome(taking))
      look_after(pool)
    end)
  end)

  describe("that may read and write everything", function()
    for _, name in ipairs { "open_memory_of_host", "open_environment_of_host",
      "open_maps_of_host", "open_descriptor_of_host", "open_through_host", "change_kernel",
      "take_descriptor", "read_host" } do
      it("is denied: " .. name:gsub("_", " "), function()
        local pool = open { ffi = true, read = true, write = true }
        assert.equal(TOKEN, pool:run(function(path)
          return io.lines(path)()
        end, { w.canary }):await())
        local got, errno = pool:run(name, { w }):await()
        assert.is_nil(got)
        assert.is_true(errno == nil or DENIED[errno], errno)
      end)
    end
  end)

  describe("that is not confined", function()
    for _, name in ipairs(CONTROLLED) do
      it("gets through: " .. name:gsub("_", " "), function()
        lay_out()
        shell(("rm -rf %s/made %s/new %s/mine %s/* %s/from_worker"):format(w.elsewhere,
          w.elsewhere, w.folder, w.written, w.elsewhere))
        helpers.write(w.written .. "/own", "own")
        local pool = open "unrestricted"
        local ok, got, errno = pool:run(name, { w }):pawait()
        lay_out()
        assert.is_true(ok and got and true, ("%s, errno %s"):format(tostring(got),
          tostring(errno)))
      end)
    end
  end)

  describe("that is strict", function()
    --- Others than "permission", or nothing at all.
    local KINDS = {
      exit = "task", huge_string = "memory", many_tables = "memory", endless = "timeout",
      deep = "task", send_function_home = "payload", send_builtin_home = "payload",
      send_function_on = "task", decode_function = "task", decode_builtin = "task",
      decode_module = "task", decode_array = "task", require_elsewhere = "task",
      require_bytecode = "task", list_lines = "task", change_input = "task",
      load_elsewhere = "task", output_elsewhere = "task", change_globals_of_treadle = "task",
      require_core = "task", change_globals_of_builtin = "task", require_internals = "task",
      profile_own_pool = "task", search_by_loader = "task", function_of_function = "task",
    }

    for _, name in ipairs(sorted(require "attack_tasks")) do
      if name ~= "reach" then
        it("denies or contains: " .. name:gsub("_", " "), function()
          local pool = open({ read = { w.folder } }, { module = "attack_tasks",
            max_memory = 64 * 2 ^ 20 })
          local ok, got = pool:run(name, { w }, name == "endless" and { timeout = 0.05 } or nil)
            :pawait()
          if ok then
            assert.is_true(not got, "it got " .. tostring(got))
          else
            assert.equal(KINDS[name] or "permission", got.kind, tostring(got))
            assert.is_nil(tostring(got):find(TOKEN, 1, true))
          end
        end)
      end
    end
  end)

  describe("is told of:", function()
    it("what enforces each of its rules", function()
      local permissions = rules()
      permissions.memory, permissions.cpu, permissions.files = 2 ^ 30, 100, 100
      local told = open(permissions):permissions()
      assert.same({ read = "landlock", write = "landlock", run = "seccomp", net = "seccomp",
        env = "process", memory = "rlimit", cpu = "rlimit", files = "rlimit" }, told.enforced_by)
      assert.equal("process", told.runtime)
      assert.is_true(told.ffi)
      assert.equal("lua", open("strict",
        { module = "confined_tasks" }):permissions().enforced_by.ffi)
    end)
  end)

  describe("has what it was given:", function()
    it("programs", function()
      local pool = open({ run = { "/bin/echo" } }, { module = "confined_tasks" })
      assert.equal("hello\n", pool.call.popen("/bin/echo hello"):await())
      assert.is_true(pool.call.execute("/bin/ls / >/dev/null 2>&1"):await() ~= 0)
    end)

    it("programs, which get none of its descriptors", function()
      local permissions = rules()
      permissions.run, permissions.read = true, true
      local pool = open(permissions)
      local open_ones = pool:run(function()
        local file = io.popen 'for i in 1 3 4 5 6; do (eval ": >&$i") 2>/dev/null && echo $i; done'
        local text = file:read "*a"
        file:close()
        return text
      end):await()
      assert.equal("1\n", open_ones)
    end)

    it("variables, and no others", function()
      local pool = open({ env = { w.variable } }, { module = "confined_tasks" })
      assert.equal(TOKEN, pool.call.getenv(w.variable):await())
      local ok, err = pool.call.getenv("PATH"):pawait()
      assert.is_false(ok)
      assert.equal("permission", err.kind)
      local permissions = rules()
      permissions.env = { w.variable }
      local whole = open(permissions)
      assert.is_true(whole.call.ask_c_for_variable(w):await())
      w.variable, permissions = "PATH", w.variable
      assert.is_false(whole.call.ask_c_for_variable(w):await())
      w.variable = permissions
    end)

    it("ports, and no others", function()
      local permissions = rules()
      permissions.net = { connect = { 9 } }
      local pool = open(permissions)
      local ok, errno = pool.call.connect(10):await()
      assert.is_nil(ok)
      assert.equal(13, errno)
      ok, errno = pool.call.connect(9):await()
      assert.is_true(ok == 0 or errno == 111) -- nobody listens there
    end)

    it("sockets of any kind, but not other programs' abstract ones", function()
      local permissions = rules()
      permissions.net = true
      local pool = open(permissions)
      assert.equal("1/1", pool.call.open_any_socket():await())
      local ok, errno = pool.call.connect_to_abstract(w):await()
      assert.is_nil(ok)
      assert.equal(1, errno)
      ok, errno = open("unrestricted").call.connect_to_abstract(w):await()
      assert.is_true(ok == 0, errno)
    end)
  end)

  describe("takes no more than it was given:", function()
    it("memory, whoever asks for it", function()
      local permissions = rules()
      permissions.memory = 64 * 2 ^ 20
      local pool = open(permissions)
      assert.is_true(pool.call.allocate(2 ^ 20):await())
      assert.is_false(pool.call.allocate(65 * 2 ^ 20):await())
      local got, errno = pool.call.fill_files():await()
      assert.is_nil(got)
      assert.equal(1, errno)
      assert.is_true(pool.call.count_threads():await() < 100)
    end)

    it("memory, that of Lua #resident", function()
      local permissions = rules()
      permissions.memory = 64 * 2 ^ 20
      local pool = open(permissions)
      local ok, err = pool:run(function()
        local t = {}
        while true do
          t[#t + 1] = ("x"):rep(2 ^ 16) .. #t
        end
      end):pawait()
      assert.is_false(ok)
      assert.equal("memory", err.kind, tostring(err))
      assert.equal(7, pool.call.say(7):await())
    end)

    it("without a limit all of these are had", function()
      local pool = open(rules())
      assert.is_true(pool.call.allocate(65 * 2 ^ 20):await())
      assert.is_true(pool.call.count_descriptors():await() > 100)
    end)

    it("open descriptors", function()
      local permissions = rules()
      permissions.files = 64
      local pool = open(permissions)
      assert.is_true(pool.call.count_descriptors():await() < 64)
    end)

    it("processor time: a signal ends it, and its name is told", function()
      local permissions = rules()
      permissions.cpu = 1
      local pool = open(permissions)
      local ok, err = pool.call.burn():pawait()
      assert.is_false(ok)
      assert.equal("crashed", err.kind)
      assert.matches("SIGXCPU", err.message, 1, true)
      assert.equal(7, pool.call.say(7):await())
    end)
  end)

  it("leaves the host as it was", function()
    assert.equal(TOKEN, helpers.read(w.canary))
    assert.equal(TOKEN, helpers.read(w.victim))
    assert.equal("plain", helpers.read(w.folder .. "/plain.txt"))
    assert.equal(TOKEN, ffi.string(secret))
    assert.equal(TOKEN, os.getenv(w.variable))
    assert.equal("NoNewPrivs:\t0", helpers.read("/proc/self/status"):match "NoNewPrivs:%s+%d")
    local free = treadle.pool("tasks", { threads = 1 })
    assert.equal(42, free.call.add(40, 2):await())
    free:close()
  end)

  it("leaves no process", function()
    helpers.eventually(function()
      local id = C.treadle_attack_getpid()
      return helpers.read(("/proc/%d/task/%d/children"):format(id, id)) == ""
    end, "every process has ended")
  end)
end)
