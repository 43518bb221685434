#include "interrupt.h"

#include <errno.h>
#include <lauxlib.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>

#include "../config.h"
#include "../treadle.h"
#include "interrupt_layout.h"
#include "interrupt_leave.h"
#include "segments.h"

/* Why the handler may call lua_sethook wherever it finds the thread.
**
** lua_sethook sets some words, tells the recorder to give up, and rewrites the
** dispatch table (lj_dispatch_update). It allocates nothing and follows no
** pointer but the state's, so the allocator, the collector and the recorder
** may be anywhere. What it can spoil, and what can spoil it, is another write
** of the same words that the signal interrupted: debug.sethook, the end of a
** trace's recording, a hook's or a finalizer's flag. That one ends after the
** handler and may take our hook away, or half of it: then the dispatch table
** says one thing and the flags another, and LuaJIT, which rewrites the table
** only when it sees a change, leaves it so. Therefore each attempt takes the
** hook out before it puts it in, which rewrites the table from scratch: it is
** right after an attempt that interrupts none of these, and they take less
** than a microsecond. The handler itself is not interrupted by a second one:
** the signal is blocked in it. */

enum { CLOSED, OPEN, HELD };
enum { UNASKED, ASKED, READING, ANSWERED }; /* I7 */

static struct {
  pthread_once_t once, armed;
  int status, armed_status;
  sigset_t signals;        /* I8: two of these become the next two */
  int signal, look_signal; /* from the first request or look on */
  int leaves;              /* the layout was found */
  tdl_layout layout;
} process = {.once = PTHREAD_ONCE_INIT, .armed = PTHREAD_ONCE_INIT};

/* Of the thread that runs. initial-exec: a handler may read it. */
static _Thread_local tdl_interrupt *volatile current;

/* --- the hook ------------------------------------------------------------- */

static void hook(lua_State *L, lua_Debug *ar) {
  tdl_interrupt *i = current;
  (void)ar;
  if (i == NULL || !tdl_interrupt_is_requested(i)) {
    lua_sethook(L, NULL, 0, 0);
    return;
  }
  i->ignored = 0;
  if (!i->running) {
    return;
  }
  if (tdl_leave_only_ours(i, NULL)) {
    lua_pushliteral(L, "interrupted");
    lua_error(L); /* as LuaJIT's own command: no level is added by a hook */
  }
  /* I3: look again now and then, and with the next signal */
  lua_sethook(L, hook, LUA_MASKCALL | LUA_MASKCOUNT,
              TDL_INTERRUPT_FOREIGN_COUNT);
}

static void set_hook(lua_State *L) {
  lua_sethook(L, NULL, 0, 0); /* see above */
  lua_sethook(L, hook, LUA_MASKCALL | LUA_MASKCOUNT, 1);
}

/* --- the signal ----------------------------------------------------------- */

#if TDL_INTERRUPT_LEAVES

/* A sanitizer may call the handler later, and from elsewhere, with a copy of
** the context: then nothing of that holds any more. The kernel puts it on the
** stack. */
static int is_context_true(const ucontext_t *context) {
  uintptr_t stack = (uintptr_t)context->uc_mcontext.gregs[REG_RSP];
  return stack - (uintptr_t)context < TDL_INTERRUPT_CONTEXT_BYTES;
}

static int read_stack(const tdl_interrupt *i, const ucontext_t *context) {
  const greg_t *regs = context->uc_mcontext.gregs;
  tdl_registers at = {(uintptr_t)regs[REG_RIP], (uintptr_t)regs[REG_RDX],
                      (uintptr_t)regs[REG_RBX], (uintptr_t)regs[REG_R14]};
  return i->running && !i->sealed && is_context_true(context) &&
         tdl_stack_read(&process.layout, i->L, &at, i->look.to);
}

#else

static int is_context_true(const ucontext_t *context) {
  (void)context;
  return 0;
}

static int read_stack(const tdl_interrupt *i, const ucontext_t *context) {
  (void)i;
  (void)context;
  return 0;
}

#endif

static void on_signal(int signal, siginfo_t *info, void *context) {
  tdl_interrupt *i = current;
  int error = errno;
  (void)signal;
  (void)info;
  if (i != NULL) {
    /* [interrupt-sent] release: a signal may come from here on */
    atomic_store_explicit(&i->sent, 0, memory_order_release);
    if (tdl_interrupt_is_requested(i) &&
        (i->sealed || i->is_meant == NULL || i->is_meant(i->arg))) {
      int is_hooked = 0;
      i->struck = 1;
      if (!i->sealed) {
        is_hooked = lua_gethook(i->L) == hook;
        set_hook(i->L);
      }
      if (process.leaves && i->running && is_context_true(context)) {
        tdl_leave(i, context, is_hooked);
      }
    }
  }
  errno = error;
}

static void on_look(int signal, siginfo_t *info, void *context) {
  tdl_interrupt *i = current;
  int error = errno, asked = ASKED;
  (void)signal;
  (void)info;
  if (i != NULL) {
    /* [look-sent] release: a signal may come from here on */
    atomic_store_explicit(&i->look.sent, 0, memory_order_release);
    /* [look] acquire: what the asker has made ready */
    if (atomic_compare_exchange_strong_explicit(&i->look.state, &asked, READING,
                                                memory_order_acquire,
                                                memory_order_relaxed)) {
      int is_read = read_stack(i, context);
      /* [look] release: what was read; or nothing, at such a moment */
      atomic_store_explicit(&i->look.state, is_read ? ANSWERED : ASKED,
                            memory_order_release);
    }
  }
  errno = error;
}

static int is_unused(const struct sigaction *action) {
  return !(action->sa_flags & SA_SIGINFO) && action->sa_handler == SIG_DFL;
}

/* From SIGRTMAX - 1 down: SIGRTMAX is valgrind's, the lowest ones are taken by
** runtimes. Returns how many. */
static int choose_signals_but(const sigset_t *except) {
  int s = SIGRTMAX - TDL_INTERRUPT_SIGNAL_BELOW_MAX, n = 0;
  sigemptyset(&process.signals);
  for (; s >= SIGRTMIN && n < TDL_INTERRUPT_SIGNALS; s--) {
    struct sigaction now;
    if (sigismember(except, s) == 0 && sigaction(s, NULL, &now) == 0 &&
        is_unused(&now)) {
      sigaddset(&process.signals, s);
      n++;
    }
  }
  return n;
}

/* What this thread blocks somebody may wait for (sigwait, signalfd): to a worker
** that does not block it, it would be the process's end. A thread that blocks
** all of them says nothing. */
static int choose_signals(void) {
  sigset_t blocked, none;
  sigemptyset(&none);
  pthread_sigmask(SIG_SETMASK, NULL, &blocked);
  return choose_signals_but(&blocked) >= 2 || choose_signals_but(&none) >= 2
             ? 0
             : TREADLE_ESYSTEM;
}

/* The highest one below `s` that still nobody uses has that handler now; or 0.
** Somebody may take it between the look and the act, and gets it back. */
static int take_signal(int s, const struct sigaction *action) {
  while (--s >= SIGRTMIN) {
    struct sigaction old;
    if (sigismember(&process.signals, s) == 1 &&
        sigaction(s, NULL, &old) == 0 && is_unused(&old) &&
        sigaction(s, action, &old) == 0) {
      if (is_unused(&old)) {
        return s;
      }
      sigaction(s, &old, NULL);
    }
  }
  return 0;
}

/* I8. What sleeps in C ends early, with EINTR, by a request, but as far as the
** kernel can not by a look. */
static void arm(void) {
  struct sigaction action = {.sa_flags = SA_SIGINFO};
  action.sa_mask = process.signals; /* I6; siglongjmp restores none of it */
  action.sa_sigaction = on_signal;
  process.signal = take_signal(SIGRTMAX, &action);
  tdl_leave_use(process.signal);
  action.sa_sigaction = on_look;
  action.sa_flags |= SA_RESTART;
  process.look_signal =
      process.signal == 0 ? 0 : take_signal(process.signal, &action);
  process.armed_status = process.look_signal == 0 ? TREADLE_ESYSTEM : 0;
}

static int is_armed(void) {
  pthread_once(&process.armed, arm);
  return process.armed_status == 0;
}

static void set_up(void) {
  tdl_segments_refresh();
  process.leaves = tdl_layout_find(&process.layout);
  process.status = choose_signals();
  tdl_leave_setup(process.leaves ? &process.layout : NULL);
}

int tdl_interrupt_setup(void) {
  pthread_once(&process.once, set_up);
  return process.status;
}

int tdl_interrupt_stops_compiled(void) {
  return process.leaves;
}

/* --- the thread ----------------------------------------------------------- */

tdl_interrupt *tdl_interrupt_here(void) {
  return current;
}

static void mask(int how) {
  pthread_sigmask(how, &process.signals, NULL);
}

static void forget_request(tdl_interrupt *i) {
  i->ignored = 0;
  /* relaxed: for this thread's handler; later requests come after it */
  atomic_store_explicit(&i->requested, 0, memory_order_relaxed);
  atomic_signal_fence(memory_order_seq_cst); /* before the hook is touched */
}

void tdl_interrupt_open(tdl_interrupt *i, lua_State *L,
                        int (*is_meant)(const void *arg), const void *arg) {
  i->L = L;
  i->is_meant = is_meant;
  i->arg = arg;
  i->thread = pthread_self();
  i->running = i->sealed = i->struck = 0;
  forget_request(i);
  /* relaxed: published by `state` */
  atomic_store_explicit(&i->sent, 0, memory_order_relaxed);
  atomic_store_explicit(&i->look.sent, 0, memory_order_relaxed);
  current = i;
  mask(SIG_UNBLOCK); /* a signal that waits here finds no request (I1) */
  /* [interrupt-state] release: all of the above */
  atomic_store_explicit(&i->state, OPEN, memory_order_release);
}

void tdl_interrupt_close(tdl_interrupt *i) {
  int open = OPEN;
  /* [interrupt-state] acquire: after what the last request did */
  while (!atomic_compare_exchange_weak_explicit(
      &i->state, &open, CLOSED, memory_order_acquire, memory_order_relaxed)) {
    if (open == CLOSED) {
      return;
    }
    open = OPEN;
    sched_yield(); /* it sends a signal, no more */
  }
  mask(SIG_BLOCK);
  current = NULL;
  if (!i->sealed) {
    lua_sethook(i->L, NULL, 0, 0);
  }
  forget_request(i);
  i->L = NULL;
}

int tdl_interrupt_run(tdl_interrupt *i, int (*fn)(void *), void *arg) {
  int result;
  fegetenv(&i->floats);
  i->limit = __builtin_frame_address(0);
  if (sigsetjmp(i->base, 0) == 0) {
    memset(i->traps, 0, sizeof(i->traps));
    i->running = 1;
    atomic_signal_fence(memory_order_seq_cst); /* before fn */
    result = fn(arg);
    atomic_signal_fence(memory_order_seq_cst); /* after fn */
    i->running = 0;
    return result;
  }
  fesetenv(&i->floats);
  mask(SIG_UNBLOCK); /* as at the return from a handler */
  return TDL_INTERRUPTED;
}

uint64_t tdl_interrupt_own_ns(void) {
  struct timespec t = {0, 0};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); /* a handler may */
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void tdl_interrupt_seal(tdl_interrupt *i) {
  i->sealed_ns = tdl_interrupt_own_ns(); /* before the handler asks for it */
  atomic_signal_fence(memory_order_seq_cst);
  i->sealed = 1;
  (void)tdl_interrupt_withdraw(i);
}

int tdl_interrupt_withdraw(tdl_interrupt *i) {
  int was = tdl_interrupt_is_requested(i);
  forget_request(i);
  if (lua_gethook(i->L) == hook) { /* else it is the script's */
    lua_sethook(i->L, NULL, 0, 0);
  }
  return was;
}

/* --- any thread ----------------------------------------------------------- */

int tdl_interrupt_is_requested(const tdl_interrupt *i) {
  /* relaxed: it carries nothing */
  return atomic_load_explicit(&i->requested, memory_order_relaxed);
}

/* I1: 0 when it is closed, or held by another one for a moment. */
static int hold(tdl_interrupt *i) {
  int open = OPEN;
  /* [interrupt-state] acquire: the thread that opened it */
  return atomic_compare_exchange_strong_explicit(
      &i->state, &open, HELD, memory_order_acquire, memory_order_relaxed);
}

static void let_go(tdl_interrupt *i) {
  /* [interrupt-state] release: the signal is sent before the end (I1) */
  atomic_store_explicit(&i->state, OPEN, memory_order_release);
}

static void send_held(const tdl_interrupt *i, atomic_int *sent, int looks) {
  /* [interrupt-sent] [look-sent] acquire: the handler is done with the last one
  */
  if (is_armed() && !atomic_exchange_explicit(sent, 1, memory_order_acquire)) {
    if (!looks) { /* a look does not ask for them */
      tdl_segments_refresh();
    }
    if (pthread_kill(i->thread, looks ? process.look_signal : process.signal) !=
        0) {
      /* relaxed: no signal came of it */
      atomic_store_explicit(sent, 0, memory_order_relaxed);
    }
  }
}

void tdl_interrupt_request(tdl_interrupt *i) {
  if (hold(i)) {
    /* relaxed: the signal comes after it */
    atomic_store_explicit(&i->requested, 1, memory_order_relaxed);
    send_held(i, &i->sent, 0);
    let_go(i);
  }
}

/* --- looks ------------------------------------------------------------------ */

int tdl_interrupt_can_look(void) {
  return process.layout.reads;
}

void tdl_interrupt_ask(tdl_interrupt *i, tdl_stack *to) {
  i->look.to = to;
  /* [look] release: where to write it (I7) */
  atomic_store_explicit(&i->look.state, ASKED, memory_order_release);
  tdl_interrupt_prompt(i);
}

void tdl_interrupt_prompt(tdl_interrupt *i) {
  if (hold(i)) {
    send_held(i, &i->look.sent, 1);
    let_go(i);
  }
}

int tdl_interrupt_has_answered(const tdl_interrupt *i) {
  /* [look] acquire: what was read */
  return atomic_load_explicit(&i->look.state, memory_order_acquire) == ANSWERED;
}

int tdl_interrupt_unask(tdl_interrupt *i) {
  int state = ASKED;
  /* [look] acquire: as above; what READING writes takes microseconds */
  while (!atomic_compare_exchange_weak_explicit(&i->look.state, &state, UNASKED,
                                                memory_order_acquire,
                                                memory_order_acquire) &&
         state != ANSWERED && state != UNASKED) {
    state = ASKED;
    sched_yield();
  }
  /* relaxed: the asker's own (I7). One answer counts once */
  atomic_store_explicit(&i->look.state, UNASKED, memory_order_relaxed);
  return state == ANSWERED;
}

uint64_t tdl_interrupt_used_ns(tdl_interrupt *i) {
  struct timespec t = {0, 0};
  clockid_t clock;
  if (hold(i)) { /* so it has not ended */
    if (pthread_getcpuclockid(i->thread, &clock) == 0) {
      clock_gettime(clock, &t);
    }
    let_go(i);
  }
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int tdl_interrupt_peek(tdl_interrupt *i, tdl_stack *to) {
  int is_read = 0;
  if (hold(i)) {
    is_read = tdl_stack_read(&process.layout, i->L, NULL, to);
    let_go(i);
  }
  return is_read;
}
