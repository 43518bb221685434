-- library/treadle.lua, the definitions for editors: every public name is there, with the parameters
-- that it really has, and each of them is annotated; option tables have the options, tables that
-- are given to a script their fields.
local files = require "files"
local helpers = require "helpers"
local treadle = require "treadle"
local options = require "treadle.options"

--- What a file defines: { functions = { ["class:name"] = { params =, notes = } }, fields =
-- { ["class.name"] = true }, types = set, parents = { class = class }, values = { alias = set },
-- used = list of types }. A class goes by its local's name.
local function read_definitions(text)
  local found = { functions = {}, fields = {}, types = {}, parents = {}, values = {}, used = {} }
  local notes, class, last_alias = {}, nil, nil
  for line in (text .. "\n"):gmatch("(.-)\n") do
    local note = line:match("^%-%-%-(.*)")
    if note then
      notes[#notes + 1] = note
      local name = note:match("^@class ([%w_.]+)")
      class = name or class
      if name then
        found.parents[name] = note:match("^@class [^:]+: (treadle%.[%w_]+)")
      end
      local alias = note:match("^@alias ([%w_.]+)")
      if name or alias then
        found.types[name or alias] = true
      end
      last_alias = alias or last_alias
      for value in (alias and note or note:match("^| .*") or ""):gmatch('"([%w_]+)"') do
        found.values[last_alias] = found.values[last_alias] or {}
        found.values[last_alias][value] = true
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

--- The names of the fields of a class and of those that it inherits from.
local function fields_of(definitions, class)
  local set = {}
  while class do
    assert(definitions.types[class], class)
    for id in pairs(definitions.fields) do
      local owner, field = id:match("^(.*)%.([%w_]+)$")
      set[field] = owner == class or set[field]
    end
    class = definitions.parents[class]
  end
  return set
end

local function names_of(t)
  local set = {}
  for name in pairs(t) do
    set[name] = true
  end
  return set
end

--- The names of the options that a function takes: it is called with one that there is not.
local function options_of(call)
  local found
  local check = options.check
  options.check = function(index, name, given, known, level)
    if type(given) == "table" and given.no_option then
      found = names_of(known)
    end
    return check(index, name, given, known, (level or 1) + 1)
  end
  local ok, problem = pcall(call, { no_option = true, fn = print })
  options.check = check
  assert(not ok and found, tostring(problem))
  return found
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

describe("the addon for editors", function()
  local text = files.read("config.json")

  it("has a configuration that says when it fits", function()
    assert.equal("treadle", text:match('"name": "(.-)"'))
    local word = assert(text:match('"words": %["(.*)"%],?\n')):gsub('\\"', '"')
    for _, line in ipairs { 'local t = require "treadle"', "require('treadle')",
      'require( "treadle" )' } do
      assert.is_truthy(line:find(word), line)
    end
    assert.is_nil(('require "treadles"'):find(word))
    assert.is_nil(('required "treadle"'):find(word))
  end)
end)

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
    local attachment = treadle.attach {
      watch = function() return function() end end, block = require("treadle.attach").stall,
    }
    compare(problems, definitions, "attachment", methods_of(attachment), true)
    attachment:detach()
    compare(problems, definitions, "signal", methods_of(abort.signal, "signal_methods"), true)
    treadle.group(function(g)
      compare(problems, definitions, "group", methods_of(g, "methods"), true)
    end)
    compare(problems, definitions, "reactive", methods_of(treadle.signal()), true)
    compare(problems, definitions, "computed",
      methods_of(treadle.computed(print), "computed_methods"), true)
    compare(problems, definitions, "gauge", methods_of(pool.signals.queued), true)
    compare(problems, definitions, "atomics", treadle.atomics)
    assert.same(names_of(upvalue(upvalue(treadle.attach, "check_adapter"), "SHAPE")),
      fields_of(definitions, "treadle.adapter"))
    pool:close()
    thread:close()
    assert.same({}, problems)
  end)

  it("have nothing that is not there", function()
    local pool = treadle.pool("string", { threads = 1 })
    local thread = treadle.thread("string")
    thread:close()
    local attachment = treadle.attach { watch = function() return function() end end }
    attachment:detach()
    local owners = {
      attachment = attachment,
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

  it("have the options of every function", function()
    local pool = treadle.pool("string", { threads = 1 })
    local thread = treadle.thread("string")
    local future = treadle.resolved()
    local inherited = { timeout = true, default = true, error = true, priority = true,
      signal = true, transfer = true }
    for _, case in ipairs {
      { "pool_options", function(o) treadle.pool("string", o) end },
      { "thread_options", function(o) treadle.thread("string", o) end },
      { "run_options", function(o) pool:run("upper", {}, o) end },
      { "task_definition", treadle.task },
      { "import_definition", treadle.import },
      { "sleep_options", function(o) treadle.sleep(0, o) end },
      { "group_options", function(o) treadle.group(print, o) end },
      { "abort_options", treadle.abort },
      { "cancel_options", function(o) future:cancel(o) end },
      { "cancel_options", function(o) treadle.group(function(g) g:cancel(o) end) end },
      { "value_options", function(o) treadle.signal(1, o) end },
      { "value_options", function(o) treadle.computed(print, o) end },
      { "effect_options", function(o) treadle.effect(print, o) end },
      { "queue_options", treadle.queue },
      { "queue_add_options", function(o) treadle.queue():add(print, o) end },
      { "top_options", function(o) pool:top(o) end },
      { "profile_options", function(o) pool:profile(0, o) end },
      { "sort_options", function(o) treadle.psort({ 2, 1 }, nil, o) end },
      { "for_options", function(o) treadle.pfor(1, 2, print, o) end },
      { "loop_options", function(o) treadle.pmap(print, {}, o) end },
      { "loop_options", function(o) treadle.pfilter(print, {}, o) end },
      { "loop_options", function(o) treadle.preduce(print, 0, {}, o) end },
    } do
      local class, call = unpack(case)
      assert.same(options_of(call), fields_of(definitions, "treadle." .. class), class)
    end
    -- Without a choice of the worker, as its note says; on a pool's own methods, without a pool.
    assert.same(inherited, options_of(function(o) thread:run("upper", {}, o) end))
    local of_pool = options_of(function(o) pool:map("upper", {}, o) end)
    of_pool.pool = true
    assert.same(of_pool, fields_of(definitions, "treadle.loop_options"))
    pool:close()
    thread:close()
  end)

  it("have the fields of what a script is given", function()
    local pool = treadle.pool("string", { threads = 1 })
    pool.call.rep("x", 3):await()
    local stats = pool:stats()
    for class, object in pairs {
      stats = stats, stats_task = stats.tasks.rep, stats_times = stats.tasks.rep.run,
      stats_worker = stats.workers[1],
    } do
      assert.same(names_of(object), fields_of(definitions, "treadle." .. class), class)
    end
    local seen, allowed = {}, fields_of(definitions, "treadle.pool_event")
    local function note(event)
      for field in pairs(event) do
        seen[field] = true
      end
    end
    for event in pairs(definitions.values["treadle.event_name"]) do
      pool:on(event, note) -- raises for one that is not there
    end
    local known = upvalue(require("treadle.events").on, "NAMES")
    assert.same(names_of(known), definitions.values["treadle.event_name"])
    pool:run(function() require("treadle").parent:send("x") end):await()
    assert.is_false((pool.call.rep():pawait()))
    pool:close()
    helpers.poll_until(function() return seen.reason and seen.kind and seen.value end, "events")
    assert.same(allowed, seen)
  end)

  it("have every kind of error", function()
    local kinds = {}
    for kind in files.read("src/base/status.c"):gmatch('{"([%l_]+)", ') do
      kinds[kind] = true
    end
    kinds.ok, kinds.argument, kinds.system = nil, nil, nil -- no call fails with these
    assert.same(kinds, definitions.values["treadle.kind"])
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
---@alias treadle.word
---| "one" # the first
---| "two"

---@class treadle.deep<T>: treadle.thing
---@field depth integer

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
    assert.same({ ["treadle.thing.size"] = true, ["treadle.deep.depth"] = true }, found.fields)
    assert.same({ ["treadle.thing"] = true, ["treadle.deep"] = true, ["treadle.word"] = true },
      found.types)
    assert.same({
      "treadle.word", "treadle.deep", "treadle.thing", "treadle.thing", "treadle.other",
    }, found.used)
    assert.same({ size = true, depth = true }, fields_of(found, "treadle.deep"))
    assert.same({ ["treadle.word"] = { one = true, two = true } }, found.values)
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
