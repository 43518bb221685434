--- Tasks for the specs of channels.
local treadle = require "treadle"

local M = {}

function M.echo(...)
  return ...
end

function M.send(ch, ...)
  for i = 1, select("#", ...) do
    ch:send((select(i, ...)))
  end
end

--- The names of what a send raises.
function M.try(method, ch, ...)
  local got = { pcall(ch[method], ch, ...) }
  if not got[1] then
    return false, type(got[2]) == "table" and got[2].kind or tostring(got[2])
  end
  return unpack(got, 1, 4)
end

function M.recv(ch, timeout)
  return ch:recv(timeout)
end

--- What is never read to its end.
local Stuck, on_read = {}, nil

treadle.class("channel_tasks.Stuck", Stuck, function() return true end, function()
  on_read:set()
  while true do end
end)

function M.stuck()
  return setmetatable({}, Stuck)
end

--- Waits, and then reads such a thing.
function M.read_stuck(ch, entered)
  on_read = entered
  return treadle.select { { ch, "recv" } }
end

local kept

function M.send_moved(ch, buf)
  kept = buf
  ch:send(treadle.move(buf))
end

--- Nil if nothing was to be sent.
function M.was_moved()
  return kept and tostring(kept) == "treadle.buffer (moved)"
end

--- Receives all there is.
function M.drain(ch)
  local list = {}
  for v in ch:iter() do
    list[#list + 1] = v
  end
  return list
end

--- Sends back what it receives.
function M.reply(from, to)
  for v in from:iter() do
    to:send(v)
  end
  to:close()
end

--- Says that it is there, and receives.
function M.recv_after(ready, ch)
  ready:set()
  return ch:recv()
end

function M.drain_after(ready, ch)
  ready:set()
  return M.drain(ch)
end

function M.select(...)
  local cases = {}
  for i = 1, select("#", ...) do
    cases[i] = { select(i, ...), "recv" }
  end
  return treadle.select(cases)
end

--- Says that it is there, and does not let go of the worker.
function M.hold(ready, go)
  ready:set()
  while not go:is_set() do end
end

--- Passes one on, with no wait in between.
function M.pass(from, to)
  local v = from:recv()
  to:try_send(v)
end

--- Receives one, says so, and computes for ever.
function M.loop_after_recv(ch, got)
  local v = ch:recv()
  got:send(v)
  while true do end
end

function M.spin_on(ch)
  local n = 0
  while true do
    if ch:try_recv() then
      n = n + 1
    end
  end
end

--- One of those that contend: so many values through the channels, each value once; in several
-- coroutines, which send, receive, try, select and give up as the seed says. What it receives after
-- its own sends are over it takes from who still sends. Returns what it has done by channel.
function M.contend(id, seed, channels, count, done)
  local state = seed
  local function roll(n)
    state = (state * 1103515245 + 12345) % 2 ^ 31
    return math.floor(state / 2 ^ 16) % n + 1
  end
  local sends, recvs = {}, {}
  for i = 1, #channels do
    sends[i], recvs[i] = {}, {}
  end
  local made = 0
  local function note(list, value, began)
    list[#list + 1] = { value = value, began = began, ended = treadle.now() }
  end
  local function next_value()
    made = made + 1
    return made * 100 + id
  end
  local function limit()
    return roll(3) == 1 and nil or roll(40) * 1e-5
  end
  local function one_send(at)
    local value, began = next_value(), treadle.now()
    local ok
    if roll(3) == 1 then
      ok = channels[at]:try_send(value)
    else
      ok = channels[at]:send(value, roll(40) * 1e-5)
    end
    if ok then
      note(sends[at], value, began)
    end
  end
  local function one_recv(at)
    local began = treadle.now()
    local value, ok
    if roll(3) == 1 then
      value, ok = channels[at]:try_recv()
    else
      value, ok = channels[at]:recv(roll(40) * 1e-5)
    end
    if ok then
      note(recvs[at], value, began)
    end
  end
  local function one_select()
    local cases, ats = { timeout = limit() or 1e-4 }, {}
    for i = 1, roll(3) do
      ats[i] = roll(#channels)
      cases[i] = roll(2) == 1 and { channels[ats[i]], "recv" }
        or { channels[ats[i]], "send", next_value() }
    end
    local began = treadle.now()
    local index, value, ok = treadle.select(cases)
    if index and cases[index][2] == "send" then
      note(sends[ats[index]], cases[index][3], began)
    elseif index and ok then
      note(recvs[ats[index]], value, began)
    end
  end
  local fibers = {}
  for f = 1, 3 do
    fibers[f] = treadle.spawn(function()
      for _ = 1, count do
        local what = roll(5)
        if what <= 2 then
          one_send(roll(#channels))
        elseif what <= 4 then
          one_recv(roll(#channels))
        else
          one_select()
        end
      end
    end)
  end
  treadle.all(fibers):await()
  done:send(true)
  return sends, recvs
end

return M
