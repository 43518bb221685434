--- Whether a state uses luv, and where its callbacks run. What such a state waits in is luv_loop's.
-- @module treadle.luv
local M = {}

--- Whether luv has been loaded, by whomever.
function M.is_loaded()
  return package.loaded.luv ~= nil
end

--- luv runs its callbacks in the coroutine that loaded it. One of a task or of `treadle.run` would
-- be dead or collected by then, so there it is loaded in a coroutine of its own, which stays.
local function open(loader, name)
  local co, is_main = coroutine.running()
  if not co or is_main then
    return loader(name)
  end
  local home = coroutine.create(loader)
  debug.getregistry()["treadle.luv"] = home
  local ok, result = coroutine.resume(home, name)
  if not ok then
    error(result, 0)
  end
  return result
end

--- The coroutine that luv's callbacks run in; what waits in one cannot yield.
function M.is_home(co)
  return co ~= nil and co == debug.getregistry()["treadle.luv"]
end

--- A searcher for `package.loaders`: finds luv as the others do, and opens it as above.
local function search(name)
  if name ~= "luv" then
    return nil
  end
  for _, other in ipairs(package.loaders) do
    if other ~= search then
      local loader = other(name)
      if type(loader) == "function" then
        return function()
          return open(loader, name)
        end
      end
    end
  end
end
table.insert(package.loaders, 2, search)

return M
