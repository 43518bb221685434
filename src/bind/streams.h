/* tdl_stream: what a job emits, on its way to whoever called: a channel.
** Threads: as a channel; whose the other fields are is said there.
** Owns:    a channel's messages.
** Fails:   TREADLE_ENOMEM where one is made.
**
** M1  It belongs to one use of a job (J7). The home has a handle on it if somebody
**     has asked for it (`asked`), or if its future was settled before anybody did:
**     then that keeps it, and the values can still be had.
** M2  Nobody asks before he waits for something else, or never. So when it is
**     full and nobody has asked, its worker sends `note`: it arrives when the
**     home's code has come back to its loop, and before the job does, since one
**     thread sends both. If nobody has asked then, nobody will: it is closed, and
**     what is in it is `dropped`. A guest's home looks at its next turn instead.
** M3  Somebody who has asked and lets go of the handle wants no more: it is
**     closed (also where a state is lost: its handles end with it). So it is when
**     the future is settled.
** M4  Where the worker is a process (upcall.h, U5), its keeper passes on what comes
**     (`emitted`), under its lock, and gives credit for what was taken (`given`). A
**     home that takes something from a `hungry` one wakes the keeper for that, as
**     it does when it closes the stream; `job` is there until it has been told how
**     that ended. */
#ifndef TDL_BIND_STREAMS_H
#define TDL_BIND_STREAMS_H

#include "channels.h"

typedef struct tdl_stream {
  tdl_channel channel; /* first: the handle's thing is ours */
  tdl_note note;       /* M2 */
  int noted;           /* the worker's: it was sent */
  atomic_int asked;    /* the home's; for the worker it is a hint */
  int dropped;         /* the home's */
  /* M4 */
  tdl_job *job;            /* the home's; NULL: its worker is no process */
  uint32_t emitted, given; /* the keeper's; they may wrap */
  int told_closed;         /* as well */
  atomic_int hungry;       /* set before it looks how many there are */
} tdl_stream;

extern const tdl_kind tdl_stream_kind;

/* The stream of the job whose code runs, NULL when that is none, or has none yet,
** or is given up; and its pool's limit of a payload. */
tdl_channel *tdl_stream_here(const tdl_bind *b, uint32_t *max_payload);

/* A handle on it ends (M3). */
void tdl_stream_let_go(const tdl_bind *b, tdl_counted *thing);

/* home; that came of receiving from a channel, which may be a stream's (M4). */
void tdl_stream_taken(const tdl_bind *b, tdl_channel *c,
                      tdl_channel_status status);

/* home; nobody hears of the job from now on: who reads its stream gets to its end
** (M3). Needs no memory. */
void tdl_bind_end_stream(const tdl_job *job);

/* home; the future at `index`, whose job that is, is settled: it keeps what
** nobody has asked for yet (M1). Raises without memory. */
void tdl_bind_keep_stream(lua_State *L, int index, const tdl_job *job);

#endif
