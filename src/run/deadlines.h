/* tdl_deadlines: jobs by the time at which they are due.
** Threads: one at a time; its owner has a lock.
** Owns:    its memory; of a job only its place, `heap_index`.
** Fails:   TREADLE_ENOMEM from add. */
#ifndef TDL_DEADLINES_H
#define TDL_DEADLINES_H

#include "../job/job.h"

typedef struct tdl_deadlines {
  tdl_job **heap; /* heap[1] is due first; job->heap_index is its place */
  uint32_t count, room;
} tdl_deadlines;

/* The job's deadline_ns stays as it is until the job is removed. */
int tdl_deadlines_add(tdl_deadlines *d, tdl_job *job);
void tdl_deadlines_remove(tdl_deadlines *d, tdl_job *job);

/* What is due first, or NULL. */
tdl_job *tdl_deadlines_first(const tdl_deadlines *d);

/* Forgets all jobs. */
void tdl_deadlines_fini(tdl_deadlines *d);

#endif
