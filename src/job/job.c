#include "job.h"

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/compiler.h"
#include "../base/stall.h"
#include "../base/status.h"
#include "../codec/payload.h"
#include "stage.h"

void tdl_jobs_init(tdl_jobs *jobs) {
  memset(jobs, 0, sizeof(*jobs));
}

static void free_extras(tdl_job *job) {
  /* relaxed: the job is ours alone */
  tdl_counted *stream =
      atomic_load_explicit(&job->stream, memory_order_relaxed);
  if (stream != NULL) {
    tdl_counted_drop(stream);
    atomic_store_explicit(&job->stream, NULL, memory_order_relaxed); /* too */
  }
  tdl_free(job->reason);
  job->reason = NULL;
  if (job->extras & TDL_JOB_HAS_STAGE) {
    tdl_stage_release(job);
  }
  job->extras = 0;
}

void tdl_jobs_fini(tdl_jobs *jobs) {
  for (uint32_t i = 0; i < jobs->slab_count; i++) {
    for (uint32_t k = 0; k < TDL_JOB_SLAB_COUNT; k++) {
      tdl_payload_clear(&jobs->slabs[i][k].bytes);
      free_extras(&jobs->slabs[i][k]);
      tdl_bytes_reset(&jobs->slabs[i][k].bytes, NULL, 0);
    }
    tdl_free(jobs->slabs[i]);
  }
  tdl_free(jobs->slabs);
  tdl_jobs_init(jobs);
}

static int add_slab(tdl_jobs *jobs, struct treadle_loop *home) {
  tdl_job *slab;
  if ((jobs->slab_count & (jobs->slab_count - 1)) == 0) { /* a power of two */
    uint32_t room = jobs->slab_count == 0 ? 1 : jobs->slab_count * 2;
    tdl_job **slabs = tdl_realloc(jobs->slabs, room * sizeof(*slabs));
    if (slabs == NULL) {
      return 0;
    }
    jobs->slabs = slabs;
  }
  slab = tdl_alloc_aligned(64, TDL_JOB_SLAB_COUNT * sizeof(*slab));
  if (slab == NULL) {
    return 0;
  }
  jobs->slabs[jobs->slab_count++] = slab;
  for (uint32_t k = 0; k < TDL_JOB_SLAB_COUNT; k++) {
    tdl_job *job = &slab[k];
    atomic_init(&job->word, TDL_JOB_IDLE);
    job->home = home;
    job->slot = ++jobs->count;
    tdl_bytes_init(&job->bytes, job->inline_bytes, TDL_JOB_INLINE_BYTES);
  }
  for (uint32_t k = TDL_JOB_SLAB_COUNT; k-- > 0;) { /* lowest slot on top */
    slab[k].next_idle = jobs->idle;
    jobs->idle = &slab[k];
  }
  return 1;
}

tdl_job *tdl_jobs_take(tdl_jobs *jobs, struct treadle_loop *home) {
  tdl_job *job;
  if (TDL_UNLIKELY(jobs->idle == NULL) && !add_slab(jobs, home)) {
    return NULL;
  }
  job = jobs->idle;
  jobs->idle = job->next_idle;
  if (jobs->idle != NULL) { /* the next call's */
    tdl_prefetch(&jobs->idle->node);
  }
  jobs->kept_bytes -= tdl_bytes_heap(&job->bytes);
  job->deadline_ns = TDL_NEVER;
  job->status = 0;
  tdl_job_set_parent(job, 0);
  job->worker = 0;
  job->expiring = 0;
  job->came_home = 0;
  job->away = 0;
  job->untold = 0;
  job->inherited = 0;
  return job;
}

void tdl_jobs_give(tdl_jobs *jobs, tdl_job *job) {
  uint32_t heap;
  /* relaxed: the job is ours alone (J4) */
  uint32_t word = atomic_load_explicit(&job->word, memory_order_relaxed);
  jobs->live -= TDL_JOB_STATE(word) != TDL_JOB_IDLE;
  tdl_payload_clear(&job->bytes);
  word = (word & ~7u) + TDL_JOB_GENERATION;
  atomic_store_explicit(&job->word, word | TDL_JOB_IDLE,
                        memory_order_relaxed); /* see above */
  if (TDL_UNLIKELY(job->extras != 0)) {
    free_extras(job);
  }
  heap = tdl_bytes_heap(&job->bytes);
  if (heap > 0 && jobs->kept_bytes + heap > TDL_JOB_BUSY_BYTES) {
    tdl_bytes_reset(&job->bytes, job->inline_bytes, TDL_JOB_INLINE_BYTES);
    heap = 0;
  }
  jobs->kept_bytes += heap;
  job->next_idle = jobs->idle;
  jobs->idle = job;
}

void tdl_jobs_trim(tdl_jobs *jobs) {
  for (tdl_job *job = jobs->idle;
       jobs->live == 0 && job != NULL && jobs->kept_bytes > TDL_JOB_KEEP_BYTES;
       job = job->next_idle) {
    jobs->kept_bytes -= tdl_bytes_heap(&job->bytes);
    tdl_bytes_reset(&job->bytes, job->inline_bytes, TDL_JOB_INLINE_BYTES);
  }
}

uint32_t tdl_job_generation(const tdl_job *job) {
  /* relaxed: changes at home only */
  return atomic_load_explicit(&job->word, memory_order_relaxed) & ~7u;
}

void tdl_jobs_submit(tdl_jobs *jobs, tdl_job *job) {
  jobs->live++;
  /* relaxed: the queue publishes it (J1) */
  atomic_store_explicit(&job->word, tdl_job_generation(job) | TDL_JOB_QUEUED,
                        memory_order_relaxed);
}

void tdl_jobs_withdraw(tdl_jobs *jobs, tdl_job *job) {
  jobs->live--;
  /* relaxed: nobody else has seen it (J1) */
  atomic_store_explicit(&job->word, tdl_job_generation(job) | TDL_JOB_IDLE,
                        memory_order_relaxed);
}

static int move(tdl_job *job, uint32_t generation, enum tdl_job_state from,
                enum tdl_job_state to) {
  uint32_t expected = generation | (uint32_t)from;
  TDL_STALL();
  /* [job-word] acq_rel: the winner sees what was written before the last
  ** move, and the next one to look sees what the winner wrote */
  return atomic_compare_exchange_strong_explicit(
      &job->word, &expected, generation | (uint32_t)to, memory_order_acq_rel,
      memory_order_acquire);
}

int tdl_job_start(tdl_job *job) {
  /* relaxed: the popped job's generation cannot change under its worker */
  uint32_t word = atomic_load_explicit(&job->word, memory_order_relaxed);
  return move(job, word & ~7u, TDL_JOB_QUEUED, TDL_JOB_RUNNING);
}

int tdl_job_requeue(tdl_job *job) {
  return move(job, tdl_job_generation(job), TDL_JOB_RUNNING, TDL_JOB_QUEUED);
}

int tdl_job_finish(tdl_job *job) {
  return move(job, tdl_job_generation(job), TDL_JOB_RUNNING, TDL_JOB_DONE);
}

void tdl_job_began(tdl_job *job, uint64_t now) {
  /* [job-began] release: who sees the new time sees no old generation with it,
  ** and who sees the generation sees its time */
  atomic_store_explicit(&job->began, 0, memory_order_relaxed);
  atomic_store_explicit(&job->began_ns, now, memory_order_release);
  atomic_store_explicit(&job->began, tdl_job_generation(job) | TDL_JOB_RUNNING,
                        memory_order_release);
}

uint64_t tdl_job_began_ns(const tdl_job *job, uint32_t generation) {
  uint32_t began = generation | TDL_JOB_RUNNING;
  uint64_t ns;
  /* [job-began] acquire: the time is this one's, or a later one's */
  if (atomic_load_explicit(&job->began, memory_order_acquire) != began) {
    return 0;
  }
  ns = atomic_load_explicit(&job->began_ns, memory_order_acquire);
  /* relaxed: the acquire before it keeps it last; a later one's is told so */
  return atomic_load_explicit(&job->began, memory_order_relaxed) == began ? ns
                                                                          : 0;
}

void tdl_job_set_reason(tdl_job *job, const char *text) {
  if (job->reason == NULL && (job->reason = tdl_strdup(text)) != NULL) {
    job->extras |= TDL_JOB_HAS_REASON;
  }
}

tdl_counted *tdl_job_stream(const tdl_job *job) {
  /* [job-stream] acquire: the other side may have made it */
  return atomic_load_explicit(&job->stream, memory_order_acquire);
}

tdl_counted *tdl_job_set_stream(tdl_job *job, tdl_counted *fresh) {
  tdl_counted *found = NULL;
  TDL_STALL();
  /* [job-stream] release: what is in it; acquire: see above */
  return atomic_compare_exchange_strong_explicit(&job->stream, &found, fresh,
                                                 memory_order_acq_rel,
                                                 memory_order_acquire)
             ? fresh
             : found;
}

int tdl_job_settle(tdl_job *job, uint32_t generation, enum tdl_job_state to) {
  /* in this order: a job that was started between the two is RUNNING */
  if (move(job, generation, TDL_JOB_QUEUED, to)) {
    return TDL_JOB_QUEUED;
  }
  return move(job, generation, TDL_JOB_RUNNING, to) ? TDL_JOB_RUNNING : 0;
}

int tdl_job_is_settled(const tdl_job *job) {
  /* [job-word] acquire: pairs with the settler's move */
  uint32_t word = atomic_load_explicit(&job->word, memory_order_acquire);
  int state = (int)TDL_JOB_STATE(word);
  return state >= TDL_JOB_SETTLED ? state : 0;
}

int tdl_job_is_forced(const tdl_job *job) {
  return tdl_job_is_settled(job) >= TDL_JOB_FORCED;
}

const char *tdl_job_reason(const tdl_job *job) {
  int state = tdl_job_is_settled(job);
  if (state == TDL_JOB_EXPIRED) {
    return tdl_status_text(TREADLE_ETIMEOUT);
  } else if (job->reason != NULL) { /* J5 */
    return job->reason;
  }
  return tdl_status_text(state == TDL_JOB_CLOSED ? TREADLE_ECLOSED
                                                 : TREADLE_ECANCELLED);
}

tdl_job *tdl_jobs_next(const tdl_jobs *jobs, const tdl_job *after) {
  for (uint32_t i = after == NULL ? 0 : after->slot; i < jobs->count; i++) {
    tdl_job *job = &jobs->slabs[i / TDL_JOB_SLAB_COUNT][i % TDL_JOB_SLAB_COUNT];
    /* relaxed: only the home state moves it to and from IDLE (J1, J4) */
    uint32_t word = atomic_load_explicit(&job->word, memory_order_relaxed);
    if (TDL_JOB_STATE(word) != TDL_JOB_IDLE) {
      return job;
    }
  }
  return NULL;
}

tdl_job *tdl_jobs_at(const tdl_jobs *jobs, uint32_t slot) {
  uint32_t i = slot - 1;
  return &jobs->slabs[i / TDL_JOB_SLAB_COUNT][i % TDL_JOB_SLAB_COUNT];
}
