/* treadle: run Lua functions on a pool of LuaJIT states, one per thread.
**
** A loop is where a thread makes calls and gets results; a pool is a set of
** workers; a call is one run of one task, there and back.
**
** Threads: a loop, and every pool and call made on it, belong to the thread
**          that opened the loop. Callbacks run on it, inside treadle_poll or
**          the function that settles the call. Functions for any thread say so.
** Owns:    each function says whose its arguments are afterwards.
** Fails:   with a negative enum treadle_status; outputs are untouched then.
**
** docs/c-api.md explains all of it, with programs. */
#ifndef TREADLE_H
#define TREADLE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TREADLE_VERSION "0.1.0"

#if defined(__GNUC__)
#define TREADLE_API __attribute__((visibility("default")))
#else
#define TREADLE_API
#endif

enum treadle_status {
  TREADLE_OK = 0,
  TREADLE_ETASK = -1,       /* the task raised an error */
  TREADLE_ETIMEOUT = -2,    /* its time is over */
  TREADLE_ECANCELLED = -3,  /* cancelled by the caller */
  TREADLE_ECLOSED = -4,     /* the pool takes no more calls */
  TREADLE_ECRASHED = -5,    /* the worker died */
  TREADLE_ENOMEM = -6,      /* out of memory */
  TREADLE_EPAYLOAD = -7,    /* a value that cannot travel, or too many bytes */
  TREADLE_EQUEUEFULL = -8,  /* the pool's queue is at its limit */
  TREADLE_EPERMISSION = -9, /* not permitted */
  TREADLE_ELOAD = -10,      /* the task module cannot be loaded */
  TREADLE_EINVAL = -11,     /* wrong use */
  TREADLE_ESYSTEM = -12     /* the operating system refused */
};

typedef struct treadle_loop treadle_loop;
typedef struct treadle_pool treadle_pool;
typedef struct treadle_call treadle_call;
typedef struct treadle_writer treadle_writer;
typedef struct treadle_buffer treadle_buffer;

/* A static text for a status, and the word that scripts know it by ("timeout").
** Any thread. */
TREADLE_API const char *treadle_status_text(int status);
TREADLE_API const char *treadle_status_kind(int status);

/* --- loops ---------------------------------------------------------------- */

/* The loop is the caller's until treadle_loop_close. */
TREADLE_API int treadle_loop_open(treadle_loop **out);

/* All its pools are closed or terminated before. Frees the loop as soon as no
** worker can reach it any more. */
TREADLE_API void treadle_loop_close(treadle_loop *loop);

/* Handles what has arrived: runs the callbacks of finished calls. If nothing
** has, blocks until something does, at most `timeout` seconds (0: not at all,
** below 0: no limit; a signal or treadle_wake ends the wait). Returns how many
** events it handled, or TREADLE_EINVAL for the loop of a Lua state. */
TREADLE_API int treadle_poll(treadle_loop *loop, double timeout);

/* The same for a frame: never blocks, and begins no further event when `budget`
** seconds have passed; what is left is there the next time. At least one event
** is handled, if there is any, and the last one ends in its own time. */
TREADLE_API int treadle_poll_for(treadle_loop *loop, double budget);

/* 1 when a poll would find something now. */
TREADLE_API int treadle_ready(const treadle_loop *loop);

/* Seconds until a poll has something to do although nothing arrives; below 0:
** no such time. Only timers of scripts have one: the loop of a Lua state. */
TREADLE_API double treadle_next_timeout(const treadle_loop *loop);

/* Any thread, and a signal handler: ends a poll that blocks, with 0 events if
** there are none. While nobody sleeps there it does nothing. */
TREADLE_API void treadle_wake(treadle_loop *loop);

/* A descriptor that is readable when treadle_poll has something to handle.
** Before each sleep on it call treadle_arm, and sleep only if that returns 1;
** each poll ends the arming. */
TREADLE_API int treadle_fd(treadle_loop *loop);
TREADLE_API int treadle_arm(treadle_loop *loop);

/* --- pools ---------------------------------------------------------------- */

#define TREADLE_MAX_THREADS 1024

/* For max_queue: no call may wait. */
#define TREADLE_NO_QUEUE ((size_t)-1)

/* All zero but for `module` is a good beginning. */
typedef struct treadle_pool_options {
  const char *module;   /* workers require it; its exports are the tasks */
  const char *source;   /* the text of that module, for workers that cannot
                        ** find it; or NULL */
  size_t source_length; /* of the text; 0: it is terminated */
  const char *name;     /* label of threads; NULL: the module's name */
  const char *path;     /* package.path of the workers; NULL: LuaJIT's */
  const char *cpath;    /* package.cpath; NULL: LuaJIT's */
  const char *init;     /* an export that each worker runs before its first */
  const char *teardown; /* job, and one before it ends; NULL: none */
  const char *jit;      /* "off", or parameters of the compiler, separated by
                        ** commas ("maxtrace=4000,hotloop=20"); NULL: LuaJIT's
                        ** own */
  treadle_writer *data; /* one value, for treadle.worker.data; stays the
                        ** caller's; NULL: nil */
  unsigned threads;     /* 0: one for each processor */
  unsigned
      min_threads; /* with max_threads, in the place of threads: it begins */
  unsigned max_threads; /* with min, grows while calls wait, and shrinks */
  unsigned concurrency; /* jobs in progress in one worker; 0: 1 */
  int isolate;          /* each job gets a fresh state */
  double idle_timeout;  /* seconds without a call until a worker ends that is
                        ** one too many (min_threads, treadle_pool_resize); 0:
                        ** never */
  double timeout;       /* seconds, for tasks that name none; 0: none */
  double
      terminate_timeout;  /* seconds that closing and recycling wait before they
                            ** force; 0: 5 */
  size_t max_queue;       /* calls that may wait; 0: no limit */
  size_t max_payload;     /* bytes of arguments, and of results; 0: 64 MiB */
  size_t max_memory;      /* bytes of one worker's Lua heap; 0: no limit */
  size_t recycle_memory;  /* a worker whose heap is larger after a job gets a
                         ** fresh state; 0: never */
  unsigned recycle_after; /* or after so many jobs; 0: never */
} treadle_pool_options;

/* Starts the workers and blocks until the first has loaded the module. Options
** are copied. On TREADLE_ELOAD `error` (may be NULL) holds the beginning of
** the worker's message, otherwise that of the status's text, terminated; for
** TREADLE_EINVAL it names the option. The pool is the caller's until it is
** closed or terminated. */
TREADLE_API int treadle_pool_open(treadle_loop *loop,
                                  const treadle_pool_options *options,
                                  treadle_pool **out, char *error,
                                  size_t error_size);

/* The number of the task with this name, or TREADLE_EINVAL. */
TREADLE_API int treadle_pool_task(const treadle_pool *pool, const char *name);

/* How many tasks there are; the name of number 1 to count, or NULL. */
TREADLE_API int treadle_pool_task_count(const treadle_pool *pool);
TREADLE_API const char *treadle_pool_task_name(const treadle_pool *pool,
                                               int task);

/* Counts of calls: queued + running + done + failed + cancelled == submitted in
** every snapshot. */
typedef struct treadle_stats {
  uint64_t submitted;   /* accepted and queued */
  uint64_t queued;      /* now */
  uint64_t running;     /* now */
  uint64_t done;        /* with results */
  uint64_t failed;      /* with an error: the task's, timeout, crash, ... */
  uint64_t cancelled;   /* by the caller, or because the pool was closed */
  uint64_t restarts;    /* workers' states that were replaced */
  uint64_t written_off; /* threads that were left alone, stuck in C */
  double uptime;        /* seconds */
  double utilisation;   /* 0 to 1: the share of time in which workers work */
} treadle_stats;

TREADLE_API void treadle_pool_stats(const treadle_pool *pool,
                                    treadle_stats *out);

/* How many calls the pool would take now; (size_t)-1 without a limit, and for a
** pool that is closed, which refuses at once. If that is 0, a poll ends when
** there is room. */
TREADLE_API size_t treadle_pool_room(treadle_pool *pool);

/* From here on the pool has `min` to `max` workers, 1024 at most: it starts one
** when a call waits and nobody is there to take it. Beyond `max`, those with
** the highest numbers finish what they run and end. Never blocks; the threads
** come and go while the program polls. */
TREADLE_API int treadle_pool_resize(treadle_pool *pool, unsigned min,
                                    unsigned max);

/* How many workers the pool is to have now. */
TREADLE_API unsigned treadle_pool_size(const treadle_pool *pool);

/* Every worker gets a fresh state once its jobs have ended, or when
** terminate_timeout is over: those are lost then (TREADLE_ECRASHED). */
TREADLE_API void treadle_pool_recycle(treadle_pool *pool);

/* Settles what has not started as TREADLE_ECANCELLED, with `reason` (may be NULL)
** for a message; the callbacks run in the next poll. Returns how many. */
TREADLE_API unsigned treadle_pool_cancel_pending(treadle_pool *pool,
                                                 const char *reason);

/* Takes no more calls, blocks and polls until what was accepted is done and
** the threads have ended; after `timeout` seconds (below 0: no limit)
** terminates. The pool is gone afterwards. Not from a callback. Returns 0, or
** TREADLE_EINVAL of a pool that is a script's (treadle_state_pool): nothing has
** happened then. */
TREADLE_API int treadle_pool_close(treadle_pool *pool, double timeout);

/* Settles all calls as TREADLE_ECLOSED, runs their callbacks, and waits
** terminate_timeout for the threads; those that do not end are left to
** themselves. The pool is gone afterwards. Not from a callback. Returns the
** same. */
TREADLE_API int treadle_pool_terminate(treadle_pool *pool);

/* --- values that are read ------------------------------------------------- */

typedef enum treadle_type {
  TREADLE_NIL,
  TREADLE_BOOLEAN,
  TREADLE_NUMBER,
  TREADLE_STRING,
  TREADLE_TABLE,
  TREADLE_NUMBERS, /* `length` elements of the table around it, in one */
  TREADLE_INT64,
  TREADLE_UINT64,
  TREADLE_BUFFER,
  TREADLE_OTHER /* what only Lua has (a function, a class, a second reference to
                ** a table); all of it is passed over */
} treadle_type;

/* Where one reads: results, an error's report, or the contents of a table. A
** copy of it remembers the place. Its fields are private. */
typedef struct treadle_values {
  const unsigned char *next, *end; /* private */
  const unsigned char *whole;      /* private: the payload */
  uint64_t left;                   /* private: values to come */
  unsigned count;                  /* private: of the payload */
  int flags;                       /* private */
} treadle_values;

typedef struct treadle_value {
  treadle_type type;
  int boolean;
  double number;
  int64_t int64;
  uint64_t uint64;
  const char *string;     /* STRING: `length` bytes, not terminated; NUMBERS:
                      ** `length` little-endian doubles, not aligned. Valid
                      ** during the callback. */
  size_t length;          /* TABLE: elements */
  size_t pairs;           /* TABLE */
  treadle_buffer *buffer; /* valid during the callback; treadle_buffer_hold */
  treadle_values inside;  /* TABLE: its elements, then its pairs */
} treadle_value;

/* How many values there are; a table is one. */
TREADLE_API unsigned treadle_values_count(const treadle_values *values);

/* The next value. A table's value is followed by its elements, then by `pairs`
** times a key and a value, each a value of its own. TREADLE_EPAYLOAD at the end,
** and for bytes that are no payload. */
TREADLE_API int treadle_get(treadle_values *values, treadle_value *out);

/* Passes over the next value, with all that is in it. */
TREADLE_API int treadle_skip(treadle_values *values);

/* The value at that key, or element 1 to length, of a table. TREADLE_EINVAL when
** there is none, or when it is no table. `values` need not be there. */
TREADLE_API int treadle_field(const treadle_value *table, const char *key,
                              treadle_value *out);
TREADLE_API int treadle_element(const treadle_value *table, size_t index,
                                treadle_value *out);

/* Copies elements 1 to `count` of a table, which are all numbers. */
TREADLE_API int treadle_copy_numbers(const treadle_value *table, double *to,
                                     size_t count);

/* Element `i`, from 0, of a value of type TREADLE_NUMBERS. */
TREADLE_API double treadle_number_at(const treadle_value *numbers, size_t i);

/* Values that were written to bytes: by treadle_writer_bytes, or by scripts with
** treadle.encode. The bytes stay the caller's, and as they are. */
TREADLE_API int treadle_values_open(const void *bytes, size_t size,
                                    treadle_values *out);

/* Why a call failed. The texts are not terminated, and valid during the callback. */
typedef struct treadle_error {
  const char *kind; /* "task", "timeout": treadle_status_kind, terminated */
  const char *message;
  size_t message_length;
  const char *traceback; /* the worker's; NULL without */
  size_t traceback_length;
  int has_value; /* what the task raised has come along: */
  treadle_value value;
} treadle_error;

/* In the callback, from its status and values, of which nothing was read. */
TREADLE_API void treadle_read_error(int status, const treadle_values *values,
                                    treadle_error *out);

/* --- values that are written ------------------------------------------------ */

/* `count` values, to be put one after the other. The caller's until it is
** freed. */
TREADLE_API int treadle_writer_new(unsigned count, treadle_writer **out);
TREADLE_API void treadle_writer_free(treadle_writer *writer);

/* What was put, as bytes that can be kept; they are the writer's. Fails with the
** first failure of a put; TREADLE_EINVAL also for a wrong count, TREADLE_EPAYLOAD
** for what cannot be kept, a buffer. */
TREADLE_API int treadle_writer_bytes(treadle_writer *writer, const void **bytes,
                                     size_t *size);

/* Each adds a value. The first failure is kept and told later. */
TREADLE_API void treadle_put_nil(treadle_writer *writer);
TREADLE_API void treadle_put_boolean(treadle_writer *writer, int value);
TREADLE_API void treadle_put_number(treadle_writer *writer, double value);
TREADLE_API void treadle_put_string(treadle_writer *writer, const char *s,
                                    size_t length);
TREADLE_API void treadle_put_text(treadle_writer *writer, const char *text);
TREADLE_API void treadle_put_int64(treadle_writer *writer, int64_t value);
TREADLE_API void treadle_put_uint64(treadle_writer *writer, uint64_t value);

/* A table: `length` elements follow, then `pairs` times a key (no nil, no NaN) and
** a value, each put as a value of its own. */
TREADLE_API void treadle_put_table(treadle_writer *writer, unsigned length,
                                   unsigned pairs);

/* `length` elements of the table around it. */
TREADLE_API void treadle_put_numbers(treadle_writer *writer,
                                     const double *values, unsigned length);

/* Shared: the worker sees the same memory. The writer takes a reference. */
TREADLE_API void treadle_put_buffer(treadle_writer *writer,
                                    treadle_buffer *buffer);

/* Zeroed memory that states share (treadle.buffer). `type` is "double", "float",
** or one of the integer types of stdint.h, "int8_t" to "uint64_t". One reference:
** the caller's. All of these: any thread; what lies in the memory is its users'
** business. */
TREADLE_API int treadle_buffer_new(const char *type, size_t count,
                                   treadle_buffer **out);
TREADLE_API void treadle_buffer_hold(treadle_buffer *buffer);
TREADLE_API void treadle_buffer_drop(treadle_buffer *buffer);
TREADLE_API void *treadle_buffer_data(const treadle_buffer *buffer);
TREADLE_API size_t treadle_buffer_count(const treadle_buffer *buffer);
TREADLE_API size_t treadle_buffer_bytes(const treadle_buffer *buffer);

/* --- calls ---------------------------------------------------------------- */

/* Called once for a submitted call. `values` are its results, or the report of its
** error (treadle_read_error). */
typedef void (*treadle_done)(int status, treadle_values *values, void *ctx);

/* A call of `task` with `count` arguments, to be put to treadle_arguments. The
** caller's until it is submitted or dropped. */
TREADLE_API int treadle_call_new(treadle_pool *pool, int task, unsigned count,
                                 treadle_call **out);
TREADLE_API void treadle_call_drop(treadle_call *call);

/* Where its arguments are put; the call's. */
TREADLE_API treadle_writer *treadle_arguments(treadle_call *call);

typedef enum treadle_priority {
  TREADLE_NORMAL,
  TREADLE_HIGH, /* before the others */
  TREADLE_LOW   /* behind them; never starved */
} treadle_priority;

/* Before it is submitted; without it the task's own, else NORMAL. */
TREADLE_API void treadle_call_priority(treadle_call *call,
                                       treadle_priority priority);

/* The worker that is to run it, 1 to treadle_pool_size; submit tells when there is
** none. */
TREADLE_API void treadle_call_worker(treadle_call *call, unsigned worker);

/* Calls with the same key run on one worker, in their order. */
TREADLE_API void treadle_call_key(treadle_call *call, const char *key,
                                  size_t length);

/* Sends it off; `timeout` in seconds, the wait included; below 0: the task's, else
** the pool's; TREADLE_NO_TIMEOUT: none. Never blocks. TREADLE_EQUEUEFULL: the
** queue is at its limit. Takes the call in any case; on failure `done` is not
** called. */
#define TREADLE_NO_TIMEOUT 1e300
TREADLE_API int treadle_submit(treadle_call *call, double timeout,
                               treadle_done done, void *ctx);

/* Settles a submitted call as TREADLE_ECANCELLED here and now: runs its
** callback. A queued one never runs; a running one is told (treadle.cancelled(),
** and its waits raise). 0, or TREADLE_EINVAL when it is settled already. Not
** after the callback. */
TREADLE_API int treadle_cancel(treadle_call *call);

/* The same with a reason for the task (may be NULL); with `force` the task is
** stopped, wherever it is: its worker gets a fresh state. */
TREADLE_API int treadle_cancel_with(treadle_call *call, const char *reason,
                                    int force);

/* --- beside a Lua state ------------------------------------------------------ */

struct lua_State;

/* The module `treadle` for a state of the program's own, to be put into
** package.preload.treadle. */
TREADLE_API int luaopen_treadle(struct lua_State *L);

/* The loop of that state, in which the pools live that its script opens. It is the
** state's. The script polls it (treadle.poll, treadle.run); treadle_fd,
** _ready, _next_timeout and _wake may be asked of it. NULL in a worker, whose loop
** is its scheduler's. These three may raise a Lua error for want of memory. */
TREADLE_API treadle_loop *treadle_state_loop(struct lua_State *L);

/* treadle.poll(timeout), protected; `L` is the thread that runs. Returns how many
** events it handled, or TREADLE_ETASK and the error on top of the stack. */
TREADLE_API int treadle_state_poll(struct lua_State *L, double timeout);

/* The pool of the script's that is at `index` of the stack, to make calls on; NULL
** when it is none, or over. Their callbacks run when the script polls, and may not
** raise. To be released before the state is closed; the pool stays the script's,
** which alone closes it. */
TREADLE_API treadle_pool *treadle_state_pool(struct lua_State *L, int index);
TREADLE_API void treadle_pool_release(treadle_pool *pool);

#ifdef __cplusplus
}
#endif

#endif
