--- Processes of a pool are killed and stopped at random under a load of numbered calls: each call
-- is settled once, none runs twice unless it may, and nothing is left.
--
-- 500 kills, or TDL_KILLS; with TDL_FULL ten times as many. TDL_SEED repeats the choices.
package.path = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") .. "/../support/?.lua;"
  .. package.path
local helpers = require "helpers"
local kills = require "kills"
local processes = require "processes"
local treadle = require "treadle"

local KILLS = tonumber(os.getenv("TDL_KILLS")) or os.getenv("TDL_FULL") and 5000 or 500

--- Calls for each kill.
local CALLS = 200

local seed = tonumber(os.getenv("TDL_SEED")) or os.time()
print("# TDL_SEED=" .. seed)
math.randomseed(seed)

describe("random kills", function()
  local done = processes.watch()

  for name, ahead in pairs { ["in their queue"] = false, ["ahead of it"] = true } do
    it("lose what the process ran, and nothing that waits " .. name, function()
      local start = treadle.now()
      local counts = kills(CALLS * KILLS, KILLS, ahead)
      local list = {}
      for kind, n in pairs(counts) do
        list[#list + 1] = ("%d %s"):format(n, kind)
      end
      table.sort(list)
      print(("# %d calls, %d kills in %.1f s: %s"):format(CALLS * KILLS, KILLS,
        treadle.now() - start, table.concat(list, ", ")))
      done()
      helpers.clean()
    end)
  end
end)
