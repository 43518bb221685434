/* The stamps of a build that has them, for spec/bench/where.lua. */
#include "bind.h"

#include "../base/stamp.h"

#ifdef TDL_STAMPS

/* Pushes a thread's stamps in one list: ticks, job, point, ticks, ... */
static void push_trace(lua_State *L, const tdl_trail *trace) {
  /* [stamp] acquire: the stamps that are counted */
  uint64_t end = atomic_load_explicit(&trace->count, memory_order_acquire);
  uint64_t first =
      end < TDL_STAMP_TRACE_COUNT ? 0 : end - TDL_STAMP_TRACE_COUNT;
  int n = 0;
  lua_createtable(L, (int)(end - first) * 3, 0);
  for (uint64_t i = first; i < end; i++) {
    const tdl_stamped *stamped = &trace->stamps[i % TDL_STAMP_TRACE_COUNT];
    lua_pushnumber(L, (double)stamped->ticks);
    lua_rawseti(L, -2, ++n);
    lua_pushnumber(L, (double)TDL_STAMP_JOB(stamped->what));
    lua_rawseti(L, -2, ++n);
    lua_pushnumber(L, TDL_STAMP_POINT(stamped->what));
    lua_rawseti(L, -2, ++n);
  }
}

/* Nanoseconds that a stamp takes, when nothing else wants the processor. */
static double stamp_cost(void) {
  double best = 1e9;
  for (int batch = 0; batch < 32; batch++) {
    uint64_t start = tdl_now_ns();
    for (int i = 0; i < 64; i++) {
      TDL_STAMP(NULL, NONE);
    }
    double each = (double)(tdl_now_ns() - start) / 64;
    best = each < best ? each : best;
  }
  return best;
}

/* stamps() -> { points = names by number, counts = "cycles" or "nanoseconds",
** ticks = , ns = the same moment, cost = ns of one stamp; a list of each
** thread's stamps }. Only while no call is under way: whoever stamps overwrites
** its oldest. */
static int core_stamps(lua_State *L) {
  static const char *const names[] = {
#define NAME(point, name) [TDL_STAMP_##point] = name,
      TDL_STAMP_POINTS(NAME)
#undef NAME
  };
  int n = 0;
  lua_newtable(L);
  lua_newtable(L);
  for (int i = TDL_STAMP_NONE + 1; i < TDL_STAMP_COUNT; i++) {
    lua_pushstring(L, names[i]);
    lua_rawseti(L, -2, i);
  }
  lua_setfield(L, -2, "points");
#if defined(__x86_64__)
  lua_pushliteral(L, "cycles");
#else
  lua_pushliteral(L, "nanoseconds");
#endif
  lua_setfield(L, -2, "counts");
  lua_pushnumber(L, (double)tdl_ticks());
  lua_setfield(L, -2, "ticks");
  lua_pushnumber(L, (double)tdl_now_ns());
  lua_setfield(L, -2, "ns");
  for (const tdl_trail *t = tdl_trails(); t != NULL; t = t->next) {
    push_trace(L, t);
    lua_rawseti(L, -2, ++n);
  }
  lua_pushnumber(L, stamp_cost()); /* leaves stamps, too */
  lua_setfield(L, -2, "cost");
  return 1;
}

void tdl_bind_stamps(lua_State *L) {
  lua_pushcfunction(L, core_stamps);
  lua_setfield(L, -2, "stamps");
}

#else

void tdl_bind_stamps(lua_State *L) {
  (void)L;
}

#endif
