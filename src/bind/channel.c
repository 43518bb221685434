/* treadle.channel's and treadle.select's functions of the Lua C API. What is plain
** goes by the FFI (channel_face.c) where it needs no longer wait; these can do
** all of it. */
#include "channels.h"

#include <string.h>

#include "../base/status.h"
#include "../codec/codec.h"
#include "streams.h"

/* --- by the Lua C API ----------------------------------------------------- */

tdl_channels *tdl_channels_of(lua_State *L) {
  tdl_channels *d = tdl_bind_of(L)->channels;
  if (d == NULL) {
    luaL_error(L, "treadle.channel is not loaded");
  }
  return d;
}

/* The same for what the face has refused (N2). */
static tdl_channels *state_for(lua_State *L) {
  tdl_channels *d = tdl_channels_of(L);
  tdl_channels_put_back_in(d);
  return d;
}

static tdl_channel *check_channel(lua_State *L, int index) {
  tdl_counted *stream = tdl_bind_find_thing(L, index, &tdl_stream_kind);
  if (stream != NULL) {
    return (tdl_channel *)stream;
  }
  return (tdl_channel *)tdl_bind_check_thing(L, index, &tdl_channel_kind);
}

/* The message that was opened last: pushes value, true; or a text, "payload". */
static int decode(lua_State *L) {
  const tdl_message *m = tdl_channels_open(tdl_channels_of(L));
  int n = tdl_decode_flags(L, m->bytes.data, m->bytes.len,
                           m->is_doubted ? TDL_DECODE_NO_CODE : 0);
  if (n == TREADLE_ENOMEM) {
    return lua_error(L);
  } else if (n < 0) {
    lua_pushliteral(L, "payload");
  } else {
    lua_pushboolean(L, 1);
  }
  return 2;
}

/* Pushes these two, and the message is gone. Where it fails with an error, which
** is pushed, the message is as before: a status of lua_pcall. */
static int open_message(tdl_channels *d, lua_State *L, tdl_message *m) {
  int status;
  tdl_channels_enter(d, m);
  tdl_channels_push_decode(d, L);
  status = lua_pcall(L, 0, 2, 0);
  tdl_channels_leave(d, m);
  if (status == 0) {
    tdl_channels_recycle(d, m);
  }
  return status;
}

/* The results of channel_recv, without a wait. */
static int push_received(tdl_channels *d, lua_State *L, tdl_channel *c,
                         tdl_channel_status status, tdl_message *m) {
  if (status == TDL_CHANNEL_DONE) {
    if (open_message(d, L, m) != 0) {
      tdl_channel_put_back(c, m);
      return lua_error(L);
    }
    return 2;
  }
  lua_pushnil(L);
  if (status == TDL_CHANNEL_CLOSED) {
    lua_pushboolean(L, 0);
  } else {
    lua_pushnil(L);
  }
  return 2;
}

tdl_message *tdl_channels_write(tdl_channels *d, lua_State *L, int index,
                                const char *what, uint32_t max_payload,
                                tdl_target target) {
  tdl_message *m = tdl_channels_take(d);
  int status;
  if (m == NULL) {
    luaL_error(L, "not enough memory");
    return NULL;
  }
  tdl_channels_enter(d, m);
  status = tdl_encode_to(L, index, 1, what, &m->bytes, max_payload, target);
  if (status == 0) {
    return m;
  }
  tdl_channels_leave(d, m);
  tdl_channels_recycle(d, m);
  if (status == TREADLE_ENOMEM) {
    lua_error(L);
  }
  lua_pushliteral(L, "payload");
  return NULL;
}

static tdl_message *write_message(tdl_channels *d, lua_State *L, int index) {
  return tdl_channels_write(d, L, index, "message", TDL_PAYLOAD_MAX_BYTES,
                            TDL_TO_STATE);
}

/* --- longer waits --------------------------------------------------------- */

static void leave(tdl_bound_wait *wait, uint32_t i) {
  tdl_waiter *waiter = &wait->places[i].waiter;
  tdl_channel_leave((tdl_channel *)wait->places[i].thing, waiter);
  tdl_message_free(waiter->offer); /* C2: nobody has it */
  waiter->offer = NULL;
}

/* What the wait has, as long as nobody takes it. */
static tdl_message *message_of(const tdl_wait *wait) {
  return wait->value == TDL_CHANNEL_SENT || wait->value == TDL_CHANNEL_REFUSED
             ? NULL
             : wait->value;
}

/* What the message in that place gives away is gone with it. */
static void give(tdl_bound_wait *wait, uint32_t i) {
  tdl_bind_end_gift(wait->bind, wait->places[i].gift, 1);
  wait->places[i].gift = NULL;
}

/* The wait may offer that message; 0 or TREADLE_ENOMEM. */
static int prepare(tdl_bound_wait *wait, uint32_t i, const tdl_message *m) {
  return tdl_bind_gift(wait->bind, &m->bytes, &wait->places[i].gift);
}

/* Pushes which case; a value and true; or nil and whether it was sent; or a text
** and "payload". */
static int deliver(tdl_bound_wait *wait, lua_State *L) {
  tdl_channels *d = tdl_channels_of(L);
  tdl_message *m = message_of(&wait->wait);
  tdl_channels_has_waited(d);
  lua_pushinteger(L, (lua_Integer)wait->wait.index + 1);
  if (m == NULL) {
    int sent = wait->wait.value == TDL_CHANNEL_SENT;
    if (sent) {
      give(wait, wait->wait.index);
    }
    lua_pushnil(L);
    lua_pushboolean(L, sent);
    return 3;
  }
  /* `open` has it alone: what reads it may be left, and the state be lost */
  wait->wait.value = NULL;
  if (open_message(d, L, m) != 0) {
    wait->wait.value = m;
    return lua_error(L);
  }
  return 3;
}

static void undo(tdl_bound_wait *wait) {
  tdl_message *m = message_of(&wait->wait);
  if (m != NULL) {
    tdl_channel_put_back((tdl_channel *)wait->places[wait->wait.index].thing,
                         m);
  } else if (wait->wait.value == TDL_CHANNEL_SENT) {
    give(wait, wait->wait.index);
  }
}

static const tdl_wait_kind wait_kind = {
    .leave = leave, .deliver = deliver, .undo = undo};

/* Pushes its future and its number. */
static tdl_bound_wait *new_wait(tdl_channels *d, lua_State *L,
                                tdl_counted *const *things, uint32_t count) {
  tdl_bound_wait *w =
      tdl_bind_new_wait(tdl_bind_of(L), L, &wait_kind, things, count);
  tdl_channels_waits(d);
  return w;
}

/* channel_recv(channel, waits) -> value, true; nil, false: it is closed; nil,
** nil: nothing is there; text, "payload": it cannot be opened here; or, if it
** waits, future, number for wait_take: index, then the same */
static int core_channel_recv(lua_State *L) {
  tdl_channels *d = state_for(L);
  tdl_channel *c = check_channel(L, 1);
  int waits = lua_toboolean(L, 2);
  tdl_message *m;
  tdl_channel_status status = tdl_channels_receive(d, c, &m, 0);
  if (status == TDL_CHANNEL_WAIT && waits) {
    tdl_counted *thing = &c->counted;
    tdl_bound_wait *w = new_wait(d, L, &thing, 1);
    status = tdl_channel_recv(c, &m, &w->places[0].waiter);
    tdl_stream_taken(tdl_bind_of(L), c, status);
    if (status == TDL_CHANNEL_WAIT) {
      return 2;
    }
    tdl_bind_drop_wait(w);
  }
  return push_received(d, L, c, status, m);
}

int tdl_channels_send_written(tdl_channels *d, lua_State *L, tdl_channel *c,
                              tdl_message *m, int waits) {
  tdl_channel_status status;
  tdl_counted **gift;
  if (tdl_bind_gift(tdl_bind_of(L), &m->bytes, &gift) != 0) {
    return luaL_error(L, "not enough memory");
  }
  tdl_channels_leave(d, m);
  status = tdl_channels_send(d, c, &m, 0);
  tdl_bind_end_gift(tdl_bind_of(L), gift, status == TDL_CHANNEL_DONE);
  if (status == TDL_CHANNEL_WAIT && waits) {
    tdl_counted *thing = &c->counted;
    tdl_bound_wait *w;
    tdl_channels_enter(d, m);
    w = new_wait(d, L, &thing, 1);
    if (prepare(w, 0, m) != 0) {
      tdl_bind_drop_wait(w);
      return luaL_error(L, "not enough memory");
    }
    tdl_channels_leave(d, m);
    status = tdl_channel_send(c, &m, &w->places[0].waiter);
    if (status == TDL_CHANNEL_WAIT) {
      return 2;
    } else if (status == TDL_CHANNEL_DONE) {
      give(w, 0);
    }
    tdl_bind_drop_wait(w);
  }
  if (m != NULL) {
    tdl_channels_recycle(d, m);
  }
  if (status == TDL_CHANNEL_WAIT) {
    lua_pushnil(L);
  } else {
    lua_pushboolean(L, status == TDL_CHANNEL_DONE);
  }
  return 1;
}

/* channel_send(channel, value, waits) -> true; false: it is closed; nil: there is
** no room; text, "payload": it cannot be sent; or, if it waits, future, number
** for wait_take: index, nil, whether it was sent */
static int core_channel_send(lua_State *L) {
  tdl_channels *d = state_for(L);
  tdl_channel *c = check_channel(L, 1);
  tdl_message *m;
  lua_settop(L, 3);
  m = write_message(d, L, 2);
  return m == NULL ? 2
                   : tdl_channels_send_written(d, L, c, m, lua_toboolean(L, 3));
}

/* The messages of the cases that send, as `open` ones. */
static void enter_all(tdl_channels *d, const tdl_channel_case *cases,
                      uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    if (cases[i].sends) {
      tdl_channels_enter(d, cases[i].message);
    }
  }
}

static void leave_all(tdl_channels *d, const tdl_channel_case *cases,
                      uint32_t n) {
  for (uint32_t i = n; i-- > 0;) {
    if (cases[i].sends) {
      tdl_channels_leave(d, cases[i].message);
    }
  }
}

/* Those that nobody has got. */
static void recycle_all(tdl_channels *d, const tdl_channel_case *cases,
                        uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    if (cases[i].sends && cases[i].message != NULL) {
      tdl_channels_recycle(d, cases[i].message);
    }
  }
}

/* What the cases that send would give away; 0 or TREADLE_ENOMEM. */
static int get_gifts(tdl_bind *b, const tdl_channel_case *cases,
                     tdl_counted **gifts[], uint32_t n) {
  int status = 0;
  for (uint32_t i = 0; i < n; i++) {
    gifts[i] = NULL;
    if (status == 0 && cases[i].sends) {
      status = tdl_bind_gift(b, &cases[i].message->bytes, &gifts[i]);
    }
  }
  return status;
}

/* Only case `sent` has been; n: none. */
static void end_gifts(tdl_bind *b, tdl_counted **gifts[], uint32_t n,
                      uint32_t sent) {
  for (uint32_t i = 0; i < n; i++) {
    tdl_bind_end_gift(b, gifts[i], i == sent);
  }
}

/* Reads case i of the list at 1; 0: pushes a text and "payload". */
static int read_case(tdl_channels *d, lua_State *L, tdl_channel_case *k,
                     uint32_t i) {
  lua_rawgeti(L, 1, (int)i + 1);
  luaL_checktype(L, -1, LUA_TTABLE);
  lua_rawgeti(L, -1, 1);
  k->channel = check_channel(L, lua_gettop(L));
  lua_rawgeti(L, -2, 2);
  k->sends = strcmp(luaL_checkstring(L, -1), "send") == 0;
  k->message = NULL;
  k->waiter = NULL;
  lua_rawgeti(L, -3, 3);
  if (k->sends) {
    k->message = write_message(d, L, lua_gettop(L));
    if (k->message == NULL) {
      return 0;
    }
  }
  lua_pop(L, 4);
  return 1;
}

/* channel_select(cases, waits) -> index and then as wait_take of channel_recv and
** channel_send; nil: none can go on; nil, text, "payload"; or, if it waits,
** future, number. The cases have been checked, and do not change meanwhile. */
static int core_channel_select(lua_State *L) {
  tdl_channels *d = state_for(L);
  uint32_t n = (uint32_t)lua_objlen(L, 1), chosen = 0;
  int waits = lua_toboolean(L, 2), top;
  tdl_channel_case *cases;
  tdl_counted **things, ***gifts;
  tdl_channel_status status;
  luaL_argcheck(L, n > 0 && n <= TDL_SELECT_MAX_CASES, 1, "number of cases");
  luaL_checkstack(L, 16, NULL);
  cases = lua_newuserdata(
      L, n * (sizeof(*cases) + sizeof(*things) + sizeof(*gifts)));
  things = (tdl_counted **)(void *)(cases + n);
  gifts = (tdl_counted ***)(void *)(things + n);
  top = lua_gettop(L);
  for (uint32_t i = 0; i < n; i++) {
    if (!read_case(d, L, &cases[i], i)) {
      leave_all(d, cases, i);
      recycle_all(d, cases, i);
      lua_pushnil(L);
      lua_insert(L, -3);
      return 3;
    }
  }
  if (get_gifts(tdl_bind_of(L), cases, gifts, n) != 0) {
    end_gifts(tdl_bind_of(L), gifts, n, n);
    return luaL_error(L, "not enough memory");
  }
  leave_all(d, cases, n);
  status = tdl_channel_select(cases, n, tdl_channels_random(d) % n, &chosen);
  end_gifts(tdl_bind_of(L), gifts, n, status == TDL_CHANNEL_DONE ? chosen : n);
  if (status == TDL_CHANNEL_WAIT && waits) {
    tdl_bound_wait *w;
    enter_all(d, cases, n);
    for (uint32_t i = 0; i < n; i++) {
      things[i] = &cases[i].channel->counted;
    }
    w = new_wait(d, L, things, n);
    for (uint32_t i = 0; i < n; i++) {
      if (cases[i].sends && prepare(w, i, cases[i].message) != 0) {
        tdl_bind_drop_wait(w);
        return luaL_error(L, "not enough memory");
      }
    }
    leave_all(d, cases, n);
    for (uint32_t i = 0; i < n; i++) {
      cases[i].waiter = &w->places[i].waiter;
    }
    status = tdl_channel_select(cases, n, tdl_channels_random(d) % n, &chosen);
    if (status == TDL_CHANNEL_WAIT) {
      return 2;
    } else if (status == TDL_CHANNEL_DONE) {
      give(w, chosen);
    }
    tdl_bind_drop_wait(w);
  }
  lua_settop(L, top);
  if (status == TDL_CHANNEL_WAIT) {
    recycle_all(d, cases, n);
    return 0;
  }
  lua_pushinteger(L, (lua_Integer)chosen + 1);
  if (cases[chosen].sends) {
    recycle_all(d, cases, n);
    lua_pushnil(L);
    lua_pushboolean(L, status == TDL_CHANNEL_DONE);
    return 3;
  }
  recycle_all(d, cases, n);
  if (status == TDL_CHANNEL_CLOSED) {
    lua_pushnil(L);
    lua_pushboolean(L, 0);
    return 3;
  }
  return 1 + push_received(d, L, cases[chosen].channel, status,
                           cases[chosen].message);
}

/* channel_open(channel, ticket) -> value, true; or text, "payload": of what the
** face has received; nil, nil: it was put back (N2) */
static int core_channel_open(lua_State *L) {
  tdl_channels *d = tdl_channels_of(L);
  tdl_channel *c = check_channel(L, 1);
  tdl_message *m = tdl_channels_take_in(d, (uint32_t)luaL_checknumber(L, 2));
  return push_received(d, L, c, m != NULL ? TDL_CHANNEL_DONE : TDL_CHANNEL_WAIT,
                       m);
}

/* channel_new(capacity) -> handle */
static int core_channel_new(lua_State *L) {
  double capacity = luaL_checknumber(L, 1);
  tdl_channel *c;
  if (tdl_channel_new(capacity >= UINT32_MAX ? UINT32_MAX : (uint32_t)capacity,
                      &c) != 0) {
    return luaL_error(L, "not enough memory");
  }
  tdl_bind_push_new(L, &c->counted);
  return 1;
}

static int core_channel_close(lua_State *L) {
  tdl_channel_close(check_channel(L, 1));
  return 0;
}

/* channel_face() -> table: what channel.lua needs. Once for a state. */
static int core_channel_face(lua_State *L) {
  tdl_bind *b = tdl_bind_of(L);
  if (b->channels == NULL) {
    b->channels = tdl_channels_new(b, L, decode);
  }
  lua_newtable(L);
  tdl_channels_face(b->channels, L);
  return 1;
}

void tdl_bind_channel(lua_State *L) {
  static const luaL_Reg functions[] = {{"channel_new", core_channel_new},
                                       {"channel_close", core_channel_close},
                                       {"channel_face", core_channel_face},
                                       {"channel_open", core_channel_open},
                                       {"channel_recv", core_channel_recv},
                                       {"channel_send", core_channel_send},
                                       {"channel_select", core_channel_select},
                                       {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
  lua_pushinteger(L, TDL_SELECT_MAX_CASES);
  lua_setfield(L, -2, "SELECT_MAX");
}
