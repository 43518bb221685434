/* treadle.h: options of pools and calls, polling within a budget, stopping. */
#include "treadle.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "base/clock.h"
#include "check.h"
#include "embed_kit.h"

#if defined(__SANITIZE_THREAD__) /* delivers signals in the C library alone */
#define SPIN "while true do os.time() end"
#else
#define SPIN "while true do end"
#endif

static const char source[] =
    "local treadle = require 'treadle'\n"
    "local M, state, order = {}, 'new', {}\n"
    "function M.open() state = 'open ' .. treadle.worker.data.name end\n"
    "function M.state() return state end\n"
    "function M.count() M.n = (M.n or 0) + 1 return M.n end\n"
    "function M.note(x) order[#order + 1] = x end\n"
    "function M.notes() return table.concat(order, ' ') end\n"
    "function M.id() return treadle.worker.id end\n"
    "function M.name() return treadle.worker.name end\n"
    "function M.compiled() return (jit.status()) end\n"
    "function M.wait(s) treadle.sleep(s) end\n"
    "function M.spin() " SPIN " end\n"
    "function M.hog() local t = {} while true do t[#t + 1] = { #t } end end\n"
    "function M.say(s) return s end\n"
    "M.brief = treadle.task { fn = M.wait, timeout = 0.01 }\n"
    "M.urgent = treadle.task { fn = M.note, priority = 'high' }\n"
    "return M\n";

static treadle_pool_options options(void) {
  treadle_pool_options o = {
      .module = "game.tasks", .source = source, .threads = 1};
  return o;
}

static void wait_for_running(treadle_pool *pool, uint64_t n) {
  while (stats_of(pool).running != n) {
    sched_yield();
  }
}

/* --- pools ----------------------------------------------------------------------- */

static void a_wrong_option_is_named(void) {
  static const struct {
    treadle_pool_options options;
    const char *name;
  } wrong[] = {
      {{.module = NULL}, "module"},
      {{.module = "m", .timeout = -1}, "timeout"},
      {{.module = "m", .threads = 2, .max_threads = 2}, "threads"},
      {{.module = "m", .min_threads = 2}, "min_threads"},
      {{.module = "m", .threads = TREADLE_MAX_THREADS + 1}, "threads"},
      {{.module = "m", .max_payload = (size_t)1 << 32}, "max_payload"},
      {{.module = "m", .max_queue = (size_t)1 << 32}, "max_queue"},
  };
  treadle_loop *loop;
  treadle_pool *pool;
  CHECK(treadle_loop_open(&loop) == 0);
  for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
    char error[100] = "";
    CHECK(treadle_pool_open(loop, &wrong[i].options, &pool, error,
                            sizeof(error)) == TREADLE_EINVAL);
    CHECK(strstr(error, wrong[i].name) != NULL);
  }
  treadle_loop_close(loop);
}

static void a_source_that_does_not_compile_tells_why(void) {
  treadle_pool_options o = {.module = "game.tasks", .source = "return +"};
  treadle_loop *loop;
  treadle_pool *pool;
  char error[200] = "", little[5];
  CHECK(treadle_loop_open(&loop) == 0);
  CHECK(treadle_pool_open(loop, &o, &pool, error, sizeof(error)) ==
        TREADLE_ELOAD);
  CHECK(strstr(error, "game.tasks:1") != NULL);
  CHECK(treadle_pool_open(loop, &o, &pool, little, sizeof(little)) ==
        TREADLE_ELOAD);
  CHECK(strlen(little) == 4);
  o.source = "return { f = print }junk";
  o.source_length = strlen(o.source) - 4;
  o.threads = 1;
  CHECK(treadle_pool_open(loop, &o, &pool, NULL, 0) == 0);
  CHECK(treadle_pool_task_count(pool) == 1);
  CHECK(strcmp(treadle_pool_task_name(pool, 1), "f") == 0);
  CHECK(treadle_pool_task_name(pool, 0) == NULL);
  CHECK(treadle_pool_task_name(pool, 2) == NULL);
  treadle_pool_close(pool, -1);
  treadle_loop_close(loop);
}

static void workers_get_name_data_init_and_jit(void) {
  treadle_pool_options o = options();
  treadle_loop *loop;
  treadle_pool *pool;
  treadle_writer *w;
  treadle_buffer *b;
  CHECK(treadle_buffer_new("double", 10, &b) == 0);
  CHECK(treadle_writer_new(1, &w) == 0);
  o.data = w;
  CHECK(treadle_loop_open(&loop) == 0);
  CHECK(treadle_pool_open(loop, &o, &pool, NULL, 0) == TREADLE_EINVAL);
  treadle_put_table(w, 0, 2);
  treadle_put_text(w, "buffer");
  treadle_put_buffer(w, b);
  treadle_put_text(w, "name");
  treadle_put_text(w, "forest");
  o.name = "world";
  o.init = "open";
  o.jit = "off";
  CHECK(treadle_pool_open(loop, &o, &pool, NULL, 0) == 0);
  treadle_writer_free(w);
  treadle_buffer_drop(b);
  CHECK(strcmp(run(loop, begin(pool, "state")).text, "open forest") == 0);
  CHECK(strcmp(run(loop, begin(pool, "name")).text, "world") == 0);
  CHECK(run(loop, begin(pool, "compiled")).number[0] == 0);
  treadle_pool_close(pool, -1);
  o = options();
  o.jit = "maxtrace=100, hotloop=5";
  CHECK(treadle_pool_open(loop, &o, &pool, NULL, 0) == 0);
  treadle_pool_close(pool, -1);
  o.jit = "nonsense=1";
  CHECK(treadle_pool_open(loop, &o, &pool, NULL, 0) == TREADLE_ELOAD);
  o.jit = NULL;
  o.teardown = "nope";
  CHECK(treadle_pool_open(loop, &o, &pool, NULL, 0) == TREADLE_ELOAD);
  treadle_loop_close(loop);
}

static void states_are_isolated_recycled_and_limited(void) {
  treadle_pool_options o = options();
  treadle_loop *loop;
  treadle_pool *pool;
  CHECK(treadle_loop_open(&loop) == 0);
  o.isolate = 1;
  CHECK(treadle_pool_open(loop, &o, &pool, NULL, 0) == 0);
  CHECK(run(loop, begin(pool, "count")).number[0] == 1);
  CHECK(run(loop, begin(pool, "count")).number[0] == 1);
  treadle_pool_close(pool, -1);
  o = options();
  o.max_memory = (size_t)24 << 20;
  CHECK(treadle_pool_open(loop, &o, &pool, NULL, 0) == 0);
  CHECK(run(loop, begin(pool, "count")).number[0] == 1);
  CHECK(run(loop, begin(pool, "count")).number[0] == 2);
  treadle_pool_recycle(pool);
  while (stats_of(pool).restarts == 0) {
    treadle_poll(loop, 0.001);
  }
  CHECK(run(loop, begin(pool, "count")).number[0] == 1);
#if !defined(__SANITIZE_THREAD__) /* see SPIN */
  CHECK(run(loop, begin(pool, "hog")).status == TREADLE_ENOMEM);
  CHECK(run(loop, begin(pool, "count")).number[0] == 1);
#endif
  treadle_pool_close(pool, -1);
  treadle_loop_close(loop);
}

static void a_full_queue_refuses_and_says_when_there_is_room(void) {
  treadle_pool_options o = options();
  treadle_loop *loop;
  treadle_pool *pool;
  treadle_call *first, *call;
  outcome out[4];
  memset(out, 0, sizeof(out));
  CHECK(treadle_loop_open(&loop) == 0);
  CHECK(treadle_pool_open(loop, &o, &pool, NULL, 0) == 0);
  CHECK(treadle_pool_room(pool) == (size_t)-1);
  treadle_pool_close(pool, -1);
  o.max_queue = 1;
  CHECK(treadle_pool_open(loop, &o, &pool, NULL, 0) == 0);
  CHECK(treadle_pool_room(pool) == 2); /* one runs, one waits */
  first = begin_with(pool, "wait", 60);
  CHECK(treadle_submit(first, -1, keep, &out[0]) == 0);
  call = begin_with(pool, "wait", 0);
  CHECK(treadle_submit(call, -1, keep, &out[1]) == 0);
  CHECK(treadle_submit(begin(pool, "id"), -1, keep, &out[2]) ==
        TREADLE_EQUEUEFULL);
  CHECK(out[2].calls == 0);
  CHECK(treadle_pool_room(pool) == 0);
  CHECK(treadle_cancel(first) == 0);
  while (treadle_pool_room(pool) == 0) {
    treadle_poll(loop, -1); /* ends when there is room */
  }
  CHECK(treadle_submit(begin(pool, "id"), -1, keep, &out[3]) == 0);
  treadle_pool_close(pool, -1);
  CHECK(out[1].status == 0 && out[3].status == 0 && out[3].calls == 1);
  o.max_queue = TREADLE_NO_QUEUE;
  CHECK(treadle_pool_open(loop, &o, &pool, NULL, 0) == 0);
  CHECK(treadle_pool_room(pool) == 1);
  treadle_pool_close(pool, -1);
  treadle_loop_close(loop);
}

static void a_pool_grows_for_calls_that_wait(void) {
  treadle_pool_options o = options();
  treadle_loop *loop;
  treadle_pool *pool;
  treadle_call *call[3];
  outcome out[3];
  memset(out, 0, sizeof(out));
  o.threads = 0;
  o.max_threads = 3;
  o.idle_timeout = 60;
  CHECK(treadle_loop_open(&loop) == 0);
  CHECK(treadle_pool_open(loop, &o, &pool, NULL, 0) == 0);
  for (int i = 0; i < 3; i++) {
    call[i] = begin_with(pool, "wait", 60);
    CHECK(treadle_submit(call[i], -1, keep, &out[i]) == 0);
  }
  wait_for_running(pool, 3);
  CHECK(treadle_pool_size(pool) == 3);
  treadle_pool_terminate(pool);
  CHECK(out[0].calls == 1 && out[2].status == TREADLE_ECLOSED);
  treadle_loop_close(loop);
}

/* --- calls ------------------------------------------------------------------------ */

static void timeouts_are_the_calls_the_tasks_or_the_pools(void) {
  treadle_pool_options o = options();
  treadle_loop *loop;
  treadle_pool *pool;
  treadle_call *endless;
  outcome out[4];
  memset(out, 0, sizeof(out));
  o.timeout = 0.02;
  o.concurrency = 8;
  CHECK(treadle_loop_open(&loop) == 0);
  CHECK(treadle_pool_open(loop, &o, &pool, NULL, 0) == 0);
  CHECK(treadle_submit(begin_with(pool, "wait", 60), -1, keep, &out[0]) == 0);
  CHECK(treadle_submit(begin_with(pool, "brief", 60), -1, keep, &out[1]) == 0);
  CHECK(treadle_submit(begin_with(pool, "brief", 0), 60, keep, &out[2]) == 0);
  endless = begin_with(pool, "brief", 60);
  CHECK(treadle_submit(endless, TREADLE_NO_TIMEOUT, keep, &out[3]) == 0);
  while (out[0].calls + out[1].calls + out[2].calls < 3) {
    treadle_poll(loop, 1);
  }
  CHECK(out[0].status == TREADLE_ETIMEOUT && out[1].status == TREADLE_ETIMEOUT);
  CHECK(out[2].status == 0 && out[3].calls == 0);
  CHECK(treadle_cancel_with(endless, "no more", 0) == 0);
  CHECK(out[3].status == TREADLE_ECANCELLED);
  treadle_pool_close(pool, -1);
  treadle_loop_close(loop);
}

/* The only worker waits; what comes next is ordered in the queue. */
static void priorities_order_what_waits(void) {
  treadle_pool_options o = options();
  treadle_loop *loop;
  treadle_pool *pool;
  treadle_call *call, *first;
  outcome out;
  memset(&out, 0, sizeof(out));
  CHECK(treadle_loop_open(&loop) == 0);
  CHECK(treadle_pool_open(loop, &o, &pool, NULL, 0) == 0);
  first = begin_with(pool, "wait", 60);
  CHECK(treadle_submit(first, -1, keep, &out) == 0);
  wait_for_running(pool, 1);
  call = begin_with(pool, "note", 4);
  treadle_call_priority(call, TREADLE_LOW);
  CHECK(treadle_submit(call, -1, keep, &out) == 0);
  CHECK(treadle_submit(begin_with(pool, "note", 3), -1, keep, &out) == 0);
  CHECK(treadle_submit(begin_with(pool, "urgent", 1), -1, keep, &out) == 0);
  call = begin_with(pool, "note", 2);
  treadle_call_priority(call, TREADLE_HIGH);
  CHECK(treadle_submit(call, -1, keep, &out) == 0);
  CHECK(treadle_cancel(first) == 0);
  while (out.calls < 5) {
    treadle_poll(loop, 1);
  }
  CHECK(strcmp(run(loop, begin(pool, "notes")).text, "1 2 3 4") == 0);
  treadle_pool_close(pool, -1);
  treadle_loop_close(loop);
}

static void a_call_goes_to_the_worker_or_key_that_it_names(void) {
  treadle_pool_options o = options();
  treadle_loop *loop;
  treadle_pool *pool;
  treadle_call *call;
  outcome out = {0};
  unsigned seen = 0;
  o.threads = 3;
  CHECK(treadle_loop_open(&loop) == 0);
  CHECK(treadle_pool_open(loop, &o, &pool, NULL, 0) == 0);
  for (unsigned worker = 1; worker <= 3; worker++) {
    call = begin(pool, "id");
    treadle_call_worker(call, worker);
    CHECK(run(loop, call).number[0] == worker);
  }
  for (unsigned worker = 0; worker <= 4; worker += 4) {
    call = begin(pool, "id");
    treadle_call_worker(call, worker);
    CHECK(treadle_submit(call, -1, keep, &out) == TREADLE_EINVAL);
  }
  for (int k = 0; k < 20; k++) {
    char key[] = {(char)('a' + k)};
    double id = 0;
    for (int i = 0; i < 3; i++) {
      call = begin(pool, "id");
      treadle_call_key(call, key, 1);
      out = run(loop, call);
      CHECK(i == 0 || out.number[0] == id);
      id = out.number[0];
    }
    seen |= 1u << (unsigned)id;
  }
  CHECK(seen == 14); /* keys are spread over all three */
  treadle_pool_close(pool, -1);
  treadle_loop_close(loop);
}

static void cancelling_with_force_stops_what_computes(void) {
  treadle_pool_options o = options();
  treadle_loop *loop;
  treadle_pool *pool;
  treadle_call *call;
  outcome out = {0};
  CHECK(treadle_loop_open(&loop) == 0);
  CHECK(treadle_pool_open(loop, &o, &pool, NULL, 0) == 0);
  call = begin(pool, "spin");
  CHECK(treadle_submit(call, -1, keep, &out) == 0);
  wait_for_running(pool, 1);
  CHECK(treadle_cancel_with(call, "enough", 1) == 0);
  CHECK(out.calls == 1 && out.status == TREADLE_ECANCELLED);
  CHECK(run(loop, begin(pool, "id")).number[0] ==
        1); /* the worker is there again */
  CHECK(stats_of(pool).restarts == 1);
  treadle_pool_close(pool, -1);
  treadle_loop_close(loop);
}

static void what_has_not_started_can_be_cancelled_alone(void) {
  treadle_pool_options o = options();
  treadle_loop *loop;
  treadle_pool *pool;
  treadle_call *first;
  outcome one = {0}, others[5];
  memset(others, 0, sizeof(others));
  CHECK(treadle_loop_open(&loop) == 0);
  CHECK(treadle_pool_open(loop, &o, &pool, NULL, 0) == 0);
  first = begin_with(pool, "wait", 60);
  CHECK(treadle_submit(first, -1, keep, &one) == 0);
  wait_for_running(pool, 1);
  for (int i = 0; i < 5; i++) {
    CHECK(treadle_submit(begin(pool, "id"), -1, keep, &others[i]) == 0);
  }
  CHECK(treadle_pool_cancel_pending(pool, "the level is over") == 5);
  CHECK(treadle_pool_cancel_pending(pool, NULL) == 0);
  while (others[4].calls == 0) {
    treadle_poll(loop, 1);
  }
  CHECK(others[0].status == TREADLE_ECANCELLED);
  CHECK(strcmp(others[4].text, "the level is over") == 0);
  CHECK(one.calls == 0 && treadle_cancel(first) == 0);
  treadle_pool_close(pool, -1);
  treadle_loop_close(loop);
}

/* --- polling ---------------------------------------------------------------------- */

typedef struct frame {
  int calls;
  uint64_t busy_ns; /* what each callback takes */
} frame;

static void take_time(int status, treadle_values *values, void *ctx) {
  frame *f = ctx;
  uint64_t start = tdl_now_ns();
  (void)values;
  f->calls += status == 0;
  while (tdl_now_ns() - start < f->busy_ns) {
  }
}

/* Of the only worker's results all but the last are here when that one is
** counted. */
static int fill(treadle_pool *pool, frame *f, int count) {
  uint64_t done = stats_of(pool).done + (uint64_t)count + 1;
  for (int i = 0; i <= count; i++) {
    if (treadle_submit(begin(pool, "id"), -1, take_time, f) != 0) {
      return 0;
    }
  }
  while (stats_of(pool).done < done) {
    sched_yield();
  }
  return 1;
}

static void a_budget_ends_a_poll_and_the_rest_comes_later(void) {
  enum { COUNT = 50 };
  treadle_pool_options o = options();
  treadle_loop *loop;
  treadle_pool *pool;
  frame f = {0, 2000000};
  int polls = 0;
  CHECK(treadle_loop_open(&loop) == 0);
  CHECK(treadle_poll_for(loop, 1e9) == 0); /* never blocks: nothing can come */
  CHECK(treadle_ready(loop) == 0 && treadle_next_timeout(loop) < 0);
  CHECK(treadle_pool_open(loop, &o, &pool, NULL, 0) == 0);
  CHECK(fill(pool, &f, COUNT));
  CHECK(f.calls == 0 && treadle_ready(loop) == 1);
  CHECK(treadle_poll_for(loop, 0) == 1 && f.calls <= 1);
  CHECK(treadle_fd(loop) >= 0 && treadle_arm(loop) == 0); /* there is more */
  while (f.calls < COUNT) {
    int before = f.calls, n = treadle_poll_for(loop, 0.003);
    CHECK(n >= 1 && f.calls - before <= n);
    CHECK(f.calls - before <= 2); /* the third would begin after 4 ms */
    polls++;
  }
  CHECK(polls >= (COUNT - 1) / 2);
  f.busy_ns = 0;
  CHECK(fill(pool, &f, COUNT));
  CHECK(treadle_poll_for(loop, 1e9) >= COUNT && f.calls >= 2 * COUNT);
  treadle_pool_close(pool, -1);
  CHECK(f.calls == 2 * (COUNT + 1));
  treadle_loop_close(loop);
}

typedef struct waker {
  treadle_loop *loop;
  atomic_int stop;
} waker;

static void *wake(void *arg) {
  waker *w = arg;
  while (!atomic_load(&w->stop)) { /* it does nothing while nobody sleeps */
    treadle_wake(w->loop);
    sched_yield();
  }
  return NULL;
}

static void another_thread_ends_a_poll_that_blocks(void) {
  waker w = {.stop = 0};
  pthread_t thread;
  CHECK(treadle_loop_open(&w.loop) == 0);
  CHECK(pthread_create(&thread, NULL, wake, &w) == 0);
  CHECK(treadle_poll(w.loop, -1) == 0);
  atomic_store(&w.stop, 1);
  pthread_join(thread, NULL);
  treadle_loop_close(w.loop);
}

#ifdef TDL_TEST_ALLOC
static void out_of_memory_is_told_from_the_first_request_on(void) {
  treadle_pool_options o = options();
  treadle_loop *loop;
  treadle_pool *pool = NULL;
  CHECK(treadle_loop_open(&loop) == 0);
  for (long n = 0; n < 3; n++) {
    char error[100];
    memset(error, '?', sizeof(error));
    tdl_alloc_fail_in(TDL_ALLOC_OWN, n);
    CHECK(treadle_pool_open(loop, &o, &pool, error, sizeof(error)) ==
          TREADLE_ENOMEM);
    CHECK(strcmp(error, treadle_status_text(TREADLE_ENOMEM)) == 0);
  }
  tdl_alloc_fail_in(TDL_ALLOC_OWN, -1);
  CHECK(pool == NULL);
  treadle_loop_close(loop);
}
#endif

int main(void) {
  RUN(a_wrong_option_is_named);
  RUN(a_source_that_does_not_compile_tells_why);
  RUN(workers_get_name_data_init_and_jit);
  RUN(states_are_isolated_recycled_and_limited);
  RUN(a_full_queue_refuses_and_says_when_there_is_room);
  RUN(a_pool_grows_for_calls_that_wait);
  RUN(timeouts_are_the_calls_the_tasks_or_the_pools);
  RUN(priorities_order_what_waits);
  RUN(a_call_goes_to_the_worker_or_key_that_it_names);
  RUN(cancelling_with_force_stops_what_computes);
  RUN(what_has_not_started_can_be_cancelled_alone);
  RUN(a_budget_ends_a_poll_and_the_rest_comes_later);
  RUN(another_thread_ends_a_poll_that_blocks);
#ifdef TDL_TEST_ALLOC
  RUN(out_of_memory_is_told_from_the_first_request_on);
#endif
  return check_any_failed;
}
