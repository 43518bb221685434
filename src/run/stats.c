#include "stats.h"

#include <pthread.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../treadle.h"

#define RUNNING_BIT ((uint64_t)1 << 63)

/* --- counts ---------------------------------------------------------------- */

static uint64_t look(const tdl_count *count) {
  /* [stats] acquire: pairs with the release of whoever counted (T2) */
  return atomic_load_explicit(count, memory_order_acquire);
}

static uint64_t own(const tdl_count *count) {
  return atomic_load_explicit(count, memory_order_relaxed); /* T1 */
}

static void set(tdl_count *count, uint64_t value) {
  /* [stats] release: as tdl_count_add */
  atomic_store_explicit(count, value, memory_order_release);
}

static void start_span(tdl_span *span, uint64_t now) {
  set(span, (now - own(span)) | RUNNING_BIT);
}

static void stop_span(tdl_span *span, uint64_t now) {
  uint64_t value = own(span);
  if (value & RUNNING_BIT) {
    set(span, now - (value & ~RUNNING_BIT));
  }
}

static uint64_t read_span(const tdl_span *span, uint64_t now) {
  uint64_t value = look(span), start = value & ~RUNNING_BIT;
  if (value & RUNNING_BIT) {
    return now > start ? now - start : 0;
  }
  return value;
}

static uint64_t read_clock(clockid_t clock, uint64_t otherwise) {
  struct timespec now;
  return clock_gettime(clock, &now) == 0
             ? (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec
             : otherwise;
}

/* --- life ------------------------------------------------------------------ */

int tdl_stats_new(tdl_stats **out) {
  tdl_stats *s = tdl_alloc_aligned(TDL_LINE_BYTES, sizeof(*s));
  if (s == NULL) {
    return TREADLE_ENOMEM;
  }
  s->opened_ns = tdl_now_ns();
  atomic_init(&s->refs, 1);
  *out = s;
  return 0;
}

void tdl_stats_hold(tdl_stats *s) {
  /* relaxed: the holder has a reference already */
  atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
}

static void free_times(tdl_task_tally *t) {
  /* relaxed: the last one to know it */
  tdl_times *times = atomic_load_explicit(&t->times, memory_order_relaxed);
  if (times != NULL) {
    tdl_histogram_fini(&times->run);
    tdl_histogram_fini(&times->wait);
    tdl_free(times);
  }
}

static void free_tasks(const tdl_stats *s, tdl_tally *t) {
  /* relaxed: the last one to know it */
  tdl_task_tally *tasks = atomic_load_explicit(&t->tasks, memory_order_relaxed);
  uint32_t count = atomic_load_explicit(&s->task_count, memory_order_relaxed);
  for (uint32_t i = 0; tasks != NULL && i < count; i++) {
    free_times(&tasks[i]);
  }
  free_times(&t->rest);
  tdl_free(tasks);
}

void tdl_stats_drop(tdl_stats *s) {
  /* [refs] acq_rel: the last one sees what all the others did */
  if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1) {
    return;
  }
  for (uint32_t i = 0; i < TDL_POOL_MAX_WORKERS; i++) {
    /* relaxed: the last one to know it */
    tdl_tally *t = atomic_load_explicit(&s->slot[i], memory_order_relaxed);
    while (t != NULL) {
      tdl_tally *older = t->older;
      free_tasks(s, t);
      tdl_free(t);
      t = older;
    }
  }
  free_tasks(s, &s->home);
  /* relaxed: as above */
  tdl_free((void *)atomic_load_explicit(&s->cut_off, memory_order_relaxed));
  tdl_free(s);
}

/* --- tallies --------------------------------------------------------------- */

static tdl_tally *newest(const tdl_stats *s, uint32_t worker) {
  /* [tally] acquire: pairs with the release in enter */
  return atomic_load_explicit(&s->slot[worker - 1], memory_order_acquire);
}

uint32_t tdl_stats_workers(const tdl_stats *s) {
  uint32_t n = 0;
  while (n < TDL_POOL_MAX_WORKERS && newest(s, n + 1) != NULL) {
    n++;
  }
  return n;
}

tdl_tally *tdl_stats_enter(tdl_stats *s, uint32_t worker) {
  tdl_tally *newer, *t = newest(s, worker);
  int free = 0;
  /* [tally] acquire: what its last writer left there */
  if (t != NULL &&
      atomic_compare_exchange_strong_explicit(
          &t->taken, &free, 1, memory_order_acquire, memory_order_relaxed)) {
    return t;
  }
  newer = tdl_alloc_aligned(TDL_LINE_BYTES, sizeof(*newer));
  if (newer != NULL) {
    newer->older = t;
    atomic_init(&newer->taken, 1);
    newer->calls.random = newer->spins.random = worker;
    /* [tally] release: readers find it whole */
    atomic_store_explicit(&s->slot[worker - 1], newer, memory_order_release);
  }
  return newer;
}

/* How many tasks there are: the first worker to know tells all. */
static uint32_t agree_on_tasks(tdl_stats *s, uint32_t count) {
  uint32_t known = 0;
  tdl_count *cut_off;
  /* relaxed: only the number; what has so many elements is published itself */
  if (!atomic_compare_exchange_strong_explicit(&s->task_count, &known, count,
                                               memory_order_relaxed,
                                               memory_order_relaxed)) {
    return known;
  }
  cut_off = tdl_calloc(count * sizeof(*cut_off));
  /* [stats] release: its zeros */
  atomic_store_explicit(&s->cut_off, cut_off, memory_order_release);
  return count;
}

static void make_tasks(tdl_tally *t, uint32_t count) {
  if (t->task_count == 0) {
    /* whole pairs of lines: what lies beside it is another thread's */
    tdl_task_tally *list =
        tdl_alloc_aligned(TDL_LINE_BYTES, (count + 1) / 2 * 2 * sizeof(*list));
    t->task_count = list != NULL ? count : 0;
    /* [stats] release: its zeros */
    atomic_store_explicit(&t->tasks, list, memory_order_release);
  }
}

void tdl_stats_begin_home(tdl_stats *s) {
  make_tasks(&s->home, tdl_stats_task_count(s));
}

static void start_clock(tdl_tally *t, clockid_t clock) {
  set(&t->cpu_base, own(&t->cpu));
  set(&t->cpu, (uint64_t)(uint32_t)clock | RUNNING_BIT);
}

void tdl_stats_begin(tdl_stats *s, tdl_tally *t, uint32_t tasks) {
  uint32_t count = agree_on_tasks(s, tasks + 1);
  clockid_t clock;
  make_tasks(t, count);
  if (own(&t->alive) & RUNNING_BIT) {
    return; /* a later state, or a process */
  }
  t->calls.gap = t->spins.gap = 1;
  t->short_spins = 0;
  start_span(&t->alive, tdl_now_ns());
  if (pthread_getcpuclockid(pthread_self(), &clock) == 0) {
    start_clock(t, clock);
  }
}

/* A written-off thread's time stands still. */
static uint64_t time_of(const tdl_tally *t, uint64_t now) {
  uint64_t lost = look(&t->lost_ns);
  return lost != 0 && lost < now ? lost : now;
}

void tdl_stats_end(tdl_tally *t) {
  uint64_t now = time_of(t, tdl_now_ns());
  stop_span(&t->idle, now);
  stop_span(&t->alive, now);
  if (own(&t->cpu) & RUNNING_BIT) {
    set(&t->cpu, own(&t->cpu_base) + read_clock(CLOCK_THREAD_CPUTIME_ID, 0));
  }
  /* [tally] release: to the next one to take it */
  atomic_store_explicit(&t->taken, 0, memory_order_release);
}

/* --- one call -------------------------------------------------------------- */

void tdl_stats_stamp(tdl_job *job, uint32_t weight) {
  job->timed |= TDL_JOB_STAMPED;
  job->weight = weight;
  job->submitted_ns = tdl_now_ns();
}

void tdl_stats_withdrawn(tdl_tally *t) {
  set(&t->submitted, own(&t->submitted) - 1);
}

/* NULL without memory. */
static tdl_times *times_of(tdl_task_tally *t) {
  /* relaxed: our own */
  tdl_times *times = atomic_load_explicit(&t->times, memory_order_relaxed);
  if (TDL_UNLIKELY(times == NULL)) {
    times = tdl_calloc(sizeof(*times));
    if (times != NULL) {
      tdl_histogram_init(&times->run);
      tdl_histogram_init(&times->wait);
      /* [stats] release: the zeros in it */
      atomic_store_explicit(&t->times, times, memory_order_release);
    }
  }
  return times;
}

void tdl_stats_waited(tdl_tally *tally, const tdl_job *job, uint64_t now) {
  tdl_times *times = times_of(tdl_tally_task(tally, tdl_job_task(job)));
  if (times != NULL) {
    tdl_histogram_record(&times->wait,
                         now > job->submitted_ns ? now - job->submitted_ns : 0,
                         job->weight);
  }
}

void tdl_stats_taken_back(tdl_tally *tally, const tdl_job *job) {
  tdl_count *started = &tdl_tally_task(tally, tdl_job_task(job))->started;
  set(started, own(started) - 1);
}

static int is_cancelled(int status) {
  return status == TREADLE_ECLOSED || status == TREADLE_ECANCELLED;
}

void tdl_stats_ended_badly(tdl_tally *tally, const tdl_job *job) {
  tdl_task_tally *t = tdl_tally_task(tally, tdl_job_task(job));
  tdl_count_add(is_cancelled(job->status) ? &t->cancelled : &t->failed, 1);
}

static void hint(tdl_stats *s, uint32_t task, uint8_t hurried) {
  _Atomic uint8_t *at = &s->hurried[task % TDL_STATS_HINTS];
  /* relaxed: a hint; and all who call share its line */
  if (atomic_load_explicit(at, memory_order_relaxed) != hurried) {
    atomic_store_explicit(at, hurried, memory_order_relaxed);
  }
}

void tdl_stats_ran(tdl_stats *s, tdl_tally *tally, const tdl_job *job,
                   uint64_t ns) {
  tdl_task_tally *t = tdl_tally_task(tally, tdl_job_task(job));
  tdl_times *times = times_of(t);
  if (times != NULL) {
    tdl_histogram_record(&times->run, ns, job->weight);
  }
  if (ns >= TDL_STATS_SHORT_NS) {
    t->streak = 0;
    hint(s, tdl_job_task(job), 0);
  } else if (++t->streak >= TDL_STATS_STREAK) {
    hint(s, tdl_job_task(job), 1);
  }
}

static void count_cut_off(tdl_stats *s, uint32_t task) {
  /* [stats] acquire: pairs with agree_on_tasks */
  tdl_count *cut_off = atomic_load_explicit(&s->cut_off, memory_order_acquire);
  if (cut_off != NULL && task < tdl_stats_task_count(s)) {
    tdl_count_share(&cut_off[task]);
  }
}

void tdl_stats_settled(tdl_stats *s, const tdl_job *job, int state,
                       int status) {
  int cancelled = is_cancelled(status);
  if (state == TDL_JOB_QUEUED) {
    tdl_count_share(
        &s->settled[cancelled ? TDL_QUEUED_CANCELLED : TDL_QUEUED_FAILED]);
  } else {
    tdl_count_share(
        &s->settled[cancelled ? TDL_RUNNING_CANCELLED : TDL_RUNNING_FAILED]);
    if (!cancelled) {
      count_cut_off(s, tdl_job_task(job));
    }
  }
}

void tdl_stats_refusing(tdl_stats *s) {
  tdl_count_share(&s->settled[TDL_REFUSED_STARTED]);
}

void tdl_stats_refused(tdl_stats *s) {
  tdl_count_share(&s->settled[TDL_RUNNING_CANCELLED]);
}

void tdl_stats_correct(tdl_tally *t, tdl_correction correction) {
  tdl_count_add(&t->corrected[correction], 1);
}

/* --- a worker's time ------------------------------------------------------- */

void tdl_stats_sleeps(tdl_tally *t, uint64_t now) {
  start_span(&t->idle, now);
}

void tdl_stats_awake(tdl_tally *t, uint64_t now) {
  stop_span(&t->idle, now);
}

void tdl_stats_spun(tdl_tally *t, uint64_t ns, uint32_t weight) {
  t->short_spins = ns < TDL_STATS_SHORT_NS ? t->short_spins + 1 : 0;
  tdl_count_add(&t->idle, ns * weight);
}

void tdl_stats_heap(tdl_tally *t, uint64_t bytes) {
  set(&t->heap_bytes, bytes);
}

void tdl_stats_process_begins(tdl_tally *t, pid_t pid) {
  clockid_t clock;
  t->far_began_ns = tdl_now_ns();
  if (!(own(&t->alive) & RUNNING_BIT)) {
    start_span(&t->alive, t->far_began_ns);
  }
  if (clock_getcpuclockid(pid, &clock) == 0) {
    start_clock(t, clock);
  }
}

void tdl_stats_process_says(tdl_tally *t, uint64_t idle, uint64_t heap_bytes) {
  uint64_t now = tdl_now_ns(), start = idle & ~RUNNING_BIT, most, ns;
  most = now - t->far_began_ns;
  ns = !(idle & RUNNING_BIT) ? idle : now > start ? now - start : 0;
  ns = t->far_base_ns + (ns < most ? ns : most);
  set(&t->far_idle, idle & RUNNING_BIT ? (now - ns) | RUNNING_BIT : ns);
  set(&t->heap_bytes, heap_bytes);
}

void tdl_stats_process_ends(tdl_tally *t) {
  uint64_t cpu = own(&t->cpu);
  stop_span(&t->far_idle, tdl_now_ns());
  t->far_base_ns = own(&t->far_idle);
  if (cpu & RUNNING_BIT) {
    cpu = read_clock((clockid_t)(uint32_t)cpu, 0);
    set(&t->cpu, own(&t->cpu_base) + cpu);
  }
}

/* --- the pool -------------------------------------------------------------- */

void tdl_stats_closed(tdl_stats *s, int abandoned) {
  set(&s->closed_ns, tdl_now_ns());
  if (abandoned) {
    /* relaxed: what they may still count is left out, sooner or later */
    atomic_store_explicit(&s->abandoned, 1, memory_order_relaxed);
  }
}

void tdl_stats_written_off(tdl_stats *s, tdl_tally *t) {
  set(&t->lost_ns, tdl_now_ns());
  tdl_count_share(&s->written_off);
}

void tdl_stats_restarted(tdl_stats *s) {
  tdl_count_share(&s->restarts);
}

/* --- reading --------------------------------------------------------------- */

uint32_t tdl_stats_task_count(const tdl_stats *s) {
  /* relaxed: see agree_on_tasks */
  return atomic_load_explicit(&s->task_count, memory_order_relaxed);
}

/* The tally's record of the task; NULL for none. */
static const tdl_task_tally *task_of(const tdl_stats *s, const tdl_tally *t,
                                     uint32_t task) {
  /* [stats] acquire: pairs with tdl_stats_begin */
  const tdl_task_tally *tasks =
      atomic_load_explicit(&t->tasks, memory_order_acquire);
  return tasks != NULL && task < tdl_stats_task_count(s) ? &tasks[task] : NULL;
}

typedef struct totals {
  uint64_t submitted, started, done, failed, cancelled;
  uint64_t corrected[TDL_CORRECTION_COUNT];
} totals;

static void add_ends(totals *sum, const tdl_task_tally *t) {
  sum->done += look(&t->done);
  sum->failed += look(&t->failed);
  sum->cancelled += look(&t->cancelled);
}

static void add_starts(totals *sum, const tdl_task_tally *t) {
  sum->started += look(&t->started);
}

static void add_tasks(const tdl_stats *s, const tdl_tally *t, totals *sum,
                      void (*add)(totals *sum, const tdl_task_tally *t)) {
  const tdl_task_tally *task;
  for (uint32_t i = 0; (task = task_of(s, t, i)) != NULL; i++) {
    add(sum, task);
  }
  add(sum, &t->rest);
}

static void add_corrections(totals *sum, const tdl_tally *t) {
  for (int i = 0; i < TDL_CORRECTION_COUNT; i++) {
    sum->corrected[i] += look(&t->corrected[i]);
  }
}

#define EACH_TALLY(s, t)                                                       \
  for (uint32_t each = 1, all = tdl_stats_workers(s); each <= all; each++)     \
    for (const tdl_tally *t = newest(s, each); t != NULL; t = t->older)

/* T2: against the order in which they are counted. */
static void count(const tdl_stats *s, totals *sum,
                  uint64_t settled[TDL_SETTLED_COUNT]) {
  add_corrections(sum, &s->home);
  EACH_TALLY(s, t) {
    add_corrections(sum, t);
  }
  add_tasks(s, &s->home, sum, add_ends);
  EACH_TALLY(s, t) {
    add_tasks(s, t, sum, add_ends);
  }
  for (int i = 0; i < TDL_SETTLED_COUNT; i++) { /* TDL_REFUSED_STARTED last */
    settled[i] = look(&s->settled[i]);
  }
  add_tasks(s, &s->home, sum, add_starts);
  EACH_TALLY(s, t) {
    add_tasks(s, t, sum, add_starts);
  }
  sum->submitted = look(&s->home.submitted);
  EACH_TALLY(s, t) {
    sum->submitted += look(&t->submitted);
  }
}

static void read_counts(const tdl_stats *s, tdl_stats_counts *out) {
  uint64_t settled[TDL_SETTLED_COUNT];
  totals sum = {0};
  int64_t running;
  count(s, &sum, settled);
  sum.started += settled[TDL_REFUSED_STARTED];
  running =
      (int64_t)(sum.started - sum.done - sum.failed - sum.cancelled -
                settled[TDL_RUNNING_FAILED] - settled[TDL_RUNNING_CANCELLED]);
  out->submitted = sum.submitted;
  out->queued = sum.submitted - sum.started - settled[TDL_QUEUED_FAILED] -
                settled[TDL_QUEUED_CANCELLED];
  if (running < 0) { /* T3 */
    out->queued += (uint64_t)running;
    running = 0;
  }
  out->running = (uint64_t)running;
  out->done = sum.done - sum.corrected[TDL_DONE_TO_FAILED] -
              sum.corrected[TDL_DONE_TO_CANCELLED];
  out->failed = sum.failed + settled[TDL_QUEUED_FAILED] +
                settled[TDL_RUNNING_FAILED] +
                sum.corrected[TDL_DONE_TO_FAILED] -
                sum.corrected[TDL_FAILED_TO_CANCELLED];
  /* relaxed: see tdl_stats_closed */
  if (atomic_load_explicit(&s->abandoned, memory_order_relaxed)) {
    out->queued = out->running = 0;
  }
  out->cancelled =
      out->submitted - out->queued - out->running - out->done - out->failed;
}

static void read_times(const tdl_tally *t, uint64_t now, uint64_t *busy,
                       uint64_t *alive) {
  uint64_t at = time_of(t, now);
  uint64_t all = read_span(&t->alive, at);
  uint64_t idle = read_span(&t->idle, at) + read_span(&t->far_idle, at);
  *busy += all > idle ? all - idle : 0;
  *alive += all;
}

void tdl_stats_read(const tdl_stats *s, tdl_stats_counts *out) {
  uint64_t closed = look(&s->closed_ns), now = tdl_now_ns();
  tdl_stats_counts counts = {0};
  read_counts(s, &counts);
  counts.written_off = look(&s->written_off);
  counts.restarts = look(&s->restarts);
  counts.uptime_ns = (closed != 0 ? closed : now) - s->opened_ns;
  EACH_TALLY(s, t) {
    read_times(t, now, &counts.busy_ns, &counts.alive_ns);
  }
  *out = counts;
}

int tdl_stats_is_closed(const tdl_stats *s) {
  return look(&s->closed_ns) != 0;
}

double tdl_stats_share(uint64_t busy_ns, uint64_t alive_ns) {
  return alive_ns == 0 ? 0 : (double)busy_ns / (double)alive_ns;
}

static uint64_t read_cpu(const tdl_tally *t) {
  uint64_t cpu = look(&t->cpu);
  while (cpu & RUNNING_BIT) {
    uint64_t base = look(&t->cpu_base);
    uint64_t ns = read_clock((clockid_t)(uint32_t)cpu, UINT64_MAX);
    if (look(&t->cpu) == cpu) {
      return ns != UINT64_MAX ? base + ns : base; /* gone without a word */
    }
    cpu = look(&t->cpu); /* it has just ended */
  }
  return cpu;
}

void tdl_stats_read_worker(const tdl_stats *s, uint32_t worker,
                           tdl_stats_worker *out) {
  const tdl_tally *t = newest(s, worker);
  uint64_t now = tdl_now_ns();
  totals sum = {0};
  memset(out, 0, sizeof(*out));
  if (t != NULL) {
    out->heap_bytes = look(&t->heap_bytes);
  }
  for (; t != NULL; t = t->older) {
    add_tasks(s, t, &sum, add_starts);
    read_times(t, now, &out->busy_ns, &out->alive_ns);
    out->cpu_ns += read_cpu(t);
  }
  out->jobs = sum.started;
}

void tdl_stats_read_task(const tdl_stats *s, uint32_t task,
                         tdl_stats_task *out) {
  /* [stats] acquire: pairs with agree_on_tasks */
  const tdl_count *cut_off =
      atomic_load_explicit(&s->cut_off, memory_order_acquire);
  const tdl_task_tally *t;
  totals sum = {0};
  memset(out, 0, sizeof(*out));
  if (cut_off != NULL && task < tdl_stats_task_count(s)) {
    out->failures = look(&cut_off[task]);
  }
  t = task_of(s, &s->home, task); /* not timed there */
  if (t != NULL) {
    add_ends(&sum, t);
  }
  EACH_TALLY(s, tally) {
    t = task_of(s, tally, task);
    if (t != NULL) {
      tdl_times *times;
      add_ends(&sum, t);
      /* [stats] acquire: pairs with times_of */
      times = atomic_load_explicit(&t->times, memory_order_acquire);
      if (times != NULL) {
        tdl_histogram_add(&out->run, &times->run);
        tdl_histogram_add(&out->wait, &times->wait);
      }
    }
  }
  out->failures += sum.failed;
  t = task_of(s, &s->home, task);
  if (t != NULL) {
    add_starts(&sum, t);
  }
  EACH_TALLY(s, tally) { /* T2 */
    t = task_of(s, tally, task);
    if (t != NULL) {
      add_starts(&sum, t);
    }
  }
  out->runs = sum.started;
}
