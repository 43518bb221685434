/* tdl_harvest: what comes out of a process: results, what its tasks emit, and what
** it asks of its keeper (nested.h).
** Threads: whoever has the keeper's lock (keeper.h, H1).
** Owns:    nothing.
** Fails:   never; a process that says nonsense is broken (H5). */
#ifndef TDL_HARVEST_H
#define TDL_HARVEST_H

#include "keeper.h"

/* Takes all that there is: how much. `is_own`: by its thread, up to what is asked of
** the pool; else up to what is its thread's to take (X1), which is owed then. */
uint32_t tdl_harvest(tdl_keeper *keeper, int is_own);

/* For what was taken of the stream of that job, if there is some. */
void tdl_harvest_credit(tdl_keeper *keeper, const tdl_ticket *ticket);

int tdl_harvest_is_owed(const tdl_keeper *keeper);
void tdl_harvest_set_owed(tdl_keeper *keeper, int owed);

#endif
