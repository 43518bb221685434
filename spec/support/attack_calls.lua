--- What hostile code with an FFI of its own tries in a process: system calls. Each returns what it
-- got; or nil and the number of the kernel's error. `w` is the spec's table of paths and numbers.
local ffi = require "ffi"

ffi.cdef [[
long treadle_attack_call(long, ...) __asm__("syscall");
void *treadle_attack_map(void *, size_t, int, int, int, long) __asm__("mmap");
int treadle_attack_thread(unsigned long *, const void *, void *(*)(void *), void *)
  __asm__("pthread_create");
int treadle_attack_pause(void) __asm__("pause");
int treadle_attack_rlimit(int, uint64_t *) __asm__("getrlimit");
char *treadle_attack_getenv(const char *) __asm__("getenv");
uintptr_t treadle_attack_getauxval(unsigned long) __asm__("getauxval");
extern char **treadle_attack_environ __asm__("environ");
]]
local C = ffi.C

local M = {}

local AT_FDCWD, O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_PATH =
  -100, 0, 1, 2, 64, 512, 0x200000
local O_TMPFILE = 0x410000
local MEMORY = 4

--- The numbers of calls, on x86-64 and on aarch64; those from 424 on are the same everywhere.
local NUMBERS = {
  read = { 0, 63 }, write = { 1, 64 }, close = { 3, 57 }, openat = { 257, 56 }, dup3 = { 292, 24 },
  fcntl = { 72, 25 }, ioctl = { 16, 29 }, ftruncate = { 77, 46 }, truncate = { 76, 45 },
  fallocate = { 285, 47 }, renameat2 = { 316, 276 }, linkat = { 265, 37 }, unlinkat = { 263, 35 },
  symlinkat = { 266, 36 }, mkdirat = { 258, 34 }, mknodat = { 259, 33 }, fchmodat = { 268, 53 },
  fchownat = { 260, 54 }, utimensat = { 280, 88 }, setxattr = { 188, 5 }, chroot = { 161, 51 },
  getdents64 = { 217, 61 }, fchdir = { 81, 50 }, readlinkat = { 267, 78 },
  name_to_handle_at = { 303, 264 }, open_by_handle_at = { 304, 265 }, mount = { 165, 40 },
  umount2 = { 166, 39 }, pivot_root = { 155, 41 }, swapon = { 167, 224 }, acct = { 163, 89 },
  quotactl = { 179, 60 }, execve = { 59, 221 }, execveat = { 322, 281 }, clone = { 56, 220 },
  unshare = { 272, 97 }, setns = { 308, 268 }, ptrace = { 101, 117 }, kcmp = { 312, 272 },
  process_vm_readv = { 310, 270 }, process_vm_writev = { 311, 271 }, kill = { 62, 129 },
  tkill = { 200, 130 }, tgkill = { 234, 131 }, rt_sigqueueinfo = { 129, 138 },
  rt_tgsigqueueinfo = { 297, 240 }, prctl = { 157, 167 }, setuid = { 105, 146 },
  setgid = { 106, 144 }, setresuid = { 117, 147 }, setgroups = { 116, 159 }, capset = { 126, 91 },
  setpriority = { 141, 140 }, sched_setaffinity = { 203, 122 }, sched_setscheduler = { 144, 119 },
  ioprio_set = { 251, 30 }, prlimit64 = { 302, 261 }, get_robust_list = { 274, 100 },
  migrate_pages = { 256, 238 }, move_pages = { 279, 239 }, add_key = { 248, 217 },
  request_key = { 249, 218 }, keyctl = { 250, 219 }, bpf = { 321, 280 },
  perf_event_open = { 298, 241 }, userfaultfd = { 323, 282 }, seccomp = { 317, 277 },
  io_setup = { 206, 0 }, shmget = { 29, 194 }, msgget = { 68, 186 }, semget = { 64, 190 },
  mq_open = { 240, 180 }, inotify_init1 = { 294, 26 }, fanotify_init = { 300, 262 },
  memfd_create = { 319, 279 }, kexec_load = { 246, 104 }, init_module = { 175, 105 },
  delete_module = { 176, 106 }, reboot = { 169, 142 }, sethostname = { 170, 161 },
  settimeofday = { 164, 170 }, clock_settime = { 227, 112 }, adjtimex = { 159, 171 },
  syslog = { 103, 116 }, personality = { 135, 92 }, vhangup = { 153, 58 }, setsid = { 112, 157 },
  socket = { 41, 198 }, socketpair = { 53, 199 }, connect = { 42, 203 }, sendto = { 44, 206 },
  sendmsg = { 46, 211 }, lookup_dcookie = { 212, 18 }, setrlimit = { 160, 164 },
  pidfd_send_signal = 424, io_uring_setup = 425, open_tree = 428, move_mount = 429, fsopen = 430,
  pidfd_open = 434, clone3 = 435, openat2 = 437, pidfd_getfd = 438, process_madvise = 440,
  mount_setattr = 442, landlock_create_ruleset = 444, memfd_secret = 447, process_mrelease = 448,
}

--- The old calls of x86-64, which have others in their place elsewhere.
local OLD = {
  open = 2, fork = 57, vfork = 58, rename = 82, link = 86, symlink = 88, mknod = 133, chmod = 90,
  chown = 92, creat = 85, iopl = 172, ioperm = 173, modify_ldt = 154, uselib = 134, ustat = 136,
  sysfs = 139, signalfd = 282, inotify_init = 253,
}

local is_x64 = ffi.arch == "x64"

--- nil and errno, or the result.
local function call(name, ...)
  local number = NUMBERS[name]
  number = type(number) == "table" and number[is_x64 and 1 or 2] or number or OLD[name]
  local args = { ... }
  for i = 1, select("#", ...) do
    if type(args[i]) == "number" then
      args[i] = ffi.cast("long", args[i])
    end
  end
  local result = tonumber(C.treadle_attack_call(number, unpack(args, 1, select("#", ...))))
  if result == -1 then
    return nil, ffi.errno()
  end
  return result
end

local function text(s)
  return ffi.cast("const char *", s)
end

local function read_all(fd)
  local buffer = ffi.new "char[256]"
  local n, errno = call("read", fd, buffer, 256)
  if n == nil then
    return nil, errno
  end
  return ffi.string(buffer, n)
end

local function open(path, flags)
  return call("openat", AT_FDCWD, text(path), flags or O_RDONLY, 384)
end

local function read(path)
  local fd, errno = open(path)
  if not fd then
    return nil, errno
  end
  return read_all(fd)
end

--- What one has done that the other shall be asked for.
local function once(fd, errno, go_on)
  if not fd then
    return nil, errno
  end
  return go_on(fd)
end

-- --- files ---------------------------------------------------------------------------------------

function M.open_elsewhere(w) return read(w.canary) end
function M.open_passwd() return read "/etc/passwd" end
function M.open_shadow() return read "/etc/shadow" end
function M.open_secret(w) return read(w.folder .. "/.env") end
function M.open_key(w) return read(w.folder .. "/server.key") end
function M.open_link(w) return read(w.folder .. "/to_canary") end
function M.open_hard_link_elsewhere(w) return read(w.elsewhere .. "/hard") end
function M.open_through_root(w) return read("/proc/self/root" .. w.canary) end
function M.open_through_roots_of_init(w) return read("/proc/1/root" .. w.canary) end
function M.open_through_host(w) return read(("/proc/%d/root%s"):format(w.pid, w.canary)) end
function M.open_through_cwd(w) return read("/proc/self/cwd/" .. ("../"):rep(20) .. w.canary) end
function M.open_old(w) return call("open", text(w.canary), O_RDONLY, 0) end
function M.create_old(w) return call("creat", text(w.elsewhere .. "/new"), 384) end
function M.open_to_write(w) return open(w.canary, O_WRONLY) end
function M.open_to_empty(w) return open(w.victim, O_RDWR + O_TRUNC) end
function M.open_new(w) return open(w.elsewhere .. "/new", O_WRONLY + O_CREAT) end
function M.open_without_name(w) return open(w.elsewhere, O_WRONLY + O_TMPFILE) end
function M.open_new_in_memory() return open("/dev/shm/treadle_attack", O_RDWR + O_CREAT) end
function M.empty_by_name(w) return call("truncate", text(w.victim), 0) end

function M.open_by_openat2(w)
  local how = ffi.new "uint64_t[3]"
  return call("openat2", AT_FDCWD, text(w.canary), how, 24)
end

--- A descriptor that only names a file, opened again.
function M.open_through_path_descriptor(w)
  return once(open(w.canary, O_PATH), nil, function(fd)
    return read("/proc/self/fd/" .. fd)
  end)
end

function M.open_below_path_descriptor(w)
  return once(open(w.elsewhere, O_PATH), nil, function(fd)
    return call("openat", fd, text "canary", O_RDONLY, 0)
  end)
end

function M.open_from_entered_folder(w)
  return once(open(w.elsewhere, O_PATH), nil, function(fd)
    local entered, errno = call("fchdir", fd)
    if not entered then
      return nil, errno
    end
    return read "canary"
  end)
end

function M.list_elsewhere(w)
  return once(open(w.elsewhere), nil, function(fd)
    return call("getdents64", fd, ffi.new "char[4096]", 4096)
  end)
end

function M.read_path_descriptor(w)
  return once(open(w.canary, O_PATH), nil, read_all)
end

function M.map_to_execute(w)
  return once(open(w.canary), nil, function(fd)
    return C.treadle_attack_map(nil, 4096, 5, 2, fd, 0) ~= ffi.cast("void *", -1)
  end)
end

function M.link_by_name(w)
  return call("linkat", AT_FDCWD, text(w.canary), AT_FDCWD, text(w.folder .. "/mine"), 0)
end

function M.link_by_old_name(w) return call("link", text(w.canary), text(w.folder .. "/mine")) end

function M.link_path_descriptor(w)
  return once(open(w.canary, O_PATH), nil, function(fd)
    return call("linkat", fd, text "", AT_FDCWD, text(w.folder .. "/mine"), 0x1000)
  end)
end

function M.link_into_written(w)
  return call("linkat", AT_FDCWD, text(w.canary), AT_FDCWD, text(w.written .. "/mine"), 0)
end

function M.rename_into_written(w)
  return call("renameat2", AT_FDCWD, text(w.canary), AT_FDCWD, text(w.written .. "/mine"), 0)
end

function M.rename_out_of_written(w)
  return call("renameat2", AT_FDCWD, text(w.written .. "/own"), AT_FDCWD,
    text(w.elsewhere .. "/from_worker"), 0)
end

function M.exchange_with_written(w)
  return call("renameat2", AT_FDCWD, text(w.written .. "/own"), AT_FDCWD, text(w.canary), 2)
end

function M.rename_by_old_name(w) return call("rename", text(w.canary), text(w.canary .. "2")) end
function M.remove_elsewhere(w) return call("unlinkat", AT_FDCWD, text(w.canary), 0) end
function M.make_folder(w) return call("mkdirat", AT_FDCWD, text(w.elsewhere .. "/made"), 448) end

function M.make_link_in_written(w)
  return call("symlinkat", text(w.canary), AT_FDCWD, text(w.written .. "/link"))
end

function M.make_device_in_written(w) -- a character device, 1:5
  return call("mknodat", AT_FDCWD, text(w.written .. "/zero"), 0x2180, 0x105)
end

function M.make_pipe_in_written(w)
  return call("mknodat", AT_FDCWD, text(w.written .. "/pipe"), 0x1180, 0)
end

function M.change_mode(w) return call("fchmodat", AT_FDCWD, text(w.canary), 511, 0) end

function M.change_own_mode(w)
  return call("fchmodat", AT_FDCWD, text(w.written .. "/own"), 2541, 0)
end

function M.change_owner(w) return call("fchownat", AT_FDCWD, text(w.canary), 1, 1, 0) end
function M.change_times(w) return call("utimensat", AT_FDCWD, text(w.canary), nil, 0) end

function M.change_attribute(w)
  return call("setxattr", text(w.canary), text "trusted.treadle", text "x", 1, 0)
end

function M.name_by_handle(w)
  local handle = ffi.new("uint32_t[40]", 128)
  return call("name_to_handle_at", AT_FDCWD, text(w.canary), handle, ffi.new "int[1]", 0)
end

function M.open_by_handle(w)
  local handle = ffi.new("uint32_t[40]", 128)
  call("name_to_handle_at", AT_FDCWD, text(w.canary), handle, ffi.new "int[1]", 0)
  return once(open(w.folder, O_PATH), nil, function(fd)
    return call("open_by_handle_at", fd, handle, O_RDONLY)
  end)
end

function M.open_memory_of_host(w) return open(("/proc/%d/mem"):format(w.pid), O_RDWR) end
function M.open_environment_of_host(w) return read(("/proc/%d/environ"):format(w.pid)) end
function M.open_maps_of_host(w) return read(("/proc/%d/maps"):format(w.pid)) end
function M.open_descriptor_of_host(w) return read(("/proc/%d/fd/%d"):format(w.pid, w.secret_fd)) end
function M.open_own_environment() return read "/proc/self/environ" end
function M.open_own_memory() return open("/proc/self/mem", O_RDWR) end
function M.ask_c_for_variable(w) return C.treadle_attack_getenv(w.variable) ~= nil end

--- Where the kernel has put them all when the process was started.
function M.look_for_variable(w)
  local from = ffi.cast("const char *", C.treadle_attack_environ)
  local to = C.treadle_attack_getauxval(31) -- the program's name, behind them
  return ffi.string(from, to - ffi.cast("uintptr_t", from)):find(w.token, 1, true) ~= nil
end

function M.open_kernel_memory() return open "/dev/kmsg" end
function M.open_terminal() return open("/dev/tty", O_RDWR) end
function M.open_pty() return open("/dev/ptmx", O_RDWR) end
function M.change_kernel() return open("/proc/sys/kernel/core_pattern", O_WRONLY) end

-- --- file systems --------------------------------------------------------------------------------

function M.bind_over(w) return call("mount", text(w.canary), text(w.victim), nil, 4096, nil) end
function M.mount_proc(w) return call("mount", text "proc", text(w.folder), text "proc", 0, nil) end
function M.unmount(w) return call("umount2", text(w.folder), 2) end
function M.open_tree() return call("open_tree", AT_FDCWD, text "/", 1) end
function M.open_file_system() return call("fsopen", text "tmpfs", 0) end
function M.change_mounts() return call("mount_setattr", AT_FDCWD, text "/", 0, nil, 0) end
function M.change_root(w) return call("chroot", text(w.folder)) end
function M.pivot_root(w) return call("pivot_root", text(w.folder), text(w.folder)) end
function M.unshare_mounts() return call("unshare", 0x00020000) end
function M.unshare_users() return call("unshare", 0x10000000) end
function M.unshare_network() return call("unshare", 0x40000000) end
function M.unshare_time() return call("unshare", 0x00000080) end
function M.enter_namespace(w)
  return once(open(("/proc/%d/ns/mnt"):format(w.pid)), nil, function(fd)
    return call("setns", fd, 0)
  end)
end

function M.enter_by_process(w)
  return once(call("pidfd_open", w.pid, 0), nil, function(fd)
    return call("setns", fd, 0x00020000)
  end)
end

-- --- programs ------------------------------------------------------------------------------------

local function arguments(path)
  return ffi.new("const char *[3]", { text(path), text "x" })
end

function M.execute() return call("execve", text "/bin/true", arguments "/bin/true", nil) end

function M.execute_linker()
  return call("execve", text "/lib64/ld-linux-x86-64.so.2", arguments "ld", nil)
end

function M.execute_memory()
  return once(call("memfd_create", text "x", 0), nil, function(fd)
    call("write", fd, text "#!/bin/true\n", 12)
    return call("execveat", fd, text "", arguments "x", nil, 0x1000)
  end)
end

function M.fork_by_clone() return call("clone", 17, nil, nil, nil, nil) end
function M.vfork_by_clone() return call("clone", 0x4100 + 17, nil, nil, nil, nil) end
function M.fork_beside() return call("clone", 0x8000 + 17, nil, nil, nil, nil) end
function M.fork_old() return call("fork") end
function M.clone_users() return call("clone", 0x10000000 + 17, nil, nil, nil, nil) end

function M.clone3()
  local args = ffi.new "uint64_t[11]"
  args[4] = 17
  return call("clone3", args, 88)
end

function M.start_by_c() return os.execute "true" == 0 end
function M.open_program() return io.popen "id" ~= nil end

function M.start_pool()
  return require("treadle").pool("string", { threads = 1 }):close() == nil
end

-- --- other processes -----------------------------------------------------------------------------

local function pages()
  local buffer = ffi.new "char[64]"
  return ffi.new("uint64_t[2]", ffi.cast("uint64_t", ffi.cast("uintptr_t", buffer)), 64), buffer
end

local function theirs(w)
  return ffi.new("uint64_t[2]", w.address, #w.token)
end

function M.read_host(w)
  local mine, buffer = pages()
  local n, errno = call("process_vm_readv", w.pid, mine, 1, theirs(w), 1, 0)
  return n and ffi.string(buffer, n), errno
end

function M.write_host(w)
  local mine = pages()
  return call("process_vm_writev", w.pid, mine, 1, theirs(w), 1, 0)
end

function M.seize_host(w) return call("ptrace", 0x4206, w.pid, nil, nil) end
function M.be_traced() return call("ptrace", 0, 0, nil, nil) end
function M.ask_for_host(w) return call("kill", w.pid, 0) end
function M.ask_for_all() return call("kill", -1, 0) end
function M.ask_for_group() return call("kill", 0, 0) end
function M.ask_for_thread(w) return call("tgkill", w.pid, w.pid, 0) end
function M.ask_for_thread_alone(w) return call("tkill", w.pid, 0) end

function M.queue_signal(w)
  local info = ffi.new("int[32]", { 0, 0, -1 })
  return call("rt_sigqueueinfo", w.pid, 0, info)
end

function M.queue_signal_to_thread(w)
  local info = ffi.new("int[32]", { 0, 0, -1 })
  return call("rt_tgsigqueueinfo", w.pid, w.pid, 0, info)
end

function M.open_process(w) return call("pidfd_open", w.pid, 0) end
function M.open_init() return call("pidfd_open", 1, 0) end

function M.signal_by_descriptor(w)
  return once(call("pidfd_open", w.pid, 0), nil, function(fd)
    return call("pidfd_send_signal", fd, 0, nil, 0)
  end)
end

function M.take_descriptor(w)
  return once(call("pidfd_open", w.pid, 0), nil, function(fd)
    return once(call("pidfd_getfd", fd, w.secret_fd, 0), nil, read_all)
  end)
end

function M.own_descriptor(w) return call("fcntl", 1, 8, w.pid) end
function M.own_descriptor_by_thread(w) return call("fcntl", 1, 15, ffi.new("int[2]", 1, w.pid)) end
function M.signal_of_descriptor() return call("fcntl", 1, 10, 10) end
function M.lease(w)
  return once(open(w.folder .. "/plain.txt"), nil, function(fd)
    return call("fcntl", fd, 1024, 0)
  end)
end

function M.compare_with_host(w) return call("kcmp", w.pid, w.pid, 1, 0, 0) end
function M.slow_host(w) return call("setpriority", 0, w.pid, 0) end
function M.slow_user() return call("setpriority", 2, 0, 0) end
function M.slow_group() return call("setpriority", 1, 0, 0) end

function M.bind_host_to_processor(w)
  local mask = ffi.new "uint8_t[128]"
  ffi.fill(mask, 128, 0xff)
  return call("sched_setaffinity", w.pid, 128, mask)
end

function M.schedule_host(w)
  return call("sched_setscheduler", w.pid, 0, ffi.new "int[1]")
end

function M.limit_host(w)
  local limits = ffi.new("uint64_t[2]")
  C.treadle_attack_rlimit(4, limits)
  return call("prlimit64", w.pid, 4, limits, nil)
end

function M.ask_for_limits_of_host(w)
  return call("prlimit64", w.pid, 7, nil, ffi.new "uint64_t[2]")
end

function M.lift_own_limit() return call("prlimit64", 0, 4, ffi.new("uint64_t[2]"), nil) end
function M.lift_own_limit_otherwise() return call("setrlimit", 4, ffi.new("uint64_t[2]")) end

function M.locks_of_host(w)
  return call("get_robust_list", w.pid, ffi.new "void *[1]", ffi.new "size_t[1]")
end

function M.pages_of_host(w)
  return call("move_pages", w.pid, 0, nil, nil, nil, 0)
end

function M.order_of_host(w) return call("ioprio_set", 1, w.pid, 0) end

-- --- itself --------------------------------------------------------------------------------------

function M.be_user() return call("setuid", 0) end
function M.be_group() return call("setgid", 0) end
function M.be_users() return call("setresuid", 0, 0, 0) end
function M.be_in_groups() return call("setgroups", 0, nil) end

function M.be_capable()
  local header = ffi.new("uint32_t[2]", 0x20080522, 0)
  return call("capset", header, ffi.new "uint32_t[6]")
end

function M.survive_host() return call("prctl", 1, 0, 0, 0, 0) end
function M.be_dumpable() return call("prctl", 4, 1, 0, 0, 0) end
function M.be_traceable() return call("prctl", 0x59616d61, -1, 0, 0, 0) end
function M.keep_capabilities() return call("prctl", 8, 1, 0, 0, 0) end
function M.adopt_orphans() return call("prctl", 36, 1, 0, 0, 0) end
function M.move_own_arguments() return call("prctl", 35, 13, -1, 0, 0) end
function M.leave_session() return call("clone", 17, nil, nil, nil, nil) and call("setsid") end
function M.filter_otherwise() return call("prctl", 22, 2, nil, 0, 0) end
function M.be_another_system() return call("personality", 0x0040000) end

function M.add_key()
  return call("add_key", text "user", text "treadle", text "x", 1, -1)
end

function M.ask_for_key() return call("keyctl", 0, -3, 0, 0, 0) end
function M.join_session_of_keys() return call("keyctl", 1, nil, 0, 0, 0) end

-- --- the kernel ----------------------------------------------------------------------------------

function M.load_program() return call("bpf", 5, ffi.new "char[128]", 128) end

function M.watch_performance()
  local attributes = ffi.new("uint32_t[32]", 1, 128)
  return call("perf_event_open", attributes, 0, -1, -1, 0)
end

function M.fault_in_user_space() return call("userfaultfd", 1) end
function M.make_ring() return call("io_uring_setup", 4, ffi.new "char[120]") end
function M.make_context() return call("io_setup", 1, ffi.new "unsigned long[1]") end
function M.share_memory() return call("shmget", 0, 4096, 896) end
function M.make_messages() return call("msgget", 0, 896) end
function M.make_semaphores() return call("semget", 0, 1, 896) end

function M.make_queue()
  return call("mq_open", text "treadle_attack", O_RDWR + O_CREAT, 384, nil)
end

function M.watch_files() return call("inotify_init1", 0) end
function M.watch_all_files() return call("fanotify_init", 0, 0) end
function M.load_kernel() return call("kexec_load", 0, 0, nil, 0) end
function M.load_module() return call("init_module", nil, 0, text "") end
function M.end_machine() return call("reboot", 0xfee1dead, 672274793, 0, nil) end
function M.name_machine() return call("sethostname", text "", 0) end
function M.set_clock() return call("clock_settime", 0, ffi.new "long[2]") end
function M.read_log() return call("syslog", 10, nil, 0) end
function M.hang_up() return call("vhangup") end
function M.count_disks() return call("swapon", text "/dev/null", 0) end

-- --- sockets -------------------------------------------------------------------------------------

--- The first family and type that can be had.
function M.open_any_socket()
  local errno
  for family = 0, 45 do
    for kind = 1, 6 do
      local fd, problem = call("socket", family, kind, 0)
      if fd then
        return ("%d/%d"):format(family, kind)
      elseif problem ~= 1 then
        return "not looked at by the filter: " .. problem
      end
      errno = problem
    end
  end
  return nil, errno
end

function M.open_pair() return call("socketpair", 1, 1, 0, ffi.new "int[2]") end

--- "\0" and a name: an abstract address.
function M.connect_to_abstract(w)
  return once(call("socket", 1, 1, 0), nil, function(fd)
    local address = ffi.new("char[110]", "\1\0\0" .. w.abstract)
    return call("connect", fd, address, 3 + #w.abstract)
  end)
end

--- To a port of this machine.
function M.connect(port)
  return once(call("socket", 2, 1, 0), nil, function(fd)
    local address = ffi.new("uint8_t[16]", 2, 0, math.floor(port / 256), port % 256, 127, 0, 0, 1)
    return call("connect", fd, address, 16)
  end)
end

function M.type_for_user()
  return call("ioctl", 1, 0x5412, text "x")
end

function M.paste_for_user() return call("ioctl", 1, 0x541c, text "\2") end

-- --- through the line ----------------------------------------------------------------------------

--- Another address than the other end.
function M.send_elsewhere() return call("sendto", MEMORY, text "x", 1, 0, nil, 0) end
function M.cut_memory() return call("ftruncate", MEMORY, 0) end
function M.grow_memory() return call("ftruncate", MEMORY, 2 ^ 40) end
function M.seal_memory() return call("fcntl", MEMORY, 1033, 8) end

-- --- too much ------------------------------------------------------------------------------------

--- How many threads there can be; each has a stack.
function M.count_threads()
  local id = ffi.new "unsigned long[1]"
  local n = 0
  while n < 10000 and C.treadle_attack_thread(id, nil,
    ffi.cast("void *(*)(void *)", C.treadle_attack_pause), nil) == 0 do
    n = n + 1
  end
  return n
end

function M.count_descriptors()
  local n = 0
  while n < 100000 and call("fcntl", 1, 0, 0) do
    n = n + 1
  end
  return n
end

--- Bytes that can be had beside the address space.
function M.fill_files()
  local fd, errno = call("memfd_create", text "x", 0)
  if not fd then
    return nil, errno
  end
  return call("fallocate", fd, 0, 0, 2 ^ 30) ~= nil
end

function M.allocate(bytes)
  local map = C.treadle_attack_map(nil, bytes, 3, 0x22, -1, 0)
  return map ~= ffi.cast("void *", -1)
end

function M.burn()
  while true do end
end

function M.say(s) return s end

return M
