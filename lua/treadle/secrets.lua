--- What a worker is not shown even inside of a folder that it may read: the one table of that, and
-- how a folder is granted around it.
-- The kernel's rules only allow: nothing can be taken out of an allowed folder again. So a folder
-- with a secret somewhere in it is granted entry by entry, as it is when the pool is made. What is
-- put there later is not granted, nor can that folder be listed.
-- @module treadle.secrets
local core = require "treadle.core"

core.open "confine"

local M = {}

--- Names of files and folders, as patterns of Lua, wherever they are.
M.names = {
  "^%.env$", "^%.env%.", "^%.git$", "^%.gitconfig$", "^%.git%-credentials$", "^%.hg$", "^%.svn$",
  "^%.ssh$", "^%.gnupg$", "^%.aws$", "^%.azure$", "^%.kube$", "^%.docker$", "^gcloud$",
  "^%.netrc$", "^%.pgpass$", "^%.my%.cnf$", "^%.npmrc$", "^%.pypirc$", "^%.htpasswd$",
  "^%.vault%-token$", "^%.password%-store$", "^%.bash_history$", "^%.[%w]+_history$",
  "^id_rsa", "^id_dsa", "^id_ecdsa", "^id_ed25519", "^ssh_host_.*_key$",
  "%.pem$", "%.key$", "%.p12$", "%.pfx$", "%.jks$", "%.keystore$", "%.kdbx$",
}

--- Paths.
M.paths = {
  ["/etc/shadow"] = true, ["/etc/shadow-"] = true, ["/etc/gshadow"] = true,
  ["/etc/gshadow-"] = true, ["/etc/sudoers"] = true, ["/etc/sudoers.d"] = true,
  ["/etc/ssl/private"] = true, ["/etc/krb5.keytab"] = true,
  ["/run/secrets"] = true, ["/var/run/secrets"] = true, ["/proc"] = true,
  ["/dev/mem"] = true, ["/dev/kmem"] = true, ["/dev/port"] = true,
}

--- How many entries of folders are looked at for one pool: so many take 50 ms or so.
M.LIMIT = 20000

--- Whether that is a secret.
-- @tparam string path absolute, without links
function M.is(path)
  if M.paths[path] then
    return true
  end
  local name = path:match("[^/]*$")
  for _, pattern in ipairs(M.names) do
    if name:find(pattern) then
      return true
    end
  end
  return false
end

local function below(path, name)
  return (path == "/" and "" or path) .. "/" .. name
end

--- What is granted of a folder: nil if all of it, else a list of what can be. Folders that the host
-- cannot read hold nothing that a worker could.
-- @return nil or list; false when there is too much in it
local function look(path, found)
  local entries = core.entries(path)
  local parts, has_secret, names = {}, false, {}
  for name in pairs(entries or {}) do
    names[#names + 1] = name
  end
  table.sort(names)
  found.looked = found.looked + #names
  if found.looked > M.LIMIT then
    return false
  end
  for _, name in ipairs(names) do
    local child = below(path, name)
    if M.is(child) then
      has_secret = true
      found[#found + 1] = child
    elseif entries[name] ~= "link" then -- a rule for one would be for what it leads to
      local inner
      if entries[name] == "folder" then
        inner = look(child, found)
      end
      if inner == false then
        return false
      elseif inner then
        has_secret = true
        for _, part in ipairs(inner) do
          parts[#parts + 1] = part
        end
      else
        parts[#parts + 1] = child
      end
    end
  end
  return has_secret and parts or nil
end

--- The paths to grant so that all below `path` is granted but its secrets.
-- @tparam string path absolute, without links; if it is a secret itself, it is meant
-- @tparam boolean is_folder
-- @tparam table found gets the secrets that were left out; `looked` counts the entries
-- @return a list; nil if there is too much to look through
function M.around(path, is_folder, found)
  found.looked = found.looked or 0
  local parts
  if is_folder then
    parts = look(path, found)
  end
  if parts == false then
    return nil
  end
  return parts or { path }
end

return M
