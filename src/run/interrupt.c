#include "interrupt.h"

#include <errno.h>
#include <lauxlib.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>
#include <unwind.h>

#include "../config.h"
#include "../treadle.h"
#include "interrupt_layout.h"
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
** the signal is blocked in it.
**
** Why compiled and interpreted code may be left, and what lua_close finds: it
** resets the main state's stack pointers and C frames itself, turns the JIT
** off, and frees all objects by their lists, not by what they refer to;
** coroutines in the middle of whatever are objects like others. Stack slots and
** upvalues that compiled code has not brought up to date hold older values,
** which are alive, since the collector's atomic phase never runs below compiled
** code. Tables and strings are made and rehashed in C. Three things are not
** right everywhere, and are put right or waited for here:
** - jit_base: from it errors and full collections in finalizers conclude that
**   they run in compiled code. They would hang, and an FFI callback would end
**   the process. It is cleared.
** - A constant is stored in two halves, the one with the type first (I5).
** - A cdata that compiled code makes is in the collector's list before it says
**   what it is (tdl_layout_is_birth, I5).
** vmstate is set by whoever enters the interpreter; the hook's flags only keep
** hooks off, and lua_close wants that anyway. What remains: compiled code
** resets a string.buffer that borrows a string by several stores; lua_close is
** right after each of them, a finalizer that reads that very buffer is not.
**
** Whether C of others is below (I3): the Lua stack does not tell, since frames
** of other coroutines lie on the same C stack, and compiled code keeps none up
** to date; nor do the words of the C stack, of which many are old. The unwinder
** tells; LuaJIT's own errors rely on it as well. It takes a lock and may
** allocate, and where it is asked the thread holds none. In compiled code,
** whose frames it does not know, it begins in the interpreter's frame. */

enum { CLOSED, OPEN, HELD };
enum { UNASKED, ASKED, READING, ANSWERED }; /* I7 */

static struct {
  pthread_once_t once;
  int status;
  int signal, look_signal;
  int leaves, traps;
  const void *own;    /* a place in treadle's code */
  const void *luajit; /* one in LuaJIT's */
  tdl_layout layout;
} process = {.once = PTHREAD_ONCE_INIT};

/* Of the thread that runs. initial-exec: a handler may read it. */
static _Thread_local tdl_interrupt *volatile current;

/* --- whose frames lie on the C stack (I3) --------------------------------- */

typedef struct walk {
  const char *from, *limit; /* frames between these two places are looked at */
  int own, luajit;          /* segments */
  int is_ours;              /* reached the limit over ours alone */
} walk;

static _Unwind_Reason_Code on_frame(struct _Unwind_Context *context,
                                    void *arg) {
  walk *w = arg;
  const char *frame = (const char *)_Unwind_GetCFA(context);
  if (frame > w->limit) {
    w->is_ours = 1;
    return _URC_NORMAL_STOP;
  }
  if (frame >= w->from) {
    int segment = tdl_segments_find((const char *)_Unwind_GetIP(context) - 1);
    if (segment != w->own && segment != w->luajit) {
      return _URC_NORMAL_STOP;
    }
  }
  return _URC_NO_REASON;
}

/* Whether all frames from that place on the stack to the base are LuaJIT's or
** treadle's. Takes the unwinder's locks, so that the thread must hold none: it
** is in a hook, or where code may be left (I2). */
static int only_ours(const tdl_interrupt *i, const void *from) {
  walk w = {.from = from,
            .limit = i->limit,
            .own = tdl_segments_find(process.own),
            .luajit = tdl_segments_find(process.luajit)};
  if (w.own > 0 && w.luajit > 0) {
    _Unwind_Backtrace(on_frame, &w);
  }
  return w.is_ours;
}

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
  if (only_ours(i, NULL)) {
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

/* --- leaving -------------------------------------------------------------- */

#if TDL_INTERRUPT_LEAVES

static char *word_of(void *at, ptrdiff_t offset) {
  return (char *)at + offset;
}

/* The next instruction writes the second half of a constant value (I5):
** mov dword ptr, constant. LuaJIT writes the half with the type first. A
** store of another kind that looks the same only puts the end off. */
static int is_half_store(const unsigned char *code) {
  if ((*code & 0xf0) == 0x40) { /* REX */
    if (*code & 8) {
      return 0; /* 64 bits */
    }
    code++;
  }
  return code[0] == 0xc7 && (code[1] & 0xc0) != 0xc0;
}

/* Has the unwinder begin in the interpreter's frame, in which compiled code
** runs: it knows nothing of that. */
static int only_ours_below_compiled(const tdl_interrupt *i, greg_t *regs) {
  const tdl_layout *layout = &process.layout;
  greg_t pc = regs[REG_RIP], stack = regs[REG_RSP];
  void *running = *(void **)word_of(i->L, layout->current);
  uintptr_t frame =
      *(uintptr_t *)word_of(running, layout->cframe) & ~(uintptr_t)3;
  int is_ours;
  if (frame < (uintptr_t)stack || frame >= (uintptr_t)i->limit) {
    return 0;
  }
  regs[REG_RIP] = (greg_t)layout->vm_inside;
  regs[REG_RSP] = (greg_t)frame;
  is_ours = only_ours(i, (const void *)frame);
  regs[REG_RIP] = pc;
  regs[REG_RSP] = stack;
  return is_ours;
}

/* 1 when the thread is where it may be left (I2, I3, I5). */
static int may_leave(tdl_interrupt *i, greg_t *regs, int is_hooked) {
  const tdl_layout *layout = &process.layout;
  const char *pc = (const char *)regs[REG_RIP];
  char *L = (char *)i->L;
  if ((char *)regs[REG_R14] != L + layout->dispatch) {
    return 0; /* it is not this state's */
  }
  if (pc >= layout->vm && pc < layout->vm_end) {
    if (is_hooked) {
      i->ignored++;
    }
    return i->ignored >= TDL_INTERRUPT_IGNORED_SIGNALS &&
           only_ours(i, (const void *)regs[REG_RSP]);
  }
  return tdl_segments_find(pc) == 0 &&
         *(void **)word_of(L, layout->jit_base) != NULL &&
         !is_half_store((const unsigned char *)pc) &&
         !tdl_layout_is_birth((const unsigned char *)pc) &&
         only_ours_below_compiled(i, regs);
}

/* --- traps: compiled code that mostly runs in C --------------------------- */

/* A compiled loop that calls C by the FFI, or LuaJIT's own C, is hardly ever
** met outside of it. So the handler diverts the return address of the function
** that compiled code has called: when C is done, the thread arrives in `trap`
** below, at a place where code may be left, and sends itself a signal. If the
** handler does not leave (I3, or the request was taken back), the trap goes on
** to where it should have returned.
**
** The address is sought on the stack between the stack pointer and the
** interpreter's frame: a word that points behind a call in this state's
** compiled code. Old ones may lie there, too, in parts that nobody has written
** since, and nobody reads. Each signal diverts the uppermost that is left: the
** right one, or an old one above it.
**
** An error that C throws passes through the trap, whose personality routine
** hands it to that of the compiled code, as if it had come from there. */

extern char tdl_interrupt_trap[];
extern void tdl_interrupt_trapped(void **place);
extern _Unwind_Reason_Code tdl_interrupt_thrown(
    int version, _Unwind_Action actions, _Unwind_Exception_Class class,
    struct _Unwind_Exception *exception, struct _Unwind_Context *context);

/* Returns to the word above its frame, which tdl_interrupt_trapped fills in;
** keeps what C returns (rax, xmm0, and their seconds). The nop is where the
** unwinder looks: in front of the return address. */
__asm__(".text\n"
        ".hidden tdl_interrupt_trap\n"
        ".hidden tdl_interrupt_trapped\n"
        ".hidden tdl_interrupt_thrown\n"
        ".type tdl_interrupt_trap, @function\n"
        "  .cfi_startproc\n"
        "  .cfi_personality 0x1b, tdl_interrupt_thrown\n"
        "  nop\n"
        "tdl_interrupt_trap:\n"
        "  sub $8, %rsp\n"
        "  .cfi_adjust_cfa_offset 8\n"
        "  push %rax\n"
        "  .cfi_adjust_cfa_offset 8\n"
        "  push %rdx\n"
        "  .cfi_adjust_cfa_offset 8\n"
        "  sub $40, %rsp\n"
        "  .cfi_adjust_cfa_offset 40\n"
        "  movups %xmm0, (%rsp)\n"
        "  movups %xmm1, 16(%rsp)\n"
        "  lea 56(%rsp), %rdi\n"
        "  call tdl_interrupt_trapped\n"
        "  movups (%rsp), %xmm0\n"
        "  movups 16(%rsp), %xmm1\n"
        "  add $40, %rsp\n"
        "  .cfi_adjust_cfa_offset -40\n"
        "  pop %rdx\n"
        "  .cfi_adjust_cfa_offset -8\n"
        "  pop %rax\n"
        "  .cfi_adjust_cfa_offset -8\n"
        "  ret\n"
        "  .cfi_endproc\n"
        ".size tdl_interrupt_trap, .-tdl_interrupt_trap\n");

static int trap_at(const tdl_interrupt *i, void **place) {
  int n = 0;
  while (n < TDL_INTERRUPT_TRAPS && i->traps[n].place != place) {
    n++;
  }
  return n;
}

/* What the trap in that place on the stack stands for; it is gone then. */
static void *take_trap(tdl_interrupt *i, void **place) {
  int n = trap_at(i, place);
  i->traps[n].place = NULL;
  return i->traps[n].to;
}

/* Called by the trap: compiled code is about to go on, the thread holds
** nothing. */
__attribute__((visibility("hidden"))) void tdl_interrupt_trapped(void **place) {
  tdl_interrupt *i = current;
  *place = take_trap(i, place);
  i->trapped = 1;
  pthread_kill(pthread_self(), process.signal); /* is handled at once */
  i->trapped = 0;
}

__attribute__((visibility("hidden"))) _Unwind_Reason_Code tdl_interrupt_thrown(
    int version, _Unwind_Action actions, _Unwind_Exception_Class class,
    struct _Unwind_Exception *exception, struct _Unwind_Context *context) {
  void **place = (void **)_Unwind_GetCFA(context) - 1;
  if (actions & _UA_SEARCH_PHASE) {
    return _URC_HANDLER_FOUND;
  }
  _Unwind_SetIP(context, (_Unwind_Ptr)take_trap(current, place));
  return process.layout.personality(version, actions, class, exception,
                                    context);
}

/* In this state's compiled code, behind a call. (valgrind's complaint about the
** use of words that nobody has written is suppressed, by this name.) */
__attribute__((noinline)) static int
is_return_address(const tdl_interrupt *i, const unsigned char *to) {
  const tdl_code_area *area =
      *(tdl_code_area **)word_of(i->L, process.layout.areas);
  for (; area != NULL; area = area->next) {
    const unsigned char *first = (const unsigned char *)(area + 1);
    if (to >= first + 8 && to < (const unsigned char *)area + area->size) {
      return (to[-5] == 0xe8 || (to[-2] == 0xff && (to[-1] & 0xf8) == 0xd0)) &&
             !tdl_layout_is_birth(to);
    }
  }
  return 0;
}

/* The frames that the unwinder and the sanitizers know of are not asked. */
__attribute__((no_sanitize("address", "thread"))) static void
set_trap(tdl_interrupt *i, const greg_t *regs) {
  void *running = *(void **)word_of(i->L, process.layout.current);
  uintptr_t frame =
      *(uintptr_t *)word_of(running, process.layout.cframe) & ~(uintptr_t)3;
  uintptr_t stack = (uintptr_t)regs[REG_RSP];
  if (frame >= (uintptr_t)i->limit) {
    return;
  }
  /* calls are made with the stack pointer at a multiple of 16 */
  for (uintptr_t at = frame - 8; at >= stack && at < frame; at -= 16) {
    void **place = (void **)at;
    if (is_return_address(i, *place)) {
      int n = trap_at(i, place); /* an old one that was written over */
      n = n < TDL_INTERRUPT_TRAPS ? n : trap_at(i, NULL);
      if (n < TDL_INTERRUPT_TRAPS) {
        i->traps[n].to = *place;
        i->traps[n].place = place;
        *place = tdl_interrupt_trap;
      }
      return;
    }
  }
}

static int is_in_compiled_call(const tdl_interrupt *i) {
  return process.traps && !i->sealed &&
         *(void **)word_of(i->L, process.layout.jit_base) != NULL;
}

/* With a shadow stack, return addresses cannot be diverted. */
static int has_shadow_stack(void) {
  uintptr_t shadow = 0;
  __asm__("rdsspq %0" : "+r"(shadow)); /* does nothing without one */
  return shadow != 0;
}

/* A sanitizer may call the handler later, and from elsewhere, with a copy of
** the context: then nothing of that holds any more. The kernel puts it on the
** stack. */
static int is_context_true(const ucontext_t *context) {
  uintptr_t stack = (uintptr_t)context->uc_mcontext.gregs[REG_RSP];
  return stack - (uintptr_t)context < TDL_INTERRUPT_CONTEXT_BYTES;
}

static void leave(tdl_interrupt *i, ucontext_t *context, int is_hooked) {
  greg_t *regs = context->uc_mcontext.gregs;
  if (!process.leaves || !i->running || !is_context_true(context)) {
    return;
  }
  if (i->sealed && ++i->ignored < TDL_INTERRUPT_SEALED_SIGNALS) {
    return; /* finalizers have their time */
  }
  if (i->trapped ? only_ours_below_compiled(i, regs)
                 : may_leave(i, regs, is_hooked)) {
    *(void **)word_of(i->L, process.layout.jit_base) = NULL;
    i->running = i->trapped = 0;
    siglongjmp(i->base, 1);
  }
  if (!i->trapped && is_in_compiled_call(i) &&
      tdl_segments_find((const void *)regs[REG_RIP]) > 0) {
    set_trap(i, regs);
  }
}

#else

#define has_shadow_stack() 1

static void leave(tdl_interrupt *i, ucontext_t *context, int is_hooked) {
  (void)i;
  (void)context;
  (void)is_hooked;
}

#endif

/* --- the signal ----------------------------------------------------------- */

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
      leave(i, context, is_hooked);
    }
  }
  errno = error;
}

#if TDL_INTERRUPT_LEAVES

static int read_stack(const tdl_interrupt *i, const ucontext_t *context) {
  const greg_t *regs = context->uc_mcontext.gregs;
  tdl_registers at = {(uintptr_t)regs[REG_RIP], (uintptr_t)regs[REG_RDX],
                      (uintptr_t)regs[REG_RBX], (uintptr_t)regs[REG_R14]};
  return i->running && !i->sealed && is_context_true(context) &&
         tdl_stack_read(&process.layout, i->L, &at, i->look.to);
}

#else

static int read_stack(const tdl_interrupt *i, const ucontext_t *context) {
  (void)i;
  (void)context;
  return 0;
}

#endif

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

/* The next lower one that nobody uses, or 0. */
static int next_signal(int s) {
  struct sigaction old;
  while (--s >= SIGRTMIN) {
    if (sigaction(s, NULL, &old) == 0 && !(old.sa_flags & SA_SIGINFO) &&
        old.sa_handler == SIG_DFL) {
      return s;
    }
  }
  return 0;
}

/* What sleeps in C ends early, with EINTR, by a request, but as far as the kernel
** can not by a look. From SIGRTMAX - 1 down: SIGRTMAX is valgrind's, the lowest
** ones are taken by runtimes. */
static int take_signals(void) {
  struct sigaction action = {.sa_flags = SA_SIGINFO};
  process.signal = next_signal(SIGRTMAX - TDL_INTERRUPT_SIGNAL_BELOW_MAX + 1);
  process.look_signal = next_signal(process.signal);
  if (process.look_signal == 0) {
    return TREADLE_ESYSTEM;
  }
  sigemptyset(&action.sa_mask); /* I6; siglongjmp restores none of it */
  sigaddset(&action.sa_mask, process.signal);
  sigaddset(&action.sa_mask, process.look_signal);
  action.sa_sigaction = on_signal;
  if (sigaction(process.signal, &action, NULL) != 0) {
    return TREADLE_ESYSTEM;
  }
  action.sa_sigaction = on_look;
  action.sa_flags |= SA_RESTART;
  return sigaction(process.look_signal, &action, NULL) == 0 ? 0
                                                            : TREADLE_ESYSTEM;
}

static void set_up(void) {
  process.own = (const void *)(uintptr_t)on_signal;
  process.luajit = (const void *)(uintptr_t)lua_sethook;
  tdl_segments_refresh();
  process.leaves = tdl_layout_find(&process.layout);
  process.traps = process.leaves && process.layout.personality != NULL &&
                  !has_shadow_stack();
  process.status = take_signals();
}

int tdl_interrupt_setup(void) {
  pthread_once(&process.once, set_up);
  return process.status;
}

int tdl_interrupt_stops_compiled(void) {
  return process.leaves;
}

/* --- the thread ----------------------------------------------------------- */

static void mask(int how) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, process.signal);
  sigaddset(&set, process.look_signal);
  pthread_sigmask(how, &set, NULL);
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

void tdl_interrupt_seal(tdl_interrupt *i) {
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

static void send_held(const tdl_interrupt *i, atomic_int *sent, int signal) {
  /* [interrupt-sent] [look-sent] acquire: the handler is done with the last one
  */
  if (!atomic_exchange_explicit(sent, 1, memory_order_acquire)) {
    if (signal == process.signal) { /* a look does not ask for them */
      tdl_segments_refresh();
    }
    if (pthread_kill(i->thread, signal) != 0) {
      /* relaxed: no signal came of it */
      atomic_store_explicit(sent, 0, memory_order_relaxed);
    }
  }
}

void tdl_interrupt_request(tdl_interrupt *i) {
  if (hold(i)) {
    /* relaxed: the signal comes after it */
    atomic_store_explicit(&i->requested, 1, memory_order_relaxed);
    send_held(i, &i->sent, process.signal);
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
    send_held(i, &i->look.sent, process.look_signal);
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
