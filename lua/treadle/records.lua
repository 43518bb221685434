--- What a state knows of its pools.
-- @module treadle.records
local M = {}

--- What is known of a pool: its tasks (`names`, `options`, `index`), `started`, `closed`, `reason`,
-- `failure`, its `schedule`, if it has one, and who waits for it to be `drained`. Calls settle
-- after the pool has been dropped, too: C keeps the record until the pool is over. It does not hold
-- the handle, so that the pool can be dropped.
M.by_handle = setmetatable({}, { __mode = "k" })
M.handle_of = setmetatable({}, { __mode = "kv" })

--- The number that stands for a function that travels with its call.
M.SHIPPED = 0

--- The name that errors use for a task's number.
function M.task_name(record, number)
  if number == M.SHIPPED then
    return "function"
  end
  return record and record.names and record.names[number] or nil
end

--- The names that errors and lines use for all tasks of a pool, from number 0 on.
function M.task_names(record)
  local names = { M.task_name(record, M.SHIPPED) }
  for i, name in ipairs(record.names) do
    names[i + 1] = name
  end
  return names
end

--- Once its first worker has loaded them.
function M.learn_tasks(record, names, task_options)
  record.names, record.options, record.index = names, task_options, {}
  for i, name in ipairs(names) do
    record.index[name] = i
  end
end

return M
