/* tdl_board: the pools of all states of the process, for who shows them.
** Threads: any shows a pool; one thread at a time opens, reads, closes.
** Owns:    of each pool on it the stats; and the pool until that is over.
** Fails:   TREADLE_ENOMEM from _show: the pool is not on it then.
**
** Y1  Only while it is open is anything put on it; so it costs a pool that is
**     opened one load, and a call nothing.
** Y2  The newest is first. The lock guards `first`; what follows an entry only
**     the reader changes, and the entry itself, once it is there. */
#ifndef TDL_BOARD_H
#define TDL_BOARD_H

#include "pool.h"

typedef struct tdl_shown {
  struct tdl_shown *next;
  treadle_pool *pool; /* NULL once it is over */
  tdl_stats *stats;
  uint32_t number; /* from 1, in the order in which they came */
  size_t name_size, size;
  char text[]; /* the name, then what its opener told */
} tdl_shown;

/* reader */
void tdl_board_open(void);
void tdl_board_close(void);

/* any thread */
int tdl_board_is_open(void);

/* who opened the pool; copies both. 0 or TREADLE_ENOMEM. */
int tdl_board_show(treadle_pool *pool, const char *name, size_t name_size,
                   const char *told, size_t told_size);

/* reader; those that are there now. */
tdl_shown *tdl_board_first(void);

/* reader; lets go of the pool, if it is over. */
void tdl_board_look(tdl_shown *shown);

/* reader; takes it off. */
void tdl_board_forget(tdl_shown *shown);

#endif
