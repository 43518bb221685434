/* What a worker tells the home of its pool, for lua/treadle/parent.lua. */
#include "bind.h"

#include "../codec/codec.h"
#include "../run/watch.h"
#include "../run/said.h"
#include "share.h"

/* is_heard() -> whether the home listens to anything of the pool's */
static int core_is_heard(lua_State *L) {
  const tdl_bind *b = tdl_bind_of(L);
  lua_pushboolean(L, b->vm != NULL &&
                         (tdl_watched(b->vm->worker->pool) & TDL_WATCH_EVENTS));
  return 1;
}

/* say(value, name): reaches the home as that event -> nothing; or a text and
** "payload" where the value cannot travel */
static int core_say(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  tdl_job *job; /* lends its bytes */
  tdl_counted **gift;
  int status;
  if (b->vm == NULL) {
    return luaL_error(L, "not in a worker");
  }
  lua_settop(L, 2);
  job = tdl_bind_take_job(b);
  if (job == NULL) {
    return luaL_error(L, "not enough memory");
  }
  status = tdl_encode(L, 1, 2, "message", &job->bytes,
                      b->vm->worker->pool->max_payload);
  if (status == 0) {
    status = tdl_bind_gift(b, &job->bytes, &gift);
  }
  if (status == 0) {
    status = tdl_said_post(b->vm->worker->pool, b->vm->worker->id, &job->bytes);
    tdl_bind_end_gift(b, gift, status == 0);
  }
  tdl_jobs_give(&b->loop->jobs, job);
  if (status == TREADLE_ENOMEM) {
    return luaL_error(L, "not enough memory");
  }
  lua_pushliteral(L, "payload");
  return status == 0 ? 0 : 2;
}

void tdl_bind_parent(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"is_heard", core_is_heard}, {"say", core_say}, {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
