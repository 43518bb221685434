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
  TDL_LINE_LOOK, /* what runs? or, `value` above 0, what waits behind that? */
  /* to the parent */
  TDL_LINE_BOOTED,  /* `value`: a status; the report is a record */
  TDL_LINE_REFUSED, /* it cannot be confined: the text says why */
  TDL_LINE_VIEW,    /* a tdl_sight (sight.h) */
  /* both ways, about the buffer with the number `value` (crossing.h) */
  TDL_LINE_GIVE,   /* with its descriptor */
  TDL_LINE_FORGET, /* nobody has it any more here */
  TDL_LINE_GONE    /* its giver has dropped it, too */
};

#define TDL_LINE_TEXT_BYTES 512

/* The text is why a job was settled, or the process is to leave, cut off if need
** be. */
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

/* 1 and the kind of the next message, which stays; 0: there is none now;
** TREADLE_ECLOSED at the end. */
int tdl_line_peek(int line, uint32_t *kind);

/* That message, of whatever size: how long it is, if not longer than that; below
** 0: it is, or there is none. */
int64_t tdl_line_take(int line, void *out, size_t size);

/* 0, or TREADLE_ESYSTEM. Never blocks, never raises SIGPIPE. */
int tdl_line_send(int line, const void *message, uint32_t size);

/* The same with a descriptor, which stays the caller's. 1 when it is sent; 0:
** there is no room now, or nobody is there any more. */
int tdl_line_send_fd(int line, const void *message, uint32_t size, int fd);

/* What `fd` is, if it is no descriptor. */
#define TDL_LINE_NO_FD   (-1)
#define TDL_LINE_LOST_FD (-2) /* there was no room for it in this process */

/* 1: a message, and its descriptor, which is the caller's; 0: there is none now;
** TREADLE_ECLOSED at the end; TREADLE_EINVAL: nonsense. */
int tdl_line_receive(int line, tdl_message *out, int *fd);

/* The kind of the next one, which stays; 0 at the end. Blocks. */
uint32_t tdl_line_next_kind(int line);
int tdl_line_receive_hello(int line, tdl_hello *out);

#endif
