/* Shared objects without Lua: buffers, counters, integers and who waits for
** them; alone, and from many threads at once. */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "config.h"
#include "share/atomics.h"
#include "share/buffer.h"
#include "share/counter.h"
#include "treadle.h"

enum { THREADS = 8 };

/* xorshift: each thread's own sequence. */
static uint32_t next_random(uint32_t *x) {
  *x ^= *x << 13;
  *x ^= *x >> 17;
  *x ^= *x << 5;
  return *x;
}

typedef struct actor {
  pthread_t thread;
  void *shared;
  uint32_t id, random;
  uint64_t result;
} actor;

/* Runs `body` on all threads; 1 when all have been started and joined. */
static int run_all(actor *actors, void *(*body)(void *), void *shared,
                   unsigned seed) {
  int ok = 1;
  for (uint32_t i = 0; i < THREADS; i++) {
    actors[i].shared = shared;
    actors[i].id = i;
    actors[i].random = seed * 2654435761u + i * 40503u + 1;
    actors[i].result = 0;
    ok &= pthread_create(&actors[i].thread, NULL, body, &actors[i]) == 0;
  }
  for (uint32_t i = 0; i < THREADS; i++) {
    ok &= pthread_join(actors[i].thread, NULL) == 0;
  }
  return ok;
}

static const void *functions_of(const char *type) {
  for (int i = 0; tdl_atomics_types[i].type != NULL; i++) {
    if (strcmp(tdl_atomics_types[i].type, type) == 0) {
      return tdl_atomics_types[i].functions;
    }
  }
  return NULL;
}

/* The struct behind a type's `functions`, as its declaration has it. */
#define FUNCTIONS(type)                                                        \
  const struct {                                                               \
    type (*load)(void *p);                                                     \
    void (*store)(void *p, type v);                                            \
    type (*add)(void *p, type v);                                              \
    type (*sub)(void *p, type v);                                              \
    type (*band)(void *p, type v);                                             \
    type (*bor)(void *p, type v);                                              \
    type (*bxor)(void *p, type v);                                             \
    type (*exchange)(void *p, type v);                                         \
    type (*compare_exchange)(void *p, type expected, type v);                  \
  } *

/* --- one thread ----------------------------------------------------------- */

static void a_buffer_is_zeroed_aligned_and_as_long_as_asked(void) {
  static const size_t counts[] = {0, 1, 7, 8191, 8192, 100000};
  for (size_t k = 0; k < sizeof(counts) / sizeof(*counts); k++) {
    tdl_buffer *b;
    size_t n = counts[k];
    uint8_t any = 0;
    CHECK(tdl_buffer_new("double", 8, n, &b) == 0);
    CHECK(b->count == n && b->unit == 8 && strcmp(b->type, "double") == 0);
    CHECK((uintptr_t)b->data % 64 == 0);
    CHECK(n * 8 < 65536 || (uintptr_t)b->data % 4096 == 0);
    for (size_t i = 0; i < n * 8; i++) {
      any |= b->data[i];
    }
    memset(b->data, 0xff, n * 8);
    CHECK(any == 0);
    tdl_counted_drop(&b->counted);
  }
}

static void a_buffer_that_no_machine_holds_is_refused(void) {
  tdl_buffer *b = NULL;
  CHECK(tdl_buffer_new("double", 8, SIZE_MAX / 8 + 1, &b) == TREADLE_ENOMEM);
  CHECK(tdl_buffer_new("double", 8, SIZE_MAX, &b) == TREADLE_ENOMEM);
  CHECK(tdl_buffer_new("uint8_t", 1, SIZE_MAX, &b) == TREADLE_ENOMEM);
  CHECK(tdl_buffer_new("uint8_t", 1, PTRDIFF_MAX, &b) == TREADLE_ENOMEM);
  CHECK(tdl_buffer_new("uint8_t", 1, (size_t)1 << 60, &b) == TREADLE_ENOMEM);
  CHECK(tdl_buffer_new("struct empty", 0, 1, &b) == TREADLE_ENOMEM);
  CHECK(b == NULL);
}

static void a_slice_keeps_the_memory_and_lies_in_it(void) {
  tdl_buffer *whole, *part, *inner, *other;
  CHECK(tdl_buffer_new("uint32_t", 4, 100, &whole) == 0);
  CHECK(tdl_buffer_new("uint32_t", 4, 100, &other) == 0);
  CHECK(tdl_buffer_is_sole(whole));
  CHECK(tdl_buffer_slice(whole, 10, 20, &part) == 0);
  CHECK(tdl_buffer_slice(part, 5, 15, &inner) == 0);
  CHECK(!tdl_buffer_is_sole(whole) && !tdl_buffer_is_sole(part));
  CHECK(part->data == whole->data + 40 && inner->data == whole->data + 60);
  CHECK(inner->whole == whole && inner->count == 15);
  CHECK(tdl_buffer_lies_in(inner, part) && tdl_buffer_lies_in(part, whole));
  CHECK(tdl_buffer_lies_in(whole, whole) && !tdl_buffer_lies_in(part, inner));
  CHECK(!tdl_buffer_lies_in(whole, part) && !tdl_buffer_lies_in(part, other));
  tdl_counted_drop(&whole->counted);
  tdl_counted_drop(&part->counted);
  memset(inner->data, 1, 60);
  CHECK(inner->data[59] == 1);
  tdl_counted_drop(&inner->counted);
  tdl_counted_drop(&other->counted);
}

static void a_buffer_for_processes_is_known_by_its_descriptor(void) {
  static const size_t counts[] = {0, 1, 8191, 100000};
  for (size_t k = 0; k < sizeof(counts) / sizeof(*counts); k++) {
    size_t n = counts[k];
    tdl_buffer *b, *part, *other, *own;
    int fd;
    CHECK(tdl_buffer_new("double", 8, n, &own) == 0);
    CHECK(tdl_buffer_fd(own) == -1);
    CHECK(tdl_buffer_open("double", 8, n, &b) == 0);
    CHECK(b->count == n && b->unit == 8 && strcmp(b->type, "double") == 0);
    CHECK(tdl_buffer_slice(b, n / 2, n - n / 2, &part) == 0);
    fd = tdl_buffer_fd(b);
    CHECK(fd >= 0 && tdl_buffer_fd(part) == fd);
    memset(part->data, 1, tdl_buffer_bytes(part));
    CHECK(tdl_buffer_adopt(dup(fd), "int32_t", 4, 2 * n, &other) == 0);
    CHECK(other->count == 2 * n && strcmp(other->type, "int32_t") == 0);
    CHECK(other->data != b->data && tdl_buffer_is_sole(other));
    CHECK(memcmp(other->data, b->data, n * 8) == 0);
    CHECK(n == 0 || other->data[n * 8 - 1] == 1);
    tdl_counted_drop(&b->counted);
    CHECK(fcntl(fd, F_GETFD) >= 0); /* the slice has it */
    tdl_counted_drop(&part->counted);
    CHECK(fcntl(fd, F_GETFD) == -1);
    memset(other->data, 2, n * 8);
    fd = tdl_buffer_fd(other);
    tdl_counted_drop(&other->counted);
    CHECK(fcntl(fd, F_GETFD) == -1);
    tdl_counted_drop(&own->counted);
  }
}

static void what_is_no_buffers_memory_is_not_adopted(void) {
  tdl_buffer *b, *other = NULL;
  int fd;
  CHECK(tdl_buffer_adopt(-1, "double", 8, 1, &other) == TREADLE_EINVAL);
  CHECK(tdl_buffer_adopt(0, "double", 8, 1, &other) == TREADLE_EINVAL);
  CHECK(tdl_buffer_open("double", 8, 1000, &b) == 0);
  fd = tdl_buffer_fd(b);
  CHECK(tdl_buffer_adopt(fd, "double", 8, 5000, &other) == TREADLE_EINVAL);
  CHECK(tdl_buffer_adopt(fd, "double", 8, 500, &other) == TREADLE_EINVAL);
  CHECK(tdl_buffer_adopt(fd, "double", 8, SIZE_MAX, &other) == TREADLE_ENOMEM);
  CHECK(tdl_buffer_adopt(fd, "double", 0, 1000, &other) == TREADLE_ENOMEM);
  CHECK(tdl_buffer_open("double", 8, SIZE_MAX / 8, &other) == TREADLE_ENOMEM);
  CHECK(other == NULL && fcntl(fd, F_GETFD) >= 0);
  tdl_counted_drop(&b->counted);
}

#ifdef TDL_TEST_ALLOC
static void without_memory_nothing_is_made_and_nothing_lost(void) {
  static const size_t counts[] = {10, 100000};
  for (int k = 0; k < 2; k++) {
    tdl_buffer *b = NULL, *part = NULL;
    tdl_counter *c = NULL;
    for (long n = 0; n < 2; n++) {
      tdl_alloc_fail_in(TDL_ALLOC_OWN, n);
      CHECK(tdl_buffer_new("double", 8, counts[k], &b) == TREADLE_ENOMEM);
    }
    for (long n = 0; n < 3; n++) {
      tdl_alloc_fail_in(TDL_ALLOC_OWN, n);
      CHECK(tdl_buffer_open("double", 8, counts[k], &b) == TREADLE_ENOMEM);
    }
    tdl_alloc_fail_in(TDL_ALLOC_OWN, 0);
    CHECK(tdl_counter_new(0, &c) == TREADLE_ENOMEM);
    CHECK(tdl_buffer_new("double", 8, counts[k], &b) == 0);
    tdl_alloc_fail_in(TDL_ALLOC_OWN, 0);
    CHECK(tdl_buffer_slice(b, 0, 1, &part) == TREADLE_ENOMEM);
    CHECK(c == NULL && part == NULL && tdl_buffer_is_sole(b));
    tdl_counted_drop(&b->counted);
  }
}
#endif

static void integers_of_each_width_give_their_old_value(void) {
  FUNCTIONS(int8_t) i8 = functions_of("int8_t");
  FUNCTIONS(uint16_t) u16 = functions_of("uint16_t");
  FUNCTIONS(int64_t) i64 = functions_of("int64_t");
  int8_t a = 127;
  uint16_t b = 3;
  int64_t c = -1;
  CHECK(i8 != NULL && u16 != NULL && i64 != NULL);
  CHECK(i8->add(&a, 1) == 127 && a == -128);
  CHECK(i8->sub(&a, 1) == -128 && i8->load(&a) == 127);
  CHECK(u16->sub(&b, 4) == 3 && b == 65535);
  CHECK(u16->band(&b, 0xff) == 65535 && u16->bor(&b, 0x100) == 0xff);
  CHECK(u16->bxor(&b, 0x101) == 0x1ff && b == 0xfe);
  CHECK(i64->exchange(&c, INT64_MIN) == -1 && c == INT64_MIN);
  CHECK(i64->compare_exchange(&c, 5, 6) == INT64_MIN && c == INT64_MIN);
  CHECK(i64->compare_exchange(&c, INT64_MIN, 6) == INT64_MIN && c == 6);
  i64->store(&c, 9);
  CHECK(c == 9);
}

/* --- many threads --------------------------------------------------------- */

enum { COUNTED = 20000 };

static void *count(void *arg) {
  actor *a = arg;
  tdl_counter *c = a->shared;
  for (int i = 0; i < COUNTED; i++) {
    int64_t n = (int64_t)(next_random(&a->random) % 1000);
    a->result += (uint64_t)n;
    tdl_counter_add(c, n);
  }
  return NULL;
}

static void a_counter_loses_nothing(void) {
  actor actors[THREADS];
  tdl_counter *c;
  uint64_t sum = 0;
  CHECK(tdl_counter_new(INT64_MAX, &c) == 0);
  CHECK(tdl_counter_add(c, 1) == INT64_MIN);
  tdl_counter_set(c, -5);
  CHECK(tdl_counter_get(c) == -5);
  CHECK(run_all(actors, count, c, check_seed()));
  for (int i = 0; i < THREADS; i++) {
    sum += actors[i].result;
  }
  CHECK(tdl_counter_get(c) == (int64_t)sum - 5);
  tdl_counted_drop(&c->counted);
}

/* Each thread holds, slices and drops; the last one frees. */
static void *pass_around(void *arg) {
  actor *a = arg;
  tdl_buffer *b = a->shared;
  for (int i = 0; i < 2000; i++) {
    tdl_buffer *part = NULL;
    size_t first = next_random(&a->random) % b->count;
    if (tdl_buffer_slice(b, first, b->count - first, &part) == 0) {
      a->result += part->data == b->data + first * b->unit;
      tdl_counted_drop(&part->counted);
    }
  }
  tdl_counted_drop(&b->counted); /* this thread's */
  return NULL;
}

static void the_last_to_let_go_frees_the_memory(void) {
  actor actors[THREADS];
  unsigned seed = check_seed();
  for (int round = 0; round < 20; round++) {
    tdl_buffer *b;
    CHECK(tdl_buffer_new("uint64_t", 8, round % 2 ? 100 : 20000, &b) == 0);
    for (int i = 1; i < THREADS; i++) {
      tdl_counted_hold(&b->counted);
    }
    CHECK(run_all(actors, pass_around, b, seed + (unsigned)round));
    for (int i = 0; i < THREADS; i++) {
      CHECK(actors[i].result == 2000);
    }
  }
}

/* What a state's wait is made of, with a flag in the place of the inbox. */
typedef struct sleeper {
  tdl_wait wait; /* first */
  tdl_waiter waiter;
  atomic_int told;
} sleeper;

static void tell(tdl_wait *wait) {
  sleeper *s = (sleeper *)wait;
  /* [told] release: the waker is done with the sleeper */
  atomic_store_explicit(&s->told, 1, memory_order_release);
}

static void be_told(sleeper *s) {
  /* [told] acquire: see tell */
  while (!atomic_load_explicit(&s->told, memory_order_acquire)) {
    sched_yield();
  }
}

static void init_sleeper(sleeper *s) {
  memset(s, 0, sizeof(*s));
  s->wait.tell = tell;
  s->waiter.wait = &s->wait;
}

static void who_waits_is_woken_in_order_and_by_address(void) {
  sleeper sleepers[4];
  uint32_t words[64] = {0};
  for (int i = 0; i < 4; i++) {
    init_sleeper(&sleepers[i]);
    CHECK(!tdl_atomics_wait(&words[i == 1], 4, 0, &sleepers[i].waiter));
  }
  CHECK(tdl_atomics_wait(&words[0], 4, 7, &sleepers[0].waiter) == 1);
  CHECK(tdl_atomics_notify(&words[2], 9) == 0);
  CHECK(tdl_atomics_notify(&words[0], 1) == 1 && sleepers[0].told);
  CHECK(tdl_wait_give_up(&sleepers[2].wait)); /* passed over */
  CHECK(tdl_atomics_notify(&words[0], 1) == 1 && sleepers[3].told);
  CHECK(!sleepers[1].told && !sleepers[2].told);
  tdl_atomics_leave(&sleepers[2].waiter);
  CHECK(tdl_atomics_notify(&words[0], 9) == 0);
  CHECK(tdl_atomics_notify(&words[1], 9) == 1 && sleepers[1].told);
}

static void only_the_integers_own_bytes_are_compared(void) {
  uint8_t bytes[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  sleeper s;
  init_sleeper(&s);
  CHECK(!tdl_atomics_wait(&bytes[1], 1, UINT64_MAX - 0xfd, &s.waiter));
  tdl_atomics_leave(&s.waiter);
  CHECK(tdl_atomics_wait(&bytes[1], 1, 3, &s.waiter));
  CHECK(!tdl_atomics_wait(bytes, 2, 0x0201, &s.waiter));
  tdl_atomics_leave(&s.waiter);
  CHECK(tdl_atomics_notify(bytes, 9) == 0);
}

/* A semaphore of an integer: at most one thread is inside. `inside` is plain on
** purpose: ThreadSanitizer sees whether the integer orders it. Now and then a
** thread gives up, and passes on what it was granted meanwhile. */
typedef struct semaphore {
  int32_t word; /* how many may enter */
  char gap[60];
  long inside, entered;
} semaphore;

enum { ENTRIES = 3000 };

static void enter(actor *a, semaphore *sem) {
  FUNCTIONS(int32_t) ops = functions_of("int32_t");
  for (;;) {
    int32_t seen = ops->load(&sem->word);
    sleeper s;
    if (seen > 0) {
      if (ops->compare_exchange(&sem->word, seen, seen - 1) == seen) {
        return;
      }
      continue;
    }
    init_sleeper(&s);
    if (tdl_atomics_wait(&sem->word, 4, 0, &s.waiter)) {
      continue;
    }
    if (next_random(&a->random) % 4 == 0 && tdl_wait_give_up(&s.wait)) {
      tdl_atomics_leave(&s.waiter);
      a->result++;
    } else {
      be_told(&s);
    }
  }
}

static void *enter_often(void *arg) {
  actor *a = arg;
  semaphore *sem = a->shared;
  FUNCTIONS(int32_t) ops = functions_of("int32_t");
  for (int i = 0; i < ENTRIES; i++) {
    enter(a, sem);
    sem->inside++;
    sem->entered += sem->inside == 1;
    sem->inside--;
    ops->add(&sem->word, 1);
    tdl_atomics_notify(&sem->word, 1);
  }
  return NULL;
}

static void no_wake_up_is_lost(void) {
  actor actors[THREADS];
  semaphore sem = {1, {0}, 0, 0};
  CHECK(run_all(actors, enter_often, &sem, check_seed()));
  CHECK(sem.entered == (long)THREADS * ENTRIES && sem.word == 1);
  CHECK(tdl_atomics_notify(&sem.word, UINT32_MAX) == 0);
}

int main(void) {
  RUN(a_buffer_is_zeroed_aligned_and_as_long_as_asked);
  RUN(a_buffer_that_no_machine_holds_is_refused);
  RUN(a_slice_keeps_the_memory_and_lies_in_it);
  RUN(a_buffer_for_processes_is_known_by_its_descriptor);
  RUN(what_is_no_buffers_memory_is_not_adopted);
#ifdef TDL_TEST_ALLOC
  RUN(without_memory_nothing_is_made_and_nothing_lost);
#endif
  RUN(integers_of_each_width_give_their_old_value);
  RUN(a_counter_loses_nothing);
  RUN(the_last_to_let_go_frees_the_memory);
  RUN(who_waits_is_woken_in_order_and_by_address);
  RUN(only_the_integers_own_bytes_are_compared);
  RUN(no_wake_up_is_lost);
  return check_any_failed;
}
