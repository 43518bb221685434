#include "trace.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/compiler.h"
#include "loop.h"
#include "trace_file.h"
#include "worker.h"

/* Places: the home's, the workers', everybody's. */
#define COMMON (TDL_POOL_MAX_WORKERS + 1)
#define PLACES (TDL_POOL_MAX_WORKERS + 2)

/* R4: a sample's time in the upper bits, in units of 128 ns (39 hours of them),
** and the depth in the lower ones. */
#define DEPTH_BITS 24
#define DEPTH_MASK ((1u << DEPTH_BITS) - 1)
#define TICK_BITS  7

typedef struct buffer {
  struct buffer *next;
  uint32_t count;
  tdl_trace_event events[TDL_TRACE_EVENTS];
} buffer;

typedef struct place {
  _Alignas(TDL_LINE_BYTES) _Atomic(buffer *) buffer; /* R2 */
} place;

static const _Alignas(buffer) char busy = 0; /* its address: R2 */
#define BUSY ((buffer *)(uintptr_t)&busy)

struct tdl_trace {
  const struct treadle_loop *home; /* to be compared with */
  place *places;
  atomic_int refs; /* R1 */
  /* written by the home before the bit of the watch is set */
  atomic_int on;
  _Atomic uint64_t first; /* R3 */
  _Atomic uint64_t start_ns;
  _Atomic uint64_t lost;
  _Alignas(TDL_LINE_BYTES) _Atomic uint64_t calls; /* the last number (R3) */
  _Alignas(TDL_LINE_BYTES) _Atomic uint64_t depth; /* R4 */
  /* under the lock */
  pthread_mutex_t lock;
  pthread_cond_t full;    /* one was given to the writer, or `ends` */
  pthread_cond_t written; /* there are fewer */
  buffer *first_full, **last_full, *empty;
  uint32_t waiting; /* full ones */
  int ends;
  /* the writer's, and the home's when there is no writer */
  pthread_t writer;
  int has_file;
  tdl_trace_file file;
};

/* --- life ------------------------------------------------------------------ */

tdl_trace *tdl_trace_new(const struct treadle_loop *home) {
  tdl_trace *t = tdl_alloc_aligned(TDL_LINE_BYTES, sizeof(*t));
  if (t == NULL) {
    return NULL;
  }
  t->places = tdl_alloc_pages(PLACES * sizeof(place));
  if (t->places == NULL) {
    tdl_free(t);
    return NULL;
  }
  t->home = home;
  atomic_init(&t->refs, 1);
  pthread_mutex_init(&t->lock, NULL);
  pthread_cond_init(&t->full, NULL);
  pthread_cond_init(&t->written, NULL);
  t->last_full = &t->first_full;
  return t;
}

void tdl_trace_hold(tdl_trace *t) {
  /* relaxed: the holder has a reference already */
  atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
}

void tdl_trace_drop(tdl_trace *t) {
  /* [refs] acq_rel: the last one sees what all the others did */
  if (atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) == 1) {
    pthread_cond_destroy(&t->written);
    pthread_cond_destroy(&t->full);
    pthread_mutex_destroy(&t->lock);
    tdl_free_pages(t->places, PLACES * sizeof(place));
    tdl_free(t);
  }
}

int tdl_trace_is_on(const tdl_trace *t) {
  return atomic_load_explicit(&t->on, memory_order_relaxed); /* R2 orders it */
}

/* --- the writer ------------------------------------------------------------ */

static void write_buffer(tdl_trace *t, const buffer *b) {
  /* relaxed: it was set before the writer was started */
  uint64_t start = atomic_load_explicit(&t->start_ns, memory_order_relaxed);
  for (uint32_t i = 0; i < b->count; i++) {
    if (b->events[i].ts >= start) {
      tdl_trace_file_put(&t->file, &b->events[i]);
    }
  }
  tdl_trace_file_flush(&t->file);
}

static void *writer_main(void *arg) {
  tdl_trace *t = arg;
  prctl(PR_SET_NAME, "treadle trace");
  pthread_mutex_lock(&t->lock);
  while (t->first_full != NULL || !t->ends) {
    buffer *b = t->first_full;
    if (b == NULL) {
      pthread_cond_wait(&t->full, &t->lock);
      continue;
    }
    t->first_full = b->next;
    if (t->first_full == NULL) {
      t->last_full = &t->first_full;
    }
    pthread_mutex_unlock(&t->lock);
    write_buffer(t, b);
    pthread_mutex_lock(&t->lock);
    b->next = t->empty;
    t->empty = b;
    t->waiting--;
    pthread_cond_broadcast(&t->written);
  }
  pthread_mutex_unlock(&t->lock);
  return NULL;
}

static void give_locked(tdl_trace *t, buffer *b) {
  b->next = NULL;
  *t->last_full = b;
  t->last_full = &b->next;
  t->waiting++;
  pthread_cond_signal(&t->full);
}

/* A recorder, which waits where the writer does not keep up. */
static void give(tdl_trace *t, buffer *b) {
  pthread_mutex_lock(&t->lock);
  give_locked(t, b);
  while (t->waiting > TDL_TRACE_BUFFERS && !t->ends) {
    pthread_cond_wait(&t->written, &t->lock);
  }
  pthread_mutex_unlock(&t->lock);
}

static buffer *new_buffer(tdl_trace *t) {
  buffer *b;
  pthread_mutex_lock(&t->lock);
  b = t->empty;
  if (b != NULL) {
    t->empty = b->next;
  }
  pthread_mutex_unlock(&t->lock);
  if (b == NULL) {
    b = tdl_alloc(sizeof(*b));
  }
  if (b != NULL) {
    b->count = 0;
  }
  return b;
}

/* --- recording ------------------------------------------------------------- */

/* R2: only a moment, but where it is `common` or being stopped */
static buffer *take(place *p) {
  buffer *b;
  /* [trace-place] acquire: what is in it, and that the recording is over */
  while ((b = atomic_exchange_explicit(&p->buffer, BUSY,
                                       memory_order_acquire)) == BUSY) {
    sched_yield();
  }
  return b;
}

static void put_back(place *p, buffer *b) {
  /* [trace-place] release: what is in it */
  atomic_store_explicit(&p->buffer, b, memory_order_release);
}

/* R5: the place is taken. */
static int is_recording(const tdl_trace *t) {
  /* [trace-on] acquire: `first` and `start_ns` are this recording's */
  return atomic_load_explicit(&t->on, memory_order_acquire);
}

static int is_known(const tdl_trace *t, uint64_t call) {
  /* relaxed: see is_recording */
  return call >= atomic_load_explicit(&t->first, memory_order_relaxed);
}

/* Returns what the place holds from now on. */
static buffer *append(tdl_trace *t, buffer *b, const tdl_trace_event *event) {
  if (b == NULL) {
    b = new_buffer(t);
  }
  if (b == NULL) {
    /* relaxed: read at the end */
    atomic_fetch_add_explicit(&t->lost, 1, memory_order_relaxed);
    return NULL;
  }
  b->events[b->count++] = *event;
  if (b->count == TDL_TRACE_EVENTS) {
    give(t, b);
    b = NULL;
  }
  return b;
}

static void record(tdl_trace *t, uint32_t at, const tdl_trace_event *event) {
  place *p = &t->places[at];
  buffer *b = take(p);
  if (is_recording(t)) {
    tdl_trace_event e = *event;
    if (e.call != 0 && !is_known(t, e.call)) {
      e.call = 0; /* R5 */
    }
    if (e.call == event->call || e.kind == TDL_TRACE_RUN) {
      b = append(t, b, &e);
    }
  }
  put_back(p, b);
}

void tdl_trace_put(tdl_trace *t, const tdl_trace_event *event) {
  record(t, event->tid, event);
}

void tdl_trace_put_common(tdl_trace *t, const tdl_trace_event *event) {
  record(t, COMMON, event);
}

uint64_t tdl_trace_number(const tdl_trace *t, const tdl_job *job) {
  return job->trace == t && is_known(t, job->call) ? job->call : 0; /* R5 */
}

/* The track and the place of a state of the pool's. */
static uint32_t place_of(const tdl_trace *t, const treadle_loop *loop) {
  return loop == t->home ? 0 : TDL_CONTAINER(loop, const tdl_worker, loop)->id;
}

/* R4; the place is taken. */
static void set_depth(tdl_trace *t, int by, tdl_trace_event *e) {
  /* relaxed: see is_recording */
  uint64_t start = atomic_load_explicit(&t->start_ns, memory_order_relaxed);
  /* relaxed: its own order of changes is all that counts */
  uint64_t old = atomic_load_explicit(&t->depth, memory_order_relaxed), now;
  uint64_t tick;
  do {
    tick = ((tdl_now_ns() - start) >> TICK_BITS) + 1;
    if (tick <= old >> DEPTH_BITS) {
      tick = (old >> DEPTH_BITS) + 1;
    }
    e->depth = (uint32_t)(((int64_t)(old & DEPTH_MASK) + by) & DEPTH_MASK);
    now = tick << DEPTH_BITS | e->depth;
  } while (!atomic_compare_exchange_weak_explicit(
      &t->depth, &old, now, memory_order_relaxed, memory_order_relaxed));
  e->ts = start + (tick << TICK_BITS);
}

static void change_depth(tdl_trace *t, uint32_t at, uint64_t call, int by) {
  place *p = &t->places[at];
  buffer *b = take(p);
  if (is_recording(t) && is_known(t, call)) {
    tdl_trace_event e = {.kind = TDL_TRACE_DEPTH};
    set_depth(t, by, &e);
    b = append(t, b, &e);
  }
  put_back(p, b);
}

void tdl_trace_call(tdl_trace *t, tdl_job *job, uint64_t since_ns) {
  tdl_trace_event e = {.ts = since_ns,
                       .task = tdl_job_task(job),
                       .tid = (uint16_t)place_of(t, job->home),
                       .kind = TDL_TRACE_CALL};
  tdl_trace_hold(t);
  job->trace = t;
  /* relaxed: no two are the same */
  job->call = atomic_fetch_add_explicit(&t->calls, 1, memory_order_relaxed) + 1;
  job->node.kind = TDL_NODE_WATCHED;
  e.call = job->call;
  change_depth(t, e.tid, job->call, 1);
  e.dur = tdl_now_ns() - since_ns;
  record(t, e.tid, &e);
}

static void forget(tdl_job *job) {
  tdl_trace *t = job->trace;
  job->trace = NULL;
  job->node.kind = TDL_NODE_HOME;
  tdl_trace_drop(t);
}

void tdl_trace_withdrawn(tdl_job *job) {
  tdl_trace *t = job->trace;
  tdl_trace_left_queue(t, job, TDL_TRACE_ANY);
  forget(job);
}

void tdl_trace_home(tdl_job *job, int is_told) {
  tdl_trace *t = job->trace;
  tdl_trace_event e = {.ts = tdl_now_ns(),
                       .task = tdl_job_task(job),
                       .call = tdl_trace_number(t, job),
                       .kind = TDL_TRACE_RESULT};
  if (is_told && e.call != 0 && tdl_trace_is_on(t)) {
    e.tid = (uint16_t)place_of(t, job->home);
    e.dur = tdl_now_ns() - e.ts;
    record(t, e.tid, &e);
  }
  forget(job);
}

void tdl_trace_left_queue(tdl_trace *t, const tdl_job *job, uint32_t tid) {
  if (job->trace == t) {
    change_depth(t, tid == TDL_TRACE_ANY ? COMMON : tid, job->call, -1);
  }
}

/* --- a recording ----------------------------------------------------------- */

int tdl_trace_start(tdl_trace *t, const char *path, const char *title,
                    const char *const *names, uint32_t count) {
  uint64_t now = tdl_now_ns();
  sigset_t all, old;
  int status = tdl_trace_file_open(&t->file, path, title, names, count, now),
      error;
  if (status != 0) {
    return status;
  }
  pthread_mutex_lock(&t->lock);
  t->ends = 0;
  pthread_mutex_unlock(&t->lock);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  error = pthread_create(&t->writer, NULL, writer_main, t);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  if (error != 0) {
    (void)tdl_trace_file_close(&t->file, 0);
    errno = error;
    return TREADLE_ESYSTEM;
  }
  t->has_file = 1;
  /* relaxed: [trace-on] hands them over */
  atomic_store_explicit(&t->lost, 0, memory_order_relaxed);
  atomic_store_explicit(&t->depth, 0, memory_order_relaxed);
  atomic_store_explicit(&t->start_ns, now, memory_order_relaxed);
  atomic_store_explicit(
      &t->first, atomic_load_explicit(&t->calls, memory_order_relaxed) + 1,
      memory_order_relaxed);
  /* [trace-on] release: see is_recording */
  atomic_store_explicit(&t->on, 1, memory_order_release);
  return 0;
}

void tdl_trace_stop(tdl_trace *t, tdl_trace_result *out) {
  memset(out, 0, sizeof(*out));
  if (!t->has_file) {
    return;
  }
  if (tdl_pool_forked()) { /* the others, and the file, are the parent's */
    t->has_file = 0;
    return;
  }
  /* [trace-place] relaxed: the exchanges below hand it over */
  atomic_store_explicit(&t->on, 0, memory_order_relaxed);
  for (uint32_t i = 0; i < PLACES; i++) {
    place *p = &t->places[i];
    buffer *b = take(p);
    put_back(p, NULL);
    if (b != NULL) {
      pthread_mutex_lock(&t->lock);
      give_locked(t, b);
      pthread_mutex_unlock(&t->lock);
    }
  }
  pthread_mutex_lock(&t->lock);
  t->ends = 1;
  pthread_cond_broadcast(&t->full);
  pthread_mutex_unlock(&t->lock);
  pthread_join(t->writer, NULL);
  pthread_mutex_lock(&t->lock);
  while (t->empty != NULL) {
    buffer *b = t->empty;
    t->empty = b->next;
    tdl_free(b);
  }
  pthread_mutex_unlock(&t->lock);
  t->has_file = 0;
  out->lost = atomic_load_explicit(&t->lost, memory_order_relaxed); /* above */
  out->events = t->file.events;
  out->error = tdl_trace_file_close(&t->file, out->lost);
}
