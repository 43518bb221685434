#include "bytes.h"

#include "../config.h"
#include "../treadle.h"
#include "alloc.h"

void tdl_bytes_reset(tdl_bytes *b, void *fixed, uint32_t size) {
  if (b->cap & 1u) {
    tdl_free(b->data);
  }
  tdl_bytes_init(b, fixed, size);
}

int tdl_bytes_grow(tdl_bytes *b, size_t more) {
  size_t need = (size_t)b->len + more;
  size_t cap = (size_t)tdl_bytes_cap(b) * 2;
  uint8_t *data;
  if (need > TDL_PAYLOAD_CEILING_BYTES) {
    return TREADLE_ENOMEM;
  }
  if (cap > TDL_PAYLOAD_CEILING_BYTES) {
    cap = TDL_PAYLOAD_CEILING_BYTES;
  }
  if (cap < need) {
    cap = need;
  }
  cap = (cap + 63) & ~(size_t)63;
  data = tdl_realloc((b->cap & 1u) ? b->data : NULL, cap);
  if (data == NULL) {
    return TREADLE_ENOMEM;
  }
  if (!(b->cap & 1u) && b->len > 0) {
    memcpy(data, b->data, b->len);
  }
  b->data = data;
  b->cap = (uint32_t)cap | 1u;
  return 0;
}
