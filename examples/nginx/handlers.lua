--- What the requests of nginx.conf run, in the worker process: nothing here computes for long.
local treadle = require "treadle"

local MOST_ROUNDS = 1e7
local SECONDS = 10

local M = {}

local pool

function M.start()
  treadle.attach "nginx"
  pool = treadle.pool("tasks", { threads = 1, max_queue = 100, timeout = SECONDS, name = "hash" })
end

function M.stop()
  pool:close(1)
end

-- What a client may be told, by the kind of error.
local STATUS = { timeout = 504, queue_full = 503, cancelled = 499 }

local function fail(err)
  ngx.status = STATUS[err.kind] or 500
  if ngx.status == 500 then
    ngx.log(ngx.ERR, tostring(err)) -- nginx itself cannot print an error that is no string
  end
  ngx.say(err.kind)
end

local function arguments()
  local rounds = tonumber(ngx.var.arg_rounds or 10000)
  if not rounds or rounds < 1 or rounds > MOST_ROUNDS then
    ngx.status = 400
    ngx.say("rounds: a number from 1 to ", MOST_ROUNDS)
    return ngx.exit(400)
  end
  return ngx.unescape_uri(ngx.var.arg_password or ""), rounds
end

function M.hash()
  local password, rounds = arguments()
  local future = pool.call.hash(password, "salt", rounds)
  ngx.on_abort(function()
    future:cancel { reason = "the client has gone", force = true }
    ngx.exit(499)
  end)
  local ok, result = future:pawait() -- other requests are served meanwhile
  if ok then
    ngx.say(result)
  else
    fail(result)
  end
end

function M.inline()
  local password, rounds = arguments()
  ngx.say(require("tasks").hash(password, "salt", rounds)) -- nobody is served meanwhile
end

function M.stats()
  local stats = pool:stats()
  ngx.say(("process %d: %d running, %d done, %d cancelled, %d failed"):format(ngx.worker.pid(),
    stats.running, stats.done, stats.cancelled, stats.failed))
end

return M
