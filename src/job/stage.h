/* tdl_stage: memory of a pool whose workers are processes: its home writes long
** arguments into it, and they read them there.
** Threads: the home's, but for leave, and its end.
** Owns:    the region.
** Fails:   opening it, with a treadle_status; a call that finds no room is written
**          into the job's own bytes.
**
** E1  After a long payload the next job's bytes are lent the free end of a half.
**     What was written is the job's piece until that is recycled, wherever it goes
**     meanwhile: back to a queue, to another process. The bytes have no capacity
**     then: whatever is appended to them moves to the heap first.
** E2  All processes of the pool read all of it. So nothing but arguments is ever
**     written there: results have the job's own bytes, which are set aside; and a
**     payload that names things does not stay, because of the addresses in it.
** E3  Nobody else can write there (region.h, G4): the home may read it again.
** E4  Pieces lie one behind the other. A half begins anew when it has none, so that
**     the pages in use stay few and warm; there are two, so that it comes to that
**     also where calls never pause. */
#ifndef TDL_JOB_STAGE_H
#define TDL_JOB_STAGE_H

#include "../base/region.h"
#include "job.h"

typedef struct tdl_half {
  uint32_t at;     /* given out up to here */
  uint32_t pieces; /* that are out */
} tdl_half;

typedef struct tdl_stage {
  tdl_region region; /* read-only */
  uint32_t half_bytes;
  /* the home's */
  uint32_t last; /* how long the last payload was, if it was long; or 0 */
  tdl_half halves[2];
  _Alignas(TDL_LINE_BYTES) atomic_int refs; /* the pool's, and each piece's */
} tdl_stage;

/* home; for payloads of at most that many bytes. */
int tdl_stage_new(size_t most, tdl_stage **out);

/* any thread */
void tdl_stage_drop(tdl_stage *stage);

/* home; before and after a payload is written into the job's bytes, which are
** empty; if that fails, the job is given back without the second. That fails with
** TREADLE_ENOMEM, for a payload that names things. */
void tdl_stage_lend(tdl_stage *stage, tdl_job *job);
int tdl_stage_keep(tdl_stage *stage, tdl_job *job);

/* home; the same for one that was written into its own bytes anyway. */
void tdl_stage_note(tdl_stage *stage, uint32_t len);

/* who has the job; its bytes, which were read, are its own again, and empty. */
void tdl_stage_leave(tdl_job *job);

/* home; the job has no piece any more. */
void tdl_stage_release(tdl_job *job);

#endif
