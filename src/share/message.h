/* tdl_message: one payload on its way, in memory that is used again.
** Threads: one at a time; who holds it.
** Owns:    its bytes, and what they refer to.
** Fails:   new with NULL. */
#ifndef TDL_SHARE_MESSAGE_H
#define TDL_SHARE_MESSAGE_H

#include "../codec/payload.h"
#include "../config.h"

typedef struct tdl_message {
  struct tdl_message *next; /* its holder's */
  uint64_t number;          /* the channel's: C3 in channel.h */
  int is_doubted;           /* its sender's code is not to run here */
  tdl_bytes bytes;
  uint8_t fixed[TDL_MESSAGE_INLINE_BYTES];
} tdl_message;

/* An empty one. */
tdl_message *tdl_message_new(void);
void tdl_message_free(tdl_message *message); /* or NULL */

/* Empties it. What it keeps for its next use is little. */
void tdl_message_clear(tdl_message *message);

#endif
