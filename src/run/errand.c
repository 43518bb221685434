#include "errand.h"

#include "../base/compiler.h"
#include "../codec/payload.h"
#include "far.h"
#include "phase.h"
#include "supervisor.h"
#include "watch.h"

/* --- what it counts -------------------------------------------------------- */

void tdl_errand_progress(tdl_keeper *k, uint32_t jobs) {
  tdl_worker *w = k->worker;
  const tdl_size *s = &w->pool->size;
  atomic_store_explicit(&k->progress, jobs, memory_order_relaxed); /* too */
  if (TDL_UNLIKELY(w->pool->regulated)) {
    tdl_worker_set_running(w, jobs);
  }
  /* relaxed, all: a late look is repeated (Z5) */
  if (TDL_UNLIKELY(atomic_load_explicit(&s->min, memory_order_relaxed) <
                   atomic_load_explicit(&s->max, memory_order_relaxed))) {
    atomic_store_explicit(&w->idle_ns, jobs == 0 ? tdl_now_ns() : TDL_NEVER,
                          memory_order_relaxed);
  }
}

void tdl_errand_exempt(tdl_keeper *k, uint32_t jobs) {
  uint32_t was = tdl_keeper_exempt(k);
  if (TDL_UNLIKELY(was != jobs)) {
    atomic_store_explicit(&k->exempt, jobs, memory_order_relaxed); /* too */
    tdl_worker_load(k->worker, (int)was - (int)jobs);
  }
}

/* One less in progress: before it gives back its place (P6). */
static void end_exempt(tdl_keeper *k) {
  if (TDL_UNLIKELY(tdl_keeper_exempt(k) == tdl_keeper_progress(k))) {
    tdl_errand_exempt(k, tdl_keeper_progress(k) - 1);
  }
}

static void give_ticket(tdl_keeper *k, tdl_ticket *t) {
  if (k->waits == TDL_FAR_INDEX(t->number)) {
    k->waits = 0;
  }
  tdl_tickets_give(&k->tickets, t);
  tdl_errand_progress(k, tdl_keeper_progress(k) - 1);
}

/* --- the end of a job ------------------------------------------------------ */

/* With what is in its bytes. */
void tdl_errand_end(tdl_keeper *k, tdl_ticket *t, int status) {
  tdl_worker *w = k->worker;
  tdl_job *job = t->job;
  if (TDL_UNLIKELY(status != 0) &&
      tdl_pool_phase(w->pool) == TDL_POOL_STOPPED) {
    status = TREADLE_ECLOSED;
    tdl_payload_clear(&job->bytes);
  }
  job->status = (int8_t)status;
  if (TDL_UNLIKELY(t->began_ns != 0)) {
    tdl_stats_ran(w->pool->stats, w->loop.tally, job,
                  tdl_now_ns() - t->began_ns);
  }
  if (TDL_LIKELY(tdl_job_finish(job))) {
    tdl_stats_ended(w->loop.tally, job);
  } else if (!t->is_late) { /* it goes home all the same (J2) */
    tdl_supervisor_job_ended(w, job);
  }
  if (TDL_UNLIKELY(tdl_watched(w->pool) != 0) && !t->is_late) {
    tdl_watch_call_ended(w, job, t->heard_ns, status);
  }
  end_exempt(k);
  give_ticket(k, t);
  if (TDL_UNLIKELY(w->pool->regulated)) {
    tdl_worker_load(w, -1);
  }
  tdl_loop_send_home(job);
}

void tdl_errand_fail(tdl_keeper *k, tdl_ticket *t, int status,
                     const char *text) {
  tdl_payload_set_text(&t->job->bytes, text);
  tdl_errand_end(k, t, status);
}

/* H2: nobody has begun it. */
void tdl_errand_take_back(tdl_keeper *k, tdl_ticket *t) {
  tdl_worker *w = k->worker;
  tdl_job *job = t->job;
  if (!tdl_job_requeue(job)) { /* somebody has settled it */
    tdl_errand_end(k, t, TREADLE_ECRASHED);
    return;
  }
  tdl_stats_taken_back(w->loop.tally, job);
  end_exempt(k);
  give_ticket(k, t);
  tdl_worker_give_place(w);
  tdl_queue_push(&w->slot->calls, &job->node);
}

/* --- its start ------------------------------------------------------------- */

int tdl_errand_put(tdl_keeper *k, const tdl_ticket *t, enum tdl_far_kind kind) {
  const tdl_job *job = t->job;
  tdl_record head = {.kind = (uint8_t)kind,
                     .ticket = t->number,
                     .task = tdl_job_task(job),
                     .when = job->deadline_ns,
                     .status =
                         job->home != job->pool->home ? TDL_FAR_URGENT : 0};
  return tdl_crossing_put(k->crossing, &k->link.out, &head, &job->bytes);
}

/* 0 when it has to wait for room in the ring. */
int tdl_errand_call(tdl_keeper *k, tdl_ticket *t) {
  int done = tdl_errand_put(k, t, TDL_FAR_CALL);
  if (TDL_LIKELY(done > 0)) {
    t->begins = k->link.out.last;
    t->record = k->link.out.put;
    k->waits = 0;
  } else if (done == 0) {
    k->waits = TDL_FAR_INDEX(t->number);
    tdl_parker_wake(&k->worker->loop.parker); /* its thread tries again */
  } else if (done == TREADLE_EPAYLOAD || done == TREADLE_ENOMEM) {
    tdl_errand_fail(
        k, t, done,
        done == TREADLE_EPAYLOAD && tdl_crossing_is_full(k->crossing)
            ? "a worker's process cannot have more buffers at a time"
            : NULL);
  } else {
    tdl_keeper_end_badly(k); /* it has taken what there never was */
  }
  return done != 0;
}

/* As tdl_vm_run begins; its record is put if it is bare. */
void tdl_errand_start(tdl_keeper *k, tdl_ticket *t) {
  tdl_worker *w = k->worker;
  tdl_tally *tally = w->loop.tally;
  tdl_job *job = t->job;
  job->worker = (uint16_t)w->id; /* before it is RUNNING */
  /* relaxed: a hint */
  atomic_store_explicit(&k->seen_ns, 0, memory_order_relaxed);
  if (TDL_UNLIKELY(!tdl_job_start(job))) {
    if (t->record == 0) {
      tdl_tickets_give(&k->tickets, t);
      tdl_loop_send_home(job);
    } else { /* its process has begun it: that is told */
      t->is_late = 1;
      tdl_errand_progress(k, tdl_keeper_progress(k) + 1);
      tdl_parker_wake(&w->loop.parker);
    }
    return;
  }
  tdl_errand_progress(k, tdl_keeper_progress(k) + 1);
  tdl_stats_started(tally, job);
  if (TDL_UNLIKELY(w->pool->regulated)) {
    tdl_worker_take_place(w);
  }
  if (TDL_UNLIKELY(tdl_watched(w->pool) != 0)) {
    t->heard_ns = tdl_now_ns();
    tdl_watch_call_started(w, job);
  }
  if (TDL_UNLIKELY(job->timed != 0)) {
    uint64_t now = tdl_now_ns();
    if ((job->timed & TDL_JOB_LIMITED) && now >= job->deadline_ns) {
      tdl_payload_clear(&job->bytes);
      tdl_errand_end(k, t, TREADLE_ETIMEOUT);
      return;
    }
    if (job->timed & TDL_JOB_STAMPED) {
      tdl_stats_waited(tally, job, now);
      t->began_ns = now;
      tdl_job_began(job, now);
    }
  }
  if (t->record == 0) {
    tdl_errand_call(k, t);
  }
}

/* There is no ticket for it. */
void tdl_errand_refuse(tdl_keeper *k, tdl_job *job) {
  tdl_tally *tally = k->worker->loop.tally;
  if (tdl_job_start(job)) {
    tdl_stats_started(tally, job);
    tdl_pool_load(k->worker->pool, -1);
    job->status = TREADLE_ENOMEM;
    tdl_payload_clear(&job->bytes);
    if (tdl_job_finish(job)) {
      tdl_stats_ended(tally, job);
    }
  }
  tdl_loop_send_home(job);
}

void tdl_errand_begin(tdl_keeper *k, tdl_job *job) {
  tdl_ticket *t = tdl_tickets_take(&k->tickets, job);
  if (TDL_UNLIKELY(t == NULL)) {
    job->worker = (uint16_t)k->worker->id; /* before it is RUNNING */
    tdl_errand_refuse(k, job);
  } else {
    tdl_errand_start(k, t);
  }
}

int tdl_errand_had_begun(const tdl_keeper *k, const tdl_ticket *t) {
  return t->record != 0 &&
         (tdl_keeper_is_broken(k) || tdl_link_had_begun(&k->link, t->record));
}
