--- Computations of all kinds, each with one right result.
local ffi = require "ffi"

local sums = {}

function sums.tables(n)
  local t = {}
  for i = 1, n do
    t[i] = { i, { i * 2 } }
  end
  local sum = 0
  for _, pair in ipairs(t) do
    sum = sum + pair[1] + pair[2][1]
  end
  return sum
end

function sums.strings(n)
  local words = {}
  for i = 1, n do
    words[#words + 1] = ("%d:%s"):format(i, tostring(i):rep(2))
  end
  return #table.concat(words, ",")
end

function sums.recursion(n)
  local function fib(k)
    return k < 2 and k or fib(k - 1) + fib(k - 2)
  end
  return fib(math.floor(math.log(n) * 2.6))
end

local function up(n)
  if n == 0 then
    return 0
  end
  return 1 + up(n - 1)
end

function sums.deep(n)
  local sum = 0
  for _ = 1, math.ceil(n / 100) do
    sum = sum + up(150)
  end
  return sum
end

function sums.pcalls(n)
  local caught = 0
  for i = 1, n do
    local ok, err = pcall(error, i)
    caught = caught + (ok and 0 or err)
  end
  return caught
end

function sums.coroutines(n)
  local sum = 0
  for _ = 1, n / 20 do
    for i in coroutine.wrap(function()
      for i = 1, 20 do
        coroutine.yield(i)
      end
    end) do
      sum = sum + i
    end
  end
  return sum
end

function sums.ffi(n)
  local a = ffi.new("double[?]", n)
  for _ = 1, 20 do
    for i = 1, n - 1 do
      a[i] = a[i - 1] + i
    end
  end
  return a[n - 1]
end

function sums.objects(n)
  local sum = 0
  for i = 1, n do
    sum = sum + ffi.new("int[2]", i, 1)[0]
  end
  return sum
end

function sums.sorting(n)
  local list, seed = {}, 7
  for i = 1, n / 10 do
    seed = (seed * 16807) % 2147483647
    list[i] = seed
  end
  table.sort(list, function(a, b) return a < b end)
  local sum = 0
  for i, v in ipairs(list) do
    sum = (sum + i * v) % 1000003
  end
  return sum
end

function sums.gsub(n)
  local text = ("abc"):rep(n / 30):gsub("%a", function(c) return c:upper() .. c end)
  return #text
end

function sums.finalizers(n)
  local count = 0
  for _ = 1, n / 20 do
    getmetatable(newproxy(true)).__gc = function() count = count + 1 end
  end
  collectgarbage()
  collectgarbage()
  return count
end

function sums.varargs(n)
  local function sum(...)
    return select("#", ...) + (...)
  end
  local total = 0
  for i = 1, n do
    total = total + sum(i, i, i)
  end
  return total
end

function sums.metamethods(n)
  local mt = {}
  mt.__add = function(a, b) return setmetatable({ v = a.v + b.v }, mt) end
  mt.__index = function(_, k) return k end
  local a = setmetatable({ v = 0 }, mt)
  for i = 1, n do
    a = a + setmetatable({ v = i }, mt)
  end
  return a.v + a[5]
end

function sums.interpreted(n)
  local function f()
    local sum = 0
    for i = 1, n do
      sum = sum + i % 7
    end
    return sum
  end
  jit.off(f)
  return f()
end

function sums.compiling(n)
  local sum = 0
  for i = 1, math.ceil(n / 500) do
    local f = loadstring(("local s = 0 for i = 1, 200 do s = s + i * %d end return s"):format(i))
    sum = sum + f()
  end
  return sum
end

return sums
