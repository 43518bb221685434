/* confined: a worker's thread takes on its pool's policy.
** Threads: the worker's own.
** Owns:    nothing; the policy is the pool's.
** Fails:   TREADLE_EPERMISSION, with a report for the home. */
#ifndef TDL_RUN_CONFINED_H
#define TDL_RUN_CONFINED_H

#include "worker.h"

/* Before each state: only the first time does anything. A thread that fails here
** never runs Lua. The report is a text, and the kind of the error. */
int tdl_confined_begin(tdl_worker *worker, tdl_bytes *report);

/* The report of a worker that cannot be confined. */
void tdl_confined_report(tdl_bytes *report, const char *why);

#endif
