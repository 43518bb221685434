--- The definitions for editors, library/treadle.lua, as modules that LDoc reads: one with the
-- functions and the option tables, one for each class that has methods.
local definitions = {}

--- The end of the type that begins at `at`: fun(a: T): U, table<K, V>, T[]?, "a"|"b", ...
local function end_of_type(text, at)
  repeat
    local _, fun_end = text:find("^fun%b()", at)
    if fun_end then
      at = fun_end + 1
      local _, colon = text:find("^:%s*", at)
      if colon then
        at = end_of_type(text, colon + 1)
        local _, comma = text:find("^,%s*", at)
        while comma do
          at = end_of_type(text, comma + 1)
          _, comma = text:find("^,%s*", at)
        end
      end
    else
      for _, atom in ipairs { '^"[^"]*"', "^%b{}", "^%b()", "^%.%.%.", "^[%w_.]+" } do
        local _, atom_end = text:find(atom, at)
        if atom_end then
          at = atom_end + 1
          break
        end
      end
    end
    local found = true
    while found do
      found = false
      for _, suffix in ipairs { "^%b<>", "^%[%]", "^%?", "^%*" } do
        local _, suffix_end = text:find(suffix, at)
        if suffix_end then
          at, found = suffix_end + 1, true
        end
      end
    end
    local more = text:sub(at, at) == "|"
    at = more and at + 1 or at
  until not more
  return at
end

--- A type as one word, for LDoc; docs/site/make.lua makes blanks of it again.
local function word(type)
  return (type:gsub(" ", "\194\160"))
end

--- "integer count at least 1" -> "integer", "count at least 1".
local function split_type(text)
  local at = end_of_type(text, 1)
  return text:sub(1, at - 1), (text:sub(at):gsub("^%s*#?%s*", ""))
end

--- Add the tags of one function to `out`.
local function write_function(out, notes)
  for _, note in ipairs(notes) do
    local name, optional, rest = note:match("^@param ([%w_.]+)(%??)%s+(.*)")
    if name then
      local type, text = split_type(rest)
      out[#out + 1] = ("-- @tparam%s %s %s %s"):format(optional == "?" and "[opt]" or "",
        word(type), name, text)
    end
    local returned = note:match("^@return (.*)")
    while returned do
      local type, text = split_type(returned)
      local first, others = text:match("^([%w_]+), (.*)")
      out[#out + 1] = ("-- @treturn %s %s"):format(word(type), first or text)
      returned = others
    end
  end
end

--- Add a table: of a class that has only fields, or of the words of an alias.
local function write_table(out, name, block)
  for i, text in ipairs(block.text) do
    out[#out + 1] = (i == 1 and "--- " or "-- ") .. text
  end
  if #block.text == 0 then
    out[#out + 1] = "--- " .. (block.parent and ("Also what `%s` has."):format(block.parent) or "")
  elseif block.parent then
    out[#out + 1] = ("-- Also what `%s` has."):format(block.parent)
  end
  out[#out + 1] = "-- @table " .. name
  for _, field in ipairs(block.fields) do
    out[#out + 1] = ("-- @tfield%s %s %s %s"):format(field.optional and "[opt]" or "",
      word(field.type), field.name, field.text)
  end
  for _, value in ipairs(block.values) do
    out[#out + 1] = ("-- @tfield string %s %s"):format(value.name, value.text)
  end
  out[#out + 1] = ""
end

--- Read a block of notes.
local function read_block(notes)
  local block = { text = {}, fields = {}, values = {}, notes = notes }
  for _, note in ipairs(notes) do
    local class = note:match("^@class ([%w_.]+)")
    local alias, type = note:match("^@alias ([%w_.]+)%s*(.*)")
    local field, optional, rest = note:match("^@field ([%w_]+)(%??)%s+(.*)")
    local value, about = note:match('^| ("[^"]*")%s*#?%s*(.*)')
    if class then
      block.class, block.parent = class, note:match(": ([%w_.]+)$")
    elseif alias then
      block.alias, block.type = alias, type ~= "" and type or nil
      if type ~= "" then
        block.text[#block.text + 1] = ("`%s`"):format(type)
      end
    elseif field then
      local its_type, text = split_type(rest)
      block.fields[#block.fields + 1] = {
        name = field, optional = optional == "?", type = its_type, text = text,
      }
    elseif value then
      block.values[#block.values + 1] = { name = value:gsub('"', ""), text = about }
    elseif not note:match("^@") then
      block.text[#block.text + 1] = note
    end
  end
  return block
end

--- The text of each module by its name, from the text of the definitions.
function definitions.modules(text)
  local head = { "--- Everything there is: functions, and the tables that they take and give.",
    "-- @module treadle", "local treadle = {}", "" }
  local modules, classes, notes = { treadle = head }, {}, {}
  for line in (text .. "\n"):gmatch("(.-)\n") do
    local note = line:match("^%-%-%-%s?(.*)")
    local owner = line:match("^local ([%w_]+) = {}$")
    local function_owner = line:match("^function ([%w_]+)[.:]%w[%w_]*%(")
    if note and not note:match("^@meta") then
      notes[#notes + 1] = note
    else
      local block = read_block(notes)
      if owner and owner ~= "treadle" then
        local out = { "--- " .. table.concat(block.text, "\n-- "), "-- @classmod " .. block.class,
          ("local %s = {}"):format(owner), "" }
        classes[owner], modules[block.class] = out, out
        if #block.fields > 0 then
          write_table(out, "fields", { text = {}, fields = block.fields, values = {} })
        end
      elseif owner then
        write_table(head, "fields", { text = { "What is no function." }, fields = block.fields,
          values = {} })
      elseif function_owner then
        local out = classes[function_owner] or head
        for i, part in ipairs(block.text) do
          out[#out + 1] = (i == 1 and "--- " or "-- ") .. part
        end
        if #block.text == 0 then
          out[#out + 1] = "---"
        end
        write_function(out, notes)
        out[#out + 1] = line
        out[#out + 1] = ""
      elseif block.class or block.alias then
        write_table(head, (block.class or block.alias):gsub("^treadle%.", ""), block)
      end
      notes = {}
    end
  end
  for name, out in pairs(modules) do
    modules[name] = table.concat(out, "\n"):gsub(" +\n", "\n")
  end
  return modules
end

return definitions
