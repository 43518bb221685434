/* tdl_child: the main thread of a process that is a worker's.
** Threads: that one.
** Owns:    the process.
** Fails:   with the process's exit status.
**
** It has a pool of one worker, whose calls come from the parent (far.h), and does
** what the parent says on the line. When that is at its end, so is the process,
** whatever runs in it. */
#ifndef TDL_CHILD_H
#define TDL_CHILD_H

/* `treadle --worker`. The exit status. */
int tdl_child_main(void);

#endif
