/* tdl_guest: a job that the home of its pool runs itself.
** Threads: the home's.
** Owns:    the job, from take or submit to end.
** Fails:   never.
**
** To others a guest is a job like those of the workers: it is started, settled and
** sent home in the same way, and P5 counts it. Its `worker` is TDL_JOB_HOSTED. */
#ifndef TDL_GUESTS_H
#define TDL_GUESTS_H

#include "pool.h"

/* home; the same, to the home itself: 1 when the job is its guest now. */
int tdl_guest_submit(tdl_job *job);

/* home; a job of the run queue that becomes its guest, or NULL: there is none
** at once, or it has as many guests as a worker may have jobs. */
tdl_job *tdl_guest_take(treadle_pool *pool);

/* home; the guest's end, with its results or the error's report in its bytes:
** sends it home. */
void tdl_guest_end(tdl_job *job, int status);

#endif
