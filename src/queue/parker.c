#include "parker.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "../base/clock.h"
#include "../base/compiler.h"
#include "../base/stall.h"
#include "../config.h"

void tdl_parker_init(tdl_parker *p) {
  atomic_init(&p->state, TDL_AWAKE);
  p->bell = NULL;
  p->arg = NULL;
  p->rouse = NULL;
  p->sleeper = NULL;
}

void tdl_parker_announce(tdl_parker *p, enum tdl_parker_state how) {
  /* <parker.A1> [park] seq_cst: before the owner's second look at its queues
  */
  atomic_store_explicit(&p->state, how, memory_order_seq_cst);
  TDL_STALL();
}

void tdl_parker_awake(tdl_parker *p) {
  /* <parker.A3> relaxed: a sender that still sees the old state rings once in
  ** vain */
  atomic_store_explicit(&p->state, TDL_AWAKE, memory_order_relaxed);
}

void tdl_parker_sleep(tdl_parker *p, uint64_t ns) {
  /* TDL_NEVER is 584 years here, and no null pointer: without a time the kernel
  ** goes on with the sleep after a handler that is set with SA_RESTART, as
  ** luajit's for Ctrl-C is */
  struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
  /* <parker.S1> relaxed: the futex <parker.S2> compares again in the kernel */
  while (atomic_load_explicit(&p->state, memory_order_relaxed) == TDL_ASLEEP) {
    TDL_STALL();
    if (syscall(SYS_futex, &p->state, FUTEX_WAIT_PRIVATE, TDL_ASLEEP, &t, NULL,
                0) != 0 &&
        errno != EAGAIN) {
      break; /* time, or a signal */
    }
  }
  TDL_STALL();
  tdl_parker_awake(p);
}

uint32_t tdl_parker_most_words(void) {
  static atomic_int known; /* 1: none, 2: TDL_PARKER_WORDS */
  /* relaxed: every thread finds the same */
  int found = atomic_load_explicit(&known, memory_order_relaxed);
  if (found == 0) {
    syscall(SYS_futex_waitv, NULL, 0, 0, NULL, CLOCK_MONOTONIC);
    found = errno == EINVAL ? 2 : 1;
    atomic_store_explicit(&known, found, memory_order_relaxed); /* as above */
  }
  return found == 2 ? TDL_PARKER_WORDS : 0;
}

void tdl_parker_sleep_beside(tdl_parker *p, uint64_t ns,
                             const tdl_parker_word *words, uint32_t count) {
  struct futex_waitv on[TDL_PARKER_WORDS + 1] = {
      {.val = TDL_ASLEEP,
       .uaddr = (uintptr_t)&p->state,
       .flags = FUTEX_32 | FUTEX_PRIVATE_FLAG}};
  /* a handler that is set with SA_RESTART does not end this sleep */
  uint64_t end =
      tdl_now_ns() + (ns < TDL_PARKER_SLICE_NS ? ns : TDL_PARKER_SLICE_NS);
  struct timespec t = {(time_t)(end / 1000000000u), (long)(end % 1000000000u)};
  for (uint32_t i = 0; i < count; i++) {
    on[i + 1] = (struct futex_waitv){.val = words[i].value,
                                     .uaddr = (uintptr_t)words[i].at,
                                     .flags = FUTEX_32};
  }
  TDL_STALL();
  syscall(SYS_futex_waitv, on, count + 1, 0, &t, CLOCK_MONOTONIC);
  TDL_STALL();
  tdl_parker_awake(p);
}

void tdl_parker_wake(tdl_parker *p) {
  uint32_t how;
  TDL_STALL();
  /* <parker.W1> [park] seq_cst: after the sender published */
  if (atomic_load_explicit(&p->state, memory_order_seq_cst) == TDL_AWAKE) {
    return;
  }
  TDL_STALL();
  /* <parker.W2> acq_rel: one sender rings, and the bell's fields are there to
  ** see */
  how = atomic_exchange_explicit(&p->state, TDL_AWAKE, memory_order_acq_rel);
  TDL_STALL();
  if (how == TDL_ASLEEP) { /* <parker.W3> */
    syscall(SYS_futex, &p->state, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
  } else if (how == TDL_BELLED) { /* <parker.W4> */
    p->bell(p->arg);
  } else if (how == TDL_ELSEWHERE) {
    p->rouse(p->sleeper);
  }
}

/* Threads of the process that spin now. */
static atomic_int spinners;

int tdl_spin_cores(void) {
  static atomic_int known;
  /* relaxed: every thread computes the same number */
  int n = atomic_load_explicit(&known, memory_order_relaxed);
  if (n == 0) {
    cpu_set_t set;
    n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
    atomic_store_explicit(&known, n, memory_order_relaxed); /* see above */
  }
  return n;
}

static void learn(tdl_spin *s, int hit) {
  if (hit) {
    s->budget_ns = TDL_SPIN_MAX_NS;
  } else {
    s->budget_ns /= 4;
    if (s->budget_ns < TDL_SPIN_MIN_NS) {
      s->budget_ns = 0;
    }
  }
}

/* Looks for as long as the budget allows, and lets others run in between. */
static int look_patiently(tdl_spin *s, int cores, int (*ready)(const void *arg),
                          const void *arg, uint64_t limit_ns) {
  int most = cores < 2 ? 2 : cores; /* on one, they take turns */
  int hit = 0;
  /* relaxed: only a count that bounds waste */
  if (atomic_fetch_add_explicit(&spinners, 1, memory_order_relaxed) < most) {
    uint64_t start = tdl_now_ns(), spent = 0;
    while (!hit && spent < s->budget_ns && spent < limit_ns) {
      sched_yield();
      hit = ready(arg);
      spent = tdl_now_ns() - start;
    }
    if (hit || spent >= s->budget_ns) {
      learn(s, hit);
    }
  }
  /* relaxed: see above */
  atomic_fetch_sub_explicit(&spinners, 1, memory_order_relaxed);
  return hit;
}

int tdl_spin_until(tdl_spin *s, int (*ready)(const void *arg), const void *arg,
                   uint64_t limit_ns) {
  int cores = tdl_spin_cores();
  if (s->budget_ns == 0) {
    return 0;
  }
  /* Here nobody is counted: a shared counter would cost more than it saves. */
  for (int i = 0; cores > 1 && i < TDL_SPIN_PAUSES; i++) {
    if (ready(arg)) {
      s->budget_ns = TDL_SPIN_MAX_NS;
      return 1;
    }
    tdl_pause();
  }
  return look_patiently(s, cores, ready, arg, limit_ns);
}

void tdl_spin_slept(tdl_spin *s, uint64_t ns) {
  if (s->budget_ns == 0 &&
      (ns < TDL_SPIN_MAX_NS || ++s->sleeps >= TDL_SPIN_RETRY_SLEEPS)) {
    s->budget_ns = TDL_SPIN_MAX_NS;
    s->sleeps = 0;
  }
}
