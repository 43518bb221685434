--- A TCP server on cqueues whose coroutines await tasks, and clients that ask and check it:
-- `luajit examples/cqueues_server.lua` (cqueues is needed)
--
-- What it shows: `treadle.attach`: while a coroutine awaits its task, cqueues goes on with the
-- others, and the controller's loop ends when all is done.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path -- the workers take this path over

local cqueues = require "cqueues"
local socket = require "cqueues.socket"
local treadle = require "treadle"

local attachment = treadle.attach(cqueues)
local pool = treadle.pool("primes")
local controller = cqueues.new()

-- Answers each line "N" with "N PRIMES".
local server = socket.listen("127.0.0.1", 0)
assert(server:listen())
local _, _, port = server:localname()
local CLIENTS = { [2000000] = 148933, [1000] = 168, [10] = 4 }

controller:wrap(function()
  for _ in pairs(CLIENTS) do
    local peer = server:accept()
    controller:wrap(function()
      for line in peer:lines "*l" do
        peer:write(("%s %d\n"):format(line, pool.call.count(tonumber(line)):await()))
        peer:flush()
      end
      peer:close()
    end)
  end
end)

-- Each asks one thing; the answers come in the order in which they are known.
for n, expected in pairs(CLIENTS) do
  controller:wrap(function()
    local client = socket.connect("127.0.0.1", port)
    client:write(n .. "\n")
    client:flush()
    local answer = client:read "*l"
    print("client: " .. answer)
    assert(answer == n .. " " .. expected, "a wrong answer")
    client:close()
  end)
end

assert(controller:loop()) -- ends when all coroutines have
print "all answers are right"

server:close()
attachment:detach()
pool:close()
