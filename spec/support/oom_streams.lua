--- A program of streams for the test that runs out of memory: what was received is a beginning of
-- what was emitted, all of it where the call resolves.
local treadle = require "treadle"
require "treadle.channel"
local BUFFER = require("treadle.core").STREAM_BUFFER

local M = {}

local MOST = 3
local pool
local made, count = {}, 0
for i = 1, 20 do
  made[i] = false -- to keep one needs no memory
end

local function keep(f)
  count = count + 1
  made[count] = f
  return f
end

local refusal

--- The outcome of a refused request may also be that a worker cannot start.
local function check_error(err)
  local text = tostring(err)
  if not (refusal and (text:find("memory", 1, true) or text:find("pool is closed", 1, true)
      or text:find("state was lost", 1, true))) then
    error("unexpected: " .. text, 0)
  end
end

local function number_of(value)
  return type(value) == "table" and value[1] or tonumber(tostring(value):match("^%d+"))
end

--- Receive what `f` emits: all of it, unless there was no memory.
local function consume(f, n)
  local last = 0
  local ok, err = pcall(function()
    for v in f:stream() do
      local i = number_of(v)
      assert(i == last + 1, "out of order")
      last = i
    end
  end)
  if not ok then
    check_error(err)
    f:cancel() -- or the task waits for somebody to go on
  elseif last ~= n then
    error(("%d values of %d"):format(last, n), 0)
  end
end

local function expect(f, value)
  local ok, result = f:pawait()
  if not ok and result.kind ~= "cancelled" then
    check_error(result)
  elseif ok and result ~= value then
    error("wrong result", 0)
  end
end

--- `refuse` begins to count requests, one of which is refused if `is_refused`.
function M.run(refuse, is_refused)
  refusal = is_refused
  refuse()
  pool = treadle.pool("oom_tasks", { threads = 1, concurrency = 4 })
  local call = pool.call
  local some, more = math.min(MOST, BUFFER), 3 * MOST
  local kept = keep(call.emit(some))
  local first, second = keep(call.emit(more)), keep(call.emit(more))
  local both = keep(treadle.spawn(function() consume(second, more) end))
  consume(first, more)
  expect(both, nil)
  expect(first, more)
  expect(second, more)
  expect(kept, some)
  consume(kept, some)
  consume(keep(call.relay(more)), more)
  consume(keep(call.emit(keep(call.add(some, 0)))), some)
  consume(keep(pool:run("emit", { some }, { retries = 1 })), some)
  expect(keep(call.emit(BUFFER + 3)), BUFFER + 3) -- nobody asks
  local left = keep(call.emit(BUFFER + 3))
  left:stream()()
  left:cancel()
  pool:close()
end

--- There is memory again: every future is settled, and the pool ends.
function M.settle()
  for i = 1, count do
    made[i]:cancel()
    made[i]:wait()
    assert(made[i]:state() ~= "pending")
  end
  if pool then
    pool:close()
  end
  pool, made, count = nil, {}, 0
  local other = treadle.pool("oom_tasks", { threads = 1 })
  refusal = false
  consume(other.call.emit(5), 5)
  other:close()
end

return M
