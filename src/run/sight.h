/* tdl_sight: what a worker in a process of its own shows of itself: its heap, its
** time, and where in the code it is.
** Threads: each function says whose it is.
** Owns:    nothing.
** Fails:   never.
**
** The process says so itself: no more is believed than can be. What it executes is
** asked for by a message, and told in one, by its main thread. */
#ifndef TDL_SIGHT_H
#define TDL_SIGHT_H

#include "keeper.h"
#include "line.h"
#include "look.h"

/* A TDL_LINE_VIEW; the stack ends with its last frame. */
typedef struct tdl_sight {
  uint32_t kind;
  uint32_t number; /* of the look */
  uint32_t ticket; /* of the job; 0: none */
  uint32_t entry;  /* of a job that waits; 0: there are no more */
  uint32_t has_stack;
  tdl_stack stack;
} tdl_sight;

/* The worker's thread: its process has been told what it needs to begin; has ended,
** and is yet to be reaped, or never got that far. */
void tdl_sight_begin(tdl_keeper *keeper);
void tdl_sight_end(tdl_keeper *keeper);

/* who hears (crossing.h); takes a TDL_LINE_VIEW, for a tdl_ear. 0: nonsense. */
int tdl_sight_hear(void *ear, int line);

/* any thread that keeps the pool; has its tallies know what its processes say. */
void tdl_sight_tally(const treadle_pool *pool);

/* The same. There is a process, which may be loading its module; it does not sleep:
** a hint. */
int tdl_sight_is_live(tdl_keeper *keeper);
int tdl_sight_is_awake(tdl_keeper *keeper);

/* who looks (look.h, K2); asks what runs, or for the job that waits behind that
** entry, minus 1. Until the end of the look the view may be written: its ticket and
** its stack. 0: there is nobody to ask. */
int tdl_sight_ask(tdl_keeper *keeper, uint32_t after, tdl_view *view);
int tdl_sight_is_heard(tdl_keeper *keeper);

/* The entry; 0 also if there was no answer. */
uint32_t tdl_sight_end_look(tdl_keeper *keeper);

/* The process's main thread; does what a TDL_LINE_LOOK asks for. */
void tdl_sight_answer(treadle_pool *pool, int line, const tdl_message *message);

#endif
