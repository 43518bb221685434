#include "channels.h"

#include <sched.h>
#include <string.h>

#include "../base/stall.h"
#include "../codec/reader.h"
#include "../codec/writer.h"
#include "streams.h"

/* What Lua sees. `ref` is the userdata of a channel, or of a stream; NULL: the
** stream of the job that runs. With `spin` a call may wait for a moment. What they answer is an enum answer. */
/* clang-format off */
TDL_DECLARE(face, struct {
  uint32_t ticket;  /* N2: of what is `in` */
  uint32_t length;
  const char *text;
  double number;
  int (*recv)(void *self, void *ref, int spin);
  int (*taken)(void *self, uint32_t ticket);
  int (*send_number)(void *self, void *ref, double value, int spin);
  int (*send_string)(void *self, void *ref, const char *s, size_t length,
                     int spin);
  int (*send_other)(void *self, void *ref, int kind, int spin);
})
/* clang-format on */

enum answer {
  BARRED = 0, /* it goes by the other way only */
  WAIT,       /* nothing there, or no room */
  CLOSED,
  SENT,
  OTHER, /* received: channel_open makes it a value */
  NIL,
  FALSE,
  TRUE,
  NUMBER,
  STRING
};

/* A wait that is no longer than a spin. */
typedef struct quick {
  tdl_wait wait;
  atomic_uint told;
  tdl_waiter waiter;
} quick;

struct tdl_channels {
  face face; /* first: the FFI's pointer is ours */
  tdl_bind *bind;
  tdl_message *spare; /* empty ones */
  uint32_t spare_count;
  tdl_message *in, *open; /* N2 */
  tdl_channel *from;      /* where `in` comes from; a reference */
  uint32_t tickets;
  uint32_t limit; /* of the message that is begun next */
  int decode_ref;
  uint32_t random;
  tdl_spin spin;
  uint64_t waits_since; /* the last wait that was no spin */
  _Alignas(TDL_LINE_BYTES) quick quick;
};

/* --- messages ------------------------------------------------------------- */

tdl_message *tdl_channels_take(tdl_channels *d) {
  tdl_message *m = d->spare;
  if (m == NULL) {
    return tdl_message_new();
  }
  d->spare = m->next;
  d->spare_count--;
  return m;
}

/* An emptied one, or NULL. */
void tdl_channels_give(tdl_channels *d, tdl_message *m) {
  if (m != NULL && d->spare_count < TDL_CHANNEL_SPARE_MESSAGES) {
    m->next = d->spare;
    d->spare = m;
    d->spare_count++;
  } else {
    tdl_message_free(m);
  }
}

void tdl_channels_recycle(tdl_channels *d, tdl_message *m) {
  tdl_message_clear(m);
  tdl_channels_give(d, m);
}

/* Something for the channel's senders, when there is more than the next message
** of our own needs. */
static tdl_message *surplus(tdl_channels *d) {
  return d->spare_count > 1 ? tdl_channels_take(d) : NULL;
}

void tdl_channels_enter(tdl_channels *d, tdl_message *m) {
  m->next = d->open;
  d->open = m;
}

/* N3 */
void tdl_channels_leave(tdl_channels *d, tdl_message *m) {
  while (d->open != m) {
    tdl_message *lost = d->open;
    d->open = lost->next;
    tdl_channels_recycle(d, lost);
  }
  d->open = m->next;
}

/* What is `in` is somebody's, or is put back (N2). */
static tdl_message *leave_in(tdl_channels *d, int is_taken) {
  tdl_message *m = d->in;
  tdl_channel *from = d->from;
  d->face.ticket = 0;
  d->in = NULL;
  if (m != NULL && !is_taken) {
    tdl_channel_put_back(from, m);
    m = NULL;
  }
  d->from = NULL;
  if (from != NULL) {
    tdl_counted_drop(&from->counted);
  }
  return m;
}

static void set_in(tdl_channels *d, tdl_channel *from, tdl_message *m) {
  tdl_counted_hold(&from->counted);
  d->from = from;
  d->in = m;
  if (++d->tickets == 0) {
    d->tickets = 1;
  }
  d->face.ticket = d->tickets;
}

tdl_message *tdl_channels_open(const tdl_channels *d) {
  return d->open;
}

tdl_message *tdl_channels_take_in(tdl_channels *d, uint32_t ticket) {
  return d->in != NULL && d->face.ticket == ticket ? leave_in(d, 1) : NULL;
}

void tdl_channels_put_back_in(tdl_channels *d) {
  leave_in(d, 0);
}

/* --- quick waits ---------------------------------------------------------- */

static void tell_quick(tdl_wait *wait) {
  quick *q = TDL_CONTAINER(wait, quick, wait);
  /* [quick] release: what was granted */
  atomic_store_explicit(&q->told, 1, memory_order_release);
}

static int is_told(const quick *q) {
  /* [quick] acquire: see tell */
  return atomic_load_explicit(&q->told, memory_order_acquire) != 0;
}

static int has_come(const void *arg) {
  const tdl_channels *d = arg;
  return is_told(&d->quick) || tdl_queue_ready(&d->bind->loop->inbox);
}

/* The place for a wait, if it makes sense to spin. */
static tdl_waiter *start_quick(tdl_channels *d, int spin) {
  quick *q = &d->quick;
  if (!spin || d->spin.budget_ns == 0) {
    return NULL;
  }
  /* relaxed, twice: it is in no list */
  atomic_store_explicit(&q->wait.word, TDL_WAITING, memory_order_relaxed);
  atomic_store_explicit(&q->told, 0, memory_order_relaxed);
  return &q->waiter;
}

/* Whether it was granted: its `value` tells then. Else it has never been (N1). */
static int await_quick(tdl_channels *d, tdl_channel *c) {
  quick *q = &d->quick;
  if (!tdl_spin_until(&d->spin, has_come, d, tdl_loop_next_ns(d->bind->loop)) ||
      !is_told(q)) {
    TDL_STALL();
    if (tdl_wait_give_up(&q->wait)) {
      tdl_channel_leave(c, &q->waiter);
      return 0;
    }
    while (!is_told(q)) { /* any moment */
      sched_yield();
    }
  }
  return 1;
}

/* Sends `*m`, which is then NULL, or as it was. */
tdl_channel_status tdl_channels_send(tdl_channels *d, tdl_channel *c,
                                     tdl_message **m, int spin) {
  tdl_waiter *waiter = start_quick(d, spin);
  tdl_channel_status status = tdl_channel_send(c, m, waiter);
  if (status == TDL_CHANNEL_WAIT && waiter != NULL) {
    int granted = await_quick(d, c);
    *m = waiter->offer;
    if (granted) {
      status = d->quick.wait.value == TDL_CHANNEL_SENT ? TDL_CHANNEL_DONE
                                                       : TDL_CHANNEL_CLOSED;
    }
  }
  if (status == TDL_CHANNEL_DONE) {
    tdl_channels_give(d, *m);
    *m = NULL;
  }
  return status;
}

/* Receives `*m`. */
tdl_channel_status tdl_channels_receive(tdl_channels *d, tdl_channel *c,
                                        tdl_message **m, int spin) {
  tdl_waiter *waiter = start_quick(d, spin);
  tdl_message *empty = surplus(d);
  tdl_channel_status status;
  *m = empty;
  status = tdl_channel_recv(c, m, waiter);
  tdl_stream_taken(d->bind, c, status);
  if (status != TDL_CHANNEL_DONE) {
    tdl_channels_give(d, empty);
    *m = NULL;
  }
  if (status == TDL_CHANNEL_WAIT && waiter != NULL && await_quick(d, c)) {
    *m = d->quick.wait.value;
    status = *m != NULL ? TDL_CHANNEL_DONE : TDL_CHANNEL_CLOSED;
  }
  return status;
}

void tdl_channels_push_decode(const tdl_channels *d, lua_State *L) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, d->decode_ref);
}

void tdl_channels_waits(tdl_channels *d) {
  d->waits_since = tdl_now_ns();
}

void tdl_channels_has_waited(tdl_channels *d) {
  tdl_spin_slept(&d->spin, tdl_now_ns() - d->waits_since);
}

uint32_t tdl_channels_random(tdl_channels *d) {
  d->random ^= d->random << 13;
  d->random ^= d->random >> 17;
  d->random ^= d->random << 5;
  return d->random;
}

/* --- the face ------------------------------------------------------------- */

/* NULL: the other way says why. */
static tdl_channel *channel_of(tdl_channels *d, const tdl_ref *ref) {
  if (TDL_UNLIKELY(d->in != NULL || tdl_bind_is_barred(d->bind))) {
    return NULL;
  } else if (ref == NULL) {
    return tdl_stream_here(d->bind, &d->limit);
  } else if (TDL_UNLIKELY((ref->kind != &tdl_channel_kind &&
                           ref->kind != &tdl_stream_kind) ||
                          ref->thing == NULL)) {
    return NULL;
  }
  d->limit = TDL_PAYLOAD_MAX_BYTES;
  return (tdl_channel *)ref->thing;
}

static enum answer look_at(tdl_channels *d, const tdl_message *m) {
  tdl_reader reader;
  tdl_item item;
  uint32_t count;
  uint8_t flags;
  if (tdl_get_begin(&reader, m->bytes.data, m->bytes.len, &count, &flags) !=
          0 ||
      flags != 0 || count != 1 || tdl_get_value(&reader, &item) != 0 ||
      reader.next != reader.end) {
    return OTHER;
  }
  switch (item.kind) {
  case TDL_ITEM_NIL:
    return NIL;
  case TDL_ITEM_BOOLEAN:
    return item.boolean ? TRUE : FALSE;
  case TDL_ITEM_NUMBER:
    d->face.number = item.number;
    return NUMBER;
  case TDL_ITEM_STRING:
    d->face.text = item.string;
    d->face.length = item.n;
    return STRING;
  default:
    return OTHER;
  }
}

static int face_recv(void *self, void *ref, int spin) {
  tdl_channels *d = self;
  tdl_channel *c = channel_of(d, ref);
  tdl_message *m;
  enum answer answer;
  if (TDL_UNLIKELY(c == NULL)) {
    return BARRED;
  }
  switch (tdl_channels_receive(d, c, &m, spin)) {
  case TDL_CHANNEL_DONE:
    break;
  case TDL_CHANNEL_CLOSED:
    return CLOSED;
  default:
    return WAIT;
  }
  answer = look_at(d, m);
  if (answer == STRING || answer == OTHER) {
    set_in(d, c, m);
  } else {
    tdl_channels_recycle(d, m);
  }
  return (int)answer;
}

/* Lua has made a string of it: whether it is Lua's, and was not put back by a
** finalizer meanwhile. */
static int face_taken(void *self, uint32_t ticket) {
  tdl_channels *d = self;
  tdl_message *m = tdl_channels_take_in(d, ticket);
  if (m == NULL) {
    return 0;
  }
  tdl_channels_recycle(d, m);
  return 1;
}

/* An empty message, begun; NULL without memory. */
static tdl_message *begin(tdl_channels *d, tdl_writer *w) {
  tdl_message *m = tdl_channels_take(d);
  if (m != NULL) {
    tdl_put_begin(w, &m->bytes, d->limit, 1);
  }
  return m;
}

static int end(tdl_channels *d, tdl_channel *c, tdl_message *m, int failed,
               int spin) {
  tdl_channel_status status;
  if (TDL_UNLIKELY(failed)) {
    tdl_channels_recycle(d, m);
    return BARRED;
  }
  status = tdl_channels_send(d, c, &m, spin);
  if (m != NULL) {
    tdl_channels_recycle(d, m);
  }
  return status == TDL_CHANNEL_DONE     ? SENT
         : status == TDL_CHANNEL_CLOSED ? CLOSED
                                        : WAIT;
}

static int face_send_number(void *self, void *ref, double value, int spin) {
  tdl_channels *d = self;
  tdl_channel *c = channel_of(d, ref);
  tdl_writer w;
  tdl_message *m = c != NULL ? begin(d, &w) : NULL;
  return m == NULL ? BARRED
                   : end(d, c, m, tdl_put_number(&w, value) != 0, spin);
}

static int face_send_string(void *self, void *ref, const char *s, size_t length,
                            int spin) {
  tdl_channels *d = self;
  tdl_channel *c = channel_of(d, ref);
  tdl_writer w;
  tdl_message *m = c != NULL ? begin(d, &w) : NULL;
  return m == NULL ? BARRED
                   : end(d, c, m, tdl_put_string(&w, s, length) != 0, spin);
}

static int face_send_other(void *self, void *ref, int kind, int spin) {
  tdl_channels *d = self;
  tdl_channel *c = channel_of(d, ref);
  tdl_writer w;
  tdl_message *m = c != NULL ? begin(d, &w) : NULL;
  return m == NULL ? BARRED
                   : end(d, c, m,
                         (kind == NIL ? tdl_put_nil(&w)
                                      : tdl_put_boolean(&w, kind == TRUE)) != 0,
                         spin);
}

/* --- its life ------------------------------------------------------------- */

tdl_channels *tdl_channels_new(tdl_bind *b, lua_State *L,
                               lua_CFunction decode) {
  char *block = lua_newuserdata(L, sizeof(tdl_channels) + TDL_LINE_BYTES - 1);
  size_t before = -(uintptr_t)block & (TDL_LINE_BYTES - 1);
  tdl_channels *d = (tdl_channels *)(void *)(block + before);
  luaL_ref(L, LUA_REGISTRYINDEX);
  memset(d, 0, sizeof(*d));
  lua_pushcfunction(L, decode);
  d->decode_ref = luaL_ref(L, LUA_REGISTRYINDEX);
  d->face.recv = face_recv;
  d->face.taken = face_taken;
  d->face.send_number = face_send_number;
  d->face.send_string = face_send_string;
  d->face.send_other = face_send_other;
  d->bind = b;
  d->random = (uint32_t)tdl_now_ns() | 1u;
  d->spin.budget_ns = TDL_SPIN_MAX_NS;
  d->quick.wait.tell = tell_quick;
  d->quick.waiter.wait = &d->quick.wait;
  return d;
}

void tdl_channels_face(tdl_channels *d, lua_State *L) {
  lua_pushlightuserdata(L, d);
  lua_setfield(L, -2, "self");
  lua_pushstring(L, face_text);
  lua_setfield(L, -2, "declaration");
  tdl_bind_set_number(L, "WAIT", WAIT);
  tdl_bind_set_number(L, "CLOSED", CLOSED);
  tdl_bind_set_number(L, "SENT", SENT);
  tdl_bind_set_number(L, "OTHER", OTHER);
  tdl_bind_set_number(L, "NIL", NIL);
  tdl_bind_set_number(L, "FALSE", FALSE);
  tdl_bind_set_number(L, "TRUE", TRUE);
  tdl_bind_set_number(L, "NUMBER", NUMBER);
  tdl_bind_set_number(L, "STRING", STRING);
}

void tdl_bind_end_channels(tdl_bind *b) {
  tdl_channels *d = b->channels;
  if (d == NULL) {
    return;
  }
  leave_in(d, 0);
  while (d->open != NULL) {
    tdl_message *m = d->open;
    d->open = m->next;
    tdl_message_free(m);
  }
  while (d->spare != NULL) {
    tdl_message_free(tdl_channels_take(d));
  }
}
