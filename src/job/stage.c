#include "stage.h"

#include "../base/alloc.h"
#include "../codec/tags.h"
#include "../treadle.h"

#define GRAIN 64u /* no two pieces lie in one cache line */

int tdl_stage_new(size_t most, tdl_stage **out) {
  tdl_stage *s = tdl_alloc_aligned(TDL_LINE_BYTES, sizeof(*s));
  int status;
  if (s == NULL) {
    return TREADLE_ENOMEM;
  }
  s->half_bytes = most < TDL_STAGE_HALF_BYTES
                      ? ((uint32_t)most + GRAIN - 1) / GRAIN * GRAIN
                      : TDL_STAGE_HALF_BYTES;
  status = tdl_region_open_shown(2 * (size_t)s->half_bytes, &s->region);
  if (status != 0) {
    tdl_free(s);
    return status;
  }
  atomic_init(&s->refs, 1);
  *out = s;
  return 0;
}

void tdl_stage_drop(tdl_stage *s) {
  /* [refs] acq_rel: the last one sees what all the others did */
  if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1) {
    tdl_region_close(&s->region);
    tdl_free(s);
  }
}

/* E4: a half that has so much left, or 2. */
static uint32_t find_half(tdl_stage *s, uint32_t bytes) {
  uint32_t i = 0;
  for (; i < 2; i++) {
    tdl_half *half = &s->halves[i];
    if (half->pieces == 0) {
      half->at = 0;
    }
    if (s->half_bytes - half->at >= bytes) {
      break;
    }
  }
  return i;
}

/* All of the half is the job's until its payload is there: what is called from
** within the encoder finds the other one. */
void tdl_stage_lend(tdl_stage *s, tdl_job *job) {
  uint32_t i = s->last == 0 ? 2 : find_half(s, s->last);
  tdl_half *half = &s->halves[i];
  if (i == 2) {
    return;
  }
  job->own = job->bytes;
  tdl_bytes_init(&job->bytes,
                 s->region.data + (size_t)i * s->half_bytes + half->at,
                 s->half_bytes - half->at);
  job->stage = s;
  job->half = (uint8_t)i;
  job->extras |= TDL_JOB_HAS_STAGE;
  half->at = s->half_bytes;
  half->pieces++;
  /* relaxed: the pool has a reference */
  atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
}

void tdl_stage_note(tdl_stage *s, uint32_t len) {
  s->last = len > TDL_LINK_INLINE_BYTES ? len : 0;
}

/* What was written goes to the job's own bytes, and nothing is left of it. */
static int move_out(tdl_job *job) {
  tdl_bytes *bytes = &job->bytes;
  if (tdl_bytes_append(&job->own, bytes->data, bytes->len) != 0) {
    return TREADLE_ENOMEM;
  }
  memset(bytes->data, 0, bytes->len);
  *bytes = job->own;
  tdl_bytes_init(&job->own, NULL, 0);
  tdl_stage_release(job);
  return 0;
}

int tdl_stage_keep(tdl_stage *s, tdl_job *job) {
  uint32_t len = job->bytes.len;
  uint8_t *data = job->bytes.data;
  tdl_stage_note(s, len);
  if (job->stage == NULL) {
    return 0;
  }
  if (tdl_bytes_heap(&job->bytes) > 0) { /* it has outgrown what it was lent */
    tdl_bytes_reset(&job->own, NULL, 0);
    tdl_stage_release(job);
    return 0;
  }
  if (len > 0 && (data[0] & TDL_WIRE_THINGS)) { /* E2 */
    return move_out(job);
  }
  tdl_bytes_init(&job->bytes, data, 0); /* E1 */
  job->bytes.len = len;
  s->halves[job->half].at = (uint32_t)(data - s->region.data) -
                            job->half * s->half_bytes +
                            (len + GRAIN - 1) / GRAIN * GRAIN;
  return 0;
}

void tdl_stage_leave(tdl_job *job) {
  if (job->own.data != NULL) {
    tdl_bytes_reset(&job->bytes, NULL, 0); /* what was appended */
    job->bytes = job->own;
    tdl_bytes_init(&job->own, NULL, 0);
  }
}

void tdl_stage_release(tdl_job *job) {
  tdl_stage *s = job->stage;
  tdl_stage_leave(job);
  s->halves[job->half].pieces--;
  job->stage = NULL;
  job->extras &= (uint8_t)~TDL_JOB_HAS_STAGE;
  tdl_stage_drop(s);
}
