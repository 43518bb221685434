--- What a worker's boot is seldom told: modules that the host has brought along, how to compile;
-- and why a name is none of a module's.
-- @module treadle.provide
local M = {}

--- Raise what is wrong with a path in the place of a module's name, unless there is such a module.
function M.check_name(module)
  if package.loaded[module] or package.preload[module]
    or package.searchpath(module, package.path) or package.searchpath(module, package.cpath) then
    return
  end
  local name = module:gsub("%.lua$", ""):gsub("^%./", "")
  local folder, file = name:match("^(/.*)/([^/]+)$")
  error(("module '%s' not found: this takes a module's name, as `require` does, not a path: '%s'%s")
    :format(module, file or name:gsub("/", "."),
      folder and (", with '%s/?.lua' in package.path"):format(folder) or ""), 0)
end

--- A searcher for `package.loaders`: modules that the host has sent because no file has them.
-- @tparam table sources name of a file, "a/b.lua" or "a/b/init.lua" -> its text
local function searcher(sources, loadstring)
  return function(name)
    local path = name:gsub("%.", "/")
    for _, file in ipairs { path .. ".lua", path .. "/init.lua" } do
      if sources[file] then
        return assert(loadstring(sources[file], "@" .. file))
      end
    end
    return ("\n\tnothing sent by the host as '%s.lua'"):format(path)
  end
end

--- What a C program says of the compiler: "off", or its parameters.
local function set_jit(text)
  if text == "off" then
    jit.off()
    return
  end
  local list = {}
  for parameter in text:gmatch "[^,%s]+" do
    list[#list + 1] = parameter
  end
  require("jit.opt").start(unpack(list))
end

--- Do what the host said.
-- @tparam table boot `sources`, modules by file; `source`, the text of `module`; `jit`
-- @tparam table user the globals of scripts
function M.take(boot, user)
  local package, loadstring = user.package, user.loadstring
  if boot.sources then
    table.insert(package.loaders, 2, searcher(boot.sources, loadstring))
  end
  if boot.jit then
    set_jit(boot.jit)
  end
  if boot.source then -- a C program has brought its module along
    package.preload[boot.module] = assert(loadstring(boot.source, "@" .. boot.module))
  end
end

return M
