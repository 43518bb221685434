--- The tasks of shared_workers.lua and chaining.lua: mathematics that takes a while, and a count
-- that stays from call to call. Only the workers load this file.
local ffi = require "ffi"

local tasks = {}

local additions = 0 -- as long as the worker lives

--- How many additions this worker has made.
function tasks.state()
  return additions
end

function tasks.add(a, b)
  additions = additions + 1
  return a + b
end

local function fib(n)
  return n <= 2 and 1 or fib(n - 1) + fib(n - 2)
end

--- The n-th Fibonacci number, by plain recursion.
function tasks.fib(n)
  return fib(n)
end

local function tribonacci(n)
  return n <= 1 and n or tribonacci(n - 1) + tribonacci(n - 2) + tribonacci(n - 3)
end

--- The sum of the three before it, by plain recursion; up to 1, below 0 too, n itself.
function tasks.tribonacci(n)
  return tribonacci(n)
end

--- All primes up to `n`: the sieve of Eratosthenes.
function tasks.find_primes_up_to(n)
  local is_composite, primes = ffi.new("uint8_t[?]", n + 1), {}
  for i = 2, n do
    if is_composite[i] == 0 then
      primes[#primes + 1] = i
      for multiple = i * i, n, i do
        is_composite[multiple] = 1
      end
    end
  end
  return primes
end

--- Pi by Nilakantha's series, 3 + 4/(2*3*4) - 4/(4*5*6) + ..., until a term is below `digits`
-- decimals: far beyond what a double can hold, where the last ones are rounding errors.
function tasks.estimate_pi(digits)
  local tolerance, pi, sign, n = 10 ^ -(digits + 1), 3, 1, 2
  local term = 4 / (n * (n + 1) * (n + 2))
  while term > tolerance do
    pi = pi + sign * term
    sign, n = -sign, n + 2
    term = 4 / (n * (n + 1) * (n + 2))
  end
  return pi
end

return tasks
