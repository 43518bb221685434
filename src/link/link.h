/* tdl_link: the memory that a worker in a process of its own shares with its
** parent: a ring of records for each direction, and words to sleep on.
** Threads: one writes and one reads in each direction; who that is may change,
**          if a lock hands it on.
** Owns:    the region.
** Fails:   with a treadle_status; put answers 0 when there is no room.
**
**   page | ring down | ring up | bulk down | bulk up
**
** A record is a header of half a cache line, followed by its payload. Where that
** is long, it lies in the direction's bulk memory instead, which is as large as
** the longest one, and has pages only where it was used.
**
** N1  The child trusts its parent, who made what the child reads. The parent
**     trusts nothing: it copies a header before it looks at it, checks what it
**     says against what it knows itself, and copies a payload before anything
**     decodes it.
** N2  A record is there when its stamp is its position, plus 1. That is written
**     last [link-stamp], in the cache line of the header. Before it the stamp
**     behind the record is cleared: what lies there from another lap, which a
**     caller may have chosen, is no record.
** N3  `taken` is the reader's: up to there it has copied all records, and their
**     bulk. The writer looks when it needs the room, and believes it only
**     between what it has seen taken and what it has put.
**     `begun` is how far it has come in using them, which may end it: what lies
**     behind that, another one may be given. The reader moves it on by a
**     compare-and-swap [link-begun], which fails while the writer holds it (the
**     lowest bit): what is not begun then, the writer may withdraw, where it lies
**     (its stamp says so), and the reader skips it.
** N4  Bulk memory is given out in the order of the records, and starts anew when
**     all of them are taken, so that the pages in use stay few and warm. A writer
**     may have its free end before there is a record, and write the payload where
**     it would be copied to; until that is put, or given up, it puts no other that
**     is long.
**     A payload that lies in memory which the reader sees anyway (`shown`, the
**     pool's stage) is not copied either: the record says where.
** N5  `rest` is the child's way to sleep [park]: announce, look again, sleep;
**     whoever has put a record looks at it. `away` says how the parent's home
**     sleeps: on this word, among others, or so that who has put a record for it
**     rings the keeper's bell. `dozes` says the same of the keeper's thread, which
**     looks again, too. `copies` says that somebody copies a long record, and will
**     look again when that is done.
** N6  The parent, while it `listens`, hears of the child's rest: the child looks
**     at that word when it has announced one, and rings. */
#ifndef TDL_LINK_H
#define TDL_LINK_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "../base/region.h"
#include "../config.h"

/* What a record begins with; the reader works on a copy. */
typedef struct tdl_record {
  _Atomic uint64_t stamp; /* N2, N3; private */
  uint32_t len;           /* of the payload */
  uint8_t kind;           /* 0: the rest of the ring is skipped */
  uint8_t place;          /* private; if not 0, the payload says where in it */
  int16_t status;
  uint32_t ticket;
  uint32_t task;
  uint64_t when;
} tdl_record;

_Static_assert(sizeof(tdl_record) == TDL_LINK_GRAIN_BYTES / 2, "half a line");

/* The words that both sides see. */
typedef struct tdl_link_page {
  uint64_t version, ring_bytes, bulk_bytes; /* the parent's, before the start */
  _Alignas(TDL_LINE_BYTES) _Atomic uint64_t down_taken; /* N3: the child's */
  _Atomic uint64_t down_begun;                          /* N3: too */
  _Alignas(TDL_LINE_BYTES) _Atomic uint64_t up_taken;   /* the parent's */
  _Alignas(TDL_LINE_BYTES) _Atomic uint32_t rest;       /* N5 */
  _Alignas(TDL_LINE_BYTES) _Atomic uint32_t away;       /* N5 */
  _Atomic uint32_t copies;                              /* N5 */
  /* what the child says of itself, as its tally has it (stats.h) */
  _Alignas(TDL_LINE_BYTES) _Atomic uint64_t heap_bytes;
  _Atomic uint64_t idle;
  /* and how many of its jobs do not count (vm_calls.h, V3) */
  _Alignas(TDL_LINE_BYTES) _Atomic uint32_t exempt;
  _Alignas(TDL_LINE_BYTES) _Atomic uint32_t dozes;   /* N5 */
  _Alignas(TDL_LINE_BYTES) _Atomic uint32_t listens; /* N6 */
  /* the pool's size, at least and now; and whether it takes calls of its home */
  _Alignas(TDL_LINE_BYTES) _Atomic uint64_t size;
  _Atomic uint32_t is_closing;
  _Atomic uint32_t
      waits; /* the child: not for its parent, before it is quiet */
  /* what the child has asked is answered; how often */
  _Alignas(TDL_LINE_BYTES) int64_t reply;
  _Atomic uint32_t replies;
} tdl_link_page;

#define TDL_LINK_WITHDRAWN (UINT64_C(1) << 63) /* N3: in a stamp */

enum tdl_link_away {
  TDL_LINK_HERE = 0,
  TDL_LINK_ON_WORD, /* it sleeps on the word itself */
  TDL_LINK_ON_BELL  /* the keeper's wakes it */
};

enum tdl_link_rest {
  TDL_LINK_AWAKE = 0,
  TDL_LINK_SLEEPS, /* on the word itself */
  TDL_LINK_IN_LOOP /* in its script's loop: a message wakes it */
};

/* What the parent shows, in its mapping and in the child's; or nothing. */
typedef struct tdl_link_shown {
  const uint8_t *data;
  uint64_t bytes;
} tdl_link_shown;

typedef struct tdl_link_writer {
  uint8_t *ring, *bulk;
  tdl_link_shown shown;          /* set by who has opened it */
  const _Atomic uint64_t *taken; /* the reader's word */
  uint64_t ring_bytes, bulk_bytes;
  uint64_t put;       /* records end here */
  uint64_t last;      /* the last one begins here */
  uint64_t seen;      /* of `taken` (N3) */
  uint64_t bulk_at;   /* given out up to here */
  uint64_t bulk_most; /* pages up to here */
  uint64_t lent;      /* where the last record with bulk ends */
} tdl_link_writer;

typedef struct tdl_link_reader {
  uint8_t *ring, *bulk;
  tdl_link_shown shown; /* the same */
  _Atomic uint64_t *taken;
  uint64_t ring_bytes, bulk_bytes;
  _Atomic uint64_t got; /* records were read up to here; others may ask ready */
  uint64_t begun;       /* the child's: N3 */
} tdl_link_reader;

typedef struct tdl_link {
  tdl_region region;
  tdl_link_page *page; /* NULL: it is not open */
  tdl_link_writer out;
  tdl_link_reader in;
} tdl_link;

/* parent; for payloads of at most that many bytes. And the same in the child, by
** the descriptor, which it takes: TREADLE_EINVAL when it is none. */
int tdl_link_open(size_t most, tdl_link *out);
int tdl_link_join(int fd, tdl_link *out);

/* parent, for the next child: as it was when it was opened, in new memory, so that
** nobody whom the last one has left behind reaches it. */
int tdl_link_reset(tdl_link *link);

/* For one that is not open, too. */
void tdl_link_close(tdl_link *link);

/* --- writing -------------------------------------------------------------- */

/* The free end of the bulk (N4): how long it is, 0 where there is none. */
uint64_t tdl_link_lend(tdl_link_writer *w, uint8_t **data);

/* Of the header, len, kind, status, ticket, task and when are the caller's; the
** bytes are copied, but for a long payload that was written where it was lent,
** or lies in what is shown. 1 when it is put; 0 when there is no room now, and nothing
** has happened; below 0: the payload never fits (TREADLE_EPAYLOAD), or the
** reader has taken what there never was (TREADLE_EINVAL). */
int tdl_link_put(tdl_link_writer *w, const tdl_record *head, const void *data);

/* Whether the reader has taken what ends there, at an earlier `put`: a look. */
int tdl_link_has_taken(const tdl_link_writer *w, uint64_t put);

/* parent: 0 when the child, which has ended, had not begun what ends there; 1 when
** it had, or says what cannot be. */
int tdl_link_had_begun(const tdl_link *link, uint64_t put);

/* parent: holds what the child has not begun, so that it does not: where that lies,
** or UINT64_MAX if the child says what cannot be. Withdraws what begins there or
** later, until it lets go of it. */
uint64_t tdl_link_hold(tdl_link *link);
void tdl_link_withdraw(tdl_link *link, uint64_t begins);
void tdl_link_let_go(tdl_link *link);

/* Gives back the pages that long payloads have left, if none is under way. */
void tdl_link_trim(tdl_link_writer *w);

/* --- reading -------------------------------------------------------------- */

/* 1 when there is a record, or one that was withdrawn. */
static inline int tdl_link_ready(const tdl_link_reader *r) {
  /* relaxed: the reader's own; who does not read looks for a hint */
  uint64_t got = atomic_load_explicit(&r->got, memory_order_relaxed);
  const tdl_record *record =
      (const tdl_record *)(r->ring + (got & (r->ring_bytes - 1)));
  /* [link-stamp] acquire: the record was written */
  return (atomic_load_explicit(&record->stamp, memory_order_acquire) &
          ~TDL_LINK_WITHDRAWN) == got + 1;
}

/* child: the kind of the oldest record; 0: there is none. Skips what is withdrawn. */
int tdl_link_kind(tdl_link_reader *r);

/* The oldest record: 1, with a copy of its header, and where its payload lies,
** which is the writer's memory still. 0: there is none; below 0: it is nonsense
** (N1). */
int tdl_link_look(tdl_link_reader *r, tdl_record *head, const uint8_t **data);

/* child: it begins to use that one, which it takes later (N3): 1. 0: it was
** withdrawn, and there may be another one; below 0: the word is nonsense. Blocks
** while the parent holds it. */
int tdl_link_begin(tdl_link *link, const tdl_record *head);

/* That one was copied: its memory is the writer's again. */
void tdl_link_take(tdl_link_reader *r, const tdl_record *head);

/* --- sleeping (N5) -------------------------------------------------------- */

/* parent, after it has put something: 1 when the child is to be sent a message
** for that, because it rests in a loop. */
int tdl_link_wake(tdl_link *link);

/* parent: whether the child rests, for a hint. */
int tdl_link_rests(const tdl_link *link);

/* child; as tdl_parker has them. `ns`: how long at most. */
void tdl_link_announce(tdl_link *link, enum tdl_link_rest how);
void tdl_link_sleep(tdl_link *link, uint64_t ns);

/* child; it does not rest any more: another thread of it, which wakes it too. */
void tdl_link_awake(tdl_link *link);
void tdl_link_rouse(tdl_link *link);

/* parent: how its home sleeps from now on. child, after it has put something: how it
** sleeps; if on the word it is woken, if on the bell the caller is to ring. */
void tdl_link_set_away(tdl_link *link, enum tdl_link_away away);
enum tdl_link_away tdl_link_call_home(tdl_link *link);
static inline const _Atomic uint32_t *tdl_link_away_word(const tdl_link *link) {
  return &link->page->away;
}

/* The same of the keeper's thread. */
void tdl_link_set_dozing(tdl_link *link, int dozes);
int tdl_link_is_dozing(const tdl_link *link);

/* parent: it copies, and looks again after it has said that it does not any more.
** child, after it has put something: whether it does. */
void tdl_link_set_copying(tdl_link *link, int copies);
int tdl_link_is_copied(const tdl_link *link);

/* parent: it listens from now on (N6). Then: 1 when the child rests, waits for
** nothing, has taken all that was put, and nothing of it is to be read. */
void tdl_link_listen(tdl_link *link, int listens);
int tdl_link_is_calm(const tdl_link *link);

/* child, before it announces its rest: whether it is not quiet all the same. */
void tdl_link_set_waiting(tdl_link *link, int waits);

/* child, when it has announced its rest: whether the parent is to hear of it. */
int tdl_link_is_heard(const tdl_link *link);

/* --- what one side tells the other ---------------------------------------- */

/* child; parent: for a hint, as far as it can be. */
void tdl_link_set_exempt(tdl_link *link, uint32_t jobs);
uint32_t tdl_link_exempt(const tdl_link *link);

/* parent; child. */
void tdl_link_set_pool(tdl_link *link, uint32_t min, uint32_t now, int closing);
uint32_t tdl_link_min_size(const tdl_link *link);
uint32_t tdl_link_size(const tdl_link *link);
int tdl_link_is_closing(const tdl_link *link);

/* parent: answers what the child has asked. child: how often that was done so
** far, before it asks; then it blocks until that is done once more. */
void tdl_link_reply(tdl_link *link, int64_t value);
uint32_t tdl_link_replies(const tdl_link *link);
int64_t tdl_link_await_reply(tdl_link *link, uint32_t before);

#endif
