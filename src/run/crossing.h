/* tdl_crossing: the buffers that a worker's process and its parent have together
** (docs/wire-format.md, "Between processes"). Both sides have one.
** Threads: any; a lock of its own, which is no other's and none is taken under
**          it. Its side of the line is read here alone.
** Owns:    a reference of each buffer that this side has given; what the other
**          one has given is its holders', but for what X3 keeps.
** Fails:   with a treadle_status; hear and read of the parent's, for nonsense:
**          TREADLE_EINVAL.
**
** X1  A buffer's whole has a number on the side that gives it, which names it on
**     this link alone and is never used again: its lower part is a place in the
**     giver's table, and in the other side's. Its descriptor goes over the line
**     before the first record that names it is put, and never again.
** X2  The giver counts how often it has named one (`sent`), and how often it was
**     named to it (`back`); the other side counts the same (`came`, `back`).
** X3  When nobody has it any more on the other side, that keeps its memory and
**     says so, with both its counts. If all that was sent had come by then, the
**     giver drops it as soon as all that was sent back has come, and says that
**     it has gone; else another record is on its way, which takes what was kept
**     up again.
** X4  Neither side has more than TDL_CROSSING_MOST of the other's.
** X5  The parent believes nothing: numbers, ranges, sizes, seals and counts are
**     held against what it knows itself. The child trusts its parent, but waits
**     for a descriptor that its main thread has yet to read. */
#ifndef TDL_CROSSING_H
#define TDL_CROSSING_H

#include "../base/bytes.h"
#include "../link/link.h"
#include "line.h"

typedef struct tdl_crossing tdl_crossing;

/* The line stays the caller's. */
int tdl_crossing_new(int line, int is_parent, tdl_crossing **out);

/* The line is read to its end, and not used any more; what has come can be read
** still. */
void tdl_crossing_cut(tdl_crossing *crossing);

/* The link is over: lets go of everything. NULL: nothing. */
void tdl_crossing_end(tdl_crossing *crossing);

/* Puts a record with that payload, or without one (NULL), as tdl_link_put. 0 also
** when the line is full; further failures: TREADLE_ENOMEM, and TREADLE_EPAYLOAD
** for X4. One thread at a time; in the parent nobody hears meanwhile. */
int tdl_crossing_put(tdl_crossing *crossing, tdl_link_writer *writer,
                     tdl_record *head, const tdl_bytes *payload);

/* The first half of that: the payload as it is put, in `out`. */
int tdl_crossing_write(tdl_crossing *crossing, const tdl_bytes *payload,
                       tdl_bytes *out);

/* How long it is then. */
size_t tdl_crossing_bytes(const tdl_bytes *payload);

/* Whether X4 is why something was refused: no more can be given now. */
int tdl_crossing_is_full(tdl_crossing *crossing);

/* A copy of what was put becomes a payload of this process; 0. In the child it
** may block (X5). On failure the bytes are empty. */
int tdl_crossing_read(tdl_crossing *crossing, tdl_bytes *bytes);

/* Does what the other side says on the line about buffers; 1 with a message about
** something else; 0: there is none now; TREADLE_ECLOSED, TREADLE_EINVAL. */
int tdl_crossing_hear(tdl_crossing *crossing, tdl_message *out);

/* The parent: reads TDL_LINE_VIEWs from the line; 0: that was nonsense. It may be
** called by whoever hears, and takes no lock that others hold then. */
void tdl_crossing_pass_views(tdl_crossing *crossing,
                             int (*hear)(void *ctx, int line), void *ctx);

/* The child, before its parent's first word: what is given with that. Blocks
** until that is there. 0 or TREADLE_EINVAL. */
int tdl_crossing_hear_first(tdl_crossing *crossing);

#endif
