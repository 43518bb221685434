#include "direct.h"

#include <string.h>

#include "../base/compiler.h"
#include "../base/stamp.h"
#include "../codec/reader.h"
#include "../codec/writer.h"

/* What Lua sees. Functions that say int answer 0 to send it the other way. */
/* clang-format off */
TDL_DECLARE(face, struct {
  uint32_t opened;  /* the slot of the call that is being made, 0 for none */
  uint32_t slot;    /* of the result */
  uint32_t length;  /* a string's */
  const char *text;
  double number;
  int (*open)(void *self, void *handle, uint32_t count);
  int (*put_nil)(void *self);
  int (*put_boolean)(void *self, int value);
  int (*put_number)(void *self, double value);
  int (*put_string)(void *self, const char *s, size_t length);
  int (*submit)(void *self, uint32_t task);
  int (*next)(void *self);
  void (*reported)(void *self);
  void (*hold_back)(void *self);
  int (*spin)(void *self);
})
/* clang-format on */

/* What next found. */
enum found {
  NOTHING = 0,
  OTHER, /* for core.poll */
  NONE,  /* a call's end without results */
  NIL,   /* with one result */
  FALSE,
  TRUE,
  NUMBER,
  STRING
};

typedef struct direct {
  face face; /* first: the FFI's pointer is ours */
  tdl_bind *bind;
  tdl_job *job;       /* taken, and not submitted */
  const tdl_box *box; /* of the pool that it goes to; Lua keeps it */
  tdl_writer writer;
} direct;

/* --- a call --------------------------------------------------------------- */

/* Its next arguments are written into the stage, if there is room. */
static int is_staged(const treadle_pool *pool) {
  return TDL_UNLIKELY(pool->stage != NULL) && pool->stage->last > 0;
}

static int call_open(void *self, void *handle, uint32_t count) {
  direct *d = self;
  tdl_handle *h = ((tdl_box *)handle)->handle;
  TDL_STAMP(NULL, BEGUN);
  /* A finalizer's call, made while another one is, goes the other way; so does
  ** a guest's, which may be a call on its own pool, and one that is told; and one
  ** with long arguments, as the last one had, for another process. */
  if (TDL_UNLIKELY(h == NULL || h->pool == NULL || d->face.opened != 0 ||
                   d->bind->loop->guest != 0 || d->bind->tells_call ||
                   is_staged(h->pool) || tdl_bind_is_barred(d->bind))) {
    return 0;
  }
  if (d->job == NULL) {
    d->job = tdl_bind_take_job(d->bind);
    if (d->job == NULL) {
      return 0;
    }
  }
  d->box = handle;
  tdl_payload_clear(&d->job->bytes);
  if (tdl_put_begin(&d->writer, &d->job->bytes, h->pool->max_payload, count) !=
      0) {
    return 0;
  }
  d->face.opened = d->job->slot;
  return 1;
}

static int has_put(const direct *d, int status) {
  (void)d; /* without stamps */
  TDL_STAMP(d->job, ENCODED);
  return status == 0;
}

static int call_put_nil(void *self) {
  return has_put(self, tdl_put_nil(&((direct *)self)->writer));
}

static int call_put_boolean(void *self, int value) {
  return has_put(self, tdl_put_boolean(&((direct *)self)->writer, value));
}

static int call_put_number(void *self, double value) {
  return has_put(self, tdl_put_number(&((direct *)self)->writer, value));
}

static int call_put_string(void *self, const char *s, size_t length) {
  return has_put(self, tdl_put_string(&((direct *)self)->writer, s, length));
}

static int call_submit(void *self, uint32_t task) {
  direct *d = self;
  tdl_job *job = d->job;
  TDL_STAMP(job, MADE);
  d->face.opened = 0;
  if (TDL_UNLIKELY(d->box->handle == NULL)) {
    return 0; /* a finalizer has seen the end of the pool */
  }
  d->job = NULL;
  if (TDL_UNLIKELY(d->box->handle->pool->stage != NULL)) {
    tdl_stage_note(d->box->handle->pool->stage, job->bytes.len);
  }
  tdl_job_set_task(job, task);
  /* without a deadline it cannot fail */
  tdl_pool_prepare(d->box->handle->pool, job);
  tdl_pool_submit(job);
  TDL_STAMP(job, PUSHED);
  return 1;
}

/* --- results -------------------------------------------------------------- */

static enum found look_at(direct *d, const tdl_job *job) {
  tdl_reader reader;
  tdl_item item;
  uint32_t count;
  uint8_t flags;
  if (tdl_get_begin(&reader, job->bytes.data, job->bytes.len, &count, &flags) !=
          0 ||
      flags != 0 || count > 1) {
    return OTHER;
  }
  if (count == 0) {
    return reader.next == reader.end ? NONE : OTHER;
  }
  if (tdl_get_value(&reader, &item) != 0 || reader.next != reader.end) {
    return OTHER;
  }
  switch (item.kind) {
  case TDL_ITEM_NIL:
    return NIL;
  case TDL_ITEM_BOOLEAN:
    return item.boolean ? TRUE : FALSE;
  case TDL_ITEM_NUMBER:
    d->face.number = item.number;
    return NUMBER;
  case TDL_ITEM_STRING:
    d->face.text = item.string;
    d->face.length = item.n;
    return STRING;
  default:
    return OTHER;
  }
}

/* There may be something to do that only core.poll can. */
static int has_other(const direct *d) {
  const treadle_loop *loop = d->bind->loop;
  return tdl_loop_has_rest(loop) || loop->due_ns != TDL_NEVER ||
         d->bind->ready > 0;
}

/* What has arrived first. A result is Lua's until it says that the future is
** settled, or that it cannot settle it. */
static int result_next(void *self) {
  direct *d = self;
  tdl_job *job;
  enum found found;
  if (TDL_UNLIKELY(tdl_bind_is_barred(d->bind) ||
                   d->bind->loop->arriving != NULL)) {
    return OTHER;
  }
  job = tdl_loop_next_home(d->bind->loop);
  if (job == NULL) {
    return has_other(d) ? OTHER : NOTHING;
  }
  found = job->done == tdl_bind_done ? look_at(d, job) : OTHER; /* else C's */
  if (TDL_UNLIKELY(found == OTHER)) {
    tdl_loop_hold_back(d->bind->loop);
  }
  d->face.slot = job->slot;
  return (int)found;
}

static void result_reported(void *self) {
  TDL_STAMP(((direct *)self)->bind->loop->arriving, REPORTED);
  tdl_loop_reported(((direct *)self)->bind->loop);
}

static void result_hold_back(void *self) {
  tdl_loop_hold_back(((direct *)self)->bind->loop);
}

static int result_spin(void *self) {
  direct *d = self;
  return !tdl_bind_is_barred(d->bind) && tdl_loop_spin(d->bind->loop);
}

/* --- for Lua -------------------------------------------------------------- */

void tdl_bind_direct(tdl_bind *b, lua_State *L) {
  direct *d;
  lua_newtable(L);
  d = lua_newuserdata(L, sizeof(*d));
  memset(d, 0, sizeof(*d));
  d->face.open = call_open;
  d->face.put_nil = call_put_nil;
  d->face.put_boolean = call_put_boolean;
  d->face.put_number = call_put_number;
  d->face.put_string = call_put_string;
  d->face.submit = call_submit;
  d->face.next = result_next;
  d->face.reported = result_reported;
  d->face.hold_back = result_hold_back;
  d->face.spin = result_spin;
  d->bind = b;
  luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushlightuserdata(L, d);
  lua_setfield(L, -2, "self");
  lua_pushstring(L, face_text);
  lua_setfield(L, -2, "declaration");
  lua_rawgeti(L, LUA_REGISTRYINDEX, b->futures_ref);
  lua_setfield(L, -2, "futures");
  tdl_bind_set_number(L, "NOTHING", NOTHING);
  tdl_bind_set_number(L, "OTHER", OTHER);
  tdl_bind_set_number(L, "NONE", NONE);
  tdl_bind_set_number(L, "NIL", NIL);
  tdl_bind_set_number(L, "FALSE", FALSE);
  tdl_bind_set_number(L, "TRUE", TRUE);
  tdl_bind_set_number(L, "NUMBER", NUMBER);
  tdl_bind_set_number(L, "STRING", STRING);
  lua_setfield(L, -2, "direct");
}
