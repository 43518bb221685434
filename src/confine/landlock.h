/* landlock: which files, TCP ports and other processes the kernel lets a thread
** reach, and whatever that thread starts.
** Threads: any; it confines the one that calls, and no other.
** Owns:    nothing; what is applied cannot be taken back.
** Fails:   TREADLE_EPERMISSION, with a text that says what could not be done.
**
** Rules only allow: what is below an allowed folder cannot be taken out of it
** again. A folder that holds something secret is granted entry by entry, by
** who makes the policy. What is open already stays open. Not covered, by any
** version: looking at names, sizes and times (stat), changing owners, modes and
** times; filter.h denies the latter. */
#ifndef TDL_CONFINE_LANDLOCK_H
#define TDL_CONFINE_LANDLOCK_H

#include "policy.h"

/* The version that this kernel has, 0: none. */
int tdl_landlock_version(void);

/* What that version cannot enforce of the policy; NULL: nothing. */
const char *tdl_landlock_lacks(const tdl_policy *policy, int version);

int tdl_landlock_apply(const tdl_policy *policy, char *why, size_t size);

#endif
