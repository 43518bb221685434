/* watchdog: ends a stress test that makes no progress, and shows why: a lost
** wake-up is a queue with work in it and everybody asleep.
** Threads: watchdog_progress is any thread's; a watched state belongs to its
**          host, and is looked at when nothing moves any more.
** Owns:    its thread.
** Fails:   prints "not ok" and ends the process. */
#ifndef TDL_SPEC_WATCHDOG_H
#define TDL_SPEC_WATCHDOG_H

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bind/bind.h"
#include "queue/parker.h"
#include "run/vm.h"

/* The longest step there is takes 5 s: threads that terminate waits for. */
#ifndef WATCHDOG_SECONDS
#define WATCHDOG_SECONDS 40
#endif

#define WATCHDOG_STATES 8

/* What one host has now. A Lua host's pools are found through its binding. */
typedef struct watchdog_state {
  treadle_loop *loop;
  treadle_pool *pool;
  tdl_bind *bind;
  uint64_t calls, answers; /* the host's own count */
  const char *doing;
} watchdog_state;

static struct {
  pthread_t thread;
  pthread_mutex_t lock; /* guards the rest */
  pthread_cond_t ended;
  int end;
  const char *claim;
  watchdog_state states[WATCHDOG_STATES];
  _Atomic uint64_t progress; /* but not this */
} dog = {.lock = PTHREAD_MUTEX_INITIALIZER};

static inline void watchdog_progress(uint64_t n) {
  /* relaxed: a count */
  atomic_fetch_add_explicit(&dog.progress, n, memory_order_relaxed);
}

static const char *watchdog_parker(tdl_parker *p) {
  static const char *const names[] = {"awake", "asleep", "belled"};
  /* relaxed, here and below: nothing moves any more */
  return names[atomic_load_explicit(&p->state, memory_order_relaxed)];
}

static void watchdog_show_loop(const char *name, treadle_loop *loop) {
  printf("#   %s: %s, inbox %u (%s), %u jobs under way\n", name,
         watchdog_parker(&loop->parker), tdl_queue_length(&loop->inbox),
         tdl_queue_empty(&loop->inbox) ? "empty" : "not empty",
         loop->jobs.live);
}

static void watchdog_show_pool(treadle_pool *pool) {
  printf("#   pool: phase %d, queue %u (%s, %u spilled), searching %d, busy %d,"
         " alive %u\n#   idle:",
         tdl_pool_phase(pool), tdl_backlog_length(&pool->run),
         tdl_backlog_empty(&pool->run) ? "empty" : "not empty",
         atomic_load_explicit(&pool->run.normal.spilled, memory_order_relaxed),
         atomic_load_explicit(&pool->searching, memory_order_relaxed),
         atomic_load_explicit(&pool->busy, memory_order_relaxed), pool->alive);
  for (uint32_t w = 0; w * 64 < pool->threads; w++) {
    printf(" %016llx", (unsigned long long)atomic_load_explicit(
                           &pool->idle[w], memory_order_relaxed));
  }
  printf("\n");
  for (uint32_t i = 0; i < pool->threads; i++) {
    tdl_worker *w = pool->slots[i]->worker;
    char name[40];
    snprintf(name, sizeof(name), "worker %u", w->id);
    watchdog_show_loop(name, &w->loop);
    printf("#     lies idle %d, searching %d, resting %d, phase %d", //
           w->lies_idle, w->searching, w->resting, w->phase);
    if (w->vm != NULL) {
      printf(", %u jobs in progress (%u exempt of %u), turn %d", //
             w->vm->progress, w->vm->exempt, pool->concurrency, w->vm->turn);
    }
    printf("\n");
  }
}

static void watchdog_show(void) {
  printf("# no progress for %d s\n", WATCHDOG_SECONDS);
  for (int i = 0; i < WATCHDOG_STATES; i++) {
    watchdog_state *s = &dog.states[i];
    if (s->doing != NULL) {
      printf("# host %d: %s; %llu calls, %llu answers\n", i, s->doing,
             (unsigned long long)s->calls, (unsigned long long)s->answers);
    }
    if (s->loop != NULL) {
      watchdog_show_loop("loop", s->loop);
    }
    if (s->pool != NULL) {
      watchdog_show_pool(s->pool);
    }
    if (s->bind != NULL) {
      watchdog_show_loop("loop", s->bind->loop);
      for (tdl_handle *h = s->bind->pools; h != NULL; h = h->next) {
        watchdog_show_pool(h->pool);
      }
    }
  }
  printf("not ok %s\n", dog.claim);
  fflush(stdout);
}

static void *watchdog_main(void *arg) {
  uint64_t before = 0;
  int idle = 0;
  (void)arg;
  pthread_mutex_lock(&dog.lock);
  while (!dog.end) {
    /* relaxed: a count */
    uint64_t now = atomic_load_explicit(&dog.progress, memory_order_relaxed);
    struct timespec t;
    idle = now == before ? idle + 1 : 0;
    before = now;
    if (idle > WATCHDOG_SECONDS) {
      watchdog_show();
      _exit(1);
    }
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_sec++;
    pthread_cond_timedwait(&dog.ended, &dog.lock, &t);
  }
  pthread_mutex_unlock(&dog.lock);
  return NULL;
}

static void watchdog_start(const char *claim) {
  dog.end = 0;
  dog.claim = claim;
  memset(dog.states, 0, sizeof(dog.states));
  pthread_cond_init(&dog.ended, NULL);
  pthread_create(&dog.thread, NULL, watchdog_main, NULL);
}

static void watchdog_stop(void) {
  pthread_mutex_lock(&dog.lock);
  dog.end = 1;
  pthread_cond_signal(&dog.ended);
  pthread_mutex_unlock(&dog.lock);
  pthread_join(dog.thread, NULL);
  pthread_cond_destroy(&dog.ended);
}

#endif
