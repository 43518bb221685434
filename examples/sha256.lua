--- SHA-256 without any library, of data that comes in pieces. LuaJIT compiles the loops.
-- The algorithm: FIPS 180-4.
local bit = require "bit"
local ffi = require "ffi"
local band, bnot, bxor, ror = bit.band, bit.bnot, bit.bxor, bit.ror
local rshift, tobit, tohex = bit.rshift, bit.tobit, bit.tohex

local BLOCK_BYTES = 64
local LENGTH_BYTES = 8 -- of the number of bits, which ends the last block

local big_endian = ffi.abi("le") and bit.bswap or tobit
local words_of = ffi.typeof("const int32_t *")
local context = ffi.typeof("struct { int32_t state[8]; double bytes; }")

-- The first 32 bits of the fractional part of the n-th root of each of the first primes.
local function roots(count, n)
  local words, prime, i = ffi.new("int32_t[?]", count), 2, 0
  while i < count do
    local is_prime = true
    for divisor = 2, math.sqrt(prime) do
      is_prime = is_prime and prime % divisor ~= 0
    end
    if is_prime then
      local root = prime ^ (1 / n)
      words[i], i = tobit(math.floor(root % 1 * 2 ^ 32)), i + 1
    end
    prime = prime + 1
  end
  return words
end

local START, ROUND = roots(8, 2), roots(64, 3)
local schedule = ffi.new("int32_t[64]")

local sha256 = {}

--- Work whole blocks into a state of eight words.
function sha256.compress(state, words, blocks)
  local w = schedule
  for block = 0, blocks - 1 do
    for i = 0, 15 do
      w[i] = big_endian(words[block * 16 + i])
    end
    for i = 16, 63 do
      local x, y = w[i - 15], w[i - 2]
      w[i] = tobit(w[i - 16] + w[i - 7] + bxor(ror(x, 7), ror(x, 18), rshift(x, 3))
        + bxor(ror(y, 17), ror(y, 19), rshift(y, 10)))
    end
    local a, b, c, d = state[0], state[1], state[2], state[3]
    local e, f, g, h = state[4], state[5], state[6], state[7]
    for i = 0, 63 do
      local one = tobit(h + bxor(ror(e, 6), ror(e, 11), ror(e, 25))
        + bxor(band(e, f), band(bnot(e), g)) + ROUND[i] + w[i])
      local two = tobit(bxor(ror(a, 2), ror(a, 13), ror(a, 22))
        + bxor(band(a, b), band(a, c), band(b, c)))
      h, g, f, e = g, f, e, tobit(d + one)
      d, c, b, a = c, b, a, tobit(one + two)
    end
    state[0], state[1] = tobit(state[0] + a), tobit(state[1] + b)
    state[2], state[3] = tobit(state[2] + c), tobit(state[3] + d)
    state[4], state[5] = tobit(state[4] + e), tobit(state[5] + f)
    state[6], state[7] = tobit(state[6] + g), tobit(state[7] + h)
  end
end

local methods = {}
local mt = { __index = methods }

--- Add some bytes.
-- @return the hash
function methods:update(data)
  self.context.bytes = self.context.bytes + #data
  if #self.rest > 0 then
    data = self.rest .. data
  end
  local blocks = math.floor(#data / BLOCK_BYTES)
  sha256.compress(self.context.state, ffi.cast(words_of, data), blocks)
  self.rest = data:sub(blocks * BLOCK_BYTES + 1)
  return self
end

-- Work in what follows the last byte.
local function finish(self)
  local bytes = self.context.bytes
  local zeros = (-bytes - 1 - LENGTH_BYTES) % BLOCK_BYTES
  local high, low = math.floor(bytes / 2 ^ 29), bytes * 8 % 2 ^ 32
  local length = ffi.new("int32_t[2]", big_endian(tobit(high)), big_endian(tobit(low)))
  self:update("\128" .. ("\0"):rep(zeros) .. ffi.string(length, LENGTH_BYTES))
end

--- The sum of all that was added, as 64 hexadecimal digits. Ends the hash.
function methods:hex()
  finish(self)
  local digits = {}
  for i = 0, 7 do
    digits[i + 1] = tohex(self.context.state[i])
  end
  return table.concat(digits)
end

--- The sum of all that was added, as 32 bytes. Ends the hash.
function methods:bytes()
  finish(self)
  local words = ffi.new("int32_t[8]")
  for i = 0, 7 do
    words[i] = big_endian(self.context.state[i])
  end
  return ffi.string(words, 32)
end

--- Make a state one of a hash of nothing yet.
function sha256.start(state)
  ffi.copy(state, START, ffi.sizeof(START))
  return state
end

--- A hash of nothing yet.
function sha256.new()
  local self = setmetatable({ context = context(), rest = "" }, mt)
  sha256.start(self.context.state)
  return self
end

--- The sum of a string.
function sha256.hex(data)
  return sha256.new():update(data):hex()
end

--- The same as 32 bytes.
function sha256.bytes(data)
  return sha256.new():update(data):bytes()
end

return sha256
