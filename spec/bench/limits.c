/* limits: what this machine can do at best, beside which the bench prints
** what treadle does. Shares no code with the runtime on purpose.
** Threads: each function starts the threads it needs, pins them, joins them;
**          the calling thread's own affinity stays as it was.
** Owns:    nothing between two calls.
** Fails:   with NaN (too few cores, no thread, no memory). */
#define _GNU_SOURCE 1
#include <errno.h>
#include <linux/futex.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LIMIT_API        __attribute__((visibility("default")))
#define LIMIT_LINE_BYTES 128
#define LIMIT_RING_CELLS 1024

#if defined(__x86_64__) || defined(__i386__)
#define limit_pause() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define limit_pause() __asm__ volatile("yield")
#else
#define limit_pause() ((void)0)
#endif

LIMIT_API double limit_now_s(void);
LIMIT_API double limit_cpu_s(void);
LIMIT_API double limit_children_cpu_s(void);
LIMIT_API double limit_resident_bytes(void);
LIMIT_API int limit_cores(void);
LIMIT_API double limit_sleep_until(double when_s);
LIMIT_API double limit_pingpong_s(int trips);
LIMIT_API double limit_futex_s(int trips, int same_core, double period_s,
                               double *cpu_share);
LIMIT_API double limit_ring_per_s(int items);
LIMIT_API double limit_threads_s(int threads);
LIMIT_API double limit_copy_bytes_per_s(size_t bytes, int copies);
LIMIT_API double limit_scale_s(double *data, size_t count, int threads);
LIMIT_API double limit_qsort_s(double *data, size_t count);

/* Clocks */

static double seconds(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

LIMIT_API double limit_now_s(void) {
  return seconds(CLOCK_MONOTONIC);
}

/* All threads of the process, user and system. */
LIMIT_API double limit_cpu_s(void) {
  return seconds(CLOCK_PROCESS_CPUTIME_ID);
}

/* All children that have ended and been waited for. */
LIMIT_API double limit_children_cpu_s(void) {
  struct rusage used;
  if (getrusage(RUSAGE_CHILDREN, &used) != 0) {
    return NAN;
  }
  return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
         (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
}

/* Sleeps to an instant of limit_now_s with the smallest timer slack the
** kernel offers (by default it adds 50 µs), and gives the slack back, since
** threads started later inherit it; returns the time after it. */
LIMIT_API double limit_sleep_until(double when_s) {
  struct timespec t;
  t.tv_sec = (time_t)when_s;
  t.tv_nsec = (long)((when_s - (double)t.tv_sec) * 1e9);
  prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {
  }
  prctl(PR_SET_TIMERSLACK, 0UL, 0UL, 0UL, 0UL);
  return limit_now_s();
}

/* Resident memory of the process; NaN where there is no /proc. */
LIMIT_API double limit_resident_bytes(void) {
  long size = 0;
  long resident = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (file == NULL) {
    return NAN;
  }
  int got = fscanf(file, "%ld %ld", &size, &resident);
  fclose(file);
  return got == 2 ? (double)resident * (double)sysconf(_SC_PAGESIZE) : NAN;
}

/* Cores */

LIMIT_API int limit_cores(void) {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

/* The index-th core that this process may use; -1 when there is none. */
static int core_at(int index) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) {
    return -1;
  }
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (CPU_ISSET((size_t)cpu, &set) && index-- == 0) {
      return cpu;
    }
  }
  return -1;
}

/* Two sides of one measurement */

struct pair {
  _Alignas(LIMIT_LINE_BYTES) _Atomic uint32_t ping;
  _Alignas(LIMIT_LINE_BYTES) _Atomic uint32_t pong;
  _Alignas(LIMIT_LINE_BYTES) _Atomic uint32_t ready;
  int trips;
  double period_s;
  double result_s;
  double cpu_share;
};

static int start_on(pthread_t *thread, int core, void *(*fn)(void *),
                    void *arg) {
  pthread_attr_t attr;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET((size_t)core, &set);
  if (pthread_attr_init(&attr) != 0) {
    return -1;
  }
  int status = pthread_attr_setaffinity_np(&attr, sizeof set, &set);
  if (status == 0) {
    status = pthread_create(thread, &attr, fn, arg);
  }
  pthread_attr_destroy(&attr);
  return status;
}

/* Runs far and near on two cores (or both on the first); near's result. The
** far side is started first, and near never waits for one that is missing. */
static double run_pair(struct pair *p, void *(*far)(void *),
                       void *(*near)(void *), int same_core) {
  pthread_t far_thread;
  pthread_t near_thread;
  int near_core = core_at(0);
  int far_core = same_core ? near_core : core_at(1);
  if (near_core < 0 || far_core < 0 ||
      start_on(&far_thread, far_core, far, p) != 0) {
    return NAN;
  }
  p->result_s = NAN;
  if (start_on(&near_thread, near_core, near, p) != 0) {
    abort(); /* the far side would wait for ever */
  }
  pthread_join(near_thread, NULL);
  pthread_join(far_thread, NULL);
  return p->result_s;
}

/* Cache-line ping-pong: both sides spin, the word's line moves over and back */

static void spin_for(_Atomic uint32_t *word, uint32_t value) {
  while (atomic_load_explicit(word, memory_order_acquire) != value) {
    limit_pause();
  }
}

static void *pingpong_far(void *arg) {
  struct pair *p = arg;
  atomic_store_explicit(&p->ready, 1, memory_order_release);
  for (uint32_t i = 1; i <= (uint32_t)p->trips; i++) {
    spin_for(&p->ping, i);
    atomic_store_explicit(&p->pong, i, memory_order_release);
  }
  return NULL;
}

static void *pingpong_near(void *arg) {
  struct pair *p = arg;
  spin_for(&p->ready, 1);
  double start = limit_now_s();
  for (uint32_t i = 1; i <= (uint32_t)p->trips; i++) {
    atomic_store_explicit(&p->ping, i, memory_order_release);
    spin_for(&p->pong, i);
  }
  p->result_s = (limit_now_s() - start) / p->trips;
  return NULL;
}

LIMIT_API double limit_pingpong_s(int trips) {
  struct pair p = {.trips = trips};
  return run_pair(&p, pingpong_far, pingpong_near, 0);
}

/* Futex: each side sleeps until the other wakes it */

static void futex_wait_for(_Atomic uint32_t *word, uint32_t value) {
  uint32_t seen;
  while ((seen = atomic_load_explicit(word, memory_order_acquire)) != value) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
  }
}

static void futex_set(_Atomic uint32_t *word, uint32_t value) {
  atomic_store_explicit(word, value, memory_order_release);
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void *futex_far(void *arg) {
  struct pair *p = arg;
  futex_set(&p->ready, 1);
  for (uint32_t i = 1; i <= (uint32_t)p->trips; i++) {
    futex_wait_for(&p->ping, i);
    futex_set(&p->pong, i);
  }
  return NULL;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a;
  double y = *(const double *)b;
  return (x > y) - (x < y);
}

static void *futex_near(void *arg) {
  struct pair *p = arg;
  double *took = malloc(sizeof *took * (size_t)p->trips);
  futex_wait_for(&p->ready, 1);
  double first = limit_now_s();
  double cpu = limit_cpu_s();
  double start = first;
  for (uint32_t i = 1; i <= (uint32_t)p->trips; i++) {
    if (p->period_s > 0) {
      start = limit_sleep_until(first + i * p->period_s);
    }
    futex_set(&p->ping, i);
    futex_wait_for(&p->pong, i);
    double end = limit_now_s();
    if (took != NULL) {
      took[i - 1] = end - start;
    }
    start = end;
  }
  p->cpu_share = (limit_cpu_s() - cpu) / (limit_now_s() - first);
  if (took != NULL) {
    qsort(took, (size_t)p->trips, sizeof *took, by_value);
    p->result_s = took[p->trips / 2];
  }
  free(took);
  return NULL;
}

/* The median round trip; with a period the near side sleeps between trips,
** and cpu_share (may be NULL) gets what both sides use of one core. */
LIMIT_API double limit_futex_s(int trips, int same_core, double period_s,
                               double *cpu_share) {
  struct pair p = {.trips = trips, .period_s = period_s, .cpu_share = NAN};
  double result = run_pair(&p, futex_far, futex_near, same_core);
  if (cpu_share != NULL) {
    *cpu_share = p.cpu_share;
  }
  return result;
}

/* Ring: one producer, one consumer, each with a copy of the other's index
** that it refreshes only when the ring looks full or empty */

struct ring {
  struct pair pair; /* first: run_pair's argument is the ring */
  _Alignas(LIMIT_LINE_BYTES) _Atomic uint32_t head;
  _Alignas(LIMIT_LINE_BYTES) _Atomic uint32_t tail;
  _Alignas(LIMIT_LINE_BYTES) uintptr_t sum;
  _Alignas(LIMIT_LINE_BYTES) uintptr_t cells[LIMIT_RING_CELLS];
};

static void *ring_far(void *arg) {
  struct ring *r = arg;
  uint32_t tail = 0;
  uint32_t head = 0;
  uintptr_t sum = 0;
  atomic_store_explicit(&r->pair.ready, 1, memory_order_release);
  while (tail != (uint32_t)r->pair.trips) {
    while (tail == head) {
      head = atomic_load_explicit(&r->head, memory_order_acquire);
    }
    sum += r->cells[tail % LIMIT_RING_CELLS];
    tail++;
    atomic_store_explicit(&r->tail, tail, memory_order_release);
  }
  r->sum = sum;
  return NULL;
}

static void *ring_near(void *arg) {
  struct ring *r = arg;
  uint32_t tail = 0;
  spin_for(&r->pair.ready, 1);
  double start = limit_now_s();
  for (uint32_t head = 0; head != (uint32_t)r->pair.trips; head++) {
    while (head - tail == LIMIT_RING_CELLS) {
      tail = atomic_load_explicit(&r->tail, memory_order_acquire);
    }
    r->cells[head % LIMIT_RING_CELLS] = head;
    atomic_store_explicit(&r->head, head + 1, memory_order_release);
  }
  while (tail != (uint32_t)r->pair.trips) {
    tail = atomic_load_explicit(&r->tail, memory_order_acquire);
  }
  r->pair.result_s = limit_now_s() - start;
  return NULL;
}

LIMIT_API double limit_ring_per_s(int items) {
  struct ring *r = aligned_alloc(LIMIT_LINE_BYTES, sizeof *r);
  if (r == NULL) {
    return NAN;
  }
  memset(r, 0, sizeof *r);
  r->pair.trips = items;
  double took = run_pair(&r->pair, ring_far, ring_near, 0);
  free(r);
  return items / took;
}

/* Threads: that many started, all alive at once, joined */

static void *thread_empty(void *arg) {
  return arg;
}

LIMIT_API double limit_threads_s(int threads) {
  pthread_t *list = malloc(sizeof *list * (size_t)threads);
  if (list == NULL) {
    return NAN;
  }
  int started = 0;
  double start = limit_now_s();
  while (started < threads &&
         pthread_create(&list[started], NULL, thread_empty, NULL) == 0) {
    started++;
  }
  for (int i = 0; i < started; i++) {
    pthread_join(list[i], NULL);
  }
  double took = limit_now_s() - start;
  free(list);
  return started == threads ? took : NAN;
}

/* Copies: between two buffers that were written before the clock starts */

LIMIT_API double limit_copy_bytes_per_s(size_t bytes, int copies) {
  char *from = mmap(NULL, 2 * bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (from == MAP_FAILED) {
    return NAN;
  }
  char *to = from + bytes;
  memset(from, 1, 2 * bytes);
  memcpy(to, from, bytes);
  double start = limit_now_s();
  for (int i = 0; i < copies; i++) {
    memcpy(to, from, bytes);
    __asm__ volatile("" : : "r"(to) : "memory");
  }
  double took = limit_now_s() - start;
  munmap(from, 2 * bytes);
  return (double)bytes * copies / took;
}

/* Loops: x = x / 2 + 1 for each double, by so many threads at once */

struct stretch {
  double *data;
  size_t count;
};

static void *scale_stretch(void *arg) {
  const struct stretch *s = arg;
  for (size_t i = 0; i < s->count; i++) {
    s->data[i] = 0.5 * s->data[i] + 1;
  }
  return NULL;
}

LIMIT_API double limit_scale_s(double *data, size_t count, int threads) {
  pthread_t list[64];
  struct stretch parts[64];
  double start = limit_now_s();
  int started = 0;
  while (started < threads && threads <= 64) {
    size_t from = count * (size_t)started / (size_t)threads;
    size_t to = count * ((size_t)started + 1) / (size_t)threads;
    parts[started] = (struct stretch){data + from, to - from};
    if (pthread_create(&list[started], NULL, scale_stretch, &parts[started]) !=
        0) {
      break;
    }
    started++;
  }
  for (int i = 0; i < started; i++) {
    pthread_join(list[i], NULL);
  }
  return started == threads ? limit_now_s() - start : NAN;
}

/* Sorting: what C has for it, on one core */

LIMIT_API double limit_qsort_s(double *data, size_t count) {
  double start = limit_now_s();
  qsort(data, count, sizeof *data, by_value);
  return limit_now_s() - start;
}
