/* limits: how much of the machine a process may take.
** Threads: the only one of its process, before it makes others.
** Owns:    nothing; what is applied cannot be taken back.
** Fails:   TREADLE_EPERMISSION, with a text.
**
** Memory is counted as address space beyond what the process has when it is
** confined: also what is shared, or mapped from files. */
#ifndef TDL_CONFINE_LIMITS_H
#define TDL_CONFINE_LIMITS_H

#include "policy.h"

int tdl_limits_apply(const tdl_policy *policy, char *why, size_t size);

#endif
