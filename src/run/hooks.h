/* tdl_hook: the debug hook that a pool's states are to have.
** Threads: any that keeps the pool; the pool's present one is under the
**          supervisor's lock.
** Owns:    its payload: function, mask, count; or no values: there is to be none.
** Fails:   TREADLE_ENOMEM from set.
**
** A worker takes it over at its turn (TDL_ASK_HOOK), and then says so in its slot.
** A state that is booted later asks itself. */
#ifndef TDL_HOOKS_H
#define TDL_HOOKS_H

#include "../base/bytes.h"
#include "../base/counted.h"

struct tdl_worker;
struct treadle_pool;

typedef struct tdl_hook {
  tdl_counted counted; /* first */
  tdl_bytes bytes;     /* from the heap */
  uint32_t version;    /* from 1 on */
} tdl_hook;

/* any thread that keeps the pool; takes what is in the bytes, from the heap. */
int tdl_hook_set(struct treadle_pool *pool, tdl_bytes *bytes);

/* The pool's end. */
void tdl_hook_drop(struct treadle_pool *pool);

/* any thread that keeps the pool; a reference, or NULL: it never had one. */
tdl_hook *tdl_hook_get(struct treadle_pool *pool);

/* 1 when all workers that the pool is to have now have taken it over. */
int tdl_hook_is_taken(struct treadle_pool *pool);

/* worker; it has taken that version over; its state is a new one. */
void tdl_hook_taken(struct tdl_worker *worker, uint32_t version);
void tdl_hook_renew(struct tdl_worker *worker);

#endif
