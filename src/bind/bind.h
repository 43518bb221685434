/* bind: what the binding keeps for one Lua state.
** Threads: the state's own.
** Owns:    in a host the loop; in a worker it borrows the vm's.
** Fails:   functions of this layer raise Lua errors at the user.
**
** A future is a Lua table with these fields in its array part; C and
** lua/treadle/future.lua know them, nobody else.
** B1  futures[slot] is the future of the job with that number from submit
**     until it is settled; who finds another table there is too late: that of
**     the next call, or the one that hears of the end of a cancelled job (J6).
** B2  A job that is taken and not submitted counts nowhere. Where a memory
**     error leaves in between, the record is idle until the state ends; after
**     the submission nothing may raise.
** B4  A future is made with room for all these fields. So to settle it and to
**     tell its waiter needs no memory but for its value.
** B5  What is still on its way home when its pool is over was refused there.
**     Its future keeps the pool's record, which knows why, in VALUE. */
#ifndef TDL_BIND_H
#define TDL_BIND_H

#include <lauxlib.h>
#include <lua.h>

#include "../codec/payload.h"
#include "../run/vm.h"

enum tdl_future_field {
  TDL_F_STATE = 1, /* enum tdl_future_state */
  TDL_F_VALUE,     /* first result, or all in a list if COUNT is there; B5 */
  TDL_F_COUNT,     /* how many results; nil: one */
  TDL_F_WAITER,    /* whom to tell: see future.lua */
  TDL_F_SLOT,      /* > 0 a job's number, < 0 a timer's */
  TDL_F_OWN,       /* true: its job is a call on the worker's own pool */
  TDL_F_NEXT,      /* in the list of the ready ones; true: the last (B4) */
  TDL_F_LAST = TDL_F_NEXT,
  TDL_F_STREAM = TDL_F_LAST + 5 /* few have it: what stream.lua says */
};

enum tdl_future_state {
  TDL_PENDING = 0,
  TDL_RESOLVED,
  TDL_REJECTED,
  TDL_CANCELLED
};

/* A pool as one state knows it.
** B3  A host's handle is in `pools` until the pool's last thread has ended,
**     also after the Lua side has forgotten it: calls under way still settle.
*/
typedef struct tdl_handle {
  treadle_pool *pool;
  struct tdl_bind *bind;
  struct tdl_box *box; /* the userdata; NULL once it is collected */
  struct tdl_handle *next;
  int number;     /* of its Lua record in the table `records`; 0: none */
  tdl_bytes boot; /* while the pool is opened */
} tdl_handle;

/* The userdata of a handle.
** B6  From the time it has stats until its finalizer has run it is in `boxes`:
**     a state that is lost runs no finalizers. */
typedef struct tdl_box {
  tdl_handle *handle; /* first; NULL when its pool is over */
  tdl_stats *stats;   /* a reference: they stay; NULL before there are any */
  struct tdl_box *next, **at;
} tdl_box;

/* A timer of the script's; its future is timers[number]. */
typedef struct tdl_timer_slot {
  tdl_timer *timer;
  uint32_t next_free;
} tdl_timer_slot;

/* A job that this host runs itself. */
typedef struct tdl_guest {
  tdl_job *job;   /* NULL once it is sent home */
  uint32_t waits; /* for calls on its own pool (V3) */
  uint32_t next_free;
  uint64_t serial; /* of this use of the number */
} tdl_guest;

/* Where a call goes: the worker in that slot, or one of these. */
enum tdl_place {
  TDL_AT_ANY = 0, /* the run queue */
  TDL_AT_ANY_HIGH = -1,
  TDL_AT_ANY_LOW = -2,
  TDL_AT_HOME = -3 /* here and now: a guest */
};

typedef struct tdl_bind {
  lua_State *L; /* the coroutine that runs now, as far as C needs it */
  treadle_loop *loop;
  tdl_vm *vm;        /* NULL in a host */
  tdl_handle *pools; /* B3 */
  tdl_box *boxes;    /* B6 */
  int pool_count;    /* ever opened */
  int futures_ref, ready_ref, timers_ref, records_ref;
  int meta_ref;    /* the metatable of futures */
  int hooks_ref;   /* the table given to core.setup */
  int require_ref; /* Lua's require; 0 before the module is loaded */
  int globals_ref; /* of our modules, in a confined state; 0: the script's */
  uint32_t ready;  /* futures in the ready list */
  uint32_t timer_count, free_timer;
  tdl_timer_slot *timers;
  tdl_guest *guests; /* numbered from 1 */
  uint32_t guest_count, free_guest;
  uint64_t guest_serials;
  struct tdl_ref *refs;         /* share.h: counted things, */
  struct tdl_bound_wait *waits; /* and waits for them */
  int refs_ref, kinds_ref, waits_ref;
  size_t weight, weight_limit;   /* of shared memory, see refs.c */
  struct tdl_channels *channels; /* channel.c: NULL until it is used */
  int closing;        /* the state is being closed: no Lua any more */
  int tells_call;     /* the next call is told to hooks.called: once */
  lua_State *lasting; /* a thread that lives as long; to ask for hooks */
} tdl_bind;

/* The state's tdl_bind; makes it (and a host's loop) at the first call. */
tdl_bind *tdl_bind_of(lua_State *L);

/* The same in a state in which nobody may have required the module yet. */
tdl_bind *tdl_bind_open(lua_State *L);

/* For functions that compiled code calls: not now. It does not look at hooks (a
** debugger's, or Ctrl-C's), calls of the Lua C API do; and when the state is
** being closed, those say so. */
static inline int tdl_bind_is_barred(const tdl_bind *b) {
  return lua_gethookmask(b->lasting) != 0 || b->closing;
}

/* Sets a field of the table on top of the stack. */
static inline void tdl_bind_set_number(lua_State *L, const char *name,
                                       double value) {
  lua_pushnumber(L, value);
  lua_setfield(L, -2, name);
}

/* Pushes hooks[name]. */
void tdl_bind_hook(tdl_bind *b, lua_State *L, const char *name);

/* Pushes a pending future; for futures[slot] or timers[slot]. */
void tdl_bind_push_future(tdl_bind *b, lua_State *L);
void tdl_bind_future(tdl_bind *b, lua_State *L, int slot, int own);

/* Gives the values on top of the stack to the future at index `future` and
** tells its waiter. */
void tdl_bind_resolve(tdl_bind *b, lua_State *L, int future, int n);

/* A job for a call of this state's, or NULL without memory (B2). */
tdl_job *tdl_bind_take_job(tdl_bind *b);

/* A call's budget is at most what is left of its maker's. */
void tdl_bind_inherit(tdl_job *job, const tdl_job *maker);

/* What a job's `done` is: settles futures[slot]. ctx is the tdl_bind. */
void tdl_bind_done(tdl_job *job, int status, const tdl_bytes *bytes, void *ctx);

/* Guests (guests.c). A number for one, 0 without memory; not used after all; its
** end. */
uint32_t tdl_bind_new_guest(tdl_bind *b);
void tdl_bind_free_guest(tdl_bind *b, uint32_t guest);
void tdl_bind_end_guest(tdl_bind *b, uint32_t guest, int status);

/* A call that the guest whose code runs, if one does, is about to make: it has at
** most that one's time, and is cancelled with it. */
void tdl_bind_guest_calls(tdl_bind *b, tdl_job *job);

/* The job behind a number, NULL when it is none. */
tdl_job *tdl_bind_guest(const tdl_bind *b, uint32_t guest);

/* Each adds its functions to the table on top of the stack. */
void tdl_bind_calls(lua_State *L);
void tdl_bind_pools(lua_State *L);
void tdl_bind_loads(lua_State *L);
void tdl_bind_loops(lua_State *L);
void tdl_bind_jobs(lua_State *L);
void tdl_bind_stats(lua_State *L);
void tdl_bind_signals(lua_State *L);
void tdl_bind_guests(lua_State *L);
void tdl_bind_looks(lua_State *L);
void tdl_bind_parent(lua_State *L); /* when it is used */
void tdl_bind_stamps(lua_State *L); /* if the build has them */
void tdl_bind_trace(lua_State *L);
void tdl_bind_board(lua_State *L);
void tdl_bind_debug(lua_State *L);
void tdl_bind_confine(lua_State *L); /* when it is used */

/* The field `policy` of the table at that index, which lives as long as that; to
** be taken from there. NULL: none (confine.c). */
struct tdl_policy **tdl_bind_policy(lua_State *L, int index);

/* Ends all pools that a state made and is being closed with; blocks for a
** moment. */
void tdl_bind_close_pools(tdl_bind *b);

/* The same for handles that are not finalized (B6). */
void tdl_bind_lose_handles(tdl_bind *b);

/* The handle in the userdata there, NULL when its pool is over; raises when
** it is something else. */
tdl_handle *tdl_bind_check_handle(lua_State *L, int index);

/* Who gets the arguments of the pool's calls, and from whom the results are. */
static inline tdl_target tdl_bind_target(const treadle_pool *pool) {
  return TDL_UNLIKELY(pool->plan != NULL || pool->far != NULL) ? TDL_TO_PROCESS
                                                               : TDL_TO_STATE;
}

/* What is told of the pool of the handle in the userdata there. */
tdl_stats *tdl_bind_check_stats(lua_State *L, int index);

/* Pushes what is told of a pool, as a table (stats.c). */
void tdl_bind_push_stats(lua_State *L, const tdl_stats *stats);

/* Pushes what the pool's workers run now, as a list (looks.c); NULL: nothing. */
void tdl_bind_push_running(lua_State *L, const treadle_pool *pool);

/* The same; NULL also when it is something else. */
tdl_handle *tdl_bind_handle_at(lua_State *L, int index);

/* Pushes the handle's Lua record, or nil. */
void tdl_bind_record(tdl_handle *h, lua_State *L);

#endif
