/* filter: which system calls the kernel takes from a thread (seccomp).
** Threads: any; it filters the one that calls, and what that starts.
** Owns:    nothing; what is applied cannot be taken back.
** Fails:   TREADLE_EPERMISSION, with a text.
**
** A list of what is allowed; anything else, also what a later kernel adds, fails
** with EPERM. It closes what Landlock leaves open: sockets, other processes and
** their memory, owners and modes of files, namespaces, keys, and in a thread all
** that would change the process it shares: its folder, its handlers of files'
** modes, its threads. */
#ifndef TDL_CONFINE_FILTER_H
#define TDL_CONFINE_FILTER_H

#include "policy.h"

/* Why this machine cannot filter; NULL: it can. */
const char *tdl_filter_lacks(void);

/* `line`: of a process, a socket on which it may send and receive; -1: none. */
int tdl_filter_apply(const tdl_policy *policy, int process, int line, char *why,
                     size_t size);

#endif
