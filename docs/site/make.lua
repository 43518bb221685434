--- `make docs`: pages of README.md, docs/ and the definitions for editors, by LDoc, with the
-- Markdown of this folder in place of its own. Run from the project's root folder:
--
--   luajit docs/site/make.lua OUT
local exit = os.exit
local out = assert(arg[1], "usage: luajit docs/site/make.lua OUT")
local here = arg[0]:match("^(.*/)") or "./"
package.path = here .. "?.lua;" .. here .. "../../spec/support/?.lua;" .. package.path

local definitions = require "definitions"
local doc = require "ldoc.doc"
local files = require "files"
local html = require "ldoc.html"
local lfs = require "lfs"
local markdown = require "markdown"
local markup = require "ldoc.markup"

local quote, read, normal = files.quote, files.read, files.normal

local SOURCES = "build/ldoc" -- as docs/site/config.ld has it

local function shell(command)
  assert(os.execute(command) == 0, command)
end

local problems = {}

local function complain(...)
  problems[#problems + 1] = (...):format(select(2, ...))
end

-- --- the modules ---------------------------------------------------------------------------------

shell(("rm -rf %s && mkdir -p %s"):format(quote(SOURCES), quote(SOURCES)))
for name, text in pairs(definitions.modules(read "library/treadle.lua")) do
  files.write(("%s/%s.lua"):format(SOURCES, name), text)
end

local root = lfs.currentdir() .. "/"

-- --- links ---------------------------------------------------------------------------------------

local site = { root = "", version = read("src/treadle.h"):match('TREADLE_VERSION "(.-)"') }
local assets = {}

--- The address of what a link in a page leads to. What is no page is copied beside the pages.
local function address_of(page, target)
  if target:match("^%a[%w+.-]*:") or target:match("^#") then
    return target
  end
  local file, anchor = target:match("^([^#]*)(.*)$")
  file = normal((page:match("^(.*/)") or "") .. file)
  if file == "README.md" then
    return site.root .. "index.html" .. anchor
  elseif file:match("^docs/[^.]+%.md$") or file == "CHANGELOG.md" then
    return site.root .. "topics/" .. file:match("[^/]+$") .. ".html" .. anchor
  elseif not lfs.attributes(file) then
    complain("%s: there is no %s", page, file)
  end
  assets[file] = true
  return site.root .. "files/" .. file .. anchor
end

local ldoc -- LDoc itself, once it runs

--- The address of a name of the library: "pool:close()", "treadle.pool".
local function reference(name)
  name = name:match("^treadle%.[%w_.:]+") or name:match("^[%l_]+:[%l_]+%f[%z%W]")
  if not name or not ldoc or not ldoc.modules then
    return nil
  end
  local class, method = name:match("^(%l+):([%l_]+)$")
  local function page_of(module)
    return ("%s%s/%s.html"):format(site.root,
      module.type == "classmod" and "classes" or "modules", module.name)
  end
  for module in ldoc.modules:iter() do
    local short = module.name:match("^treadle%.(.*)") or module.name
    if module.name == name and name ~= "treadle" then
      return page_of(module)
    end
    for item in module.items:iter() do
      if class and short == class and item.name:match("[^:.]+$") == method
        or module.name == "treadle" and "treadle." .. item.name:gsub("^treadle%.", "") == name then
        return page_of(module) .. "#" .. item.name
      end
    end
  end
end

--- A type: names of classes lead to them.
function site.type(text)
  text = markdown.escape((text:gsub("\194\160", " ")))
  return (text:gsub("treadle%.[%w_]+", function(name)
    local address = reference(name)
    return address and ('<a href="%s">%s</a>'):format(address, name) or name
  end))
end

--- A name as it is written in a program.
function site.name(module, item)
  local name = item.name:match("[^.]*$")
  if name == "fields" then
    return "Fields"
  end
  return module.name == "treadle" and "treadle." .. name or item.name:match("[%w_]+[.:][%w_]+$")
end

local function inline(text)
  return markdown.inline(text or "", {
    code = reference, link = function(target) return target end,
  })
end

site.inline, site.escape = inline, markdown.escape

function site.page(path, text)
  return markdown.render(text, {
    link = function(target) return address_of(path, target) end, code = reference,
  })
end

function site.index()
  return site.page("README.md", read "README.md")
end

local ORDER = { Pages = 1, Modules = 2, Classes = 3 }

--- The groups of the navigation: a list of { title =, { name =, address = }, ... }.
function site.groups(current)
  local groups = {}
  for kind, modules in ldoc.kinds() do
    local group = { title = kind == "Topics" and "Pages" or kind }
    for module in modules() do
      local folder = module.type == "topic" and "topics" or module.type == "classmod" and "classes"
        or "modules"
      group[#group + 1] = {
        name = module.type == "topic" and (module.display_name or module.name):gsub("`", "")
          or module.name,
        address = ("%s%s/%s.html"):format(site.root, folder, module.name),
        is_current = module == current,
      }
    end
    table.sort(group, function(a, b) return a.name:lower() < b.name:lower() end)
    groups[#groups + 1] = group
  end
  table.sort(groups, function(a, b) return ORDER[a.title] < ORDER[b.title] end)
  return groups
end

-- --- LDoc ----------------------------------------------------------------------------------------

local create = markup.create
function markup.create(its_ldoc, ...)
  create(its_ldoc, ...)
  ldoc = its_ldoc
  return function(text, item)
    site.root = ldoc.root and "" or "../"
    if getmetatable(item) == doc.File then
      local path = item.filename
      return site.page(path:sub(1, #root) == root and path:sub(#root + 1) or path, text)
    end
    return inline(text)
  end
end

local generate = html.generate_output
function html.generate_output(its_ldoc, ...)
  ldoc = its_ldoc
  ldoc.site = site
  return generate(ldoc, ...)
end

-- LDoc's warnings go to stderr and into `Item.had_warning`, which its --fatalwarnings looks at.
local pipe = io.popen("command -v ldoc")
local program = pipe:read("*l")
pipe:close()
assert(program, "there is no ldoc here: make setup-check installs it")
shell(("rm -rf %s"):format(quote(out)))
arg = { -- luacheck: ignore
  [0] = program, "--fatalwarnings", "--quiet", "--config", here .. "config.ld", "--dir", out, ".",
}
local text = read(program):gsub("^#![^\n]*", "")
lfs.chdir = function() return true end -- the configuration's paths are the project's, too
print = function() end -- luacheck: ignore
local code = 0
os.exit = function(status) -- luacheck: ignore
  code = type(status) == "number" and status or status == false and 1 or 0
  error({}, 0)
end
local ok, err = pcall(assert(loadstring(text, "@" .. program)))
if not ok and type(err) ~= "table" then
  io.stderr:write(tostring(err), "\n")
  code = 1
end

for file in pairs(assets) do
  local target = ("%s/files/%s"):format(out, file)
  shell(("mkdir -p %s && cp -r %s %s"):format(quote(target:match("^(.*)/")), quote(file),
    quote(target)))
end

-- --- every link of what was made leads somewhere -------------------------------------------------

local ids = {}

--- The ids of a page, nil if there is none.
local function ids_of(path)
  if ids[path] == nil and lfs.attributes(path, "mode") == "file" then
    ids[path] = {}
    for id in read(path):gmatch(' id="(.-)"') do
      ids[path][id] = true
    end
  end
  return ids[path]
end

local pages, links = io.popen("find " .. quote(out) .. " -name '*.html' ! -path '*/files/*'"), 0
for path in pages:lines() do
  for target in read(path):gmatch(' [hs]re?[fc]="(.-)"') do
    if not target:match("^%a[%w+.-]*:") then
      links = links + 1
      local file, anchor = target:match("^([^#]*)#?(.*)$")
      file = file == "" and path or path:match("^(.*/)") .. file
      local mode = lfs.attributes(file, "mode")
      if not mode or anchor ~= "" and not (ids_of(file) or {})[anchor] then
        complain("%s: %s leads nowhere", path, target)
      end
    end
  end
end
pages:close()
for _, problem in ipairs(problems) do
  io.stderr:write(problem, "\n")
end
io.stdout:write(("%s/index.html: %d links, %d problems\n"):format(out, links, #problems))
exit((#problems > 0 or links == 0) and 1 or code)
