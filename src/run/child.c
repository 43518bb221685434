#include "child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/region.h"
#include "../codec/payload.h"
#include "../confine/confine.h"
#include "far.h"
#include "phase.h"
#include "sight.h"
#include "spawn.h"
#include "supervisor.h"
#include "worker.h"

typedef struct child {
  treadle_loop *loop;
  treadle_pool *pool;
  tdl_far *far;
  tdl_crossing *crossing;
  int line;
  int over; /* its worker has ended */
} child;

static void stop(child *c, uint64_t ns, const char *why) {
  if (*why != '\0') {
    tdl_pool_set_reason(c->pool, why);
  }
  tdl_pool_stop(c->pool, TDL_POOL_STOPPED);
  if (ns != TDL_NEVER) {
    tdl_pool_force(c->pool, ns);
  }
}

static void say_booted(const child *c, int status) {
  tdl_message m = {.kind = TDL_LINE_BOOTED,
                   .ticket = c->far->tasks,
                   .value = (uint64_t)-status};
  if (tdl_line_send(c->line, &m, TDL_LINE_HEAD_BYTES) != 0) {
    _exit(EXIT_FAILURE);
  }
}

static void on_event(treadle_pool *pool, tdl_pool_event event, uint32_t worker,
                     const tdl_bytes *bytes, void *ctx) {
  child *c = ctx;
  (void)pool;
  (void)worker;
  (void)bytes;
  switch (event) {
  case TDL_POOL_STARTED:
    say_booted(c, 0);
    break;
  case TDL_POOL_FAILED:
    say_booted(c, bytes->len == 0 ? TREADLE_ENOMEM : TREADLE_ELOAD);
    stop(c, TDL_NEVER, "");
    break;
  case TDL_POOL_CLOSED:
    c->over = 1;
    break;
  default:
    break;
  }
}

/* --- what it may do --------------------------------------------------------- */

/* The variables that it may not see are wiped out, for they stay readable where
** the kernel has put them. */
static void hide_environment(const tdl_policy *policy) {
  size_t kept = 0;
  for (size_t i = 0; environ[i] != NULL; i++) {
    char *variable = environ[i], *end = strchr(variable, '=');
    int hidden = end == NULL;
    if (end != NULL) {
      *end = '\0';
      hidden = !tdl_policy_has_env(policy, variable);
      *end = '=';
    }
    if (hidden) {
      explicit_bzero(variable, strlen(variable));
    } else {
      environ[kept++] = variable;
    }
  }
  environ[kept] = NULL;
}

/* 0, or it has told the parent why not. */
static int confine(const tdl_hello *hello, const tdl_link *link) {
  static const int keep[] = {TDL_SPAWN_LINE, TDL_SPAWN_MEMORY, TDL_SPAWN_BELL};
  tdl_message m = {.kind = TDL_LINE_REFUSED};
  tdl_policy *policy;
  int status;
  if (hello->policy_bytes == 0) {
    return 0;
  }
  snprintf(m.text, sizeof(m.text), "what it may do cannot be read");
  status = tdl_policy_read(link->in.bulk + hello->boot_bytes,
                           hello->policy_bytes, &policy);
  if (status == 0) {
    hide_environment(policy);
    status = tdl_confine_process(policy, TDL_SPAWN_LINE, keep,
                                 sizeof(keep) / sizeof(keep[0]), m.text,
                                 sizeof(m.text));
    tdl_policy_free(policy);
  }
  if (status != 0) {
    m.length = (uint32_t)strlen(m.text);
    tdl_line_send(TDL_SPAWN_LINE, &m, TDL_LINE_HEAD_BYTES + m.length);
  }
  return status;
}

/* --- its life --------------------------------------------------------------- */

static int open_pool(child *c, const tdl_hello *hello, const tdl_link *link) {
  tdl_pool_options o = {.min_threads = 1,
                        .max_threads = 1,
                        .idle_ns = TDL_NEVER,
                        .concurrency = hello->concurrency,
                        .max_payload = hello->max_payload,
                        .max_queue = TDL_POOL_NO_LIMIT,
                        .mortal = 1,
                        .terminate_ns = hello->terminate_ns,
                        .recycle_after = hello->recycle_after,
                        .recycle_bytes = hello->recycle_bytes,
                        .cap_bytes = hello->cap_bytes,
                        .name = hello->name,
                        .event = on_event,
                        .ctx = c};
  tdl_bytes boot;
  int status = tdl_far_new(link, c->crossing, hello, &c->far);
  tdl_bytes_init(&boot, NULL, 0);
  if (status == 0) {
    status = tdl_bytes_append(&boot, link->in.bulk, hello->boot_bytes);
  }
  if (status == 0 && boot.len > 0 && (boot.data[0] & TDL_WIRE_THINGS)) {
    status = tdl_crossing_read(c->crossing, &boot);
  }
  if (status == 0) {
    o.boot = &boot;
    o.far = c->far;
    status = tdl_pool_open(c->loop, &o, &c->pool);
  }
  return status;
}

/* What the parent says; 0 when that is nothing more. */
static int hear(child *c) {
  tdl_message m, look = {.kind = 0};
  int got;
  while ((got = tdl_crossing_hear(c->crossing, &m)) == 1) {
    m.text[m.length] = '\0';
    switch (m.kind) {
    case TDL_LINE_SETTLE:
      tdl_far_settle(c->far, &m);
      break;
    case TDL_LINE_STOP:
      stop(c, m.value, m.text);
      break;
    case TDL_LINE_LOOK: /* who has asked before hears no more */
      look = m;
      break;
    case TDL_LINE_WAKE:
      tdl_pool_wake_all(c->pool);
      break;
    default:
      return 0;
    }
  }
  if (look.kind == TDL_LINE_LOOK) {
    tdl_sight_answer(c->pool, c->line, &look);
  }
  return got == 0;
}

/* Until its worker has ended; 0 when the parent has, first. */
static int live(child *c) {
  struct pollfd fds[2] = {{c->line, POLLIN, 0},
                          {tdl_loop_fd(c->loop), POLLIN, 0}};
  while (!c->over) {
    tdl_loop_dispatch(c->loop);
    if (!hear(c)) {
      return 0;
    }
    if (!c->over && tdl_loop_arm(c->loop)) {
      poll(fds, 2, -1);
      tdl_loop_disarm(c->loop);
    }
  }
  return 1;
}

/* Ctrl-C goes to all processes of a terminal: it is the parent's to handle. Not
** ignored, so that programs that a task starts do not inherit that. */
static void on_interrupt(int signal) {
  (void)signal;
}

static void set_up_process(void) {
  struct sigaction action;
  fcntl(TDL_SPAWN_LINE, F_SETFD, FD_CLOEXEC); /* not for what a task starts */
  fcntl(TDL_SPAWN_BELL, F_SETFD, FD_CLOEXEC);
  prctl(PR_SET_PDEATHSIG, SIGKILL); /* where the parent started it itself */
  memset(&action, 0, sizeof(action));
  action.sa_handler = on_interrupt;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, NULL);
  setvbuf(stdout, NULL, _IOLBF, TDL_CHILD_LINE_BYTES);
}

/* What it has been started with; 0, or it was not started by a keeper. */
static int take_memory(const tdl_hello *hello, tdl_link *link) {
  int status = tdl_link_join(TDL_SPAWN_MEMORY, link);
  if (status == 0 &&
      (uint64_t)hello->boot_bytes + hello->policy_bytes > link->in.bulk_bytes) {
    status = TREADLE_EINVAL;
  }
  if (status == 0) {
    link->in.shown.bytes = hello->stage_bytes;
    status = tdl_region_see(TDL_SPAWN_STAGE, hello->stage_bytes,
                            &link->in.shown.data);
  }
  if (status == 0) {
    close(TDL_SPAWN_STAGE); /* the mapping stays */
  }
  return status;
}

/* The first word, and the buffers before it that are in the boot payload. */
static int await_hello(child *c, tdl_hello *hello) {
  if (tdl_crossing_new(c->line, 0, &c->crossing) != 0 ||
      tdl_crossing_hear_first(c->crossing) != 0) {
    return TREADLE_EINVAL;
  }
  return tdl_line_receive_hello(c->line, hello);
}

/* As lists of processes show it: its worker's thread has the same name. */
static void name_process(const tdl_hello *hello) {
  char name[16];
  snprintf(name, sizeof(name), "%.9s/%u", hello->name, hello->id);
  prctl(PR_SET_NAME, name);
}

int tdl_child_main(void) {
  child c = {.line = TDL_SPAWN_LINE};
  tdl_hello hello;
  tdl_link link;
  set_up_process();
  if (await_hello(&c, &hello) != 0 || take_memory(&hello, &link) != 0) {
    fputs("treadle: " TDL_SPAWN_ARGUMENT " is for treadle itself: a worker's "
          "process, which a pool with runtime = \"process\" starts\n",
          stderr);
    return EXIT_FAILURE;
  }
  name_process(&hello);
  if (confine(&hello, &link) != 0) {
    return EXIT_FAILURE;
  }
  if (tdl_loop_new(&c.loop) != 0 || open_pool(&c, &hello, &link) != 0) {
    fputs("treadle: a worker's process cannot start: not enough memory\n",
          stderr);
    return EXIT_FAILURE;
  }
  if (!live(&c)) {
    _exit(EXIT_FAILURE); /* nobody is left who could want anything of it */
  }
  fflush(stdout);
  _exit(EXIT_SUCCESS); /* a thread may be stuck in C */
}
