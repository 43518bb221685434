-- library/treadle.lua, the definitions for editors: every public name is there, with the parameters
-- that it really has, and each of them is annotated.
local files = require "files"
local treadle = require "treadle"

--- What a file defines: { functions = { ["class:name"] = { params =, notes = } }, fields =
-- { ["class.name"] = true }, types = set, used = list of types }. A class goes by its local's name.
local function read_definitions(text)
  local found = { functions = {}, fields = {}, types = {}, used = {} }
  local notes, class = {}, nil
  for line in (text .. "\n"):gmatch("(.-)\n") do
    local note = line:match("^%-%-%-(.*)")
    if note then
      notes[#notes + 1] = note
      local name = note:match("^@class ([%w_.]+)")
      class = name or class
      name = name or note:match("^@alias ([%w_.]+)")
      if name then
        found.types[name] = true
      end
      local field = note:match("^@field ([%w_]+)")
      if field then
        found.fields[class .. "." .. field] = true
      end
      for used in (note:match("^@%l+ (.*)") or ""):gsub("#.*", ""):gmatch("treadle%.[%w_]+") do
        found.used[#found.used + 1] = used
      end
    else
      local owner, name, params = line:match("^function ([%w_]+)[.:]([%w_]+)%((.-)%) end$")
      if owner then
        found.functions[owner .. ":" .. name] = { params = params, notes = notes }
      end
      notes = {}
    end
  end
  return found
end

--- What is wrong with the notes of a function: each parameter has one, in their order.
local function notes_problem(definition)
  local noted = {}
  for _, note in ipairs(definition.notes) do
    local name = note:match("^@param ([%w_.]+)%??%s")
    noted[#noted + 1] = name
  end
  noted = table.concat(noted, ", ")
  if noted ~= definition.params then
    return ("takes (%s), annotated are (%s)"):format(definition.params, noted)
  end
end

--- What is wrong with a function's parameters; what C functions take cannot be seen.
local function params_problem(fn, definition, is_method)
  local info = debug.getinfo(fn, "Su")
  if info.what == "C" then
    return nil
  end
  local count, is_vararg = is_method and 1 or 0, false
  for name in definition.params:gmatch("[%w_.]+") do
    if name == "..." then
      is_vararg = true
    else
      count = count + 1
    end
  end
  if count ~= info.nparams or is_vararg ~= info.isvararg then
    return ("takes %d parameters%s, not (%s)"):format(info.nparams - (is_method and 1 or 0),
      info.isvararg and " and more" or "", definition.params)
  end
end

--- The table of that name among what a function refers to.
local function upvalue(fn, wanted)
  for i = 1, 60 do
    local name, value = debug.getupvalue(fn, i)
    if name == wanted then
      return value
    end
  end
  error("no upvalue " .. wanted)
end

--- The public methods of an object.
local function methods_of(object, list)
  local index = debug.getmetatable(object).__index
  return type(index) == "table" and index or upvalue(index, list or "methods")
end

--- Add to `list` what is wrong with the definitions of these functions.
local function compare(list, definitions, owner, functions, is_method)
  for name, fn in pairs(functions) do
    local id = owner .. ":" .. name
    local definition = definitions.functions[id]
    if type(fn) == "function" and not name:match("^_") then
      local problem = not definition and "is missing"
        or params_problem(fn, definition, is_method)
      list[#list + 1] = problem and id .. " " .. problem
    end
  end
end

describe("the definitions for editors", function()
  local definitions = read_definitions(files.read("library/treadle.lua"))
  local problems

  before_each(function() problems = {} end)

  it("are a file that Lua reads", function()
    assert.is_function(loadfile("library/treadle.lua"))
  end)

  it("have every name of the module", function()
    local names = {}
    for name, value in pairs(treadle) do
      names[name] = value
    end
    for name in pairs(upvalue(getmetatable(treadle).__index, "LATER")) do
      names[name] = treadle[name]
    end
    names.worker, names.parent = true, true -- in a worker
    assert.is_function(names.select)
    compare(problems, definitions, "treadle", names)
    for name, value in pairs(names) do
      if type(value) ~= "function" and not definitions.fields["treadle." .. name] then
        problems[#problems + 1] = name .. " is no field"
      end
    end
    assert.same({}, problems)
  end)

  it("have every method of every object", function()
    local pool = treadle.pool("string", { threads = 1 })
    local abort = treadle.abort()
    local thread = treadle.thread("string")
    for owner, object in pairs {
      pool = pool, thread = thread, queue = treadle.queue(),
      parent = require("treadle.parent").parent, future = treadle.resolved(), controller = abort,
      task = treadle.task { fn = print }, buffer = treadle.buffer "x",
      counter = treadle.counter(), channel = treadle.channel(), mutex = treadle.mutex(),
      rwlock = treadle.rwlock(), semaphore = treadle.semaphore(1), barrier = treadle.barrier(1),
      event = treadle.event(), trace = pool:trace "/dev/null", profile = pool:profile(0),
    } do
      local methods = methods_of(object)
      assert.is_true(next(methods) ~= nil, owner)
      compare(problems, definitions, owner, methods, true)
    end
    compare(problems, definitions, "signal", methods_of(abort.signal, "signal_methods"), true)
    treadle.group(function(g)
      compare(problems, definitions, "group", methods_of(g, "methods"), true)
    end)
    compare(problems, definitions, "reactive", methods_of(treadle.signal()), true)
    compare(problems, definitions, "computed",
      methods_of(treadle.computed(print), "computed_methods"), true)
    compare(problems, definitions, "gauge", methods_of(pool.signals.queued), true)
    compare(problems, definitions, "atomics", treadle.atomics)
    pool:close()
    thread:close()
    assert.same({}, problems)
  end)

  it("have nothing that is not there", function()
    local pool = treadle.pool("string", { threads = 1 })
    local thread = treadle.thread("string")
    thread:close()
    local owners = {
      trace = pool:trace "/dev/null",
      profile = pool:profile(0),
      thread = thread, queue = treadle.queue(), parent = require("treadle.parent").parent,
      treadle = treadle, atomics = treadle.atomics, buffer = treadle.buffer "x",
      counter = treadle.counter(), channel = treadle.channel(), mutex = treadle.mutex(),
      rwlock = treadle.rwlock(), semaphore = treadle.semaphore(1), barrier = treadle.barrier(1),
      event = treadle.event(), future = treadle.resolved(), controller = treadle.abort(),
      signal = treadle.abort().signal, task = treadle.task { fn = print },
      group = treadle.group(function(g) return g end),
      reactive = treadle.signal(), computed = treadle.computed(print),
      gauge = treadle.computed(print), -- whose methods are the same
    }
    for id in pairs(definitions.functions) do
      local owner, name = id:match("^(.-):(.*)$")
      if owner ~= "pool" and type(owners[owner][name]) ~= "function" then
        problems[#problems + 1] = id
      end
    end
    pool:close()
    assert.same({}, problems)
  end)

  it("annotate each parameter, and by types that there are", function()
    for id, definition in pairs(definitions.functions) do
      local problem = notes_problem(definition)
      problems[#problems + 1] = problem and id .. " " .. problem
    end
    for _, name in ipairs(definitions.used) do
      if not definitions.types[name] then
        problems[#problems + 1] = "there is no type " .. name
      end
    end
    assert.same({}, problems)
  end)
end)

-- A checker that finds nothing must be seen to find something.
describe("the checker of definitions", function()
  local found = read_definitions([[
---@class treadle.thing
---@field size integer
local thing = {}

---@param a number
---@param b? treadle.other
function thing:use(a, b) end

---@param ... any
function thing:all(...) end

function thing.bare(a) end
]])

  it("reads functions, fields and types", function()
    assert.same("a, b", found.functions["thing:use"].params)
    assert.same({ ["treadle.thing.size"] = true }, found.fields)
    assert.same({ ["treadle.thing"] = true }, found.types)
    assert.same({ "treadle.thing", "treadle.other" }, found.used)
  end)

  it("tells what is missing, or wrong", function()
    local list = {}
    compare(list, found, "thing", {
      use = function(_, _) end, none = function() end, all = function(_, ...) return ... end,
      _own = function() end,
    }, true)
    table.sort(list)
    assert.same({ "thing:none is missing", "thing:use takes 1 parameters, not (a, b)" }, list)
    assert.is_nil(notes_problem(found.functions["thing:use"]))
    assert.is_nil(notes_problem(found.functions["thing:all"]))
    assert.equal("takes (a), annotated are ()", notes_problem(found.functions["thing:bare"]))
  end)
end)
