/* The channel: nothing lost, nothing doubled, in order, whoever gives up. */
#include "share/channel.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "base/clock.h"
#include "check.h"
#include "codec/tags.h"

/* --- messages ------------------------------------------------------------- */

static void put(tdl_message *m, uint64_t value) {
  tdl_bytes_append(&m->bytes, &value, sizeof(value));
}

static tdl_message *message(uint64_t value) {
  tdl_message *m = tdl_message_new();
  if (m != NULL) {
    uint8_t head = TDL_WIRE_VERSION; /* no references */
    tdl_bytes_append(&m->bytes, &head, 1);
    put(m, value);
  }
  return m;
}

/* The message's value; it is freed. */
static uint64_t open(tdl_message *m) {
  uint64_t value;
  memcpy(&value, m->bytes.data + 1, sizeof(value));
  tdl_message_free(m);
  return value;
}

/* --- waits of a thread ---------------------------------------------------- */

typedef struct wait {
  tdl_wait wait;
  tdl_waiter waiter[4];
  atomic_int told;
} wait;

static void tell(tdl_wait *w) {
  atomic_store_explicit(&((wait *)w)->told, 1, memory_order_release);
}

static void begin(wait *w) {
  memset(w, 0, sizeof(*w));
  w->wait.tell = tell;
  for (uint32_t i = 0; i < 4; i++) {
    w->waiter[i].wait = &w->wait;
    w->waiter[i].index = i;
  }
}

static int is_told(wait *w) {
  return atomic_load_explicit(&w->told, memory_order_acquire);
}

/* 0: gave up after so many looks. */
static int await(wait *w, long looks) {
  while (!is_told(w)) {
    if (looks-- == 0) {
      if (tdl_wait_give_up(&w->wait)) {
        return 0;
      }
      looks = -1;
    }
    sched_yield();
  }
  return 1;
}

/* --- one thread ----------------------------------------------------------- */

static tdl_channel *channel(uint32_t capacity) {
  tdl_channel *c = NULL;
  return tdl_channel_new(capacity, &c) == 0 ? c : NULL;
}

static int send(tdl_channel *c, uint64_t value) {
  tdl_message *m = message(value);
  tdl_channel_status status = tdl_channel_send(c, &m, NULL);
  tdl_message_free(m);
  return status == TDL_CHANNEL_DONE;
}

/* The value, 0 for none, UINT64_MAX when it is closed. */
static uint64_t recv(tdl_channel *c) {
  tdl_message *m = NULL;
  switch (tdl_channel_recv(c, &m, NULL)) {
  case TDL_CHANNEL_DONE:
    return open(m);
  case TDL_CHANNEL_CLOSED:
    return UINT64_MAX;
  default:
    return 0;
  }
}

static void a_buffer_takes_its_capacity_and_gives_in_order(void) {
  tdl_channel *c = channel(3);
  CHECK(c != NULL);
  CHECK(recv(c) == 0);
  CHECK(send(c, 1) && send(c, 2) && send(c, 3) && !send(c, 4));
  CHECK(recv(c) == 1 && send(c, 5));
  CHECK(recv(c) == 2 && recv(c) == 3 && recv(c) == 5 && recv(c) == 0);
  tdl_counted_drop(&c->counted);
}

static void an_empty_message_comes_back_for_the_one_that_is_sent(void) {
  tdl_channel *c = channel(1);
  tdl_message *m = message(1), *spare = tdl_message_new(), *was = spare;
  CHECK(c != NULL);
  CHECK(tdl_channel_send(c, &m, NULL) == TDL_CHANNEL_DONE && m == NULL);
  CHECK(tdl_channel_recv(c, &spare, NULL) == TDL_CHANNEL_DONE && spare != was);
  tdl_message_clear(spare);
  put(spare, 2);
  CHECK(tdl_channel_send(c, &spare, NULL) == TDL_CHANNEL_DONE && spare == was);
  tdl_message_free(spare);
  tdl_counted_drop(&c->counted);
}

static void a_closed_channel_gives_what_is_in_it_and_takes_nothing(void) {
  tdl_channel *c = channel(2);
  CHECK(c != NULL);
  CHECK(send(c, 1));
  tdl_channel_close(c);
  tdl_channel_close(c);
  CHECK(!send(c, 2));
  CHECK(recv(c) == 1 && recv(c) == UINT64_MAX && recv(c) == UINT64_MAX);
  tdl_counted_drop(&c->counted);
}

static void waiting_receivers_are_served_in_order(void) {
  tdl_channel *c = channel(1);
  wait w[3];
  tdl_message *none = NULL;
  CHECK(c != NULL);
  for (int i = 0; i < 3; i++) {
    begin(&w[i]);
    CHECK(tdl_channel_recv(c, &none, &w[i].waiter[0]) == TDL_CHANNEL_WAIT);
  }
  CHECK(tdl_wait_give_up(&w[1].wait)); /* it is still in the list: W3 */
  CHECK(send(c, 1) && is_told(&w[0]) && !is_told(&w[2]));
  CHECK(send(c, 2) && is_told(&w[2]) && !is_told(&w[1]));
  CHECK(open(w[0].wait.value) == 1 && open(w[2].wait.value) == 2);
  tdl_channel_leave(c, &w[1].waiter[0]);
  CHECK(send(c, 3) && recv(c) == 3);
  tdl_counted_drop(&c->counted);
}

static void waiting_senders_come_in_in_order(void) {
  tdl_channel *c = channel(1);
  wait w[3];
  CHECK(c != NULL && send(c, 9));
  for (uint64_t i = 0; i < 3; i++) {
    tdl_message *m = message(i + 1);
    begin(&w[i]);
    CHECK(tdl_channel_send(c, &m, &w[i].waiter[0]) == TDL_CHANNEL_WAIT);
    CHECK(m == NULL);
  }
  CHECK(tdl_wait_give_up(&w[1].wait));
  CHECK(recv(c) == 9 && is_told(&w[0]));
  CHECK(w[0].wait.value == TDL_CHANNEL_SENT && w[0].waiter[0].offer == NULL);
  CHECK(recv(c) == 1 && recv(c) == 3 && recv(c) == 0);
  tdl_channel_leave(c, &w[1].waiter[0]);
  CHECK(open(w[1].waiter[0].offer) == 2);
  tdl_counted_drop(&c->counted);
}

static void without_a_buffer_a_message_goes_from_hand_to_hand(void) {
  tdl_channel *c = channel(0);
  wait w;
  tdl_message *m = message(1);
  CHECK(c != NULL && !send(c, 7));
  begin(&w);
  CHECK(tdl_channel_send(c, &m, &w.waiter[0]) == TDL_CHANNEL_WAIT);
  CHECK(recv(c) == 1 && is_told(&w) && recv(c) == 0);
  begin(&w);
  CHECK(tdl_channel_recv(c, &m, &w.waiter[0]) == TDL_CHANNEL_WAIT);
  CHECK(send(c, 2) && is_told(&w) && open(w.wait.value) == 2);
  tdl_counted_drop(&c->counted);
}

static void what_is_put_back_comes_first(void) {
  tdl_channel *c = channel(1);
  wait w;
  tdl_message *m = NULL;
  CHECK(c != NULL);
  begin(&w);
  CHECK(tdl_channel_recv(c, &m, &w.waiter[0]) == TDL_CHANNEL_WAIT);
  CHECK(send(c, 1) && send(c, 2) && !send(c, 3));
  tdl_channel_put_back(c, w.wait.value);
  CHECK(!send(c, 3) && recv(c) == 1 && !send(c, 3) && recv(c) == 2);
  begin(&w); /* to who waits, if somebody does */
  CHECK(tdl_channel_recv(c, &m, &w.waiter[0]) == TDL_CHANNEL_WAIT);
  tdl_channel_put_back(c, message(4));
  CHECK(is_told(&w) && open(w.wait.value) == 4 && recv(c) == 0);
  tdl_channel_close(c);
  tdl_channel_put_back(c, message(5));
  CHECK(recv(c) == 5 && recv(c) == UINT64_MAX);
  tdl_counted_drop(&c->counted);
}

static void what_is_put_back_keeps_its_order(void) {
  tdl_channel *c = channel(1);
  wait w[3];
  tdl_message *m = NULL;
  const int order[] = {1, 0, 2};
  CHECK(c != NULL);
  for (int i = 0; i < 3; i++) {
    begin(&w[i]);
    CHECK(tdl_channel_recv(c, &m, &w[i].waiter[0]) == TDL_CHANNEL_WAIT);
  }
  CHECK(send(c, 1) && send(c, 2) && send(c, 3) && send(c, 4));
  for (int i = 0; i < 3; i++) {
    tdl_channel_put_back(c, w[order[i]].wait.value);
  }
  for (uint64_t i = 1; i <= 4; i++) {
    CHECK(recv(c) == i);
  }
  CHECK(send(c, 5) && recv(c) == 5 && recv(c) == 0); /* the end was found */
  tdl_counted_drop(&c->counted);
}

static void close_wakes_all_who_wait(void) {
  tdl_channel *full = channel(0), *empty = channel(5);
  wait w[4];
  CHECK(full != NULL && empty != NULL);
  for (int i = 0; i < 4; i++) {
    tdl_message *m = i % 2 == 0 ? message(1) : NULL;
    begin(&w[i]);
    CHECK((i % 2 == 0 ? tdl_channel_send(full, &m, &w[i].waiter[0])
                      : tdl_channel_recv(empty, &m, &w[i].waiter[0])) ==
          TDL_CHANNEL_WAIT);
  }
  tdl_channel_close(full);
  tdl_channel_close(empty);
  for (int i = 0; i < 4; i++) {
    CHECK(is_told(&w[i]));
    CHECK(w[i].wait.value == (i % 2 == 0 ? TDL_CHANNEL_REFUSED : NULL));
    tdl_message_free(w[i].waiter[0].offer);
  }
  CHECK(recv(full) == UINT64_MAX);
  tdl_counted_drop(&full->counted);
  tdl_counted_drop(&empty->counted);
}

static void select_takes_what_is_ready_or_waits_for_all(void) {
  tdl_channel *c[2] = {channel(1), channel(1)};
  tdl_channel_case k[3];
  uint32_t chosen = 9;
  wait w;
  CHECK(c[0] != NULL && c[1] != NULL);
  memset(k, 0, sizeof(k));
  k[0].channel = c[1];
  k[1].channel = c[0];
  k[2].channel = c[1]; /* the same twice, one end each */
  CHECK(tdl_channel_select(k, 3, 0, &chosen) == TDL_CHANNEL_WAIT);
  CHECK(send(c[0], 1));
  CHECK(tdl_channel_select(k, 3, 2, &chosen) == TDL_CHANNEL_DONE);
  CHECK(chosen == 1 && open(k[1].message) == 1);
  k[1].message = NULL;
  CHECK(send(c[1], 2)); /* two are ready: from `first` on */
  CHECK(tdl_channel_select(k, 3, 1, &chosen) == TDL_CHANNEL_DONE);
  CHECK(chosen == 2 && open(k[2].message) == 2);
  k[2].message = NULL;
  CHECK(send(c[0], 3));
  begin(&w);
  k[0].waiter = &w.waiter[0];
  k[1].waiter = &w.waiter[1];
  k[2].waiter = &w.waiter[2];
  k[1].sends = 1; /* it is full */
  k[1].message = message(4);
  CHECK(tdl_channel_select(k, 3, 0, &chosen) == TDL_CHANNEL_WAIT);
  CHECK(recv(c[0]) == 3 && is_told(&w) && w.wait.index == 1);
  CHECK(w.wait.value == TDL_CHANNEL_SENT);
  CHECK(send(c[1], 5)); /* it passes over who has been granted: W3 */
  CHECK(recv(c[1]) == 5 && recv(c[0]) == 4);
  tdl_channel_leave(c[1], &w.waiter[0]);
  tdl_channel_leave(c[1], &w.waiter[2]);
  tdl_counted_drop(&c[0]->counted);
  tdl_counted_drop(&c[1]->counted);
}

/* A payload that refers to a channel. */
static tdl_message *reference(tdl_channel *c) {
  tdl_message *m = tdl_message_new();
  uint8_t head = TDL_WIRE_VERSION | TDL_WIRE_THINGS, n[4];
  tdl_counted *thing = &c->counted;
  tdl_store_32(n, 1);
  tdl_bytes_append(&m->bytes, &head, 1);
  tdl_bytes_append(&m->bytes, &thing, sizeof(thing));
  tdl_bytes_append(&m->bytes, n, 4);
  return m;
}

static void a_million_channels_in_each_other_are_freed(void) {
  tdl_channel *outer = channel(1);
  for (int i = 0; i < 1000000; i++) {
    tdl_channel *c = channel(1);
    tdl_message *m = reference(outer); /* takes the reference over */
    CHECK(tdl_channel_send(c, &m, NULL) == TDL_CHANNEL_DONE);
    outer = c;
  }
  tdl_counted_drop(&outer->counted);
}

/* --- many threads --------------------------------------------------------- */

#define THREADS  8
#define CHANNELS 3

typedef struct world {
  tdl_channel *channel[CHANNELS];
  pthread_barrier_t start;
  atomic_int sending; /* threads that still do */
} world;

typedef struct actor {
  world *w;
  pthread_t thread;
  unsigned id, seed;
  uint64_t messages;
  uint64_t sent;                    /* numbered from 1 for each thread */
  uint64_t last[CHANNELS][THREADS]; /* received, per sender */
  uint64_t received, sum;
  int failed;
} actor;

static unsigned roll(actor *a, unsigned n) {
  a->seed = a->seed * 1103515245u + 12345u;
  return (a->seed >> 16) % n;
}

static void note(actor *a, unsigned at, tdl_message *m) {
  uint64_t value = open(m), n = value & 0xffffffffu;
  unsigned sender = (unsigned)(value >> 32) % THREADS;
  unsigned where = (unsigned)(value >> 40);
  if (where != at || n <= a->last[at][sender]) {
    a->failed = 1; /* another channel's, or overtaken */
  }
  a->last[at][sender] = n;
  a->received++;
  a->sum += n;
}

static tdl_message *next_message(const actor *a, unsigned at) {
  return message((uint64_t)at << 40 | (uint64_t)a->id << 32 | (a->sent + 1));
}

/* A receiver that was granted one and does not take it: C3. Whoever receives
** it may then see it after a later one, so these are counted only. */
static void one_recv(actor *a, int may_wait) {
  unsigned at = roll(a, CHANNELS);
  tdl_channel *c = a->w->channel[at];
  tdl_message *m = roll(a, 2) == 0 ? tdl_message_new() : NULL, *was = m;
  wait w;
  begin(&w);
  switch (tdl_channel_recv(c, &m, may_wait ? &w.waiter[0] : NULL)) {
  case TDL_CHANNEL_DONE:
    note(a, at, m);
    return;
  case TDL_CHANNEL_WAIT:
    if (may_wait && await(&w, roll(a, 60))) {
      if (w.wait.value != NULL) {
        note(a, at, w.wait.value);
      }
    } else if (may_wait) {
      tdl_channel_leave(c, &w.waiter[0]);
    }
    break;
  default:
    break;
  }
  tdl_message_free(was);
}

static void one_send(actor *a, int may_wait) {
  unsigned at = roll(a, CHANNELS);
  tdl_channel *c = a->w->channel[at];
  tdl_message *m = next_message(a, at);
  wait w;
  begin(&w);
  switch (tdl_channel_send(c, &m, may_wait ? &w.waiter[0] : NULL)) {
  case TDL_CHANNEL_DONE:
    a->sent++;
    break;
  case TDL_CHANNEL_WAIT:
    if (may_wait && await(&w, roll(a, 60))) {
      a->sent++;
    } else if (may_wait) {
      tdl_channel_leave(c, &w.waiter[0]);
      m = w.waiter[0].offer;
    }
    break;
  default:
    a->failed = 1;
    break;
  }
  tdl_message_free(m);
}

static void one_select(actor *a) {
  tdl_channel_case k[4];
  wait w;
  uint32_t n = 1 + roll(a, 4), chosen = 0, at[4];
  tdl_channel_status status;
  begin(&w);
  memset(k, 0, sizeof(k));
  for (uint32_t i = 0; i < n; i++) {
    at[i] = roll(a, CHANNELS);
    k[i].channel = a->w->channel[at[i]];
    k[i].sends = roll(a, 2) == 0;
    k[i].message = k[i].sends ? next_message(a, at[i]) : NULL;
    k[i].waiter = &w.waiter[i];
  }
  status = tdl_channel_select(k, n, roll(a, n), &chosen);
  if (status == TDL_CHANNEL_WAIT) {
    int granted = await(&w, roll(a, 60));
    for (uint32_t i = 0; i < n; i++) {
      tdl_channel_leave(k[i].channel, &w.waiter[i]);
      tdl_message_free(w.waiter[i].offer);
    }
    if (granted && w.wait.value == TDL_CHANNEL_SENT) {
      a->sent++;
    } else if (granted && w.wait.value != NULL) {
      note(a, at[w.wait.index], w.wait.value);
    }
    return;
  }
  if (status == TDL_CHANNEL_DONE && k[chosen].sends) {
    a->sent++;
  } else if (status == TDL_CHANNEL_DONE) {
    note(a, at[chosen], k[chosen].message);
    k[chosen].message = NULL;
  }
  for (uint32_t i = 0; i < n; i++) {
    tdl_message_free(k[i].message);
  }
}

static void *act(void *arg) {
  actor *a = arg;
  pthread_barrier_wait(&a->w->start);
  while (a->sent < a->messages) {
    switch (roll(a, 5)) {
    case 0:
    case 1:
      one_send(a, (int)roll(a, 2));
      break;
    case 2:
    case 3:
      one_recv(a, (int)roll(a, 2));
      break;
    default:
      one_select(a);
      break;
    }
  }
  atomic_fetch_sub_explicit(&a->w->sending, 1, memory_order_acq_rel);
  while (atomic_load_explicit(&a->w->sending, memory_order_acquire) > 0) {
    one_recv(a, 0); /* the others' sends must find somebody */
    sched_yield();
  }
  return NULL;
}

static unsigned seed;

static void threads_lose_and_double_nothing(void) {
  static actor a[THREADS];
  world w;
  uint64_t sum = 0, received = 0, sent = 0;
  memset(a, 0, sizeof(a));
  pthread_barrier_init(&w.start, NULL, THREADS);
  atomic_init(&w.sending, THREADS);
  for (uint32_t i = 0; i < CHANNELS; i++) {
    w.channel[i] = channel(i * i * 2); /* 0, 2, 8 */
    CHECK(w.channel[i] != NULL);
  }
  for (unsigned i = 0; i < THREADS; i++) {
    a[i].w = &w;
    a[i].id = i;
    a[i].seed = seed + i * 7919u;
    a[i].messages = 3000;
    CHECK(pthread_create(&a[i].thread, NULL, act, &a[i]) == 0);
  }
  for (unsigned i = 0; i < THREADS; i++) {
    pthread_join(a[i].thread, NULL);
  }
  for (unsigned i = 0; i < CHANNELS; i++) { /* what is left */
    tdl_message *m = NULL;
    while (tdl_channel_recv(w.channel[i], &m, NULL) == TDL_CHANNEL_DONE) {
      sum += open(m) & 0xffffffffu;
      received++;
      m = NULL;
    }
    CHECK(w.channel[i]->senders.first == NULL);
    CHECK(w.channel[i]->receivers.first == NULL);
    tdl_counted_drop(&w.channel[i]->counted);
  }
  for (unsigned i = 0; i < THREADS; i++) {
    CHECK(!a[i].failed);
    received += a[i].received;
    sum += a[i].sum;
    sent += a[i].sent;
  }
  CHECK(received == sent);
  for (unsigned i = 0; i < THREADS; i++) {
    sum -= a[i].sent * (a[i].sent + 1) / 2;
  }
  CHECK(sum == 0);
  pthread_barrier_destroy(&w.start);
}

/* --- closing while all are at it ------------------------------------------ */

typedef struct closer {
  tdl_channel *channel;
  pthread_t thread;
  unsigned id;
  uint64_t sent, received;
} closer;

static void *use_until_closed(void *arg) {
  closer *a = arg;
  for (;;) {
    int sends = a->id % 2 == 0;
    tdl_message *m = sends ? message(1) : NULL;
    tdl_channel_status status;
    wait w;
    begin(&w);
    status = sends ? tdl_channel_send(a->channel, &m, &w.waiter[0])
                   : tdl_channel_recv(a->channel, &m, &w.waiter[0]);
    if (status == TDL_CHANNEL_WAIT) {
      await(&w, -1);
      status = TDL_CHANNEL_DONE;
      if (sends ? w.wait.value == TDL_CHANNEL_REFUSED : w.wait.value == NULL) {
        status = TDL_CHANNEL_CLOSED;
      }
      m = sends ? w.waiter[0].offer : w.wait.value;
    }
    if (status == TDL_CHANNEL_CLOSED) {
      tdl_message_free(m);
      return NULL;
    }
    if (sends) {
      a->sent++;
      tdl_message_free(m); /* an empty one */
    } else {
      a->received += open(m);
    }
  }
}

static void close_under_way_leaves_nobody_waiting(void) {
  for (uint32_t round = 0; round < 100; round++) {
    closer a[THREADS];
    tdl_channel *c = channel(round % 3);
    uint64_t sent = 0, received = 0;
    CHECK(c != NULL);
    for (unsigned i = 0; i < THREADS; i++) {
      a[i].channel = c;
      a[i].id = i;
      a[i].sent = a[i].received = 0;
      CHECK(pthread_create(&a[i].thread, NULL, use_until_closed, &a[i]) == 0);
    }
    for (unsigned i = 0; i < (seed + round) % 50; i++) {
      sched_yield();
    }
    tdl_channel_close(c);
    for (unsigned i = 0; i < THREADS; i++) {
      pthread_join(a[i].thread, NULL);
      sent += a[i].sent;
      received += a[i].received;
    }
    while (recv(c) == 1) {
      received++;
    }
    CHECK(sent == received);
    tdl_counted_drop(&c->counted);
  }
}

int main(void) {
  RUN(a_buffer_takes_its_capacity_and_gives_in_order);
  RUN(an_empty_message_comes_back_for_the_one_that_is_sent);
  RUN(a_closed_channel_gives_what_is_in_it_and_takes_nothing);
  RUN(waiting_receivers_are_served_in_order);
  RUN(waiting_senders_come_in_in_order);
  RUN(without_a_buffer_a_message_goes_from_hand_to_hand);
  RUN(what_is_put_back_comes_first);
  RUN(what_is_put_back_keeps_its_order);
  RUN(close_wakes_all_who_wait);
  RUN(select_takes_what_is_ready_or_waits_for_all);
  RUN(a_million_channels_in_each_other_are_freed);
  seed = check_seed();
  RUN(threads_lose_and_double_nothing);
  RUN(close_under_way_leaves_nobody_waiting);
  return check_any_failed;
}
