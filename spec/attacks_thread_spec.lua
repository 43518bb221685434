--- What hostile code tries in a strict pool of threads. Each attempt is denied or contained; at the
-- end the host is what it was before.
local ffi = require "ffi"
local helpers = require "helpers"
local treadle = require "treadle"

ffi.cdef [[
int treadle_attack_pipe(int *) __asm__("pipe");
int treadle_attack_memfd(const char *, unsigned) __asm__("memfd_create");
long treadle_attack_write(int, const void *, size_t) __asm__("write");
long treadle_attack_pread(int, void *, size_t, long) __asm__("pread");
int treadle_attack_close(int) __asm__("close");
int treadle_attack_getpid(void) __asm__("getpid");
int treadle_attack_setenv(const char *, const char *, int) __asm__("setenv");
int treadle_attack_unsetenv(const char *) __asm__("unsetenv");
]]
local C = ffi.C

local TOKEN = "the-host's-secret"

--- Attempts that may end with one of these kinds; the others end with "permission", or get nothing.
local KINDS = {
  exit = "task", huge_string = "memory", many_tables = "memory", endless = "timeout",
  deep = "task", send_function_home = "payload", send_builtin_home = "payload",
  send_function_on = "task", decode_function = "task", decode_builtin = "task",
  decode_module = "task", decode_array = "task", require_elsewhere = "task",
  require_bytecode = "task", list_lines = "task", change_input = "task", load_elsewhere = "task",
  output_elsewhere = "task", change_globals_of_treadle = "task", require_core = "task",
  change_globals_of_builtin = "task", require_internals = "task", profile_own_pool = "task",
  search_by_loader = "task", function_of_function = "task",
}

--- Looked at one by one below.
local APART = { reach = true }

local function names_of_attempts()
  local names = {}
  for name in pairs(require "attack_tasks") do
    if not APART[name] then
      names[#names + 1] = name
    end
  end
  table.sort(names)
  return names
end

local function shell(line)
  assert(os.execute(line) == 0, line)
end

describe("a strict pool of threads", function()
  local pool, w, done, pipe

  setup(function()
    done = helpers.watch()
    local file = assert(io.popen "mktemp -d")
    local elsewhere = file:read "*l"
    file:close()
    pipe = ffi.new "int[2]"
    assert(C.treadle_attack_pipe(pipe) == 0)
    w = {
      elsewhere = elsewhere, canary = elsewhere .. "/canary", folder = elsewhere .. "/folder",
      pipe = pipe[1], memfd = C.treadle_attack_memfd("canary", 0), pid = C.treadle_attack_getpid(),
      variable = "TREADLE_SPEC_SECRET", cpath = package.cpath,
      encoded_function = treadle.encode(function() return 1 end),
      encoded_builtin = treadle.encode(debug.getregistry),
      encoded_module = treadle.encode(function() return helpers end),
      encoded_array = treadle.encode(ffi.new "int[4]"),
    }
    assert(C.treadle_attack_write(w.memfd, TOKEN, #TOKEN) == #TOKEN)
    assert(C.treadle_attack_setenv(w.variable, TOKEN, 1) == 0)
    shell(("mkdir -p %s/sub/.git"):format(w.folder))
    helpers.write(w.canary, TOKEN)
    helpers.write(elsewhere .. "/evil.lua", "return '" .. TOKEN .. "'")
    helpers.write(w.folder .. "/plain.txt", "plain")
    helpers.write(w.folder .. "/.env", TOKEN)
    helpers.write(w.folder .. "/server.key", TOKEN)
    helpers.write(w.folder .. "/sub/.git/config", TOKEN)
    helpers.write(w.folder .. "/sub/other.txt", "other")
    helpers.write(w.folder .. "/bytecode.lua", string.dump(function() return "ran" end))
    for link, target in pairs {
      to_secret = ".env", to_canary = w.canary, to_memfd = "/proc/self/fd/" .. w.memfd,
    } do
      shell(("ln -s %s %s/%s"):format(target, w.folder, link))
    end
    pool = treadle.pool("attack_tasks", {
      threads = 1, isolate = true, timeout = helpers.TIMEOUT, name = "attacked",
      max_memory = 64 * 2 ^ 20,
      permissions = { read = { w.folder } },
    })
  end)

  teardown(function()
    pool:close()
    C.treadle_attack_close(pipe[0])
    C.treadle_attack_close(pipe[1])
    C.treadle_attack_close(w.memfd)
    C.treadle_attack_unsetenv(w.variable)
    shell("rm -rf " .. helpers.quote(w.elsewhere))
    done()
    helpers.clean()
  end)

  it("reads what it was given", function()
    assert.equal("plain", pool:run(function(path)
      local file = assert(io.open(path))
      local text = file:read "*a"
      file:close()
      return text
    end, { w.folder .. "/plain.txt" }):await())
    assert.equal("other", pool:run(function(path)
      return io.lines(path)()
    end, { w.folder .. "/sub/other.txt" }):await())
  end)

  for _, name in ipairs(names_of_attempts()) do
    it("denies or contains: " .. name:gsub("_", " "), function()
      local options = name == "endless" and { timeout = 0.05 } or nil
      local ok, got = pool:run(name, { w }, options):pawait()
      if ok then
        assert.is_true(not got, "it got " .. tostring(got))
      else
        assert.equal(KINDS[name] or "permission", got.kind, tostring(got))
        assert.is_nil(tostring(got):find(TOKEN, 1, true))
      end
    end)
  end

  it("shows no function that reaches further", function()
    local reached, beyond = {}, {}
    local list = pool:run("reach", {}):await()
    assert.is_true(#list > 100)
    for _, text in ipairs(list) do
      reached[text] = true
    end
    local forbidden = { "load", "loadstring", "loadfile", "dofile", "getfenv", "setfenv",
      "getmetatable", "require", "module", "package.loadlib", "package.seeall", "io.open",
      "io.lines", "io.input", "io.output", "io.popen", "io.tmpfile", "io.read", "os.execute",
      "os.remove", "os.rename", "os.tmpname", "os.getenv", "os.setlocale", "jit.attach" }
    for name in pairs(debug) do
      if name ~= "traceback" then
        forbidden[#forbidden + 1] = "debug." .. name
      end
    end
    for name in pairs(ffi) do
      forbidden[#forbidden + 1] = "ffi." .. name
    end
    local known = 0
    for _, name in ipairs(forbidden) do
      local library, key = name:match "^(%w+)%.(.+)$"
      local value
      if library == "ffi" then
        value = ffi[key]
      else
        value = library and _G[library][key] or not library and _G[name]
      end
      local text = tostring(value)
      if type(value) == "function" and text:find("builtin", 1, true) then
        known = known + 1
        beyond[#beyond + 1] = reached[text] and name or nil
      end
    end
    assert.is_true(known > 40)
    assert.same({}, beyond)
  end)

  it("leaves the host as it was", function()
    assert.equal(TOKEN, helpers.read(w.canary))
    assert.equal("plain", helpers.read(w.folder .. "/plain.txt"))
    assert.equal("", helpers.read(w.folder .. "/new.txt"))
    local buffer = ffi.new("char[?]", #TOKEN)
    assert.equal(#TOKEN, tonumber(C.treadle_attack_pread(w.memfd, buffer, #TOKEN, 0)))
    assert.equal(TOKEN, ffi.string(buffer, #TOKEN))
    assert.equal(TOKEN, os.getenv(w.variable))
    assert.equal("NoNewPrivs:\t0", helpers.read("/proc/self/status"):match "NoNewPrivs:%s+%d")
    local free = treadle.pool("tasks", { threads = 1 })
    assert.equal(42, free.call.add(40, 2):await())
    free:close()
  end)
end)
