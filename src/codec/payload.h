/* payload: what a payload holds besides its bytes: references to counted things
** (docs/wire-format.md, "References").
** Threads: one at a time.
** Owns:    a reference of every thing in it, until it is cleared.
** Fails:   never. */
#ifndef TDL_CODEC_PAYLOAD_H
#define TDL_CODEC_PAYLOAD_H

#include "../base/bytes.h"
#include "../base/compiler.h"
#include "../base/counted.h"
#include "tags.h"

/* The list behind a payload with TDL_WIRE_THINGS: how many it names, and the
** bytes that it takes; 0 where it is malformed. */
uint32_t tdl_payload_things(const uint8_t *data, size_t len, size_t *bytes);

/* Number `i` of them; with `moved`, whether the sender gives it away. */
tdl_counted *tdl_payload_thing(const uint8_t *data, size_t len, uint32_t i);
int tdl_payload_is_moved(const uint8_t *data, size_t len, uint32_t i);

/* The sender gives that one away; 0 when it is none of them. */
int tdl_payload_move(tdl_bytes *bytes, const tdl_counted *thing);

/* An entry of the list: an address, whose lowest bit says that it is moved. */
#define TDL_PAYLOAD_MOVED ((uintptr_t)1)

static inline tdl_counted *tdl_payload_address(uintptr_t entry) {
  return (tdl_counted *)(entry & ~TDL_PAYLOAD_MOVED);
}

/* Makes the bytes a payload of that text alone; empty without memory, or with no
** text: NULL. */
void tdl_payload_set_text(tdl_bytes *bytes, const char *text);

/* The slow half of clear. */
void tdl_payload_drop(tdl_bytes *bytes);

/* Empties the bytes, which hold one payload or nothing. */
static inline void tdl_payload_clear(tdl_bytes *bytes) {
  if (TDL_UNLIKELY(bytes->len > 0 && (bytes->data[0] & TDL_WIRE_THINGS))) {
    tdl_payload_drop(bytes);
  }
  bytes->len = 0;
}

#endif
