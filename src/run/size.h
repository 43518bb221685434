/* tdl_size: how many workers a pool has, and is to have.
** Threads: any that keeps the pool; each function locks the supervisor's lock,
**          or is called with it, as its name says.
** Owns:    nothing.
** Fails:   with a treadle_status. A thread that cannot be started is tried
**          again.
**
** Z1  min <= now <= max. The slots 1 to `now` are to have a worker, the others
**     are shut. All this changes under the supervisor's lock.
** Z2  A worker whose slot is shut does what was sent to it, and takes no more
**     jobs than those in progress need; when all have ended it closes its state
**     and is PARKED: its thread waits. If the slot opens again it boots another state; if not, the home
**     dismisses it, joins the thread, and the slot is EMPTY. So a pool grows
**     also while its home computes, and a worker's struct serves each life.
** Z3  What is sent to a shut slot that is not TAKEN any more goes on to an open
**     one, all of it to the same, under the lock: either the sender sees the slot
**     shut and left, or the one who leaves it sees the call.
** Z4  `asked` is set by whoever finds work and nobody to take it, while now is
**     less than max; the supervisor then looks. While it is set nobody asks
**     again. It falls when a new worker serves, or the supervisor has found
**     nothing lacking twice; who lets it fall looks at the queue after that.
** Z5  A worker is spare when it has had no job for idle_ns, and not less than
**     TDL_SIZE_DWELL_NS. For each, the highest slot is shut, down to min: so the
**     numbers have no gaps, and what that one did is left to the spare one. */
#ifndef TDL_SIZE_H
#define TDL_SIZE_H

#include <stdatomic.h>
#include <stdint.h>

struct treadle_pool;
struct tdl_slot;
struct tdl_worker;

enum tdl_seat_state {
  TDL_SEAT_EMPTY = 0, /* its worker has no thread */
  TDL_SEAT_TAKEN,
  TDL_SEAT_PARKED,   /* Z2 */
  TDL_SEAT_DISMISSED /* the home joins the thread */
};

/* Of a slot; under the lock, but for `shut`, which anybody reads [shut]. */
typedef struct tdl_seat {
  _Atomic uint32_t shut;
  uint32_t state;  /* enum tdl_seat_state */
  uint32_t before; /* states booted there before the thread began */
  int noted;       /* the worker's note `left` is under way */
} tdl_seat;

typedef struct tdl_size {
  /* written under the lock, read by anybody */
  _Atomic uint32_t now, min, max;
  _Atomic uint32_t may_grow; /* now < max */
  _Atomic uint32_t asked;    /* Z4; by anybody */
  /* under the lock */
  int looked; /* found nothing lacking, once */
  uint64_t idle_ns;
  uint64_t due_ns; /* the supervisor's next look; TDL_NEVER */
  struct treadle_pool *next;
  int listed;
} tdl_size;

/* home; the first workers of a new pool. */
int tdl_size_open(struct treadle_pool *pool, uint32_t min, uint32_t max,
                  uint64_t idle_ns);

/* any thread that keeps the pool; from here on between min and max, at once as
** far as numbers go. 0, TREADLE_EINVAL or TREADLE_ESYSTEM. */
int tdl_size_set(struct treadle_pool *pool, uint32_t min, uint32_t max);

/* any thread that keeps the pool; the highest number a worker may have. */
uint32_t tdl_size_now(const struct treadle_pool *pool);

/* any thread that keeps the pool; its bounds. */
uint32_t tdl_size_min(const struct treadle_pool *pool);
uint32_t tdl_size_max(const struct treadle_pool *pool);

/* home; 1 when every slot has what it is to have. */
int tdl_size_is_reached(struct treadle_pool *pool);

/* any thread that keeps the pool, after it has pushed to the run queue; Z4. */
void tdl_size_ask(struct treadle_pool *pool);

/* The sender, after it has pushed to the slot's calls: wakes who has it (Z3). */
void tdl_size_sent(struct treadle_pool *pool, struct tdl_slot *slot);

/* any thread; its slot is open. */
int tdl_size_wants(const struct tdl_worker *worker);

/* The worker, without a state: what is it to do? */
enum tdl_standing {
  TDL_GOES_ON, /* boot another one */
  TDL_SITS,    /* sleep until its parker is woken */
  TDL_ENDS,    /* the pool is STOPPED */
  TDL_LOST,    /* another one has its slot */
  TDL_DISMISSED
};
enum tdl_standing tdl_size_standing(struct tdl_worker *worker);

/* The worker; its state is about to serve. */
void tdl_size_serves(struct treadle_pool *pool);

/* supervisor; the worker was written off, and nobody takes its slot. */
void tdl_size_left_locked(struct tdl_worker *worker);

/* home. 1 when the thread was parked, and is to be joined; it was; the note
** `left` has been read. */
int tdl_size_dismiss(struct tdl_worker *worker);
void tdl_size_vacated(struct tdl_worker *worker);
void tdl_size_noted(struct tdl_worker *worker);

/* supervisor; what time asks for. */
void tdl_size_look_locked(struct treadle_pool *pool, uint64_t now);

#endif
