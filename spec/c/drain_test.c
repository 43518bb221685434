/* The end of a pool: what was accepted is done first. */
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "codec/writer.h"
#include "run/phase.h"
#include "run/worker.h"

static char dir[] = "/tmp/treadle-drain-XXXXXX";
static char path[64], file[64];

typedef struct outcome {
  int calls, status;
} outcome;

static void keep(tdl_job *job, int status, const tdl_bytes *bytes, void *ctx) {
  outcome *o = ctx;
  (void)job;
  (void)bytes;
  o->calls++;
  o->status = status;
}

/* Until the worker, which has something in its inbox that it cannot take yet,
** has begun a turn and been about to sleep at its end; or the pool stops. Or
** it has had so many chances: who runs in turns with it (under valgrind) may
** never see the moment. */
static void let_it_turn(treadle_pool *pool, tdl_worker *w) {
  int times = 0;
  uint32_t before = TDL_AWAKE;
  for (int chances = 50000;
       times < 2 && chances > 0 && tdl_pool_phase(pool) != TDL_POOL_STOPPED;
       chances--) {
    uint32_t now =
        atomic_load_explicit(&w->loop.parker.state, memory_order_seq_cst);
    times += now == TDL_ASLEEP && before == TDL_AWAKE;
    before = now;
    sched_yield();
  }
}

static tdl_job *new_call(treadle_pool *pool, outcome *out) {
  tdl_job *job = tdl_jobs_take(&pool->home->jobs, pool->home);
  tdl_writer writer;
  if (job != NULL) {
    tdl_job_set_task(job, (uint32_t)treadle_pool_task(pool, "one"));
    job->done = keep;
    job->ctx = out;
    tdl_put_begin(&writer, &job->bytes, pool->max_payload, 0);
    if (tdl_put_end(&writer) != 0 || tdl_pool_prepare(pool, job) != 0) {
      return NULL;
    }
  }
  return job;
}

static void a_call_behind_a_half_done_push_is_run_before_the_end(void) {
  treadle_pool_options o = {
      .module = "drain_tasks", .path = path, .threads = 1};
  outcome out = {0, 1};
  treadle_loop *loop;
  treadle_pool *pool;
  tdl_worker *worker;
  tdl_ring *ring;
  tdl_job *first, *second;
  enum tdl_pool_phase phase;
  CHECK(treadle_loop_open(&loop) == 0);
  CHECK(treadle_pool_open(loop, &o, &pool, NULL, 0) == 0);
  worker = pool->slots[0]->worker;
  ring = &pool->slots[0]->calls.ring;
  first = new_call(pool, &out);
  second = new_call(pool, &out);
  CHECK(first != NULL && second != NULL);

  /* who pushes the first call has its place, and is stopped there */
  CHECK(atomic_fetch_add(&ring->tail, 1) == 0);
  tdl_pool_submit_to(second, 1);
  tdl_pool_stop(pool, TDL_POOL_DRAINING);
  let_it_turn(pool, worker);
  phase = tdl_pool_phase(pool);
  /* and goes on */
  atomic_store(&ring->cells[0].item, (void *)&first->node);
  atomic_store(&ring->cells[0].turn, 1);
  tdl_parker_wake(&worker->loop.parker);
  treadle_pool_close(pool, -1);
  treadle_loop_close(loop);
  CHECK(phase == TDL_POOL_DRAINING);
  CHECK(out.calls == 2 && out.status == 0);
}

int main(void) {
  FILE *f;
  if (mkdtemp(dir) == NULL) {
    puts("not ok a_directory_for_the_test_module");
    return 1;
  }
  snprintf(path, sizeof(path), "%s/?.lua", dir);
  snprintf(file, sizeof(file), "%s/drain_tasks.lua", dir);
  f = fopen(file, "w");
  fputs("return { one = function() return 1 end }\n", f);
  fclose(f);
  RUN(a_call_behind_a_half_done_push_is_run_before_the_end);
  unlink(file);
  rmdir(dir);
  return check_any_failed;
}
