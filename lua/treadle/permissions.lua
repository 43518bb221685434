--- What the workers of a pool may do: the option `permissions`, checked and made a policy.
-- @module treadle.permissions
local core = require "treadle.core"
local errors = require "treadle.error"
local options = require "treadle.options"
local secrets = require "treadle.secrets"

core.open "confine"

local M = {}

local READ, WRITE, RUN = core.MAY_READ, core.MAY_WRITE, core.MAY_RUN

--- What the C library and the runtime look at; what is not there is not missed.
local SYSTEM = {
  "/etc/localtime", "/usr/share/zoneinfo", "/usr/lib/locale", "/usr/share/locale",
  "/usr/lib/x86_64-linux-gnu/gconv", "/usr/lib/aarch64-linux-gnu/gconv",
  "/dev/zero", "/dev/urandom", "/dev/random",
}

--- Where libraries are: for C modules, and for programs.
local LIBRARIES = {
  "/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec",
  "/usr/local/lib", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d",
  "/etc/ld.so.preload",
}

--- What starts programs: the shell of io.popen and os.execute, and the linker of each program.
local STARTERS = {
  "/bin/sh", "/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1",
  "/lib/ld-musl-x86_64.so.1", "/lib/ld-musl-aarch64.so.1",
}

--- Folders that hold the system's files and nobody's secrets: they are not looked through.
local SYSTEM_FOLDERS = { "/usr/", "/lib/", "/lib64/", "/nix/store/", "/gnu/store/" }

local MODES = { strict = true, unrestricted = true }

-- --- the values --------------------------------------------------------------------------------

local checks = {}

local function is_list_of(value, is_element)
  if type(value) ~= "table" then
    return false
  end
  local count = 0
  for key, element in pairs(value) do
    if type(key) ~= "number" or key % 1 ~= 0 or key < 1 or key > #value
      or not is_element(element) then
      return false
    end
    count = count + 1
  end
  return count == #value
end

local function is_path(value)
  return type(value) == "string" and value ~= "" and not value:find("%z")
end

local function is_variable(value)
  return type(value) == "string" and value ~= "" and not value:find("[=%z]")
end

local function is_port(value)
  return type(value) == "number" and value % 1 == 0 and value >= 0 and value <= 65535
end

local function paths(value)
  return type(value) == "boolean" or is_list_of(value, is_path), "true, false or a list of paths"
end

checks.read, checks.write, checks.run = paths, paths, paths

local NET = { connect = true, bind = true }

function checks.net(value)
  local wanted = "true, false or { connect = ports, bind = ports }"
  if type(value) == "boolean" then
    return true
  elseif type(value) ~= "table" then
    return false, wanted
  end
  for key, list in pairs(value) do
    if not NET[key] then
      return false, wanted, ("'%s', did you mean '%s'?"):format(tostring(key),
        options.nearest(key, NET))
    elseif not is_list_of(list, is_port) then
      return false, ("a list of ports, 0 to 65535, as '%s'"):format(key)
    end
  end
  return true
end

function checks.env(value)
  return type(value) == "boolean" or is_list_of(value, is_variable),
    "true, false or a list of names of variables"
end

function checks.ffi(value)
  return type(value) == "boolean", "a boolean"
end

local function amount(value)
  return type(value) == "number" and value >= 1 and value < 2 ^ 53 and value % 1 == 0,
    "a whole number of at least 1"
end

checks.memory, checks.cpu, checks.files = amount, amount, amount

--- The option, for `options.check`: its keys are looked at by `new`.
function M.check(value)
  if type(value) == "string" then
    return MODES[value] ~= nil, "'strict', 'unrestricted' or a table",
      ("'%s', did you mean '%s'?"):format(value, options.nearest(value, MODES))
  end
  return type(value) == "table", "'strict', 'unrestricted' or a table"
end

local function refuse(message, ...)
  error(errors.new("argument", message:format(...)), 0)
end

--- The table that was given, completed from "strict".
local function complete(given)
  local p = { read = {}, write = false, run = false, net = false, env = false, ffi = false }
  if type(given) ~= "table" then
    return p
  end
  for key, value in pairs(given) do
    local check = checks[key]
    if not check then
      refuse("option 'permissions': unknown key '%s', did you mean '%s'?", tostring(key),
        options.nearest(key, checks))
    end
    local fine, wanted, got = check(value)
    if not fine then
      refuse("option 'permissions': key '%s': %s expected, got %s", key, wanted,
        got or type(value) == "number" and tostring(value) or type(value))
    end
    p[key] = value
  end
  for _, key in ipairs { "read", "write", "run", "env" } do
    if type(p[key]) == "table" and #p[key] == 0 and key ~= "read" then
      p[key] = false
    end
  end
  p.read = p.read or {}
  return p
end

--- Whether there is anything on the network that it may use.
local function has_net(net)
  return net == true or type(net) == "table" and (#(net.connect or {}) > 0 or #(net.bind or {}) > 0)
end

--- What a thread shares with its process cannot be limited for it alone.
local function check_thread(p)
  local instead = {
    memory = "'max_memory' limits a thread's Lua heap",
    cpu = "'timeout' limits a task's time",
    files = "what a thread opens counts for the whole process",
  }
  for _, key in ipairs { "memory", "cpu", "files" } do
    if p[key] then
      refuse("option 'permissions': '%s' limits a process, not a thread: %s; "
        .. "or runtime = \"process\"", key, instead[key])
    end
  end
  if p.ffi then
    refuse("option 'permissions': 'ffi' cannot be given to a thread that is restricted: the FFI "
      .. "reaches all memory of the process; needs runtime = \"process\"")
  elseif has_net(p.net) then
    refuse("option 'permissions': 'net' is of no use to a restricted thread: sockets are C "
      .. "modules, which reach all memory of the process; needs runtime = \"process\"")
  elseif p.run and p.env ~= true then
    refuse("option 'permissions': 'run': programs that a thread starts see the whole environment "
      .. "of the process: give env = true, too; or runtime = \"process\"")
  end
end

-- --- paths -------------------------------------------------------------------------------------

--- What is granted so far: `{ path, access, ... }` for the policy, and the same by path.
local function new_grants()
  return { access = {}, order = {}, secrets = {}, skipped = {} }
end

local function grant(grants, path, access)
  local before = grants.access[path]
  if not before then
    grants.order[#grants.order + 1] = path
  end
  if not before or before % (2 * access) < access then
    grants.access[path] = (before or 0) + access
  end
end

--- Those of a list that are there.
local function grant_known(grants, list, access)
  for _, path in ipairs(list) do
    local real = core.real_path(path)
    if real then
      grant(grants, real, access)
    end
  end
end

local function is_system(path)
  for _, folder in ipairs(SYSTEM_FOLDERS) do
    if (path .. "/"):sub(1, #folder) == folder then
      return true
    end
  end
  return false
end

--- Everything; but not what shows the memory of processes and changes the kernel. (Landlock alone
-- does not keep the environment of others from a reader who has CAP_PERFMON.)
local function grant_all(grants, access)
  for name in pairs(core.entries("/") or {}) do
    local path = core.real_path("/" .. name)
    if path and path ~= "/" and not (path .. "/"):find("^/proc/") then
      grant(grants, path, access)
    end
  end
end

local function grant_listed(grants, list, access, key)
  for _, given in ipairs(list) do
    local path, is_folder = core.real_path(given)
    if not path then
      refuse("option 'permissions': '%s': '%s': %s%s", key, given, is_folder,
        key == "write" and " (name the folder in which it is to be made)" or "")
    end
    if is_folder and is_system(path) and access ~= WRITE then
      grant(grants, path, access)
    else
      local parts = secrets.around(path, is_folder, grants.secrets)
      if not parts then
        refuse("option 'permissions': '%s': there are too many files in '%s' to keep the secrets "
          .. "among them out: name smaller folders, or true for all files and no protection of any "
          .. "secret", key, given)
      end
      for _, part in ipairs(parts) do
        grant(grants, part, access)
      end
    end
  end
end

--- The folders that a package.path goes through.
local function folders_of(path)
  local list, seen = {}, {}
  for template in (path or ""):gmatch "[^;]+" do
    local prefix = template:match("^([^?]*)%?") or template
    local folder = prefix:match("^(.*)/[^/]*$")
    folder = folder == "" and "/" or folder or "."
    if not seen[folder] then
      seen[folder] = true
      list[#list + 1] = folder
    end
  end
  return list
end

--- Modules: a folder of theirs that is too large is left out, and told of.
local function grant_modules(grants, path)
  for _, folder in ipairs(folders_of(path)) do
    local real, is_folder = core.real_path(folder)
    if real and is_folder then
      local parts = { real }
      if not is_system(real) then
        parts = secrets.around(real, true, grants.secrets)
      end
      if parts then
        for _, part in ipairs(parts) do
          grant(grants, part, READ)
        end
      else
        grants.skipped[#grants.skipped + 1] = real
        grants.secrets.looked = 0
      end
    end
  end
end

--- @param boot what the workers are told: `path`, `cpath`, `file`
local function grants_of(p, runtime, boot)
  local grants = new_grants()
  grant_known(grants, SYSTEM, READ)
  grant_known(grants, { "/dev/null" }, READ)
  grant_known(grants, { "/dev/null" }, WRITE)
  if p.read == true then
    grant_all(grants, READ)
  else
    grant_modules(grants, boot.path)
    grant_known(grants, { boot.file }, READ)
    if runtime == "process" then -- a thread loads no C modules
      grant_modules(grants, boot.cpath)
    end
    if runtime == "process" or p.run then
      grant_known(grants, LIBRARIES, READ)
    end
    grant_listed(grants, p.read, READ, "read")
  end
  if p.write == true then
    grant_all(grants, WRITE)
  elseif p.write then
    grant_listed(grants, p.write, WRITE, "write")
  end
  if p.run == true then
    grant_all(grants, RUN)
  elseif p.run then
    grant_known(grants, STARTERS, RUN)
    grant_known(grants, STARTERS, READ)
    grant_listed(grants, p.run, RUN, "run")
    grant_listed(grants, p.run, READ, "run")
  end
  if #grants.order > core.POLICY_ENTRIES then
    refuse("option 'permissions': %d paths, at most %d: folders with secrets in them are granted "
      .. "file by file: name others", #grants.order, core.POLICY_ENTRIES)
  end
  return grants
end

-- --- the policy --------------------------------------------------------------------------------

local function policy_of(p, grants)
  local list, ports, may = {}, {}, 0
  for _, path in ipairs(grants.order) do
    list[#list + 1] = path
    list[#list + 1] = grants.access[path]
  end
  if type(p.net) == "table" then
    for key, use in pairs { connect = core.MAY_CONNECT, bind = core.MAY_BIND } do
      for _, port in ipairs(p.net[key] or {}) do
        ports[#ports + 1] = port
        ports[#ports + 1] = use
      end
    end
  end
  may = may + (p.net == true and core.MAY_NET or 0)
  may = may + (p.run and core.MAY_START or 0)
  may = may + (p.env == true and core.MAY_ENV or 0)
  may = may + (p.ffi and core.MAY_FFI or 0)
  may = may + (p.write == true and core.MAY_RETOUCH or 0)
  return core.policy {
    may = may, memory = p.memory or 0, cpu = p.cpu or 0, files = p.files or 0,
    paths = list, ports = ports, env = type(p.env) == "table" and p.env or {},
  }
end

--- A list of its own, or what it is.
local function copy(value)
  if type(value) ~= "table" then
    return value
  end
  local list = {}
  for key, element in pairs(value) do
    list[key] = copy(element)
  end
  return list
end

--- What enforces each key.
local function enforcers(p, runtime)
  local by_runtime = runtime == "process" and "rlimit" or nil
  return {
    read = "landlock", write = "landlock", run = p.run and "landlock" or "seccomp",
    net = type(p.net) == "table" and "landlock" or "seccomp",
    env = runtime == "process" and "process" or "lua",
    ffi = not p.ffi and "lua" or nil,
    memory = p.memory and by_runtime, cpu = p.cpu and by_runtime, files = p.files and by_runtime,
  }
end

local function gaps(p, runtime, grants)
  local list = {
    "names, sizes and times of files can be looked at wherever they are",
    "what is a hard link to a secret, under another name, is not kept out",
  }
  if p.read == true then
    list[#list + 1] = "secrets are not kept out: read is true"
  end
  if runtime == "thread" then
    list[#list + 1] = "memory is one with the host's: an error in LuaJIT reaches it"
    list[#list + 1] = "limits of memory, cpu and files"
  end
  if p.run then
    list[#list + 1] = "a program may run code from any file that it may read"
    if runtime == "process" then
      list[#list + 1] = "programs that a worker has started live on when it ends"
    end
  end
  for _, folder in ipairs(grants.skipped) do
    list[#list + 1] = ("modules in '%s' cannot be loaded: too many files to look through"):format(
      folder)
  end
  return list
end

local function tell(mode, p, runtime, grants)
  local reachable = { read = {}, write = {}, run = {} }
  for _, path in ipairs(grants.order) do
    local access = grants.access[path]
    for key, bit in pairs { read = READ, write = WRITE, run = RUN } do
      if access % (2 * bit) >= bit then
        table.insert(reachable[key], path)
      end
    end
  end
  for _, list in pairs(reachable) do
    table.sort(list)
  end
  local kept = {}
  for i, path in ipairs(grants.secrets) do
    kept[i] = path
  end
  local told = copy(p)
  told.mode, told.runtime, told.paths, told.secrets = mode, runtime, reachable, kept
  told.enforced_by, told.not_enforced = enforcers(p, runtime), gaps(p, runtime, grants)
  return told
end

local UNRESTRICTED = {
  mode = "unrestricted", read = true, write = true, run = true, net = true, env = true, ffi = true,
}

--- What `pool:permissions()` says of a pool that has none.
function M.unrestricted(runtime)
  local told = copy(UNRESTRICTED)
  told.runtime, told.enforced_by, told.not_enforced = runtime or "thread", {}, {}
  told.paths = { read = { "/" }, write = { "/" }, run = { "/" } }
  told.secrets = {}
  return told
end

--- What the Lua half of a confined worker needs to know.
local function lua_half(p, told)
  local env = p.env
  if type(env) == "table" then
    env = {}
    for _, name in ipairs(p.env) do
      env[name] = true
    end
  end
  return {
    input = p.read == true, write = p.write ~= false, run = p.run ~= false, env = env, told = told,
    ffi = p.ffi,
  }
end

--- Make the policy of a pool.
-- @param given the option: "unrestricted", "strict" or a table
-- @tparam string runtime "thread" or "process"
-- @tparam table boot what its workers are told: `path`, `cpath` and `file` are read
-- @return nil for "unrestricted"; else `policy`, for core.pool_open or core.policy_bytes; `boot`,
-- for the workers; `told`, for pool:permissions()
-- @raise kind "argument" for what cannot be meant; "permission" for what cannot be enforced here
function M.new(given, runtime, boot)
  if given == "unrestricted" then
    return nil
  end
  local p = complete(given)
  if runtime == "thread" then
    check_thread(p)
  end
  local grants = grants_of(p, runtime, boot)
  local policy = policy_of(p, grants)
  local lacks = core.policy_lacks(policy, runtime == "process")
  if lacks then
    error(errors.new("permission", "these permissions cannot be enforced here: " .. lacks), 0)
  end
  local told = tell(given == "strict" and "strict" or "custom", p, runtime, grants)
  return { policy = policy, boot = lua_half(p, told), told = told }
end

--- What is in force in a pool.
-- @tparam table record of the pool
function M.of(record)
  local told = record.permissions
  if not told and core.confined then
    told = require("treadle.confined").told()
  end
  return told and copy(told) or M.unrestricted(record.runtime)
end

return M
