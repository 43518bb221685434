/* A process has no signal handler of treadle's before a thread must be
** interrupted, and then none but its own. Each test in a process of its own. */
#include "treadle.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#if defined(__SANITIZE_THREAD__) /* delivers signals in the C library alone */
#define SPIN "while true do os.time() end"
#else
#define SPIN "while true do end"
#endif

static const char module_text[] = "local treadle = require 'treadle'\n"
                                  "local M = {}\n"
                                  "function M.add(a, b) return a + b end\n"
                                  "function M.fail() error('wrong') end\n"
                                  "function M.wait(s) treadle.sleep(s) end\n"
                                  "function M.spin() " SPIN " end\n"
                                  "return M\n";

/* --- what the signals have ------------------------------------------------- */

#define SIGNALS 65

static void read_handlers(struct sigaction at[SIGNALS]) {
  memset(at, 0, SIGNALS * sizeof(*at));
  for (int s = 1; s < SIGNALS; s++) {
    sigaction(s, NULL, &at[s]); /* those of the C library itself are refused */
  }
}

static void foreign(int signal) {
  (void)signal;
}

/* How many are not what they were; `mine` counts those that are still `foreign`
** now. */
static int count_changed(const struct sigaction before[SIGNALS], int *mine) {
  struct sigaction now[SIGNALS];
  int changed = 0;
  read_handlers(now);
  *mine = 0;
  for (int s = 1; s < SIGNALS; s++) {
    /* the C library leaves the rest of a mask as it finds it */
    changed += memcmp(&now[s].sa_mask, &before[s].sa_mask, SIGNALS / 8) ||
               now[s].sa_flags != before[s].sa_flags ||
               now[s].sa_handler != before[s].sa_handler;
    *mine += now[s].sa_handler == foreign;
  }
  return changed;
}

/* --- a pool ---------------------------------------------------------------- */

typedef struct rig {
  treadle_loop *loop;
  treadle_pool *pool;
  int settled, status;
} rig;

static int rig_open(rig *r) {
  treadle_pool_options o = {
      .module = "signals", .source = module_text, .threads = 2};
  memset(r, 0, sizeof(*r));
  return treadle_loop_open(&r->loop) == 0 &&
         treadle_pool_open(r->loop, &o, &r->pool, NULL, 0) == 0;
}

static void rig_close(rig *r) {
  treadle_pool_close(r->pool, -1);
  treadle_loop_close(r->loop);
}

static void settled(int status, treadle_values *values, void *ctx) {
  rig *r = ctx;
  (void)values;
  r->settled++;
  r->status = status;
}

static treadle_call *submit(rig *r, const char *task, double number,
                            double timeout) {
  treadle_call *call;
  if (treadle_call_new(r->pool, treadle_pool_task(r->pool, task), 2, &call) !=
      0) {
    return NULL;
  }
  treadle_put_number(treadle_arguments(call), number);
  treadle_put_number(treadle_arguments(call), 2);
  return treadle_submit(call, timeout, settled, r) == 0 ? call : NULL;
}

/* The status with which that ends. */
static int run(rig *r, const char *task, double number, double timeout) {
  int before = r->settled;
  if (submit(r, task, number, timeout) == NULL) {
    return 1;
  }
  while (r->settled == before) {
    treadle_poll(r->loop, 1);
  }
  return r->status;
}

/* Has a task without an end started, and stopped; 1 when its worker has a fresh
** state. */
static int stop_one(rig *r) {
  treadle_call *call = submit(r, "spin", 0, -1);
  uint64_t before, after;
  treadle_stats stats;
  if (call == NULL) {
    return 0;
  }
  do {
    treadle_pool_stats(r->pool, &stats);
    treadle_poll(r->loop, 0.001);
  } while (stats.running == 0);
  before = stats.restarts;
  if (treadle_cancel_with(call, "enough", 1) != 0 ||
      r->status != TREADLE_ECANCELLED) {
    return 0;
  }
  do {
    treadle_pool_stats(r->pool, &stats);
    treadle_poll(r->loop, 0.001);
    after = stats.restarts;
  } while (after == before && stats.written_off == 0);
  return stats.written_off == 0;
}

/* Calls on the worker that was told to stop are served again. */
static int all_serve(rig *r) {
  for (int i = 0; i < 20; i++) {
    if (run(r, "add", i, -1) != 0) {
      return 0;
    }
  }
  return 1;
}

/* --- the tests -------------------------------------------------------------- */

static void calls_that_end_by_themselves_install_no_handler(void) {
  struct sigaction before[SIGNALS];
  treadle_call *call;
  int mine;
  rig r;
  read_handlers(before);
  CHECK(rig_open(&r));
  CHECK(count_changed(before, &mine) == 0);
  CHECK(all_serve(&r));
  CHECK(run(&r, "fail", 0, -1) == TREADLE_ETASK);
  call = submit(&r, "wait", 60, -1);
  CHECK(call != NULL && treadle_cancel(call) == 0);
  CHECK(all_serve(&r));
  CHECK(treadle_pool_resize(r.pool, 1, 1) == 0);
  CHECK(all_serve(&r));
  CHECK(count_changed(before, &mine) == 0);
  rig_close(&r);
  CHECK(count_changed(before, &mine) == 0);
}

static void a_task_that_must_be_stopped_takes_two_unused_signals(void) {
  struct sigaction before[SIGNALS];
  int mine;
  rig r;
  read_handlers(before);
  CHECK(rig_open(&r));
  CHECK(count_changed(before, &mine) == 0);
  CHECK(stop_one(&r));
  CHECK(count_changed(before, &mine) == 2);
  CHECK(stop_one(&r));
  CHECK(all_serve(&r));
  rig_close(&r);
  CHECK(rig_open(&r));
  CHECK(stop_one(&r));
  rig_close(&r);
  CHECK(count_changed(before, &mine) == 2);
}

/* Between the first pool and that moment somebody else takes those that it would
** have got. The workers that are there already can be stopped all the same. */
static void signals_that_others_have_taken_meanwhile_stay_theirs(void) {
  struct sigaction before[SIGNALS];
  int mine;
  rig r;
  CHECK(rig_open(&r));
  for (int s = SIGRTMAX - 4; s < SIGRTMAX; s++) {
    CHECK(signal(s, foreign) != SIG_ERR);
  }
  read_handlers(before);
  CHECK(stop_one(&r));
  CHECK(all_serve(&r));
  rig_close(&r);
  CHECK(count_changed(before, &mine) == 2 && mine == 4);
}

/* Who blocks a signal everywhere and fetches it is not to lose it, nor the
** process, to a worker. */
static void a_signal_that_the_host_waits_for_is_left_to_it(void) {
  int s = SIGRTMAX - 2;
  const struct timespec patience = {30, 0};
  sigset_t set;
  rig r;
  sigemptyset(&set);
  sigaddset(&set, s);
  CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
  CHECK(rig_open(&r));
  CHECK(kill(getpid(), s) == 0);
  CHECK(all_serve(&r));
  CHECK(sigtimedwait(&set, NULL, &patience) == s);
  CHECK(stop_one(&r));
  CHECK(kill(getpid(), s) == 0);
  CHECK(sigtimedwait(&set, NULL, &patience) == s);
  CHECK(all_serve(&r));
  rig_close(&r);
}

static void a_host_that_blocks_all_signals_can_stop_tasks(void) {
  sigset_t all;
  rig r;
  sigfillset(&all);
  CHECK(pthread_sigmask(SIG_SETMASK, &all, NULL) == 0);
  CHECK(rig_open(&r));
  CHECK(stop_one(&r));
  CHECK(all_serve(&r));
  rig_close(&r);
}

/* --- each in a process of its own ------------------------------------------- */

static void in_a_process(const char *name, void (*test)(void)) {
  int status = 1;
  pid_t pid;
  fflush(stdout);
  pid = fork();
  if (pid == 0) {
    check_run(name, test);
    fflush(stdout);
    _exit(check_any_failed);
  }
  while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status)) {
    printf("not ok %s: it died\n", name);
  }
  check_any_failed |= status != 0;
}

#define RUN_ALONE(test) in_a_process(#test, test)

int main(void) {
  RUN_ALONE(calls_that_end_by_themselves_install_no_handler);
  RUN_ALONE(a_task_that_must_be_stopped_takes_two_unused_signals);
  RUN_ALONE(signals_that_others_have_taken_meanwhile_stay_theirs);
  RUN_ALONE(a_signal_that_the_host_waits_for_is_left_to_it);
  RUN_ALONE(a_host_that_blocks_all_signals_can_stop_tasks);
  return check_any_failed;
}
