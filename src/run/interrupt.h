/* tdl_interrupt: ends what a thread runs in its Lua state, wherever that is.
** Threads: each function names its; the memory outlives the thread.
** Owns:    nothing: the thread and the state are the caller's.
** Fails:   TREADLE_ESYSTEM from setup. A request that cannot be obeyed yet does
**          nothing; the caller repeats it until the thread obeys.
**
** A request sends the thread a signal. Its handler, on that thread, leaves a
** hook in the state that raises an error at the next instruction, and at each
** after that, so that pcall does not help. Where no hook is looked at, it
** leaves the code by siglongjmp to tdl_interrupt_run: in code that LuaJIT has
** compiled, and in the interpreter inside finalizers and hooks.
**
** I1  Another thread reaches the state only while it is open, and only by the
**     signal. A request holds `state` while it sends, and close waits for that:
**     so the thread is there, and a request never counts for the next state.
**     A signal that comes late finds no request and does nothing.
** I2, I3, I5  Where code is left: interrupt_leave.h.
** I4  After TDL_INTERRUPTED the state may only be closed. Frames between
**     tdl_interrupt_run and Lua are gone without a trace, fn's too: what they
**     have to give back, the caller of tdl_interrupt_run gives back.
** I6  A look changes nothing (interrupt_stack.h, R1): it sets no hook, leaves
**     no code, and takes no request back. It has a signal of its own, after
**     which the kernel goes on with most calls that it cut short. Each of the two
**     handlers runs with both signals blocked: no look is left half done, and no
**     stack is read from within a handler.
** I7  What a look fills in is the asker's. The thread writes there only between
**     its two steps, ASKED to READING to ANSWERED or back to ASKED; the asker has
**     it back when it finds ANSWERED, or has moved ASKED to UNASKED.
** I8  Nobody's signals have a handler of ours before the first request or look of
**     the process. Which two of them are ours is settled then; the threads do not
**     block any that may be.
**
** What must be known of LuaJIT's insides for all that is found by watching a
** state (interrupt_layout.h); where something looks otherwise, only the hook
** acts, and tdl_interrupt_stops_compiled says so.
**
** While lua_close runs finalizers, no hook acts and none may be set: seal
** first, and let tdl_interrupt_run call lua_close. A finalizer without an end
** is left then, and tdl_heap_lose frees what memory it can. */
#ifndef TDL_RUN_INTERRUPT_H
#define TDL_RUN_INTERRUPT_H

#include <fenv.h>
#include <lua.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>

#include "../config.h"
#include "interrupt_stack.h"

/* What must be known of the processor is known for this one. Elsewhere only
** the hook acts: compiled code without an end is not stopped. */
#if defined(__x86_64__) && defined(__linux__) && !defined(__ILP32__)
#define TDL_INTERRUPT_LEAVES 1
#else
#define TDL_INTERRUPT_LEAVES 0
#endif

#define TDL_INTERRUPTED (-1000) /* no status; of tdl_interrupt_run alone */

/* All zero is a closed one. */
typedef struct tdl_interrupt {
  atomic_int state;     /* I1 */
  atomic_int requested; /* by any thread; taken back by the owner */
  atomic_int sent;      /* a signal is on its way */
  pthread_t thread;     /* while it is open */
  struct {
    atomic_int state; /* I7 */
    atomic_int sent;  /* its signal is on its way */
    tdl_stack *to;    /* the asker's */
  } look;
  /* the thread's own, and its handler's */
  lua_State *L;
  int (*is_meant)(const void *arg);
  const void *arg;
  sigjmp_buf base;
  fenv_t floats;      /* the kernel resets them for the handler */
  const void *limit;  /* frames of fn lie below */
  uint64_t sealed_ns; /* what the thread had used of a processor by then */
  volatile sig_atomic_t running, sealed;
  volatile sig_atomic_t struck;  /* a hook was set since it was opened */
  volatile sig_atomic_t ignored; /* signals since the hook last acted, or since
                                 ** it was sealed */
  volatile sig_atomic_t trapped; /* compiled code was about to go on */
  struct {
    void **place; /* on the stack, or NULL */
    void *to;     /* what was there */
  } traps[TDL_INTERRUPT_TRAPS];
} tdl_interrupt;

/* Any thread, before all else; does its work once: finds out what must be known
** of LuaJIT, and which signals are free (I8). */
int tdl_interrupt_setup(void);

/* 1 where code that does not look at hooks can be left. */
int tdl_interrupt_stops_compiled(void);

/* the thread; L is its main state. Unblocks the signal. The handler asks
** `is_meant`, which may be NULL, whether the request still holds: what it was
** for may have ended, and something else have begun. */
void tdl_interrupt_open(tdl_interrupt *i, lua_State *L,
                        int (*is_meant)(const void *arg), const void *arg);

/* the thread: nobody reaches L from here on; before L is closed, or after it
** was closed sealed. Waits for a request that is just being sent. */
void tdl_interrupt_close(tdl_interrupt *i);

/* the thread: fn(arg), or TDL_INTERRUPTED (I4). Not nested. An error that the
** hook raised comes out of Lua as any other, a string that ends in
** "interrupted"; scripts may replace it: ask tdl_interrupt_is_requested. */
int tdl_interrupt_run(tdl_interrupt *i, int (*fn)(void *), void *arg);

/* the thread: from here on L is left, but not touched; fn of the next run may
** close it. Takes a request back; later ones give its finalizers a tenth of a
** second at most (TDL_INTERRUPT_SEALED_NS). */
void tdl_interrupt_seal(tdl_interrupt *i);

/* the thread: takes back a request, which has not been obeyed yet, and the
** hook. 1 if there was one. */
int tdl_interrupt_withdraw(tdl_interrupt *i);

/* the thread, in a handler, too: what it has open, or NULL. */
tdl_interrupt *tdl_interrupt_here(void);

/* the thread, in a handler, too: what it has used of a processor. */
uint64_t tdl_interrupt_own_ns(void);

/* the thread: 1 when what runs, or ran before, has felt a request. */
static inline int tdl_interrupt_has_struck(const tdl_interrupt *i) {
  return i->struck;
}

/* any thread: C code that can end early asks this. */
int tdl_interrupt_is_requested(const tdl_interrupt *i);

/* any thread: one attempt. Repeat it every millisecond or so until the thread
** has obeyed. */
void tdl_interrupt_request(tdl_interrupt *i);

/* --- looks: any thread, one at a time --------------------------------------- */

/* 1 where stacks can be read. */
int tdl_interrupt_can_look(void);

/* What the thread is in now is to be written to `to`, which is the thread's until
** unask. One attempt; repeat `prompt` every tenth of a millisecond or so. */
void tdl_interrupt_ask(tdl_interrupt *i, tdl_stack *to);
void tdl_interrupt_prompt(tdl_interrupt *i);
int tdl_interrupt_has_answered(const tdl_interrupt *i);

/* The end of it: 1 when it has answered; 0 from then on. */
int tdl_interrupt_unask(tdl_interrupt *i);

/* Of the processors' time, so far; 0: not known at this moment. */
uint64_t tdl_interrupt_used_ns(tdl_interrupt *i);

/* Instead of these, while the thread stands still in the kernel: reads its stack
** from here. 1 when it is read; whether the thread has moved meanwhile is for
** the caller to find out. */
int tdl_interrupt_peek(tdl_interrupt *i, tdl_stack *to);

#endif
