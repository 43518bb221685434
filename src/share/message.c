#include "message.h"

#include "../base/alloc.h"

static void start(tdl_message *m) {
  tdl_bytes_reset(&m->bytes, m->fixed, sizeof(m->fixed));
}

tdl_message *tdl_message_new(void) {
  tdl_message *m = tdl_alloc_aligned(64, sizeof(*m));
  if (m != NULL) {
    m->number = 0;
    m->is_doubted = 0;
    start(m);
  }
  return m;
}

void tdl_message_clear(tdl_message *m) {
  tdl_payload_clear(&m->bytes);
  m->is_doubted = 0;
  if (TDL_UNLIKELY(tdl_bytes_heap(&m->bytes) > TDL_MESSAGE_KEEP_BYTES)) {
    start(m);
  }
}

void tdl_message_free(tdl_message *m) {
  if (m != NULL) {
    tdl_payload_clear(&m->bytes);
    start(m);
    tdl_free(m);
  }
}
