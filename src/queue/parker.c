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
#include "../config.h"

void tdl_parker_init(tdl_parker *p) {
  atomic_init(&p->state, TDL_AWAKE);
  p->bell = NULL;
  p->arg = NULL;
}

void tdl_parker_announce(tdl_parker *p, enum tdl_parker_state how) {
  /* [park] seq_cst: before the owner's second look at its queues */
  atomic_store_explicit(&p->state, how, memory_order_seq_cst);
}

void tdl_parker_awake(tdl_parker *p) {
  /* relaxed: a sender that still sees the old state rings once in vain */
  atomic_store_explicit(&p->state, TDL_AWAKE, memory_order_relaxed);
}

void tdl_parker_sleep(tdl_parker *p, uint64_t ns) {
  struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
  /* relaxed: the futex compares again in the kernel */
  while (atomic_load_explicit(&p->state, memory_order_relaxed) == TDL_ASLEEP) {
    if (syscall(SYS_futex, &p->state, FUTEX_WAIT_PRIVATE, TDL_ASLEEP,
                ns == TDL_NEVER ? NULL : &t, NULL, 0) != 0 &&
        errno != EAGAIN) {
      break; /* time, or a signal */
    }
  }
  tdl_parker_awake(p);
}

void tdl_parker_wake(tdl_parker *p) {
  uint32_t how;
  /* [park] seq_cst: after the sender published */
  if (atomic_load_explicit(&p->state, memory_order_seq_cst) == TDL_AWAKE) {
    return;
  }
  /* acq_rel: one sender rings, and the bell's fields are there to see */
  how = atomic_exchange_explicit(&p->state, TDL_AWAKE, memory_order_acq_rel);
  if (how == TDL_ASLEEP) {
    syscall(SYS_futex, &p->state, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
  } else if (how == TDL_BELLED) {
    p->bell(p->arg);
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

static int may_spin(const tdl_spin *s, int cores) {
  int most = cores < 2 ? 2 : cores; /* on one, they take turns */
  if (s->budget_ns == 0) {
    return 0;
  }
  /* relaxed: only a count that bounds waste */
  if (atomic_fetch_add_explicit(&spinners, 1, memory_order_relaxed) >= most) {
    atomic_fetch_sub_explicit(&spinners, 1, memory_order_relaxed); /* ditto */
    return 0;
  }
  return 1;
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

int tdl_spin_until(tdl_spin *s, int (*ready)(const void *arg), const void *arg,
                   uint64_t limit_ns) {
  int cores = tdl_spin_cores();
  int hit = 0, spun = 0;
  uint64_t start = 0, now = 0, budget;
  if (!may_spin(s, cores)) {
    return 0;
  }
  for (int i = 0; cores > 1 && i < TDL_SPIN_PAUSES && !hit; i++) {
    tdl_pause();
    hit = ready(arg);
  }
  budget = s->budget_ns < limit_ns ? s->budget_ns : limit_ns;
  if (!hit) {
    start = now = tdl_now_ns();
  }
  while (!hit && now - start < budget) {
    sched_yield();
    hit = ready(arg);
    now = tdl_now_ns();
  }
  spun = now - start >= s->budget_ns;
  /* relaxed: see may_spin */
  atomic_fetch_sub_explicit(&spinners, 1, memory_order_relaxed);
  if (hit || spun) {
    learn(s, hit);
  }
  return hit;
}

void tdl_spin_slept(tdl_spin *s, uint64_t ns) {
  if (s->budget_ns == 0 &&
      (ns < TDL_SPIN_MAX_NS || ++s->sleeps >= TDL_SPIN_RETRY_SLEEPS)) {
    s->budget_ns = TDL_SPIN_MAX_NS;
    s->sleeps = 0;
  }
}
