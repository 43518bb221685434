/* The lock-free layer: ring, queue, parker; alone, and under contention. */
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/compiler.h"
#include "check.h"
#include "config.h"
#include "queue/backlog.h"
#include "queue/parker.h"
#include "queue/queue.h"

/* --- one thread ----------------------------------------------------------- */

static void the_ring_is_a_fifo_that_refuses_when_full(void) {
  tdl_ring r;
  int items[8];
  CHECK(tdl_ring_init(&r, 8) == 0);
  for (int lap = 0; lap < 3; lap++) {
    CHECK(tdl_ring_empty(&r) && tdl_ring_pop(&r) == NULL);
    for (int i = 0; i < 8; i++) {
      CHECK(tdl_ring_push(&r, &items[i]) && !tdl_ring_empty(&r));
    }
    CHECK(!tdl_ring_push(&r, &items[0]));
    CHECK(tdl_ring_length(&r) == 8);
    for (int i = 0; i < 8; i++) {
      CHECK(tdl_ring_pop(&r) == &items[i]);
    }
  }
  tdl_ring_fini(&r);
}

typedef struct item {
  tdl_node node;
  uint32_t pusher, number;
} item;

static void the_queue_keeps_the_order_of_what_it_spills(void) {
  enum { COUNT = 5000 };
  item *items = calloc(COUNT, sizeof(*items));
  uint32_t in = 0, out = 0;
  tdl_queue q;
  CHECK(tdl_queue_init(&q, 4) == 0);
  while (out < COUNT) { /* three in, two out: most of it spills */
    for (int i = 0; i < 3 && in < COUNT; i++, in++) {
      items[in].number = in;
      tdl_queue_push(&q, &items[in].node);
    }
    CHECK(tdl_queue_length(&q) == in - out);
    for (int i = 0; i < 2 && out < in; i++, out++) {
      tdl_node *node = tdl_queue_pop(&q);
      CHECK(node != NULL && TDL_CONTAINER(node, item, node)->number == out);
    }
  }
  CHECK(tdl_queue_empty(&q) && tdl_queue_pop(&q) == NULL);
  tdl_queue_fini(&q);
  free(items);
}

static void the_backlog_takes_the_highest_rank_and_starves_none(void) {
  enum { COUNT = 200 };
  item *items = calloc(3 * COUNT, sizeof(*items));
  uint32_t seen[3] = {0}, got = 0;
  tdl_backlog b;
  CHECK(tdl_backlog_init(&b) == 0);
  CHECK(tdl_backlog_empty(&b) && !tdl_backlog_ready(&b));
  CHECK(tdl_backlog_rank(&b) == 0 && tdl_backlog_rank(&b) == 0);
  CHECK(tdl_backlog_empty(&b) && tdl_backlog_pop(&b, &got) == NULL);
  for (uint32_t i = 0; i < 3 * COUNT; i++) {
    items[i].pusher = i % 3; /* its rank */
    items[i].number = i / 3;
    tdl_backlog_push(&b, &items[i].node, (enum tdl_rank)(i % 3));
  }
  CHECK(!tdl_backlog_empty(&b) && tdl_backlog_ready(&b));
  CHECK(tdl_backlog_length(&b) == 3 * COUNT);
  for (uint32_t n = 1; n <= 3 * COUNT; n++) {
    tdl_node *node = tdl_backlog_pop(&b, &got);
    item *it = TDL_CONTAINER(node, item, node);
    CHECK(node != NULL && it->number == seen[it->pusher]); /* in order */
    seen[it->pusher]++;
    if (n % TDL_BACKLOG_TURNS == 0 && seen[TDL_RANK_HIGH] < COUNT) { /* K2 */
      CHECK(seen[TDL_RANK_LOW] == n / TDL_BACKLOG_TURNS);
      CHECK(seen[TDL_RANK_NORMAL] == n / TDL_BACKLOG_TURNS);
    }
  }
  CHECK(tdl_backlog_empty(&b) && tdl_backlog_pop(&b, &got) == NULL);
  tdl_backlog_fini(&b);
  free(items);
}

/* --- many threads --------------------------------------------------------- */

enum { PUSHERS = 3, POPPERS = 3, EACH = 60000 };

typedef struct run {
  tdl_queue q;
  item *items; /* EACH of every pusher */
  atomic_uint popped;
  atomic_int seen[PUSHERS * EACH];
  atomic_int disorder;
} run;

typedef struct actor {
  pthread_t thread;
  run *run;
  uint32_t id;
} actor;

static void *push_all(void *arg) {
  actor *a = arg;
  for (uint32_t i = 0; i < EACH; i++) {
    item *it = &a->run->items[a->id * EACH + i];
    it->pusher = a->id;
    it->number = i;
    tdl_queue_push(&a->run->q, &it->node);
  }
  return NULL;
}

/* What one popper sees of one pusher must be in order. */
static void *pop_all(void *arg) {
  actor *a = arg;
  int64_t last[PUSHERS];
  memset(last, -1, sizeof(last));
  while (atomic_load_explicit(&a->run->popped, memory_order_relaxed) <
         PUSHERS * EACH) {
    tdl_node *node = tdl_queue_pop(&a->run->q);
    if (node == NULL) {
      sched_yield();
      continue;
    }
    item *it = TDL_CONTAINER(node, item, node);
    if (it->number <= last[it->pusher]) {
      atomic_store_explicit(&a->run->disorder, 1, memory_order_relaxed);
    }
    last[it->pusher] = it->number;
    atomic_fetch_add_explicit(&a->run->seen[it->pusher * EACH + it->number], 1,
                              memory_order_relaxed);
    atomic_fetch_add_explicit(&a->run->popped, 1, memory_order_relaxed);
  }
  return NULL;
}

static void nothing_is_lost_doubled_or_reordered(uint32_t cells, int poppers) {
  static run r;
  actor pushers[PUSHERS], others[POPPERS];
  memset(&r, 0, sizeof(r));
  r.items = calloc(PUSHERS * EACH, sizeof(item));
  CHECK(tdl_queue_init(&r.q, cells) == 0);
  for (int i = 0; i < poppers; i++) {
    others[i] = (actor){.run = &r, .id = (uint32_t)i};
    pthread_create(&others[i].thread, NULL, pop_all, &others[i]);
  }
  for (int i = 0; i < PUSHERS; i++) {
    pushers[i] = (actor){.run = &r, .id = (uint32_t)i};
    pthread_create(&pushers[i].thread, NULL, push_all, &pushers[i]);
  }
  for (int i = 0; i < PUSHERS; i++) {
    pthread_join(pushers[i].thread, NULL);
  }
  for (int i = 0; i < poppers; i++) {
    pthread_join(others[i].thread, NULL);
  }
  for (int i = 0; i < PUSHERS * EACH; i++) {
    CHECK(r.seen[i] == 1);
  }
  CHECK(!r.disorder);
  CHECK(tdl_queue_empty(&r.q));
  tdl_queue_fini(&r.q);
  free(r.items);
}

static void many_threads_and_a_ring_that_is_always_full(void) {
  nothing_is_lost_doubled_or_reordered(2, POPPERS);
}

static void many_threads_and_a_ring_of_the_usual_size(void) {
  nothing_is_lost_doubled_or_reordered(1024, POPPERS);
}

static void many_pushers_and_one_popper_as_an_inbox_has_it(void) {
  nothing_is_lost_doubled_or_reordered(16, 1);
}

/* --- sleeping ------------------------------------------------------------- */

enum { HANDOFFS = 20000 };

typedef struct sleeper {
  tdl_queue q;
  tdl_parker parker;
  atomic_uint taken;
} sleeper;

/* Sleeps without a limit: one lost wake-up and the test never ends. */
static void *sleep_and_take(void *arg) {
  sleeper *s = arg;
  uint32_t taken = 0;
  while (taken < HANDOFFS) {
    tdl_node *node = tdl_queue_pop(&s->q);
    if (node != NULL) {
      free(TDL_CONTAINER(node, item, node));
      taken++;
      atomic_store_explicit(&s->taken, taken, memory_order_release);
      continue;
    }
    tdl_parker_announce(&s->parker, TDL_ASLEEP);
    if (tdl_queue_empty(&s->q)) {
      tdl_parker_sleep(&s->parker, TDL_NEVER);
    } else {
      tdl_parker_awake(&s->parker);
    }
  }
  return NULL;
}

static void no_wake_up_is_lost(void) {
  unsigned seed = check_seed();
  pthread_t thread;
  sleeper s;
  CHECK(tdl_queue_init(&s.q, 8) == 0);
  tdl_parker_init(&s.parker);
  atomic_init(&s.taken, 0);
  pthread_create(&thread, NULL, sleep_and_take, &s);
  for (uint32_t i = 0; i < HANDOFFS; i++) {
    item *it = malloc(sizeof(*it));
    tdl_queue_push(&s.q, &it->node);
    tdl_parker_wake(&s.parker);
    if (rand_r(&seed) % 4 == 0) { /* let it fall asleep, or nearly */
      for (int k = rand_r(&seed) % 200; k > 0; k--) {
        tdl_pause();
      }
    }
    if (rand_r(&seed) % 64 == 0) {
      while (atomic_load_explicit(&s.taken, memory_order_acquire) <= i) {
        sched_yield();
      }
    }
  }
  pthread_join(thread, NULL);
  tdl_queue_fini(&s.q);
}

static int rings;

static void count_ring(void *arg) {
  (void)arg;
  rings++;
}

static void the_bell_rings_once_per_announcement(void) {
  tdl_parker p;
  tdl_parker_init(&p);
  p.bell = count_ring;
  rings = 0;
  tdl_parker_wake(&p);
  CHECK(rings == 0);
  tdl_parker_announce(&p, TDL_BELLED);
  tdl_parker_wake(&p);
  tdl_parker_wake(&p);
  CHECK(rings == 1);
}

static void a_sleep_ends_when_its_time_is_over(void) {
  tdl_parker p;
  uint64_t start = tdl_now_ns();
  tdl_parker_init(&p);
  tdl_parker_announce(&p, TDL_ASLEEP);
  tdl_parker_sleep(&p, 2000000);
  CHECK(tdl_now_ns() - start >= 2000000);
}

/* --- beside words ---------------------------------------------------------- */

enum { WAKES = 2000 };

typedef struct beside {
  tdl_parker parker;
  _Atomic uint32_t words[3];
  atomic_int wanted; /* how often it is to be woken */
  uint64_t slept_ns; /* for longest */
} beside;

static void *sleep_beside(void *arg) {
  beside *s = arg;
  tdl_parker_word on[3];
  for (int seen = 0; seen < WAKES;) {
    uint64_t start;
    for (int i = 0; i < 3; i++) {
      atomic_store_explicit(&s->words[i], 7, memory_order_seq_cst);
      on[i] = (tdl_parker_word){&s->words[i], 7};
    }
    tdl_parker_announce(&s->parker, TDL_ASLEEP);
    start = tdl_now_ns();
    if (atomic_load_explicit(&s->wanted, memory_order_seq_cst) == seen) {
      tdl_parker_sleep_beside(&s->parker, TDL_NEVER, on, 3);
      start = tdl_now_ns() - start;
      s->slept_ns = start > s->slept_ns ? start : s->slept_ns;
    } else {
      tdl_parker_awake(&s->parker);
    }
    seen = atomic_load_explicit(&s->wanted, memory_order_seq_cst);
  }
  return NULL;
}

/* By the parker, or by one of the words, as another process does it. */
static void wake_beside(beside *s, int i) {
  if (i % 4 == 3) {
    tdl_parker_wake(&s->parker);
  } else if (atomic_exchange_explicit(&s->words[i % 4], 0,
                                      memory_order_seq_cst) == 7) {
    syscall(SYS_futex, &s->words[i % 4], FUTEX_WAKE, 1, NULL, NULL, 0);
  }
}

/* Those of whom one is woken late could be a busy machine; of several tries, no. */
static void words_wake_as_the_parker_does(void) {
  uint64_t slept_ns = TDL_NEVER;
  CHECK(tdl_parker_most_words() == TDL_PARKER_WORDS);
  for (int try = 0; try < 5 && slept_ns >= TDL_PARKER_SLICE_NS; try++) {
    unsigned seed = check_seed();
    pthread_t thread;
    beside s = {.slept_ns = 0};
    tdl_parker_init(&s.parker);
    CHECK(pthread_create(&thread, NULL, sleep_beside, &s) == 0);
    for (int i = 0; i < WAKES; i++) {
      uint64_t until = tdl_now_ns() + (uint64_t)(rand_r(&seed) % 50000);
      while (tdl_now_ns() < until) {
        tdl_pause();
      }
      atomic_store_explicit(&s.wanted, i + 1, memory_order_seq_cst);
      wake_beside(&s, (int)(rand_r(&seed) % 4));
    }
    pthread_join(thread, NULL);
    slept_ns = s.slept_ns;
  }
  CHECK(slept_ns < TDL_PARKER_SLICE_NS);
}

static void a_sleep_beside_words_ends_by_its_time(void) {
  _Atomic uint32_t word = 1;
  tdl_parker_word on = {&word, 1};
  uint64_t start = tdl_now_ns();
  tdl_parker p;
  tdl_parker_init(&p);
  tdl_parker_announce(&p, TDL_ASLEEP);
  tdl_parker_sleep_beside(&p, 2000000, &on, 1);
  CHECK(tdl_now_ns() - start >= 2000000);
  tdl_parker_announce(&p, TDL_ASLEEP);
  tdl_parker_sleep_beside(&p, TDL_NEVER, &on, 1); /* a signal may be lost */
  CHECK(tdl_now_ns() - start >= TDL_PARKER_SLICE_NS);
}

static void ignore(int number) {
  (void)number;
}

static void *sleep_for_good(void *arg) {
  tdl_parker *p = arg;
  tdl_parker_announce(p, TDL_ASLEEP);
  tdl_parker_sleep(p, TDL_NEVER);
  return NULL;
}

static void a_handler_that_restarts_calls_ends_an_endless_sleep(void) {
  struct sigaction act, before;
  pthread_t thread;
  tdl_parker p;
  memset(&act, 0, sizeof(act));
  act.sa_handler = ignore;
  act.sa_flags = SA_RESTART;
  CHECK(sigaction(SIGUSR1, &act, &before) == 0);
  tdl_parker_init(&p);
  CHECK(pthread_create(&thread, NULL, sleep_for_good, &p) == 0);
  do {
    pthread_kill(thread, SIGUSR1);
    sched_yield();
  } while (pthread_tryjoin_np(thread, NULL) != 0);
  CHECK(sigaction(SIGUSR1, &before, NULL) == 0);
}

/* Looks that spins have taken, and at which of them something is there. */
typedef struct looks {
  int taken;
  int hit_at;
} looks;

static looks seen;

static int look(const void *arg) {
  const looks *plan = arg;
  return ++seen.taken == plan->hit_at;
}

static int spin(tdl_spin *s, int hit_at) {
  looks plan = {0, hit_at};
  seen.taken = 0;
  return tdl_spin_until(s, look, &plan, TDL_NEVER);
}

static void spins_that_fail_grow_shorter_until_a_short_sleep(void) {
  tdl_spin s = {TDL_SPIN_MAX_NS, 0};
  for (int i = 0; i < 40 && s.budget_ns > 0; i++) {
    uint32_t before = s.budget_ns;
    CHECK(!spin(&s, 0) && seen.taken > 0);
    CHECK(s.budget_ns < before);
  }
  CHECK(!spin(&s, 0) && seen.taken == 0);
  tdl_spin_slept(&s, (uint64_t)TDL_SPIN_MAX_NS * 10);
  CHECK(!spin(&s, 0) && seen.taken == 0);
  tdl_spin_slept(&s, 0);
  CHECK(spin(&s, 1) && s.budget_ns == TDL_SPIN_MAX_NS);
  while (s.budget_ns > 0) {
    CHECK(!spin(&s, 0) && seen.taken > 0);
  }
  for (int i = 0; i < TDL_SPIN_RETRY_SLEEPS; i++) { /* long ones only */
    CHECK(!spin(&s, 0) && seen.taken == 0);
    tdl_spin_slept(&s, (uint64_t)TDL_SPIN_MAX_NS * 10);
  }
  CHECK(!spin(&s, 0) && seen.taken > 0);
}

static void a_spin_ends_when_its_time_is_over(void) {
  tdl_spin s = {TDL_SPIN_MAX_NS, 0};
  looks plan = {0, 0};
  seen.taken = 0;
  CHECK(!tdl_spin_until(&s, look, &plan, 0));
  CHECK(seen.taken <= TDL_SPIN_PAUSES);  /* none of them with a yield */
  CHECK(s.budget_ns == TDL_SPIN_MAX_NS); /* it was not the spin's fault */
}

/* A spin inside of a spin, as deep as they are granted; each looks on until it
** would offer its processor. */
static int spin_deeper(const void *arg) {
  tdl_spin s = {TDL_SPIN_MAX_NS, 0};
  int *count = (int *)(uintptr_t)arg;
  int inner = 0;
  if ((*count)++ < TDL_SPIN_PAUSES && tdl_spin_cores() > 1) {
    return 0;
  }
  seen.taken++;
  if (seen.taken < 4096) {
    tdl_spin_until(&s, spin_deeper, &inner, TDL_NEVER);
  }
  return 1;
}

static void no_more_threads_spin_than_there_are_processors(void) {
  int most = tdl_spin_cores() < 2 ? 2 : tdl_spin_cores();
  for (int i = 0; i < 2; i++) { /* they are given back */
    tdl_spin s = {TDL_SPIN_MAX_NS, 0};
    int count = 0;
    seen.taken = 0;
    tdl_spin_until(&s, spin_deeper, &count, TDL_NEVER);
    CHECK(seen.taken == most);
  }
}

int main(void) {
  RUN(the_ring_is_a_fifo_that_refuses_when_full);
  RUN(the_queue_keeps_the_order_of_what_it_spills);
  RUN(the_backlog_takes_the_highest_rank_and_starves_none);
  RUN(many_threads_and_a_ring_that_is_always_full);
  RUN(many_threads_and_a_ring_of_the_usual_size);
  RUN(many_pushers_and_one_popper_as_an_inbox_has_it);
  RUN(no_wake_up_is_lost);
  RUN(words_wake_as_the_parker_does);
  RUN(a_sleep_beside_words_ends_by_its_time);
  RUN(the_bell_rings_once_per_announcement);
  RUN(a_sleep_ends_when_its_time_is_over);
  RUN(a_handler_that_restarts_calls_ends_an_endless_sleep);
  RUN(spins_that_fail_grow_shorter_until_a_short_sleep);
  RUN(a_spin_ends_when_its_time_is_over);
  RUN(no_more_threads_spin_than_there_are_processors);
  return check_any_failed;
}
