#include "upcall.h"

#include <stdlib.h>
#include <string.h>

#include "../base/compiler.h"
#include "../base/stall.h"
#include "../codec/payload.h"
#include "far.h"
#include "worker.h"

/* --- calls (U1) ------------------------------------------------------------ */

static int is_upcall(const tdl_job *job) {
  const tdl_far *far = job->pool->far;
  return TDL_UNLIKELY(far != NULL) && job->home != far->home && !job->refused;
}

void tdl_upcall_submit(tdl_job *job, int place) {
  tdl_far *far = job->pool->far;
  tdl_record head = {.kind = TDL_FAR_NESTED,
                     .ticket = job->slot,
                     .task = tdl_job_task(job),
                     .when = job->deadline_ns,
                     .status = (int16_t)place};
  int status = tdl_far_put(far, &head, &job->bytes);
  tdl_payload_clear(&job->bytes);
  if (status == 0) {
    tdl_far_ring(far);
  } else {
    tdl_pool_turn_away(job, status, NULL);
  }
}

/* U3 */
void tdl_upcall_settled(const tdl_job *job, enum tdl_job_state to) {
  if (is_upcall(job)) {
    const char *reason = tdl_job_reason(job);
    tdl_record head = {.kind = TDL_FAR_CANCEL,
                       .ticket = job->slot,
                       .status = to == TDL_JOB_FORCED};
    tdl_far_put_text(job->pool->far, &head, reason, strlen(reason));
    tdl_far_ring(job->pool->far);
  }
}

void tdl_upcall_exempt(tdl_far *far, uint32_t jobs, int are_more) {
  tdl_link_set_exempt(&far->link, jobs);
  far->rings |= are_more;
}

/* --- answers (U2) ---------------------------------------------------------- */

/* The payload of an answer, which its parent has written; 0, or what it is
** instead. */
static int bring(tdl_far *far, tdl_bytes *bytes, const uint8_t *data,
                 uint32_t len) {
  int status = tdl_bytes_append(bytes, data, len);
  if (status == 0 && len > 0 && (data[0] & TDL_WIRE_THINGS)) {
    status = tdl_crossing_read(far->crossing, bytes);
    if (status == TREADLE_EINVAL) {
      abort(); /* as in tdl_far_take */
    }
  }
  return status;
}

/* What somebody has settled still counts the buffers that come for it. The job's
** `worker` is last: while it is RUNNING that would be one of this process. */
static void end_call(tdl_far *far, tdl_job *job, const tdl_record *head,
                     const uint8_t *data) {
  int is_wanted = tdl_job_start(job), status = 0;
  tdl_payload_clear(&job->bytes);
  if (is_wanted || (head->len > 0 && (data[0] & TDL_WIRE_THINGS))) {
    status = bring(far, &job->bytes, data, head->len);
  }
  if (!is_wanted) {
    tdl_payload_clear(&job->bytes);
    return;
  }
  job->status = (int8_t)(status != 0 ? status : head->status);
  if (tdl_job_finish(job)) {
    job->worker = (uint16_t)head->task;
  }
}

int tdl_upcall_ready(tdl_far *far) {
  int kind = far->reads == NULL ? tdl_link_kind(&far->link.in) : 0;
  return kind == TDL_FAR_ANSWER || kind == TDL_FAR_CREDIT;
}

/* --- streams (U5) ---------------------------------------------------------- */

int tdl_upcall_is_far(const tdl_job *job) {
  const tdl_far *far = job->pool->far;
  return TDL_UNLIKELY(far != NULL) && job->home == far->home;
}

int tdl_upcall_is_nested(const tdl_job *job) {
  return tdl_far_entry_of(job->pool->far, job)->is_urgent;
}

static void put_emit(const tdl_job *job, int waits) {
  tdl_record head = {.kind = TDL_FAR_EMIT,
                     .ticket = (uint32_t)(uintptr_t)job->ctx,
                     .status = (int16_t)waits};
  tdl_far_put(job->pool->far, &head, NULL);
  tdl_far_ring(job->pool->far);
}

int tdl_upcall_may_emit(const tdl_job *job) {
  tdl_far_entry *entry = tdl_far_entry_of(job->pool->far, job);
  if (entry->is_unwanted) {
    return -1;
  }
  if (entry->credit == 0 && !entry->waits) {
    entry->waits = 1;
    put_emit(job, 1);
  }
  return entry->credit > 0;
}

int tdl_upcall_emit(const tdl_job *job, const tdl_bytes *payload) {
  tdl_far *far = job->pool->far;
  tdl_record head = {.kind = TDL_FAR_EMIT,
                     .ticket = (uint32_t)(uintptr_t)job->ctx};
  int status = tdl_far_put(far, &head, payload);
  if (status == 0) {
    tdl_far_entry_of(far, job)->credit--;
    tdl_far_ring(far);
  }
  return status;
}

static void take_credit(tdl_far *far, const tdl_record *head) {
  tdl_far_entry *entry = tdl_far_entry_at(far, head->ticket);
  if (entry != NULL) {
    entry->credit += head->task;
    entry->waits = 0;
    entry->is_unwanted |= head->status != 0;
    /* relaxed: our own */
    tdl_bind_credited(atomic_load_explicit(&entry->job, memory_order_relaxed),
                      entry->is_unwanted);
  }
}

int tdl_upcall_collect(tdl_far *far, treadle_loop *loop) {
  int count = 0;
  while (tdl_upcall_ready(far)) {
    tdl_record head;
    const uint8_t *data;
    tdl_job *job;
    if (tdl_link_look(&far->link.in, &head, &data) < 0 ||
        tdl_link_begin(&far->link, &head) < 0) {
      abort(); /* N1: as in tdl_far_take */
    }
    if (head.kind == TDL_FAR_CREDIT) {
      tdl_link_take(&far->link.in, &head);
      take_credit(far, &head);
      count++;
      continue;
    }
    job = tdl_jobs_at(&loop->jobs, head.ticket);
    end_call(far, job, &head, data);
    tdl_link_take(&far->link.in, &head);
    TDL_STALL();
    tdl_queue_push(&loop->inbox, &job->node); /* its own: it is awake */
    count++;
  }
  return count;
}

/* The worker in the place of its turns (turns.c), with code of its state waiting
** that cannot yield. */
void tdl_upcall_wait(tdl_far *far, treadle_loop *loop, uint64_t ns) {
  tdl_worker *w = TDL_CONTAINER(loop, tdl_worker, loop);
  tdl_far_flush(far);
  tdl_far_announce(far, w, TDL_LINK_SLEEPS);
  if (tdl_loop_has_work(loop)) {
    tdl_far_awake(far, w);
  } else {
    tdl_far_sleep(far, w, ns);
  }
}

/* --- the pool -------------------------------------------------------------- */

int tdl_upcall_may_call(const tdl_far *far) {
  return far->has_started;
}

uint32_t tdl_upcall_min_size(const tdl_far *far) {
  return tdl_link_min_size(&far->link);
}

uint32_t tdl_upcall_size(const tdl_far *far) {
  return tdl_link_size(&far->link);
}

int tdl_upcall_is_closing(const tdl_far *far) {
  return tdl_link_is_closing(&far->link);
}

void tdl_upcall_tell(tdl_far *far, enum tdl_ask_pool what, uint64_t number,
                     const void *data, size_t len) {
  tdl_record head = {
      .kind = TDL_FAR_ASK, .task = (uint32_t)what, .when = number};
  tdl_far_put_text(far, &head, data, len);
  tdl_far_ring(far);
}

int64_t tdl_upcall_ask(tdl_far *far, enum tdl_ask_pool what, uint64_t number,
                       const void *data, size_t len) {
  uint32_t before = tdl_link_replies(&far->link);
  tdl_upcall_tell(far, what, number, data, len);
  return tdl_link_await_reply(&far->link, before);
}
