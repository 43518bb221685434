/* tdl_channel: messages from many to many, first come, first served.
** Threads: any.
** Owns:    the messages in its buffer, and some empty ones.
** Fails:   TREADLE_ENOMEM from new; nothing else needs memory.
**
** C1  Who waits to receive finds an empty buffer; who waits to send, a full
**     one: whatever changes that grants the first of them what it waits for. A
**     message goes straight to who waits for it.
** C2  A message has one holder: its sender, the channel's buffer, or a wait: as
**     the `offer` of one that sends, until somebody takes it under the guard; as
**     the `value` of one that receives, once that is granted.
** C3  What was granted and is not taken is put back to the head, though the
**     buffer may be full: it was there before. Messages are numbered as the
**     channel takes them, so that several come back in their order.
** C4  Who needs several channels locks them in the order of their addresses. */
#ifndef TDL_SHARE_CHANNEL_H
#define TDL_SHARE_CHANNEL_H

#include "../base/counted.h"
#include "guard.h"
#include "message.h"
#include "wait.h"

typedef struct tdl_channel {
  tdl_counted counted; /* first */
  uint32_t capacity;
  _Alignas(TDL_LINE_BYTES) tdl_guard guard; /* of all that follows */
  int closed;
  uint32_t count; /* in the buffer */
  uint32_t idle_count;
  uint64_t numbered; /* the highest number of a message: C3 */
  tdl_message *first, *last;
  tdl_waiters receivers, senders;
  tdl_message *idle; /* empty ones, for who sends next */
} tdl_channel;

extern const tdl_kind tdl_channel_kind;

/* One as a part of something, in memory that is all zeros; and its end. */
void tdl_channel_init(tdl_channel *channel, const tdl_kind *kind,
                      uint32_t capacity);
void tdl_channel_fini(tdl_channel *channel);

/* Capacity 0: a sender waits until somebody receives. */
int tdl_channel_new(uint32_t capacity, tdl_channel **out);

typedef enum tdl_channel_status {
  TDL_CHANNEL_DONE,
  TDL_CHANNEL_CLOSED, /* and, for who receives, empty */
  TDL_CHANNEL_WAIT    /* the waiter, if there is one, stands in the list */
} tdl_channel_status;

/* What the `value` of a granted wait is besides a message: its message was
** sent; it will not be, and is still its `offer`; NULL: nothing comes any
** more. */
#define TDL_CHANNEL_SENT    ((void *)&tdl_channel_marks[0])
#define TDL_CHANNEL_REFUSED ((void *)&tdl_channel_marks[1])
extern char tdl_channel_marks[2];

/* DONE: the message is the channel's or its receiver's; `*message` is an empty
** one in its place, or NULL. WAIT with a waiter: it is its `offer`, and
** `*message` NULL. Else it is as before. */
tdl_channel_status tdl_channel_send(tdl_channel *channel, tdl_message **message,
                                    tdl_waiter *waiter);

/* `*message` is an empty one to spare, or NULL. DONE: it is the channel's, and
** `*message` what was received. Else it is as before. */
tdl_channel_status tdl_channel_recv(tdl_channel *channel, tdl_message **message,
                                    tdl_waiter *waiter);

/* One of several; `message` as above. */
typedef struct tdl_channel_case {
  tdl_channel *channel;
  tdl_channel *locked; /* private */
  int sends;
  tdl_message *message;
  tdl_waiter *waiter;
} tdl_channel_case;

/* The first case that can go on now, from number `first` on: which one, if the
** result is not WAIT. The waiters are either all there or none. */
tdl_channel_status tdl_channel_select(tdl_channel_case *cases, uint32_t count,
                                      uint32_t first, uint32_t *chosen);

/* Out of its list; its offer is the caller's again, if nobody has it (C2). */
void tdl_channel_leave(tdl_channel *channel, tdl_waiter *waiter);

/* C3 */
void tdl_channel_put_back(tdl_channel *channel, tdl_message *message);

/* For everybody, at once: nothing is sent any more. What is in it can still be
** received. */
void tdl_channel_close(tdl_channel *channel);
int tdl_channel_is_closed(tdl_channel *channel);

/* Whether somebody waits to receive; to send. */
int tdl_channel_is_offered(tdl_channel *channel);
int tdl_channel_is_awaited(tdl_channel *channel);

#endif
