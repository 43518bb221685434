#include "channel.h"

#include "../base/alloc.h"
#include "../base/stall.h"
#include "../treadle.h"

char tdl_channel_marks[2];

/* --- its life ------------------------------------------------------------- */

static void free_messages(tdl_message *m) {
  while (m != NULL) {
    tdl_message *next = m->next;
    tdl_message_free(m);
    m = next;
  }
}

void tdl_channel_fini(tdl_channel *c) {
  free_messages(c->first);
  free_messages(c->idle);
}

static void free_channel(tdl_counted *counted) {
  tdl_channel *c = TDL_CONTAINER(counted, tdl_channel, counted);
  tdl_channel_fini(c);
  tdl_free(c);
}

const tdl_kind tdl_channel_kind = {"channel", free_channel};

void tdl_channel_init(tdl_channel *c, const tdl_kind *kind, uint32_t capacity) {
  tdl_counted_init(&c->counted, kind);
  c->capacity = capacity;
}

int tdl_channel_new(uint32_t capacity, tdl_channel **out) {
  tdl_channel *c = tdl_alloc_aligned(TDL_LINE_BYTES, sizeof(*c));
  if (c == NULL) {
    return TREADLE_ENOMEM;
  }
  tdl_channel_init(c, &tdl_channel_kind, capacity);
  *out = c;
  return 0;
}

/* --- under its guard ------------------------------------------------------ */

static void append(tdl_channel *c, tdl_message *m) {
  m->next = NULL;
  if (c->first == NULL) {
    c->first = m;
  } else {
    c->last->next = m;
  }
  c->last = m;
  c->count++;
}

static tdl_message *pop(tdl_channel *c) {
  tdl_message *m = c->first;
  c->first = m->next;
  c->count--;
  return m;
}

static tdl_message *pop_idle(tdl_channel *c) {
  tdl_message *m = c->idle;
  if (m != NULL) {
    c->idle = m->next;
    c->idle_count--;
  }
  return m;
}

static tdl_message *push_idle(tdl_channel *c, tdl_message *m) {
  if (m == NULL || c->idle_count >= TDL_CHANNEL_IDLE_MESSAGES) {
    return m;
  }
  m->next = c->idle;
  c->idle = m;
  c->idle_count++;
  return NULL;
}

/* C1, C2: the first sender's message. */
static tdl_message *take_offer(tdl_channel *c, tdl_waiter **granted) {
  tdl_waiter *w = tdl_waiters_grant(&c->senders, TDL_CHANNEL_SENT);
  tdl_message *m;
  if (w == NULL) {
    return NULL;
  }
  m = w->offer;
  m->number = ++c->numbered;
  w->offer = NULL;
  *granted = w;
  return m;
}

static tdl_channel_status send_locked(tdl_channel *c, tdl_message **m,
                                      tdl_waiter **granted) {
  if (c->closed) {
    return TDL_CHANNEL_CLOSED;
  }
  (*m)->number = ++c->numbered;
  *granted = tdl_waiters_grant(&c->receivers, *m);
  if (*granted == NULL) {
    if (c->count >= c->capacity) {
      return TDL_CHANNEL_WAIT;
    }
    append(c, *m);
  }
  *m = pop_idle(c);
  return TDL_CHANNEL_DONE;
}

/* `*left` is what there was no room for. */
static tdl_channel_status recv_locked(tdl_channel *c, tdl_message **m,
                                      tdl_waiter **granted,
                                      tdl_message **left) {
  tdl_message *got;
  if (c->first != NULL) {
    got = pop(c);
    if (c->count < c->capacity) {
      tdl_message *next = take_offer(c, granted);
      if (next != NULL) {
        append(c, next);
      }
    }
  } else {
    got = take_offer(c, granted);
    if (got == NULL) {
      return c->closed ? TDL_CHANNEL_CLOSED : TDL_CHANNEL_WAIT;
    }
  }
  *left = push_idle(c, *m);
  *m = got;
  return TDL_CHANNEL_DONE;
}

static void enter_locked(tdl_channel *c, int sends, tdl_message **m,
                         tdl_waiter *waiter) {
  if (sends) {
    waiter->offer = *m;
    *m = NULL;
    tdl_waiters_add(&c->senders, waiter);
  } else {
    waiter->offer = NULL;
    tdl_waiters_add(&c->receivers, waiter);
  }
}

/* --- with no guard -------------------------------------------------------- */

tdl_channel_status tdl_channel_send(tdl_channel *c, tdl_message **m,
                                    tdl_waiter *waiter) {
  tdl_waiter *granted = NULL;
  tdl_channel_status status;
  tdl_guard_lock(&c->guard);
  status = send_locked(c, m, &granted);
  if (status == TDL_CHANNEL_WAIT && waiter != NULL) {
    enter_locked(c, 1, m, waiter);
  }
  tdl_guard_unlock(&c->guard);
  tdl_waiters_tell(granted);
  return status;
}

tdl_channel_status tdl_channel_recv(tdl_channel *c, tdl_message **m,
                                    tdl_waiter *waiter) {
  tdl_waiter *granted = NULL;
  tdl_message *left = NULL;
  tdl_channel_status status;
  tdl_guard_lock(&c->guard);
  status = recv_locked(c, m, &granted, &left);
  if (status == TDL_CHANNEL_WAIT && waiter != NULL) {
    enter_locked(c, 0, m, waiter);
  }
  tdl_guard_unlock(&c->guard);
  tdl_waiters_tell(granted);
  tdl_message_free(left);
  return status;
}

/* C4: `locked` are the channels in the order of their addresses. */
static void sort(tdl_channel_case *cases, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    tdl_channel *c = cases[i].channel;
    uint32_t k = i;
    for (; k > 0 && (uintptr_t)cases[k - 1].locked > (uintptr_t)c; k--) {
      cases[k].locked = cases[k - 1].locked;
    }
    cases[k].locked = c;
  }
}

static void lock_all(tdl_channel_case *cases, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    if (i == 0 || cases[i].locked != cases[i - 1].locked) {
      tdl_guard_lock(&cases[i].locked->guard);
      TDL_STALL();
    }
  }
}

static void unlock_all(tdl_channel_case *cases, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    if (i == 0 || cases[i].locked != cases[i - 1].locked) {
      tdl_guard_unlock(&cases[i].locked->guard);
    }
  }
}

tdl_channel_status tdl_channel_select(tdl_channel_case *cases, uint32_t n,
                                      uint32_t first, uint32_t *chosen) {
  tdl_waiter *granted = NULL;
  tdl_message *left = NULL;
  tdl_channel_status status = TDL_CHANNEL_WAIT;
  sort(cases, n);
  lock_all(cases, n);
  for (uint32_t i = 0; i < n && status == TDL_CHANNEL_WAIT; i++) {
    uint32_t at = (first + i) % n;
    tdl_channel_case *k = &cases[at];
    status = k->sends ? send_locked(k->channel, &k->message, &granted)
                      : recv_locked(k->channel, &k->message, &granted, &left);
    if (status != TDL_CHANNEL_WAIT) {
      *chosen = at;
    }
  }
  if (status == TDL_CHANNEL_WAIT && cases[0].waiter != NULL) {
    for (uint32_t i = 0; i < n; i++) {
      enter_locked(cases[i].channel, cases[i].sends, &cases[i].message,
                   cases[i].waiter);
    }
  }
  unlock_all(cases, n);
  tdl_waiters_tell(granted);
  tdl_message_free(left);
  return status;
}

void tdl_channel_leave(tdl_channel *c, tdl_waiter *waiter) {
  TDL_STALL();
  tdl_guard_lock(&c->guard);
  tdl_waiters_remove(waiter);
  tdl_guard_unlock(&c->guard);
}

/* C3: before what was sent later. */
static void insert(tdl_channel *c, tdl_message *m) {
  tdl_message **at = &c->first;
  while (*at != NULL && (*at)->number < m->number) {
    at = &(*at)->next;
  }
  m->next = *at;
  *at = m;
  if (m->next == NULL) {
    c->last = m;
  }
  c->count++;
}

void tdl_channel_put_back(tdl_channel *c, tdl_message *m) {
  tdl_waiter *granted;
  tdl_guard_lock(&c->guard);
  granted = tdl_waiters_grant(&c->receivers, m);
  if (granted == NULL) {
    insert(c, m);
  }
  tdl_guard_unlock(&c->guard);
  tdl_waiters_tell(granted);
}

void tdl_channel_close(tdl_channel *c) {
  tdl_waiter *receivers, *senders;
  tdl_guard_lock(&c->guard);
  c->closed = 1;
  receivers = tdl_waiters_grant_all(&c->receivers, NULL);
  senders = tdl_waiters_grant_all(&c->senders, TDL_CHANNEL_REFUSED);
  tdl_guard_unlock(&c->guard);
  tdl_waiters_tell(receivers);
  tdl_waiters_tell(senders);
}

int tdl_channel_is_closed(tdl_channel *c) {
  int closed;
  tdl_guard_lock(&c->guard);
  closed = c->closed;
  tdl_guard_unlock(&c->guard);
  return closed;
}

int tdl_channel_is_offered(tdl_channel *c) {
  int offered;
  tdl_guard_lock(&c->guard);
  offered = c->senders.first != NULL;
  tdl_guard_unlock(&c->guard);
  return offered;
}

int tdl_channel_is_awaited(tdl_channel *c) {
  int awaited;
  tdl_guard_lock(&c->guard);
  awaited = c->receivers.first != NULL;
  tdl_guard_unlock(&c->guard);
  return awaited;
}
