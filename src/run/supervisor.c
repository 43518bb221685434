#include "supervisor.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>

#include "../base/alloc.h"
#include "../base/stall.h"
#include "pool.h"

/* One for the process. `life` guards users and running, and is held while the
** thread ends, so that the next pool finds it gone; `lock`, taken after it,
** guards the rest. */
static struct {
  pthread_mutex_t life;
  pthread_mutex_t lock;
  pthread_cond_t changed; /* an earlier deadline, or the end */
  int users;
  int running; /* written with both locks, while there are users */
  int stop;
  pthread_t thread;
  tdl_job **heap; /* heap[1] is due first; job->heap_index is its place */
  uint32_t count, room;
} sv = {.life = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER};

/* --- the heap: a binary heap with places, as in any textbook -------------- */

static void put_locked(uint32_t i, tdl_job *job) {
  sv.heap[i] = job;
  job->heap_index = i;
}

static void up_locked(uint32_t i, tdl_job *job) {
  while (i > 1 && sv.heap[i / 2]->deadline_ns > job->deadline_ns) {
    put_locked(i, sv.heap[i / 2]);
    i /= 2;
  }
  put_locked(i, job);
}

static void down_locked(uint32_t i, tdl_job *job) {
  for (;;) {
    uint32_t child = i * 2;
    if (child < sv.count &&
        sv.heap[child + 1]->deadline_ns < sv.heap[child]->deadline_ns) {
      child++;
    }
    if (child > sv.count || sv.heap[child]->deadline_ns >= job->deadline_ns) {
      break;
    }
    put_locked(i, sv.heap[child]);
    i = child;
  }
  put_locked(i, job);
}

static void remove_locked(tdl_job *job) {
  uint32_t i = job->heap_index;
  tdl_job *last = sv.heap[sv.count--];
  job->heap_index = 0;
  if (last != job) {
    up_locked(i, last);
    down_locked(last->heap_index, last);
  }
}

/* --- the thread ----------------------------------------------------------- */

static void expire_locked(uint64_t now) {
  while (sv.count > 0 && sv.heap[1]->deadline_ns <= now) {
    tdl_job *job = sv.heap[1];
    remove_locked(job);
    TDL_STALL();
    if (tdl_pool_settle(job)) {
      TDL_STALL();
      job->expiring = 1; /* S2 */
      job->expiry.kind = TDL_NODE_EXPIRED;
      tdl_loop_post(job->home, &job->expiry);
    }
  }
}

static void *thread_main(void *arg) {
  (void)arg;
  prctl(PR_SET_NAME, "treadle");
  pthread_mutex_lock(&sv.lock);
  while (!sv.stop) {
    if (sv.count == 0) {
      pthread_cond_wait(&sv.changed, &sv.lock);
    } else {
      uint64_t at = sv.heap[1]->deadline_ns;
      struct timespec t = {(time_t)(at / 1000000000u),
                           (long)(at % 1000000000u)};
      pthread_cond_timedwait(&sv.changed, &sv.lock, &t);
    }
    expire_locked(tdl_now_ns());
  }
  pthread_mutex_unlock(&sv.lock);
  return NULL;
}

static int start_locked(void) {
  pthread_condattr_t attr;
  sigset_t all, old;
  int error;
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_cond_init(&sv.changed, &attr);
  pthread_condattr_destroy(&attr);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  error = pthread_create(&sv.thread, NULL, thread_main, NULL);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  if (error != 0) {
    pthread_cond_destroy(&sv.changed);
    return TREADLE_ESYSTEM;
  }
  sv.running = 1;
  sv.stop = 0;
  return 0;
}

/* --- for the homes -------------------------------------------------------- */

void tdl_supervisor_hold(void) {
  pthread_mutex_lock(&sv.life);
  sv.users++;
  pthread_mutex_unlock(&sv.life);
}

static void end_thread(void) {
  pthread_mutex_lock(&sv.lock);
  sv.stop = 1;
  pthread_cond_signal(&sv.changed);
  pthread_mutex_unlock(&sv.lock);
  pthread_join(sv.thread, NULL);
  pthread_cond_destroy(&sv.changed);
  tdl_free(sv.heap);
  sv.heap = NULL;
  sv.count = sv.room = 0;
  sv.running = 0;
}

void tdl_supervisor_drop(void) {
  pthread_mutex_lock(&sv.life);
  if (--sv.users == 0 && sv.running) {
    end_thread();
  }
  pthread_mutex_unlock(&sv.life);
}

int tdl_supervisor_watch(tdl_job *job) {
  int status = 0;
  pthread_mutex_lock(&sv.lock);
  if (!sv.running) {
    status = start_locked();
  }
  if (status == 0 && sv.count + 1 >= sv.room) {
    uint32_t room = sv.room == 0 ? 64 : sv.room * 2;
    tdl_job **heap = tdl_realloc(sv.heap, room * sizeof(tdl_job *));
    if (heap == NULL) {
      status = TREADLE_ENOMEM;
    } else {
      sv.heap = heap;
      sv.room = room;
    }
  }
  if (status == 0) {
    job->expiring = 0;
    up_locked(++sv.count, job);
    if (job->heap_index == 1) {
      pthread_cond_signal(&sv.changed);
    }
  }
  pthread_mutex_unlock(&sv.lock);
  return status;
}

void tdl_supervisor_forget(tdl_job *job) {
  TDL_STALL();
  pthread_mutex_lock(&sv.lock);
  if (job->heap_index != 0 && sv.count > 0) {
    remove_locked(job);
  }
  pthread_mutex_unlock(&sv.lock);
}
