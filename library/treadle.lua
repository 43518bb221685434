---@meta treadle
-- What treadle is to an editor: definitions for lua-language-server. Nothing here runs; the pages in
-- docs/ say what each name means. config.json beside this folder makes an addon of the two: set
-- `workspace.library` to this folder, or `workspace.userThirdParty` to what the addon's folder is in.
-- A future knows the type of its first result, `treadle.future<T>`, from version 3.17 on.

---@class treadle
---@field is_main boolean true in the host, false in a worker
---@field version string "MAJOR.MINOR.PATCH"
---@field worker? treadle.worker in a worker; nil in the host
---@field atomics treadle.atomics
---@field parent? treadle.parent in a worker; nil in the host
local treadle = {}

---@class treadle.worker
---@field id integer 1 to the number of threads
---@field name string the pool's
---@field data any this worker's copy of the pool's option `data`
---@field pool treadle.pool the pool that it belongs to

---@alias treadle.kind
---| "task" # the task raised an error
---| "timeout" # the time was over
---| "cancelled" # the caller has given up
---| "closed" # the pool, or the channel, is closed
---| "crashed" # the worker's state was lost
---| "memory" # memory was short, or the cap exceeded
---| "payload" # values that cannot travel, or too many bytes
---| "queue_full" # the pool's max_queue was reached
---| "permission"
---| "load" # the tasks could not be loaded

---@class treadle.error
---@field kind treadle.kind
---@field message string
---@field task? string the task's name
---@field worker? integer who ran it
---@field traceback? string the worker's, then the place that awaited
---@field value any what the task raised, if it can travel
---@field index? integer of a parallel loop: at which item
---@field others? table of a group: errors that came after this one

-- --- the state and its loop ----------------------------------------------------------------------

---How many workers make sense: affinity and cgroup quota counted.
---@return integer count at least 1
function treadle.cores() end

---The monotonic clock.
---@return number seconds
function treadle.now() end

---@class treadle.sleep_options
---@field signal? treadle.signal|treadle.controller

---Wait: yields inside a coroutine, runs the loop outside one.
---@param seconds number
---@param options? treadle.sleep_options
function treadle.sleep(seconds, options) end

---Run `fn(...)` in a coroutine of this state, up to its first wait.
---@generic T
---@param fn fun(...): T, ...
---@param ... any
---@return treadle.future<T> future of its results
function treadle.spawn(fn, ...) end

---Run `fn(...)` in a coroutine, run the loop until it ends; its results, or its error.
---@generic T
---@param fn fun(...): T, ...
---@param ... any
---@return T result
---@return any ...
function treadle.run(fn, ...) end

---Handle what is ready: completions, timers, I/O.
---@param timeout? number seconds to wait for it at most (default 0)
---@param budget? number seconds after which it begins with nothing more
---@return integer events how many it handled
function treadle.poll(timeout, budget) end

---A descriptor that is readable when `poll` has something to do.
---@return integer fd
function treadle.fd() end

---@return number seconds until the next timer; `math.huge` for never
function treadle.next_timeout() end

---Joins treadle to a loop that somebody else runs, see docs/attach.md. Only `watch` is required.
---@class treadle.adapter
---@field name? string for messages
---@field watch fun(fd: integer, turn: fun(): number): fun() calls `turn` from now on; returns what ends that
---@field rearm? fun(seconds: number) the next turn is due that soon
---@field block? fun(is_done: (fun(): boolean), seconds: number) the wait of main code
---@field parker? fun(co: thread): treadle.parker? how a coroutine of the host's waits
---@field hold? fun(is_held: boolean) whether treadle has something to do
---@field budget? number seconds that a turn has
---@field report? fun(message: string) where errors go
---@field boot? fun(boot: table) completes what a new pool's workers are told

---@class treadle.parker
---@field park fun(seconds: number) yields until `wake` was called, at most so long
---@field wake fun()

---@class treadle.attachment
---@field name string
local attachment = {}

---The state waits by itself again.
function attachment:detach() end

---Join this state to the loop of a host.
---@param given? treadle.adapter|string|table|userdata an adapter, a host's library or its name; nil: the host around
---@param options? table of an adapter that has some: its page names them
---@return treadle.attachment
function treadle.attach(given, options) end

---Call `fn(x)`, then `x:close()`, whether it returned or raised.
---@generic T
---@param x T
---@param fn fun(x: T): ...
---@return any ... the results of `fn`
function treadle.using(x, fn) end

-- --- payloads ------------------------------------------------------------------------------------

---@param ... any
---@return string bytes
function treadle.encode(...) end

---@param s string what `encode` has returned
---@return any ...
function treadle.decode(s) end

---Let objects travel, in both states under the same name.
---@param name string
---@param metatable table
---@param pack? fun(object: table): any
---@param unpack? fun(value: any): any
function treadle.class(name, metatable, pack, unpack) end

-- --- futures -------------------------------------------------------------------------------------

---@alias treadle.state
---| "pending"
---| "resolved"
---| "rejected"
---| "cancelled"

---@class treadle.cancel_options
---@field reason? string
---@field force? boolean stop a running task, wherever it is

---A handle on results that are still to come; T is the type of the first.
---@class treadle.future<T>
local future = {}

---All results; raises the error.
---@return T result
---@return any ...
function future:await() end

---@return boolean ok
---@return any ... all results, or the error
function future:pawait() end

---Wait; settles nothing.
---@param timeout? number seconds
---@return boolean settled
function future:wait(timeout) end

---@return treadle.state state
function future:state() end

---What the task passes to `treadle.emit`; then it ends, or raises the call's error.
---@return fun(): any next_value
function future:stream() end

---Settle it now with kind "cancelled".
---@param options? string|treadle.cancel_options a reason, or options
---@return boolean was_pending
function future:cancel(options) end

---@generic U
---@param fn fun(result: T, ...): treadle.future<U>|U, ... gets the results
---@return treadle.future<U>
function future:and_then(fn) end

---@generic U
---@param fn fun(err: any): treadle.future<U>|U, ...
---@return treadle.future<T|U>
function future:catch(fn) end

---@param fn fun(): any
---@return treadle.future<T>
function future:finally(fn) end

---@return treadle.future future pending
---@return fun(...) resolve
---@return fun(err: any) reject
function treadle.future() end

---@generic T
---@param ... T
---@return treadle.future<T>
function treadle.resolved(...) end

---@param err any
---@return treadle.future
function treadle.rejected(err) end

---@generic K, T
---@param list table<K, treadle.future<T>>
---@return treadle.future<table<K, T>> future of a table with the same keys and each one's first result
function treadle.all(list) end

---@class treadle.outcome
---@field ok boolean
---@field value any
---@field error any

---@generic K
---@param list table<K, treadle.future>
---@return treadle.future<table<K, treadle.outcome>> future of a table with the same keys
function treadle.all_settled(list) end

---@generic T
---@param list table<any, treadle.future<T>>
---@return treadle.future<T> future of the first result
function treadle.any(list) end

---@generic T
---@param list table<any, treadle.future<T>>
---@return treadle.future<T> future of the first outcome
function treadle.race(list) end

---@generic K, T
---@param list table<K, treadle.future<T>>
---@return fun(): K?, treadle.future<T>? next in the order in which they are settled
function treadle.as_completed(list) end

-- --- groups ---------------------------------------------------------------------------------------

---@class treadle.group_options
---@field timeout? number seconds; then what still runs is stopped, and the group raises "timeout"
---@field limit? integer how many children run at a time
---@field signal? treadle.signal|treadle.controller
---@field force? boolean stop calls by force when the group is cancelled; true with a timeout

---Children that run for one function, and none of which outlives it.
---@class treadle.group
---@field signal treadle.signal aborted when the group is cancelled
local group = {}

---Run `fn(...)` in a coroutine that is a child of the group.
---@generic T
---@param fn fun(...): T, ...
---@param ... any
---@return treadle.future<T>
function group:spawn(fn, ...) end

---Call a task of a pool or a thread as a child of the group.
---@param pool treadle.pool|treadle.thread
---@param task string|function
---@param ... any
---@return treadle.future
function group:call(pool, task, ...) end

---The same as `pool:run(task, args, options)`.
---@param pool treadle.pool|treadle.thread
---@param task string|function
---@param args? table
---@param options? treadle.run_options
---@return treadle.future
function group:run(pool, task, args, options) end

---Make a future that is there already a child of the group.
---@generic T
---@param f treadle.future<T>
---@return treadle.future<T> f
function group:add(f) end

---Cancel the group's function and its children.
---@param options? string|treadle.cancel_options
---@return boolean first whether it was not cancelled yet
function group:cancel(options) end

---Run `fn(g)`; return when it and all children have ended, with its results or the first error.
---@param fn fun(g: treadle.group): ...
---@param options? treadle.group_options
---@return any ...
function treadle.group(fn, options) end

-- --- abort controllers ---------------------------------------------------------------------------

---@class treadle.abort_options
---@field timeout? number seconds; then it aborts by itself
---@field any? (treadle.signal|treadle.controller)[] it aborts when one of them does

---@class treadle.controller
---@field signal treadle.signal
local controller = {}

---@param reason? string
---@return boolean first whether it was not aborted yet
function controller:abort(reason) end

---@return boolean
function controller:aborted() end

---@class treadle.signal
---@field aborted boolean
---@field reason? string
local signal = {}

---@generic T
---@param f treadle.future<T>
---@return treadle.future<T> f
function signal:bind(f) end

---@param fn fun(reason: string)
---@return fun() unsubscribe
function signal:on_abort(fn) end

---@param options? treadle.abort_options
---@return treadle.controller
function treadle.abort(options) end

-- --- reactive values -----------------------------------------------------------------------------

---@class treadle.value_options
---@field equals? fun(old: any, new: any): boolean whether a value counts as the same
---@field name? string for messages

---@class treadle.effect_options
---@field on_error? fun(err: any) what it raises; without, it is printed
---@field name? string for messages

---@class treadle.reactive
---@field value any the same as get and set
---@operator call(...): any
local reactive = {}

---@return any value
function reactive:get() end

---@param value any
function reactive:set(value) end

---The value, without becoming its reader.
---@return any value
function reactive:peek() end

---@param fn fun(value: any): any
function reactive:update(fn) end

---@class treadle.computed
---@field value any the same as get
---@operator call: any
local computed = {}

---@return any value
function computed:get() end

---@return any value
function computed:peek() end

---A signal of a pool.
---@class treadle.gauge
---@field value integer the same as get
---@operator call: integer
local gauge = {}

---@return integer value
function gauge:get() end

---@return integer value
function gauge:peek() end

---@class treadle.gauges
---@field workers treadle.gauge those that are up
---@field queued treadle.gauge calls that wait
---@field inflight treadle.gauge calls that run

---@param value any
---@param options? treadle.value_options
---@return treadle.reactive
function treadle.signal(value, options) end

---@param fn fun(): any
---@param options? treadle.value_options
---@return treadle.computed
function treadle.computed(fn, options) end

---Run `fn` now, and whenever what it has read has changed.
---@param fn fun(): fun()?
---@param options? treadle.effect_options
---@return fun() dispose
function treadle.effect(fn, options) end

---Call `fn`, then run the effects that are due.
---@param fn fun(): ...
---@return any ...
function treadle.batch(fn) end

---Call `fn`, and count nothing as read that it reads.
---@param fn fun(): ...
---@return any ...
function treadle.untrack(fn) end

---Run the effects that are due now.
function treadle.flush() end

-- --- tasks and pools -----------------------------------------------------------------------------

---@alias treadle.priority "high"|"normal"|"low"

---@class treadle.task_options
---@field timeout? number seconds from the call
---@field default? any what the future resolves to when the time is over
---@field error? any what it rejects with then
---@field priority? treadle.priority
---@field retries? integer how often it is made again when its worker dies

---@class treadle.task_definition: treadle.task_options
---@field fn fun(...): ...

---@class treadle.import_definition: treadle.task_options
---@field module string
---@field name string

---@class treadle.task
local task = {}

---@param options? treadle.pool_options
---@return treadle.pool pool of this one task, which can be called like the task
function task:pool(options) end

---@param definition treadle.task_definition
---@return treadle.task
function treadle.task(definition) end

---@param definition treadle.import_definition
---@return treadle.task
function treadle.import(definition) end

---@return boolean whether the caller of the task that runs here has given it up
function treadle.cancelled() end

---In a task: pass a value to its caller, who reads it from `future:stream()`.
---@param value any but nil
---@param ... any what a turn of the caller's loop is given besides
---@return boolean wanted whether somebody may want it
function treadle.emit(value, ...) end

---Raise kind "cancelled" if the caller of the task that runs here has given it up.
function treadle.check() end

---@alias treadle.debug boolean|table<"pool"|"worker"|"load"|"job"|"signal"|"payload", boolean>

---What a worker may do; what is not named is as in "strict".
---@class treadle.permissions
---@field read? boolean|string[] paths
---@field write? boolean|string[] paths
---@field run? boolean|string[] paths of programs
---@field net? boolean|{ connect: integer[]?, bind: integer[]? } TCP ports
---@field env? boolean|string[] names of variables
---@field ffi? boolean
---@field memory? integer bytes, of a process
---@field cpu? integer seconds, of a process
---@field files? integer open descriptors, of a process

---What is in force.
---@class treadle.permissions_told: treadle.permissions
---@field mode "unrestricted"|"strict"|"custom"
---@field runtime "thread"|"process"
---@field enforced_by table<string, "landlock"|"seccomp"|"lua"|"process"|"rlimit"> by key
---@field not_enforced string[] what is not kept from the workers
---@field paths { read: string[], write: string[], run: string[] } what the kernel was told
---@field secrets string[] what was left out of granted folders

---@class treadle.pool_options
---@field threads? integer
---@field min_threads? integer
---@field max_threads? integer
---@field idle_timeout? number seconds
---@field concurrency? integer jobs in progress in one worker at once
---@field max_queue? number
---@field on_full? "reject"|"wait"|"run"
---@field timeout? number seconds, for tasks that name none
---@field balancer? "shared"|"round_robin"|"least_busy"|"random"|fun(job: table, workers: table[]): integer
---@field inline? boolean
---@field debug? treadle.debug
---@field isolate? boolean
---@field recycle_after? integer jobs
---@field recycle_memory? number bytes
---@field max_memory? number bytes
---@field max_payload? number bytes
---@field terminate_timeout? number seconds
---@field data? any
---@field init? string name of an export
---@field teardown? string name of an export
---@field name? string
---@field permissions? "unrestricted"|"strict"|treadle.permissions
---@field runtime? "thread"|"process"
---@field command? string[] comes before a worker's program: { "nice", "-n", "10" }

---@class treadle.run_options: treadle.task_options
---@field key? string|number|boolean jobs of one key run on one worker, in order
---@field worker? integer the worker that runs it
---@field transfer? treadle.buffer[] buffers among the arguments that are given away
---@field signal? treadle.signal|treadle.controller

---@class treadle.pool
---@field name string
---@field threads integer the present size
---@field signals treadle.gauges not in its tasks
---@field call table<string, fun(...): treadle.future> the tasks
---@operator call(...): treadle.future
local pool = {}

---@param tasks string|table<string, function|treadle.task> a module's name, or a table of tasks
---@param options? treadle.pool_options
---@return treadle.pool
function treadle.pool(tasks, options) end

---@param task string|function a name, or a function, which travels with the call
---@param args? table list of arguments; `n` counts
---@param options? treadle.run_options
---@return treadle.future
function pool:run(task, args, options) end

---Call a task once on every worker.
---@param task string|function
---@param ... any
---@return treadle.future<any[]> future of the list of first results
function pool:broadcast(task, ...) end

---`treadle.pmap` on this pool.
---@param task string|function
---@param list treadle.input
---@param options? treadle.loop_options
---@return treadle.future<any[]> future of the list of results
function pool:map(task, list, options) end

---`treadle.preduce` on this pool.
---@param task string|function
---@param init any
---@param list treadle.input
---@param options? treadle.loop_options
---@return treadle.future future of the value
function pool:reduce(task, init, list, options) end

---Take no more calls, finish what was accepted, stop the workers.
---@param timeout? number seconds; then it terminates
function pool:close(timeout) end

---Stop now: what is queued or running rejects with kind "closed".
---@param reason? string
function pool:terminate(reason) end

---@param reason? string
---@return integer count
function pool:cancel_pending(reason) end

---Let running jobs finish, replace every worker's state.
---@return treadle.future
function pool:recycle() end

---@param min integer the size; or, with `max`, the least
---@param max? integer
---@return treadle.future
function pool:resize(min, max) end

---@return treadle.future future that resolves when there is room in the queue
function pool:ready() end

---@return treadle.future future that resolves when nothing is queued or running
function pool:drained() end

---@class treadle.stats_times
---@field p50 number seconds
---@field p90 number
---@field p99 number
---@field max number
---@field mean number

---@class treadle.stats_task
---@field runs integer
---@field failures integer
---@field run treadle.stats_times from a run's beginning to its end
---@field wait treadle.stats_times from the call to the beginning

---@class treadle.stats_worker
---@field id integer
---@field jobs integer how many it has begun
---@field busy number seconds
---@field utilisation number 0 to 1
---@field heap number bytes of its Lua state
---@field cpu number seconds

---@class treadle.stats
---@field submitted integer
---@field queued integer
---@field running integer
---@field done integer
---@field failed integer
---@field cancelled integer
---@field uptime number seconds
---@field utilisation number 0 to 1
---@field restarts integer
---@field written_off integer
---@field tasks table<string, treadle.stats_task>
---@field workers treadle.stats_worker[]

---@return treadle.stats stats
function pool:stats() end

---What its workers may do.
---@return treadle.permissions_told
function pool:permissions() end

---@class treadle.top_options
---@field interval? number seconds from one picture to the next: 0.5
---@field write? fun(text: string) default: to standard error
---@field width? integer columns; default: the terminal's, else 80
---@field once? boolean return the text of one picture

---@class treadle.top_view
---@field draw fun(self: treadle.top_view) draw now, too
---@field close fun(self: treadle.top_view) draw for the last time

---Draw a live view of the pool until it is closed, or the pool is.
---@param given? treadle.top_options
---@return treadle.top_view|string view with `once` the text
function pool:top(given) end

---@class treadle.backtrace
---@field worker integer
---@field task? string
---@field what "task"|"load"|"other"
---@field waiting? true a job that waits
---@field since? number seconds; nil: not known, of a job that waits
---@field traceback string

---What every worker executes now; idle ones are left out.
---@return treadle.backtrace[]
function pool:backtrace() end

---@class treadle.profile_options
---@field interval? number seconds from one look to the next: 0.001

---Sample what the workers execute, in the background.
---@param seconds number
---@param options? treadle.profile_options
---@return treadle.profile
function pool:profile(seconds, options) end

---A debug hook in every worker, those that come later included; without a function none.
---@param fn? fun(event: string, line?: integer)
---@param mask? string of "c", "r" and "l"
---@param count? integer
---@return treadle.future
function pool:sethook(fn, mask, count) end

---@class treadle.profile
local profile = {}

---@return treadle.profile
function profile:await() end

---@return treadle.profile
function profile:wait() end

---@return treadle.profile
function profile:stop() end

---@return string lines of `task;function;function count`
function profile:folded() end

---@class treadle.profile_entry
---@field name string
---@field self integer samples in the function itself
---@field total integer in it or in what it has called
---@field self_share number
---@field total_share number

---@param n? integer
---@return treadle.profile_entry[]
function profile:top(n) end

---@return integer stacks, integer looks, integer unanswered, number seconds
function profile:samples() end

---@alias treadle.event_name
---| "worker_start"
---| "worker_exit"
---| "job_start"
---| "job_done"
---| "job_error"
---| "queue_full"
---| "drain"
---| "message"

---@alias treadle.exit_reason
---| "recycled"
---| "stopped" # interrupted
---| "stuck" # in C: written off
---| "resized"
---| "closed"

---What a listener is told; which fields are there depends on the event.
---@class treadle.pool_event
---@field event treadle.event_name
---@field worker? integer of all but "queue_full" and "drain"
---@field task? string of jobs, and of "queue_full"
---@field kind? treadle.kind of "job_error"
---@field reason? treadle.exit_reason of "worker_exit"
---@field duration? number seconds; of "job_done" and "job_error"
---@field value? any of "message"

---@param event treadle.event_name
---@param fn fun(event: treadle.pool_event)
---@return fun() unsubscribe
function pool:on(event, fn) end

---Record what the pool does, for trace viewers and for `treadle trace`.
---@param path string
---@return treadle.trace
function pool:trace(path) end

---@class treadle.trace
local trace = {}

---@return integer events
---@return integer lost
function trace:close() end

-- --- parallel loops ------------------------------------------------------------------------------

---A list, also a shared one; a buffer; a function that returns the next item, and nil after the
---last; or a string, with the option `record`.
---@alias treadle.input table|treadle.shared|treadle.buffer|string|fun(): any

---@class treadle.sort_options
---@field concurrency? integer parts under way at once
---@field pool? treadle.pool
---@field timeout? number seconds
---@field signal? treadle.signal|treadle.controller

---@class treadle.for_options: treadle.sort_options
---@field chunk? integer items of a part
---@field progress? fun(done: integer, total?: integer)
---@field ordered? boolean false: in the order in which they are done

---@class treadle.loop_options: treadle.for_options
---@field record? integer bytes of one, where the input is a string

---@param fn string|fun(item: any): any
---@param input treadle.input
---@param options? treadle.loop_options
---@return treadle.future future of a new list, or buffer, of `fn(item)` for each item
function treadle.pmap(fn, input, options) end

---@param fn string|fun(item: any): any
---@param input treadle.input
---@param options? treadle.loop_options
---@return treadle.future future of a new list, or buffer, of the items for which `fn(item)` is true
function treadle.pfilter(fn, input, options) end

---@generic T
---@param fn string|fun(a: T, b: any): T associative
---@param init T counts once
---@param input treadle.input
---@param options? treadle.loop_options
---@return treadle.future<T> future of the value
function treadle.preduce(fn, init, input, options) end

---Call `fn(i)` for the whole numbers from first to last, both included.
---@param first integer
---@param last integer
---@param fn string|fun(i: integer)
---@param options? treadle.for_options
---@return treadle.future future of nothing
function treadle.pfor(first, last, fn, options) end

---@generic T: table|treadle.shared|treadle.buffer
---@param list T
---@param lt? fun(a: any, b: any): boolean
---@param options? treadle.sort_options
---@return treadle.future<T> future of a new sorted list; of the buffer, sorted in place
function treadle.psort(list, lt, options) end

-- --- shared memory -------------------------------------------------------------------------------

---Memory that all states share; elements count from 0.
---@class treadle.buffer
---@field ptr ffi.cdata* an FFI pointer to the elements, not checked
---@operator len: integer
local buffer = {}

---@param i integer from 0
---@return any v
function buffer:get(i) end

---@param i integer from 0
---@param v any
function buffer:set(i, v) end

---@param v any
---@return treadle.buffer self
function buffer:fill(v) end

---The same memory.
---@param first integer from 0
---@param n? integer all that follow, if it is left out
---@return treadle.buffer
function buffer:slice(first, n) end

---@param first? integer from 0
---@param n? integer
---@return string bytes
function buffer:string(first, n) end

---@param src string|any[]|treadle.buffer
---@return treadle.buffer self
function buffer:copy_from(src) end

---Let go of the handle.
function buffer:close() end

---@class treadle.buffer_options
---@field process? boolean in memory that other processes can have, too

---@param ctype string|ffi.ctype* the elements' type; or, without `n`, a string of bytes
---@param n? integer how many
---@param options? treadle.buffer_options
---@return treadle.buffer
---@overload fun(bytes: string, options?: treadle.buffer_options): treadle.buffer
function treadle.buffer(ctype, n, options) end

---Give a buffer away with a call, or a result.
---@param buf treadle.buffer
---@return userdata argument what stands for it among the arguments
function treadle.move(buf) end

---Operations on elements of buffers of integers, each one step. Where nothing else is said they
---return the old value.
---@class treadle.atomics
local atomics = {}

---@alias treadle.integer integer|ffi.cdata*

---@param buf treadle.buffer
---@param i integer from 0
---@return treadle.integer value
function atomics.load(buf, i) end

---@param buf treadle.buffer
---@param i integer from 0
---@param v treadle.integer
---@return treadle.integer v
function atomics.store(buf, i, v) end

---@param buf treadle.buffer
---@param i integer from 0
---@param v treadle.integer
---@return treadle.integer old
function atomics.add(buf, i, v) end

---@param buf treadle.buffer
---@param i integer from 0
---@param v treadle.integer
---@return treadle.integer old
function atomics.sub(buf, i, v) end

---@param buf treadle.buffer
---@param i integer from 0
---@param v treadle.integer
---@return treadle.integer old
function atomics.band(buf, i, v) end

---@param buf treadle.buffer
---@param i integer from 0
---@param v treadle.integer
---@return treadle.integer old
function atomics.bor(buf, i, v) end

---@param buf treadle.buffer
---@param i integer from 0
---@param v treadle.integer
---@return treadle.integer old
function atomics.bxor(buf, i, v) end

---@param buf treadle.buffer
---@param i integer from 0
---@param v treadle.integer
---@return treadle.integer old
function atomics.exchange(buf, i, v) end

---Set it to `v` if it is `expected`.
---@param buf treadle.buffer
---@param i integer from 0
---@param expected treadle.integer
---@param v treadle.integer
---@return treadle.integer old `expected`, if it was set
function atomics.compare_exchange(buf, i, expected, v) end

---Wait, while it is `expected`, until somebody notifies.
---@param buf treadle.buffer
---@param i integer from 0
---@param expected treadle.integer
---@param timeout? number seconds
---@return "ok"|"not-equal"|"timed-out"
function atomics.wait(buf, i, expected, timeout) end

---@param buf treadle.buffer
---@param i integer from 0
---@param n? integer how many at most
---@return integer woken
function atomics.notify(buf, i, n) end

---One integer of 64 bits that all states count with.
---@class treadle.counter
local counter = {}

---@param n? integer 1, if it is left out
---@return integer value the new one
function counter:add(n) end

---@param n? integer 1, if it is left out
---@return integer value the new one
function counter:sub(n) end

---@return integer value
function counter:get() end

---@param n integer
function counter:set(n) end

---Let go of the handle.
function counter:close() end

---@param n? integer its first value, or 0
---@return treadle.counter
function treadle.counter(n) end

---A deep, immutable copy of a table, for all states.
---@class treadle.shared
---@field [any] any
---@operator len: integer

---@param t table
---@return treadle.shared
function treadle.shared(t) end

---`pairs` for plain tables and shared ones.
---@param t table|treadle.shared
---@return function next
---@return any
---@return any
function treadle.pairs(t) end

---`ipairs` for plain tables and shared ones.
---@param t table|treadle.shared
---@return function next
---@return any
---@return integer
function treadle.ipairs(t) end

-- --- channels ------------------------------------------------------------------------------------

---@class treadle.thread_options
---@field data? any what the worker finds in `treadle.worker.data`
---@field name? string
---@field timeout? number seconds, of every call that names none
---@field concurrency? integer calls in progress at once (default 1)
---@field max_memory? number bytes of its Lua heap
---@field max_payload? number bytes
---@field terminate_timeout? number seconds
---@field init? string name of an export
---@field debug? treadle.debug
---@field permissions? "unrestricted"|"strict"|treadle.permissions

---@class treadle.exit
---@field event "exit"
---@field reason "closed"|"terminated"|"crashed"
---@field message? string why, if it was not closed
---@field error? treadle.error if it has crashed

---@class treadle.thread
---@field name string
---@field call table<string, fun(...): treadle.future> the tasks
local thread = {}

---Start a worker of its own, which keeps its state.
---@param tasks string|table<string, function|treadle.task> a module's name, or a table of tasks
---@param options? treadle.thread_options
---@return treadle.thread
function treadle.thread(tasks, options) end

---@param task string|function a name, or a function, which travels with the call
---@param args? table list of arguments; `n` counts
---@param options? treadle.run_options without `worker`, `key`, `retries`
---@return treadle.future
function thread:run(task, args, options) end

---Never waits. Raises kind "closed" or "payload".
---@param value any
function thread:send(value) end

---Wait until the worker has sent something.
---@param timeout? number seconds
---@return any value
---@return boolean received
---@return "closed"|"timeout"|nil why
function thread:recv(timeout) end

---@param event "message"|"exit"|"error"
---@param fn function called with a message, a treadle.exit, or a treadle.error
---@return function unsubscribe
function thread:on(event, fn) end

---Take nothing more, handle what came, run the module's `on_close`, end the thread.
---@param timeout? number seconds; then it terminates
function thread:close(timeout) end

---Stop now: what is queued or running rejects with kind "closed".
---@param reason? string
function thread:terminate(reason) end

---@return treadle.stats stats
function thread:stats() end

---What its worker may do.
---@return treadle.permissions_told
function thread:permissions() end

---@class treadle.parent
local parent = {}

---Send to who made this worker: a thread's parent, or who listens to the pool. Never waits.
---@param value any
function parent:send(value) end

---In a thread: wait until its parent has sent something.
---@param timeout? number seconds
---@return any value
---@return boolean received
---@return "closed"|"timeout"|nil why
function parent:recv(timeout) end

---In a thread: listen to its parent.
---@param event "message"
---@param fn fun(value: any)
---@return function unsubscribe
function parent:on(event, fn) end

---@class treadle.queue_entry
---@field id integer in the order of adding
---@field meta any what was given with it
---@field state "queued"|"active"|"completed"|"failed"
---@field value any its first result
---@field error any
---@field started? number when, by the monotonic clock
---@field duration? number seconds

---@class treadle.queue
---@field limit integer how many may be active at once
local queue = {}

---@class treadle.queue_options
---@field limit? integer the number of cores unless told

---Functions of this state that wait for their turn.
---@param options? treadle.queue_options
---@return treadle.queue
function treadle.queue(options) end

---@class treadle.queue_add_options
---@field meta? any
---@field signal? treadle.signal|treadle.controller

---Run `fn()` in a coroutine as soon as fewer than `limit` are active.
---@generic T
---@param fn fun(): T, ...
---@param options? treadle.queue_add_options
---@return treadle.future<T> future of its results
function queue:add(fn, options) end

---Hear of the first that completes since the queue was last empty.
---@param fn fun(value: any, entry: treadle.queue_entry)
---@return treadle.queue
function queue:race(fn) end

---Hear of each that completes.
---@param fn fun(value: any, entry: treadle.queue_entry)
---@return treadle.queue
function queue:each(fn) end

---Hear of what has completed or failed, whenever the queue has become empty.
---@param fn fun(entries: treadle.queue_entry[])
---@return treadle.queue
function queue:all_settled(fn) end

---@param which? "queued"|"active"|"completed"|"failed"|"total" "total" unless told
---@param how? "count"|"percent"|"raw" "count" unless told
---@return number|treadle.queue_entry[]
function queue:status(which, how) end

---@return boolean available whether a function that is added now starts now
function queue:available() end

---Forget what has completed or failed.
function queue:clear() end

---@return treadle.future future that resolves when nothing is queued or active
function queue:drained() end

---Take no more, wait until those that were added have ended.
function queue:close() end

---Messages from many to many, between all states.
---@class treadle.channel
local channel = {}

---Wait until there is room. Raises kind "closed" or "payload".
---@param value any
---@param timeout? number seconds
---@return boolean sent
---@return "timeout"? why
function channel:send(value, timeout) end

---Wait until there is a message.
---@param timeout? number seconds
---@return any value
---@return boolean received
---@return "closed"|"timeout"|nil why
function channel:recv(timeout) end

---@param value any
---@return boolean sent
---@return "full"|"closed"|nil why
function channel:try_send(value) end

---@return any value
---@return boolean received
---@return "empty"|"closed"|nil why
function channel:try_recv() end

---Receive until it is closed and empty.
---@return fun(): any next a function that needs no arguments
function channel:iter() end

---Close it, for everybody and for good.
function channel:close() end

---@param capacity? number messages that it holds; 0: a sender waits for its receiver
---@return treadle.channel
function treadle.channel(capacity) end

---@class treadle.cases
---@field [integer] { [1]: treadle.channel, [2]: "recv"|"send", [3]: any }
---@field timeout? number seconds

---Do the first of several sends and receives that can be done.
---@param cases treadle.cases
---@return integer? index of the case; nil: the time is over
---@return any value "timeout" if there was no case
---@return boolean? ok false: the channel is closed and empty
function treadle.select(cases) end

-- --- locks ---------------------------------------------------------------------------------------

---One holder at a time: a task, a coroutine made by `treadle.spawn`, or the main chunk.
---@class treadle.mutex
local mutex = {}

---@param timeout? number seconds
---@return boolean taken
---@return "abandoned"? state the last holder died
function mutex:lock(timeout) end

---@return boolean taken
---@return "abandoned"? state
function mutex:try_lock() end

---Raises for who does not hold it.
function mutex:unlock() end

---Call `fn(...)` while it is held.
---@param fn fun(...): ...
---@param ... any
---@return any ...
function mutex:with(fn, ...) end

---Let go of the handle.
function mutex:close() end

---@return treadle.mutex
function treadle.mutex() end

---Any number of readers, or one writer.
---@class treadle.rwlock
local rwlock = {}

---@param timeout? number seconds
---@return boolean taken
---@return "abandoned"? state a writer died
function rwlock:read_lock(timeout) end

---@return boolean taken
---@return "abandoned"? state
function rwlock:read_try_lock() end

---Raises for who does not hold it.
function rwlock:read_unlock() end

---@param fn fun(...): ...
---@param ... any
---@return any ...
function rwlock:read_with(fn, ...) end

---@param timeout? number seconds
---@return boolean taken
---@return "abandoned"? state the last writer died
function rwlock:write_lock(timeout) end

---@return boolean taken
---@return "abandoned"? state
function rwlock:write_try_lock() end

---Raises for who does not hold it.
function rwlock:write_unlock() end

---@param fn fun(...): ...
---@param ... any
---@return any ...
function rwlock:write_with(fn, ...) end

---Let go of the handle.
function rwlock:close() end

---@return treadle.rwlock
function treadle.rwlock() end

---So many permits.
---@class treadle.semaphore
local semaphore = {}

---@param timeout? number seconds
---@return boolean taken
---@return "abandoned"? state a holder died
function semaphore:acquire(timeout) end

---@return boolean taken
---@return "abandoned"? state
function semaphore:try_acquire() end

---Raises for who has none.
function semaphore:release() end

---@param fn fun(...): ...
---@param ... any
---@return any ...
function semaphore:with(fn, ...) end

---Let go of the handle.
function semaphore:close() end

---@param n integer at least 1
---@return treadle.semaphore
function treadle.semaphore(n) end

---A place where so many meet, again and again.
---@class treadle.barrier
local barrier = {}

---@param timeout? number seconds
---@return boolean all_came
---@return integer? number which of them this one is, from 1
function barrier:wait(timeout) end

---Let go of the handle.
function barrier:close() end

---@param n integer at least 1
---@return treadle.barrier
function treadle.barrier(n) end

---A flag that all states share.
---@class treadle.event
local event = {}

---All who wait go on, and all who come, until it is reset.
function event:set() end

function event:reset() end

---@return boolean
function event:is_set() end

---@param timeout? number seconds
---@return boolean is_set
function event:wait(timeout) end

---Let go of the handle.
function event:close() end

---@return treadle.event
function treadle.event() end

return treadle
