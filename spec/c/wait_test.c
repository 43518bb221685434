/* Those who wait for something shared: who is granted it, and who is told, in
** which order. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/compiler.h"
#include "bind/share.h"
#include "check.h"
#include "share/atomics.h"
#include "share/barrier.h"
#include "share/channel.h"
#include "share/event.h"
#include "share/lock.h"

/* Seconds after which a child that hangs is ended. */
enum { WAITS = 4, CHILD_SECONDS = 20 };

int luaopen_treadle(lua_State *L);

typedef struct one {
  tdl_wait wait;
  tdl_waiter waiter;
} one;

static one ones[WAITS];
static const one *told[WAITS];
static uint32_t told_count;

/* Once it is told it may be gone: so it is made useless. */
static void tell(tdl_wait *wait) {
  one *o = TDL_CONTAINER(wait, one, wait);
  told[told_count++] = o;
  memset(&o->waiter, 0xff, sizeof(o->waiter));
}

static void start(void) {
  memset(ones, 0, sizeof(ones));
  told_count = 0;
  for (int i = 0; i < WAITS; i++) {
    ones[i].wait.tell = tell;
    ones[i].waiter.wait = &ones[i].wait;
  }
}

/* All but the one that gave up, in the order in which they came. */
static int are_told_in_order(uint32_t gone) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < WAITS; i++) {
    if (i != gone && told[n++] != &ones[i]) {
      return 0;
    }
  }
  return n == told_count;
}

static void an_event_tells_all_who_wait_in_their_order(void) {
  tdl_event *e;
  start();
  CHECK(tdl_event_new(&e) == 0);
  for (int i = 0; i < WAITS; i++) {
    CHECK(!tdl_event_wait(e, &ones[i].waiter));
  }
  CHECK(tdl_wait_give_up(&ones[1].wait));
  tdl_event_set(e);
  CHECK(are_told_in_order(1));
  tdl_event_leave(e, &ones[1].waiter);
  tdl_event_set(e);
  CHECK(told_count == WAITS - 1);
  tdl_counted_drop(&e->counted);
}

static void a_barrier_tells_and_numbers_all_in_their_order(void) {
  tdl_barrier *b;
  start();
  CHECK(tdl_barrier_new(WAITS + 1, &b) == 0);
  for (int i = 0; i < WAITS; i++) {
    CHECK(tdl_barrier_wait(b, &ones[i].waiter) == 0);
  }
  CHECK(told_count == 0);
  CHECK(tdl_barrier_wait(b, NULL) == WAITS + 1);
  CHECK(are_told_in_order(WAITS));
  for (uint32_t i = 0; i < WAITS; i++) {
    CHECK((uintptr_t)ones[i].wait.value == i + 1);
  }
  tdl_counted_drop(&b->counted);
}

static void a_channel_that_closes_tells_receivers_in_their_order(void) {
  tdl_channel *c;
  tdl_message *none = NULL;
  start();
  CHECK(tdl_channel_new(0, &c) == 0);
  for (int i = 0; i < WAITS; i++) {
    CHECK(tdl_channel_recv(c, &none, &ones[i].waiter) == TDL_CHANNEL_WAIT);
  }
  tdl_channel_close(c);
  CHECK(are_told_in_order(WAITS));
  tdl_counted_drop(&c->counted);
}

static void a_channel_that_closes_tells_senders_in_their_order(void) {
  tdl_channel *c;
  tdl_message *messages[WAITS];
  start();
  CHECK(tdl_channel_new(0, &c) == 0);
  for (int i = 0; i < WAITS; i++) {
    tdl_message *m = tdl_message_new();
    CHECK(m != NULL);
    messages[i] = m;
    CHECK(tdl_channel_send(c, &m, &ones[i].waiter) == TDL_CHANNEL_WAIT);
  }
  tdl_channel_close(c);
  CHECK(are_told_in_order(WAITS));
  for (int i = 0; i < WAITS; i++) {
    CHECK(ones[i].wait.value == TDL_CHANNEL_REFUSED);
    tdl_message_free(messages[i]);
  }
  tdl_counted_drop(&c->counted);
}

static void a_notify_tells_as_many_as_it_says_in_their_order(void) {
  int32_t cells[2] = {7, 7};
  start();
  for (int i = 0; i < WAITS; i++) {
    CHECK(!tdl_atomics_wait(&cells[0], 4, 7, &ones[i].waiter));
  }
  CHECK(tdl_atomics_wait(&cells[0], 4, 8, NULL));
  CHECK(tdl_atomics_notify(&cells[1], WAITS) == 0);
  CHECK(tdl_atomics_notify(&cells[0], 1) == 1);
  CHECK(told_count == 1 && told[0] == &ones[0]);
  CHECK(tdl_atomics_notify(&cells[0], WAITS) == WAITS - 1);
  CHECK(are_told_in_order(WAITS));
}

/* A select's: in two lists, of which the first grants it. */
static void who_was_granted_elsewhere_is_passed_over(void) {
  tdl_waiters list = {NULL, NULL};
  tdl_waiter other;
  start();
  memset(&other, 0, sizeof(other));
  other.wait = &ones[0].wait;
  tdl_waiters_add(&list, &other);
  tdl_waiters_add(&list, &ones[1].waiter);
  CHECK(tdl_waiter_grant(&ones[0].waiter, &list));
  CHECK(!tdl_wait_give_up(&ones[0].wait));
  CHECK(tdl_waiters_grant(&list, NULL) == &ones[1].waiter);
  CHECK(tdl_waiters_grant(&list, NULL) == NULL);
  CHECK(list.first == NULL && list.last == NULL && other.list == NULL);
  CHECK(ones[0].wait.value == &list && told_count == 0);
}

/* A state that waits for an event and holds a lock. */
static lua_State *new_waiter(tdl_event **event, tdl_lock **lock) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  lua_pushcfunction(L, luaopen_treadle);
  lua_pushliteral(L, "treadle");
  lua_call(L, 1, 1);
  lua_setglobal(L, "treadle");
  if (luaL_dostring(L, "treadle.pool('string', { threads = 1 }):close() "
                       "event, mutex = treadle.event(), treadle.mutex() "
                       "treadle.spawn(event.wait, event) mutex:lock()") != 0) {
    printf("# %s\n", lua_tostring(L, -1));
  }
  lua_getglobal(L, "event");
  lua_getglobal(L, "mutex");
  *event = (tdl_event *)((tdl_ref *)lua_touserdata(L, -2))->thing;
  *lock = (tdl_lock *)((tdl_ref *)lua_touserdata(L, -1))->thing;
  return L;
}

/* The guards are held as by other threads, which the child has not. */
static void a_forked_state_ends_though_others_held_what_it_waits_for(void) {
  tdl_event *event;
  tdl_lock *lock;
  lua_State *L = new_waiter(&event, &lock);
  int status = 0;
  pid_t child;
  tdl_guard_lock(&event->guard);
  tdl_guard_lock(&lock->guard);
  child = fork();
  if (child == 0) {
    alarm(CHILD_SECONDS);
    lua_close(L);
    kill(getpid(), SIGKILL); /* it leaks what it waited for: nobody counts */
  }
  tdl_guard_unlock(&event->guard);
  tdl_guard_unlock(&lock->guard);
  lua_close(L);
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

int main(void) {
  RUN(an_event_tells_all_who_wait_in_their_order);
  RUN(a_barrier_tells_and_numbers_all_in_their_order);
  RUN(a_channel_that_closes_tells_receivers_in_their_order);
  RUN(a_channel_that_closes_tells_senders_in_their_order);
  RUN(a_notify_tells_as_many_as_it_says_in_their_order);
  RUN(who_was_granted_elsewhere_is_passed_over);
  RUN(a_forked_state_ends_though_others_held_what_it_waits_for);
  return check_any_failed;
}
