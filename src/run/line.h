/* tdl_line: the messages between a worker's process and its keeper: all but the
** calls and their results, which are in the memory that they share (link.h).
** Threads: any; the socket keeps messages whole.
** Owns:    nothing.
** Fails:   sending: the other side is gone, or does not read; receiving: what is
**          no message of this version is none. */
#ifndef TDL_LINE_H
#define TDL_LINE_H

#include <stddef.h>
#include <stdint.h>

enum tdl_line_kind {
  /* to the child */
  TDL_LINE_HELLO = 1, /* a tdl_hello; the boot payload lies in the bulk */
  TDL_LINE_SETTLE,    /* the ticket's job was settled as `value` */
  TDL_LINE_STOP,      /* leave; what runs must end within `value` ns; why */
  TDL_LINE_WAKE,      /* there is a record, and the child rests in a loop */
  /* to the parent */
  TDL_LINE_BOOTED, /* `value`: a status; the report is a record */
  TDL_LINE_REFUSED /* it cannot be confined: the text says why */
};

#define TDL_LINE_TEXT_BYTES 512

/* The text is why a job was settled, cut off if need be. */
typedef struct tdl_message {
  uint32_t kind;
  uint32_t ticket;
  uint32_t length; /* of the text */
  uint32_t none;
  uint64_t value;
  char text[TDL_LINE_TEXT_BYTES];
} tdl_message;

#define TDL_LINE_HEAD_BYTES ((uint32_t)offsetof(tdl_message, text))

#define TDL_HELLO_VERSION 2u

/* What a worker's process is told first; behind its boot payload lies what it may
** do (policy.h). */
typedef struct tdl_hello {
  uint32_t kind; /* TDL_LINE_HELLO */
  uint32_t version;
  uint32_t id, concurrency, max_payload;
  uint32_t spins; /* it may, before it sleeps */
  uint32_t boot_bytes, policy_bytes;
  uint64_t stage_bytes;
  uint64_t terminate_ns, cap_bytes, recycle_after, recycle_bytes;
  char name[32];
} tdl_hello;

/* Gives the message a text, cut off if need be; NULL: none. */
void tdl_message_say(tdl_message *message, const char *text);

/* 0, or TREADLE_ESYSTEM. Never blocks, never raises SIGPIPE. */
int tdl_line_send(int line, const void *message, uint32_t size);

/* 1: a message; 0: there is none now (`wait`: never); TREADLE_ECLOSED at the
** end; TREADLE_EINVAL: nonsense. */
int tdl_line_receive(int line, tdl_message *out, int wait);
int tdl_line_receive_hello(int line, tdl_hello *out);

#endif
