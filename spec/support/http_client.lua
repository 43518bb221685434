--- A client that sends bytes and reads responses: luv beside `await`, in main code.
local helpers = require "helpers"
local treadle = require "treadle"
local uv = require "luv"

local methods = {}
local mt = { __index = methods }

local function await(f, what)
  if not f:wait(helpers.TIMEOUT) then
    error("waited in vain for " .. what, 3)
  end
  return f:await()
end

--- Send text; waits until the kernel has taken it, or returns at once a future of that.
-- @return nil or the error
function methods:send(text, at_once)
  local f, resolve = treadle.future()
  self.socket:write(text, function(err) resolve(err) end)
  return at_once and f or await(f, "a write")
end

function methods:start_reading()
  if self.is_reading then
    return
  end
  self.is_reading = true
  self.socket:read_start(function(err, data)
    if data then
      self.parts[#self.parts + 1] = data
    else
      self.ended = err or "end of file"
    end
    if self.wake then
      self.wake()
    end
  end)
end

-- Wait for more bytes.
-- @return whether there are any
function methods:more()
  if #self.parts == 0 and not self.ended then
    self:start_reading()
    local f, resolve = treadle.future()
    self.wake = resolve
    await(f, "bytes after: " .. self.input:sub(-200))
    self.wake = nil
  end
  if #self.parts == 0 then
    return false
  end
  self.input = self.input .. table.concat(self.parts)
  self.parts = {}
  return true
end

--- Read a response; nil at the end of file.
-- @tparam[opt] boolean no_body of a HEAD
function methods:response(no_body)
  local first, last
  repeat
    first, last = self.input:find("\r\n\r\n", 1, true)
  until first or not self:more()
  if not first then
    assert(self.input == "", self.input)
    return nil
  end
  local head = self.input:sub(1, first + 1)
  local response = { status = tonumber(head:match("^HTTP/1.1 (%d%d%d) ")), headers = {} }
  for name, value in head:gmatch("\n([^:\r]+): ([^\r]*)") do
    response.headers[name:lower()] = value
  end
  self.input = self.input:sub(last + 1)
  local length = no_body and 0 or tonumber(response.headers["content-length"] or 0)
  while #self.input < length do
    if not self:more() then
      return nil
    end
  end
  response.body = self.input:sub(1, length)
  self.input = self.input:sub(length + 1)
  return response
end

--- Send a request and read its response.
function methods:ask(target, method, body, fields)
  self:send(("%s %s HTTP/1.1\r\nHost: h\r\n%s%s\r\n%s"):format(method or "GET", target,
    body and ("Content-Length: %d\r\n"):format(#body) or "", fields or "", body or ""))
  return self:response(method == "HEAD")
end

--- Say that nothing more is sent.
function methods:shutdown()
  local f, resolve = treadle.future()
  self.socket:shutdown(function() resolve() end)
  await(f, "a shutdown")
end

--- Close it.
-- @tparam[opt] boolean resets whether the other side finds the connection reset
function methods:close(resets)
  local f, resolve = treadle.future()
  if resets then
    self.socket:close_reset(resolve)
  else
    self.socket:close(resolve)
  end
  await(f, "a close")
end

--- Connect to a port of this machine.
-- @return the client; or nil and the error
return function(port)
  local self = setmetatable({ socket = uv.new_tcp(), input = "", parts = {} }, mt)
  local f, resolve = treadle.future()
  self.socket:connect("127.0.0.1", port, resolve)
  local err = await(f, "a connection")
  if err then
    self:close()
    return nil, err
  end
  self.socket:nodelay(true)
  return self
end
