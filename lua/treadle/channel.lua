--- Messages from many to many: between all states, and between the coroutines of one.
-- Plain values go by the FFI, in a form that the JIT compiler can compile (bind/channel_face.c).
-- @classmod treadle.channel
local core = require "treadle.core"
local errors = require "treadle.error"
local loop = require "treadle.loop"
local options = require "treadle.options"
local share = require "treadle.share"

local NAME = "treadle.channel"

local M, methods = {}, {}

--- For treadle.stream, whose handles are as good as a channel's: `recv` without checks, and, where
-- there is an FFI, `put(channel or nil, value, spin)`, nil for the running job's stream, which
-- answers SENT, CLOSED, or something else when it must go the other way.
M.inner = {}

local may_spin = loop.may_spin

local function check(self, name)
  if getmetatable(self) ~= NAME then
    share.check(self, "channel", name, 2)
  end
end

local raise = errors.raise

local function closed()
  raise("closed", "the channel is closed")
end

local function refused(text)
  raise("payload", text)
end

--- What channel_recv has answered where there is a value, or none.
local function received(value, what)
  if what == true then
    return value, true
  elseif what == false then
    return nil, false, "closed"
  end
  refused(value)
end

--- The same after a wait.
local function granted(index, value, what)
  if index == nil then
    return nil, false, "timeout"
  end
  return received(value, what)
end

--- Receive in any case.
local function recv(self, timeout)
  local deadline = share.deadline(timeout)
  local value, what = core.channel_recv(self, timeout == nil or timeout > 0)
  if what == nil then
    return nil, false, "timeout"
  elseif type(what) == "userdata" then
    return granted(share.finish(deadline, value, what))
  end
  return received(value, what)
end

local function try_recv(self)
  local value, what = core.channel_recv(self, false)
  if what == nil then
    return nil, false, "empty"
  end
  return received(value, what)
end

--- Send in any case; whether it was sent, or what `share.finish` has returned.
local function send(self, value, timeout)
  local deadline = share.deadline(timeout)
  local sent, what = core.channel_send(self, value, timeout == nil or timeout > 0)
  if what == "payload" then
    refused(sent)
  elseif what ~= nil then
    local index, _, done = share.finish(deadline, sent, what)
    return index and done
  end
  return sent
end

--- The outcome of `send`.
local function sent(what)
  if what then
    return true
  elseif what == false then
    closed()
  end
  return false, "timeout"
end

local function try_send(self, value)
  local done, what = core.channel_send(self, value, false)
  if what == "payload" then
    refused(done)
  end
  return done or false, done == false and "closed" or done == nil and "full" or nil
end

local has_ffi, ffi = pcall(require, "ffi")
local face = core.channel_face()

if has_ffi and jit and jit.status() then
  local WAIT, CLOSED, SENT = face.WAIT, face.CLOSED, face.SENT
  local OTHER, NIL, FALSE, TRUE = face.OTHER, face.NIL, face.FALSE, face.TRUE
  local NUMBER, STRING = face.NUMBER, face.STRING
  local self = ffi.cast(face.declaration .. "*", face.self)
  local face_recv, taken = self.recv, self.taken
  local send_number, send_string, send_other = self.send_number, self.send_string, self.send_other

  --- The other ways.
  local any_recv, any_try_recv, any_send, any_try_send = recv, try_recv, send, try_send

  --- To be called protected: in an interpreter the pointer needs memory, too, and what needs memory
  -- may run a finalizer, which may have had the message put back, before the text is made or after.
  local function text_of(ticket)
    local pointer, length = self.text, self.length
    return self.ticket == ticket and ffi.string(pointer, length)
  end

  --- Make a value of what the face has received. If that was put back: `other(channel, timeout)`.
  local function open(channel, kind, other, timeout)
    if kind == NUMBER then
      return self.number, true
    elseif kind == NIL then
      return nil, true
    elseif kind == TRUE or kind == FALSE then
      return kind == TRUE, true
    end
    local ticket = self.ticket
    if kind == STRING then
      local ok, text = pcall(text_of, ticket)
      if ok and text and taken(self, ticket) ~= 0 then
        return text, true
      end
    end
    local value, what = core.channel_open(channel, ticket)
    if what == nil then
      return other(channel, timeout)
    end
    return received(value, what)
  end

  function recv(channel, timeout)
    local kind = face_recv(self, channel, timeout == nil and may_spin() and 1 or 0)
    if kind >= OTHER then
      return open(channel, kind, any_recv, timeout)
    elseif kind == CLOSED then
      return nil, false, "closed"
    end
    return any_recv(channel, timeout)
  end

  function try_recv(channel)
    local kind = face_recv(self, channel, 0)
    if kind >= OTHER then
      return open(channel, kind, any_try_recv)
    elseif kind == CLOSED then
      return nil, false, "closed"
    elseif kind == WAIT then
      return nil, false, "empty"
    end
    return any_try_recv(channel)
  end

  --- nil for what is not plain, too.
  local function put(channel, value, spin)
    local kind = type(value)
    if kind == "number" then
      return send_number(self, channel, value, spin)
    elseif kind == "string" then
      return send_string(self, channel, value, #value, spin)
    elseif kind == "boolean" then
      return send_other(self, channel, value and TRUE or FALSE, spin)
    elseif kind == "nil" then
      return send_other(self, channel, NIL, spin)
    end
    return 0
  end

  M.inner.put, M.inner.SENT, M.inner.CLOSED = put, SENT, CLOSED

  function send(channel, value, timeout)
    local answer = put(channel, value, timeout == nil and may_spin() and 1 or 0)
    if answer == SENT then
      return true
    elseif answer == CLOSED then
      return false
    end
    return any_send(channel, value, timeout)
  end

  function try_send(channel, value)
    local answer = put(channel, value, 0)
    if answer == SENT then
      return true
    elseif answer == CLOSED then
      return false, "closed"
    elseif answer == WAIT then
      return false, "full"
    end
    return any_try_send(channel, value)
  end
end

M.inner.recv = recv

--- Send one value: wait until there is room for it, or, in a channel without a buffer, until
-- somebody receives it.
-- @param value anything that a call could take as an argument
-- @tparam[opt] number timeout seconds; without it there is no limit
-- @return true; or false, "timeout"
-- @raise kind "closed", "payload"
function methods:send(value, timeout)
  check(self, "send")
  if timeout ~= nil then
    options.seconds(2, "send", timeout)
  end
  return sent(send(self, value, timeout))
end

--- Receive the value that was sent first: wait until there is one.
-- @tparam[opt] number timeout seconds; without it there is no limit
-- @return the value, true; or nil, false and why: "closed" (and nothing is left in it) or "timeout"
function methods:recv(timeout)
  check(self, "recv")
  if timeout ~= nil then
    options.seconds(1, "recv", timeout)
  end
  return recv(self, timeout)
end

--- Send if that needs no wait.
-- @return true; or false and why: "full" or "closed"
function methods:try_send(value)
  check(self, "try_send")
  return try_send(self, value)
end

--- Receive if that needs no wait.
-- @return the value, true; or nil, false and why: "empty" or "closed"
function methods:try_recv()
  check(self, "try_recv")
  return try_recv(self)
end

--- Iterate over what is received, until the channel is closed and empty: `for v in ch:iter() do`.
-- @treturn function receives the next value; needs no arguments
function methods:iter()
  check(self, "iter")
  return function()
    local value, ok = recv(self)
    if ok and value == nil then
      error("nil was received, which ends a for loop: receive it with recv", 2)
    end
    return value
  end
end

--- Close it, for everybody and for good: who waits to send, or sends, gets an error of kind
-- "closed"; what is in it can still be received.
function methods:close()
  check(self, "close")
  core.channel_close(self)
end

share.kind("channel", methods)

--- Make a channel.
-- @tparam[opt=0] number capacity how many messages it holds that nobody has received yet; 0: a
-- sender waits for its receiver; `math.huge`: as many as there is memory for
function M.new(capacity)
  if capacity == nil then -- a null pointer equals it, too
    capacity = 0
  end
  options.value(1, "channel", capacity, "limit")
  return core.channel_new(capacity)
end

local function bad_case(i, text, ...)
  options.bad_argument(1, "select", ("case %d: " .. text):format(i, ...), 3)
end

--- A list of cases, checked: nobody else has it, so that it cannot change.
local function cases_of(given)
  local cases = {}
  for i = 1, #given do
    local case = given[i]
    if type(case) ~= "table" then
      bad_case(i, "{ channel, \"recv\" } or { channel, \"send\", value } expected, got %s",
        type(case))
    elseif getmetatable(case[1]) ~= NAME then
      bad_case(i, "channel expected, got %s", type(case[1]))
    elseif case[2] ~= "recv" and case[2] ~= "send" then
      bad_case(i, "\"recv\" or \"send\" expected, got %s",
        type(case[2]) == "string" and ("'%s'"):format(case[2]) or type(case[2]))
    end
    cases[i] = { case[1], case[2], case[3] }
  end
  for key in pairs(given) do
    if key ~= "timeout" and not cases[key] then
      options.bad_argument(1, "select", ("unknown option '%s', did you mean 'timeout'?"):format(
        tostring(key)), 2)
    end
  end
  return cases
end

local function selected(cases, index, value, what)
  if index == nil then
    return nil, "timeout"
  elseif what == "payload" then
    refused(value)
  elseif what == false and cases[index][2] == "send" then
    closed()
  end
  return index, value, what
end

--- Do one of several things: the first that can be done, any of those that can be done now.
-- @tparam table given a list of `{ channel, "recv" }` and `{ channel, "send", value }`; `timeout`
-- seconds, 0 to try only
-- @return which case; the value; whether there was one (false: the channel is closed and empty); or
-- nil, "timeout"
-- @raise kind "closed" when the case sends and its channel is closed
function M.select(given)
  options.argument(1, "select", given, "table")
  local timeout = given.timeout
  if timeout ~= nil and (type(timeout) ~= "number" or timeout ~= timeout) then
    options.bad_argument(1, "select", ("option 'timeout': seconds expected, got %s"):format(
      type(timeout) == "number" and "nan" or type(timeout)))
  end
  local cases = cases_of(given)
  if #cases == 0 then
    options.bad_argument(1, "select", "a list of cases expected, got an empty one")
  elseif #cases > core.SELECT_MAX then
    options.bad_argument(1, "select", ("at most %d cases expected, got %d"):format(core.SELECT_MAX,
      #cases))
  end
  local deadline = share.deadline(timeout)
  local index, value, what = core.channel_select(cases, timeout == nil or timeout > 0)
  if type(index) == "table" then
    return selected(cases, share.finish(deadline, index, value))
  elseif what == "payload" and index == nil then
    refused(value)
  end
  return selected(cases, index, value, what)
end

return M
