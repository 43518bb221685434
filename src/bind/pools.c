/* Opening and closing pools. */
#include "bind.h"

#include "../base/alloc.h"
#include "../base/status.h"
#include "../codec/codec.h"
#include "../run/board.h"
#include "../run/keeper.h"
#include "../run/phase.h"
#include "../run/upcall.h"
#include "../run/watch.h"
#include "../run/worker.h"
#include "share.h"

#define HANDLE_NAME "treadle.pool.handle"

/* How long a state that is being closed lets accepted calls finish, and then
** waits for the threads. */
#define CLOSE_DRAIN_NS 200000000u
#define CLOSE_STOP_NS  300000000u

tdl_handle *tdl_bind_check_handle(lua_State *L, int index) {
  return ((tdl_box *)luaL_checkudata(L, index, HANDLE_NAME))->handle;
}

tdl_handle *tdl_bind_handle_at(lua_State *L, int index) {
  const tdl_box *box = luaL_testudata(L, index, HANDLE_NAME);
  return box == NULL ? NULL : box->handle;
}

tdl_stats *tdl_bind_check_stats(lua_State *L, int index) {
  return ((tdl_box *)luaL_checkudata(L, index, HANDLE_NAME))->stats;
}

void tdl_bind_record(tdl_handle *h, lua_State *L) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, h->bind->records_ref);
  lua_rawgeti(L, -1, h->number);
  lua_remove(L, -2);
}

/* Makes the value at `index` the handle's record. */
static void set_record(tdl_handle *h, lua_State *L, int index) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, h->bind->records_ref);
  lua_pushvalue(L, index);
  lua_rawseti(L, -2, h->number);
  lua_pop(L, 1);
}

/* Pushes a userdata with a new handle that has no pool yet. */
static tdl_handle *push_handle(lua_State *L) {
  tdl_box *box = lua_newuserdata(L, sizeof(*box));
  tdl_handle *h;
  box->handle = NULL;
  box->stats = NULL;
  luaL_setmetatable(L, HANDLE_NAME);
  h = tdl_calloc(sizeof(*h));
  if (h == NULL) {
    luaL_error(L, "not enough memory");
    return NULL;
  }
  h->bind = tdl_bind_of(L);
  tdl_bytes_init(&h->boot, NULL, 0);
  h->box = box;
  box->handle = h;
  return h;
}

static void set_pool(tdl_handle *h, treadle_pool *pool) {
  tdl_box *box = h->box;
  h->pool = pool;
  box->stats = pool->stats;
  tdl_stats_hold(pool->stats);
  box->at = &h->bind->boxes; /* B6 */
  box->next = *box->at;
  if (box->next != NULL) {
    box->next->at = &box->next;
  }
  *box->at = box;
}

static void drop_stats(tdl_box *box) {
  if (box->stats != NULL) {
    tdl_stats_drop(box->stats);
    box->stats = NULL;
    *box->at = box->next; /* B6 */
    if (box->next != NULL) {
      box->next->at = box->at;
    }
  }
}

static void free_handle(tdl_handle *h) {
  if (h->box != NULL) {
    h->box->handle = NULL;
  }
  tdl_payload_clear(&h->boot);
  tdl_bytes_reset(&h->boot, NULL, 0);
  tdl_free(h);
}

/* B5. Who has a record already was refused by another pool that lay there. */
static void keep_record(tdl_handle *h, lua_State *L) {
  const tdl_jobs *jobs = &h->bind->loop->jobs;
  int top = lua_gettop(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, h->bind->futures_ref);
  tdl_bind_record(h, L);
  for (tdl_job *job = tdl_jobs_next(jobs, NULL); job != NULL;
       job = tdl_jobs_next(jobs, job)) {
    lua_rawgeti(L, top + 1, (int)job->slot);
    if (job->pool == h->pool && lua_istable(L, -1)) {
      lua_rawgeti(L, -1, TDL_F_VALUE);
      lua_pushvalue(L, lua_isnil(L, -1) ? top + 2 : -1);
      lua_rawseti(L, top + 3, TDL_F_VALUE);
    }
    lua_settop(L, top + 2);
  }
  lua_settop(L, top);
}

/* The home's pool is over, or left to itself. */
static void release(tdl_handle *h, lua_State *L) {
  tdl_handle **at = &h->bind->pools;
  while (*at != h) {
    at = &(*at)->next;
  }
  *at = h->next;
  if (!h->bind->closing) {
    keep_record(h, L);
    lua_pushnil(L);
    set_record(h, L, lua_gettop(L));
    lua_pop(L, 1);
  }
  h->pool->event = NULL; /* it has been told, also within an event (L4) */
  tdl_pool_drop(h->pool);
  free_handle(h);
}

/* The end of a pool that its home did not stop: why, and if a state was lost
** (P11) the kind of that. */
static int push_end(const treadle_pool *pool, lua_State *L) {
  int died_of = tdl_pool_died_of(pool);
  lua_pushstring(L, tdl_pool_reason(pool));
  lua_pushstring(L, died_of == 0 ? NULL : tdl_status_kind(died_of));
  return 2;
}

/* hooks.pool_event(record, event, worker, report...) */
static void on_event(treadle_pool *pool, tdl_pool_event event, uint32_t worker,
                     const tdl_bytes *bytes, void *ctx) {
  static const char *const names[] = {
      "started", "failed", "cut_off", "renewed", "left",   "exited", "closed",
      "heard",   "room",   "calm",    "settled", "counts", "said"};
  tdl_handle *h = ctx;
  tdl_bind *b = h->bind;
  lua_State *L = b->L;
  int top, n = 0;
  if (b->closing) {
    return;
  }
  top = lua_gettop(L);
  luaL_checkstack(L, 12, "events");
  tdl_bind_hook(b, L, "pool_event");
  tdl_bind_record(h, L);
  lua_pushstring(L, names[event]);
  lua_pushinteger(L, (lua_Integer)worker);
  if (bytes != NULL && bytes->len > 0) {
    n = tdl_decode_flags(L, bytes->data, bytes->len,
                         pool->trusts_code ? 0 : TDL_DECODE_NO_CODE);
    n = n < 0 ? 1 : n;
  } else if (event == TDL_POOL_CLOSED) {
    n = push_end(pool, L);
  }
  lua_call(L, 3 + n, 0);
  if (event == TDL_POOL_CLOSED) { /* not before: the call may raise (L3) */
    release(h, L);
  }
  lua_settop(L, top);
}

/* The number at `key` of the table at index 2; 0 without. */
static double number_field(lua_State *L, const char *key) {
  double value;
  lua_getfield(L, 2, key);
  value = lua_tonumber(L, -1);
  lua_pop(L, 1);
  return value;
}

/* The list at `key` of the table at index 2 as `out`, ended by NULL, whose texts the
** table keeps; NULL: there is none. */
static const char *const *text_list(lua_State *L, const char *key) {
  const char **out = NULL;
  lua_getfield(L, 2, key);
  if (lua_istable(L, -1)) {
    size_t n = lua_objlen(L, -1);
    out =
        lua_newuserdata(L, (n + 1) * sizeof(*out)); /* on the stack from now */
    for (size_t i = 0; i < n; i++) {
      lua_rawgeti(L, -2, (int)i + 1);
      out[i] = lua_tostring(L, -1);
      lua_pop(L, 1);
    }
    out[n] = NULL;
  }
  return out;
}

/* Whether the shape says so. */
static int has_processes(lua_State *L) {
  int has;
  lua_getfield(L, 2, "processes");
  has = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return has;
}

/* What its processes are started with, if it has any. */
static tdl_keeper_plan *make_plan(lua_State *L) {
  tdl_keeper_plan *plan = NULL;
  char tried[512];
  int top = lua_gettop(L), status;
  if (has_processes(L)) {
    status = tdl_keeper_plan_new(text_list(L, "command"), tried, sizeof(tried),
                                 &plan);
    if (status == TREADLE_ESYSTEM) {
      luaL_error(L,
                 "option 'runtime': the treadle command, which runs such "
                 "workers, is not next to the library: looked for %s",
                 tried);
    } else if (status != 0) {
      luaL_error(L, "not enough memory");
    }
  }
  lua_settop(L, top);
  return plan;
}

/* pool_open(record, shape, boot...) -> handle. The record is kept until the pool
** is over, for the hooks. The shape has the fields read here: counts, bytes and
** seconds, checked by the caller. */
static int core_pool_open(lua_State *L) {
  tdl_pool_options o = {0};
  treadle_pool *pool;
  tdl_handle *h;
  int status, n = lua_gettop(L);
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_getfield(L, 2, "name");
  o.name = luaL_checkstring(L, -1); /* the table keeps it */
  lua_pop(L, 1);
  o.min_threads = (uint32_t)number_field(L, "min_threads");
  o.max_threads = (uint32_t)number_field(L, "max_threads");
  o.idle_ns = tdl_seconds_ns(number_field(L, "idle_timeout"));
  o.concurrency = (uint32_t)number_field(L, "concurrency");
  o.max_payload = (uint32_t)number_field(L, "max_payload");
  o.terminate_ns = tdl_seconds_ns(number_field(L, "terminate_timeout"));
  o.recycle_after = (uint64_t)number_field(L, "recycle_after");
  o.recycle_bytes = (uint64_t)number_field(L, "recycle_memory");
  o.cap_bytes = (uint64_t)number_field(L, "max_memory");
  o.debug = (uint32_t)number_field(L, "debug");
  lua_getfield(L, 2, "inline");
  o.helped = lua_toboolean(L, -1);
  lua_getfield(L, 2, "balanced");
  o.balanced = lua_toboolean(L, -1);
  lua_getfield(L, 2, "mortal");
  o.mortal = lua_toboolean(L, -1);
  lua_getfield(L, 2, "max_queue");
  o.max_queue =
      lua_isnil(L, -1) ? TDL_POOL_NO_LIMIT : (uint32_t)lua_tonumber(L, -1);
  lua_pop(L, 4);
  o.policy = tdl_bind_policy(L, 2);
  h = push_handle(L); /* holds what a memory error would leave behind */
  status =
      tdl_encode_to(L, 3, n - 2, "options", &h->boot, TDL_PAYLOAD_CEILING_BYTES,
                    has_processes(L) ? TDL_TO_PROCESS : TDL_TO_STATE);
  if (status != 0) {
    return lua_error(L);
  }
  h->number = ++h->bind->pool_count;
  set_record(h, L, 1);
  o.plan = make_plan(L);
  o.boot = &h->boot;
  o.event = on_event;
  o.ctx = h;
  status = tdl_pool_open(h->bind->loop, &o, &pool);
  if (status != 0) {
    lua_pushnil(L);
    set_record(h, L, lua_gettop(L));
    free_handle(h);
    return luaL_error(L,
                      tdl_pool_forked()
                          ? "a forked process cannot run a pool: only the "
                            "thread that forked is left in it"
                          : "cannot start the workers: %s",
                      tdl_status_text(status));
  }
  set_pool(h, pool);
  tdl_bind_sent(h->bind, &pool->boot);
  h->next = h->bind->pools;
  h->bind->pools = h;
  return 1;
}

/* own_pool() -> in a worker, a handle on the pool that it belongs to */
static int core_own_pool(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  tdl_handle *h;
  if (b->vm == NULL) {
    return 0;
  }
  h = push_handle(L);
  set_pool(h, b->vm->worker->pool); /* lives longer than this state */
  return 1;
}

/* pool_close(handle): take no more calls, end when all is done */
static int core_pool_close(lua_State *L) {
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  if (h != NULL && h->pool->far != NULL) {
    tdl_upcall_tell(h->pool->far, TDL_ASK_CLOSE, 0, NULL, 0);
  } else if (h != NULL) {
    tdl_pool_stop(h->pool, TDL_POOL_DRAINING);
  }
  return 0;
}

/* pool_told(handle) -> as push_end; nothing when the pool is over */
static int core_pool_told(lua_State *L) {
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  return h == NULL ? 0 : push_end(h->pool, L);
}

/* pool_terminate(handle [, reason]) -> how many calls it rejected */
static int core_pool_terminate(lua_State *L) {
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  uint32_t n = 0;
  if (h != NULL && h->number > 0) {
    h->bind->L = L;
    n = tdl_pool_terminate(h->pool);
  } else if (h != NULL) { /* a worker stops its own pool */
    const char *reason = luaL_optstring(L, 2, NULL);
    if (reason != NULL) {
      tdl_pool_set_reason(h->pool, reason);
    }
    if (h->pool->far != NULL) { /* and its process, now */
      tdl_upcall_tell(h->pool->far, TDL_ASK_TERMINATE, 0, reason,
                      reason == NULL ? 0 : strlen(reason));
    }
    tdl_pool_stop(h->pool, TDL_POOL_STOPPED);
    tdl_pool_force(h->pool, TDL_STOP_GRACE_NS);
  }
  lua_pushinteger(L, (lua_Integer)n);
  return 1;
}

/* pool_cancel_pending(handle, reason) -> how many calls it rejected */
static int core_pool_cancel_pending(lua_State *L) {
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  tdl_bytes report;
  uint32_t n = 0;
  luaL_checkstring(L, 2);
  if (h != NULL) {
    tdl_bytes_init(&report, NULL, 0);
    tdl_encode(L, 2, 1, "reason", &report, TDL_PAYLOAD_CEILING_BYTES);
    n = h->pool->far == NULL
            ? tdl_pool_cancel_pending(h->pool, &report)
            : (uint32_t)tdl_upcall_ask(h->pool->far, TDL_ASK_CANCEL_PENDING, 0,
                                       report.data, report.len);
    tdl_bytes_reset(&report, NULL, 0);
  }
  lua_pushinteger(L, (lua_Integer)n);
  return 1;
}

/* pool_abandon(handle): leaves threads that do not end to themselves */
static int core_pool_abandon(lua_State *L) {
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  if (h != NULL && h->number > 0) {
    tdl_pool_abandon(h->pool);
    release(h, L);
  }
  return 0;
}

/* pool_recycle(handle): every worker gets a fresh state */
static int core_pool_recycle(lua_State *L) {
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  if (h != NULL && h->pool->far != NULL) {
    tdl_upcall_tell(h->pool->far, TDL_ASK_RENEW, 0, NULL, 0);
  } else if (h != NULL) {
    tdl_pool_recycle(h->pool);
  }
  return 0;
}

/* pool_states(handle, slot) -> how many states have been booted there */
static int core_pool_states(lua_State *L) {
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  lua_Integer slot = luaL_checkinteger(L, 2);
  uint32_t n = 0;
  if (h != NULL && slot >= 1 && (uint32_t)slot <= tdl_pool_slots(h->pool)) {
    /* acquire: see boot */
    n = atomic_load_explicit(&h->pool->slots[slot - 1]->states,
                             memory_order_acquire);
  }
  lua_pushinteger(L, (lua_Integer)n);
  return 1;
}

/* pool_size(handle) -> how many workers it is to have now; nil: it is gone */
static int core_pool_size(lua_State *L) {
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  if (h == NULL || h->pool == NULL) {
    return 0;
  }
  lua_pushinteger(L, (lua_Integer)(h->pool->far == NULL
                                       ? tdl_size_now(h->pool)
                                       : tdl_upcall_size(h->pool->far)));
  return 1;
}

/* pool_resize(handle, min, max) */
static int core_pool_resize(lua_State *L) {
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  if (h != NULL) {
    uint32_t min = (uint32_t)luaL_checkinteger(L, 2);
    uint32_t max = (uint32_t)luaL_checkinteger(L, 3);
    int status = h->pool->far == NULL
                     ? tdl_size_set(h->pool, min, max)
                     : (int)tdl_upcall_ask(h->pool->far, TDL_ASK_RESIZE,
                                           (uint64_t)min << 32 | max, NULL, 0);
    if (status != 0) {
      return luaL_error(L, "cannot change the size of the pool: %s",
                        tdl_status_text(status));
    }
  }
  return 0;
}

/* pool_is_sized(handle) -> every worker it is to have serves, no other is left
*/
static int core_pool_is_sized(lua_State *L) {
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  lua_pushboolean(L, h == NULL || tdl_size_is_reached(h->pool));
  return 1;
}

/* pool_shows() -> whether somebody shows the pools of this process */
static int core_pool_shows(lua_State *L) {
  lua_pushboolean(L, tdl_board_is_open());
  return 1;
}

/* pool_listen(handle, whether): the home hears events of workers and jobs */
static int core_pool_listen(lua_State *L) {
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  if (h != NULL) {
    tdl_watch_set(h->pool, TDL_WATCH_EVENTS, lua_toboolean(L, 2));
  }
  return 0;
}

/* --- the end -------------------------------------------------------------- */

/* Raises the phase of all pools; waits until their threads have ended. */
static void stop_all(tdl_bind *b, enum tdl_pool_phase phase, uint64_t ns) {
  uint64_t end = tdl_now_ns() + ns, now;
  for (tdl_handle *h = b->pools; h != NULL; h = h->next) {
    tdl_pool_stop(h->pool, phase);
    if (phase == TDL_POOL_STOPPED) {
      tdl_pool_force(h->pool, TDL_STOP_GRACE_NS);
    }
  }
  tdl_loop_dispatch(b->loop); /* also what an error has left there (L3) */
  for (tdl_handle *h = b->pools; h != NULL; h = h->next) {
    while (tdl_pool_has_threads(h->pool) && (now = tdl_now_ns()) < end) {
      tdl_loop_wait(b->loop, end - now);
      tdl_loop_dispatch(b->loop);
    }
  }
}

void tdl_bind_close_pools(tdl_bind *b) {
  int forked = tdl_pool_forked();
  if (!forked) { /* closing: events no longer release handles */
    stop_all(b, TDL_POOL_DRAINING, CLOSE_DRAIN_NS);
    stop_all(b, TDL_POOL_STOPPED, CLOSE_STOP_NS);
  }
  while (b->pools != NULL) {
    tdl_handle *h = b->pools;
    if (!forked) {
      tdl_pool_abandon(h->pool);
      tdl_loop_dispatch(b->loop); /* its last notes */
    }
    release(h, b->L);
  }
}

void tdl_bind_lose_handles(tdl_bind *b) {
  while (b->boxes != NULL) {
    if (b->boxes->handle != NULL) { /* the worker's: its own pools are over */
      free_handle(b->boxes->handle);
    }
    drop_stats(b->boxes);
  }
}

/* The Lua side has forgotten the pool: it finishes what it accepted (B3). */
static int handle_gc(lua_State *L) {
  tdl_box *box = lua_touserdata(L, 1);
  tdl_handle *h = box->handle;
  drop_stats(box);
  box->handle = NULL; /* another finalizer may still have it */
  if (h != NULL) {
    h->box = NULL;
    if (h->number > 0 && h->pool != NULL) {
      tdl_pool_stop(h->pool, TDL_POOL_DRAINING);
    } else {
      free_handle(h); /* a worker's, or one that never got its pool */
    }
  }
  return 0;
}

/* pool_is_far(handle) -> whether it is a worker's, in a process of its own */
static int core_pool_is_far(lua_State *L) {
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  lua_pushboolean(L, h != NULL && h->pool->far != NULL);
  return 1;
}

void tdl_bind_pools(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"pool_open", core_pool_open},
      {"own_pool", core_own_pool},
      {"pool_close", core_pool_close},
      {"pool_terminate", core_pool_terminate},
      {"pool_told", core_pool_told},
      {"pool_cancel_pending", core_pool_cancel_pending},
      {"pool_abandon", core_pool_abandon},
      {"pool_recycle", core_pool_recycle},
      {"pool_states", core_pool_states},
      {"pool_listen", core_pool_listen},
      {"pool_shows", core_pool_shows},
      {"pool_size", core_pool_size},
      {"pool_resize", core_pool_resize},
      {"pool_is_sized", core_pool_is_sized},
      {"pool_is_far", core_pool_is_far},
      {NULL, NULL}};
  if (luaL_newmetatable(L, HANDLE_NAME)) {
    lua_pushcfunction(L, handle_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushliteral(L, HANDLE_NAME); /* nobody else calls that with others */
    lua_setfield(L, -2, "__metatable");
  }
  lua_pop(L, 1);
  luaL_setfuncs(L, functions, 0);
  tdl_bind_set_number(L, "CLOSE_DRAIN", CLOSE_DRAIN_NS / 1e9);
  tdl_bind_set_number(L, "CLOSE_STOP", CLOSE_STOP_NS / 1e9);
}
