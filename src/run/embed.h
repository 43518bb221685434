/* embed: what the files behind treadle.h know of each other.
** Threads: the loop's owner.
** Owns:    a writer's list of things, each with a reference, until they are the
**          payload's.
** Fails:   a writer keeps its first failure. */
#ifndef TDL_EMBED_H
#define TDL_EMBED_H

#include "../codec/writer.h"
#include "../treadle.h"
#include "loop.h"

/* E1  `left` is how many values are still to be put; an element and a pair of a
**     table that was begun are values. Only 0 is a good end. */
struct treadle_writer {
  tdl_writer to;
  uint64_t left; /* E1 */
  uint32_t count;
  int is_open;       /* it was begun, and did not end yet */
  tdl_bytes own;     /* of one that belongs to no call */
  uintptr_t *things; /* as the payload's list has them */
  uint32_t thing_count, thing_cap;
};

/* Starts a payload of `count` values at the end of `out`, of `limit` bytes. */
void tdl_embed_begin(treadle_writer *w, tdl_bytes *out, uint32_t limit,
                     uint32_t count);

/* Its end: the list of things is the payload's then. On failure `out` is as
** before. */
int tdl_embed_end(treadle_writer *w);

/* Lets go of what it holds. */
void tdl_embed_fini(treadle_writer *w);

/* Puts the one value of another writer, which stays as it is, its things too. */
void tdl_embed_put_all(treadle_writer *w, treadle_writer *from);

/* Reads from what came with a call; nothing, if that is none. */
void tdl_embed_open(const tdl_bytes *bytes, treadle_values *out);

/* The Lua state of the loop ends: calls of C programs that are under way are
** settled as closed, and their callbacks run. */
void tdl_embed_end_calls(treadle_loop *loop);

#endif
