/* handoff_host: a host of the hand-off's stress test: a thread with a loop or a
** Lua state, and a pool. It makes calls until it has made `jobs` of them, and
** checks the answers; `fault` is the first that was wrong.
** Threads: a host is its thread's until that is joined.
** Owns:    its loop, its pools, its calls.
** Fails:   sets `failed` and `fault`. */
#ifndef TDL_SPEC_HANDOFF_HOST_H
#define TDL_SPEC_HANDOFF_HOST_H

#include "treadle.h"

#include <errno.h>
#include <lauxlib.h>
#include <lualib.h>
#include <poll.h>
#include <sched.h>
#include <string.h>

#include "base/compiler.h"
#include "watchdog.h"

#define MAX_BURST   5000
#define MAX_OUT     16384 /* calls of one host that are under way */
#define MAX_PAYLOAD 600
#define TASK_PATH   "spec/stress/?.lua"

int luaopen_treadle(lua_State *L); /* bind/core.c */

/* --- meetings ------------------------------------------------------------- */

typedef struct meeting {
  pthread_mutex_t lock;
  pthread_cond_t complete;
  unsigned missing; /* guarded by the lock */
} meeting;

TREADLE_API void stress_meet(meeting *m);

/* a worker; called by the task. */
void stress_meet(meeting *m) {
  pthread_mutex_lock(&m->lock);
  if (--m->missing == 0) {
    pthread_cond_broadcast(&m->complete);
  }
  while (m->missing > 0) {
    pthread_cond_wait(&m->complete, &m->lock);
  }
  pthread_mutex_unlock(&m->lock);
}

/* --- hosts ---------------------------------------------------------------- */

typedef struct record {
  struct host *host;
  struct record *next; /* free ones */
  treadle_call *call;
  uint64_t number;
  int task;
  int open;      /* under way */
  int may_late;  /* a deadline that it may miss */
  int cancelled; /* by us */
  int nested;    /* calls that it makes */
  int again;     /* calls that its callback makes, one after the other */
} record;

enum { TASK_ECHO, TASK_NAP, TASK_FAIL, TASK_NEST, TASK_SHUT, TASK_MEET, TASKS };
static const char *const task_names[TASKS] = {"echo", "nap",  "fail",
                                              "nest", "shut", "meet"};

typedef struct host {
  pthread_t thread;
  uint64_t random;
  uint64_t jobs; /* to make */
  unsigned workers;
  int is_lua;
  watchdog_state *state;
  treadle_loop *loop;
  treadle_pool *pool;
  int tasks[TASKS];
  meeting meeting;
  uint64_t made, nested, number;
  uint32_t out;
  int may_close; /* the pool's end is near: calls may be refused */
  int closing;   /* it takes no more calls */
  int failed;
  char fault[400];
  record *free;
  record records[MAX_OUT];
} host;

static uint64_t draw(host *h) {
  uint64_t x = h->random; /* xorshift64* */
  x ^= x >> 12;
  x ^= x << 25;
  x ^= x >> 27;
  h->random = x;
  return x * 0x2545f4914f6cdd1du >> 16;
}

/* 0 to n - 1 */
static uint32_t below(host *h, uint32_t n) {
  return (uint32_t)(draw(h) % n);
}

static int percent(host *h, uint32_t n) {
  return below(h, 100) < n;
}

static void fault(host *h, const record *r, const char *what, int status) {
  if (!h->failed) {
    h->failed = 1;
    snprintf(h->fault, sizeof(h->fault), "call %llu (%s): %s (%s)",
             (unsigned long long)r->number, task_names[r->task], what,
             status == 0 ? "results" : treadle_status_text(status));
  }
}

/* --- calls ---------------------------------------------------------------- */

/* Most fit into the job record, some do not; all bytes follow from the
** number. */
static size_t fill_payload(uint64_t number, char *out) {
  uint64_t x = (number + 1) * 0x9e3779b97f4a7c15u;
  size_t n = (x >> 32) % ((x >> 60) == 0 ? MAX_PAYLOAD : 100);
  for (size_t i = 0; i < n; i++) {
    out[i] = (char)(x >> (i % 8 * 8));
  }
  return n;
}

static int is_echo(const record *r, treadle_values *values) {
  treadle_value number = {0}, text = {0}, count = {0};
  char payload[MAX_PAYLOAD];
  size_t n = fill_payload(r->number, payload);
  return treadle_get(values, &number) == 0 && treadle_get(values, &text) == 0 &&
         number.type == TREADLE_NUMBER && number.number == (double)r->number &&
         text.type == TREADLE_STRING && text.length == n &&
         memcmp(text.string, payload, n) == 0 &&
         (r->task != TASK_NEST || (treadle_get(values, &count) == 0 &&
                                   count.number == (double)r->nested));
}

static void check_error(record *r, treadle_values *values) {
  treadle_value text = {0};
  char expected[40], got[300] = "?";
  if (treadle_get(values, &text) == 0 && text.type == TREADLE_STRING) {
    snprintf(got, sizeof(got), "%.*s", (int)text.length, text.string);
  }
  snprintf(expected, sizeof(expected), "failed %llu",
           (unsigned long long)r->number);
  if (!(r->task == TASK_FAIL && strcmp(got, expected) == 0) &&
      !(r->host->may_close && strstr(got, "closed") != NULL)) {
    fault(r->host, r, got, TREADLE_ETASK);
  }
}

static record *submit(host *h, int task, double extra, const char *text,
                      double timeout);

static void answer(int status, treadle_values *values, void *ctx) {
  record *r = ctx;
  host *h = r->host;
  int again;
  if (!r->open) {
    fault(h, r, "answered twice", status);
    return;
  }
  r->open = 0;
  if (status == 0 && !is_echo(r, values)) {
    fault(h, r, "another call's answer", status);
  } else if (status == TREADLE_ETASK) {
    check_error(r, values);
  } else if (status != 0 && !(status == TREADLE_ETIMEOUT && r->may_late) &&
             !(status == TREADLE_ECANCELLED && r->cancelled) &&
             !(status == TREADLE_ECLOSED && h->may_close)) {
    fault(h, r, "unexpected end", status);
  }
  if (status == 0) {
    h->nested += (uint64_t)r->nested;
  }
  again = r->again;
  r->next = h->free;
  h->free = r;
  h->out--;
  h->state->answers++;
  watchdog_progress(1);
  if (again > 0 && !h->may_close && !h->closing) {
    submit(h, TASK_ECHO, 0, NULL, -1)->again = again - 1;
    h->made--; /* it was counted beforehand, so that the plan is the seed's */
  }
}

/* `extra`: the task's fourth argument, a text if there is one. */
static record *submit(host *h, int task, double extra, const char *text,
                      double timeout) {
  record *r = h->free;
  char payload[MAX_PAYLOAD];
  size_t n;
  int status;
  h->free = r->next;
  r->number = ++h->number;
  r->task = task;
  r->nested = task == TASK_NEST ? (int)extra : 0;
  r->may_late = timeout >= 0 && timeout < 100;
  r->cancelled = 0;
  r->again = 0;
  r->open = 1;
  n = fill_payload(r->number, payload);
  status = treadle_call_new(h->pool, h->tasks[task], 4, &r->call);
  if (status != 0) {
    fault(h, r, "no call", status);
    return r;
  }
  treadle_put_number(treadle_arguments(r->call), 0); /* the caller */
  treadle_put_number(treadle_arguments(r->call), (double)r->number);
  treadle_put_string(treadle_arguments(r->call), payload, n);
  if (text != NULL) {
    treadle_put_string(treadle_arguments(r->call), text, strlen(text));
  } else {
    treadle_put_number(treadle_arguments(r->call), extra);
  }
  h->out++;
  h->made++;
  h->state->calls++;
  status = treadle_submit(r->call, timeout, answer, r);
  if (status != 0) {
    fault(h, r, "not submitted", status);
  }
  return r;
}

static int is_open(const record *r, uint64_t number) {
  return r->open && r->number == number; /* else it serves another call */
}

static void cancel(host *h, record *r) {
  uint64_t number = r->number;
  int won;
  r->cancelled = 1;
  won = treadle_cancel(r->call) == 0;
  if (won == is_open(r, number)) {
    fault(h, r, "cancelled and not answered, or the reverse", 0);
  }
}

static record *one_of_all_kinds(host *h) {
  uint32_t kind = below(h, 1000);
  double timeout = -1;
  record *r;
  if (percent(h, 7)) {
    timeout = percent(h, 70) ? 1000 : below(h, 2000) * 1e-6;
  }
  if (kind < 3) {
    r = submit(h, TASK_NAP, 0.001 * below(h, 2), NULL, timeout);
  } else if (kind < 6) { /* its wait ends when nobody waits for it */
    r = submit(h, TASK_NAP, 3600, NULL, below(h, 2000) * 1e-6);
  } else if (kind < 20) {
    r = submit(h, TASK_NEST, 1 + below(h, 12), NULL, timeout);
  } else if (kind < 35) {
    r = submit(h, TASK_FAIL, 0, NULL, timeout);
  } else {
    r = submit(h, TASK_ECHO, 0, NULL, timeout);
    r->again = kind < 100 ? 1 + (int)below(h, 20) : 0;
    h->made += (uint64_t)r->again;
  }
  if (percent(h, 3)) {
    cancel(h, r);
  }
  return r;
}

/* --- waiting -------------------------------------------------------------- */

static void wait_on_descriptor(host *h) {
  if (treadle_arm(h->loop) == 1) {
    struct pollfd p = {treadle_fd(h->loop), POLLIN, 0};
    while (poll(&p, 1, -1) < 0 && errno == EINTR) {
    }
  }
  treadle_poll(h->loop, 0);
}

/* Until at most `left` calls are under way: asleep in the futex, asleep on the
** descriptor, looking, or sleeping for a moment. */
static void drain(host *h, uint32_t left) {
  uint32_t how = below(h, 8);
  h->state->doing = how == 6 ? "drains on the descriptor" : "drains";
  while (h->out > left) {
    if (how < 5) {
      treadle_poll(h->loop, -1);
    } else if (how == 5) {
      wait_on_descriptor(h);
    } else if (how == 6) {
      sched_yield();
      treadle_poll(h->loop, 0);
    } else {
      treadle_poll(h->loop, 0.0005);
    }
  }
}

/* Everybody falls asleep, or nearly. */
static void gap(host *h) {
  uint32_t us = below(h, 1u << below(h, 13));
  h->state->doing = "lets everybody sleep";
  if (percent(h, 50)) {
    treadle_poll(h->loop, us * 1e-6);
  } else {
    struct timespec t = {0, (long)us * 1000};
    nanosleep(&t, NULL);
  }
}

/* --- rounds --------------------------------------------------------------- */

static void burst(host *h) {
  uint32_t size = 1 + below(h, 1u << below(h, 14)) % MAX_BURST;
  int mixed = percent(h, 30);
  struct {
    record *r;
    uint64_t number;
  } late[64];
  uint32_t count = 0;
  if (h->out + size > MAX_OUT) {
    drain(h, MAX_OUT - size);
  }
  h->state->doing = "calls";
  for (uint32_t i = 0; i < size && !h->failed; i++) {
    uint32_t luck = below(h, 1024);
    record *r = mixed ? one_of_all_kinds(h) : submit(h, TASK_ECHO, 0, NULL, -1);
    if (mixed && luck < 30 && count < 64) {
      late[count].r = r;
      late[count++].number = r->number;
    }
    if (luck >= 1020) {
      treadle_poll(h->loop, 0);
    }
    for (uint32_t n = luck >= 1000 ? below(h, 2000) : 0; n > 0; n--) {
      tdl_pause();
    }
  }
  for (uint32_t i = 0; i < count; i++) {
    if (is_open(late[i].r, late[i].number)) {
      cancel(h, late[i].r);
    }
  }
}

/* One call at a time: caller and worker fall asleep and are woken in turn, each
** a little earlier or later than the last time. */
static void dialogue(host *h) {
  for (uint32_t turns = below(h, 2000); turns > 0 && !h->failed; turns--) {
    submit(h, TASK_ECHO, 0, NULL, -1);
    for (uint32_t n = below(h, 1u << below(h, 12)); n > 0; n--) {
      tdl_pause();
    }
    h->state->doing = "waits for one call";
    while (h->out > 0) {
      treadle_poll(h->loop, -1);
    }
  }
}

/* Nobody sleeps while there is work: calls that end only when all of them run,
** each in a worker of its own. */
static void meet(host *h) {
  uint32_t n = 2 + below(h, h->workers - 1), others = below(h, 4);
  h->meeting.missing = n;
  for (uint32_t i = 0; i < n; i++) {
    submit(h, TASK_MEET, (double)(uintptr_t)&h->meeting, NULL, -1);
    for (uint32_t k = others > 0 ? below(h, others) : 0; k > 0; k--) {
      submit(h, TASK_ECHO, 0, NULL, -1);
    }
  }
  drain(h, 0);
}

static void end_round(host *h) {
  uint32_t how = below(h, 10);
  h->state->doing = "ends a pool";
  h->closing = 1;
  if (how < 5) {
    treadle_pool_close(h->pool, -1);
  } else if (how < 7) {
    h->may_close = 1;
    treadle_pool_terminate(h->pool);
  } else if (how < 8) {
    h->may_close = 1;
    treadle_pool_close(h->pool, 0);
  } else { /* a worker does it, while we call on */
    h->may_close = 1;
    submit(h, TASK_SHUT, 0, how == 8 ? "close" : "terminate", -1);
    for (uint32_t n = below(h, 300); n > 0; n--) {
      submit(h, TASK_ECHO, 0, NULL, -1);
    }
    treadle_pool_close(h->pool, -1);
  }
  h->pool = h->state->pool = NULL;
  h->may_close = h->closing = 0;
}

static void play_round(host *h) {
  treadle_pool_options o = {.module = "handoff_tasks",
                            .path = TASK_PATH,
                            .threads = h->workers,
                            .concurrency = 1 + below(h, 3)};
  record none = {.host = h};
  uint32_t bursts = 1 + below(h, 40);
  int status;
  h->number = 0;
  h->state->doing = "opens a pool";
  status = treadle_pool_open(h->loop, &o, &h->pool, h->fault, sizeof(h->fault));
  if (status != 0) {
    h->failed = 1;
    return;
  }
  h->state->pool = h->pool;
  watchdog_progress(1);
  for (int i = 0; i < TASKS; i++) {
    h->tasks[i] = treadle_pool_task(h->pool, task_names[i]);
  }
  while (bursts-- > 0 && h->made < h->jobs && !h->failed) {
    burst(h);
    if (percent(h, 60)) {
      drain(h, 0);
      if (percent(h, 30)) {
        gap(h);
      }
      if (h->workers > 1 && percent(h, 40)) {
        meet(h);
      }
      if (percent(h, 20)) {
        dialogue(h);
      }
    } else {
      treadle_poll(h->loop, 0);
    }
  }
  end_round(h);
  if (h->out != 0) {
    fault(h, &none, "calls without an answer", 0);
  }
  watchdog_progress(1);
}

static void *c_host(void *arg) {
  host *h = arg;
  for (uint32_t i = MAX_OUT; i-- > 0;) {
    h->records[i].host = h;
    h->records[i].next = h->free;
    h->free = &h->records[i];
  }
  pthread_mutex_init(&h->meeting.lock, NULL);
  pthread_cond_init(&h->meeting.complete, NULL);
  treadle_loop_open(&h->loop);
  h->state->loop = h->loop;
  while (h->made < h->jobs && !h->failed) {
    play_round(h);
    if (percent(h, 30)) { /* with results under way to the old one */
      h->state->loop = NULL;
      treadle_loop_close(h->loop);
      treadle_loop_open(&h->loop);
      h->state->loop = h->loop;
    }
  }
  h->state->loop = NULL;
  treadle_loop_close(h->loop);
  pthread_cond_destroy(&h->meeting.complete);
  pthread_mutex_destroy(&h->meeting.lock);
  return NULL;
}

static int tell_progress(lua_State *L) {
  watchdog_progress((uint64_t)lua_tointeger(L, 1));
  return 0;
}

static int traceback(lua_State *L) {
  luaL_traceback(L, L, lua_tostring(L, 1), 1);
  return 1;
}

/* A host that is a Lua state. */
static void *lua_host(void *arg) {
  host *h = arg;
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  lua_getglobal(L, "package");
  lua_pushliteral(L, TASK_PATH);
  lua_setfield(L, -2, "path");
  lua_getfield(L, -1, "preload");
  lua_pushcfunction(L, luaopen_treadle);
  lua_setfield(L, -2, "treadle");
  lua_settop(L, 0);
  h->state->doing = "runs Lua";
  lua_pushcfunction(L, traceback);
  h->failed = luaL_loadstring(L, "require 'treadle'\n"
                                 "return require 'handoff_host' (...)") != 0;
  if (!h->failed) {
    h->state->bind = tdl_bind_of(L);
    lua_pushnumber(L, (double)below(h, 1u << 31));
    lua_pushnumber(L, (double)h->jobs);
    lua_pushinteger(L, (lua_Integer)h->workers);
    lua_pushcfunction(L, tell_progress);
    h->failed = lua_pcall(L, 4, 1, 1) != 0;
  }
  if (h->failed) {
    snprintf(h->fault, sizeof(h->fault), "%s", lua_tostring(L, -1));
  } else {
    h->made = (uint64_t)lua_tonumber(L, -1);
  }
  h->state->bind = NULL;
  lua_close(L);
  return NULL;
}

#endif
