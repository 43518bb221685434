/* tdl_said: what the code of a worker has to say to its pool's home, though no
** call asks for it.
** Threads: below.
** Owns:    the payload, from post until the home has handled it.
** Fails:   with TREADLE_ENOMEM. */
#ifndef TDL_SAID_H
#define TDL_SAID_H

#include "pool.h"

/* worker; takes the payload, which reaches pool->event as TDL_POOL_SAID, in the
** order of these calls, and before the worker's last note; nowhere, if the home
** has left the pool. On failure it is still the caller's. */
int tdl_said_post(treadle_pool *pool, uint32_t worker, tdl_bytes *bytes);

#endif
