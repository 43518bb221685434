/* What a pool counts: alone, and in snapshots while calls run. */
#include "run/stats.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "check.h"
#include "run/pool.h"

static tdl_stats *stats;
static tdl_tally *tally;
static tdl_job job;

static void start(void) {
  memset(&job, 0, sizeof(job));
  tdl_stats_new(&stats);
  tally = tdl_stats_enter(stats, 1);
}

static tdl_stats_counts counts(void) {
  tdl_stats_counts c;
  tdl_stats_read(stats, &c);
  return c;
}

static void submit(uint32_t task) {
  tdl_job_set_task(&job, task);
  job.timed = 0;
  tdl_stats_submitted(stats, &stats->home, &job);
}

static void end_with(int status) {
  job.status = (int8_t)status;
  tdl_stats_started(tally, &job);
  tdl_stats_ended(tally, &job);
}

static int adds_up(const tdl_stats_counts *c) {
  return c->submitted < UINT64_MAX / 2 && c->queued <= c->submitted &&
         c->running <= c->submitted && c->done <= c->submitted &&
         c->failed <= c->submitted && c->cancelled <= c->submitted &&
         c->queued + c->running + c->done + c->failed + c->cancelled ==
             c->submitted;
}

static int are(uint64_t queued, uint64_t running, uint64_t done,
               uint64_t failed, uint64_t cancelled) {
  tdl_stats_counts c = counts();
  return adds_up(&c) && c.queued == queued && c.running == running &&
         c.done == done && c.failed == failed && c.cancelled == cancelled;
}

static void each_end_is_counted_as_what_it_is(void) {
  start();
  tdl_stats_begin(stats, tally, 3);
  CHECK(are(0, 0, 0, 0, 0));
  submit(1);
  CHECK(are(1, 0, 0, 0, 0));
  tdl_stats_started(tally, &job);
  CHECK(are(0, 1, 0, 0, 0));
  tdl_stats_ended(tally, &job);
  CHECK(are(0, 0, 1, 0, 0));
  submit(1);
  end_with(TREADLE_ETASK);
  submit(1);
  end_with(TREADLE_ECLOSED);
  CHECK(are(0, 0, 1, 1, 1));
  submit(2);
  tdl_stats_settled(stats, &job, TDL_JOB_QUEUED, TREADLE_ETIMEOUT);
  submit(2);
  tdl_stats_settled(stats, &job, TDL_JOB_QUEUED, TREADLE_ECANCELLED);
  CHECK(are(0, 0, 1, 2, 2));
  submit(2);
  tdl_stats_started(tally, &job);
  tdl_stats_settled(stats, &job, TDL_JOB_RUNNING, TREADLE_ECRASHED);
  submit(2);
  tdl_stats_started(tally, &job);
  tdl_stats_settled(stats, &job, TDL_JOB_RUNNING, TREADLE_ECLOSED);
  CHECK(are(0, 0, 1, 3, 3));
  submit(2);
  tdl_stats_refusing(stats);
  CHECK(are(0, 1, 1, 3, 3));
  tdl_stats_refused(stats);
  CHECK(are(0, 0, 1, 3, 4));
  submit(1);
  tdl_stats_withdrawn(&stats->home);
  CHECK(are(0, 0, 1, 3, 4) && counts().submitted == 8);
  tdl_stats_drop(stats);
}

static void what_the_home_learns_later_moves_a_call(void) {
  start();
  for (int i = 0; i < 3; i++) {
    submit(1);
    end_with(i < 2 ? 0 : TREADLE_ETASK);
  }
  CHECK(are(0, 0, 2, 1, 0));
  tdl_stats_correct(&stats->home, TDL_DONE_TO_FAILED);
  CHECK(are(0, 0, 1, 2, 0));
  tdl_stats_correct(&stats->home, TDL_DONE_TO_CANCELLED);
  CHECK(are(0, 0, 0, 2, 1));
  tdl_stats_correct(tally, TDL_FAILED_TO_CANCELLED);
  CHECK(are(0, 0, 0, 1, 2));
  tdl_stats_drop(stats);
}

static void a_call_settled_before_its_start_is_counted_is_queued_so_long(void) {
  start();
  submit(1);
  submit(1);
  tdl_stats_settled(stats, &job, TDL_JOB_RUNNING, TREADLE_ECANCELLED);
  CHECK(are(1, 0, 0, 0, 1)); /* T3: the other one */
  tdl_stats_started(tally, &job);
  CHECK(are(1, 0, 0, 0, 1));
  tdl_stats_drop(stats);
}

static void what_an_abandoned_pool_has_not_ended_is_cancelled(void) {
  start();
  submit(1);
  submit(1);
  tdl_stats_started(tally, &job);
  tdl_stats_closed(stats, 1);
  CHECK(are(0, 0, 0, 0, 2));
  CHECK(counts().uptime_ns == counts().uptime_ns); /* it stands still */
  tdl_stats_drop(stats);
}

static void tasks_are_counted_apart_and_those_beyond_are_in_the_sum(void) {
  tdl_stats_task t;
  start();
  tdl_stats_begin(stats, tally, 2);
  CHECK(tdl_stats_task_count(stats) == 3);
  for (uint32_t task = 0; task < 5; task++) {
    submit(task);
    end_with(task == 1 ? TREADLE_ETASK : 0);
  }
  submit(1);
  tdl_stats_started(tally, &job);
  tdl_stats_settled(stats, &job, TDL_JOB_RUNNING, TREADLE_ETIMEOUT);
  tdl_stats_read_task(stats, 1, &t);
  CHECK(t.runs == 2 && t.failures == 2);
  tdl_stats_read_task(stats, 2, &t);
  CHECK(t.runs == 1 && t.failures == 0);
  tdl_stats_read_task(stats, 3, &t);
  CHECK(t.runs == 0);
  CHECK(are(0, 0, 4, 2, 0));
  tdl_stats_drop(stats);
}

static void a_tally_goes_to_the_next_thread_once_its_own_has_ended(void) {
  tdl_tally *first;
  tdl_stats_worker w;
  start();
  first = tally;
  tdl_stats_begin(stats, tally, 1);
  submit(1);
  end_with(0);
  tdl_stats_heap(tally, 100);
  tdl_stats_end(tally);
  tally = tdl_stats_enter(stats, 1);
  CHECK(tally == first);
  tdl_stats_begin(stats, tally, 1);
  submit(1);
  end_with(0);
  tdl_stats_written_off(stats, tally); /* its thread goes on */
  tally = tdl_stats_enter(stats, 1);
  CHECK(tally != NULL && tally != first);
  tdl_stats_begin(stats, tally, 1);
  submit(1);
  end_with(0);
  tdl_stats_heap(tally, 300);
  CHECK(are(0, 0, 3, 0, 0) && counts().written_off == 1);
  tdl_stats_read_worker(stats, 1, &w);
  CHECK(w.jobs == 3 && w.heap_bytes == 300);
  tdl_stats_drop(stats);
}

static void the_time_of_a_written_off_thread_stands_still(void) {
  tdl_stats_worker before, after;
  uint64_t until;
  start();
  tdl_stats_begin(stats, tally, 1);
  tdl_stats_written_off(stats, tally);
  tdl_stats_read_worker(stats, 1, &before);
  for (until = tdl_now_ns() + 1000000; tdl_now_ns() < until;) {
  }
  tdl_stats_read_worker(stats, 1, &after);
  CHECK(before.alive_ns == after.alive_ns);
  tdl_stats_end(tally);
  tdl_stats_read_worker(stats, 1, &after);
  CHECK(before.alive_ns == after.alive_ns);
  tdl_stats_drop(stats);
}

static void a_worker_is_busy_when_it_neither_sleeps_nor_spins(void) {
  tdl_stats_worker w;
  uint64_t begun, now;
  start();
  begun = tdl_now_ns();
  tdl_stats_begin(stats, tally, 1);
  for (now = begun; now < begun + 3000000; now = tdl_now_ns()) {
  }
  tdl_stats_sleeps(tally, now - 2000000); /* two of three */
  tdl_stats_read_worker(stats, 1, &w);
  CHECK(w.alive_ns >= 2000000 && w.busy_ns + 2000000 <= w.alive_ns);
  tdl_stats_awake(tally, now);
  tdl_stats_read_worker(stats, 1, &w);
  CHECK(w.busy_ns + 2000000 == w.alive_ns);
  tdl_stats_spun(tally, 10000, 16);
  tdl_stats_read_worker(stats, 1, &w);
  CHECK(w.busy_ns + 2160000 == w.alive_ns);
  tdl_stats_end(tally);
  tdl_stats_read_worker(stats, 1, &w);
  now = w.alive_ns;
  tdl_stats_read_worker(stats, 1, &w);
  CHECK(w.alive_ns == now && w.cpu_ns > 0); /* its end is kept */
  tdl_stats_drop(stats);
}

/* A run of `ns` of a stamped job; 1 when it was stamped. */
static int run(uint32_t task, uint64_t ns) {
  submit(task);
  tdl_stats_started(tally, &job);
  if (job.timed & TDL_JOB_STAMPED) {
    tdl_stats_waited(tally, &job, job.submitted_ns);
    tdl_stats_ran(stats, tally, &job, ns);
  }
  tdl_stats_ended(tally, &job);
  return (job.timed & TDL_JOB_STAMPED) != 0;
}

static void of_what_a_process_says_no_more_is_believed_than_can_be(void) {
  uint64_t running = (uint64_t)1 << 63;
  tdl_stats_worker before, after;
  start();
  tdl_stats_process_begins(tally, getpid());
  tdl_stats_begin(stats, tally, 1);
  tdl_stats_process_says(tally, 0, 5);
  tdl_stats_read_worker(stats, 1, &before);
  CHECK(before.busy_ns == before.alive_ns && before.heap_bytes == 5);
  tdl_stats_process_says(tally, UINT64_MAX / 4, 6); /* idle for years */
  tdl_stats_read_worker(stats, 1, &after);
  CHECK(after.busy_ns <= after.alive_ns && after.heap_bytes == 6);
  tdl_stats_process_says(tally, running | 1, 7); /* and still is */
  tdl_stats_process_ends(tally);
  tdl_stats_process_begins(tally, getpid());
  tdl_stats_process_says(tally, 0, 8);
  tdl_stats_read_worker(stats, 1, &before);
  CHECK(before.busy_ns <= before.alive_ns && before.cpu_ns > 0);
  tdl_stats_process_says(tally, running | (running - 1), 9); /* not yet born */
  tdl_stats_read_worker(stats, 1, &after);
  CHECK(after.busy_ns >= before.busy_ns && after.busy_ns <= after.alive_ns);
  CHECK(after.cpu_ns >= before.cpu_ns);
  tdl_stats_process_ends(tally);
  tdl_stats_read_worker(stats, 1, &before);
  CHECK(before.cpu_ns >= after.cpu_ns); /* both processes' */
  tdl_stats_end(tally);
  tdl_stats_read_worker(stats, 1, &after);
  CHECK(after.cpu_ns == before.cpu_ns);
  tdl_stats_drop(stats);
}

static void long_runs_are_all_timed_and_short_ones_are_sampled(void) {
  enum { RUNS = 100000, LONG = TDL_STATS_SHORT_NS * 1000 };
  static tdl_stats_task t;
  long stamped = 0;
  start();
  tdl_stats_begin(stats, tally, 2);
  for (int i = 0; i < 1000; i++) {
    CHECK(run(1, LONG));
  }
  for (int i = 0; i < RUNS; i++) {
    stamped += run(2, 0);
  }
  tdl_stats_read_task(stats, 1, &t);
  CHECK(t.runs == 1000 && t.run.count == 1000 && t.wait.count == 1000);
  CHECK(tdl_histogram_percentile(&t.run, 0) >= LONG);
  tdl_stats_read_task(stats, 2, &t);
  CHECK(t.runs == RUNS && stamped < RUNS / 2);
  /* A sample stands for as many as were left out. */
  CHECK(t.run.count > RUNS / 10 * 9 && t.run.count < RUNS / 10 * 11);
  CHECK(t.wait.count == t.run.count);
  tdl_stats_drop(stats);
}

static void a_long_run_among_short_ones_has_all_timed_again(void) {
  start();
  tdl_stats_begin(stats, tally, 1);
  for (int i = 0; i < 100000 && run(1, 0); i++) {
  }
  submit(1); /* a sample, whose run turns out to be long */
  job.weight = TDL_STATS_GAP;
  tdl_stats_started(tally, &job);
  tdl_stats_ran(stats, tally, &job, TDL_STATS_SHORT_NS);
  CHECK(run(1, TDL_STATS_SHORT_NS));
  CHECK(run(1, TDL_STATS_SHORT_NS));
  tdl_stats_drop(stats);
}

static void samples_come_once_in_a_gap_and_in_no_pattern(void) {
  enum { TIMES = 100000, PERIODS = 8 };
  tdl_sampler s = {0, 0};
  long hits = 0, by_period[PERIODS] = {0};
  for (int i = 0; i < TIMES; i++) {
    if (tdl_sampler_hits(&s)) {
      hits++;
      by_period[i % PERIODS]++;
    }
  }
  CHECK(hits * 100 > TIMES / TDL_STATS_GAP * 95);
  CHECK(hits * 100 < TIMES / TDL_STATS_GAP * 105);
  for (int i = 0; i < PERIODS; i++) {
    CHECK(by_period[i] * 10 > hits / PERIODS * 8);
    CHECK(by_period[i] * 10 < hits / PERIODS * 12);
  }
}

#ifdef TDL_TEST_ALLOC
static void without_memory_it_counts(void) {
  tdl_stats_task t;
  start();
  tdl_alloc_fail_in(TDL_ALLOC_OWN, 1); /* the list of tasks */
  tdl_stats_begin(stats, tally, 2);
  CHECK(tdl_alloc_left(TDL_ALLOC_OWN) < 0);
  tdl_alloc_fail_in(TDL_ALLOC_OWN, 0); /* the times */
  CHECK(run(1, 0));
  CHECK(tdl_alloc_left(TDL_ALLOC_OWN) < 0);
  tdl_alloc_fail_in(TDL_ALLOC_OWN, -1);
  CHECK(are(0, 0, 1, 0, 0));
  tdl_stats_read_task(stats, 1, &t);
  CHECK(t.runs == 0);
  tdl_stats_end(tally);
  tally = tdl_stats_enter(stats, 1); /* the next one has it */
  tdl_stats_begin(stats, tally, 2);
  CHECK(run(1, 0));
  tdl_stats_read_task(stats, 1, &t);
  CHECK(t.runs == 1 && t.run.count == 1);
  CHECK(are(0, 0, 2, 0, 0));
  tdl_stats_drop(stats);
}
#endif

/* --- a pool ---------------------------------------------------------------- */

static const char module_text[] =
    "local treadle = require 'treadle'\n"
    "local M = {}\n"
    "function M.add(a) return a end\n"
    "function M.fail() error('wrong', 0) end\n"
    "function M.large() return ('x'):rep(20000) end\n"
    "function M.wait(s) treadle.sleep(s) end\n"
    "function M.nest(fails)\n"
    "  local call, sum = treadle.worker.pool.call, 0\n"
    "  for i = 1, 3 do sum = sum + call.add(i):await() end\n"
    "  if fails == 1 then call.fail():pawait() end\n"
    "  return sum end\n"
    "return M\n";

enum { ADD, FAIL, LARGE, WAIT, NEST, KINDS };
static const char *const kinds[KINDS] = {"add", "fail", "large", "wait",
                                         "nest"};

static char dir[] = "/tmp/treadle-stats-XXXXXX";
static char path[64], file[64];

typedef struct outcomes {
  long submitted, done, failed, cancelled, under_way;
} outcomes;

static outcomes seen;

static void count_outcome(int status, treadle_values *values, void *ctx) {
  treadle_call **place = ctx;
  (void)values;
  *place = NULL;
  seen.under_way--;
  seen.done += status == 0;
  seen.cancelled += status == TREADLE_ECLOSED || status == TREADLE_ECANCELLED;
  seen.failed +=
      status != 0 && status != TREADLE_ECLOSED && status != TREADLE_ECANCELLED;
}

static treadle_loop *loop;
static treadle_pool *pool;
static atomic_int watching;

static int open_pool(uint32_t threads) {
  treadle_pool_options o = {.module = "stats_tasks",
                            .path = path,
                            .threads = threads,
                            .concurrency = 20,
                            .max_payload = 10000};
  memset(&seen, 0, sizeof(seen));
  if (treadle_loop_open(&loop) != 0 ||
      treadle_pool_open(loop, &o, &pool, NULL, 0) != 0) {
    return 0;
  }
  stats = pool->stats;
  tdl_stats_hold(stats);
  return 1;
}

/* Any thread may look. Returns a text for what was wrong. */
static void *watch(void *arg) {
  tdl_stats_counts before = {0};
  (void)arg;
  while (atomic_load_explicit(&watching, memory_order_acquire)) {
    tdl_stats_counts c = counts();
    if (!adds_up(&c)) {
      return "a snapshot does not add up";
    }
    if (c.submitted < before.submitted) {
      return "submitted falls";
    }
    if (c.submitted - c.queued - c.running <
        before.submitted - before.queued - before.running) {
      return "what has ended begins again";
    }
    before = c;
  }
  return NULL;
}

static int call(int kind, double argument, double timeout,
                treadle_call **place) {
  if (treadle_call_new(pool, treadle_pool_task(pool, kinds[kind]), 1, place) !=
      0) {
    return 0;
  }
  treadle_put_number(treadle_arguments(*place), argument);
  seen.submitted++;
  seen.under_way++;
  return treadle_submit(*place, timeout, count_outcome, place) == 0;
}

static void poll_until_done(void) {
  while (seen.under_way > 0) {
    treadle_poll(loop, 1);
  }
}

enum { WINDOW = 300 };
static treadle_call *window[WINDOW];

/* Random calls with random ends; `nested`: tasks make calls, too. */
static int make_calls(int rounds, int nested, unsigned seed) {
  for (int i = 0; i < rounds; i++) {
    int k = rand_r(&seed) % WINDOW, kind = rand_r(&seed) % (KINDS - !nested);
    if (window[k] == NULL) {
      int has_timeout = kind == WAIT || rand_r(&seed) % 8 == 0;
      double timeout = has_timeout ? (rand_r(&seed) % 400) * 1e-6 : -1;
      if (!call(kind, kind == WAIT ? rand_r(&seed) % 1000 * 1e-6 : 0, timeout,
                &window[k])) {
        return 0;
      }
    } else if (rand_r(&seed) % 64 == 0) {
      treadle_cancel(window[k]); /* or it is too late */
    } else {
      treadle_poll(loop, 0);
    }
  }
  return 1;
}

static int is_what_was_seen(void) {
  tdl_stats_counts c = counts();
  printf("# submitted %lu: done %lu, failed %lu, cancelled %lu\n",
         (unsigned long)c.submitted, (unsigned long)c.done,
         (unsigned long)c.failed, (unsigned long)c.cancelled);
  return c.submitted == (uint64_t)seen.submitted &&
         are(0, 0, (uint64_t)seen.done, (uint64_t)seen.failed,
             (uint64_t)seen.cancelled);
}

static void snapshots_add_up_and_the_last_is_what_callers_saw(void) {
  pthread_t watcher;
  void *problem;
  CHECK(open_pool(2));
  atomic_store_explicit(&watching, 1, memory_order_release);
  CHECK(pthread_create(&watcher, NULL, watch, NULL) == 0);
  CHECK(make_calls(300000, 0, check_seed()));
  poll_until_done();
  CHECK(is_what_was_seen());
  treadle_pool_close(pool, -1);
  CHECK(is_what_was_seen());
  atomic_store_explicit(&watching, 0, memory_order_release);
  pthread_join(watcher, &problem);
  if (problem != NULL) {
    printf("# %s\n", (const char *)problem);
  }
  CHECK(problem == NULL);
  treadle_loop_close(loop);
  tdl_stats_drop(stats);
}

static void calls_of_workers_are_counted_as_well(void) {
  enum { CALLS = 300 };
  treadle_call *calls[CALLS];
  tdl_stats_task t;
  CHECK(open_pool(2));
  for (int i = 0; i < CALLS; i++) {
    CHECK(call(NEST, 1, -1, &calls[i]));
  }
  poll_until_done();
  CHECK(seen.done == CALLS);
  CHECK(are(0, 0, CALLS * 4, CALLS, 0));
  tdl_stats_read_task(stats, (uint32_t)treadle_pool_task(pool, "add"), &t);
  CHECK(t.runs == CALLS * 3 && t.failures == 0);
  tdl_stats_read_task(stats, (uint32_t)treadle_pool_task(pool, "fail"), &t);
  CHECK(t.runs == CALLS && t.failures == CALLS);
  treadle_pool_close(pool, -1);
  CHECK(are(0, 0, CALLS * 4, CALLS, 0));
  treadle_loop_close(loop);
  tdl_stats_drop(stats);
}

static void nothing_is_left_when_a_pool_is_terminated_in_the_middle(void) {
  unsigned seed = check_seed();
  for (int i = 0; i < 20; i++) {
    pthread_t watcher;
    void *problem;
    tdl_stats_counts c;
    long live = tdl_alloc_live();
    CHECK(open_pool(2));
    atomic_store_explicit(&watching, 1, memory_order_release);
    CHECK(pthread_create(&watcher, NULL, watch, NULL) == 0);
    CHECK(make_calls(3000, 1, seed++));
    treadle_pool_terminate(pool);
    CHECK(seen.under_way == 0);
    c = counts();
    CHECK(c.queued == 0 && c.running == 0 && adds_up(&c));
    CHECK(c.done >= (uint64_t)seen.done && c.failed >= (uint64_t)seen.failed &&
          c.cancelled >= (uint64_t)seen.cancelled);
    atomic_store_explicit(&watching, 0, memory_order_release);
    pthread_join(watcher, &problem);
    CHECK(problem == NULL);
    treadle_loop_close(loop);
    tdl_stats_drop(stats);
    while (tdl_alloc_live() != live) { /* a slow thread was written off */
      sched_yield();
    }
  }
}

int main(void) {
  FILE *f;
  RUN(each_end_is_counted_as_what_it_is);
  RUN(what_the_home_learns_later_moves_a_call);
  RUN(a_call_settled_before_its_start_is_counted_is_queued_so_long);
  RUN(what_an_abandoned_pool_has_not_ended_is_cancelled);
  RUN(tasks_are_counted_apart_and_those_beyond_are_in_the_sum);
  RUN(a_tally_goes_to_the_next_thread_once_its_own_has_ended);
  RUN(the_time_of_a_written_off_thread_stands_still);
  RUN(a_worker_is_busy_when_it_neither_sleeps_nor_spins);
  RUN(of_what_a_process_says_no_more_is_believed_than_can_be);
  RUN(long_runs_are_all_timed_and_short_ones_are_sampled);
  RUN(a_long_run_among_short_ones_has_all_timed_again);
  RUN(samples_come_once_in_a_gap_and_in_no_pattern);
#ifdef TDL_TEST_ALLOC
  RUN(without_memory_it_counts);
#endif
  if (mkdtemp(dir) == NULL) {
    puts("not ok a_directory_for_the_test_module");
    return 1;
  }
  snprintf(path, sizeof(path), "%s/?.lua", dir);
  snprintf(file, sizeof(file), "%s/stats_tasks.lua", dir);
  f = fopen(file, "w");
  fputs(module_text, f);
  fclose(f);
  RUN(snapshots_add_up_and_the_last_is_what_callers_saw);
  RUN(calls_of_workers_are_counted_as_well);
  RUN(nothing_is_left_when_a_pool_is_terminated_in_the_middle);
  unlink(file);
  rmdir(dir);
  return check_any_failed;
}
