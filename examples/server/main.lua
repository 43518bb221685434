--- An HTTP server whose heavy requests run in a pool, so that the cheap ones do not wait for them:
-- `treadle examples/server/main.lua` or `luajit examples/server/main.lua`, then `curl` it.
--
-- It prints the address on which it listens, and serves until SIGINT or SIGTERM: then it takes no
-- more connections, answers what was asked, prints how many requests it had, and ends. A second
-- signal ends it at once. Wrong arguments exit with 2, an address that is taken with 1.
--
-- What is where: routes.lua says what is answered, tasks.lua what runs in the pool, app.lua joins
-- the two with http.lua, an HTTP/1.1 layer on luv that knows nothing of them.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "../?.lua;" .. package.path -- the workers take this path over

local treadle = require "treadle"
local uv = require "luv"

local new_app = require "server.app"

local USAGE = [[
usage: treadle examples/server/main.lua [OPTION...]
  --host ADDRESS    to listen on (127.0.0.1)
  --port N          0 for any that is free (8080)
  --threads N       workers of the pool (one for each processor)
  --queue N         requests that may wait for a worker, else 503 (64)
  --timeout SECONDS that a heavy request may take, waiting included, else 504 (10)
  --grace SECONDS   that requests in progress may take when the server ends (10)
  --inline          run everything in the loop, for comparison
]]

local arguments = require "arguments"("server", USAGE)

local NUMBERS = { -- smallest, largest, step
  port = { 0, 65535, 1 }, threads = { 1, 1024, 1 }, queue = { 0, 1e6, 1 },
  timeout = { 0.001, 86400, 0 }, grace = { 0, 86400, 0 },
}

local function read_options(words)
  local options = { host = "127.0.0.1", port = 8080, queue = 64, timeout = 10, grace = 10 }
  local i = 1
  while i <= #words do
    arguments:help(words[i])
    local name, word = words[i]:match("^%-%-(%l+)$"), words[i + 1]
    local range = NUMBERS[name]
    if name == "inline" then
      options.inline = true
      i = i - 1
    elseif name == "host" and word then
      options.host = word
    elseif range then
      local n = tonumber(word)
      if not n or n < range[1] or n > range[2] or range[3] == 1 and n % 1 ~= 0 then
        arguments:fail("--%s needs a %snumber from %g to %g, got '%s'", name,
          range[3] == 1 and "whole " or "", range[1], range[2], word or "nothing")
      end
      options[name] = n
    else
      arguments:fail("unknown option '%s'", words[i])
    end
    i = i + 2
  end
  options.http = { host = options.host, port = options.port }
  return options
end

-- A future of the first of these signals; the next one does what it does by default.
local function ended_by(...)
  local future, resolve = treadle.future()
  local handles = {}
  for i, name in ipairs { ... } do
    handles[i] = uv.new_signal()
    handles[i]:start(name, function()
      for _, handle in ipairs(handles) do
        handle:close()
      end
      resolve(name)
    end)
  end
  return future
end

local function main(words)
  local options = read_options(words)
  local ended = ended_by("sigint", "sigterm")
  local ok, app = pcall(new_app, options)
  if not ok then
    io.stderr:write("server: ", tostring(app), "\n")
    os.exit(1)
  end
  print(("listening on http://%s:%d, %s"):format(app.server.host, app.server.port,
    app.pool and ("%d threads"):format(app.pool.threads) or "all in one thread"))
  io.stdout:flush()

  local name = ended:await()
  app:close(options.grace)
  print(("%s: ended after %d requests"):format(name:upper(), app.server.counts.requests))
end

main { ... }
