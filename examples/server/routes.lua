--- What the server answers: a function of a request for each path and method.
--
-- The cheap ones answer at once. The others give their work away with `app.run`, which waits for it
-- in this request's coroutine while the loop serves everybody else.
local uv = require "luv"

local json = require "server.json"

local MAX_ROUNDS = 1e9
local SALT_BYTES = 16

local routes = {}

-- Raised where a request is wrong; the tasks raise such tables, too.
local function refuse(status, text)
  error({ status = status, text = text }, 0)
end

local function text(status, body, headers)
  headers = headers or {}
  headers["Content-Type"] = "text/plain; charset=utf-8"
  return { status = status, headers = headers, body = body .. "\n" }
end

-- A whole number from the query.
local function number(request, name, default, most)
  local word = request.query[name]
  local n = word == nil and default or word:find("^%d+$") and tonumber(word, 10)
  if not n or n < 1 or n > most then
    refuse(400, ("%s has to be a whole number from 1 to %d"):format(name, most))
  end
  return n
end

local function hex(bytes)
  return (bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

routes["/"] = {
  GET = function()
    return text(200, "try /health, /stats, /hash?rounds=20000, /thumbnail?size=200, /page?rows=500")
  end,
}

routes["/health"] = {
  GET = function()
    return text(200, "ok")
  end,
}

routes["/stats"] = {
  GET = function(_, app)
    return {
      headers = { ["Content-Type"] = "application/json", ["Cache-Control"] = "no-store" },
      body = json {
        server = app.server.counts,
        heap = collectgarbage("count") * 1024,
        pool = app.pool and app.pool:stats(),
      },
    }
  end,
}

local function hash(request, app)
  local rounds = number(request, "rounds", 20000, MAX_ROUNDS)
  local salt = request.query.salt or hex(uv.random(SALT_BYTES))
  local password = request.body and request.body:string() or "a password for show"
  local digest = app:run(request, "hash", { password, salt, rounds })
  return {
    headers = { ["Content-Type"] = "application/json", ["Cache-Control"] = "no-store" },
    body = json { rounds = rounds, salt = salt, hash = digest },
  }
end

routes["/hash"] = { GET = hash, POST = hash } -- posted: the body is the password

local function thumbnail(request, app)
  local size = number(request, "size", 200, 1600)
  -- The body is given away: from here on the task alone has it, and nothing was copied.
  local file = app:run(request, "thumbnail", { size, request.body }, { request.body })
  return { headers = { ["Content-Type"] = "image/png" }, body = file }
end

routes["/thumbnail"] = { GET = thumbnail, POST = thumbnail } -- posted: the body is a PPM file

routes["/page"] = {
  GET = function(request, app)
    local rows = number(request, "rows", 500, 100000)
    local page = app:run(request, "page", { request.query.title or "Square roots", rows })
    return { headers = { ["Content-Type"] = "text/html; charset=utf-8" }, body = page }
  end,
}

local function allowed(methods)
  local names = {}
  for name in pairs(methods) do
    names[#names + 1] = name
    names[#names + 1] = name == "GET" and "HEAD" or nil
  end
  table.sort(names)
  return table.concat(names, ", ")
end

-- What a client is told of a call that failed; nil: it is the server's fault.
local STATUS_OF_KIND = {
  timeout = { 504, "this took too long" },
  queue_full = { 503, "the server is busy" },
  closed = { 503, "the server ends" },
}

local function failure(err)
  if type(err) ~= "table" then
    return nil
  end
  local own = err.status and err or err.kind == "task" and type(err.value) == "table" and err.value
  if own and own.status then
    return text(own.status, own.text)
  end
  local row = STATUS_OF_KIND[err.kind]
  return row and text(row[1], row[2], row[1] == 503 and { ["Retry-After"] = "1" } or nil)
end

--- Answer a request.
-- @tparam table app
-- @treturn table the response
return function(request, app)
  local methods = routes[request.path]
  if not methods then
    return text(404, "there is nothing here")
  end
  local handler = methods[request.method == "HEAD" and "GET" or request.method]
  if not handler then
    return text(405, "not like this", { Allow = allowed(methods) })
  end
  local ok, response = pcall(handler, request, app)
  if ok then
    return response
  end
  return failure(response) or error(response, 0)
end
