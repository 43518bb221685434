/* tdl_vm: the Lua state of a worker, and the jobs that are in progress in it.
** Threads: the worker's; the supervisor looks under the worker's lock.
** Owns:    the state; the jobs in progress, from tdl_vm_run to send_home.
** Fails:   a job's failure goes into the job. Making it, and its end: state.h.
**
** V1  Everything runs under the lua_pcall of tdl_vm_enter. What escapes there
**     (out of memory) fails the job that was being started; or, out of the
**     scheduler, all that wait, since any of them may have lost what it waits
**     for. The worker goes on.
** V2  A job that yields becomes an entry that waits; the Lua scheduler
**     (lua/treadle/loop.lua) resumes it and reports its end with
**     tdl_vm_finish. A finished coroutine serves the next job.
** V3, V4  The calls that jobs make: vm_calls.h.
** V5  Lua may know an entry for longer than those, by its serial number: for
**     the coroutines that its job spawned. If there are such, a job that ends
**     settled stays until the scheduler has been told. */
#ifndef TDL_VM_H
#define TDL_VM_H

#include <lua.h>

#include "../codec/codec.h"
#include "heap.h"
#include "worker.h"

typedef struct tdl_entry {
  tdl_job *job;    /* NULL once it is sent home */
  tdl_job *held;   /* the same, if it waits; under the worker's lock */
  lua_State *co;   /* NULL unless it waits */
  uint32_t calls;  /* calls on the own pool that are under way, and waits for
                  ** such calls of others (V3) */
  uint32_t others; /* calls on other pools that are under way (V4) */
  uint32_t next_free;
  uint64_t began_ns; /* if the job is stamped, else 0 */
  uint8_t used;
  uint8_t cancelled; /* its waits were told to end */
  uint8_t childless; /* all calls that it made are cancelled (V4) */
  uint8_t known;     /* V5 */
  uint8_t ended;     /* V5: with job->status, and stays */
  uint8_t waits;     /* that was recorded (trace.h) */
  uint64_t serial;   /* never another entry's; V5 */
  uint64_t heard_ns; /* when its start was told to who watches, or 0 */
} tdl_entry;

typedef struct tdl_vm {
  lua_State *L;
  tdl_heap heap;
  tdl_worker *worker;
  lua_State *co; /* for the next job; anchored by co_ref */
  int co_ref;
  int *tasks; /* registry references, by task number */
  uint32_t task_count;
  tdl_entry *entries; /* numbered from 1; 0 is none */
  uint32_t entry_count, free_entry;
  uint32_t current;  /* the entry whose code runs now, or 0 */
  uint32_t starting; /* the entry in tdl_vm_run, or 0 */
  uint64_t piece_ns; /* when the code of `current` took over, if it is
                     ** recorded, or 0 */
  uint32_t progress; /* entries with a job */
  uint64_t serials;  /* given to entries */
  uint32_t exempt;   /* of these, the ones that V3 does not count */
  int starved;       /* memory has run out in this state */
  int strays;        /* a job may have ended before calls that it reads */
  int left;          /* interrupted (interrupt.h): good for lua_close alone */
  int retiring;      /* it ends when its jobs have */
  int leaving;       /* the same, while its worker's slot is shut */
  uint64_t ended;    /* jobs */
  int turn;          /* the Lua scheduler has something to do */
  int turn_ref;      /* its function, or LUA_NOREF */
  int wait_ref;      /* how to wait if the script has a loop of its own */
  int cancel_ref;    /* its function (entry, serial, reason): ends waits */
  int fail_ref;      /* function (entry, error, coroutine) of the boot module */
  int teardown_ref;  /* function to call before the end, or LUA_NOREF */
  int leave_ref;     /* the same while the pool drains: see tdl_vm_leave */
  int is_told;       /* that it drains */
  int fibers_ref;    /* table: coroutine -> entry */
  void *bind;        /* the binding layer's */
#ifdef TDL_TEST_ALLOC
  lua_Alloc allocate; /* the state's own allocator */
  void *allocate_ud;
#endif
} tdl_vm;

/* Calls fn(vm) with V1's protection: 0, or TREADLE_ENOMEM after an error, from
** which recover makes the state fit to go on. */
int tdl_vm_enter(tdl_vm *vm, void (*fn)(tdl_vm *vm));
void tdl_vm_recover(tdl_vm *vm);

/* It takes no more jobs than those in progress need (V3). Retired: they have
** ended. */
void tdl_vm_retire(tdl_vm *vm);
static inline int tdl_vm_is_retired(const tdl_vm *vm) {
  return vm->retiring && vm->progress == 0;
}

/* Runs the job, or as much of it as goes without waiting. Takes the job. */
void tdl_vm_run(tdl_vm *vm, tdl_job *job);

/* Whose code runs from now on: an entry, or 0. */
void tdl_vm_set_current(tdl_vm *vm, uint32_t entry);

/* Lets the Lua scheduler run what is ready. */
void tdl_vm_turn(tdl_vm *vm);

/* 1 when the concurrency lets another job start. */
static inline int tdl_vm_has_room(const tdl_vm *vm) {
  return vm->progress - vm->exempt < vm->worker->pool->concurrency &&
         (!vm->retiring || vm->exempt > 0);
}

/* Waits in the script's own loop (luv): 0 when it has none. */
int tdl_vm_wait(tdl_vm *vm);

/* The pool drains. Its boot module may have a function leave(quiet): called when
** the worker hears of it, and whenever it has nothing left to do (quiet), until
** that returns true: 1 when the worker may rest (P5). */
int tdl_vm_leave(tdl_vm *vm, int quiet);

/* Who gets the results of the job: a caller in this process, or in another. */
tdl_target tdl_vm_target(const tdl_vm *vm, const tdl_job *job);

/* The end of an entry's job, with the n results on top of L; or with a status
** and the encoded report of the error that is in job->bytes already. */
void tdl_vm_finish(tdl_vm *vm, uint32_t entry, lua_State *L, int n);
void tdl_vm_fail(tdl_vm *vm, uint32_t entry, int status);

/* The entry of that number if its job is in progress, or NULL. */
tdl_entry *tdl_vm_entry(const tdl_vm *vm, uint32_t entry);

/* Why nobody waits for the results of the entry's job, which is in progress: it
** was settled, or its pool is stopped. NULL: somebody may. */
const char *tdl_vm_given_up(const tdl_vm *vm, const tdl_entry *entry);

/* What the jobs of a state come home with that was stopped: errors and results
** may be the interrupt's, also those of others. The one that exceeded the cap is
** the one that runs. */
int tdl_vm_verdict(const tdl_vm *vm, const tdl_job *job);

/* What the state occupies now; a full collection. */
uint64_t tdl_vm_heap_bytes(const tdl_vm *vm);
void tdl_vm_collect(tdl_vm *vm);

/* For jobs that were settled meanwhile: cancels the calls that they made (V4), and
** ends their waits. */
void tdl_vm_cancel(tdl_vm *vm);

/* Ends the waits of jobs in progress, since their pool is stopped, and lets them go
** on once: to clean up. */
void tdl_vm_take_leave(tdl_vm *vm);

/* Fails whatever is still in progress, because the state ends. */
void tdl_vm_abort_all(tdl_vm *vm);

/* Provided by the binding layer, so that no include runs upwards: fills the
** state's package.preload; delivers the inbox with `L` for the results; gives the
** state its pool's debug hook. */
void tdl_bind_worker(lua_State *L, tdl_vm *vm);
void tdl_bind_lose(tdl_vm *vm); /* the state is lost */
uint32_t tdl_bind_dispatch(tdl_vm *vm);
void tdl_bind_take_hook(tdl_vm *vm);
void tdl_bind_sent_results(tdl_vm *vm, const tdl_bytes *bytes);
int tdl_bind_is_stray(const tdl_job *job, int *is_read);

#endif
