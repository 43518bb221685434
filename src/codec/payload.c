#include "payload.h"

#include "writer.h"

/* payload = ... address* count: where a job's bytes lie, nothing is aligned. */
#define ADDRESS sizeof(uintptr_t)

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

/* Where entry `i` lies, NULL when there is none. */
static const uint8_t *entry_at(const uint8_t *data, size_t len, uint32_t i) {
  size_t bytes;
  uint32_t n = tdl_payload_things(data, len, &bytes);
  return i < n ? data + len - bytes + i * ADDRESS : NULL;
}

static uintptr_t load(const uint8_t *at) {
  uintptr_t entry = 0;
  if (at != NULL) {
    memcpy(&entry, at, ADDRESS);
  }
  return entry;
}

tdl_counted *tdl_payload_thing(const uint8_t *data, size_t len, uint32_t i) {
  return tdl_payload_address(load(entry_at(data, len, i)));
}

int tdl_payload_is_moved(const uint8_t *data, size_t len, uint32_t i) {
  return (load(entry_at(data, len, i)) & TDL_PAYLOAD_MOVED) != 0;
}

int tdl_payload_move(tdl_bytes *b, const tdl_counted *thing) {
  size_t bytes;
  uint32_t n = b->len > 0 && (b->data[0] & TDL_WIRE_THINGS)
                   ? tdl_payload_things(b->data, b->len, &bytes)
                   : 0;
  for (uint32_t i = 0; i < n; i++) {
    uint8_t *at = b->data + b->len - bytes + i * ADDRESS;
    uintptr_t entry = load(at);
    if (tdl_payload_address(entry) == thing) {
      entry |= TDL_PAYLOAD_MOVED;
      memcpy(at, &entry, ADDRESS);
      return 1;
    }
  }
  return 0;
}

void tdl_payload_drop(tdl_bytes *b) {
  size_t bytes;
  uint32_t n = tdl_payload_things(b->data, b->len, &bytes);
  for (uint32_t i = 0; i < n; i++) {
    tdl_counted_drop(tdl_payload_thing(b->data, b->len, i));
  }
  b->len = 0;
}

void tdl_payload_set_text(tdl_bytes *b, const char *text) {
  tdl_writer writer;
  tdl_payload_clear(b);
  if (text != NULL && tdl_put_begin(&writer, b, UINT32_MAX, 1) == 0) {
    tdl_put_string(&writer, text, strlen(text));
    tdl_put_end(&writer);
  }
}
