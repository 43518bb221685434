--- The machine's physical limits and clocks: limits.c, compiled on first use and bound by the FFI.
-- @module limits
local ffi = require "ffi"

ffi.cdef [[
double limit_now_s(void);
double limit_cpu_s(void);
double limit_children_cpu_s(void);
double limit_resident_bytes(void);
int limit_cores(void);
double limit_sleep_until(double when_s);
double limit_pingpong_s(int trips);
double limit_futex_s(int trips, int same_core, double period_s, double *cpu_share);
double limit_ring_per_s(int items);
double limit_threads_s(int threads);
double limit_copy_bytes_per_s(size_t bytes, int copies);
double limit_scale_s(double *data, size_t count, int threads);
double limit_qsort_s(double *data, size_t count);
]]

local limits = {}

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end
limits.quote = quote

--- Compiles limits.c unless the library is newer.
-- @param dir the folder of limits.c
-- @param build the folder of the result, made when it is missing
-- @return true, or nil and what the compiler said
function limits.build(dir, build)
  local source, library = dir .. "/limits.c", build .. "/limits.so"
  local command = ("mkdir -p %s && { [ %s -nt %s ] || ${CC:-cc} -std=c11 -O2 -pthread -shared "
    .. "-fPIC -fvisibility=hidden -o %s %s; } 2>&1; echo status $?"):format(quote(build),
    quote(library), quote(source), quote(library), quote(source))
  local pipe = assert(io.popen(command))
  local said = pipe:read("*a")
  pipe:close()
  if not said:find("status 0%s*$") then return nil, "cannot compile limits.c: " .. said end
  return true
end

--- Loads the compiled library: its functions without the prefix.
function limits.load(build)
  local library = ffi.load(build .. "/limits.so")
  limits.now = library.limit_now_s
  limits.cpu = library.limit_cpu_s
  limits.children_cpu = library.limit_children_cpu_s
  limits.resident = library.limit_resident_bytes
  limits.cores = library.limit_cores
  limits.sleep_until = library.limit_sleep_until
  limits.pingpong = library.limit_pingpong_s
  limits.ring = library.limit_ring_per_s
  limits.threads = library.limit_threads_s
  limits.copy = library.limit_copy_bytes_per_s
  limits.scale = library.limit_scale_s
  limits.qsort = library.limit_qsort_s

  local share = ffi.new("double[1]")
  --- A futex round trip, its sides on one core or on two, at once or one per period.
  -- @return seconds, and what both sides use of a core
  function limits.futex(trips, same_core, period)
    local took = library.limit_futex_s(trips, same_core and 1 or 0, period or 0, share)
    return took, share[0]
  end

  function limits.sleep(seconds)
    return library.limit_sleep_until(library.limit_now_s() + seconds)
  end
  return limits
end

return limits
