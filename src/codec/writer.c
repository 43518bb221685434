#include "writer.h"

#include "../treadle.h"

uint8_t *tdl_put_room_slow(tdl_writer *w, size_t n) {
  tdl_bytes *out = w->out;
  uint8_t *p;
  if (w->status != 0) {
    return NULL;
  }
  if (n > w->room) {
    w->status = TREADLE_EPAYLOAD;
  } else if (tdl_bytes_reserve(out, n) != 0) {
    w->status = TREADLE_ENOMEM;
  }
  if (w->status != 0) {
    w->room = 0; /* nothing fits any more: `status` stays the first one */
    return NULL;
  }
  p = out->data + out->len;
  out->len += (uint32_t)n;
  w->room -= (uint32_t)n;
  return p;
}

int tdl_put_begin_wide(tdl_writer *w, uint32_t count) {
  uint8_t *p = tdl_put_room(w, 6);
  if (p == NULL) {
    return w->status;
  }
  p[0] = TDL_WIRE_VERSION;
  p[1] = TDL_WIRE_WIDE;
  tdl_store_32(p + 2, count);
  return 0;
}

int tdl_put_end(tdl_writer *w) {
  if (w->status != 0) {
    w->out->len = w->start;
  }
  return w->status;
}

int tdl_put_table(tdl_writer *w, uint32_t array, uint32_t pairs) {
  int wide = array > 255 || pairs > 255;
  uint8_t *p = tdl_put_room(w, wide ? 9 : 3);
  if (p == NULL) {
    return w->status;
  }
  if (wide) {
    p[0] = TDL_TAG_TABLE32;
    tdl_store_32(p + 1, array);
    tdl_store_32(p + 5, pairs);
  } else {
    p[0] = TDL_TAG_TABLE8;
    p[1] = (uint8_t)array;
    p[2] = (uint8_t)pairs;
  }
  return 0;
}

int tdl_put_numbers(tdl_writer *w, const double *v, uint32_t n) {
  uint8_t *p = tdl_put_room(w, 5 + (size_t)n * 8);
  if (p == NULL) {
    return w->status;
  }
  p[0] = TDL_TAG_NUMBERS;
  tdl_store_32(p + 1, n);
  for (uint32_t i = 0; i < n; i++) {
    tdl_store_f64(p + 5 + (size_t)i * 8, v[i]);
  }
  return 0;
}

static int put_64(tdl_writer *w, tdl_tag tag, uint64_t v) {
  uint8_t *p = tdl_put_room(w, 9);
  if (p == NULL) {
    return w->status;
  }
  p[0] = (uint8_t)tag;
  tdl_store_64(p + 1, v);
  return 0;
}

int tdl_put_int64(tdl_writer *w, int64_t v) {
  return put_64(w, TDL_TAG_INT64, (uint64_t)v);
}

int tdl_put_uint64(tdl_writer *w, uint64_t v) {
  return put_64(w, TDL_TAG_UINT64, v);
}
