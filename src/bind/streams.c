/* treadle.emit's and future:stream()'s functions of the Lua C API. Plain values go
** by the FFI where they need no longer wait, as a channel's do (channel_face.c). */
#include "streams.h"

#include "../base/alloc.h"
#include "../base/compiler.h"
#include "../base/status.h"
#include "../codec/codec.h"
#include "../run/emitted.h"
#include "../run/phase.h"
#include "../run/upcall.h"
#include "../run/worker.h"

/* --- its life ------------------------------------------------------------- */

static void free_stream(tdl_counted *counted) {
  tdl_stream *s = TDL_CONTAINER(counted, tdl_stream, channel.counted);
  tdl_channel_fini(&s->channel);
  tdl_free(s);
}

const tdl_kind tdl_stream_kind = {"stream", free_stream};

static tdl_stream *stream_of(tdl_counted *thing) {
  return thing == NULL ? NULL
                       : TDL_CONTAINER(thing, tdl_stream, channel.counted);
}

static int is_asked(const tdl_stream *s) {
  /* relaxed: the home's own, and the worker's hint: a note too many */
  return atomic_load_explicit(&s->asked, memory_order_relaxed);
}

/* home; M4: wakes the keeper of the process that emits into it. */
static void wake_keeper(const treadle_loop *loop, const tdl_stream *s) {
  const treadle_pool *pool = loop == NULL ? NULL : loop->far_pools;
  while (pool != NULL && (s->job == NULL || pool != s->job->pool)) {
    pool = pool->next_far;
  }
  if (pool != NULL) {
    /* acquire: as tdl_job_is_settled */
    uint32_t word = atomic_load_explicit(&s->job->word, memory_order_acquire);
    if (TDL_JOB_STATE(word) == TDL_JOB_RUNNING) {
      tdl_worker_ask(tdl_slot_worker(pool->slots[s->job->worker - 1]),
                     TDL_ASK_WAKE);
    }
  }
}

void tdl_stream_taken(const tdl_bind *b, tdl_channel *c,
                      tdl_channel_status status) {
  tdl_stream *s = TDL_CONTAINER(c, tdl_stream, channel);
  if (TDL_UNLIKELY(c->counted.kind == &tdl_stream_kind) &&
      status == TDL_CHANNEL_DONE &&
      /* relaxed: the channel's guard comes between */
      atomic_load_explicit(&s->hungry, memory_order_relaxed)) {
    wake_keeper(b->loop, s);
  }
}

/* home; the first time that its code has come back to the loop (M2) */
static void look(const treadle_loop *loop, tdl_stream *s) {
  if (!is_asked(s)) {
    s->dropped = 1;
    tdl_channel_close(&s->channel);
    wake_keeper(loop, s);
  }
}

static void on_full(tdl_note *note, treadle_loop *at) {
  look(at, TDL_CONTAINER(note, tdl_stream, note));
}

/* The job's; made now if there is none. NULL without memory. */
static tdl_stream *need_stream(tdl_job *job, int *is_fresh) {
  tdl_stream *found = stream_of(tdl_job_stream(job)), *s;
  *is_fresh = 0;
  if (found != NULL) {
    return found;
  }
  s = tdl_alloc_aligned(TDL_LINE_BYTES, sizeof(*s));
  if (s == NULL) {
    return NULL;
  }
  tdl_channel_init(&s->channel, &tdl_stream_kind,
                   tdl_upcall_is_far(job) ? 0 : TDL_STREAM_BUFFER);
  s->job = job->pool->plan == NULL ? NULL : job;
  s->note.node.kind = TDL_NODE_NOTE;
  s->note.arrive = on_full;
  found = stream_of(tdl_job_set_stream(job, &s->channel.counted));
  *is_fresh = found == s;
  if (found != s) { /* the other side was first */
    tdl_counted_drop(&s->channel.counted);
  }
  return found;
}

void tdl_stream_let_go(const tdl_bind *b, tdl_counted *thing) {
  tdl_stream *s = stream_of(thing);
  if (is_asked(s)) {
    tdl_channel_close(&s->channel);
    wake_keeper(b->loop, s);
  }
}

/* --- from a process (M4) --------------------------------------------------- */

int tdl_bind_emitted(tdl_job *job, tdl_bytes *payload) {
  int is_fresh;
  tdl_stream *s = need_stream(job, &is_fresh);
  tdl_message *m = s == NULL ? NULL : tdl_message_new();
  if (m == NULL || s->emitted - s->given >= TDL_STREAM_BUFFER ||
      tdl_bytes_append(&m->bytes, payload->data, payload->len) != 0) {
    tdl_message_free(m);
    return 0;
  }
  payload->len = 0; /* what it refers to is the message's */
  m->is_doubted = !job->pool->trusts_code;
  s->emitted++;
  job->timed |= TDL_JOB_STREAMED;
  if (tdl_channel_send(&s->channel, &m, NULL) == TDL_CHANNEL_WAIT) {
    tdl_channel_put_back(&s->channel, m); /* what was put back has its room */
    m = NULL;
  }
  tdl_message_free(m);
  return 1;
}

void tdl_bind_starves(tdl_job *job) {
  int is_fresh;
  tdl_stream *s = need_stream(job, &is_fresh);
  if (s != NULL && !s->noted && !is_asked(s)) {
    s->noted = 1;
    tdl_loop_post(job->home, &s->note.node); /* M2 */
  }
}

uint32_t tdl_bind_credit(const tdl_job *job, int *is_closed) {
  tdl_stream *s = stream_of(tdl_job_stream(job));
  int32_t taken;
  *is_closed = 0;
  if (s == NULL) {
    return 0;
  }
  /* relaxed: the channel's guard comes next */
  atomic_store_explicit(&s->hungry, s->emitted - s->given == TDL_STREAM_BUFFER,
                        memory_order_relaxed);
  tdl_guard_lock(&s->channel.guard);
  *is_closed = s->channel.closed && !s->told_closed;
  taken = (int32_t)(s->emitted - s->given - s->channel.count);
  tdl_guard_unlock(&s->channel.guard);
  return taken >= TDL_STREAM_BUFFER / 4 ||
                 (taken > 0 && s->emitted - s->given == TDL_STREAM_BUFFER)
             ? (uint32_t)taken
             : 0;
}

void tdl_bind_gave_credit(const tdl_job *job, uint32_t count, int is_closed) {
  tdl_stream *s = stream_of(tdl_job_stream(job));
  s->given += count;
  s->told_closed |= is_closed;
}

/* --- the task's side ------------------------------------------------------ */

/* The job whose code runs, if somebody may want what it emits. */
static tdl_job *job_here(const tdl_bind *b) {
  if (b->vm != NULL) {
    const tdl_entry *e = tdl_vm_entry(b->vm, b->vm->current);
    return e != NULL && tdl_vm_given_up(b->vm, e) == NULL ? e->job : NULL;
  } else {
    tdl_job *job = tdl_bind_guest(b, b->loop->guest);
    return job != NULL && !tdl_job_is_settled(job) &&
                   tdl_pool_phase(job->pool) != TDL_POOL_STOPPED
               ? job
               : NULL;
  }
}

tdl_channel *tdl_stream_here(const tdl_bind *b, uint32_t *max_payload) {
  const tdl_job *job = job_here(b);
  tdl_stream *s = job == NULL ? NULL : stream_of(tdl_job_stream(job));
  if (TDL_UNLIKELY(s == NULL) || tdl_upcall_is_far(job)) {
    return NULL;
  }
  *max_payload = job->pool->max_payload;
  return &s->channel;
}

/* Whether the job was made by another one of its pool, or by a guest: its wait for
** room is one for that, and does not count (V3). */
static int is_own(const tdl_bind *b, const tdl_job *job) {
  if (tdl_upcall_is_far(job)) {
    return tdl_upcall_is_nested(job);
  }
  return b->vm != NULL ? job->home != job->pool->home
                       : tdl_job_parent(job) != 0;
}

/* Without a wait, in a process: as tdl_channels_send_written. */
static int send_up(tdl_bind *b, tdl_channels *d, lua_State *L,
                   const tdl_job *job, tdl_message *m) {
  tdl_counted **gift;
  int status;
  if (tdl_bind_gift(b, &m->bytes, &gift) != 0) {
    return luaL_error(L, "not enough memory");
  }
  tdl_channels_leave(d, m);
  status = tdl_upcall_emit(job, &m->bytes);
  tdl_bind_end_gift(b, gift, status == 0);
  tdl_channels_recycle(d, m);
  if (status == 0) {
    lua_pushboolean(L, 1);
    return 1;
  }
  lua_pushstring(L, tdl_status_text(status));
  lua_pushliteral(L, "payload");
  return 2;
}

/* stream_send(value) -> true; false: nobody wants it; text, "payload": it cannot
** be sent; nil, "none": no job runs here; or, if it waits, future, number for
** wait_take (as channel_send), whether the wait is one for a caller in the same
** pool, whether stream_look(future, number) is due at the next turn */
static int core_stream_send(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  tdl_channels *d = tdl_channels_of(L);
  tdl_job *job = job_here(b);
  tdl_stream *s;
  tdl_message *m;
  int is_fresh, may_emit, n;
  lua_settop(L, 1);
  tdl_channels_put_back_in(d); /* N2 */
  if (job == NULL) {
    lua_pushnil(L);
    lua_pushliteral(L, "none");
    return 2;
  }
  s = need_stream(job, &is_fresh);
  if (s == NULL) {
    return luaL_error(L, "not enough memory");
  }
  if (is_fresh) {
    job->timed |= TDL_JOB_STREAMED;
  } else if (tdl_channel_is_closed(&s->channel)) {
    lua_pushboolean(L, 0);
    return 1;
  }
  m = tdl_channels_write(d, L, 1, "value", job->pool->max_payload,
                         b->vm != NULL ? tdl_vm_target(b->vm, job)
                                       : tdl_bind_target(job->pool));
  if (m == NULL) {
    return 2;
  }
  /* what packs an object may have seen the end of the job */
  job = job_here(b);
  s = job == NULL ? NULL : stream_of(tdl_job_stream(job));
  if (s == NULL) {
    tdl_channels_leave(d, m);
    tdl_channels_recycle(d, m);
    lua_pushboolean(L, 0);
    return 1;
  }
  may_emit = tdl_upcall_is_far(job) ? tdl_upcall_may_emit(job) : 0;
  if (may_emit > 0) {
    return send_up(b, d, L, job, m);
  } else if (may_emit < 0) {
    tdl_channel_close(&s->channel);
  }
  n = tdl_channels_send_written(d, L, &s->channel, m, 1);
  if (n == 1) {
    return 1;
  }
  /* the wait holds the stream; a finalizer may have ended the job meanwhile */
  job = job_here(b);
  lua_pushboolean(L, job != NULL && is_own(b, job));
  lua_pushboolean(L, b->vm == NULL && !is_asked(s));
  if (b->vm != NULL && job != NULL && !tdl_upcall_is_far(job) && !s->noted &&
      !is_asked(s)) {
    s->noted = 1;
    tdl_loop_post(job->home, &s->note.node); /* M2 */
  }
  return 4;
}

/* stream_look(future, number): the guest's home has come back to its loop, and if
** that wait still waits, nobody has asked for the stream that is full (M2) */
static int core_stream_look(lua_State *L) {
  const tdl_bind *b = tdl_bind_of(L);
  lua_settop(L, 2);
  lua_rawgeti(L, LUA_REGISTRYINDEX, b->waits_ref);
  lua_pushvalue(L, 2);
  lua_rawget(L, 3);
  if (lua_istable(L, 4) && lua_rawequal(L, 4, 1)) {
    const tdl_bound_wait *w = lua_touserdata(L, 2);
    look(b->loop, stream_of(w->places[0].thing));
  }
  return 0;
}

void tdl_bind_credited(tdl_job *job, int is_unwanted) {
  tdl_stream *s = stream_of(tdl_job_stream(job));
  tdl_message *m = NULL;
  if (s == NULL) {
    return;
  } else if (is_unwanted) {
    tdl_channel_close(&s->channel);
    return;
  }
  /* who asks whether there is credit waits for it, if there is none */
  while (tdl_channel_is_offered(&s->channel) && tdl_upcall_may_emit(job) > 0 &&
         tdl_channel_recv(&s->channel, &m, NULL) == TDL_CHANNEL_DONE) {
    tdl_upcall_emit(job, &m->bytes);
    tdl_message_free(m);
    m = NULL;
  }
}

/* --- the caller's side ---------------------------------------------------- */

/* The job that the future at `index` stands for, while it is pending (B1). */
static tdl_job *job_of(const tdl_bind *b, lua_State *L, int index) {
  int slot, is_there = 0;
  luaL_checktype(L, index, LUA_TTABLE);
  lua_rawgeti(L, index, TDL_F_SLOT);
  slot = (int)lua_tointeger(L, -1);
  if (slot > 0) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, b->futures_ref);
    lua_rawgeti(L, -1, slot);
    is_there = lua_rawequal(L, -1, index);
    lua_pop(L, 2);
  }
  lua_pop(L, 1);
  return is_there ? tdl_jobs_at(&b->loop->jobs, (uint32_t)slot) : NULL;
}

/* stream_open(future) -> a handle on its job's stream; false: its values were
** dropped; nil: the future is settled */
static int core_stream_open(lua_State *L) {
  const tdl_bind *b = tdl_bind_of(L);
  tdl_job *job;
  tdl_stream *s;
  int is_fresh;
  lua_settop(L, 1);
  job = job_of(b, L, 1);
  if (job == NULL) {
    return 0;
  }
  if (job->pool->far != NULL) {
    return luaL_error(L,
                      "the stream of a call on its own pool is not to be had "
                      "in a worker with runtime = \"process\"");
  }
  s = need_stream(job, &is_fresh);
  if (s == NULL) {
    return luaL_error(L, "not enough memory");
  }
  job->extras |= TDL_JOB_HAS_STREAM;
  if (s->dropped) {
    lua_pushboolean(L, 0);
  } else {
    tdl_bind_push_fleeting(L, &s->channel.counted);
  }
  return 1;
}

/* home; its stream was asked for (`*is_read` is 1 then, or as it was), and nobody
** waits for a value now. */
int tdl_bind_is_stray(const tdl_job *job, int *is_read) {
  tdl_stream *s = stream_of(tdl_job_stream(job));
  if (s == NULL || !is_asked(s)) {
    return 0;
  }
  *is_read = 1;
  return !tdl_channel_is_awaited(&s->channel);
}

/* stream_ask(handle): from now on somebody wants the values; needs no memory */
static int core_stream_ask(lua_State *L) {
  tdl_stream *s = stream_of(tdl_bind_check_thing(L, 1, &tdl_stream_kind));
  /* relaxed: see is_asked */
  atomic_store_explicit(&s->asked, 1, memory_order_relaxed);
  return 0;
}

void tdl_bind_end_stream(const tdl_job *job) {
  tdl_stream *s = stream_of(tdl_job_stream(job));
  if (s != NULL) {
    s->job = NULL;
  }
  if (s != NULL && is_asked(s)) {
    tdl_channel_close(&s->channel);
  }
}

void tdl_bind_keep_stream(lua_State *L, int index, const tdl_job *job) {
  tdl_stream *s = stream_of(tdl_job_stream(job));
  int top = lua_gettop(L);
  if (s == NULL || is_asked(s)) {
    return;
  }
  luaL_checkstack(L, 4, NULL);
  if (s->dropped) {
    lua_pushboolean(L, 0);
  } else {
    tdl_bind_push_fleeting(L, &s->channel.counted);
  }
  lua_rawseti(L, index, TDL_F_STREAM);
  lua_settop(L, top);
}

void tdl_bind_streams(lua_State *L) {
  static const luaL_Reg functions[] = {{"stream_send", core_stream_send},
                                       {"stream_look", core_stream_look},
                                       {"stream_open", core_stream_open},
                                       {"stream_ask", core_stream_ask},
                                       {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
  tdl_bind_set_number(L, "STREAM_BUFFER", TDL_STREAM_BUFFER);
}
