--- The server as a part of a program: a pool for what takes long, and the loop for all else.
local treadle = require "treadle"

local http = require "server.http"
local route = require "server.routes"

local methods = {}
local mt = { __index = methods }

--- Run a task for a request and wait for it. It has the time that a request may take, in the queue
-- or running, and is cancelled when the client goes away.
-- @tparam table request
-- @tparam string name
-- @tparam table args
-- @tparam[opt] table transfer the buffers among them that are given away
-- @return its results
function methods:run(request, name, args, transfer)
  if not self.pool then
    return self.tasks[name](unpack(args, 1, 3))
  end
  return self.pool:run(name, args, {
    timeout = self.timeout, signal = request.signal, transfer = transfer,
  }):await()
end

--- Take no more connections, answer what was asked, end the pool.
-- @tparam[opt] number grace seconds; then what still runs is given up
function methods:close(grace)
  self.server:close(grace)
  if self.pool then
    self.pool:close()
  end
end

--- Start to serve.
-- @tparam table options `timeout` of a request that has a task; `threads`; `queue`, how many may
-- wait for one of them; or `inline`: no pool at all, everybody waits while a task runs, and no time
-- limit holds; `http`: what `http.serve` takes
-- @treturn table the app: `server`, `pool`, `run`, `close`
return function(options)
  local self = setmetatable({ timeout = options.timeout }, mt)
  local of_http = { handler = function(request) return route(request, self) end }
  for name, value in pairs(options.http or {}) do
    of_http[name] = value
  end
  self.server = http.serve(of_http) -- an address that is taken is an error before threads start
  if options.inline then
    self.tasks = require "server.tasks"
  else
    local ok, pool = pcall(treadle.pool, "server.tasks", {
      name = "server", threads = options.threads, max_queue = options.queue,
    })
    if not ok then
      self.server:close(0)
      error(pool, 0)
    end
    self.pool = pool
  end
  return self
end
