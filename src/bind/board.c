/* What the views of pools need of C: the terminal, and the pools of others. */
#include "../run/board.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "../run/sight.h"
#include "bind.h"

/* pool_show(handle, name, told): onto the board, for who asks board_read */
static int core_pool_show(lua_State *L) {
  tdl_handle *h = tdl_bind_check_handle(L, 1);
  size_t name_size, told_size;
  const char *name = luaL_checklstring(L, 2, &name_size);
  const char *told = luaL_checklstring(L, 3, &told_size);
  if (h != NULL) { /* without memory it is not shown */
    tdl_board_show(h->pool, name, name_size, told, told_size);
  }
  return 0;
}

static void push_shown(lua_State *L, const tdl_shown *s) {
  static const char *const states[] = {"open", "closing", "closing"};
  lua_createtable(L, 0, 7);
  tdl_bind_set_number(L, "number", s->number);
  lua_pushlstring(L, s->text, s->name_size);
  lua_setfield(L, -2, "name");
  lua_pushlstring(L, s->text + s->name_size, s->size - s->name_size);
  lua_setfield(L, -2, "told");
  lua_pushstring(L,
                 s->pool == NULL ? "closed" : states[tdl_pool_phase(s->pool)]);
  lua_setfield(L, -2, "state");
  tdl_bind_set_number(L, "threads",
                      s->pool == NULL ? 0 : tdl_size_now(s->pool));
  tdl_bind_push_running(L, s->pool);
  lua_setfield(L, -2, "running");
  if (s->pool != NULL) {
    tdl_sight_tally(s->pool);
  }
  tdl_bind_push_stats(L, s->stats);
  lua_setfield(L, -2, "stats");
}

/* board_read(keep) -> list of { number, name, told, state, threads, running,
** stats }, the newest first; of those that are closed only so many are kept */
static int core_board_read(lua_State *L) {
  lua_Integer keep = luaL_checkinteger(L, 1);
  tdl_shown *next;
  int n = 0;
  lua_newtable(L);
  for (tdl_shown *s = tdl_board_first(); s != NULL; s = next) {
    next = s->next;
    tdl_board_look(s);
    if (s->pool == NULL && keep-- <= 0) {
      tdl_board_forget(s);
    } else {
      push_shown(L, s);
      lua_rawseti(L, -2, ++n);
    }
  }
  return 1;
}

/* terminal(fd) -> columns, rows (0: unknown); nothing when it is none */
static int core_terminal(lua_State *L) {
  int fd = (int)luaL_checkinteger(L, 1);
  struct winsize size;
  memset(&size, 0, sizeof(size));
  if (!isatty(fd)) {
    return 0;
  }
  ioctl(fd, TIOCGWINSZ, &size);
  lua_pushinteger(L, size.ws_col);
  lua_pushinteger(L, size.ws_row);
  return 2;
}

void tdl_bind_board(lua_State *L) {
  static const luaL_Reg functions[] = {{"pool_show", core_pool_show},
                                       {"board_read", core_board_read},
                                       {"terminal", core_terminal},
                                       {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
