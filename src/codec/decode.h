/* tdl_decoder: one decoding on its way; what the decoders of each kind of
** value share. Trusts no byte of its input.
** Threads: the state's own.
** Owns:    four slots of the Lua stack, from `base` on, when the payload's
**          flags ask for them.
** Fails:   with a status, and then with a message at the top. */
#ifndef TDL_CODEC_DECODE_H
#define TDL_CODEC_DECODE_H

#include <lua.h>

#include "../treadle.h"
#include "reader.h"
#include "store.h"

/* No encoder goes deeper (TDL_DEPTH_MAX and the steps of one object). */
#define TDL_DEPTH_DECODE 220

/* LuaJIT's largest tables, and its largest array part. */
#define TDL_TABLE_ARRAY_MAX (1u << 27)
#define TDL_TABLE_PAIRS_MAX (1u << 26)

typedef struct tdl_decoder {
  lua_State *L;
  tdl_reader r;
  const uint8_t *data;
  size_t len;
  int base;
  int code; /* functions are allowed */
  int raw;  /* arrays are filled in place (raw.h) */
  uint8_t flags;
  uint64_t owed;    /* bytes that the tables around this value need yet */
  uint32_t objects; /* numbered so far */
  uint32_t queued;  /* objects whose bodies follow */
  double serial;    /* of this payload, for the functions it loads; 0: none */
  tdl_scratch *scratch;
} tdl_decoder;

enum tdl_decoder_slot {
  TDL_DECODER_OBJECTS = 1, /* their numbers + 1 -> them, with WIRE_REFS */
  TDL_DECODER_QUEUE,       /* object, number, ... with WIRE_LATER */
  TDL_DECODER_SCRATCH,
  TDL_DECODER_STORE,
  TDL_DECODER_SLOTS = TDL_DECODER_STORE
};

/* Pushes the next value. */
int tdl_decode_value(tdl_decoder *d, int depth);

/* Counts of a table (the tag has been read), checked against what is left. */
int tdl_decode_counts(tdl_decoder *d, int wide, uint32_t *array,
                      uint32_t *pairs);

/* Fills the table at `idx`. */
int tdl_decode_fields(tdl_decoder *d, int idx, uint32_t array, uint32_t pairs,
                      int depth);

/* Numbers the object at the top. */
void tdl_decode_number(tdl_decoder *d);

/* Numbers an object that is not there yet; tdl_decode_arrived sets it to the
** value at the top. */
uint32_t tdl_decode_expect(tdl_decoder *d);
void tdl_decode_arrived(tdl_decoder *d, uint32_t id);

/* The object at the top, just numbered, gets its body later. */
int tdl_decode_later(tdl_decoder *d);

/* Reads the bodies of what was queued after `from`. */
int tdl_decode_bodies(tdl_decoder *d, uint32_t from, int depth);

/* The next value must be a string; its bytes lie in the payload. */
int tdl_decode_text(tdl_decoder *d, const char **s, size_t *len);

/* Fails for bytes that no encoder writes. */
int tdl_decode_malformed(tdl_decoder *d, const char *why);

/* Fails with a message, as lua_pushfstring. */
int tdl_decode_fail(tdl_decoder *d, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
