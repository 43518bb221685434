/* tdl_segments: where the code of the loaded objects lies.
** Threads: any refreshes; any looks a place up, in a signal handler, too.
** Owns:    one table for the process, which is never freed.
** Fails:   with -1 from find while the table is written or does not hold all:
**          nobody may conclude anything then. */
#ifndef TDL_RUN_SEGMENTS_H
#define TDL_RUN_SEGMENTS_H

/* Reads the table anew if objects were loaded or unloaded since. Takes the
** dynamic linker's lock: not for a signal handler. */
void tdl_segments_refresh(void);

/* The segment that holds `place`: its number, from 1 on, until the next
** refresh; 0 if it lies in none; -1 if that is not known just now. */
int tdl_segments_find(const void *place);

#endif
