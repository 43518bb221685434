/* A payload that crosses has the same bytes here and there, but for the list of
** its things at the end: addresses here, and in the record an entry for each.
**
** The way of a number on the side that has not made it:
**
**   (given) -> FRESH -> named -> LIVE -> nobody has it -> KEPT -> gone
**                                 ^------ named ----------'
**
** FRESH and KEPT the table owns it; LIVE only its holders do, and between their
** last reference and KEPT there is a moment for which who names it waits.
**
** Giving and taking are one file, longer than others: their counts are one
** bookkeeping under one lock, and each is read beside the other. */
#include "crossing.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/compiler.h"
#include "../codec/cdata.h"
#include "../codec/payload.h"
#include "../share/buffer.h"

/* X1 */
#define PLACE(id) ((uint32_t)((id)&0xffffu))
#define NEXT      0x10000u
#define OF_CHILD  (1ull << 63)

_Static_assert(TDL_CROSSING_MOST <= 0x10000u, "places");

/* What stands in a record for an address. */
typedef struct entry {
  uint64_t id;
  uint64_t first, count; /* elements */
  uint64_t is_slice;
} entry;

#define ADDRESS sizeof(uintptr_t)

_Static_assert(sizeof(entry) >= ADDRESS, "a list is rewritten in its place");

/* What a message about a number says behind its head. */
typedef struct what_given {
  uint64_t count, unit; /* and then the type's name */
} what_given;

typedef struct what_forgotten {
  uint64_t came, back;
} what_forgotten;

/* Of this side's; X2. */
typedef struct given {
  uint64_t id;       /* 0: a free place */
  tdl_buffer *whole; /* a reference */
  uint64_t sent, back, owed;
  int is_told;    /* the other side has its descriptor, or will */
  int is_leaving; /* X3: it goes when `back` is `owed` */
} given;

enum got_state { LOST = 0, FRESH, LIVE, KEPT };

/* Of the other side's; X2. */
typedef struct got {
  uint64_t id;       /* 0: a free place */
  tdl_buffer *whole; /* NULL: LOST, there was no descriptor or no memory */
  uint64_t came, back;
  enum got_state state;
  int is_unsaid; /* X3: there was no room on the line */
} got;

struct tdl_crossing {
  tdl_buffer_origin origin; /* first */
  pthread_mutex_t lock;
  pthread_cond_t word; /* something was heard, or kept */
  atomic_int refs;     /* its maker's, and those of buffers with that origin */
  int line;            /* -1: it was cut */
  int is_parent, is_over;
  int unsaid; /* there may be some among `got` */
  uint64_t serial;
  given *given;
  uint32_t given_count;
  got *got;
  uint32_t got_count;
  tdl_bytes scratch;                     /* of who puts */
  int (*hear_view)(void *ctx, int line); /* or NULL */
  void *ear;
};

static void drop_self(tdl_crossing *c) {
  /* [refs] acq_rel: who frees it sees what the others did */
  if (atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) == 1) {
    pthread_cond_destroy(&c->word);
    pthread_mutex_destroy(&c->lock);
    tdl_bytes_reset(&c->scratch, NULL, 0);
    tdl_free(c->given);
    tdl_free(c->got);
    tdl_free(c);
  }
}

/* --- the line -------------------------------------------------------------- */

static uint32_t compose(tdl_message *m, uint32_t kind, uint64_t id,
                        const void *what, uint32_t size) {
  memset(m, 0, TDL_LINE_HEAD_BYTES);
  m->kind = kind;
  m->value = id;
  m->length = size;
  if (size > 0) {
    memcpy(m->text, what, size);
  }
  return TDL_LINE_HEAD_BYTES + size;
}

/* X3; said again later, if there is no room. */
static void say_forgotten_locked(tdl_crossing *c, got *e) {
  what_forgotten what = {e->came, e->back};
  tdl_message m;
  uint32_t size = compose(&m, TDL_LINE_FORGET, e->id, &what, sizeof(what));
  e->is_unsaid = tdl_line_send(c->line, &m, size) != 0;
  c->unsaid |= e->is_unsaid;
}

static void say_unsaid_locked(tdl_crossing *c) {
  if (TDL_LIKELY(!c->unsaid) || c->line < 0) {
    return;
  }
  c->unsaid = 0;
  for (uint32_t i = 0; i < c->got_count; i++) {
    if (c->got[i].is_unsaid && c->got[i].state == KEPT) {
      say_forgotten_locked(c, &c->got[i]);
    }
  }
}

/* The longest name leaves room for the rest. */
_Static_assert(TDL_CDATA_NAME_BYTES + sizeof(what_given) < TDL_LINE_TEXT_BYTES,
               "types");

/* 1, 0: there is no room on the line; or a status. */
static int say_given(const tdl_crossing *c, const given *e) {
  const tdl_buffer *b = e->whole;
  what_given what = {b->count, b->unit};
  size_t length = strlen(b->type);
  tdl_message m;
  uint32_t size;
  if (!tdl_cdata_is_type_name(b->type, length)) {
    return TREADLE_EPAYLOAD;
  }
  size = compose(&m, TDL_LINE_GIVE, e->id, &what, sizeof(what));
  memcpy(m.text + sizeof(what), b->type, length);
  m.length += (uint32_t)length;
  return tdl_line_send_fd(c->line, &m, size + (uint32_t)length,
                          tdl_buffer_fd(b));
}

/* --- giving ---------------------------------------------------------------- */

static given *given_at(tdl_crossing *c, uint64_t id) {
  return PLACE(id) < c->given_count && c->given[PLACE(id)].id == id
             ? &c->given[PLACE(id)]
             : NULL;
}

static given *find_given(tdl_crossing *c, const tdl_buffer *whole) {
  for (uint32_t i = 0; i < c->given_count; i++) {
    if (c->given[i].id != 0 && c->given[i].whole == whole) {
      return &c->given[i];
    }
  }
  return NULL;
}

/* A free place; NULL: there is none (X4), or no memory. */
static given *free_place(tdl_crossing *c, int *status) {
  uint32_t n = c->given_count, cap;
  given *places;
  for (uint32_t i = 0; i < n; i++) {
    if (c->given[i].id == 0) {
      return &c->given[i];
    }
  }
  *status = n >= TDL_CROSSING_MOST ? TREADLE_EPAYLOAD : TREADLE_ENOMEM;
  if (n >= TDL_CROSSING_MOST) {
    return NULL;
  }
  cap = n == 0 ? 4 : n * 2 < TDL_CROSSING_MOST ? n * 2 : TDL_CROSSING_MOST;
  places = tdl_realloc(c->given, cap * sizeof(*places));
  if (places == NULL) {
    return NULL;
  }
  memset(&places[n], 0, (cap - n) * sizeof(*places));
  c->given = places;
  c->given_count = cap;
  return &places[n];
}

/* The entry of the whole, which the other side knows by its number then: 1; 0:
** there is no room on the line; or a status. */
static int give(tdl_crossing *c, tdl_buffer *whole, given **out) {
  given *e = find_given(c, whole);
  int status = TREADLE_ENOMEM;
  if (e == NULL) {
    e = free_place(c, &status);
    if (e == NULL) {
      return status;
    }
    c->serial += NEXT;
    tdl_counted_hold(&whole->counted);
    *e = (given){.id = (c->is_parent ? 0 : OF_CHILD) | c->serial |
                       (uint32_t)(e - c->given),
                 .whole = whole};
  }
  if (!e->is_told) {
    status = say_given(c, e);
    if (status <= 0) {
      return status;
    }
    e->is_told = 1;
  }
  *out = e;
  return 1;
}

/* One of the other side's that somebody here has: its entry. */
static got *own_of(tdl_crossing *c, const tdl_buffer *whole) {
  return whole->origin == &c->origin ? &c->got[PLACE(whole->number)] : NULL;
}

static tdl_buffer *thing_at(const tdl_bytes *b, uint32_t i) {
  return (tdl_buffer *)tdl_payload_thing(b->data, b->len, i);
}

/* X2: names the first n things of the payload, or takes that back. */
static void count_named(tdl_crossing *c, const tdl_bytes *b, uint32_t n,
                        int named) {
  for (uint32_t i = 0; i < n; i++) {
    const tdl_buffer *whole = thing_at(b, i)->whole;
    got *theirs = own_of(c, whole);
    if (theirs != NULL) {
      theirs->back += (uint64_t)(int64_t)named;
    } else {
      given *ours = find_given(c, whole);
      ours->sent += (uint64_t)(int64_t)named;
      ours->is_leaving = 0;
    }
  }
}

size_t tdl_crossing_bytes(const tdl_bytes *payload) {
  size_t list;
  uint32_t n = payload->len > 0 && (payload->data[0] & TDL_WIRE_THINGS)
                   ? tdl_payload_things(payload->data, payload->len, &list)
                   : 0;
  return payload->len + n * (sizeof(entry) - ADDRESS);
}

/* 1, 0, or a status; nothing is counted. */
static int write_locked(tdl_crossing *c, const tdl_bytes *payload, uint32_t n,
                        uint8_t *at) {
  for (uint32_t i = 0; i < n; i++, at += sizeof(entry)) {
    const tdl_buffer *b = thing_at(payload, i);
    tdl_buffer *whole = b->whole;
    const got *theirs = own_of(c, whole);
    given *ours = NULL;
    int done = theirs != NULL ? 1 : give(c, whole, &ours);
    entry e;
    if (done <= 0) {
      return done;
    }
    e = (entry){.id = theirs != NULL ? theirs->id : ours->id,
                .first = (size_t)(b->data - whole->data) / b->unit,
                .count = b->count,
                .is_slice = b != whole};
    memcpy(at, &e, sizeof(e));
  }
  return 1;
}

int tdl_crossing_write(tdl_crossing *c, const tdl_bytes *payload,
                       tdl_bytes *out) {
  size_t list;
  uint32_t n = tdl_payload_things(payload->data, payload->len, &list);
  size_t values = payload->len - list, size = tdl_crossing_bytes(payload);
  int done;
  out->len = 0;
  if (tdl_bytes_reserve(out, size) != 0) {
    return TREADLE_ENOMEM;
  }
  memcpy(out->data, payload->data, values);
  pthread_mutex_lock(&c->lock);
  say_unsaid_locked(c);
  done = c->line < 0 ? 0 : write_locked(c, payload, n, out->data + values);
  if (done > 0) {
    count_named(c, payload, n, 1);
    tdl_store_32(out->data + size - 4, n);
    out->len = (uint32_t)size;
  }
  pthread_mutex_unlock(&c->lock);
  return done;
}

int tdl_crossing_is_full(tdl_crossing *c) {
  int status = 0;
  pthread_mutex_lock(&c->lock);
  free_place(c, &status);
  pthread_mutex_unlock(&c->lock);
  return status == TREADLE_EPAYLOAD;
}

static int put_written(tdl_crossing *c, tdl_link_writer *w, tdl_record *head,
                       const tdl_bytes *payload) {
  size_t list;
  int done;
  if (tdl_crossing_bytes(payload) > w->bulk_bytes) {
    return TREADLE_EPAYLOAD;
  }
  done = tdl_crossing_write(c, payload, &c->scratch);
  if (done <= 0) {
    return done;
  }
  head->len = c->scratch.len;
  done = tdl_link_put(w, head, c->scratch.data);
  if (done <= 0) {
    pthread_mutex_lock(&c->lock);
    count_named(c, payload,
                tdl_payload_things(payload->data, payload->len, &list), -1);
    pthread_mutex_unlock(&c->lock);
  }
  return done;
}

int tdl_crossing_put(tdl_crossing *c, tdl_link_writer *w, tdl_record *head,
                     const tdl_bytes *payload) {
  if (payload == NULL || payload->len == 0) {
    head->len = 0;
    return tdl_link_put(w, head, NULL);
  }
  if (TDL_UNLIKELY(payload->data[0] & TDL_WIRE_THINGS)) {
    return put_written(c, w, head, payload);
  }
  head->len = payload->len;
  return tdl_link_put(w, head, payload->data);
}

/* --- hearing --------------------------------------------------------------- */

static got *got_at(tdl_crossing *c, uint64_t id) {
  return id != 0 && PLACE(id) < c->got_count && c->got[PLACE(id)].id == id
             ? &c->got[PLACE(id)]
             : NULL;
}

static int is_ours(const tdl_crossing *c, uint64_t id) {
  return ((id & OF_CHILD) != 0) == !c->is_parent;
}

/* The table is done with it. */
static void clear_locked(tdl_crossing *c, got *e) {
  if (e->state == KEPT) {
    tdl_buffer_free_kept(e->whole);
    drop_self(c); /* its maker has one, too */
  }
  memset(e, 0, sizeof(*e));
}

/* The place for a number that was just given; NULL: X4, or it is taken. */
static got *place_for(tdl_crossing *c, uint64_t id) {
  uint32_t place = PLACE(id);
  if (is_ours(c, id) || (id & ~OF_CHILD) < NEXT || place >= TDL_CROSSING_MOST) {
    return NULL;
  }
  if (place >= c->got_count) {
    got *places = tdl_realloc(c->got, (place + 1) * sizeof(*places));
    if (places == NULL) {
      return NULL;
    }
    memset(&places[c->got_count], 0,
           (place + 1 - c->got_count) * sizeof(*places));
    c->got = places;
    c->got_count = place + 1;
  }
  if (c->got[place].state == KEPT) { /* the word that it has gone got lost */
    clear_locked(c, &c->got[place]);
  }
  return c->got[place].id == 0 ? &c->got[place] : NULL;
}

/* Takes the descriptor. 0, or TREADLE_EINVAL. */
static int hear_given_locked(tdl_crossing *c, const tdl_message *m, int fd) {
  what_given what;
  char type[TDL_LINE_TEXT_BYTES];
  uint32_t length;
  got *e;
  int status = TREADLE_EINVAL;
  if (m->length <= sizeof(what) || (fd < 0 && fd != TDL_LINE_LOST_FD)) {
    goto fail;
  }
  memcpy(&what, m->text, sizeof(what));
  length = m->length - (uint32_t)sizeof(what);
  memcpy(type, m->text + sizeof(what), length);
  type[length] = '\0';
  e = tdl_cdata_is_type_name(type, length) ? place_for(c, m->value) : NULL;
  if (e == NULL) {
    goto fail;
  }
  status = fd == TDL_LINE_LOST_FD
               ? TREADLE_ENOMEM
               : tdl_buffer_adopt(fd, type, (size_t)what.unit,
                                  (size_t)what.count, &e->whole);
  if (status == TREADLE_EINVAL) {
    goto fail;
  }
  e->id = m->value;
  e->state = LOST;
  if (status != 0) { /* who names it is told so */
    e->whole = NULL;
    goto done;
  }
  e->state = FRESH;
  e->whole->origin = &c->origin;
  e->whole->number = m->value;
  /* relaxed: we have one */
  atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
  return 0;
fail:
  status = TREADLE_EINVAL;
done:
  if (fd >= 0) {
    close(fd);
  }
  return status == TREADLE_EINVAL ? status : 0;
}

/* X3; the other side has it no more. */
static void take_back_locked(tdl_crossing *c, given *e, tdl_buffer **dropped) {
  tdl_message m;
  uint32_t size = compose(&m, TDL_LINE_GONE, e->id, NULL, 0);
  tdl_line_send(c->line, &m, size); /* else see place_for */
  *dropped = e->whole;
  memset(e, 0, sizeof(*e));
}

static int hear_forgotten_locked(tdl_crossing *c, const tdl_message *m,
                                 tdl_buffer **dropped) {
  what_forgotten what;
  given *e = given_at(c, m->value);
  if (e == NULL || m->length != sizeof(what)) {
    return TREADLE_EINVAL;
  }
  memcpy(&what, m->text, sizeof(what));
  if (what.came > e->sent || what.back < e->back || !e->is_told) {
    return TREADLE_EINVAL;
  }
  if (what.came < e->sent) {
    return 0; /* it will know better */
  }
  if (what.back == e->back) {
    take_back_locked(c, e, dropped);
  } else {
    e->is_leaving = 1;
    e->owed = what.back;
  }
  return 0;
}

static int hear_gone_locked(tdl_crossing *c, const tdl_message *m) {
  got *e = got_at(c, m->value);
  if (e == NULL || e->state != KEPT) {
    return TREADLE_EINVAL;
  }
  clear_locked(c, e);
  return 0;
}

/* As tdl_crossing_hear, for one message; 2: it was for this file. What is to be
** let go of comes back, for when the lock has been given back. */
static int hear_locked(tdl_crossing *c, tdl_message *m, tdl_buffer **dropped) {
  int fd, status, is_done = 1;
  int heard;
  uint32_t kind;
  if (c->line >= 0 && c->hear_view != NULL) {
    heard = tdl_line_peek(c->line, &kind);
    if (heard != 1) { /* what comes from here on may be a view */
      return heard;
    } else if (kind == TDL_LINE_VIEW) {
      return c->hear_view(c->ear, c->line) ? 2 : TREADLE_EINVAL;
    }
  }
  heard = c->line < 0 ? TREADLE_ECLOSED : tdl_line_receive(c->line, m, &fd);
  if (heard != 1) {
    return heard;
  }
  switch (m->kind) {
  case TDL_LINE_GIVE:
    status = hear_given_locked(c, m, fd);
    fd = TDL_LINE_NO_FD;
    break;
  case TDL_LINE_FORGET:
    status = hear_forgotten_locked(c, m, dropped);
    break;
  case TDL_LINE_GONE:
    status = hear_gone_locked(c, m);
    break;
  default:
    status = is_done = 0;
    break;
  }
  if (fd >= 0) {
    close(fd);
  }
  pthread_cond_broadcast(&c->word);
  return status != 0 ? status : is_done ? 2 : 1;
}

static int hear_one(tdl_crossing *c, tdl_message *out) {
  tdl_buffer *dropped = NULL;
  int heard;
  pthread_mutex_lock(&c->lock);
  heard = hear_locked(c, out, &dropped);
  say_unsaid_locked(c);
  pthread_mutex_unlock(&c->lock);
  if (dropped != NULL) {
    tdl_counted_drop(&dropped->counted);
  }
  return heard;
}

int tdl_crossing_hear(tdl_crossing *c, tdl_message *out) {
  int heard;
  while ((heard = hear_one(c, out)) == 2) {
  }
  return heard;
}

void tdl_crossing_pass_views(tdl_crossing *c, int (*hear)(void *ctx, int line),
                             void *ctx) {
  pthread_mutex_lock(&c->lock);
  c->hear_view = hear;
  c->ear = ctx;
  pthread_mutex_unlock(&c->lock);
}

int tdl_crossing_hear_first(tdl_crossing *c) {
  tdl_message m;
  int heard = 2;
  while (heard == 2 && tdl_line_next_kind(c->line) == TDL_LINE_GIVE) {
    heard = hear_one(c, &m);
  }
  return heard == 2 ? 0 : TREADLE_EINVAL;
}

/* --- taking ---------------------------------------------------------------- */

/* Whoever lets go of it last. */
static int keep(tdl_buffer_origin *origin, tdl_buffer *b) {
  tdl_crossing *c = TDL_CONTAINER(origin, tdl_crossing, origin);
  int is_kept;
  pthread_mutex_lock(&c->lock);
  is_kept = !c->is_over;
  if (is_kept) {
    got *e = &c->got[PLACE(b->number)];
    e->state = KEPT;
    if (c->line >= 0) {
      say_forgotten_locked(c, e);
    }
    pthread_cond_broadcast(&c->word);
  }
  pthread_mutex_unlock(&c->lock);
  if (!is_kept) {
    drop_self(c);
  }
  return is_kept;
}

/* X5; its entry, for which the child waits. */
static got *await_got(tdl_crossing *c, uint64_t id) {
  got *e;
  while ((e = got_at(c, id)) == NULL && !c->is_parent) {
    pthread_cond_wait(&c->word, &c->lock);
  }
  return e;
}

static int fits(const entry *e, const tdl_buffer *whole) {
  return e->first <= whole->count && e->count <= whole->count - e->first &&
         (e->is_slice || e->count == whole->count);
}

/* A reference of the whole that is named; 0, TREADLE_EINVAL, TREADLE_ENOMEM. */
static int resolve_theirs(tdl_crossing *c, const entry *named,
                          tdl_buffer **out) {
  uint64_t id = named->id;
  got *e = await_got(c, id);
  if (e == NULL || (e->state != LOST && !fits(named, e->whole))) {
    return TREADLE_EINVAL;
  }
  e->came++;
  if (e->state == LOST) {
    return TREADLE_ENOMEM;
  }
  while (e->state == LIVE && !tdl_counted_try_hold(&e->whole->counted)) {
    pthread_cond_wait(&c->word, &c->lock); /* for `keep`, which is on its way */
    e = got_at(c, id);
  }
  if (e->state == KEPT) {
    tdl_buffer_revive(e->whole);
  }
  e->state = LIVE;
  e->is_unsaid = 0;
  *out = e->whole;
  return 0;
}

/* One of this side's; what has come back now may have been the last (X3). */
static int resolve_ours(tdl_crossing *c, const entry *named, tdl_buffer **out) {
  given *e = given_at(c, named->id);
  tdl_buffer *dropped = NULL;
  if (e == NULL || !e->is_told || !fits(named, e->whole)) {
    return TREADLE_EINVAL;
  }
  tdl_counted_hold(&e->whole->counted);
  *out = e->whole;
  e->back++;
  if (e->is_leaving && e->back == e->owed) {
    take_back_locked(c, e, &dropped);
    tdl_counted_drop(&dropped->counted); /* not the last one */
  }
  return 0;
}

/* The same of what is named; where memory for a slice lacks, of its whole. */
static int resolve(tdl_crossing *c, const entry *e, tdl_buffer **out) {
  tdl_buffer *whole;
  int status =
      is_ours(c, e->id) ? resolve_ours(c, e, out) : resolve_theirs(c, e, out);
  if (status != 0 || !e->is_slice) {
    return status;
  }
  whole = *out;
  status = tdl_buffer_slice(whole, (size_t)e->first, (size_t)e->count, out);
  if (status == 0) {
    tdl_counted_drop(&whole->counted); /* the slice has one */
  }
  return status;
}

/* In place: an address takes less than an entry. All of them, so that all are
** counted; where that failed the list has what is to be dropped. */
static int read_locked(tdl_crossing *c, uint8_t *list, uint32_t n,
                       uint32_t *found) {
  int status = 0;
  *found = 0;
  for (uint32_t i = 0; i < n && status != TREADLE_EINVAL; i++) {
    tdl_buffer *b = NULL;
    entry e;
    int failed;
    memcpy(&e, list + i * sizeof(e), sizeof(e));
    failed = resolve(c, &e, &b);
    status = failed != 0 ? failed : status;
    if (b != NULL) {
      memcpy(list + *found * ADDRESS, &b, ADDRESS);
      ++*found;
    }
  }
  return status;
}

/* The parent's: descriptors may lie on the line still. */
static int hear_all(tdl_crossing *c) {
  tdl_message m;
  int heard = tdl_crossing_hear(c, &m);
  return heard == 1 || heard == TREADLE_EINVAL ? TREADLE_EINVAL : 0;
}

static int knows_all(tdl_crossing *c, const uint8_t *list, uint32_t n) {
  int all = 1;
  pthread_mutex_lock(&c->lock);
  for (uint32_t i = 0; i < n && all; i++) {
    uint64_t id;
    memcpy(&id, list + i * sizeof(entry), sizeof(id));
    all = is_ours(c, id) || got_at(c, id) != NULL;
  }
  pthread_mutex_unlock(&c->lock);
  return all;
}

int tdl_crossing_read(tdl_crossing *c, tdl_bytes *b) {
  uint32_t n = b->len >= 4 ? tdl_load_32(b->data + b->len - 4) : 0, found = 0;
  int status = TREADLE_EINVAL;
  uint8_t *list;
  if (n == 0 || n > (b->len - 4) / sizeof(entry)) {
    b->len = 0;
    return status;
  }
  list = b->data + b->len - 4 - n * sizeof(entry);
  if (!c->is_parent || knows_all(c, list, n) || hear_all(c) == 0) {
    pthread_mutex_lock(&c->lock);
    status = read_locked(c, list, n, &found);
    pthread_mutex_unlock(&c->lock);
  }
  tdl_store_32(list + found * ADDRESS, found);
  b->len = (uint32_t)(list - b->data) + found * (uint32_t)ADDRESS + 4;
  if (status != 0) {
    tdl_payload_drop(b);
  }
  return status;
}

/* --- its life -------------------------------------------------------------- */

int tdl_crossing_new(int line, int is_parent, tdl_crossing **out) {
  tdl_crossing *c = tdl_calloc(sizeof(*c));
  if (c == NULL) {
    return TREADLE_ENOMEM;
  }
  c->origin.keep = keep;
  pthread_mutex_init(&c->lock, NULL);
  pthread_cond_init(&c->word, NULL);
  atomic_init(&c->refs, 1);
  c->line = line;
  c->is_parent = is_parent;
  tdl_bytes_init(&c->scratch, NULL, 0);
  *out = c;
  return 0;
}

void tdl_crossing_cut(tdl_crossing *c) {
  hear_all(c);
  pthread_mutex_lock(&c->lock);
  c->line = -1;
  pthread_mutex_unlock(&c->lock);
}

void tdl_crossing_end(tdl_crossing *c) {
  if (c == NULL) {
    return;
  }
  pthread_mutex_lock(&c->lock);
  c->line = -1;
  c->is_over = 1; /* from here on nobody else touches the tables */
  pthread_mutex_unlock(&c->lock);
  for (uint32_t i = 0; i < c->given_count; i++) {
    if (c->given[i].id != 0) {
      tdl_counted_drop(&c->given[i].whole->counted);
    }
  }
  for (uint32_t i = 0; i < c->got_count; i++) {
    got *e = &c->got[i];
    if (e->state == FRESH) {
      tdl_counted_drop(&e->whole->counted); /* `keep` drops its reference */
    }
    clear_locked(c, e);
  }
  drop_self(c);
}
