#include "interrupt_leave.h"

#include <pthread.h>
#include <stdint.h>
#include <unwind.h>

#include "../config.h"
#include "segments.h"

/* Why compiled and interpreted code may be left, and what lua_close finds: it
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

static struct {
  const tdl_layout *layout; /* NULL: no code is left */
  int signal;               /* comes at once when a thread sends it to itself */
  int traps;
  const void *own;    /* a place in treadle's code */
  const void *luajit; /* one in LuaJIT's */
} known;

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

int tdl_leave_only_ours(const tdl_interrupt *i, const void *from) {
  walk w = {.from = from,
            .limit = i->limit,
            .own = tdl_segments_find(known.own),
            .luajit = tdl_segments_find(known.luajit)};
  if (w.own > 0 && w.luajit > 0) {
    _Unwind_Backtrace(on_frame, &w);
  }
  return w.is_ours;
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
  const tdl_layout *layout = known.layout;
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
  is_ours = tdl_leave_only_ours(i, (const void *)frame);
  regs[REG_RIP] = pc;
  regs[REG_RSP] = stack;
  return is_ours;
}

/* 1 when the thread is where it may be left (I2, I3, I5). */
static int may_leave(tdl_interrupt *i, greg_t *regs, int is_hooked) {
  const tdl_layout *layout = known.layout;
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
           tdl_leave_only_ours(i, (const void *)regs[REG_RSP]);
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

extern char tdl_leave_trap[];
extern void tdl_leave_trapped(void **place);
extern _Unwind_Reason_Code tdl_leave_thrown(int version, _Unwind_Action actions,
                                            _Unwind_Exception_Class class,
                                            struct _Unwind_Exception *exception,
                                            struct _Unwind_Context *context);

/* Returns to the word above its frame, which tdl_leave_trapped fills in;
** keeps what C returns (rax, xmm0, and their seconds). The nop is where the
** unwinder looks: in front of the return address. */
__asm__(".text\n"
        ".hidden tdl_leave_trap\n"
        ".hidden tdl_leave_trapped\n"
        ".hidden tdl_leave_thrown\n"
        ".type tdl_leave_trap, @function\n"
        "  .cfi_startproc\n"
        "  .cfi_personality 0x1b, tdl_leave_thrown\n"
        "  nop\n"
        "tdl_leave_trap:\n"
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
        "  call tdl_leave_trapped\n"
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
        ".size tdl_leave_trap, .-tdl_leave_trap\n");

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
__attribute__((visibility("hidden"))) void tdl_leave_trapped(void **place) {
  tdl_interrupt *i = tdl_interrupt_here();
  *place = take_trap(i, place);
  i->trapped = 1;
  pthread_kill(pthread_self(), known.signal); /* is handled at once */
  i->trapped = 0;
}

__attribute__((visibility("hidden"))) _Unwind_Reason_Code tdl_leave_thrown(
    int version, _Unwind_Action actions, _Unwind_Exception_Class class,
    struct _Unwind_Exception *exception, struct _Unwind_Context *context) {
  void **place = (void **)_Unwind_GetCFA(context) - 1;
  if (actions & _UA_SEARCH_PHASE) {
    return _URC_HANDLER_FOUND;
  }
  _Unwind_SetIP(context, (_Unwind_Ptr)take_trap(tdl_interrupt_here(), place));
  return known.layout->personality(version, actions, class, exception, context);
}

/* In this state's compiled code, behind a call. (valgrind's complaint about the
** use of words that nobody has written is suppressed, by this name.) */
__attribute__((noinline)) static int
is_return_address(const tdl_interrupt *i, const unsigned char *to) {
  const tdl_code_area *area =
      *(tdl_code_area **)word_of(i->L, known.layout->areas);
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
  void *running = *(void **)word_of(i->L, known.layout->current);
  uintptr_t frame =
      *(uintptr_t *)word_of(running, known.layout->cframe) & ~(uintptr_t)3;
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
        *place = tdl_leave_trap;
      }
      return;
    }
  }
}

static int is_in_compiled_call(const tdl_interrupt *i) {
  return known.traps && !i->sealed &&
         *(void **)word_of(i->L, known.layout->jit_base) != NULL;
}

/* With a shadow stack, return addresses cannot be diverted. */
static int has_shadow_stack(void) {
  uintptr_t shadow = 0;
  __asm__("rdsspq %0" : "+r"(shadow)); /* does nothing without one */
  return shadow != 0;
}

/* A thread that is seldom asked, or seldom finds a processor to be asked on, is
** not to take the longer for it. */
static int has_time_left(tdl_interrupt *i) {
  return ++i->ignored < TDL_INTERRUPT_SEALED_SIGNALS &&
         tdl_interrupt_own_ns() - i->sealed_ns < TDL_INTERRUPT_SEALED_NS;
}

void tdl_leave(tdl_interrupt *i, ucontext_t *context, int is_hooked) {
  greg_t *regs = context->uc_mcontext.gregs;
  if (i->sealed && has_time_left(i)) {
    return; /* finalizers have their time */
  }
  if (i->trapped ? only_ours_below_compiled(i, regs)
                 : may_leave(i, regs, is_hooked)) {
    *(void **)word_of(i->L, known.layout->jit_base) = NULL;
    i->running = i->trapped = 0;
    siglongjmp(i->base, 1);
  }
  if (!i->trapped && is_in_compiled_call(i) &&
      tdl_segments_find((const void *)regs[REG_RIP]) > 0) {
    set_trap(i, regs);
  }
}

#else

static int has_shadow_stack(void) {
  return 1;
}

void tdl_leave(tdl_interrupt *i, ucontext_t *context, int is_hooked) {
  (void)i;
  (void)context;
  (void)is_hooked;
}

#endif

/* --- once per process ----------------------------------------------------- */

void tdl_leave_use(int signal) {
  known.signal = signal;
}

void tdl_leave_setup(const tdl_layout *layout) {
  known.layout = layout;
  known.own = (const void *)(uintptr_t)tdl_leave_setup;
  known.luajit = (const void *)(uintptr_t)lua_sethook;
  known.traps =
      layout != NULL && layout->personality != NULL && !has_shadow_stack();
}
