--- A descriptor for hosts that have no timers: readable when another one is, or when a time has
-- come.
-- @module treadle.adapters.alarm
local ffi = require "ffi"

ffi.cdef [[
typedef struct {
  struct { long s, ns; } interval, value;
} treadle_alarm_time;
typedef struct {
  uint32_t events;
  uint64_t data;
} __attribute__((packed)) treadle_alarm_event;
int treadle_alarm_epoll(int flags) __asm__("epoll_create1");
int treadle_alarm_epoll_ctl(int epoll, int op, int fd, void *event) __asm__("epoll_ctl");
int treadle_alarm_timer(int clock, int flags) __asm__("timerfd_create");
int treadle_alarm_set(int fd, int flags, const void *time, void *old) __asm__("timerfd_settime");
int treadle_alarm_close(int fd) __asm__("close");
char *treadle_alarm_strerror(int number) __asm__("strerror");
]]

local C = ffi.C
local CLOCK_MONOTONIC, CLOEXEC, NONBLOCK = 1, 0x80000, 0x800
local EPOLL_CTL_ADD, EPOLLIN = 1, 1

--- Seconds that a timer holds for certain; whoever waits longer is called too early, once a year.
local LONGEST = 3e7

local M = {}

local methods = {}
local mt = { __index = methods }

local function check(result, what)
  if result < 0 then
    local problem = ffi.string(C.treadle_alarm_strerror(ffi.errno()))
    error(("treadle.attach: %s: %s"):format(what, problem), 0)
  end
  return result
end

local function add(epoll, fd)
  -- packed on x86-64 alone
  local event = jit.arch == "x64" and ffi.new("treadle_alarm_event", EPOLLIN, fd)
    or ffi.new("uint64_t[2]", EPOLLIN, fd)
  check(C.treadle_alarm_epoll_ctl(epoll, EPOLL_CTL_ADD, fd, event), "epoll_ctl")
end

--- @tparam number fd the other descriptor
function M.new(fd)
  local self = setmetatable({}, mt)
  self.timer = check(C.treadle_alarm_timer(CLOCK_MONOTONIC, CLOEXEC + NONBLOCK), "timerfd_create")
  self.fd = C.treadle_alarm_epoll(CLOEXEC)
  if self.fd < 0 then
    C.treadle_alarm_close(self.timer)
  end
  check(self.fd, "epoll_create1")
  add(self.fd, fd)
  add(self.fd, self.timer)
  return self
end

--- From now on it is readable when `seconds` have passed; not any more for a time that was set
-- before. `math.huge`: never.
function methods:set(seconds)
  local time = ffi.new("treadle_alarm_time")
  if seconds < math.huge then
    seconds = math.min(math.max(seconds, 1e-9), LONGEST)
    time.value.s = math.floor(seconds)
    time.value.ns = math.floor((seconds % 1) * 1e9)
    if time.value.s == 0 and time.value.ns == 0 then
      time.value.ns = 1
    end
  end
  check(C.treadle_alarm_set(self.timer, 0, time, nil), "timerfd_settime")
end

function methods:close()
  C.treadle_alarm_close(self.fd)
  C.treadle_alarm_close(self.timer)
end

return M
