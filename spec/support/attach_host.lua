--- A small event loop, as a program may have one of its own: poll(2), threads that are coroutines,
-- timers. And an adapter that joins treadle to it.
local treadle = require "treadle"

local ffi = require "ffi"

ffi.cdef [[
  struct attach_pollfd { int fd; short events; short revents; };
  int attach_poll(struct attach_pollfd *, unsigned long, int) __asm__("poll");
]]

local POLLIN = 1

local M = {}

--- What a thread of this host yields: nobody else does.
local YIELDED = {}

function M.new()
  local host = { turns = 0, rearmed = {}, held = {}, reports = {}, passes = 0 }
  local ready, sleeping = {}, {} -- threads to resume; thread -> when at the latest
  local watched -- { fd =, turn =, due = }

  --- Run a function in a thread of the host's.
  function host.spawn(fn)
    local co = coroutine.create(fn)
    ready[#ready + 1] = co
    return co
  end

  local function resume(co)
    host.current = co
    local ok, what = coroutine.resume(co)
    host.current = nil
    if not ok then
      error(debug.traceback(co, what), 0)
    elseif coroutine.status(co) ~= "dead" then
      assert(what == YIELDED, "a thread of the host's has yielded for somebody else")
    end
  end

  --- A thread sleeps until it is woken, at most so long.
  function host.sleep(seconds)
    sleeping[host.current] = treadle.now() + seconds
    coroutine.yield(YIELDED)
  end

  function host.wake(co)
    if sleeping[co] then
      sleeping[co] = nil
      ready[#ready + 1] = co
    end
  end

  function host.is_over()
    return #ready == 0 and next(sleeping) == nil
  end

  local function timeout(limit)
    local due = math.min(watched and watched.due or math.huge, limit)
    for _, time in pairs(sleeping) do
      due = math.min(due, time)
    end
    return #ready > 0 and 0 or math.max(0, due - treadle.now())
  end

  --- One pass of the loop: sleeps until `limit` at the latest, a time of the clock.
  function host.step(limit)
    host.passes = host.passes + 1
    local fds = ffi.new("struct attach_pollfd[1]")
    fds[0].fd, fds[0].events = watched and watched.fd or -1, POLLIN
    ffi.C.attach_poll(fds, 1, math.ceil(math.min(timeout(limit or math.huge), 20) * 1000))
    if watched and (fds[0].revents ~= 0 or treadle.now() >= watched.due) then
      host.turns = host.turns + 1
      local seconds = watched.turn()
      if watched then
        watched.due = treadle.now() + seconds
      end
    end
    for co, time in pairs(sleeping) do
      if treadle.now() >= time then
        sleeping[co] = nil
        ready[#ready + 1] = co
      end
    end
    local list = ready
    ready = {}
    for _, co in ipairs(list) do
      resume(co)
    end
  end

  --- Run the loop until `is_done()`, or until no thread is left.
  function host.run(is_done)
    is_done = is_done or host.is_over
    while not is_done() do
      host.step()
    end
  end

  --- An adapter with everything; a test takes away what it does without.
  host.adapter = {
    name = "spec",
    watch = function(fd, turn)
      watched = { fd = fd, turn = turn, due = 0 }
      return function() watched = nil end
    end,
    rearm = function(seconds)
      host.rearmed[#host.rearmed + 1] = seconds
      watched.due = math.min(watched.due, treadle.now() + seconds)
    end,
    hold = function(is_held)
      host.held[#host.held + 1] = is_held
    end,
    block = function(is_done, seconds)
      local limit = treadle.now() + seconds
      while not is_done() and treadle.now() < limit do
        host.step(limit)
      end
    end,
    parker = function(co)
      if host.forbids then
        error(host.forbids, 0)
      elseif co ~= host.current then
        return nil
      end
      return { park = host.sleep, wake = function() host.wake(co) end }
    end,
    report = function(message)
      host.reports[#host.reports + 1] = message
    end,
  }

  return host
end

return M
