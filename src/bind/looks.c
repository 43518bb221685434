/* What the workers of a pool run now, as Lua tables. */
#include "bind.h"

#include "../run/look.h"
#include "../run/worker.h"

static void push_glance(lua_State *L, uint32_t worker, const tdl_glance *g,
                        uint64_t now) {
  lua_createtable(L, 0, 4);
  tdl_bind_set_number(L, "worker", worker);
  if (g->boots) {
    lua_pushboolean(L, 1);
    lua_setfield(L, -2, "boots");
  } else {
    tdl_bind_set_number(L, "task", g->task);
  }
  tdl_bind_set_number(
      L, "since", now > g->since_ns ? (double)(now - g->since_ns) / 1e9 : 0);
}

void tdl_bind_push_running(lua_State *L, const treadle_pool *pool) {
  uint32_t slots = pool == NULL ? 0 : tdl_pool_slots(pool);
  uint64_t now = tdl_now_ns();
  int n = 0;
  lua_newtable(L);
  for (uint32_t i = 0; i < slots; i++) {
    tdl_glance glance;
    if (tdl_look_glance(tdl_slot_worker(pool->slots[i]), &glance)) {
      push_glance(L, i + 1, &glance, now);
      lua_rawseti(L, -2, ++n);
    }
  }
}

/* pool_running(handle) -> a list of { worker, task, since }, by worker, for those
** that run a job's code now: the task's number, 0 for a shipped function, and
** for how many seconds; of one that loads its module { worker, boots, since }.
** Asks nobody: a few loads for each worker. */
static int core_pool_running(lua_State *L) {
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  tdl_bind_push_running(L, h == NULL ? NULL : h->pool);
  return 1;
}

void tdl_bind_looks(lua_State *L) {
  static const luaL_Reg functions[] = {{"pool_running", core_pool_running},
                                       {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
