#include "events.h"

#include "../base/alloc.h"
#include "../codec/writer.h"

typedef struct event {
  tdl_note note;
  treadle_pool *pool;
  uint32_t worker;
  tdl_bytes bytes;
} event;

static void on_event(tdl_note *note, treadle_loop *at) {
  event *e = TDL_CONTAINER(note, event, note);
  treadle_pool *pool = e->pool;
  at->noting = note; /* L3 */
  tdl_pool_tell(pool, TDL_POOL_HEARD, e->worker, &e->bytes);
  at->noting = NULL;
  tdl_bytes_reset(&e->bytes, NULL, 0);
  tdl_free(e);
  tdl_pool_drop(pool);
}

void tdl_events_post(treadle_pool *pool, uint32_t worker, const char *name,
                     uint32_t task, const char *text, double seconds) {
  event *e = tdl_calloc(sizeof(*e));
  tdl_writer w;
  if (e == NULL) {
    return;
  }
  e->note.node.kind = TDL_NODE_NOTE;
  e->note.arrive = on_event;
  e->pool = pool;
  e->worker = worker;
  tdl_bytes_init(&e->bytes, NULL, 0);
  tdl_put_begin(&w, &e->bytes, TDL_PAYLOAD_MAX_BYTES, 4);
  tdl_put_string(&w, name, strlen(name));
  tdl_put_number(&w, task);
  if (text != NULL) {
    tdl_put_string(&w, text, strlen(text));
  } else {
    tdl_put_nil(&w);
  }
  tdl_put_number(&w, seconds);
  if (tdl_put_end(&w) != 0) {
    tdl_bytes_reset(&e->bytes, NULL, 0);
    tdl_free(e);
    return;
  }
  tdl_pool_hold(pool);
  tdl_loop_post(pool->home, &e->note.node);
}
