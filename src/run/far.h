/* tdl_far: a worker's end of the link, in a process of its own (the other one:
** keeper.h). It makes a job of each record that comes, which then runs as any, and
** a record of each job that has come home.
** Threads: the worker's, but for settle, which is the process's main thread's.
** Owns:    its jobs, and the link.
** Fails:   never: what it cannot say any more, its parent learns from its end.
**
** F1  The jobs have a home of their own, which the worker's thread owns: what it
**     sends home there, it finds again in the next turn, and puts into the ring.
** F2  An entry says which job has a ticket: that is in the upper half of the word,
**     the job's use in the lower; 0: none has. The worker writes it, and then looks at `doomed`; who settles the job writes
**     that first: it may still lie in the ring.
** F3  A job is recycled when its entry is cleared and nobody is just settling
**     one: the clearing, then the look at `settling`; `settling`, then the look
**     at the entry.
** F4  A result wakes the parent's home if that sleeps where it can be woken from
**     here (link.h, N5). The keeper's bell is rung when one is put that nobody may be
**     about to look for: one that the home does not wait for, or does so asleep
**     elsewhere; one that has lain there for TDL_FAR_LAIN_NS when a further job
**     begins; and before the worker sleeps, any, unless the home was just woken, or somebody copies.
** F5  The payload of a call lies in the ring until it is decoded: `open` is the
**     record. One with buffers is copied, since what stands in it for them is not
**     what the decoder knows (crossing.h).
** F6  After a long result, the next one is written straight into the link's bulk
**     memory: the job's bytes are lent its free end (N4), one job's at a time, and
**     come back when its record is put, or another long one is to be, or when
**     there are buffers in it.
** F7  What the worker's own code asks of the pool, which is the parent's, goes up
**     as records, too: upcall.h. */
#ifndef TDL_FAR_H
#define TDL_FAR_H

#include <pthread.h>

#include "../link/link.h"
#include "crossing.h"
#include "line.h"
#include "loop.h"

/* Kinds of records. */
enum tdl_far_kind {
  TDL_FAR_CALL = 1, /* down: ticket, task, deadline in `when`; status: below */
  TDL_FAR_RESULT,   /* up: ticket, status */
  TDL_FAR_REPORT,   /* up: of the boot */
  /* up: a call on the own pool: the number of its job as ticket, task, deadline in
  ** `when`; status: its place, see below */
  TDL_FAR_NESTED,
  TDL_FAR_CANCEL, /* up: the same ticket; status: by force; the reason */
  TDL_FAR_ANSWER, /* down: the same ticket, status; task: who ran it */
  TDL_FAR_EMIT,   /* up: a value; status: or 1, and one waits for room */
  TDL_FAR_CREDIT, /* down: for so many more of the ticket's (task); status: or 1,
                  ** and nobody wants any */
  TDL_FAR_ASK,    /* up: enum tdl_ask_pool in task; `when`: its number */
  TDL_FAR_AHEAD /* down: as TDL_FAR_CALL; it waits until there is room for it */
};

/* The place of such a call: a worker's number, or -enum tdl_rank. */

/* Of a call: somebody else than the pool's home waits for it. */
#define TDL_FAR_URGENT 1

/* A ticket: its number in the lower half, and in the upper one of its uses, which
** is never 0. */
#define TDL_FAR_INDEX(ticket) ((ticket)&0xffffu)
#define TDL_FAR_USE           0x10000u
#define TDL_FAR_TICKETS       0x10000u

#define TDL_FAR_ENTRIES 64 /* in a block of them */
#define TDL_FAR_BLOCKS  (TDL_FAR_TICKETS / TDL_FAR_ENTRIES)

typedef struct tdl_far_entry {
  _Atomic(tdl_job *) job;
  _Atomic uint64_t word;   /* F2 */
  _Atomic uint64_t doomed; /* F2: a ticket, and as what it was settled */
  uint8_t is_urgent;
  /* its stream (upcall.h, U5) */
  uint8_t waits, is_unwanted;
  uint32_t credit;
} tdl_far_entry;

typedef struct tdl_far {
  tdl_link link;
  tdl_crossing *crossing; /* read-only */
  uint32_t id;            /* the worker's, in the parent's pool */
  uint32_t tasks;         /* of its module, when that is loaded */
  int spins;              /* it may, before it sleeps */
  treadle_loop *home;     /* F1 */
  _Atomic(tdl_far_entry *) blocks[TDL_FAR_BLOCKS]; /* by ticket */
  tdl_record open;                                 /* F5 */
  tdl_job *reads;       /* F5: whose that is, or NULL */
  tdl_bytes kept;       /* F5: that one's own */
  tdl_job *writes;      /* F6: whose bytes are lent, or NULL */
  tdl_bytes aside;      /* F6: that one's own */
  int is_long;          /* F6: the last result was */
  uint64_t put_before;  /* F4: at the last call */
  uint32_t unlooked;    /* F4: calls since the last look */
  uint64_t lain_ns;     /* F4: since when something lies there, or 0 */
  int rings;            /* F4: at the end of this turn */
  int has_called;       /* F4: the last result has woken the home */
  int has_started;      /* that was told */
  uint32_t unshown;     /* calls since its tally was last shown for them */
  pthread_mutex_t lock; /* F3: to settle one */
  atomic_int settling;
} tdl_far;

struct tdl_worker;

/* The process's main thread, before the pool is opened; takes what was joined. */
int tdl_far_new(const tdl_link *link, tdl_crossing *crossing,
                const tdl_hello *hello, tdl_far **out);
void tdl_far_free(tdl_far *far);

/* As the worker is made: its sleep is one on the ring. */
void tdl_far_serve(tdl_far *far, tdl_parker *parker);

/* worker; 1 when there is something to be taken, with or without room for a job. */
int tdl_far_ready(tdl_far *far, int has_room);

/* worker; the next call, as from a queue, or NULL: also if something else comes
** first. */
tdl_job *tdl_far_take(tdl_far *far, struct tdl_worker *worker);

/* worker; the call's arguments have been decoded. */
void tdl_far_decoded(tdl_far *far, const tdl_job *job);

/* worker; the job's results will be written into its bytes, which are empty. */
void tdl_far_answers(tdl_far *far, tdl_job *job);

/* worker; puts the results of what has ended into the ring. Blocks while that is
** full. */
void tdl_far_flush(tdl_far *far);

/* worker; that record, and its payload, if any. Blocks as well. 0, or
** TREADLE_EPAYLOAD or TREADLE_ENOMEM: it cannot go up. The second: with a text,
** which is left out if it is long. */
int tdl_far_put(tdl_far *far, tdl_record *head, const tdl_bytes *payload);
void tdl_far_put_text(tdl_far *far, tdl_record *head, const void *text,
                      size_t len);

/* worker; the entry of a job that came from the parent; and by its ticket, NULL: it
** is over. */
tdl_far_entry *tdl_far_entry_of(tdl_far *far, const tdl_job *job);
tdl_far_entry *tdl_far_entry_at(tdl_far *far, uint32_t ticket);

/* worker; its keeper is to look. */
void tdl_far_ring(tdl_far *far);

/* worker, which has announced its rest. */
void tdl_far_rests(tdl_far *far);

/* worker, with nothing left to do. It announces how it will rest, before its last
** look; then it sleeps on the ring, until its parker is woken, too. */
void tdl_far_announce(tdl_far *far, struct tdl_worker *worker,
                      enum tdl_link_rest how);
void tdl_far_awake(tdl_far *far, struct tdl_worker *worker);
void tdl_far_sleep(tdl_far *far, struct tdl_worker *worker, uint64_t ns);

/* worker; lets its parent see what its tally has counted: its heap, and how long
** it was idle. */
void tdl_far_show(tdl_far *far, const struct tdl_worker *worker);

/* worker, before its start is told; what it has loaded, or why it could not. */
void tdl_far_report(tdl_far *far, const tdl_bytes *report, uint32_t tasks);

/* main thread; the parent has settled a job. */
void tdl_far_settle(tdl_far *far, const tdl_message *message);

#endif
