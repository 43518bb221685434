/* The job record: one winner, one use at a time. */
#include "job/job.h"

#include <pthread.h>
#include <string.h>

#include "base/clock.h"
#include "check.h"

static void a_job_is_settled_once_whoever_comes_first(void) {
  tdl_jobs jobs;
  tdl_job *job;
  uint32_t generation;
  tdl_jobs_init(&jobs);
  job = tdl_jobs_take(&jobs, NULL);
  CHECK(job != NULL && job->deadline_ns == TDL_NEVER);
  generation = tdl_job_generation(job);
  CHECK(tdl_job_settle(job, generation, TDL_JOB_CANCELLED) ==
        0); /* not submitted yet */
  tdl_jobs_submit(&jobs, job);
  CHECK(tdl_job_settle(job, generation, TDL_JOB_CANCELLED) == TDL_JOB_QUEUED);
  CHECK(tdl_job_settle(job, generation, TDL_JOB_CANCELLED) == 0);
  CHECK(!tdl_job_start(job) && tdl_job_is_settled(job));
  tdl_jobs_give(&jobs, job);

  job = tdl_jobs_take(&jobs, NULL);
  tdl_jobs_submit(&jobs, job);
  CHECK(tdl_job_start(job) && !tdl_job_start(job));
  CHECK(tdl_job_settle(job, tdl_job_generation(job), TDL_JOB_CANCELLED) ==
        TDL_JOB_RUNNING);
  CHECK(!tdl_job_finish(job));
  tdl_jobs_give(&jobs, job);

  job = tdl_jobs_take(&jobs, NULL);
  tdl_jobs_submit(&jobs, job);
  CHECK(tdl_job_start(job) && tdl_job_finish(job));
  CHECK(tdl_job_settle(job, tdl_job_generation(job), TDL_JOB_CANCELLED) == 0);
  tdl_jobs_give(&jobs, job);
  tdl_jobs_fini(&jobs);
}

static void a_late_settler_misses_the_next_use_of_the_record(void) {
  tdl_jobs jobs;
  tdl_job *job, *again;
  uint32_t stale;
  tdl_jobs_init(&jobs);
  job = tdl_jobs_take(&jobs, NULL);
  stale = tdl_job_generation(job);
  tdl_jobs_submit(&jobs, job);
  CHECK(tdl_job_start(job) && tdl_job_finish(job));
  tdl_jobs_give(&jobs, job);
  again = tdl_jobs_take(&jobs, NULL);
  CHECK(again == job);
  tdl_jobs_submit(&jobs, again);
  CHECK(tdl_job_settle(again, stale, TDL_JOB_CANCELLED) == 0);
  CHECK(tdl_job_start(again) && tdl_job_finish(again));
  tdl_jobs_give(&jobs, again);
  tdl_jobs_fini(&jobs);
}

static void jobs_under_way_are_found_and_idle_ones_are_not(void) {
  enum { COUNT = TDL_JOB_SLAB_COUNT * 3 };
  tdl_jobs jobs;
  tdl_job *all[COUNT], *job;
  uint32_t found = 0;
  tdl_jobs_init(&jobs);
  CHECK(tdl_jobs_next(&jobs, NULL) == NULL);
  for (int i = 0; i < COUNT; i++) {
    all[i] = tdl_jobs_take(&jobs, NULL);
    CHECK(tdl_jobs_at(&jobs, all[i]->slot) == all[i]);
    if (i % 3 == 0) {
      tdl_jobs_submit(&jobs, all[i]);
    }
  }
  for (job = tdl_jobs_next(&jobs, NULL); job != NULL;
       job = tdl_jobs_next(&jobs, job)) {
    CHECK((job->slot - 1) % 3 == 0);
    found++;
  }
  CHECK(found == COUNT / 3 && jobs.live == COUNT / 3);
  for (int i = 0; i < COUNT; i++) {
    tdl_jobs_give(&jobs, all[i]);
  }
  CHECK(jobs.live == 0 && tdl_jobs_next(&jobs, NULL) == NULL);
  tdl_jobs_fini(&jobs);
}

static void idle_jobs_keep_a_bounded_amount_of_memory(void) {
  static char large[TDL_JOB_BUSY_BYTES / 2 + 64];
  tdl_jobs jobs;
  tdl_job *job[4];
  tdl_jobs_init(&jobs);
  for (int i = 0; i < 4; i++) {
    job[i] = tdl_jobs_take(&jobs, NULL);
    CHECK(tdl_bytes_append(&job[i]->bytes, large, sizeof(large)) == 0);
  }
  for (int i = 0; i < 4; i++) {
    tdl_jobs_give(&jobs, job[i]);
  }
  CHECK(jobs.kept_bytes > 0 && jobs.kept_bytes <= TDL_JOB_BUSY_BYTES);
  tdl_jobs_trim(&jobs);
  CHECK(jobs.kept_bytes <= TDL_JOB_KEEP_BYTES);
  tdl_jobs_fini(&jobs);
}

static void a_job_keeps_its_memory_for_the_next_call(void) {
  static char some[TDL_JOB_KEEP_BYTES / 2];
  tdl_jobs jobs;
  tdl_job *job;
  const uint8_t *data;
  tdl_jobs_init(&jobs);
  job = tdl_jobs_take(&jobs, NULL);
  CHECK(tdl_bytes_append(&job->bytes, some, sizeof(some)) == 0);
  data = job->bytes.data;
  tdl_jobs_give(&jobs, job);
  tdl_jobs_trim(&jobs);
  CHECK(tdl_jobs_take(&jobs, NULL) == job && job->bytes.data == data);
  tdl_jobs_give(&jobs, job);
  tdl_jobs_fini(&jobs);
}

/* A worker finishes while two others settle: exactly one of the three wins. */
typedef struct race {
  tdl_job *job;
  uint32_t generation;
  pthread_barrier_t start, end;
  atomic_int wins;
  int rounds;
} race;

static void *settle(void *arg) {
  race *r = arg;
  for (int i = 0; i < r->rounds; i++) {
    pthread_barrier_wait(&r->start);
    if (tdl_job_settle(r->job, r->generation, TDL_JOB_CANCELLED)) {
      atomic_fetch_add_explicit(&r->wins, 1, memory_order_relaxed);
    }
    pthread_barrier_wait(&r->end);
  }
  return NULL;
}

static void result_and_two_settlers_race_and_one_wins(void) {
  tdl_jobs jobs;
  pthread_t threads[2];
  race r = {.rounds = 2000};
  int all_right = 1;
  tdl_jobs_init(&jobs);
  pthread_barrier_init(&r.start, NULL, 3);
  pthread_barrier_init(&r.end, NULL, 3);
  for (int i = 0; i < 2; i++) {
    pthread_create(&threads[i], NULL, settle, &r);
  }
  for (int i = 0; i < r.rounds; i++) {
    int mine = 0;
    r.job = tdl_jobs_take(&jobs, NULL);
    r.generation = tdl_job_generation(r.job);
    r.wins = 0;
    tdl_jobs_submit(&jobs, r.job);
    pthread_barrier_wait(&r.start);
    if (tdl_job_start(r.job)) {
      mine = tdl_job_finish(r.job);
    }
    pthread_barrier_wait(&r.end);
    all_right = all_right && r.wins + mine == 1;
    tdl_jobs_give(&jobs, r.job);
  }
  for (int i = 0; i < 2; i++) {
    pthread_join(threads[i], NULL);
  }
  pthread_barrier_destroy(&r.start);
  pthread_barrier_destroy(&r.end);
  tdl_jobs_fini(&jobs);
  CHECK(all_right);
}

int main(void) {
  RUN(a_job_is_settled_once_whoever_comes_first);
  RUN(a_late_settler_misses_the_next_use_of_the_record);
  RUN(jobs_under_way_are_found_and_idle_ones_are_not);
  RUN(idle_jobs_keep_a_bounded_amount_of_memory);
  RUN(a_job_keeps_its_memory_for_the_next_call);
  RUN(result_and_two_settlers_race_and_one_wins);
  return check_any_failed;
}
