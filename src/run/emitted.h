/* emitted: what the binding layer provides for the streams of jobs that a process
** has (upcall.h, U5; the other side of this: bind/streams.h, M4).
** Threads: whoever has the lock of the job's keeper.
** Owns:    nothing.
** Fails:   as told. */
#ifndef TDL_EMITTED_H
#define TDL_EMITTED_H

#include "../job/job.h"

/* A value, whose payload it takes; 0: it had no credit, or there is no memory. */
int tdl_bind_emitted(tdl_job *job, tdl_bytes *payload);

/* The job waits for credit. */
void tdl_bind_starves(tdl_job *job);

/* How much more it may have, if that is worth a record; whether it is to hear that
** nobody wants any. And that it was told. */
uint32_t tdl_bind_credit(const tdl_job *job, int *is_closed);
void tdl_bind_gave_credit(const tdl_job *job, uint32_t count, int is_closed);

#endif
