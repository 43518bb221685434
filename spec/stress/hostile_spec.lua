--- A worker's process attacks its host by all that they share, at random: the host neither crashes,
-- hangs, nor reads what is not there (which the asan variant would see).
--
-- 200 attacks, or TDL_ATTACKS; with TDL_FULL ten times as many. TDL_SEED repeats them.
package.path = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") .. "/../support/?.lua;"
  .. package.path
local helpers = require "helpers"
local hostile = require "hostile"
local processes = require "processes"

local ATTACKS = tonumber(os.getenv("TDL_ATTACKS")) or os.getenv("TDL_FULL") and 2000 or 200

local seed = tonumber(os.getenv("TDL_SEED")) or os.time()
print("# TDL_SEED=" .. seed)
math.randomseed(seed)

describe("attacks by a process", function()
  local done = processes.watch()

  teardown(function()
    done()
    helpers.clean()
  end)

  for part = 1, 10 do
    it("end with the process, part " .. part, function()
      local list = {}
      for name, n in pairs(hostile(ATTACKS / 10)) do
        list[#list + 1] = ("%d %s"):format(n, name)
      end
      table.sort(list)
      print(("# %d attacks: %s"):format(ATTACKS / 10, table.concat(list, ", ")))
    end)
  end
end)
