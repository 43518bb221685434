--- An HTTP/1.1 server on luv: each connection is a coroutine that reads like a plain program.
--
-- It takes one request after the other from a connection, calls the handler, which may wait, and
-- writes the answer before it looks at the next request: pipelined ones are answered in order, and
-- a client that does not read its answers gets no more of them. Meanwhile it goes on reading, up to
-- READ_AHEAD bytes, so that it learns when the client goes away: `request.signal` is aborted.
local ffi = require "ffi"
local treadle = require "treadle"
local uv = require "luv"

local message = require "server.message"

local http = {}

--- What `http.serve` takes, besides `handler`. Times are seconds, sizes are bytes.
local DEFAULTS = {
  host = "127.0.0.1",
  port = 8080, -- 0: any that is free
  backlog = 511,
  max_connections = 1000, -- more are answered with 503 and closed
  max_head = 16 * 1024, -- else 431, or 414 if it is all one line
  max_body = 16 * 1024 * 1024, -- else 413
  idle_timeout = 60, -- of a connection between two requests
  receive_timeout = 20, -- from a request's first byte to the end of its head, else 408
  min_rate = 64 * 1024, -- a body has that much longer: its length, divided by this
  write_timeout = 20, -- for each WRITE_CHUNK bytes of an answer
  linger_timeout = 2, -- how long to read on after the last answer, see methods:finish
  half_closed = false, -- whether a client that has ended its side still waits for its answer
  on_error = function(err, request) -- what a handler raised; the client is told 500
    io.stderr:write(("%s %s: %s\n"):format(request.method, request.path, tostring(err)))
  end,
}

local READ_AHEAD = 64 * 1024
local WRITE_CHUNK = 64 * 1024

local function nothing() end

-- A write to a client that is gone has to be an error of that write. By default it is a signal that
-- ends the process, and luv leaves it so.
ffi.cdef "void (*signal(int number, intptr_t handler))(int);"
local SIGPIPE, SIG_IGN = 13, 1

-- --- connections -------------------------------------------------------------------------------

local methods = {}
local mt = { __index = methods }

-- Wait until `self.wake(why)` is called, or the time is over: "late". What a callback says while
-- nobody waits is found in the connection's fields.
function methods:wait(seconds)
  local news, resolve = treadle.future()
  self.wake = resolve
  uv.update_time() -- a handler may have computed since
  self.timer:start(math.max(math.ceil(seconds * 1000), 1), 0, self.on_timer)
  local why = news:await()
  self.wake = nil
  self.timer:stop()
  return why
end

-- Wait until there is more in `input`.
-- @return true; or false, and "late", "ended" or "closing"
function methods:more(seconds)
  if self.ended then
    return false, "ended"
  end
  if self.paused then
    self.paused = false
    self.socket:read_start(self.on_read)
  end
  self.reading = true
  local why = self:wait(seconds)
  self.reading = false
  return why == "data", why
end

-- A callback of luv's: it may not wait.
local function on_read(self, err, data)
  if data then
    self.input = self.input:sub(self.at) .. data
    self.at = 1
    if not self.reading and #self.input > READ_AHEAD then
      self.paused = true
      self.socket:read_stop()
    end
  else
    self.ended = err or "end of file"
    if err or not self.server.options.half_closed then
      self.abort:abort("the client has gone")
    end
  end
  if self.reading then
    self.wake(data and "data" or "ended")
  end
end

-- @return whether all of it was taken
function methods:write(data)
  local sent, _, name = self.socket:try_write(data)
  if sent == #data then
    return true
  elseif not sent and name ~= "EAGAIN" then
    return false
  end
  local pending = true
  local ok = self.socket:write(data:sub((sent or 0) + 1), function(err)
    pending = false
    if self.wake and not self.reading then
      self.wake(err and "failed" or "written")
    end
  end)
  if not ok then
    return false
  end
  local why = self:wait(self.server.options.write_timeout)
  return not pending and why == "written"
end

function methods:respond(response, request, keep_alive)
  local body = response.body or ""
  local status = response.status or 200
  local length = #body
  local head = message.head(status, response.headers or {}, length, keep_alive)
  local counts = self.server.counts
  counts[status] = (counts[status] or 0) + 1
  if length == 0 or request and request.method == "HEAD" then
    return self:write(head)
  elseif type(body) == "string" and length <= WRITE_CHUNK then
    return self:write(head .. body)
  end
  local ok = self:write(head)
  for first = 0, length - 1, WRITE_CHUNK do
    if not ok then
      break
    end
    local n = math.min(WRITE_CHUNK, length - first)
    local is_text = type(body) == "string"
    ok = self:write(is_text and body:sub(first + 1, first + n) or body:string(first, n))
  end
  return ok
end

-- Take the next request's head from the input.
-- @return its text and when its time is over; or nil and a status, if one is to be sent
function methods:receive_head()
  local options = self.server.options
  while self.at > #self.input do
    if self.server.closing then
      return nil
    end
    self.idle = true
    local ok = self:more(options.idle_timeout)
    self.idle = false
    if not ok then
      return nil
    end
  end
  local deadline, looked = treadle.now() + options.receive_timeout, 0
  while true do
    while self.input:find("^\r\n", self.at) do
      self.at = self.at + 2 -- an empty line before a request does no harm
    end
    local input, at = self.input, self.at
    local first, last = input:find("\n\r?\n", at + looked)
    local length = (first or #input) - at + 1
    if length > options.max_head then
      return nil, input:find("\n", at, true) and 431 or 414
    elseif first then
      self.at = last + 1
      if last - first ~= 2 then
        return nil, 400
      end
      return input:sub(at, first), deadline
    end
    looked = math.max(length - 2, 0)
    local ok, why = self:more(deadline - treadle.now())
    if not ok then
      return nil, why == "late" and 408 or nil
    end
  end
end

-- The request's body, in memory that can be given to a task as it is.
-- @return a `treadle.buffer` of bytes; or nil and a status, if one is to be sent
function methods:receive_body(request, deadline)
  if request.expects and not self:write("HTTP/1.1 100 Continue\r\n\r\n") then
    return nil
  end
  local length, have = request.length, 0
  local body = treadle.buffer("uint8_t", length)
  deadline = deadline + length / self.server.options.min_rate
  while true do
    local n = math.min(#self.input - self.at + 1, length - have)
    ffi.copy(body.ptr + have, ffi.cast("const char *", self.input) + self.at - 1, n)
    self.at, have = self.at + n, have + n
    if have == length then
      return body
    end
    local ok, why = self:more(deadline - treadle.now())
    if not ok then
      body:close()
      return nil, why == "late" and 408 or nil
    end
  end
end

-- @return a request; or nil and the status to refuse it with; or nil: there is none any more
function methods:receive()
  local head, deadline = self:receive_head()
  if not head then
    return nil, deadline
  end
  local request, status = message.parse(head)
  if not request then
    return nil, status
  elseif request.length > self.server.options.max_body then
    return nil, 413
  elseif request.length > 0 then
    request.body, status = self:receive_body(request, deadline)
    if not request.body then
      return nil, status
    end
  end
  request.signal = self.abort.signal
  return request
end

-- @return whether the connection can go on
function methods:answer(request)
  local server = self.server
  server.counts.requests = server.counts.requests + 1
  local ok, response = xpcall(server.options.handler, function(err)
    return type(err) == "string" and debug.traceback(err) or err
  end, request)
  if request.body then
    request.body:close()
  end
  if not ok then
    if request.signal.aborted then
      server.counts.gone = server.counts.gone + 1
      return false
    end
    server.options.on_error(response, request)
    response = { status = 500 }
  end
  local keep_alive = request.keep_alive and not server.closing
  ok = self:respond(response, request, keep_alive)
  if type(response.body) == "userdata" then
    response.body:close()
  end
  return ok and keep_alive
end

function methods:serve()
  while true do
    local request, status = self:receive()
    if status then
      self.server.counts.refused = self.server.counts.refused + 1
      self:respond({ status = status }, nil, false)
    end
    if not request then
      return self:finish(status ~= nil)
    elseif not self:answer(request) then
      return self:finish(true)
    end
  end
end

-- Close the connection. If there was an answer, what the client still sends must be read: closing a
-- socket that has unread data resets the connection, and the answer may be lost on the way.
function methods:finish(lingers)
  if lingers and not self.ended then
    self.socket:shutdown(nothing)
    local deadline = treadle.now() + self.server.options.linger_timeout
    repeat
      self.input, self.at = "", 1
      local left = deadline - treadle.now()
    until left <= 0 or not self:more(left)
  end
  self:close()
end

function methods:close()
  local server = self.server
  if not server.connections[self] then
    return
  end
  self.ended = self.ended or "closed"
  self.timer:close()
  self.socket:close()
  server.connections[self] = nil
  server.counts.connections = server.counts.connections - 1
  if server.closing and server.counts.connections == 0 then
    server.resolve_drained()
  end
end

-- Give the connection up, wherever it is.
function methods:drop(reason)
  self.ended = self.ended or reason
  self.abort:abort(reason)
  if self.wake then
    self.wake("ended")
  end
end

local function open_connection(server, socket)
  local self = setmetatable({
    server = server, socket = socket, timer = uv.new_timer(), abort = treadle.abort(),
    input = "", at = 1, -- what has arrived, and where what nobody has taken begins
    idle = false, -- whether it waits for a request of which nothing has come
    reading = false, paused = false, ended = nil, wake = nil,
  }, mt)
  self.on_timer = function()
    if self.wake then
      self.wake("late")
    end
  end
  self.on_read = function(err, data)
    on_read(self, err, data)
  end
  server.connections[self] = true
  server.counts.connections = server.counts.connections + 1
  server.counts.accepted = server.counts.accepted + 1
  socket:nodelay(true)
  socket:read_start(self.on_read)
  treadle.spawn(function()
    local ok, err = xpcall(self.serve, debug.traceback, self)
    if not ok then
      io.stderr:write("http: ", tostring(err), "\n")
      self:close()
    end
  end)
end

-- --- the server --------------------------------------------------------------------------------

local server_methods = {}
local server_mt = { __index = server_methods }

local function on_connection(server, err)
  local socket = uv.new_tcp()
  if err or not server.listener:accept(socket) then
    socket:close() -- it was gone, or there are no descriptors left
  elseif server.counts.connections >= server.options.max_connections then
    socket:try_write(message.head(503, { ["Retry-After"] = "1" }, 0, false))
    socket:close()
  else
    open_connection(server, socket)
  end
end

--- Take no more connections; those that wait for a request are closed, the others when they have
-- answered theirs. Returns when there are none left: yields in a coroutine, runs the loop outside.
-- @tparam[opt=math.huge] number grace seconds; then what is still there is given up
function server_methods:close(grace)
  if not self.closing then
    self.closing = true
    self.listener:close()
    for connection in pairs(self.connections) do
      if connection.idle then
        connection.wake("closing")
      end
    end
    if self.counts.connections == 0 then
      self.resolve_drained()
    end
  end
  if not self.drained:wait(grace or math.huge) then
    for connection in pairs(self.connections) do
      connection:drop("the server ends")
    end
    self.drained:await()
  end
end

--- Start to serve.
-- @tparam table options see DEFAULTS, and `handler(request)`, which returns a response: a table of
-- `status`, `headers` and `body`, a string or a `treadle.buffer` of bytes. The handler runs in a
-- coroutine; what it waits for should end when `request.signal` is aborted
-- @return the server: `host`, `port`, `counts`, `close`
function http.serve(options)
  local all = { handler = assert(options.handler, "http.serve needs a handler") }
  for name, default in pairs(DEFAULTS) do
    all[name] = default
  end
  for name, value in pairs(options) do
    assert(name == "handler" or DEFAULTS[name] ~= nil, "http.serve: unknown option " .. name)
    all[name] = value
  end
  ffi.C.signal(SIGPIPE, SIG_IGN)
  local listener = uv.new_tcp()
  local self = setmetatable({
    options = all, listener = listener, connections = {}, closing = false,
    counts = { connections = 0, accepted = 0, requests = 0, refused = 0, gone = 0 },
  }, server_mt)
  self.drained, self.resolve_drained = treadle.future()
  local ok, err = listener:bind(all.host, all.port)
  if ok then
    ok, err = listener:listen(all.backlog, function(listen_err)
      on_connection(self, listen_err)
    end)
  end
  if not ok then
    listener:close()
    error(("cannot listen on %s:%d: %s"):format(all.host, all.port, err), 0)
  end
  self.host, self.port = all.host, listener:getsockname().port
  return self
end

return http
