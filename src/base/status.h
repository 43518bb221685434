/* status: the one table of outcomes: enum, C text, Lua kind.
** Threads: any.
** Owns:    nothing; the texts are static.
** Fails:   never. */
#ifndef TDL_BASE_STATUS_H
#define TDL_BASE_STATUS_H

#include "../treadle.h"

/* What a person reads; "unknown status" for a number that is none. */
const char *tdl_status_text(int status);

/* `err.kind` of the Lua error for it, e.g. "closed". */
const char *tdl_status_kind(int status);

/* The status whose Lua kind is `kind`, or TREADLE_ESYSTEM. */
int tdl_status_of_kind(const char *kind);

#endif
