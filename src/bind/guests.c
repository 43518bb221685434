/* Guests: the jobs that a host runs itself, for lua/treadle/inline.lua. */
#include "bind.h"

#include "../base/alloc.h"
#include "../base/status.h"
#include "../codec/codec.h"
#include "../run/guests.h"
#include "../share/hold.h"
#include "share.h"

uint32_t tdl_bind_new_guest(tdl_bind *b) {
  uint32_t i = b->free_guest;
  if (i == 0) {
    uint32_t first = b->guest_count == 0 ? 1 : b->guest_count;
    uint32_t count = first * 2 + 6;
    tdl_guest *guests = tdl_realloc(b->guests, count * sizeof(*guests));
    if (guests == NULL) {
      return 0;
    }
    b->guests = guests;
    b->guest_count = count;
    for (uint32_t k = count; k-- > first;) {
      tdl_bind_free_guest(b, k);
    }
    i = b->free_guest;
  }
  b->free_guest = b->guests[i].next_free;
  b->guests[i].serial = ++b->guest_serials;
  return i;
}

void tdl_bind_free_guest(tdl_bind *b, uint32_t guest) {
  b->guests[guest].job = NULL;
  b->guests[guest].waits = 0;
  b->guests[guest].next_free = b->free_guest;
  b->free_guest = guest;
}

tdl_job *tdl_bind_guest(const tdl_bind *b, uint32_t guest) {
  return guest > 0 && guest < b->guest_count ? b->guests[guest].job : NULL;
}

void tdl_bind_guest_calls(tdl_bind *b, tdl_job *job) {
  uint32_t guest = b->loop->guest;
  const tdl_job *maker = tdl_bind_guest(b, guest);
  if (maker != NULL) {
    tdl_job_set_parent(job, (uint32_t)b->guests[guest].serial);
    tdl_bind_inherit(job, maker);
  }
}

/* Whoever called may have ended with the pool. */
static int is_given_up(const tdl_job *job) {
  return tdl_job_is_settled(job) ||
         tdl_pool_phase(job->pool) == TDL_POOL_STOPPED;
}

static const char *reason_of(const tdl_job *job) {
  return tdl_job_is_settled(job) ? tdl_job_reason(job)
                                 : tdl_status_text(TREADLE_ECLOSED);
}

/* As V4 has it: a guest that is given up takes the calls along that it made. */
static int look_at_calls(tdl_bind *b, uint32_t guest) {
  const tdl_job *maker = b->guests[guest].job;
  const tdl_jobs *jobs = &b->loop->jobs;
  if (!is_given_up(maker)) {
    return 0;
  }
  for (tdl_job *job = tdl_jobs_next(jobs, NULL); job != NULL;
       job = tdl_jobs_next(jobs, job)) {
    if (tdl_job_parent(job) == (uint32_t)b->guests[guest].serial) {
      tdl_loop_cancel(job, reason_of(maker), tdl_job_is_forced(maker));
    }
  }
  return 1;
}

void tdl_bind_end_guest(tdl_bind *b, uint32_t guest, int status) {
  tdl_job *job = b->guests[guest].job;
  if (b->loop->holds != NULL) {
    tdl_holds_end(b->loop->holds, tdl_owner_of_job(b->guests[guest].serial));
  }
  look_at_calls(b, guest);
  job->pool->waiting_guests -= b->guests[guest].waits > 0;
  tdl_bind_free_guest(b, guest);
  tdl_guest_end(job, status);
}

/* guest_take(handle) -> a job of the pool's run queue, to be run here, or nil */
static int core_guest_take(lua_State *L) {
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  tdl_bind *b = tdl_bind_of(L);
  uint32_t guest;
  if (h == NULL || (guest = tdl_bind_new_guest(b)) == 0) {
    return 0;
  }
  b->guests[guest].job = tdl_guest_take(h->pool);
  if (b->guests[guest].job == NULL) {
    tdl_bind_free_guest(b, guest);
    return 0;
  }
  lua_pushinteger(L, (lua_Integer)guest);
  return 1;
}

/* The message on top is the error's report. */
static void fail_guest(tdl_bind *b, uint32_t guest, lua_State *L, int status) {
  tdl_job *job = b->guests[guest].job;
  tdl_payload_clear(&job->bytes);
  tdl_encode(L, lua_gettop(L), 1, "error", &job->bytes,
             TDL_PAYLOAD_CEILING_BYTES);
  tdl_bind_end_guest(b, guest, status);
}

/* guest_call(guest) -> the task's number, its arguments; nothing when the call
** is over: it came too late, or cannot be decoded */
static int core_guest_call(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  uint32_t guest = (uint32_t)luaL_checkinteger(L, 1);
  tdl_job *job = tdl_bind_guest(b, guest);
  int n;
  if (job == NULL) {
    return 0;
  }
  if ((job->timed & TDL_JOB_LIMITED) &&
      tdl_now_ns() >= job->deadline_ns) { /* it never runs */
    tdl_payload_clear(&job->bytes);
    tdl_bind_end_guest(b, guest, TREADLE_ETIMEOUT);
    return 0;
  }
  lua_pushinteger(L, (lua_Integer)tdl_job_task(job));
  /* whose caller may be one whose code is not to run here */
  n = tdl_decode_flags(
      L, job->bytes.data, job->bytes.len,
      job->home != b->loop && !job->pool->trusts_code ? TDL_DECODE_NO_CODE : 0);
  if (n < 0) {
    fail_guest(b, guest, L, n);
    return 0;
  }
  return n + 1;
}

/* --- what jobs.c has for workers ------------------------------------------- */

static tdl_job *check_guest(lua_State *L, tdl_bind *b) {
  tdl_job *job = tdl_bind_guest(b, (uint32_t)luaL_checkinteger(L, 1));
  if (job == NULL) {
    luaL_error(L, "no such job");
  }
  return job;
}

static int guest_entry(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)tdl_bind_of(L)->loop->guest);
  return 1;
}

static int guest_scope(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  uint32_t guest = b->loop->guest;
  if (tdl_bind_guest(b, guest) == NULL) {
    return 0;
  }
  lua_pushinteger(L, (lua_Integer)guest);
  lua_pushnumber(L, (lua_Number)b->guests[guest].serial);
  return 2;
}

static int guest_enter(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  uint32_t guest = (uint32_t)luaL_checkinteger(L, 1);
  if (lua_isnumber(L, 2) &&
      (tdl_bind_guest(b, guest) == NULL ||
       b->guests[guest].serial != (uint64_t)lua_tonumber(L, 2))) {
    guest = 0;
  }
  b->loop->guest = guest;
  return 0;
}

static int guest_stopped(lua_State *L) {
  const tdl_job *job = check_guest(L, tdl_bind_of(L));
  lua_pushboolean(L, tdl_pool_phase(job->pool) == TDL_POOL_STOPPED);
  return 1;
}

static int guest_calls(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  uint32_t guest = (uint32_t)luaL_checkinteger(L, 1);
  int calls = (int)luaL_checkinteger(L, 2);
  tdl_job *job = tdl_bind_guest(b, guest);
  uint32_t before, now;
  if (job != NULL) { /* else a coroutine that it left behind */
    before = b->guests[guest].waits;
    now = calls < 0 && before == 0 ? 0 : before + (uint32_t)calls;
    b->guests[guest].waits = now;
    job->pool->waiting_guests += (uint32_t)((now > 0) - (before > 0));
  }
  return 0;
}

static int guest_cancelled(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  uint32_t guest = (uint32_t)luaL_checkinteger(L, 1);
  lua_pushboolean(L,
                  tdl_bind_guest(b, guest) != NULL && look_at_calls(b, guest));
  return 1;
}

/* reason(guest) -> why, and its serial number; or nil */
static int guest_reason(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  uint32_t guest = (uint32_t)luaL_checkinteger(L, 1);
  const tdl_job *job = tdl_bind_guest(b, guest);
  if (job == NULL || !is_given_up(job)) {
    return 0;
  }
  lua_pushstring(L, reason_of(job));
  lua_pushnumber(L, (lua_Number)b->guests[guest].serial);
  return 2;
}

static int guest_finish(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  tdl_job *job = check_guest(L, b);
  uint32_t guest = (uint32_t)lua_tointeger(L, 1);
  int status;
  tdl_payload_clear(&job->bytes);
  status = tdl_encode_to(L, 2, lua_gettop(L) - 1, "results", &job->bytes,
                         job->pool->max_payload, tdl_bind_target(job->pool));
  if (status == 0) {
    tdl_bind_sent(b, &job->bytes);
    tdl_bind_end_guest(b, guest, 0);
  } else {
    fail_guest(b, guest, L, status);
  }
  return 0;
}

static int guest_fail(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  tdl_job *job = check_guest(L, b);
  int status = tdl_status_of_kind(luaL_checkstring(L, 2));
  tdl_payload_clear(&job->bytes);
  if (lua_gettop(L) > 2 &&
      tdl_encode_to(L, 3, lua_gettop(L) - 2, "error", &job->bytes,
                    job->pool->max_payload, tdl_bind_target(job->pool)) != 0) {
    return lua_error(L);
  }
  tdl_bind_sent(b, &job->bytes);
  tdl_bind_end_guest(b, (uint32_t)lua_tointeger(L, 1), status);
  return 0;
}

void tdl_bind_guests(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"guest_take", core_guest_take}, {"guest_call", core_guest_call},
      {"entry", guest_entry},          {"scope", guest_scope},
      {"enter", guest_enter},          {"stopped", guest_stopped},
      {"calls", guest_calls},          {"cancelled", guest_cancelled},
      {"reason", guest_reason},        {"job_finish", guest_finish},
      {"job_fail", guest_fail},        {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
