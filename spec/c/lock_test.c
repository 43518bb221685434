/* Locks, their holders, and barriers: one thread in known orders, and eight in
** any. */
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <string.h>

#include "base/compiler.h"
#include "check.h"
#include "share/barrier.h"
#include "share/hold.h"
#include "treadle.h"

enum { THREADS = 8, TURNS = 4000, PERMITS = 3, HISTORY = THREADS * TURNS };

static unsigned seed;

/* --- a thread that waits --------------------------------------------------- */

typedef struct box {
  tdl_wait wait;
  tdl_waiter waiter;
  sem_t told;
} box;

static void tell(tdl_wait *wait) {
  sem_post(&TDL_CONTAINER(wait, box, wait)->told);
}

static void prepare(box *b) {
  memset(&b->wait, 0, sizeof(b->wait));
  memset(&b->waiter, 0, sizeof(b->waiter));
  b->wait.tell = tell;
  b->waiter.wait = &b->wait;
}

static void box_init(box *b) {
  sem_init(&b->told, 0, 0);
  prepare(b);
}

static uint32_t next_random(uint32_t *state) {
  *state = *state * 1664525u + 1013904223u;
  return *state >> 8;
}

/* Waits at most so many looks, below 0 without a limit; 1 when it has them. */
static int take(tdl_lock *l, box *b, uint32_t units, int looks, int *told) {
  *told = 0;
  if (tdl_lock_take_at_once(l, units) || tdl_lock_take(l, units, told)) {
    return 1;
  }
  prepare(b);
  if (tdl_lock_wait(l, &b->waiter, units, told)) {
    return 1;
  }
  for (int i = 0; looks >= 0; i++) {
    if (sem_trywait(&b->told) == 0) {
      *told = b->wait.value != NULL;
      return 1;
    }
    if (i >= looks) {
      if (tdl_wait_give_up(&b->wait)) {
        tdl_lock_leave(l, &b->waiter);
        return 0;
      }
      break;
    }
    sched_yield();
  }
  while (sem_wait(&b->told) != 0) {
  }
  *told = b->wait.value != NULL;
  return 1;
}

static void give(tdl_lock *l, uint32_t units) {
  if (!tdl_lock_give_at_once(l, units)) {
    tdl_lock_give(l, units, 0);
  }
}

static uint32_t word_of(tdl_lock *l) {
  return atomic_load_explicit(&l->word, memory_order_acquire);
}

static void drop(tdl_lock *l) {
  tdl_counted_drop(&l->counted);
}

/* --- known orders ---------------------------------------------------------- */

static void a_lock_has_what_is_given_back(void) {
  tdl_lock *l;
  int told = 1;
  CHECK(tdl_lock_new(&tdl_semaphore_kind, 2, &l) == 0);
  CHECK(tdl_lock_take_at_once(l, 1) && tdl_lock_take(l, 1, &told) && !told);
  CHECK(!tdl_lock_take_at_once(l, 1) && !tdl_lock_take(l, 1, &told));
  CHECK(tdl_lock_give_at_once(l, 1));
  tdl_lock_give(l, 1, 0);
  CHECK(word_of(l) == 2 * TDL_LOCK_UNIT);
  drop(l);
}

static int is_granted(const box *b) {
  return atomic_load_explicit(&b->wait.word, memory_order_acquire) ==
         TDL_GRANTED;
}

static void who_came_first_is_served_first(void) {
  box boxes[3];
  tdl_lock *l;
  int told;
  CHECK(tdl_lock_new(&tdl_mutex_kind, 1, &l) == 0);
  CHECK(tdl_lock_take_at_once(l, 1));
  for (int i = 0; i < 3; i++) {
    box_init(&boxes[i]);
    CHECK(!tdl_lock_wait(l, &boxes[i].waiter, 1, &told));
  }
  for (int i = 0; i < 3; i++) {
    CHECK(!tdl_lock_give_at_once(l, 1));
    tdl_lock_give(l, 1, 0);
    for (int k = 0; k < 3; k++) {
      CHECK(is_granted(&boxes[k]) == (k <= i));
    }
    CHECK(!tdl_lock_take_at_once(l, 1) && !tdl_lock_take(l, 1, &told));
  }
  tdl_lock_give(l, 1, 0);
  CHECK(word_of(l) == TDL_LOCK_UNIT);
  drop(l);
}

static void a_writer_that_waits_holds_later_readers_back_till_it_leaves(void) {
  box writer, reader;
  tdl_lock *l;
  int told;
  box_init(&writer);
  box_init(&reader);
  CHECK(tdl_lock_new(&tdl_rwlock_kind, TDL_LOCK_MAX_UNITS, &l) == 0);
  CHECK(tdl_lock_take_at_once(l, 1));
  CHECK(!tdl_lock_wait(l, &writer.waiter, TDL_LOCK_MAX_UNITS, &told));
  CHECK(!tdl_lock_take_at_once(l, 1) && !tdl_lock_take(l, 1, &told));
  CHECK(!tdl_lock_wait(l, &reader.waiter, 1, &told));
  CHECK(!is_granted(&reader) && !is_granted(&writer));
  CHECK(tdl_wait_give_up(&writer.wait));
  tdl_lock_leave(l, &writer.waiter);
  CHECK(is_granted(&reader));
  give(l, 1);
  give(l, 1);
  CHECK(tdl_lock_take_at_once(l, TDL_LOCK_MAX_UNITS));
  give(l, TDL_LOCK_MAX_UNITS);
  drop(l);
}

static void the_death_of_a_holder_is_told_once(void) {
  box b;
  tdl_lock *l;
  int told = 0;
  box_init(&b);
  CHECK(tdl_lock_new(&tdl_mutex_kind, 1, &l) == 0);
  CHECK(tdl_lock_take_at_once(l, 1));
  tdl_lock_give(l, 1, 1); /* nobody waits */
  CHECK(!tdl_lock_take_at_once(l, 1));
  CHECK(tdl_lock_take(l, 1, &told) && told);
  CHECK(!tdl_lock_wait(l, &b.waiter, 1, &told));
  tdl_lock_give(l, 1, 1); /* somebody waits */
  CHECK(is_granted(&b) && b.wait.value != NULL);
  give(l, 1);
  CHECK(tdl_lock_take_at_once(l, 1));
  give(l, 1);
  drop(l);
}

static void readers_are_told_of_a_dead_writer_until_the_next_one(void) {
  tdl_lock *l;
  int told = 0;
  CHECK(tdl_lock_new(&tdl_rwlock_kind, TDL_LOCK_MAX_UNITS, &l) == 0);
  CHECK(tdl_lock_take_at_once(l, TDL_LOCK_MAX_UNITS));
  tdl_lock_give(l, TDL_LOCK_MAX_UNITS, TDL_LOCK_MAX_UNITS);
  for (int i = 0; i < 3; i++) {
    CHECK(tdl_lock_take(l, 1, &told) && told);
  }
  for (int i = 0; i < 3; i++) {
    give(l, 1);
  }
  CHECK(tdl_lock_take(l, TDL_LOCK_MAX_UNITS, &told) && told);
  give(l, TDL_LOCK_MAX_UNITS);
  CHECK(tdl_lock_take_at_once(l, 1));
  give(l, 1);
  drop(l);
}

/* A writer who was told of a dead reader, and never knew. */
static void what_one_is_told_who_does_not_take_it_the_next_one_is(void) {
  box b;
  tdl_lock *l;
  int told = 0;
  box_init(&b);
  CHECK(tdl_lock_new(&tdl_rwlock_kind, TDL_LOCK_MAX_UNITS, &l) == 0);
  CHECK(tdl_lock_take_at_once(l, 1));
  CHECK(!tdl_lock_wait(l, &b.waiter, TDL_LOCK_MAX_UNITS, &told));
  tdl_lock_give(l, 1, 1);
  CHECK(is_granted(&b) && b.wait.value == (void *)1);
  tdl_lock_give(l, TDL_LOCK_MAX_UNITS, (uint32_t)(uintptr_t)b.wait.value);
  CHECK(tdl_lock_take(l, 1, &told) && told);
  CHECK(tdl_lock_take_at_once(l, 1));
  give(l, 1);
  give(l, 1);
  drop(l);
}

static void a_state_gives_back_what_its_owners_leave(void) {
  enum { LOCKS = 100 };
  tdl_lock *locks[LOCKS];
  tdl_holds *h;
  int told;
  CHECK(tdl_holds_new(&h) == 0);
  for (int i = 0; i < LOCKS; i++) {
    CHECK(tdl_lock_new(&tdl_mutex_kind, 1, &locks[i]) == 0);
    CHECK(tdl_lock_take_at_once(locks[i], 1));
    CHECK(tdl_holds_reserve(h) == 0);
    tdl_holds_add(h, locks[i], (uint64_t)(2 + i % 3), 1);
  }
  CHECK(h->count == LOCKS && h->mask >= LOCKS / 2);
  CHECK(tdl_holds_find(h, locks[0], 3) == NULL);
  CHECK(tdl_lock_give_at_once(locks[0], 1));
  tdl_holds_remove(h, tdl_holds_find(h, locks[0], 2));
  CHECK(tdl_holds_find(h, locks[0], 2) == NULL);
  CHECK(tdl_lock_take_at_once(locks[0], 1)); /* not of this state */
  tdl_holds_end(h, 4);
  for (int i = 1; i < LOCKS; i++) {
    CHECK((tdl_holds_find(h, locks[i], (uint64_t)(2 + i % 3)) != NULL) ==
          (i % 3 != 2));
    CHECK(tdl_lock_take(locks[i], 1, &told) == (i % 3 == 2));
    CHECK(i % 3 != 2 || told);
  }
  CHECK(tdl_holds_any(h, &locks[1]->counted));
  CHECK(!tdl_holds_any(h, &locks[2]->counted));
  for (int i = 0; i < LOCKS; i++) { /* the handles go */
    tdl_holds_keep(h, &locks[i]->counted);
    tdl_holds_keep(h, &locks[i]->counted);
    if (i > 0 && i % 3 != 2) {
      CHECK(atomic_load_explicit(&locks[i]->counted.refs,
                                 memory_order_relaxed) == 2);
    }
  }
  tdl_holds_free(h);
  for (int i = 1; i < LOCKS; i++) {
    CHECK(tdl_lock_take(locks[i], 1, &told) == (i % 3 != 2));
    CHECK(i % 3 == 2 || told);
  }
  for (int i = 0; i < LOCKS; i++) {
    drop(locks[i]);
  }
}

static void a_barrier_lets_nobody_on_before_all_are_there(void) {
  box boxes[3];
  tdl_barrier *b;
  CHECK(tdl_barrier_new(3, &b) == 0);
  for (int i = 0; i < 3; i++) {
    box_init(&boxes[i]);
  }
  CHECK(tdl_barrier_wait(b, &boxes[0].waiter) == 0);
  CHECK(tdl_barrier_wait(b, &boxes[1].waiter) == 0);
  CHECK(tdl_barrier_give_up(b, &boxes[0].waiter)); /* does not count */
  CHECK(tdl_barrier_wait(b, &boxes[2].waiter) == 0);
  CHECK(!is_granted(&boxes[1]) && !is_granted(&boxes[2]));
  prepare(&boxes[0]);
  CHECK(tdl_barrier_wait(b, &boxes[0].waiter) == 3);
  CHECK(is_granted(&boxes[1]) && boxes[1].wait.value == (void *)1);
  CHECK(is_granted(&boxes[2]) && boxes[2].wait.value == (void *)2);
  CHECK(!tdl_barrier_give_up(b, &boxes[1].waiter));
  prepare(&boxes[1]);
  CHECK(tdl_barrier_wait(b, &boxes[1].waiter) == 0); /* the next generation */
  CHECK(tdl_barrier_give_up(b, &boxes[1].waiter));
  tdl_counted_drop(&b->counted);
}

/* --- eight threads --------------------------------------------------------- */

typedef struct span {
  uint32_t begin, end;
  int writes;
} span;

static struct {
  tdl_lock *lock;
  tdl_barrier *barrier;
  void (*turn)(uint32_t *random, box *b);
  long counter; /* under a mutex */
  atomic_uint faults, deaths, told, taken, clock, inside;
  span history[HISTORY]; /* so many: */
  atomic_uint spans;
  atomic_uint rounds[THREADS], numbers;
} all;

static void fault_if(int condition) {
  if (condition) {
    atomic_fetch_add_explicit(&all.faults, 1, memory_order_relaxed);
  }
}

static void add(atomic_uint *count) {
  atomic_fetch_add_explicit(count, 1, memory_order_relaxed);
}

static uint32_t count_of(atomic_uint *count) {
  return atomic_load_explicit(count, memory_order_relaxed);
}

/* A third of the waits are given up soon. */
static int looks(uint32_t *random) {
  return next_random(random) % 3 == 0 ? (int)(next_random(random) % 8) : -1;
}

static void use_mutex(uint32_t *random, box *b) {
  int told;
  if (!take(all.lock, b, 1, looks(random), &told)) {
    return;
  }
  if (told) {
    add(&all.told);
  }
  add(&all.taken);
  all.counter++;
  if (next_random(random) % 16 == 0) {
    sched_yield();
  }
  if (next_random(random) % 16 == 0) {
    add(&all.deaths);
    tdl_lock_give(all.lock, 1, 1);
  } else {
    give(all.lock, 1);
  }
}

static void use_rwlock(uint32_t *random, box *b) {
  int writes = next_random(random) % 4 == 0, told;
  uint32_t units = writes ? TDL_LOCK_MAX_UNITS : 1;
  span *s;
  if (!take(all.lock, b, units, looks(random), &told)) {
    return;
  }
  s = &all.history[atomic_fetch_add_explicit(&all.spans, 1,
                                             memory_order_relaxed)];
  s->writes = writes;
  s->begin = atomic_fetch_add_explicit(&all.clock, 1, memory_order_seq_cst);
  if (writes) {
    all.counter++;
  } else {
    fault_if(all.counter < 0);
  }
  if (next_random(random) % 8 == 0) {
    sched_yield();
  }
  s->end = atomic_fetch_add_explicit(&all.clock, 1, memory_order_seq_cst);
  give(all.lock, units);
}

static void use_semaphore(uint32_t *random, box *b) {
  int told;
  if (!take(all.lock, b, 1, looks(random), &told)) {
    return;
  }
  fault_if(atomic_fetch_add_explicit(&all.inside, 1, memory_order_seq_cst) >=
           PERMITS);
  if (next_random(random) % 8 == 0) {
    sched_yield();
  }
  atomic_fetch_sub_explicit(&all.inside, 1, memory_order_seq_cst);
  give(all.lock, 1);
}

static void *run_turns(void *arg) {
  uint32_t random = seed * 31 + (uint32_t)(uintptr_t)arg;
  box b;
  box_init(&b);
  for (int i = 0; i < TURNS; i++) {
    all.turn(&random, &b);
  }
  return NULL;
}

static void run_threads(void *(*fn)(void *)) {
  pthread_t threads[THREADS];
  for (uintptr_t i = 0; i < THREADS; i++) {
    pthread_create(&threads[i], NULL, fn, (void *)i);
  }
  for (int i = 0; i < THREADS; i++) {
    pthread_join(threads[i], NULL);
  }
}

static int run(const tdl_kind *kind, uint32_t units,
               void (*turn)(uint32_t *random, box *b)) {
  memset(&all, 0, sizeof(all));
  all.turn = turn;
  if (tdl_lock_new(kind, units, &all.lock) != 0) {
    return 0;
  }
  run_threads(run_turns);
  return all.lock->waiters.first == NULL &&
         word_of(all.lock) / TDL_LOCK_UNIT == units;
}

static void eight_threads_never_share_a_mutex(void) {
  CHECK(run(&tdl_mutex_kind, 1, use_mutex));
  CHECK(all.counter == (long)count_of(&all.taken) && all.counter > TURNS);
  CHECK(count_of(&all.deaths) == count_of(&all.told) + all.lock->abandoned);
  drop(all.lock);
}

static int by_begin(const void *a, const void *b) {
  const span *x = a, *y = b;
  return x->begin < y->begin ? -1 : 1;
}

static void no_writer_overlaps_anybody(void) {
  uint32_t last_end = 0, last_write = 0, n, writes = 0;
  CHECK(run(&tdl_rwlock_kind, TDL_LOCK_MAX_UNITS, use_rwlock));
  n = count_of(&all.spans);
  qsort(all.history, n, sizeof(all.history[0]), by_begin);
  for (uint32_t i = 0; i < n; i++) {
    const span *s = &all.history[i];
    CHECK(s->begin < s->end);
    CHECK(i == 0 || s->begin > (s->writes ? last_end : last_write));
    last_end = s->end > last_end ? s->end : last_end;
    last_write = s->writes ? s->end : last_write;
    writes += (uint32_t)s->writes;
  }
  CHECK(all.counter == (long)writes && writes > 0 &&
        count_of(&all.faults) == 0);
  drop(all.lock);
}

static void a_semaphore_never_gives_more_than_it_has(void) {
  CHECK(run(&tdl_semaphore_kind, PERMITS, use_semaphore));
  CHECK(count_of(&all.faults) == 0 && count_of(&all.inside) == 0);
  drop(all.lock);
}

enum { ROUNDS = 1000 };

/* Nobody is more than one round ahead, and each number comes once in each. */
static void *meet(void *arg) {
  uintptr_t me = (uintptr_t)arg;
  uint32_t random = seed * 17 + (uint32_t)me;
  box b;
  box_init(&b);
  for (uint32_t round = 1; round <= ROUNDS; round++) {
    uint32_t number;
    for (;;) {
      prepare(&b);
      /* relaxed: what the barrier orders is to be seen */
      atomic_store_explicit(&all.rounds[me], round, memory_order_relaxed);
      number = tdl_barrier_wait(all.barrier, &b.waiter);
      if (number == 0 && next_random(&random) % 4 == 0 &&
          tdl_barrier_give_up(all.barrier, &b.waiter)) {
        continue;
      }
      break;
    }
    if (number == 0) {
      while (sem_wait(&b.told) != 0) {
      }
      number = (uint32_t)(uintptr_t)b.wait.value;
    }
    fault_if(number < 1 || number > THREADS);
    for (int i = 0; i < THREADS; i++) {
      uint32_t other =
          atomic_load_explicit(&all.rounds[i], memory_order_relaxed);
      fault_if(other < round || other > round + 1);
    }
    atomic_fetch_add_explicit(&all.numbers, number, memory_order_relaxed);
  }
  return NULL;
}

static void eight_threads_meet_again_and_again(void) {
  memset(&all, 0, sizeof(all));
  CHECK(tdl_barrier_new(THREADS, &all.barrier) == 0);
  run_threads(meet);
  CHECK(count_of(&all.faults) == 0);
  CHECK(count_of(&all.numbers) == ROUNDS * THREADS * (THREADS + 1) / 2);
  CHECK(all.barrier->waiting == 0 && all.barrier->waiters.first == NULL);
  tdl_counted_drop(&all.barrier->counted);
}

static void without_memory_there_is_no_lock(void) {
#ifdef TDL_TEST_ALLOC
  tdl_lock *l;
  tdl_holds *h;
  tdl_barrier *b;
  tdl_alloc_fail_in(TDL_ALLOC_OWN, 0);
  CHECK(tdl_lock_new(&tdl_mutex_kind, 1, &l) == TREADLE_ENOMEM);
  tdl_alloc_fail_in(TDL_ALLOC_OWN, 0);
  CHECK(tdl_barrier_new(1, &b) == TREADLE_ENOMEM);
  for (int i = 0; i < 2; i++) {
    tdl_alloc_fail_in(TDL_ALLOC_OWN, i);
    CHECK(tdl_holds_new(&h) == TREADLE_ENOMEM);
  }
  tdl_alloc_fail_in(TDL_ALLOC_OWN, -1);
  CHECK(tdl_holds_new(&h) == 0);
  tdl_alloc_fail_in(TDL_ALLOC_OWN, 0);
  CHECK(tdl_holds_reserve(h) == TREADLE_ENOMEM);
  tdl_alloc_fail_in(TDL_ALLOC_OWN, -1);
  CHECK(tdl_holds_reserve(h) == 0 && h->spare != NULL);
  tdl_holds_free(h);
#endif
}

int main(void) {
  seed = check_seed();
  RUN(a_lock_has_what_is_given_back);
  RUN(who_came_first_is_served_first);
  RUN(a_writer_that_waits_holds_later_readers_back_till_it_leaves);
  RUN(the_death_of_a_holder_is_told_once);
  RUN(readers_are_told_of_a_dead_writer_until_the_next_one);
  RUN(what_one_is_told_who_does_not_take_it_the_next_one_is);
  RUN(a_state_gives_back_what_its_owners_leave);
  RUN(a_barrier_lets_nobody_on_before_all_are_there);
  RUN(eight_threads_never_share_a_mutex);
  RUN(no_writer_overlaps_anybody);
  RUN(a_semaphore_never_gives_more_than_it_has);
  RUN(eight_threads_meet_again_and_again);
  RUN(without_memory_there_is_no_lock);
  return check_any_failed;
}
