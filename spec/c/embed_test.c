/* treadle.h, as a C program without a Lua state uses it. */
#include "treadle.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "embed_kit.h"

#if defined(__SANITIZE_THREAD__)
/* It delivers signals in the C library alone, where a state that is being closed
** cannot be stopped. */
#define FINALIZER "function() end"
#else
#define FINALIZER "function() while true do end end"
#endif

static const char module_text[] =
    "local treadle = require 'treadle'\n"
    "local M = {}\n"
    "function M.add(a, b) return a + b end\n"
    "function M.fail() error('wrong') end\n"
    "function M.emit(n) for i = 1, n do\n"
    "  if not treadle.emit(i) then return i end end end\n"
    "function M.wait(s) treadle.sleep(s) end\n"
    "function M.sum(t) local s = 0 for _, v in ipairs(t) do s = s + v end\n"
    "  return s, #t, t.name end\n"
    "function M.lock(address)\n" /* in C for as long as the test holds it */
    "  local ffi = require 'ffi'\n"
    "  ffi.cdef 'int pthread_mutex_lock(void *);'\n"
    "  ffi.cdef 'int pthread_mutex_unlock(void *);'\n"
    "  ffi.C.pthread_mutex_lock(ffi.cast('void *', address))\n"
    "  ffi.C.pthread_mutex_unlock(ffi.cast('void *', address))\n"
    "end\n"
    "function M.never(kept)\n"
    "  kept = newproxy(true)\n"
    "  getmetatable(kept).__gc = " FINALIZER "\n"
    "  while true do os.time() end\n"
    "end\n"
    "return M\n";

static char dir[] = "/tmp/treadle-embed-XXXXXX";
static char path[64], file[64];

static void write_module(const char *text) {
  FILE *f = fopen(file, "w");
  fputs(text, f);
  fclose(f);
}

static treadle_pool_options options(void) {
  treadle_pool_options o = {
      .module = "embed_tasks", .path = path, .threads = 2};
  return o;
}

static void a_call_goes_there_and_back(void) {
  treadle_pool_options o = options();
  treadle_loop *loop;
  treadle_pool *pool;
  treadle_call *call;
  outcome out;
  CHECK(treadle_loop_open(&loop) == 0);
  CHECK(treadle_pool_open(loop, &o, &pool, NULL, 0) == 0);
  CHECK(treadle_pool_task(pool, "nope") == TREADLE_EINVAL);
  CHECK(treadle_call_new(pool, 99, 0, &call) == TREADLE_EINVAL);
  CHECK(treadle_call_new(pool, treadle_pool_task(pool, "add"), 2, &call) == 0);
  treadle_put_number(treadle_arguments(call), 20);
  treadle_put_number(treadle_arguments(call), 22);
  out = run(loop, call);
  CHECK(out.status == 0 && out.number[0] == 42);
  treadle_pool_close(pool, -1);
  CHECK(out.calls == 1);
  treadle_loop_close(loop);
}

/* Nobody can read it from C: a note of its worker's finds that out. */
static void a_task_that_emits_does_not_wait_for_a_reader(void) {
  treadle_pool_options o = options();
  treadle_loop *loop;
  treadle_pool *pool;
  outcome out;
  CHECK(treadle_loop_open(&loop) == 0);
  CHECK(treadle_pool_open(loop, &o, &pool, NULL, 0) == 0);
  out = run(loop, begin_with(pool, "emit", 1e9));
  CHECK(out.status == 0 && out.number[0] >= 1 && out.number[0] < 1e9);
  treadle_pool_close(pool, -1);
  treadle_loop_close(loop);
}

static void tables_cross_and_errors_have_a_report(void) {
  treadle_pool_options o = options();
  double numbers[3] = {1, 2, 3.5};
  treadle_loop *loop;
  treadle_pool *pool;
  treadle_call *call;
  outcome sum = {0}, fail = {0}, late = {0};
  CHECK(treadle_loop_open(&loop) == 0);
  CHECK(treadle_pool_open(loop, &o, &pool, NULL, 0) == 0);
  CHECK(treadle_call_new(pool, treadle_pool_task(pool, "sum"), 1, &call) == 0);
  treadle_put_table(treadle_arguments(call), 4, 1);
  treadle_put_number(treadle_arguments(call), 10);
  treadle_put_numbers(treadle_arguments(call), numbers, 3);
  treadle_put_string(treadle_arguments(call), "name", 4);
  treadle_put_string(treadle_arguments(call), "n\0me", 4);
  CHECK(treadle_submit(call, -1, keep, &sum) == 0);
  CHECK(treadle_submit(begin(pool, "fail"), -1, keep, &fail) == 0);
  CHECK(treadle_submit(begin_with(pool, "wait", 60), 0.01, keep, &late) == 0);
  treadle_pool_close(pool, -1); /* finishes what was accepted */
  CHECK(sum.status == 0 && sum.number[0] == 16.5 && sum.number[1] == 4);
  CHECK(fail.status == TREADLE_ETASK && strstr(fail.text, "wrong") != NULL);
  CHECK(late.calls == 1 && late.status == TREADLE_ETIMEOUT);
  treadle_loop_close(loop);
}

static void cancel_and_terminate_settle_each_call_once(void) {
  enum { COUNT = 200 };
  treadle_pool_options o = options();
  treadle_loop *loop;
  treadle_pool *pool;
  treadle_call *call[COUNT];
  outcome out[COUNT];
  memset(out, 0, sizeof(out));
  CHECK(treadle_loop_open(&loop) == 0);
  CHECK(treadle_pool_open(loop, &o, &pool, NULL, 0) == 0);
  for (int i = 0; i < COUNT; i++) {
    call[i] = begin_with(pool, "wait", 60);
    CHECK(treadle_submit(call[i], -1, keep, &out[i]) == 0);
  }
  for (int i = 0; i < COUNT; i += 2) {
    CHECK(treadle_cancel(call[i]) == 0);
  }
  treadle_pool_terminate(pool);
  for (int i = 0; i < COUNT; i++) {
    CHECK(out[i].calls == 1);
    CHECK(out[i].status == (i % 2 ? TREADLE_ECLOSED : TREADLE_ECANCELLED));
  }
  treadle_loop_close(loop);
}

static void the_counts_add_up_and_say_how_calls_ended(void) {
  treadle_pool_options o = options();
  treadle_loop *loop;
  treadle_pool *pool;
  treadle_call *call[4];
  outcome out[4];
  treadle_stats s;
  memset(out, 0, sizeof(out));
  o.threads = 1;
  CHECK(treadle_loop_open(&loop) == 0);
  CHECK(treadle_pool_open(loop, &o, &pool, NULL, 0) == 0);
  s = stats_of(pool);
  CHECK(s.submitted == 0 && s.running == 0 && s.uptime > 0);
  for (int i = 0; i < 4; i++) {
    static const char *const names[] = {"add", "fail", "wait", "wait"};
    int task = treadle_pool_task(pool, names[i]);
    CHECK(treadle_call_new(pool, task, 2, &call[i]) == 0);
    treadle_put_number(treadle_arguments(call[i]), 60);
    treadle_put_number(treadle_arguments(call[i]), 0);
    CHECK(treadle_submit(call[i], -1, keep, &out[i]) == 0);
  }
  while (out[1].calls == 0) {
    treadle_poll(loop, 1);
  }
  do { /* the third waits in the worker, the fourth for it */
    s = stats_of(pool);
    CHECK(s.submitted == 4 && s.queued + s.running == 2);
  } while (s.running != 1);
  CHECK(s.done == 1 && s.failed == 1 && s.cancelled == 0);
  CHECK(treadle_cancel(call[3]) == 0);
  s = stats_of(pool);
  CHECK(s.queued == 0 && s.running == 1 && s.cancelled == 1);
  CHECK(treadle_cancel(call[2]) == 0);
  s = stats_of(pool);
  CHECK(s.running == 0 && s.cancelled == 2 && s.submitted == 4);
  CHECK(s.written_off == 0 && s.utilisation >= 0 && s.utilisation <= 1);
  treadle_pool_close(pool, -1);
  treadle_loop_close(loop);
}

/* Ends a pool whose one worker is stuck in that task. */
static void terminate_stuck(treadle_loop *loop, const char *task,
                            const void *arg) {
  treadle_pool_options o = options();
  treadle_pool *pool;
  treadle_call *call;
  outcome out = {0};
  o.threads = 1;
  CHECK(treadle_pool_open(loop, &o, &pool, NULL, 0) == 0);
  call = begin_with(pool, task, (double)(uintptr_t)arg);
  CHECK(treadle_submit(call, -1, keep, &out) == 0);
  while (stats_of(pool).running == 0) {
    sched_yield();
  }
  treadle_pool_terminate(pool);
  CHECK(out.calls == 1 && out.status == TREADLE_ECLOSED);
}

/* A thread that was written off frees what it holds once it is back. */
static void wait_until_freed(long live) {
  while (tdl_alloc_live() != live) { /* less: freed twice */
    CHECK(tdl_alloc_live() > live);
    sched_yield();
  }
}

/* Its thread is written off, and frees the pool when it comes back. */
static void a_terminated_pool_is_freed_once_its_stuck_thread_returns(void) {
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  long live = tdl_alloc_live();
  treadle_loop *loop;
  CHECK(treadle_loop_open(&loop) == 0);
  CHECK(pthread_mutex_lock(&lock) == 0);
  terminate_stuck(loop, "lock", &lock);
  treadle_loop_close(loop);
  pthread_mutex_unlock(&lock);
  wait_until_freed(live);
}

/* Its finalizers do not run, those of the pool's handle neither. */
static void a_state_that_cannot_be_closed_leaves_no_part_of_its_pool(void) {
  long live = tdl_alloc_live();
  treadle_loop *loop;
  CHECK(treadle_loop_open(&loop) == 0);
  terminate_stuck(loop, "never", NULL);
  treadle_loop_close(loop);
  wait_until_freed(live);
}

static void count_done(int status, treadle_values *values, void *ctx) {
  int *done = ctx;
  (void)values;
  CHECK(status == 0);
  ++*done;
}

static void a_pool_changes_its_size_while_calls_are_under_way(void) {
  treadle_pool_options o = options();
  treadle_loop *loop;
  treadle_pool *pool;
  treadle_call *call;
  int add, done = 0, sent = 0;
  CHECK(treadle_loop_open(&loop) == 0);
  CHECK(treadle_pool_open(loop, &o, &pool, NULL, 0) == 0);
  add = treadle_pool_task(pool, "add");
  CHECK(treadle_pool_size(pool) == 2);
  CHECK(treadle_pool_resize(pool, 0, 0) == TREADLE_EINVAL);
  CHECK(treadle_pool_resize(pool, 3, 2) == TREADLE_EINVAL);
  CHECK(treadle_pool_resize(pool, 1, 1025) == TREADLE_EINVAL);
  CHECK(treadle_pool_size(pool) == 2);
  for (unsigned i = 0; i < 60; i++) {
    CHECK(treadle_call_new(pool, add, 2, &call) == 0);
    treadle_put_number(treadle_arguments(call), 20);
    treadle_put_number(treadle_arguments(call), 22);
    CHECK(treadle_submit(call, -1, count_done, &done) == 0);
    sent++;
    CHECK(treadle_pool_resize(pool, 1 + i % 5, 1 + i % 5) == 0);
    CHECK(treadle_pool_size(pool) == 1 + i % 5);
    treadle_poll(loop, 0);
  }
  CHECK(treadle_pool_resize(pool, 0, 3) == 0);
  CHECK(treadle_pool_size(pool) == 3);
  while (done < sent) {
    treadle_poll(loop, 1);
  }
  CHECK(treadle_pool_resize(pool, 1, 1) == 0);
  treadle_pool_close(pool, -1);
  CHECK(done == sent);
  treadle_loop_close(loop);
}

static void a_module_that_cannot_be_loaded_tells_why(void) {
  treadle_pool_options o = options();
  treadle_loop *loop;
  treadle_pool *pool;
  char error[300] = "";
  CHECK(treadle_loop_open(&loop) == 0);
  write_module("error('not today')");
  CHECK(treadle_pool_open(loop, &o, &pool, error, sizeof(error)) ==
        TREADLE_ELOAD);
  write_module(module_text);
  CHECK(strstr(error, "not today") != NULL);
  treadle_loop_close(loop);
}

static void the_descriptor_wakes_a_foreign_loop(void) {
  treadle_pool_options o = options();
  treadle_loop *loop;
  treadle_pool *pool;
  treadle_call *call;
  outcome out = {0};
  CHECK(treadle_loop_open(&loop) == 0);
  CHECK(treadle_pool_open(loop, &o, &pool, NULL, 0) == 0);
  for (int i = 0; i < 100; i++) {
    out.calls = 0;
    call = begin_with(pool, "wait", i % 10 == 0 ? 0.002 : 0);
    CHECK(treadle_submit(call, -1, keep, &out) == 0);
    while (out.calls == 0) {
      if (treadle_arm(loop) == 1) {
        struct pollfd p = {treadle_fd(loop), POLLIN, 0};
        CHECK(poll(&p, 1, 20000) == 1);
      }
      treadle_poll(loop, 0);
    }
  }
  treadle_pool_close(pool, -1);
  treadle_loop_close(loop);
}

int main(void) {
  if (mkdtemp(dir) == NULL) {
    puts("not ok a_directory_for_the_test_module");
    return 1;
  }
  snprintf(path, sizeof(path), "%s/?.lua", dir);
  snprintf(file, sizeof(file), "%s/embed_tasks.lua", dir);
  write_module(module_text);
  RUN(a_call_goes_there_and_back);
  RUN(a_task_that_emits_does_not_wait_for_a_reader);
  RUN(tables_cross_and_errors_have_a_report);
  RUN(cancel_and_terminate_settle_each_call_once);
  RUN(the_counts_add_up_and_say_how_calls_ended);
  RUN(a_terminated_pool_is_freed_once_its_stuck_thread_returns);
  RUN(a_state_that_cannot_be_closed_leaves_no_part_of_its_pool);
  RUN(a_pool_changes_its_size_while_calls_are_under_way);
  RUN(a_module_that_cannot_be_loaded_tells_why);
  RUN(the_descriptor_wakes_a_foreign_loop);
  unlink(file);
  rmdir(dir);
  return check_any_failed;
}
