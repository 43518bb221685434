/* tdl_buffer: memory that many states share; a slice is one of its own, on the
** memory of another.
** Threads: any; what lies in the memory is its users' business.
** Owns:    its memory, or a reference of the buffer that does.
** Fails:   TREADLE_ENOMEM, also for sizes that no machine has; with memory for
**          processes as tdl_region does.
**
** M1  Memory, length and type never change: to grow is to make another one.
** M2  Who moves a buffer lets go, in his own state, of every handle that lies
**     within it. What other states hold stays theirs.
** M6  References are counted in each process by itself. Memory that several
**     processes have goes when the last of them has let go, or died: the kernel
**     counts descriptors and mappings. */
#ifndef TDL_SHARE_BUFFER_H
#define TDL_SHARE_BUFFER_H

#include <stddef.h>

#include "../base/counted.h"
#include "../base/region.h"

struct tdl_buffer;

/* Where a whole one has come from, for those that another process has given. */
typedef struct tdl_buffer_origin {
  /* when nobody has it any more: 1 if it is to be kept, by whom this is told */
  int (*keep)(struct tdl_buffer_origin *origin, struct tdl_buffer *buffer);
} tdl_buffer_origin;

typedef struct tdl_buffer {
  tdl_counted counted;      /* first */
  struct tdl_buffer *whole; /* whose memory it is; a reference if another's */
  uint8_t *data;
  size_t count; /* elements */
  size_t unit;  /* bytes of one */
  const char *type;
  tdl_region region; /* where `data` lies, in a whole one for processes */
  tdl_buffer_origin *origin; /* or NULL; with the number that it has there, */
  uint64_t number;           /* of whoever has made that */
  char name[];               /* the type's, in a whole one */
} tdl_buffer;

extern const tdl_kind tdl_buffer_kind;

/* Zeroed; the type is the name of an FFI type whose size is `unit`. */
int tdl_buffer_new(const char *type, size_t unit, size_t count,
                   tdl_buffer **out);

/* The same in memory that other processes can have, too. */
int tdl_buffer_open(const char *type, size_t unit, size_t count,
                    tdl_buffer **out);

/* A buffer on the memory of one that tdl_buffer_open has made with as many
** bytes, here or in another process; the type is whatever is said here. Takes the
** descriptor, but not on failure: TREADLE_EINVAL when it is no such memory. */
int tdl_buffer_adopt(int fd, const char *type, size_t unit, size_t count,
                     tdl_buffer **out);

/* The descriptor of the memory in which it lies, which stays the buffer's; -1:
** it is this process' own. */
static inline int tdl_buffer_fd(const tdl_buffer *b) {
  return b->whole->region.fd;
}

/* `count` elements from number `first`, 0-based; the caller has seen that they
** are there. */
int tdl_buffer_slice(tdl_buffer *of, size_t first, size_t count,
                     tdl_buffer **out);

static inline size_t tdl_buffer_bytes(const tdl_buffer *b) {
  return b->count * b->unit;
}

/* One that its origin has kept: has one holder again, or none at all. */
void tdl_buffer_revive(tdl_buffer *b);
void tdl_buffer_free_kept(tdl_buffer *b);

/* 1 when all of `b` is in `other`. */
int tdl_buffer_lies_in(const tdl_buffer *b, const tdl_buffer *other);

/* 1 when this reference is the only one to the memory. */
int tdl_buffer_is_sole(const tdl_buffer *b);

#endif
