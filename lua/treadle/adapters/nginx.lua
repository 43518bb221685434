--- Joins an nginx worker process (lua-nginx-module, OpenResty), which owns its event loop and can
-- watch no descriptor of others. So the loop's bell sends a byte on a socket that a cosocket of
-- nginx's is connected to; a timer's light threads read it, and watch the time. What waits in a
-- request is parked in a semaphore of nginx's. docs/nginx.md tells what works where.
-- @module treadle.adapters.nginx
local attach = require "treadle.attach"
local core = require "treadle.core"
local coroutines = require "treadle.coroutines"
local loop = require "treadle.loop"

local M = {}

--- Milliseconds in seconds that every timer of nginx's takes: they are counted in an int.
local LONGEST = 2147483

--- What a wait in these phases could never come back from: they run on, whoever yields.
local NO_WAIT = {
  set = "set_by_lua", log = "log_by_lua", header_filter = "header_filter_by_lua",
  body_filter = "body_filter_by_lua", balancer = "balancer_by_lua",
  ssl_session_store = "ssl_session_store_by_lua", init = "init_by_lua",
  init_worker = "init_worker_by_lua", exit_worker = "exit_worker_by_lua",
}

--- Phases in which nginx serves nobody, so that the process may stand still.
local MAY_STALL = { init_worker = true, exit_worker = true }

--- Those that nginx has in the place of LuaJIT's, which it keeps by the same names with a _ before:
-- they yield to its scheduler, so only what that runs may call them.
local REPLACED = { "create", "resume", "status", "wrap", "yield" }

--- How long until the next look while there is no socket, and until the next try to make one; until
-- the next look whether a process that is to end may do so.
local LOOK, RETRY, EXIT_LOOK = 0.01, 1, 0.1

--- This process's way to hear of its end: one timer, which comes early then.
local on_exit

local function hear_of_exit(ngx, fn)
  local function wait(premature)
    if premature then
      on_exit()
    else
      ngx.timer.at(LONGEST, wait)
    end
  end
  if not on_exit then
    local ok, err = ngx.timer.at(LONGEST, wait)
    if not ok and not ngx.worker.exiting() then
      error("treadle.attach: nginx gives no timer: " .. err, 0)
    end
  end
  on_exit = fn
end

--- Folders in which a socket may be made, the best first.
local function folders(ngx)
  return { os.getenv "TMPDIR" or "/tmp", "/tmp", "/dev/shm", (ngx.config.prefix():gsub("/$", "")) }
end

--- A socket of nginx's on which a byte arrives when the loop's bell rings; or nil, and why.
local function connect(ngx)
  local err = "no folder for a socket: " .. table.concat(folders(ngx), ", ")
  for _, folder in ipairs(folders(ngx)) do
    local peer, path = core.peer_open(folder)
    if peer then
      local socket = ngx.socket.tcp()
      socket:settimeouts(1000, 1000, LONGEST * 1000)
      local _, refusal = socket:connect("unix:" .. path)
      if core.peer_join(peer) then
        return socket
      end
      err = refusal or "it was not connected"
      socket:close()
    end
  end
  return nil, err
end

--- Let `is_ours()` decide whose functions of coroutines the code that runs there gets.
-- @return function that leaves them to nginx again
local function share_coroutines(is_ours)
  local theirs = {}
  for _, name in ipairs(REPLACED) do
    local plain, scheduled = coroutine["_" .. name], coroutine[name]
    theirs[name] = scheduled
    rawset(coroutine, name, function(...)
      if is_ours() then
        return plain(...)
      end
      return scheduled(...)
    end)
  end
  return function()
    for name, scheduled in pairs(theirs) do
      rawset(coroutine, name, scheduled)
    end
  end
end

--- Let treadle's coroutines forget the request that they were made in. They may outlive it, and
-- nginx's functions would go on with what it has freed; so these say that there is no request.
local function forget_requests()
  local ffi = require "ffi"
  local ok, exdata = pcall(require, "thread.exdata") -- OpenResty's LuaJIT
  if not ok then
    return
  end
  local create, none = coroutines.create, ffi.cast("void *", nil)
  loop.set_maker(function(fn)
    return create(function(...)
      exdata(none)
      return fn(...)
    end)
  end)
end

--- @param ngx nginx's table of functions
function M.new(ngx)
  local semaphore = require "ngx.semaphore"
  local adapter = { name = "nginx" }

  local turn                              -- attach's, while it is watched
  local pump                              -- the light threads that run turns, or nil
  local is_exiting = false
  local places = setmetatable({}, { __mode = "k" }) -- semaphores that somebody was parked in
  local due = math.huge                   -- when the next turn must come
  local is_turning = false                -- the code that runs is what a turn runs

  local function log(...)
    ngx.log(ngx.ERR, "treadle: ", ...)
  end

  local function wake_up_for_nothing()
    core.leave(true)
    core.disarm()
  end

  --- The time of the next turn; the thread that waits for it may have to wait less.
  local function set_due(self, seconds)
    due = seconds < math.huge and core.now() + seconds or math.huge
    if due < self.waits_until then
      self.waits_until = due
      self.clock:post()
    end
  end

  local function run_turn(self)
    if turn and not self.is_over then
      is_turning = true
      local seconds = turn()
      is_turning = false
      set_due(self, seconds > 0 and seconds or math.huge) -- 0: the bell has been rung
    end
  end

  local function finish(self)
    if not self.is_over then
      self.is_over = true
      pump = nil
      self.clock:post()
      wake_up_for_nothing()
    end
  end

  --- Whether a request waits, or code of treadle's has not ended. nginx kills light threads that
  -- wait when their client has gone, and tells nobody: then nothing waits in the semaphore. Such a
  -- one's timer may still be there.
  local function is_needed()
    for place in pairs(places) do
      if place:count() < 0 then
        return true
      end
    end
    return loop.is_busy() or core.is_live(2 ^ 31)
  end

  local function end_if_possible(self)
    if not is_needed() then
      finish(self)
    end
  end

  local function process_ends()
    is_exiting = true
    if pump then
      pump.clock:post()
      core.leave(true) -- nginx sleeps once more before it looks at semaphores
    end
  end

  local function keep_time(self)
    while not self.is_over do
      local left = math.max(0, due - core.now())
      if left == 0 then
        run_turn(self)
      else
        left = math.min(left, is_exiting and EXIT_LOOK or LONGEST)
        self.waits_until = core.now() + left
        self.clock:wait(math.ceil(left * 1000) / 1000)
        self.waits_until = 0
        if is_exiting then
          end_if_possible(self)
        end
      end
    end
  end

  --- Without a socket: look whether there is something, now and then.
  local function look(self)
    local retry = core.now() + RETRY
    while not self.is_over and core.now() < retry do
      run_turn(self)
      ngx.sleep(LOOK)
    end
  end

  local function read(self)
    local complained = false
    while not self.is_over do
      local socket, err = connect(ngx)
      if socket then
        run_turn(self) -- it may have rung before
        repeat
          local bytes = not self.is_over and socket:receiveany(64)
          run_turn(self)
        until not bytes
        socket:close()
      else
        if not complained and not ngx.worker.exiting() then
          complained = true
          log("cannot wait on a socket (", err, "); looks every ", LOOK * 1000, " ms instead")
        end
        look(self)
      end
    end
  end

  local function run(_, self)
    local clock = ngx.thread.spawn(keep_time, self)
    read(self)
    finish(self)
    ngx.thread.wait(clock)
  end

  --- In a coroutine of treadle's there is no request, hence no timer; whoever awaits it starts it.
  local function start()
    if pump or not turn or loop.is_spawned() or ngx.get_phase() == "exit_worker" then
      return
    end
    local self = { is_over = false, waits_until = 0, clock = semaphore.new() }
    local ok, err = ngx.timer.at(0, run, self)
    if not ok then
      error("treadle.attach: nginx gives no timer: " .. err, 0)
    end
    pump = self
  end

  function adapter.watch(_, fn)
    if ngx.get_phase() == "init" then
      error("treadle.attach: do it in init_worker_by_lua: nginx forks after init_by_lua", 0)
    end
    local give_back = share_coroutines(function() return is_turning or loop.is_spawned() end)
    turn = fn
    forget_requests()
    start()
    hear_of_exit(ngx, process_ends)
    return function()
      give_back()
      loop.set_maker(nil)
      turn = nil
      if pump then
        finish(pump)
      end
    end
  end

  function adapter.rearm(seconds)
    if pump then
      set_due(pump, seconds)
    end
  end

  function adapter.hold(is_held)
    if is_held then
      start()
    end
  end

  --- Code outside of all coroutines: nothing else could be served meanwhile.
  function adapter.block(is_done, seconds)
    local phase = ngx.get_phase()
    if not MAY_STALL[phase] then
      error(NO_WAIT[phase] and ("nginx: cannot wait in " .. NO_WAIT[phase])
        or "nginx: cannot wait in a callback; do it in a coroutine (treadle.spawn)", 0)
    end
    attach.stall(is_done, seconds)
  end

  function adapter.parker()
    if is_turning or loop.is_spawned() then -- a coroutine that such code has made
      return nil
    end
    local phase = ngx.get_phase()
    if NO_WAIT[phase] then
      error("nginx: cannot wait in " .. NO_WAIT[phase], 0)
    end
    start()
    local place, is_woken
    return {
      park = function(seconds)
        place = place or semaphore.new()
        if is_woken then -- by a finalizer
          is_woken = false
          return
        end
        places[place] = true
        local ok, err = place:wait(math.min(math.max(math.ceil(seconds * 1000), 1) / 1000, LONGEST))
        places[place] = nil
        if not ok and err ~= "timeout" then
          error("nginx: cannot wait here: " .. err, 0)
        end
      end,
      wake = function()
        if place then
          place:post()
        else
          is_woken = true
        end
      end,
    }
  end

  adapter.report = log

  return adapter
end

return M
