#include "said.h"

#include "../base/alloc.h"
#include "../codec/payload.h"
#include "news.h"

typedef struct said {
  tdl_note note;
  treadle_pool *pool;
  uint32_t worker;
  tdl_bytes bytes;
} said;

static void free_said(said *s) {
  tdl_payload_clear(&s->bytes);
  tdl_bytes_reset(&s->bytes, NULL, 0);
  tdl_free(s);
}

static void on_said(tdl_note *note, treadle_loop *at) {
  said *s = TDL_CONTAINER(note, said, note);
  treadle_pool *pool = s->pool;
  at->noting = note; /* L3 */
  tdl_pool_tell(pool, TDL_POOL_SAID, s->worker, &s->bytes);
  at->noting = NULL;
  free_said(s);
  tdl_pool_drop(pool); /* P1: the note's */
}

int tdl_said_post(treadle_pool *pool, uint32_t worker, tdl_bytes *bytes) {
  said *s = tdl_calloc(sizeof(*s));
  if (s == NULL) {
    return TREADLE_ENOMEM;
  }
  s->note.node.kind = TDL_NODE_NOTE;
  s->note.arrive = on_said;
  s->pool = pool;
  s->worker = worker;
  tdl_bytes_init(&s->bytes, NULL, 0);
  if (tdl_bytes_append(&s->bytes, bytes->data, bytes->len) != 0) {
    tdl_free(s);
    return TREADLE_ENOMEM;
  }
  bytes->len = 0; /* what it refers to is in the copy */
  if (!tdl_news_post(pool, &s->note)) {
    free_said(s);
  }
  return 0;
}
