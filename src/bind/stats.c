/* What a pool has counted and timed, as Lua tables. */
#include "../run/sight.h"
#include "bind.h"

static void set_count(lua_State *L, const char *name, uint64_t value) {
  tdl_bind_set_number(L, name, (double)value);
}

static void set_seconds(lua_State *L, const char *name, uint64_t ns) {
  tdl_bind_set_number(L, name, (double)ns / 1e9);
}

static void set_times(lua_State *L, const char *name,
                      const tdl_histogram_copy *times) {
  lua_createtable(L, 0, 5);
  set_seconds(L, "p50", tdl_histogram_percentile(times, 0.5));
  set_seconds(L, "p90", tdl_histogram_percentile(times, 0.9));
  set_seconds(L, "p99", tdl_histogram_percentile(times, 0.99));
  set_seconds(L, "max", times->max);
  tdl_bind_set_number(L, "mean", tdl_histogram_mean(times) / 1e9);
  lua_setfield(L, -2, name);
}

static void push_task(lua_State *L, const tdl_stats *stats, uint32_t number) {
  tdl_stats_task task;
  tdl_stats_read_task(stats, number, &task);
  lua_createtable(L, 0, 4);
  set_count(L, "runs", task.runs);
  set_count(L, "failures", task.failures);
  set_times(L, "run", &task.run);
  set_times(L, "wait", &task.wait);
}

static void push_worker(lua_State *L, const tdl_stats *stats, uint32_t id) {
  tdl_stats_worker w;
  tdl_stats_read_worker(stats, id, &w);
  lua_createtable(L, 0, 6);
  set_count(L, "id", id);
  set_count(L, "jobs", w.jobs);
  set_seconds(L, "busy", w.busy_ns);
  set_count(L, "heap", w.heap_bytes);
  set_seconds(L, "cpu", w.cpu_ns);
  tdl_bind_set_number(L, "utilisation", tdl_stats_share(w.busy_ns, w.alive_ns));
}

/* The table of pool:stats(), but for the tasks: those are by number. */
void tdl_bind_push_stats(lua_State *L, const tdl_stats *stats) {
  uint32_t tasks = tdl_stats_task_count(stats);
  uint32_t workers = tdl_stats_workers(stats);
  tdl_stats_counts c;
  tdl_stats_read(stats, &c);
  lua_createtable(L, 0, 12);
  set_count(L, "submitted", c.submitted);
  set_count(L, "queued", c.queued);
  set_count(L, "running", c.running);
  set_count(L, "done", c.done);
  set_count(L, "failed", c.failed);
  set_count(L, "cancelled", c.cancelled);
  set_seconds(L, "uptime", c.uptime_ns);
  tdl_bind_set_number(L, "utilisation", tdl_stats_share(c.busy_ns, c.alive_ns));
  set_count(L, "written_off", c.written_off);
  set_count(L, "restarts", c.restarts);
  lua_createtable(L, (int)tasks, 1);
  for (uint32_t i = 0; i < tasks; i++) {
    push_task(L, stats, i);
    lua_rawseti(L, -2, (int)i);
  }
  lua_setfield(L, -2, "tasks");
  lua_createtable(L, (int)workers, 0);
  for (uint32_t id = 1; id <= workers; id++) {
    push_worker(L, stats, id);
    lua_rawseti(L, -2, (int)id);
  }
  lua_setfield(L, -2, "workers");
}

/* pool_stats(handle) -> that table */
static int core_pool_stats(lua_State *L) {
  tdl_stats *stats = tdl_bind_check_stats(L, 1);
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  if (h != NULL) {
    tdl_sight_tally(h->pool);
  }
  tdl_bind_push_stats(L, stats);
  return 1;
}

/* pool_counts(handle) -> how many calls were submitted, how many of them are
** queued or running */
static int core_pool_counts(lua_State *L) {
  tdl_stats_counts c;
  tdl_stats_read(tdl_bind_check_stats(L, 1), &c);
  lua_pushnumber(L, (lua_Number)c.submitted);
  lua_pushnumber(L, (lua_Number)(c.queued + c.running));
  return 2;
}

void tdl_bind_stats(lua_State *L) {
  static const luaL_Reg functions[] = {{"pool_stats", core_pool_stats},
                                       {"pool_counts", core_pool_counts},
                                       {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
