--- Tasks that do not end by themselves, and some that do. Each that is to be caught in the act
-- first writes a line to its log, if it is given one.
local ffi = require "ffi"
local treadle = require "treadle"

ffi.cdef [[
  int pthread_mutex_lock(void *);
  int sched_getaffinity(int, size_t, void *);
  int sched_setaffinity(int, size_t, const void *);
  int sched_setscheduler(int, int, const int *);
  int sched_yield(void);
]]

local M = {}

local function enter(log)
  if log then
    local file = assert(io.open(log, "a"))
    file:write("entered\n")
    file:close()
  end
end

function M.echo(...)
  return ...
end

function M.id()
  return treadle.worker.id
end

--- How often this state was asked, and how many loops it has begun.
function M.age()
  _G.spec_age = (_G.spec_age or 0) + 1
  return _G.spec_age, _G.spec_loops or 0
end

--- Computes a little.
function M.count(n)
  local sum = 0
  for _ = 1, n do
    sum = sum + 1
  end
  return sum
end

function M.note(log)
  enter(log)
end

function M.nap(log, seconds)
  enter(log)
  treadle.sleep(seconds or 1000)
  return "slept"
end

function M.boom()
  error({ code = 7 })
end

-- --- stuck in Lua --------------------------------------------------------------------------------

--- name -> a function that never returns.
local loops = {}

function loops.empty()
  while true do end
end

function loops.counting()
  local n = 0
  while true do
    n = n + 1
  end
end

function loops.tables()
  local t
  while true do
    t = { t and 1 }
  end
end

function loops.strings()
  local n = 0
  while true do
    n = #(tostring(n) .. "x")
  end
end

function loops.recursion()
  local function f(n)
    return n == 0 and 0 or 1 + f(n - 1)
  end
  while true do
    f(50)
  end
end

function loops.pcalls()
  while true do
    pcall(loops.counting)
  end
end

function loops.errors()
  while true do
    pcall(error, "x")
  end
end

function loops.coroutines()
  while true do
    coroutine.wrap(function()
      coroutine.yield()
    end)()
  end
end

function loops.in_coroutine()
  coroutine.wrap(loops.counting)()
end

function loops.sorting()
  while true do
    local list = { 5, 3, 9, 1, 7, 2 }
    table.sort(list, function(a, b)
      return a < b
    end)
  end
end

function loops.gsub()
  while true do
    ("aaaaaaaa"):gsub("a", function(c)
      return c:upper()
    end)
  end
end

function loops.interpreted()
  local function f()
    local n = 0
    while true do
      n = n + 1
    end
  end
  jit.off(f)
  f()
end

function loops.metamethod()
  local t = setmetatable({}, { __index = loops.counting })
  return t.x
end

--- A finalizer, in which no hook acts.
function loops.finalizer()
  local p = newproxy(true)
  getmetatable(p).__gc = loops.counting
  p = nil -- luacheck: ignore
  collectgarbage()
end

--- What lua_close finds at the end of the state does not end either.
function loops.finalizer_at_close()
  _G.spec_kept = newproxy(true)
  getmetatable(_G.spec_kept).__gc = loops.counting
  loops.counting()
end

--- The names of the loops.
function M.loops()
  local names = {}
  for name in pairs(loops) do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

function M.loop(name, log)
  _G.spec_loops = (_G.spec_loops or 0) + 1
  enter(log)
  return pcall(loops[name])
end

--- The loop while the results are encoded.
function M.result_loops(log)
  enter(log)
  return setmetatable({}, { __treadle_pack = loops.counting })
end

--- The same behind a wait.
function M.nap_then_loop(seconds, name, log)
  treadle.sleep(seconds)
  return M.loop(name, log)
end

function M.hold_then_loop(gate, log, name)
  M.hold(gate)
  return M.loop(name, log)
end

-- --- stuck in C ----------------------------------------------------------------------------------

--- One call into C of some 25 ms (18: 50, 19: 100, ...), that nothing ends early.
local function search(size)
  size = size or 17
  return (("a"):rep(size)):find(("a?"):rep(size) .. ("a"):rep(size) .. "b")
end

function M.stuck(log, size)
  enter(log)
  return search(size)
end

function M.nap_then_stuck(seconds, log, size)
  treadle.sleep(seconds)
  return M.stuck(log, size)
end

--- Until another thread unlocks the mutex at that address.
function M.lock(log, address)
  enter(log)
  return ffi.C.pthread_mutex_lock(ffi.cast("void *", ffi.cast("intptr_t", address)))
end

--- The same behind a wait for the gate.
function M.hold_then_lock(gate, log, address)
  M.hold(gate)
  return M.lock(log, address)
end

--- A finalizer that is stuck in C, and then in Lua.
function M.lock_then_loop(log, address)
  local p = newproxy(true)
  getmetatable(p).__gc = function()
    M.lock(log, address)
    loops.counting()
  end
  p = nil -- luacheck: ignore
  collectgarbage()
end

-- --- what makes it harder ------------------------------------------------------------------------

--- Turns the loop by itself: other jobs of the worker run within.
function M.turn_the_loop(log)
  enter(log)
  while true do
    treadle.poll(0.001)
  end
end

--- Calls its own pool and waits.
function M.nest(name, ...)
  return treadle.worker.pool.call[name](...):await()
end

--- The same with options for the call.
function M.nest_with(options, name, ...)
  return treadle.worker.pool:run(name, { ... }, options):await()
end

--- Makes a pool that has a stuck task, waits for that, and ends the pool, which no other would.
function M.inner_pool(name, log)
  local pool = treadle.pool("stop_tasks", { threads = 1 })
  local f = pool.call.loop(name, log)
  pcall(f.await, f)
  pool:terminate()
end

--- The same, and computes on.
function M.inner_pool_and_loop(name, log)
  _G.spec_inner = treadle.pool("stop_tasks", { threads = 1 })
  _G.spec_inner.call.loop(name)
  return M.loop(name, log)
end

--- Leaves behind what collects itself without an end, and more than 4 MB.
function M.litter()
  collectgarbage("stop")
  for _ = 1, 10 do
    getmetatable(newproxy(true)).__gc = loops.counting
  end
  _G.spec_litter = ("x"):rep(4e6)
  return "littered"
end

--- Asks for memory without an end: at once, bit by bit, or in spite of every refusal.
local hogs = {}

function hogs.tables()
  local list = {}
  repeat
    list[#list + 1] = { #list }
  until #list == 0
end

function hogs.string()
  local text = "x"
  while true do
    text = text .. text
  end
end

function hogs.pcalls()
  while true do
    pcall(hogs.string)
    pcall(hogs.tables)
  end
end

function M.hog(how)
  return hogs[how]()
end

-- --- late, but not stuck -------------------------------------------------------------------------

--- From now on this thread runs on the first processor that its process may use.
local function pin()
  local set, one = ffi.new "uint8_t[128]", ffi.new "uint8_t[128]"
  assert(ffi.C.sched_getaffinity(0, 128, set) >= 0)
  for i = 0, 1023 do
    local bit = 2 ^ (i % 8)
    if math.floor(set[i / 8] / bit) % 2 == 1 then
      one[i / 8] = bit
      break
    end
  end
  assert(ffi.C.sched_setaffinity(0, 128, one) == 0)
end

--- Compute on the first processor until the gate, a file, is there.
function M.compute_until(gate, log)
  pin()
  enter(log)
  local file
  repeat
    local n = 0
    for i = 1, 1e6 do
      n = n + i % 3
    end
    file = io.open(gate)
  until file
  file:close()
end

--- Compute there for ever, but let others go first again and again.
function M.loop_there(log)
  pin()
  enter(log)
  while true do
    local stop = treadle.now() + 3e-4
    repeat until treadle.now() >= stop
    ffi.C.sched_yield()
  end
end

local SCHED_IDLE = 5

--- From now on this thread has the first processor when nobody else wants it.
local function yield_place()
  pin()
  assert(ffi.C.sched_setscheduler(0, SCHED_IDLE, ffi.new("int[1]")) == 0)
end
M.yield_place = yield_place

--- Let others have the first processor for so long, at least. Among equals a yield would not do:
-- the kernel lets go first who has had less so far.
function M.stand_back(log, done_log, seconds)
  enter(log)
  yield_place()
  local stop = treadle.now() + seconds
  repeat
    ffi.C.sched_yield()
  until treadle.now() >= stop
  enter(done_log)
end
jit.off(M.stand_back) -- compiling it would take its time

function M.hold(gate, text)
  return require("tasks").hold(gate, text)
end

function M.recycle()
  treadle.worker.pool:recycle()
  return "asked"
end

function M.terminate(reason)
  treadle.worker.pool:terminate(reason)
  return "asked"
end

return M
