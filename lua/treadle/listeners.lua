--- Who listens to something: entries with a function `fn` each, in the order in which they came.
-- @module treadle.listeners
local errors = require "treadle.error"

local M = {}

--- Enter somebody. `removed`, if it is there, is called when they have gone.
-- @tparam table list
-- @tparam table entry `fn`, and what else the list is for; `gone` is true from its end on
-- @treturn function takes it out again
function M.add(list, entry, removed)
  list[#list + 1] = entry
  return function()
    entry.gone = true -- what is on its way is not told any more
    for i, other in ipairs(list) do
      if other == entry then
        table.remove(list, i)
        break
      end
    end
    if removed then
      removed()
    end
  end
end

--- Those who listen now: a list that does not change when somebody comes or goes meanwhile.
-- @tparam[opt] string name only who listens to that
function M.copy(list, name)
  local copy = {}
  for _, entry in ipairs(list) do
    if name == nil or entry.name == name then
      copy[#copy + 1] = entry
    end
  end
  return copy
end

--- A listener has raised: that is its own.
function M.complain(err, name)
  errors.tell(("error in a listener to '%s': %s"):format(name, errors.text(err)))
end

return M
