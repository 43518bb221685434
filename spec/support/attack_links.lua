--- What hostile code with an FFI of its own does to what its process shares with the host: the
-- memory of the rings, the line and the bell (src/run/spawn.h). Each lets the host know that it has
-- done it, and goes on until it is ended; or returns.
local ffi = require "ffi"

ffi.cdef [[
void *treadle_attack_map(void *, size_t, int, int, int, long) __asm__("mmap");
long treadle_attack_write(int, const void *, size_t) __asm__("write");
long treadle_attack_read(int, void *, size_t) __asm__("read");
long treadle_attack_send(int, const void *, size_t, int) __asm__("send");
long treadle_attack_sendmsg(int, const void *, int) __asm__("sendmsg");
int treadle_attack_close(int) __asm__("close");
int treadle_attack_dup2(int, int) __asm__("dup2");
int treadle_attack_fcntl(int, int, ...) __asm__("fcntl");
int treadle_attack_fallocate(int, int, long, long) __asm__("fallocate");
typedef struct treadle_attack_record {
  uint64_t stamp;
  uint32_t len;
  uint8_t kind, is_bulk;
  int16_t status;
  uint32_t ticket, task;
  uint64_t when;
} treadle_attack_record;
]]
local C = ffi.C

local LINE, MEMORY, BELL = 3, 4, 5
local F_SETFL, O_RDWR, O_NONBLOCK, EAGAIN, MSG_DONTWAIT = 4, 2, 2048, 11, 0x40

local M = {}

local function for_ever()
  while true do end
end

--- The shared memory, as far as the page at its beginning says what there is.
local function link()
  local bytes = ffi.cast("uint8_t *", C.treadle_attack_map(nil, 2 ^ 22, 3, 1, MEMORY, 0))
  local words = ffi.cast("uint64_t *", bytes)
  local ring = tonumber(words[1])
  return {
    ring = ring, bulk = tonumber(words[2]), down_taken = words + 16, up_taken = words + 32,
    rest = ffi.cast("uint32_t *", bytes + 384), down = bytes + 4096, up = bytes + 4096 + ring,
  }
end

local function record(ring, at)
  return ffi.cast("treadle_attack_record *", ring + at)
end

--- The ticket of the call that runs: that of the youngest record.
local function own_ticket(l)
  local youngest
  for at = 0, l.ring - 64, 64 do
    local r = record(l.down, at)
    if r.kind == 1 and r.stamp % l.ring == at + 1
      and (not youngest or r.stamp > youngest.stamp) then
      youngest = r
    end
  end
  return youngest.ticket
end

--- Puts a result where the parent looks for the next one; `change` may make it a lie.
local function forge(payload, change, is_brief)
  local l = link()
  local got = l.up_taken[0]
  local r = record(l.up, tonumber(got % l.ring))
  r.len, r.kind, r.is_bulk, r.status = #payload, 2, 0, 0
  r.ticket, r.task, r.when = own_ticket(l), 0, 0
  ffi.copy(r + 1, payload, #payload)
  if change then
    change(r, l)
  end
  r.stamp = got + 1
  C.treadle_attack_write(BELL, ffi.new("uint64_t[1]", 1), 8)
  return is_brief or for_ever()
end

function M.forge_result(payload) return forge(payload) end
function M.forge_ticket() return forge("\1\0", function(r) r.ticket = 0x7fff0001 end) end
function M.forge_free_ticket() return forge("\1\0", function(r) r.ticket = 3 end) end
function M.forge_status() return forge("\1\0", function(r) r.status = 5 end) end
function M.forge_low_status() return forge("\1\0", function(r) r.status = -32768 end) end
function M.forge_kind() return forge("\1\0", function(r) r.kind = 200 end) end
function M.forge_length() return forge("\1\0", function(r) r.len = 0xffffffff end) end
function M.forge_ring_length(_) return forge("\1\0", function(r, l) r.len = l.ring end) end

function M.forge_bulk()
  return forge("\255\255\255\255\255\255\255\127", function(r) r.is_bulk, r.len = 1, 64 end)
end

function M.forge_bulk_length()
  return forge(("\0"):rep(8), function(r) r.is_bulk, r.len = 1, 0xffffffff end)
end

function M.forge_skip() return forge("\1\0", function(r) r.kind = 0 end, true) end

function M.forge_taken()
  local l = link()
  l.down_taken[0] = l.down_taken[0] + 2 ^ 40
  return "forged"
end

function M.forge_less_taken()
  local l = link()
  l.down_taken[0] = 0
  return "forged"
end

function M.fill_page()
  local l = link()
  ffi.fill(l.down - 4096, 4096, 0xff)
  return "filled"
end

function M.fill_rings()
  local l = link()
  ffi.fill(l.down - 4096, 4096 + 2 * l.ring, 0xff)
  return "filled"
end

--- The word on which it sleeps says other things than it does.
function M.forge_rest()
  link().rest[0] = 2
  return "forged"
end

function M.punch_memory()
  return C.treadle_attack_fallocate(MEMORY, 3, 0, 2 ^ 20) == 0 and "punched"
end

function M.close_all()
  for fd = LINE, BELL do
    C.treadle_attack_close(fd)
  end
  return for_ever()
end

function M.replace_all()
  for fd = LINE, BELL do
    C.treadle_attack_dup2(0, fd)
  end
  return for_ever()
end

function M.close_line() return C.treadle_attack_close(LINE) == 0 and for_ever() end
function M.close_bell() return C.treadle_attack_close(BELL) == 0 and for_ever() end

local function send(bytes)
  return C.treadle_attack_send(LINE, bytes, #bytes, MSG_DONTWAIT) > 0
end

function M.send_garbage() return send(("\255"):rep(100)) and for_ever() end
function M.send_long() return send(("x"):rep(60000)) and for_ever() end
function M.send_boot() return send("\5" .. ("\0"):rep(23)) and for_ever() end

--- As much as goes in.
function M.flood_line()
  repeat
    local is_sent = send(("x"):rep(100))
  until not is_sent and ffi.errno() ~= EAGAIN
  return for_ever()
end

--- A message with a descriptor in it.
function M.send_descriptor()
  local control = ffi.new("uint64_t[3]", 20, 1 + 2 ^ 32, 1)
  local text = ffi.cast("uintptr_t", ffi.cast("const char *", "hello"))
  local part = ffi.new("uint64_t[2]", text, 5)
  local message = ffi.new "uint64_t[7]"
  message[2] = ffi.cast("uint64_t", ffi.cast("uintptr_t", part))
  message[3] = 1
  message[4] = ffi.cast("uint64_t", ffi.cast("uintptr_t", control))
  message[5] = 24
  return C.treadle_attack_sendmsg(LINE, message, MSG_DONTWAIT) > 0 and for_ever()
end

--- Who rings the bell now waits for ever, if it is the same that the host rings.
function M.stop_bell()
  C.treadle_attack_fcntl(BELL, F_SETFL, ffi.cast("int", O_RDWR + O_NONBLOCK))
  for _, count in ipairs { -2, 1 } do
    local full = ffi.new("int64_t[1]", count)
    for _ = 1, 10000 do
      C.treadle_attack_write(BELL, full, 8)
    end
  end
  C.treadle_attack_fcntl(BELL, F_SETFL, ffi.cast("int", O_RDWR))
  return "stopped"
end

--- Whoever rings is not heard: this takes it all, and the task goes on meanwhile.
function M.take_bell(path)
  local count = ffi.new "uint64_t[1]"
  C.treadle_attack_fcntl(BELL, F_SETFL, ffi.cast("int", O_RDWR + O_NONBLOCK))
  local file = assert(io.open(path, "w"))
  file:write "taking\n"
  file:close()
  while true do
    C.treadle_attack_read(BELL, count, 8)
  end
end

function M.add(a, b) return a + b end

return M
