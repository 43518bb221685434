#include "payload.h"

/* payload = ... address* count: where a job's bytes lie, nothing is aligned. */
#define ADDRESS sizeof(tdl_counted *)

uint32_t tdl_payload_things(const uint8_t *data, size_t len, size_t *bytes) {
  uint32_t n;
  *bytes = 0;
  if (len < 4 + ADDRESS) {
    return 0;
  }
  n = tdl_load_32(data + len - 4);
  if (n > (len - 4) / ADDRESS) {
    return 0;
  }
  *bytes = 4 + n * ADDRESS;
  return n;
}

tdl_counted *tdl_payload_thing(const uint8_t *data, size_t len, uint32_t i) {
  size_t bytes;
  uint32_t n = tdl_payload_things(data, len, &bytes);
  tdl_counted *thing = NULL;
  if (i < n) {
    memcpy(&thing, data + len - bytes + i * ADDRESS, ADDRESS);
  }
  return thing;
}

void tdl_payload_drop(tdl_bytes *b) {
  size_t bytes;
  uint32_t n = tdl_payload_things(b->data, b->len, &bytes);
  for (uint32_t i = 0; i < n; i++) {
    tdl_counted_drop(tdl_payload_thing(b->data, b->len, i));
  }
  b->len = 0;
}
