/* tdl_errand: a job's stay in a worker's process, from its start, when it is RUNNING
** and counts, to its end.
** Threads: whoever has the keeper's lock (keeper.h, H1).
** Owns:    nothing.
** Fails:   a job, without memory, and with what its payload cannot bring across. */
#ifndef TDL_ERRAND_H
#define TDL_ERRAND_H

#include "far.h"
#include "keeper.h"

/* A call that was popped: it is started, or ends without memory. */
void tdl_errand_begin(tdl_keeper *keeper, tdl_job *job);
void tdl_errand_refuse(tdl_keeper *keeper, tdl_job *job);

/* As tdl_vm_run begins; its record is put if it is bare. */
void tdl_errand_start(tdl_keeper *keeper, tdl_ticket *ticket);

/* Its record: as tdl_crossing_put. The second, of a job that was started: 0 when it
** has to wait for room in the ring. */
int tdl_errand_put(tdl_keeper *keeper, const tdl_ticket *ticket,
                   enum tdl_far_kind kind);
int tdl_errand_call(tdl_keeper *keeper, tdl_ticket *ticket);

/* The end of a started job, with what is in its bytes; or with a text. */
void tdl_errand_end(tdl_keeper *keeper, tdl_ticket *ticket, int status);
void tdl_errand_fail(tdl_keeper *keeper, tdl_ticket *ticket, int status,
                     const char *text);

/* H2: nobody has begun it, and the process has ended: back to the slot. Whether
** that had begun one. */
void tdl_errand_take_back(tdl_keeper *keeper, tdl_ticket *ticket);
int tdl_errand_had_begun(const tdl_keeper *keeper, const tdl_ticket *ticket);

/* So many are in progress; of them so many do not count (H6). */
void tdl_errand_progress(tdl_keeper *keeper, uint32_t jobs);
void tdl_errand_exempt(tdl_keeper *keeper, uint32_t jobs);

#endif
