/* raw_tables: fields of tables without the Lua API (raw.h).
** Threads: the state's own.
** Owns:    nothing.
** Fails:   as tdl_encode_fields; the decoder's functions leave to the caller
**          what they cannot do. Called only while tdl_raw_is_on(). */
#ifndef TDL_CODEC_RAW_TABLES_H
#define TDL_CODEC_RAW_TABLES_H

#include "decode.h"
#include "encode.h"
#include "raw.h"

/* Writes a scalar: 0, or a status. 1: it is none, and nothing is written. */
static inline __attribute__((always_inline)) int
tdl_raw_put_scalar(tdl_writer *w, tdl_raw_value v) {
  const char *s;
  size_t len;
  if (tdl_raw_is_double(v)) {
    return tdl_put_number(w, tdl_raw_double(v));
  }
  if (tdl_raw_kind(v) == TDL_RAW_STRING) {
    s = tdl_raw_string_of(v, &len);
    return tdl_put_string(w, s, len);
  }
  if (v == TDL_RAW_TRUE || v == TDL_RAW_FALSE) {
    return tdl_put_boolean(w, v == TDL_RAW_TRUE);
  }
  if (v == TDL_RAW_NIL) {
    return tdl_put_nil(w);
  }
  if (tdl_raw_kind(v) == TDL_RAW_INTEGER) {
    return tdl_put_number(w, tdl_raw_integer(v));
  }
  return 1;
}

/* Writes counts, elements and pairs of the table at `idx`. */
int tdl_raw_encode_fields(tdl_encoder *e, int idx, const tdl_path *path,
                          int depth);

/* Reads elements of the table at `idx` as long as they are nils, booleans
** and numbers that lie in its array part, at most those from `first` to
** `last`; returns how many. */
uint32_t tdl_raw_decode_elements(tdl_decoder *d, int idx, uint32_t first,
                                 uint32_t last);

/* Sets `n` elements from `first` on; 0 when the array part has no room. */
int tdl_raw_decode_numbers(lua_State *L, int idx, uint32_t first, uint32_t n,
                           const uint8_t *bytes);

#endif
