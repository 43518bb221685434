/* confine: putting a policy into force, for a thread or for a process.
** Threads: any; see each function.
** Owns:    nothing; what is applied cannot be taken back.
** Fails:   TREADLE_EPERMISSION, with a text in `why` that says what cannot be
**          enforced, or what the kernel refused.
**
** C1  What tdl_confine_check lets pass is enforced, or the worker does not
**     start: nothing is left out in silence.
** C2  A thread is confined alone. It starts none, and no program unless the
**     policy has some: so nothing that the process shares ever runs confined.
** C3  The memory of a process is one: code that can forge a pointer is not
**     confined by any of this in a thread. That such code does not get there is
**     the business of the state that runs it (lua/treadle/confined.lua). */
#ifndef TDL_CONFINE_H
#define TDL_CONFINE_H

#include "policy.h"

/* any thread; `process`: for a process of its own, not for a thread. */
int tdl_confine_check(const tdl_policy *policy, int process, char *why,
                      size_t size);

/* The calling thread, which stays what it is when it is confined already by
** that same policy. */
int tdl_confine_thread(const tdl_policy *policy, char *why, size_t size);

/* The calling process, of which this is the only thread. Closes all descriptors
** from 3 on but the `count` ones in `keep`; one of them, `line`, is a socket on
** which it may send and receive (-1: none). It may start threads then, which are
** confined, too. */
int tdl_confine_process(const tdl_policy *policy, int line, const int *keep,
                        size_t count, char *why, size_t size);

#endif
