--- Buffers in memory that other processes can have: `treadle.buffer(..., { process = true })`.
-- What another process sees of one, and may do with it, is shown by spec/c/region_test.c.
local helpers = require "helpers"
local lfs = require "lfs"
local treadle = require "treadle"

local atomics, error_here = treadle.atomics, helpers.error_here

local PROCESS = { process = true }

--- How many mappings of such memory this process has, and how many descriptors.
local function held()
  local maps, descriptors = 0, 0
  for line in io.lines("/proc/self/maps") do
    maps = maps + (line:find("/memfd:treadle (deleted)", 1, true) and 1 or 0)
  end
  for name in lfs.dir "/proc/self/fd" do
    local target = lfs.symlinkattributes("/proc/self/fd/" .. name, "target") or ""
    descriptors = descriptors + (target:find("^/memfd:treadle %(deleted%)$") and 1 or 0)
  end
  return { maps = maps, descriptors = descriptors }
end

local function is_held(n)
  assert.same({ maps = n, descriptors = n }, held())
end

describe("a buffer for processes", function()
  local pool

  before_each(function() pool = treadle.pool("buffer_tasks", { threads = 1 }) end)

  after_each(function()
    pool:terminate()
    helpers.eventually(function()
      require("jit").flush() -- a trace holds on to what it calls
      collectgarbage()
      treadle.poll()
      return held().maps == 0
    end, "a mapping is left")
    is_held(0)
  end)

  it("lies in a memory file, and others do not", function()
    local plain = treadle.buffer("double", 100000)
    local off = treadle.buffer("double", 100000, { process = false })
    is_held(0)
    local b = treadle.buffer("double", 100000, PROCESS)
    is_held(1)
    assert.equal(#plain, #b)
    assert.equal(#off, #b)
    b:close()
    is_held(0)
  end)

  it("is zeroed, and is used as any other", function()
    for _, n in ipairs { 0, 1, 511, 512, 513, 100000 } do
      local b = treadle.buffer("double", n, PROCESS)
      assert.equal(n, #b)
      assert.equal(("\0"):rep(n * 8), b:string())
      b:fill(0.5)
      assert.equal(n * 0.5, pool.call.sum(b):await())
      assert.same(n > 0 and { 0.5 } or {}, n > 0 and { b:slice(n - 1):get(0) } or {})
    end
  end)

  it("has the bytes of a string", function()
    local b = treadle.buffer("some text", PROCESS)
    assert.equal("some text", b:string())
    assert.equal(9, #b)
    assert.equal("some text", treadle.buffer("uint8_t", 9, PROCESS):copy_from(b):string())
    assert.equal(0, #treadle.buffer("", PROCESS))
    assert.equal("double", treadle.buffer("double", {}):string())
  end)

  it("stays as long as a slice does, and goes with the last handle in any state", function()
    local b = treadle.buffer("int", 1000, PROCESS)
    local part = b:slice(500)
    pool.call.keep(part):await()
    b:close()
    part:close()
    is_held(1)
    assert.equal(500, select(2, pool.call.look():await()))
    pool:close() -- with its worker's handles
    is_held(0)
  end)

  it("is given away, and comes back", function()
    local b = treadle.buffer("int", 1000, PROCESS)
    local back = pool.call.echo(treadle.move(b:fill(7))):await()
    assert.equal("the buffer was moved", error_here(function() b:get(0) end))
    assert.equal(7, back:get(999))
    is_held(1)
  end)

  it("has atomics, by which states wait for each other", function()
    local b = treadle.buffer("int32_t", 2, PROCESS)
    local f = pool.call.wait(b, 0, 0)
    while atomics.notify(b, 0) == 0 do
      treadle.poll(0)
    end
    assert.equal("ok", f:await())
    pool.call.add(b, 1, 100):await()
    assert.equal(100, atomics.load(b, 1))
  end)

  it("is not inherited by the programs that are started", function()
    local b = treadle.buffer("int", 1, PROCESS)
    local p = assert(io.popen("ls -l /proc/self/fd/"))
    local list = p:read "*a"
    p:close()
    assert.matches("%d+ %-> ", list)
    assert.is_nil(list:find("memfd:treadle (deleted)", 1, true))
    b:close()
  end)

  it("refuses options that are none", function()
    assert.equal("bad argument #3 to 'buffer' (unknown option 'proces', did you mean 'process'?)",
      error_here(function() treadle.buffer("int", 1, { proces = true }) end))
    assert.equal("bad argument #2 to 'buffer' (unknown option 'shared', did you mean 'process'?)",
      error_here(function() treadle.buffer("text", { shared = true }) end))
    assert.equal("bad argument #3 to 'buffer' (option 'process': a boolean expected, got 1)",
      error_here(function() treadle.buffer("int", 1, { process = 1 }) end))
    assert.equal("bad argument #3 to 'buffer' (table expected, got boolean)",
      error_here(function() treadle.buffer("int", 1, true) end))
    assert.matches("^bad argument #2 to 'buffer' %(a whole number of at least 0 expected, got nil",
      error_here(function() treadle.buffer("int", nil, PROCESS) end))
    assert.matches("^bad argument #1 to 'buffer' %(string expected, got number",
      error_here(function() treadle.buffer(1, PROCESS) end))
  end)

  it("that no machine holds is refused", function()
    for _, n in ipairs { 2 ^ 53, 2 ^ 50, 2 ^ 45 } do
      assert.matches("^not enough memory for a buffer of %d+ bytes",
        error_here(function() treadle.buffer("double", n, PROCESS) end))
    end
  end)

  it("is refused with the reason where no descriptor is left, no file may be so large", function()
    local program = helpers.write(helpers.new_path ".lua", [[
      local treadle, held = require "treadle", {}
      local ok, message
      repeat
        ok, message = pcall(treadle.buffer, "int", 4096, { process = true })
        held[#held + 1] = ok and message or nil
      until not ok
      print(message)
      if held[1] then
        held[1]:close()
        print(#treadle.buffer("int", 4096, { process = true }))
      end
    ]])
    local said = "cannot make a buffer of 16384 bytes for processes: "
    assert.equal(said .. "Too many open files\n4096\n",
      (helpers.shell("ulimit -n 40; exec luajit " .. helpers.quote(program))))
    assert.equal(said .. "File too large\n",
      (helpers.shell("ulimit -f 8; exec luajit " .. helpers.quote(program))))
  end)

  it("takes the descriptors of those that nobody has any more", function()
    local out, err = helpers.shell("ulimit -n 40; exec luajit " .. helpers.quote(
      helpers.write(helpers.new_path ".lua", [[
        local treadle, n = require "treadle", 0
        for _ = 1, 200 do
          n = n + #treadle.buffer("int", 1, { process = true })
        end
        print(n)
      ]])))
    assert.equal("200\n", out, err)
  end)
end)
