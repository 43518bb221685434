--- A TCP server on copas whose handlers await tasks, and clients that ask and check it:
-- `luajit examples/copas_server.lua` (copas and LuaSocket are needed)
--
-- What it shows: `treadle.attach`: while a handler awaits its task, copas goes on with the others.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path -- the workers take this path over

local copas = require "copas"
local socket = require "socket"
local treadle = require "treadle"

local attachment = treadle.attach(copas)
local pool = treadle.pool("primes")

-- Answers each line "N" with "N PRIMES".
local server = assert(socket.bind("127.0.0.1", 0))
local _, port = server:getsockname()
copas.addserver(server, function(peer)
  local line = copas.receive(peer, "*l")
  while line do
    copas.send(peer, ("%s %d\n"):format(line, pool.call.count(tonumber(line)):await()))
    line = copas.receive(peer, "*l")
  end
end)

-- Asks one thing; the answers come in the order in which they are known.
local left = 0
local function ask(n, expected)
  left = left + 1
  copas.addthread(function()
    local client = socket.tcp()
    copas.connect(client, "127.0.0.1", port)
    copas.send(client, n .. "\n")
    local answer = copas.receive(client, "*l")
    print("client: " .. answer)
    assert(answer == n .. " " .. expected, "a wrong answer")
    client:close()
    left = left - 1
  end)
end

ask(2000000, 148933)
ask(1000, 168)
ask(10, 4)
while left > 0 do
  copas.step() -- a server would call copas.loop()
end
print "all answers are right"

server:close()
attachment:detach()
pool:close()
