#include "harvest.h"

#include "../base/compiler.h"
#include "../codec/payload.h"
#include "emitted.h"
#include "errand.h"
#include "far.h"
#include "pump.h"

/* --- results --------------------------------------------------------------- */

/* It is heard of: its process has begun it, and so those before it (G2). */
static void start_up_to(tdl_keeper *k, const tdl_ticket *t) {
  while (TDL_UNLIKELY(t->is_ahead)) {
    tdl_errand_start(k, tdl_tickets_shift(&k->tickets));
  }
}

/* 0: nonsense (H5). What a settled call's result names is counted, too. */
static int take_payload(tdl_keeper *k, tdl_bytes *bytes, int is_settled,
                        const uint8_t *data, uint32_t len, int *status) {
  int read;
  if (len == 0 || (is_settled && !(data[0] & TDL_WIRE_THINGS))) {
    return 1;
  }
  if (len > TDL_LINK_INLINE_BYTES && !k->copies) {
    k->copies = 1;
    tdl_link_set_copying(&k->link, 1);
  }
  if (tdl_bytes_append(bytes, data, len) != 0) {
    *status = TREADLE_ENOMEM;
  } else if (bytes->data[0] & TDL_WIRE_THINGS) { /* it may have changed */
    read = tdl_crossing_read(k->crossing, bytes);
    *status = read == TREADLE_ENOMEM ? read : *status;
    if (read == TREADLE_EINVAL) {
      return 0;
    }
  }
  if (is_settled) {
    tdl_payload_clear(bytes);
  }
  return 1;
}

/* 0: nonsense (H5). */
static int take_result(tdl_keeper *k, const tdl_record *head,
                       const uint8_t *data) {
  tdl_ticket *t = tdl_tickets_find(&k->tickets, head->ticket);
  int status = head->status;
  tdl_bytes *bytes;
  if (t == NULL || t->record == 0 || status > 0 || status < TREADLE_ESYSTEM) {
    return 0;
  }
  start_up_to(k, t);
  bytes = &t->job->bytes;
  tdl_payload_clear(bytes);
  if (TDL_UNLIKELY(tdl_bytes_cap(bytes) == 0)) { /* E1 */
    tdl_stage_leave(t->job);
  }
  if (!take_payload(k, bytes, tdl_job_is_settled(t->job) != 0, data, head->len,
                    &status)) {
    return 0;
  }
  tdl_errand_end(k, t, status);
  return 1;
}

/* --- streams --------------------------------------------------------------- */

void tdl_harvest_credit(tdl_keeper *k, const tdl_ticket *t) {
  int is_closed;
  uint32_t count = tdl_bind_credit(t->job, &is_closed);
  tdl_record head = {.kind = TDL_FAR_CREDIT,
                     .ticket = t->number,
                     .task = count,
                     .status = (int16_t)is_closed};
  if (count == 0 && !is_closed) {
    return;
  }
  if (tdl_pump_put(k, &head, NULL) > 0) {
    tdl_bind_gave_credit(t->job, count, is_closed);
  } else {
    k->owes = 1;
  }
}

/* 0: nonsense (H5). Without memory the process ends, too: no value is left out. */
static int take_emit(tdl_keeper *k, const tdl_record *head,
                     const uint8_t *data) {
  tdl_ticket *t = tdl_tickets_find(&k->tickets, head->ticket);
  int settled, status = 0, done;
  tdl_bytes bytes;
  if (t == NULL || t->record == 0) {
    return 0;
  }
  start_up_to(k, t);
  settled = tdl_job_is_settled(t->job) != 0;
  tdl_bytes_init(&bytes, NULL, 0);
  done =
      take_payload(k, &bytes, settled, data, head->len, &status) && status == 0;
  if (done && !settled && head->status != 0) {
    tdl_bind_starves(t->job);
  } else if (done && !settled) {
    done = tdl_bind_emitted(t->job, &bytes);
  }
  tdl_payload_clear(&bytes);
  tdl_bytes_reset(&bytes, NULL, 0);
  if (done && !settled) {
    tdl_harvest_credit(k, t);
  }
  return done;
}

/* --- records --------------------------------------------------------------- */

/* X1 */
void tdl_harvest_set_owed(tdl_keeper *k, int owed) {
  /* relaxed: under the lock; else it saves a look */
  atomic_store_explicit(&k->owed, (uint32_t)owed, memory_order_relaxed);
}

int tdl_harvest_is_owed(const tdl_keeper *k) {
  /* relaxed: as above */
  return (int)atomic_load_explicit(&k->owed, memory_order_relaxed);
}

/* `is_own`: by its thread, up to what is asked of the pool. */
uint32_t tdl_harvest(tdl_keeper *k, int is_own) {
  uint32_t count = 0;
  tdl_record head;
  const uint8_t *data;
  int got = 0;
  while (!tdl_keeper_is_broken(k) && !k->nested.is_asked &&
         (got = tdl_link_look(&k->link.in, &head, &data)) > 0) {
    int is_call = head.kind != TDL_FAR_RESULT && head.kind != TDL_FAR_EMIT;
    if (is_call && !is_own) {
      tdl_harvest_set_owed(k, 1);
      tdl_parker_wake(&k->worker->loop.parker);
      return count;
    }
    if (is_call                       ? !tdl_nested_hear(k, &head, data)
        : head.kind == TDL_FAR_RESULT ? !take_result(k, &head, data)
                                      : !take_emit(k, &head, data)) {
      got = TREADLE_EINVAL;
      break;
    }
    tdl_link_take(&k->link.in, &head);
    count++;
  }
  if (got < 0) {
    tdl_keeper_end_badly(k);
  }
  return count;
}
