#include "link.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "../base/compiler.h"
#include "../base/stall.h"
#include "../treadle.h"

#define LINE    ((uint64_t)TDL_LINK_GRAIN_BYTES)
#define VERSION 1u
#define NOWHERE UINT64_MAX
#define HELD    UINT64_C(1) /* N3: in the word `begun` */

static uint64_t round_up(uint64_t n, uint64_t to) {
  return (n + to - 1) / to * to;
}

/* Where a payload lies: behind its header, or behind that it says at which byte of
** the other two. */
enum place { INLINE = 0, BULK, SHOWN };

/* --- opening -------------------------------------------------------------- */

/* The sizes are the caller's: those in the page are anybody's (N1). */
static void set_up(tdl_link *link, int is_parent, uint64_t ring,
                   uint64_t bulk) {
  tdl_link_page *page = (tdl_link_page *)link->region.data;
  uint8_t *rings = link->region.data + TDL_LINK_PAGE_BYTES;
  uint8_t *bulks = rings + 2 * ring;
  int in = is_parent, out = !is_parent; /* 0: down, 1: up */
  link->page = page;
  link->in = (tdl_link_reader){
      .ring = rings + (in ? ring : 0),
      .bulk = bulks + (in ? bulk : 0),
      .taken = in ? &page->up_taken : &page->down_taken,
      .ring_bytes = ring,
      .bulk_bytes = bulk,
  };
  link->out = (tdl_link_writer){
      .ring = rings + (out ? ring : 0),
      .bulk = bulks + (out ? bulk : 0),
      .taken = out ? &page->up_taken : &page->down_taken,
      .ring_bytes = ring,
      .bulk_bytes = bulk,
  };
}

static size_t size_of(uint64_t bulk_bytes) {
  return (size_t)(TDL_LINK_PAGE_BYTES + 2 * TDL_LINK_RING_BYTES +
                  2 * bulk_bytes);
}

/* parent; into a region of zeros. */
static void begin(tdl_link *link, uint64_t bulk) {
  tdl_link_page *page = (tdl_link_page *)link->region.data;
  page->version = VERSION;
  page->ring_bytes = TDL_LINK_RING_BYTES;
  page->bulk_bytes = bulk;
}

/* What may be asked without a lock stays as it is, but for `got`: the addresses
** are the same. */
static void rewind_all(tdl_link *link) {
  tdl_link_writer *out = &link->out;
  /* relaxed: who asks ready without the lock looks for a hint */
  atomic_store_explicit(&link->in.got, 0, memory_order_relaxed);
  out->put = out->last = out->seen = out->bulk_at = out->bulk_most = out->lent =
      0;
}

int tdl_link_open(size_t most, tdl_link *out) {
  uint64_t bulk = round_up(most + LINE, TDL_LINK_PAGE_BYTES);
  int status = tdl_region_open_sparse(size_of(bulk), &out->region);
  if (status == 0) {
    begin(out, bulk);
    set_up(out, 1, TDL_LINK_RING_BYTES, bulk);
  }
  return status;
}

int tdl_link_join(int fd, tdl_link *out) {
  uint64_t head[3];
  int status;
  if (pread(fd, head, sizeof(head), offsetof(tdl_link_page, version)) !=
          (ssize_t)sizeof(head) ||
      head[0] != VERSION || head[1] != TDL_LINK_RING_BYTES ||
      head[2] > SIZE_MAX / 4) {
    return TREADLE_EINVAL;
  }
  status = tdl_region_adopt(fd, size_of(head[2]), &out->region);
  if (status == 0) {
    set_up(out, 0, head[1], head[2]);
  }
  return status;
}

int tdl_link_reset(tdl_link *link) {
  int status = tdl_region_renew(&link->region);
  if (status == 0) {
    begin(link, link->in.bulk_bytes);
    rewind_all(link);
  }
  return status;
}

void tdl_link_close(tdl_link *link) {
  tdl_region_close(&link->region);
  link->page = NULL;
}

/* --- writing -------------------------------------------------------------- */

/* N3 */
static int look_at_taken(tdl_link_writer *w) {
  /* [link-taken] acquire: what it has taken, it has copied */
  uint64_t taken = atomic_load_explicit(w->taken, memory_order_acquire);
  if (taken < w->seen || taken > w->put) {
    return TREADLE_EINVAL;
  }
  w->seen = taken;
  if (taken >= w->lent) { /* N4 */
    w->bulk_at = 0;
  }
  return 0;
}

static tdl_record *record_at(uint8_t *ring, uint64_t size, uint64_t at) {
  return (tdl_record *)(ring + (at & (size - 1)));
}

/* Makes what begins at `put` and takes `bytes` a record. */
static void publish(tdl_link_writer *w, uint64_t bytes) {
  tdl_record *record = record_at(w->ring, w->ring_bytes, w->put);
  tdl_record *next = record_at(w->ring, w->ring_bytes, w->put + bytes);
  /* relaxed: before the next line (N2) */
  atomic_store_explicit(&next->stamp, 0, memory_order_relaxed);
  TDL_STALL();
  /* [link-stamp] release: the record is written */
  atomic_store_explicit(&record->stamp, w->put + 1, memory_order_release);
  w->put += bytes;
}

/* Whether so much, and the stamp behind it, may be written. */
static int has_room(const tdl_link_writer *w, uint64_t bytes) {
  return w->ring_bytes - (w->put - w->seen) >= bytes + LINE;
}

/* Its pages may all be used from here on. */
uint64_t tdl_link_lend(tdl_link_writer *w, uint8_t **data) {
  if (look_at_taken(w) != 0) {
    return 0;
  }
  w->bulk_most = w->bulk_bytes;
  *data = w->bulk + w->bulk_at;
  return w->bulk_bytes - w->bulk_at;
}

/* Where in that memory it lies, if it does. */
static int lies_in(const uint8_t *memory, uint64_t bytes, const void *data,
                   uint64_t *at) {
  *at = (uintptr_t)data - (uintptr_t)memory;
  return *at < bytes;
}

/* Where a long payload is to lie: BULK, with no `at`, if it is to be copied. */
static enum place place_of(const tdl_link_writer *w, const void *data,
                           uint64_t *at) {
  if (lies_in(w->bulk, w->bulk_bytes, data, at)) { /* N4: it was lent */
    return BULK;
  } else if (lies_in(w->shown.data, w->shown.bytes, data, at)) {
    return SHOWN;
  }
  *at = NOWHERE;
  return BULK;
}

/* The header, and with it where the payload lies. */
static void write_record(tdl_record *record, const tdl_record *head,
                         enum place place) {
  record->len = head->len;
  record->kind = head->kind;
  record->place = (uint8_t)place;
  record->status = head->status;
  record->ticket = head->ticket;
  record->task = head->task;
  record->when = head->when;
}

int tdl_link_put(tdl_link_writer *w, const tdl_record *head, const void *data) {
  uint64_t n = head->len, at = NOWHERE;
  int is_long = n > TDL_LINK_INLINE_BYTES;
  enum place place = is_long ? place_of(w, data, &at) : INLINE;
  uint64_t bytes =
      round_up(sizeof(tdl_record) + (is_long ? sizeof(at) : n), LINE);
  uint64_t end = w->ring_bytes - (w->put & (w->ring_bytes - 1));
  uint64_t all = bytes + (bytes > end ? end : 0);
  tdl_record *record;
  if (n > w->bulk_bytes) {
    return TREADLE_EPAYLOAD;
  }
  if (TDL_UNLIKELY(is_long) || !has_room(w, all)) {
    int status = look_at_taken(w);
    if (status != 0 || !has_room(w, all) ||
        (is_long && at == NOWHERE && w->bulk_at + n > w->bulk_bytes)) {
      return status;
    }
  }
  if (bytes > end) { /* on to the beginning of the ring */
    record_at(w->ring, w->ring_bytes, w->put)->kind = 0;
    publish(w, end);
  }
  record = record_at(w->ring, w->ring_bytes, w->put);
  write_record(record, head, place);
  if (TDL_UNLIKELY(is_long)) {
    if (at == NOWHERE) {
      at = w->bulk_at;
      memcpy(w->bulk + at, data, n);
    }
    memcpy(record + 1, &at, sizeof(at));
    if (place == BULK) {
      w->bulk_at = round_up(at + n, LINE);
      w->bulk_most = w->bulk_at > w->bulk_most ? w->bulk_at : w->bulk_most;
      w->lent = w->put + bytes;
    }
  } else if (n > 0) {
    memcpy(record + 1, data, n);
  }
  w->last = w->put;
  publish(w, bytes);
  return 1;
}

int tdl_link_has_taken(const tdl_link_writer *w, uint64_t put) {
  /* relaxed: who needs the room looks in earnest */
  return atomic_load_explicit(w->taken, memory_order_relaxed) >= put;
}

int tdl_link_had_begun(const tdl_link *link, uint64_t put) {
  /* relaxed: its writer has ended */
  uint64_t begun =
      atomic_load_explicit(&link->page->down_begun, memory_order_relaxed) &
      ~HELD;
  return begun >= put || begun < link->out.seen;
}

uint64_t tdl_link_hold(tdl_link *link) {
  /* [link-begun] acq_rel: before or after the child begins something */
  uint64_t begun = atomic_fetch_or_explicit(&link->page->down_begun, HELD,
                                            memory_order_acq_rel) &
                   ~HELD;
  return begun <= link->out.put ? begun : UINT64_MAX;
}

void tdl_link_withdraw(tdl_link *link, uint64_t begins) {
  tdl_record *record = record_at(link->out.ring, link->out.ring_bytes, begins);
  /* relaxed: before it lets go */
  atomic_store_explicit(&record->stamp, (begins + 1) | TDL_LINK_WITHDRAWN,
                        memory_order_relaxed);
}

void tdl_link_let_go(tdl_link *link) {
  /* [link-begun] release: what was withdrawn */
  atomic_fetch_and_explicit(&link->page->down_begun, ~HELD,
                            memory_order_release);
}

void tdl_link_trim(tdl_link_writer *w) {
  if (w->bulk_most > TDL_LINK_KEEP_BYTES && look_at_taken(w) == 0 &&
      w->bulk_at == 0) {
    madvise(w->bulk + TDL_LINK_KEEP_BYTES,
            (size_t)(w->bulk_bytes - TDL_LINK_KEEP_BYTES), MADV_REMOVE);
    w->bulk_most = 0;
  }
}

/* --- reading -------------------------------------------------------------- */

/* In the ring. */
static uint64_t bytes_of(const tdl_record *head) {
  return round_up(sizeof(*head) +
                      (head->place != INLINE ? sizeof(uint64_t) : head->len),
                  LINE);
}

static void advance(tdl_link_reader *r, uint64_t bytes) {
  /* relaxed: our own */
  uint64_t got = atomic_load_explicit(&r->got, memory_order_relaxed) + bytes;
  atomic_store_explicit(&r->got, got, memory_order_relaxed);
  /* [link-taken] release: it was copied */
  atomic_store_explicit(r->taken, got, memory_order_release);
}

static int is_withdrawn(const tdl_record *record) {
  /* relaxed: behind the look whether it is ready, or behind the claim
  ** [link-begun] */
  return (atomic_load_explicit(&record->stamp, memory_order_relaxed) &
          TDL_LINK_WITHDRAWN) != 0;
}

/* child: the oldest record, past what is skipped or withdrawn; or NULL. */
static const tdl_record *oldest(tdl_link_reader *r) {
  for (;;) {
    /* relaxed: our own */
    uint64_t got = atomic_load_explicit(&r->got, memory_order_relaxed);
    uint64_t at = got & (r->ring_bytes - 1);
    const tdl_record *record = (const tdl_record *)(r->ring + at);
    if (!tdl_link_ready(r)) {
      return NULL;
    } else if (TDL_UNLIKELY(record->kind == 0)) {
      advance(r, r->ring_bytes - at);
    } else if (TDL_UNLIKELY(is_withdrawn(record))) {
      advance(r, bytes_of(record));
    } else {
      return record;
    }
  }
}

int tdl_link_kind(tdl_link_reader *r) {
  const tdl_record *record = oldest(r);
  return record == NULL ? 0 : record->kind;
}

/* N1: nothing of the shared memory is read twice. */
int tdl_link_look(tdl_link_reader *r, tdl_record *head, const uint8_t **data) {
  const tdl_record *record;
  /* relaxed: our own */
  uint64_t at =
      atomic_load_explicit(&r->got, memory_order_relaxed) & (r->ring_bytes - 1);
  uint64_t bytes, offset;
  if (!tdl_link_ready(r)) {
    return 0;
  }
  record = (const tdl_record *)(r->ring + at);
  memcpy((void *)head, (const void *)record, sizeof(*head));
  if (TDL_UNLIKELY(head->kind == 0)) {
    if (at == 0) {
      return TREADLE_EINVAL;
    }
    advance(r, r->ring_bytes - at);
    return tdl_link_look(r, head, data); /* at 0 */
  }
  bytes = head->place != INLINE ? sizeof(offset) : head->len;
  if (bytes > r->ring_bytes - at - sizeof(*head)) {
    return TREADLE_EINVAL;
  }
  *data = (const uint8_t *)(record + 1);
  if (TDL_UNLIKELY(head->place != INLINE)) {
    const uint8_t *memory = head->place == BULK ? r->bulk : r->shown.data;
    uint64_t size = head->place == BULK ? r->bulk_bytes : r->shown.bytes;
    memcpy(&offset, *data, sizeof(offset));
    if (head->place > SHOWN || memory == NULL || offset > size ||
        head->len > size - offset) {
      return TREADLE_EINVAL;
    }
    *data = memory + offset;
  }
  return 1;
}

/* The writer copies nothing meanwhile; if it was stopped, its end is waited for. */
static void await_let_go(const tdl_link *link) {
  for (int tries = 0;
       /* [link-begun] acquire: what it has withdrawn */
       atomic_load_explicit(&link->page->down_begun, memory_order_acquire) &
       HELD;
       tries++) {
    if (tries < TDL_LINK_PAUSES) {
      tdl_pause();
    } else {
      struct timespec moment = {0, TDL_LINK_NAP_NS};
      nanosleep(&moment, NULL);
    }
  }
}

int tdl_link_begin(tdl_link *link, const tdl_record *head) {
  tdl_link_reader *r = &link->in;
  /* relaxed: our own */
  uint64_t got = atomic_load_explicit(&r->got, memory_order_relaxed);
  uint64_t end = got + bytes_of(head), found = r->begun;
  while (!atomic_compare_exchange_strong_explicit(
      /* [link-begun] acq_rel: before or after whoever holds it */
      &link->page->down_begun, &found, end, memory_order_acq_rel,
      memory_order_relaxed)) {
    if (found != (r->begun | HELD) && found != r->begun) {
      return TREADLE_EINVAL;
    }
    await_let_go(link);
    found = r->begun;
  }
  r->begun = end;
  return !is_withdrawn(
      (const tdl_record *)(r->ring + (got & (r->ring_bytes - 1))));
}

void tdl_link_take(tdl_link_reader *r, const tdl_record *head) {
  advance(r, bytes_of(head));
}

/* --- sleeping ------------------------------------------------------------- */

/* What the word was; whoever sleeps on it is woken. */
static uint32_t rouse(tdl_link *link) {
  /* acq_rel: one rings; what for, the ring says [link-stamp] */
  uint32_t how = atomic_exchange_explicit(&link->page->rest, TDL_LINK_AWAKE,
                                          memory_order_acq_rel);
  if (how == TDL_LINK_SLEEPS) {
    syscall(SYS_futex, &link->page->rest, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
  }
  return how;
}

int tdl_link_wake(tdl_link *link) {
  TDL_STALL();
  /* [park] seq_cst: between the record that was put and the look */
  atomic_thread_fence(memory_order_seq_cst);
  /* relaxed: behind the fence */
  return TDL_UNLIKELY(
             atomic_load_explicit(&link->page->rest, memory_order_relaxed) !=
             TDL_LINK_AWAKE) &&
         rouse(link) == TDL_LINK_IN_LOOP;
}

void tdl_link_announce(tdl_link *link, enum tdl_link_rest how) {
  /* [park] seq_cst: before the second look */
  atomic_store_explicit(&link->page->rest, how, memory_order_seq_cst);
  TDL_STALL();
}

void tdl_link_awake(tdl_link *link) {
  /* relaxed: who still sees the old word rings once in vain */
  atomic_store_explicit(&link->page->rest, TDL_LINK_AWAKE,
                        memory_order_relaxed);
}

int tdl_link_rests(const tdl_link *link) {
  /* relaxed: a hint */
  return atomic_load_explicit(&link->page->rest, memory_order_relaxed) !=
         TDL_LINK_AWAKE;
}

void tdl_link_rouse(tdl_link *link) {
  rouse(link);
}

void tdl_link_sleep(tdl_link *link, uint64_t ns) {
  struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
  /* relaxed: the futex compares again in the kernel */
  while (atomic_load_explicit(&link->page->rest, memory_order_relaxed) ==
         TDL_LINK_SLEEPS) {
    if (syscall(SYS_futex, &link->page->rest, FUTEX_WAIT, TDL_LINK_SLEEPS, &t,
                NULL, 0) != 0 &&
        errno != EAGAIN) {
      break; /* time, or a signal */
    }
  }
}

void tdl_link_set_away(tdl_link *link, enum tdl_link_away away) {
  /* [link-away] seq_cst: before the second look at the ring; and back, in
  ** whatever order */
  atomic_store_explicit(&link->page->away, (uint32_t)away,
                        memory_order_seq_cst);
}

enum tdl_link_away tdl_link_call_home(tdl_link *link) {
  uint32_t away;
  /* [link-away] seq_cst: between the record that was put and the look */
  atomic_thread_fence(memory_order_seq_cst);
  /* relaxed: behind the fence */
  away = atomic_load_explicit(&link->page->away, memory_order_relaxed);
  if (TDL_UNLIKELY(away == TDL_LINK_ON_WORD) &&
      /* acq_rel: as rouse; it may just have come back */
      atomic_compare_exchange_strong_explicit(
          &link->page->away, &away, TDL_LINK_HERE, memory_order_acq_rel,
          memory_order_relaxed)) {
    syscall(SYS_futex, &link->page->away, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
  }
  return (enum tdl_link_away)away;
}

void tdl_link_set_copying(tdl_link *link, int copies) {
  /* [link-copies] seq_cst: before the next look at the ring; and before, in
  ** whatever order */
  atomic_store_explicit(&link->page->copies, (uint32_t)copies,
                        memory_order_seq_cst);
}

int tdl_link_is_copied(const tdl_link *link) {
  /* [link-copies] seq_cst: between the record that was put and the look */
  atomic_thread_fence(memory_order_seq_cst);
  /* relaxed: behind the fence */
  return (int)atomic_load_explicit(&link->page->copies, memory_order_relaxed);
}

void tdl_link_set_dozing(tdl_link *link, int dozes) {
  /* [link-dozes] seq_cst: before the second look; and back, in whatever order */
  atomic_store_explicit(&link->page->dozes, (uint32_t)dozes,
                        memory_order_seq_cst);
}

int tdl_link_is_dozing(const tdl_link *link) {
  /* [link-dozes] seq_cst: between what was put and the look */
  atomic_thread_fence(memory_order_seq_cst);
  /* relaxed: behind the fence */
  return (int)atomic_load_explicit(&link->page->dozes, memory_order_relaxed);
}

void tdl_link_listen(tdl_link *link, int listens) {
  /* [link-listens] seq_cst: before the look at `rest` */
  atomic_store_explicit(&link->page->listens, (uint32_t)listens,
                        memory_order_seq_cst);
}

int tdl_link_is_heard(const tdl_link *link) {
  /* [link-listens] seq_cst: after the announcement, which is, too */
  return (int)atomic_load_explicit(&link->page->listens, memory_order_seq_cst);
}

void tdl_link_set_waiting(tdl_link *link, int waits) {
  /* relaxed: before the announcement */
  atomic_store_explicit(&link->page->waits, (uint32_t)waits,
                        memory_order_relaxed);
}

int tdl_link_is_calm(const tdl_link *link) {
  /* [link-listens] seq_cst: what it did before it announced its rest is there;
  ** it took what was put before that */
  return atomic_load_explicit(&link->page->rest, memory_order_seq_cst) !=
             TDL_LINK_AWAKE &&
         /* relaxed: it came before that */
         !atomic_load_explicit(&link->page->waits, memory_order_relaxed) &&
         tdl_link_has_taken(&link->out, link->out.put) &&
         !tdl_link_ready(&link->in);
}

/* --- what one side tells the other ---------------------------------------- */

void tdl_link_set_exempt(tdl_link *link, uint32_t jobs) {
  /* relaxed: before a record, or a ring */
  atomic_store_explicit(&link->page->exempt, jobs, memory_order_relaxed);
}

uint32_t tdl_link_exempt(const tdl_link *link) {
  return atomic_load_explicit(&link->page->exempt, /* as above */
                              memory_order_relaxed);
}

static uint64_t size(const tdl_link *link) {
  /* relaxed: what is new is seen with the next record */
  return atomic_load_explicit(&link->page->size, memory_order_relaxed);
}

void tdl_link_set_pool(tdl_link *link, uint32_t min, uint32_t now,
                       int closing) {
  if (size(link) != ((uint64_t)min << 32 | now)) {
    atomic_store_explicit(&link->page->size, (uint64_t)min << 32 | now,
                          memory_order_relaxed); /* as above */
  }
  if (tdl_link_is_closing(link) !=
      closing) { /* the child reads it at each call */
    atomic_store_explicit(&link->page->is_closing, (uint32_t)closing,
                          memory_order_relaxed); /* too */
  }
}

uint32_t tdl_link_min_size(const tdl_link *link) {
  return (uint32_t)(size(link) >> 32);
}

uint32_t tdl_link_size(const tdl_link *link) {
  return (uint32_t)size(link);
}

int tdl_link_is_closing(const tdl_link *link) {
  return (int)atomic_load_explicit(&link->page->is_closing, /* as above */
                                   memory_order_relaxed);
}

void tdl_link_reply(tdl_link *link, int64_t value) {
  link->page->reply = value;
  /* [link-reply] release: the value */
  atomic_fetch_add_explicit(&link->page->replies, 1, memory_order_release);
  syscall(SYS_futex, &link->page->replies, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

uint32_t tdl_link_replies(const tdl_link *link) {
  /* [link-reply] acquire: the value */
  return atomic_load_explicit(&link->page->replies, memory_order_acquire);
}

int64_t tdl_link_await_reply(tdl_link *link, uint32_t before) {
  while (tdl_link_replies(link) == before) {
    syscall(SYS_futex, &link->page->replies, FUTEX_WAIT, before, NULL, NULL, 0);
  }
  return link->page->reply;
}
