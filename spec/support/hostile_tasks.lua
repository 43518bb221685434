--- Tasks that attack their host by what a worker's process shares with it: the rings, the line and
-- the bell.
local ffi = require "ffi"

ffi.cdef [[
  int getpid(void);
  int fork(void);
  int fcntl(int, int, ...);
  int ftruncate(int, long);
  int fallocate(int, int, long, long);
  long write(int, const void *, size_t);
  long send(int, const void *, size_t, int);
  int kill(int, int);
]]

local C = ffi.C
local LINE, MEMORY, BELL = 3, 4, 5
local PAGE, RING = 4096, 262144

local M = {}

function M.echo(...)
  return ...
end

function M.nap()
  require("treadle").sleep(1000)
end

--- The memory that it shares: where, and how many bytes.
local function region()
  for line in io.lines("/proc/self/maps") do
    local from, to = line:match("^(%x+)%-(%x+) rw%-s .*memfd:treadle %(")
    if from then
      return ffi.cast("uint8_t *", tonumber(from, 16)), tonumber(to, 16) - tonumber(from, 16)
    end
  end
  error "there is none"
end

local function odd()
  local n = math.random(8)
  return n == 1 and 0xffffffffffffffffULL or n == 2 and 0x7fffffffffffffffULL
    or n == 3 and 0ULL or n == 4 and 1ULL * math.random(2 ^ 20)
    or n == 5 and 64ULL * math.random(2 ^ 13) + 1
    or 1ULL * math.random(2 ^ 31 - 1) * math.random(2 ^ 20)
end

local attacks = {}

--- Anything anywhere in the page of words and the rings.
function attacks.words()
  local words = ffi.cast("uint64_t *", (region()))
  for _ = 1, 20000 do
    words[math.random(0, (PAGE + 2 * RING) / 8 - 1)] = odd()
  end
end

--- The words of the page alone: sizes, places, who sleeps.
function attacks.page()
  local words = ffi.cast("uint64_t *", (region()))
  for _ = 1, 50000 do
    words[math.random(0, PAGE / 8 - 1)] = odd()
  end
end

function attacks.zeros()
  local data, bytes = region()
  ffi.fill(data, math.min(bytes, PAGE + 2 * RING))
end

--- All of the memory, bulk, too.
function attacks.noise()
  local data, bytes = region()
  ffi.fill(data, bytes, math.random(255))
end

--- Records in the ring up, with the stamps that they must have.
function attacks.records()
  local ring = (region()) + PAGE + RING
  for at = 0, RING - 64, 64 do
    local r = ring + at
    local u32, u64 = ffi.cast("uint32_t *", r), ffi.cast("uint64_t *", r)
    u32[2] = math.random(2) == 1 and math.random(0, 2 ^ 20) or tonumber(odd() % 2 ^ 32)
    r[12] = math.random(0, 3)   -- kind
    r[13] = math.random(0, 1)   -- bulk
    ffi.cast("int16_t *", r + 14)[0] = math.random(-40, 40)
    u32[4] = math.random(0, 4) * 65536 + math.random(0, 20)
    u32[5], u64[3], u64[4] = math.random(100), odd(), odd()
    u64[0] = at + 1
  end
end

--- A result of the job that runs, whose payload is of another kind than what a worker writes.
function attacks.results()
  local ring = (region()) + PAGE + RING
  for at = 0, RING - 64, 64 do
    local r = ring + at
    ffi.cast("uint32_t *", r)[2] = 32
    r[12], r[13] = 2, 0
    ffi.cast("uint32_t *", r)[4] = math.random(1, 3) * 65536 + math.random(1, 15)
    for i = 32, 63 do
      r[i] = math.random(0, 255)
    end
    ffi.cast("uint64_t *", r)[0] = at + 1
  end
end

--- Its file may be neither cut off, nor grow, nor be sealed; holes are zeros.
function attacks.file()
  C.ftruncate(MEMORY, 0)
  C.ftruncate(MEMORY, 2 ^ 40)
  C.fcntl(MEMORY, 1033, ffi.cast("int", 0x10)) -- F_ADD_SEALS, F_SEAL_FUTURE_WRITE
  local _, bytes = region()
  C.fallocate(MEMORY, 3, 0, bytes) -- a hole
end

--- Garbage on the line: of every length, and kinds of messages that a worker never sends now.
function attacks.line()
  local bytes = ffi.new("uint8_t[65536]")
  for _ = 1, 300 do
    for i = 0, 40 do
      bytes[i] = math.random(0, 6)
    end
    C.send(LINE, bytes, math.random(0, 3) == 0 and math.random(65536) or 24, 0x4040)
  end
end

--- The bell rings all the time, blocks, and nobody hears it.
function attacks.bell()
  C.fcntl(BELL, 4, ffi.cast("int", 0)) -- F_SETFL
  C.fcntl(LINE, 4, ffi.cast("int", 0))
  local bytes = ffi.new("uint8_t[65536]")
  for _ = 1, 200 do
    C.write(BELL, bytes, 4096)
  end
end

--- A process of its own that goes on while this one has gone: another's ring it has not.
function attacks.orphan()
  if C.fork() == 0 then
    local words = ffi.cast("uint64_t *", (region()))
    for _ = 1, 2e5 do
      words[math.random(0, (PAGE + 2 * RING) / 8 - 1)] = odd()
    end
    C.kill(C.getpid(), 9)
  end
end

--- All at once, and again, until somebody ends it.
function attacks.everything()
  while true do
    for _, name in ipairs { "words", "page", "records", "line", "results", "zeros" } do
      attacks[name]()
    end
  end
end

--- Attack; what it has returned by then is true, and that it is killed is right, too.
function M.attack(name, seed)
  math.randomseed(seed)
  attacks[name]()
  return name
end

--- The names of the attacks, sorted.
function M.names()
  local list = {}
  for name in pairs(attacks) do
    list[#list + 1] = name
  end
  table.sort(list)
  return list
end

return M
