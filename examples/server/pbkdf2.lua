--- PBKDF2 with HMAC-SHA-256 (RFC 8018), for passwords: as slow as its caller wants it to be.
local bit = require "bit"
local ffi = require "ffi"
local sha256 = require "sha256"
local treadle = require "treadle"

local BLOCK_BYTES = 64
local WORDS = 8 -- of a sum
local CHECK_ROUNDS = 256 -- how often to ask whether anybody still waits

local compress = sha256.compress
local words_of = ffi.typeof("const int32_t *")
local state_type = ffi.typeof("int32_t[8]")
local big_endian = ffi.abi("le") and bit.bswap or bit.tobit

-- The key as one block, mixed with `byte`.
local function mixed(key, byte)
  return key:gsub(".", function(c)
    return string.char(bit.bxor(c:byte(), byte))
  end) .. string.char(byte):rep(BLOCK_BYTES - #key)
end

-- The state of a hash that has read that block.
local function state_after(block)
  local state = sha256.start(state_type())
  compress(state, ffi.cast(words_of, block), 1)
  return state
end

-- A last block: a sum, and what follows a message that is one block longer.
local function last_block()
  local block = ffi.new("int32_t[16]")
  block[WORDS] = big_endian(bit.tobit(0x80000000))
  block[15] = big_endian((BLOCK_BYTES + WORDS * 4) * 8)
  return block
end

--- @tparam string password
-- @tparam string salt
-- @tparam number rounds
-- @treturn string 32 bytes, as 64 hexadecimal digits
return function(password, salt, rounds)
  local key = #password > BLOCK_BYTES and sha256.bytes(password) or password
  local inner_block = mixed(key, 0x36)
  local inner, outer = state_after(inner_block), state_after(mixed(key, 0x5C))
  local first = sha256.bytes(inner_block .. salt .. "\0\0\0\1")

  local state, block, result = state_type(), last_block(), state_type()
  ffi.copy(block, first, WORDS * 4)
  for round = 1, rounds do
    if round > 1 then
      ffi.copy(state, inner, WORDS * 4)
      compress(state, block, 1)
      for i = 0, WORDS - 1 do
        block[i] = big_endian(state[i])
      end
    end
    ffi.copy(state, outer, WORDS * 4)
    compress(state, block, 1)
    for i = 0, WORDS - 1 do
      block[i] = big_endian(state[i])
      result[i] = bit.bxor(result[i], state[i])
    end
    if round % CHECK_ROUNDS == 0 then
      treadle.check()
    end
  end
  local digits = {}
  for i = 0, WORDS - 1 do
    digits[i + 1] = bit.tohex(result[i])
  end
  return table.concat(digits)
end
