/* treadle: run Lua functions on a pool of LuaJIT states, one per thread.
**
** A loop is where a thread makes calls and gets results; a pool is a set of
** workers; a job is one call on its way there and back.
**
** Threads: a loop, and every job and pool opened on it, belong to the thread
**          that opened the loop; the exceptions say so.
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

typedef struct treadle_loop treadle_loop;
typedef struct treadle_pool treadle_pool;

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

#ifdef __cplusplus
}
#endif

#endif
