--- Which functions may run in any state, since nobody can tell where they ran: they end soon,
-- having no loop; they write to nothing but buffers, which all states share, and to tables that
-- they have made themselves; and they call and name nothing but the plain parts of Lua's library.
-- Read from their bytecode; what is not understood is not pure.
-- @module treadle.pure
local bit = require "bit"
local loops = require "treadle.loops"

local has_util, util = pcall(require, "jit.util")
local has_names, vmdef = pcall(require, "jit.vmdef")

local M = {}

--- Libraries and functions that a pure function may use: what takes no longer than its result is
-- long, and depends on nothing but its arguments.
local LIBRARIES = {
  math = { "abs", "acos", "asin", "atan", "atan2", "ceil", "cos", "cosh", "deg", "exp", "floor",
    "fmod", "frexp", "ldexp", "log", "log10", "max", "min", "modf", "pow", "rad", "sin", "sinh",
    "sqrt", "tan", "tanh" },
  string = { "byte", "char", "len", "lower", "reverse", "sub", "upper" },
  bit = { "arshift", "band", "bnot", "bor", "bswap", "bxor", "lshift", "rol", "ror", "rshift",
    "tobit", "tohex" },
}

local functions = { [tonumber] = true, [type] = true, [select] = true, [rawequal] = true }
local libraries = {} -- table -> true
local globals = { tonumber = tonumber, type = type, select = select, rawequal = rawequal }
for name, members in pairs(LIBRARIES) do
  local library = package.loaded[name]
  libraries[library] = true
  globals[name] = library
  for _, member in ipairs(members) do
    functions[library[member]] = true
  end
end

--- What else a register may be known to hold: a table that the function has made, a buffer, its
-- memory.
local FRESH, BUFFER, MEMORY = {}, {}, {}

local function is_buffer(value)
  return type(value) == "userdata" and getmetatable(value) == "treadle.buffer"
end

--- Instructions that do no harm, by the registers that they write: none, register A, many.
local NONE, ONE, MANY = 0, 1, 2
local harmless = {}
for effect, names in pairs {
  [NONE] = "ISLT ISGE ISLE ISGT ISEQV ISNEV ISEQS ISNES ISEQN ISNEN ISEQP ISNEP IST ISF ISTYPE "
    .. "ISNUM RETM RET RET0 RET1",
  [ONE] = "ISTC ISFC NOT UNM LEN ADDVN SUBVN MULVN DIVVN MODVN ADDNV SUBNV MULNV DIVNV MODNV ADDVV "
    .. "SUBVV MULVV DIVVV MODVV POW CAT KSTR KCDATA KSHORT KNUM KPRI",
  [MANY] = "KNIL VARG",
} do
  for name in names:gmatch("%S+") do
    harmless[name] = effect
  end
end

--- What a pure function may be on its way through the code.
-- @return what register `a` holds then, or nil; raises REFUSED
local steps = {}
local REFUSED = {}

local function refuse()
  error(REFUSED, 0)
end

function steps.GGET(fn, _, _, _, _, _, d)
  local value = globals[util.funck(fn, -d - 1)]
  return value == nil and refuse() or value
end

function steps.UGET(fn, _, used, _, _, _, d)
  local _, value = debug.getupvalue(fn, d + 1)
  if libraries[value] or type(value) == "function" then
    used[d + 1] = value
    return value
  end
  return is_buffer(value) and BUFFER or nil
end

function steps.MOV(_, known, _, _, _, _, d)
  return known[d]
end

function steps.TGETS(fn, known, _, _, b, c)
  local from, key = known[b], util.funck(fn, -c - 1)
  if libraries[from] then
    local member = rawget(from, key)
    return functions[member] and member or refuse()
  elseif from == BUFFER then
    return key == "ptr" and MEMORY or refuse()
  end
  return from == MEMORY and MEMORY or nil
end

function steps.TGETV(_, known, _, _, b)
  return known[b] == MEMORY and MEMORY or nil
end
steps.TGETB, steps.TGETR = steps.TGETV, steps.TGETV

function steps.TSETV(_, known, _, a, b)
  if known[b] ~= FRESH and known[b] ~= MEMORY then
    refuse()
  end
  return known[a]
end
steps.TSETS, steps.TSETB, steps.TSETR = steps.TSETV, steps.TSETV, steps.TSETV

function steps.TNEW()
  return FRESH
end
steps.TDUP = steps.TNEW

function steps.JMP(_, known, _, _, _, _, d)
  if d < 0x8000 then -- backward
    refuse()
  end
  for register in pairs(known) do -- it may hold something else where the ways meet
    known[register] = nil
  end
end

function steps.CALL(_, known, _, a)
  if type(known[a]) ~= "function" then
    refuse()
  end
  for register in pairs(known) do
    if register >= a then
      known[register] = nil
    end
  end
end
steps.CALLM, steps.CALLT, steps.CALLMT = steps.CALL, steps.CALL, steps.CALL

local function walk(fn)
  local known, used = {}, {} -- by register, by upvalue
  local pc = 1
  local ins = util.funcbc(fn, pc)
  while ins do
    local op, a = bit.band(ins, 0xff), bit.band(bit.rshift(ins, 8), 0xff)
    local name = vmdef.bcnames:sub(op * 6 + 1, op * 6 + 6):match("%S+")
    if steps[name] then
      known[a] = steps[name](fn, known, used, a, bit.rshift(ins, 24),
        bit.band(bit.rshift(ins, 16), 0xff), bit.rshift(ins, 16))
    elseif harmless[name] == ONE then
      known[a] = nil
    elseif harmless[name] == MANY then
      known = {}
    elseif harmless[name] ~= NONE then
      refuse()
    end
    pc = pc + 1
    ins = util.funcbc(fn, pc)
  end
  return used
end

--- Look through the code of a function.
-- @return false, or a table: number of an upvalue -> the function or library that it is used as
local function scan(fn)
  local ok, used = pcall(walk, fn)
  if not ok and used ~= REFUSED then
    error(used, 0)
  end
  return ok and used
end

local PLAIN = { number = true, string = true, boolean = true, ["nil"] = true }

--- prototype -> what `scan` has found
local scanned = setmetatable({}, { __mode = "k" })

--- Whether a function is pure.
-- @tparam[opt] number depth of the functions that have led here
function M.is(fn, depth)
  depth = depth or 0
  if functions[fn] then
    return true
  elseif not (has_util and has_names) or depth > 4 then
    return false
  end
  local proto = loops.origin(fn)
  if proto == fn then -- a C function
    return false
  end
  local used = scanned[proto]
  if used == nil then
    used = scan(fn)
    scanned[proto] = used
  end
  if not used then
    return false
  end
  local i = 0
  while true do
    i = i + 1
    local name, value = debug.getupvalue(fn, i)
    if not name then
      return true
    elseif type(value) == "function" then
      if not (used[i] and M.is(value, depth + 1)) then
        return false
      end
    elseif libraries[value] then
      if used[i] ~= value then
        return false
      end
    elseif used[i] or not PLAIN[type(value)] and not is_buffer(value)
      and (type(value) ~= "table" or getmetatable(value) ~= nil) then
      return false
    end
  end
end

--- Whether a function is pure and has no upvalues: where it came from makes no difference then.
function M.is_alone(fn)
  return debug.getupvalue(fn, 1) == nil and getfenv(fn) == _G and M.is(fn)
end

return M
