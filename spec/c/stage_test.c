/* The memory where a pool's processes read long arguments: who has a piece of it,
** when it begins anew, and that a job's own bytes come back. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "codec/tags.h"
#include "config.h"
#include "job/stage.h"

#define LONG (TDL_LINK_INLINE_BYTES + 1)
#define HALF (4 * LONG)

typedef struct kit {
  tdl_jobs jobs;
  tdl_stage *stage;
  uint8_t payload[2 * HALF];
} kit;

static kit *open_kit(void) {
  kit *k = calloc(1, sizeof(*k));
  if (k == NULL || tdl_stage_new(HALF, &k->stage) != 0) {
    abort();
  }
  tdl_jobs_init(&k->jobs);
  return k;
}

static void close_kit(kit *k) {
  tdl_stage_drop(k->stage);
  tdl_jobs_fini(&k->jobs);
  free(k);
}

/* Written as a call's arguments are. */
static tdl_job *call(kit *k, uint32_t len) {
  tdl_job *job = tdl_jobs_take(&k->jobs, NULL);
  memset(k->payload, (int)(job->slot & 0x7f), len); /* no flags of a payload */
  tdl_stage_lend(k->stage, job);
  if (tdl_bytes_append(&job->bytes, k->payload, len) != 0) {
    abort();
  }
  if (tdl_stage_keep(k->stage, job) != 0) {
    abort();
  }
  tdl_jobs_submit(&k->jobs, job);
  return job;
}

static int is_whole(const tdl_job *job, uint32_t len) {
  for (uint32_t i = 0; i < len; i++) {
    if (job->bytes.data[i] != (job->slot & 0x7f)) {
      return 0;
    }
  }
  return job->bytes.len == len;
}

static int is_staged(const kit *k, const tdl_job *job) {
  const tdl_region *r = &k->stage->region;
  return job->stage == k->stage && job->bytes.data >= r->data &&
         job->bytes.data + job->bytes.len <= r->data + r->bytes;
}

static int is_own(const tdl_job *job) {
  return job->stage == NULL && job->own.data == NULL &&
         tdl_bytes_cap(&job->bytes) > 0;
}

/* Its result has come, and its caller was told. */
static void end(kit *k, tdl_job *job) {
  job->bytes.len = 0;
  tdl_stage_leave(job);
  CHECK(job->bytes.len == 0 && tdl_bytes_cap(&job->bytes) > 0);
  tdl_jobs_give(&k->jobs, job);
  CHECK(is_own(job));
}

static void only_what_follows_a_long_payload_is_staged(void) {
  kit *k = open_kit();
  tdl_job *jobs[4];
  static const uint32_t lens[] = {LONG, LONG, 10, 10};
  for (int i = 0; i < 4; i++) {
    jobs[i] = call(k, lens[i]);
    CHECK(is_whole(jobs[i], lens[i]));
  }
  CHECK(is_own(jobs[0]) && is_staged(k, jobs[1]));
  CHECK(is_staged(k, jobs[2]) && is_own(jobs[3]));
  for (int i = 0; i < 4; i++) {
    end(k, jobs[i]);
  }
  close_kit(k);
}

static void a_half_begins_anew_when_nothing_of_it_is_out(void) {
  kit *k = open_kit();
  uint8_t *first = NULL;
  end(k, call(k, LONG));
  for (int i = 0; i < 20; i++) {
    tdl_job *job = call(k, LONG);
    CHECK(is_staged(k, job) && is_whole(job, LONG));
    CHECK(first == NULL || first == job->bytes.data);
    first = job->bytes.data;
    end(k, job);
  }
  close_kit(k);
}

/* Never fewer than one is out. */
static void calls_that_never_pause_find_room_in_the_other_half(void) {
  kit *k = open_kit();
  tdl_job *before;
  end(k, call(k, LONG));
  before = call(k, LONG);
  for (int i = 0; i < 100; i++) {
    tdl_job *job = call(k, LONG);
    CHECK(is_staged(k, job) && is_staged(k, before));
    CHECK(is_whole(before, LONG));
    end(k, before);
    before = job;
  }
  end(k, before);
  close_kit(k);
}

static void what_finds_no_room_has_its_own_bytes(void) {
  kit *k = open_kit();
  tdl_job *jobs[12];
  uint32_t staged = 0;
  end(k, call(k, LONG));
  for (int i = 0; i < 12; i++) {
    jobs[i] = call(k, LONG);
    staged += (uint32_t)is_staged(k, jobs[i]);
  }
  CHECK(staged >= 6 && staged <= 8);
  for (int i = 0; i < 12; i++) {
    CHECK(is_whole(jobs[i], LONG));
    end(k, jobs[i]);
  }
  CHECK(k->stage->halves[0].pieces == 0 && k->stage->halves[1].pieces == 0);
  close_kit(k);
}

static void what_outgrows_its_piece_takes_none(void) {
  kit *k = open_kit();
  tdl_job *job;
  end(k, call(k, LONG));
  job = call(k, 2 * HALF);
  CHECK(is_own(job) && is_whole(job, 2 * HALF));
  end(k, job);
  CHECK(k->stage->halves[0].pieces == 0);
  close_kit(k);
}

/* The encoder may call back, and that make another call. */
static void a_call_within_another_gets_another_piece(void) {
  kit *k = open_kit();
  tdl_job *outer, *inner;
  end(k, call(k, LONG));
  outer = tdl_jobs_take(&k->jobs, NULL);
  tdl_stage_lend(k->stage, outer);
  memset(k->payload, (int)outer->slot, LONG);
  tdl_bytes_append(&outer->bytes, k->payload, LONG / 2);
  inner = call(k, LONG);
  memset(k->payload, (int)outer->slot, LONG);
  tdl_bytes_append(&outer->bytes, k->payload, LONG - LONG / 2);
  tdl_stage_keep(k->stage, outer);
  CHECK(is_whole(outer, LONG) && is_whole(inner, LONG));
  end(k, outer);
  end(k, inner);
  close_kit(k);
}

static void a_payload_that_fails_half_way_leaves_its_piece(void) {
  kit *k = open_kit();
  end(k, call(k, LONG));
  for (int i = 0; i < 3; i++) {
    tdl_job *job = tdl_jobs_take(&k->jobs, NULL);
    tdl_stage_lend(k->stage, job);
    tdl_bytes_append(&job->bytes, k->payload, LONG);
    job->bytes.len = 0;
    tdl_jobs_give(&k->jobs, job);
    CHECK(is_own(job) && k->stage->halves[0].pieces == 0);
  }
  close_kit(k);
}

/* E2 */
static void nothing_else_is_written_into_the_stage(void) {
  kit *k = open_kit();
  uint8_t before[HALF];
  tdl_job *job;
  end(k, call(k, LONG));
  job = call(k, LONG);
  memcpy(before, k->stage->region.data, sizeof(before));
  job->bytes.len = 0;
  memset(k->payload, 0x55, LONG);
  CHECK(tdl_bytes_append(&job->bytes, k->payload, LONG) == 0);
  CHECK(memcmp(before, k->stage->region.data, sizeof(before)) == 0);
  end(k, job);
  close_kit(k);
}

static void addresses_do_not_stay_there(void) {
  static const uint8_t none[LONG];
  kit *k = open_kit();
  tdl_job *job;
  end(k, call(k, LONG));
  job = tdl_jobs_take(&k->jobs, NULL);
  memset(k->payload, 1, LONG - 4);
  memset(k->payload + LONG - 4, 0, 4); /* so many things */
  k->payload[0] |= TDL_WIRE_THINGS;
  tdl_stage_lend(k->stage, job);
  CHECK(tdl_bytes_append(&job->bytes, k->payload, LONG) == 0);
  CHECK(is_staged(k, job) && tdl_stage_keep(k->stage, job) == 0);
  CHECK(is_own(job) && job->bytes.len == LONG);
  CHECK(memcmp(job->bytes.data, k->payload, LONG) == 0);
  CHECK(memcmp(k->stage->region.data, none, LONG) == 0);
  tdl_jobs_give(&k->jobs, job);
  CHECK(k->stage->halves[0].pieces == 0);
  close_kit(k);
}

static void own_bytes_stay_for_the_results(void) {
  kit *k = open_kit();
  tdl_job *job = call(k, LONG); /* has them on the heap from now on */
  const uint8_t *own = job->bytes.data;
  int kept = LONG <= TDL_JOB_BUSY_BYTES; /* else an idle job has none */
  end(k, job);
  for (int i = 0; i < 3; i++) {
    CHECK(call(k, LONG) == job && is_staged(k, job));
    job->bytes.len = 0;
    tdl_stage_leave(job);
    CHECK((tdl_bytes_cap(&job->bytes) >= LONG) == kept);
    CHECK(!kept || job->bytes.data == own);
    end(k, job);
    CHECK(k->jobs.kept_bytes == tdl_bytes_heap(&job->bytes));
  }
  close_kit(k);
}

static void a_piece_outlives_the_pool(void) {
  kit *k = open_kit();
  tdl_job *jobs[3];
  end(k, call(k, LONG));
  for (int i = 0; i < 3; i++) {
    jobs[i] = call(k, LONG);
  }
  tdl_stage_drop(k->stage);
  CHECK(is_whole(jobs[0], LONG));
  end(k, jobs[0]);
  tdl_jobs_fini(&k->jobs); /* two never came home */
  free(k);
}

int main(void) {
  RUN(only_what_follows_a_long_payload_is_staged);
  RUN(a_half_begins_anew_when_nothing_of_it_is_out);
  RUN(calls_that_never_pause_find_room_in_the_other_half);
  RUN(what_finds_no_room_has_its_own_bytes);
  RUN(what_outgrows_its_piece_takes_none);
  RUN(a_call_within_another_gets_another_piece);
  RUN(a_payload_that_fails_half_way_leaves_its_piece);
  RUN(nothing_else_is_written_into_the_stage);
  RUN(addresses_do_not_stay_there);
  RUN(own_bytes_stay_for_the_results);
  RUN(a_piece_outlives_the_pool);
  return check_any_failed;
}
