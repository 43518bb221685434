/* treadle: run Lua functions on a pool of LuaJIT states, one per thread.
**
** A loop is where a thread makes calls and gets results; a pool is a set of
** workers; a call is one run of one task, there and back.
**
** Threads: a loop, and every pool and call made on it, belong to the thread
**          that opened the loop. Callbacks run on it, inside treadle_poll or
**          the function that settles the call.
** Owns:    each function says whose its arguments are afterwards.
** Fails:   with a negative enum treadle_status; outputs are untouched then.
*/
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

/* A static text for a status. */
TREADLE_API const char *treadle_status_text(int status);

/* --- loops ---------------------------------------------------------------- */

/* The loop is the caller's until treadle_loop_close. */
TREADLE_API int treadle_loop_open(treadle_loop **out);

/* All its pools are closed or terminated before. Frees the loop as soon as no
** worker can reach it any more. */
TREADLE_API void treadle_loop_close(treadle_loop *loop);

/* Handles what has arrived: runs the callbacks of finished calls. If nothing
** has, blocks until something does, at most `timeout` seconds (0: not at all,
** below 0: no limit; a signal ends the wait). Returns how many events it
** handled. */
TREADLE_API int treadle_poll(treadle_loop *loop, double timeout);

/* A descriptor that is readable when treadle_poll has something to handle.
** Before each sleep on it call treadle_arm, and sleep only if that returns 1;
** treadle_poll ends the arming. */
TREADLE_API int treadle_fd(treadle_loop *loop);
TREADLE_API int treadle_arm(treadle_loop *loop);

/* --- pools ---------------------------------------------------------------- */

typedef struct treadle_pool_options {
  const char *module;   /* workers require it; its exports are the tasks */
  const char *name;     /* label of threads; NULL: the module's name */
  const char *path;     /* package.path of the workers; NULL: LuaJIT's */
  const char *cpath;    /* package.cpath; NULL: LuaJIT's */
  unsigned threads;     /* 0: one for each processor */
  unsigned concurrency; /* jobs in progress in one worker; 0: 1 */
  size_t max_payload;   /* bytes; 0: 64 MiB */
  double idle_timeout;  /* seconds without a call until a worker ends that is
                        ** one too many (treadle_pool_resize); 0: never */
} treadle_pool_options;

/* Starts the workers and blocks until the first has loaded the module. Options
** are copied. On TREADLE_ELOAD `error` (may be NULL) holds the beginning of
** the worker's message, terminated. The pool is the caller's until it is
** closed or terminated. */
TREADLE_API int treadle_pool_open(treadle_loop *loop,
                                  const treadle_pool_options *options,
                                  treadle_pool **out, char *error,
                                  size_t error_size);

/* The number of the task with this name, or TREADLE_EINVAL. */
TREADLE_API int treadle_pool_task(const treadle_pool *pool, const char *name);

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

/* From here on the pool has `min` to `max` workers, 1024 at most: it starts one
** when a call waits and nobody is there to take it. Beyond `max`, those with
** the highest numbers finish what they run and end. Never blocks; the threads
** come and go while the program polls. */
TREADLE_API int treadle_pool_resize(treadle_pool *pool, unsigned min,
                                    unsigned max);

/* How many workers the pool is to have now. */
TREADLE_API unsigned treadle_pool_size(const treadle_pool *pool);

/* Takes no more calls, blocks and polls until what was accepted is done and
** the threads have ended; after `timeout` seconds (below 0: no limit)
** terminates. The pool is gone afterwards. Not from a callback. */
TREADLE_API void treadle_pool_close(treadle_pool *pool, double timeout);

/* Settles all calls as TREADLE_ECLOSED, runs their callbacks, and waits a
** moment for the threads; those that do not end are left to themselves. The
** pool is gone afterwards. Not from a callback. */
TREADLE_API void treadle_pool_terminate(treadle_pool *pool);

/* --- calls ---------------------------------------------------------------- */

/* Values of the wire format. A table's value is followed by `length` elements,
** then by `pairs` times a key and a value, each a value of its own. */
typedef enum treadle_type {
  TREADLE_NIL,
  TREADLE_BOOLEAN,
  TREADLE_NUMBER,
  TREADLE_STRING,
  TREADLE_TABLE,
  TREADLE_NUMBERS, /* `length` elements of the table around it, in one */
  TREADLE_INT64,
  TREADLE_UINT64
} treadle_type;

typedef struct treadle_value {
  treadle_type type;
  int boolean;
  double number;
  int64_t int64;
  uint64_t uint64;
  const char *string; /* STRING: `length` bytes, not terminated; NUMBERS:
                      ** `length` little-endian doubles, not aligned. Valid
                      ** during the callback. */
  size_t length;
  size_t pairs;
} treadle_value;

/* What a callback reads from: the results, or the error's report (a message
** and, from a task, a traceback and the raised value). */
typedef struct treadle_values treadle_values;

/* Called once for a submitted call. */
typedef void (*treadle_done)(int status, treadle_values *values, void *ctx);

/* A call of `task` with `count` arguments, to be put one after the other. The
** caller's until it is submitted or dropped. */
TREADLE_API int treadle_call_new(treadle_pool *pool, int task, unsigned count,
                                 treadle_call **out);
TREADLE_API void treadle_call_drop(treadle_call *call);

/* Each adds a value. The first failure is kept and told by submit. */
TREADLE_API void treadle_put_nil(treadle_call *call);
TREADLE_API void treadle_put_boolean(treadle_call *call, int value);
TREADLE_API void treadle_put_number(treadle_call *call, double value);
TREADLE_API void treadle_put_string(treadle_call *call, const char *s,
                                    size_t length);
TREADLE_API void treadle_put_int64(treadle_call *call, int64_t value);
TREADLE_API void treadle_put_uint64(treadle_call *call, uint64_t value);
TREADLE_API void treadle_put_table(treadle_call *call, unsigned length,
                                   unsigned pairs);
TREADLE_API void treadle_put_numbers(treadle_call *call, const double *values,
                                     unsigned length);

/* Sends it off; `timeout` in seconds, below 0: none. Never blocks. Takes the
** call in any case; on failure `done` is not called. */
TREADLE_API int treadle_submit(treadle_call *call, double timeout,
                               treadle_done done, void *ctx);

/* Settles a submitted call as TREADLE_ECANCELLED here and now: runs its
** callback. 0, or TREADLE_EINVAL when it is settled already. Not after the
** callback. */
TREADLE_API int treadle_cancel(treadle_call *call);

/* How many values there are. */
TREADLE_API unsigned treadle_values_count(const treadle_values *values);

/* The next value; TREADLE_EPAYLOAD at the end, or at one that only Lua has. */
TREADLE_API int treadle_get(treadle_values *values, treadle_value *out);

#ifdef __cplusplus
}
#endif

#endif
