#include "keeper.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/compiler.h"
#include "../base/stall.h"
#include "../base/status.h"
#include "../codec/payload.h"
#include "confined.h"
#include "far.h"
#include "news.h"
#include "phase.h"
#include "pump.h"
#include "sight.h"
#include "turns.h"
#include "watch.h"

/* --- what the pool's processes are started with ---------------------------- */

int tdl_keeper_plan_new(const char *const *command, char *tried, size_t size,
                        tdl_keeper_plan **out) {
  tdl_keeper_plan *plan = tdl_calloc(sizeof(*plan));
  size_t n = 0;
  int status = TREADLE_ENOMEM;
  if (plan == NULL) {
    return status;
  }
  tdl_bytes_init(&plan->policy, NULL, 0);
  while (command != NULL && command[n] != NULL) {
    n++;
  }
  plan->prefix = tdl_calloc((n + 1) * sizeof(*plan->prefix));
  if (plan->prefix == NULL) {
    goto fail;
  }
  for (size_t i = 0; i < n; i++) {
    plan->prefix[i] = tdl_strdup(command[i]);
    if (plan->prefix[i] == NULL) {
      goto fail;
    }
  }
  status = tdl_spawn_program(plan->program, sizeof(plan->program), tried, size);
  if (status == 0) {
    *out = plan;
    return 0;
  }
fail:
  tdl_keeper_plan_free(plan);
  return status;
}

void tdl_keeper_plan_free(tdl_keeper_plan *plan) {
  if (plan != NULL && plan->prefix != NULL) {
    for (size_t i = 0; plan->prefix[i] != NULL; i++) {
      tdl_free(plan->prefix[i]);
    }
    tdl_free(plan->prefix);
  }
  if (plan != NULL) {
    tdl_bytes_reset(&plan->policy, NULL, 0);
  }
  tdl_free(plan);
}

/* --- its life -------------------------------------------------------------- */

/* The parker's way to wake the thread, which sleeps on the bell. */
static void ring(void *arg) {
  const tdl_keeper *k = arg;
  uint64_t one = 1;
  ssize_t n = write(k->bell, &one, sizeof(one));
  (void)n; /* full: it is ringing */
}

int tdl_keeper_new(tdl_worker *w, tdl_keeper **out) {
  const treadle_pool *pool = w->pool;
  size_t most = tdl_crossing_bytes(&pool->boot) + pool->plan->policy.len;
  tdl_keeper *k = tdl_calloc(sizeof(*k));
  int status;
  if (k == NULL) {
    return TREADLE_ENOMEM;
  }
  most = most > pool->max_payload ? most : pool->max_payload;
  most = most > TDL_LINK_BULK_BYTES ? most : TDL_LINK_BULK_BYTES;
  k->worker = w;
  tdl_nested_init(&k->nested);
  k->process = (tdl_spawn)TDL_SPAWN_NONE;
  pthread_mutex_init(&k->ear.lock, NULL);
  k->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  status = k->bell < 0 ? TREADLE_ESYSTEM : tdl_link_open(most, &k->link);
  if (status != 0) {
    if (k->bell >= 0) {
      close(k->bell);
    }
    pthread_mutex_destroy(&k->ear.lock);
    tdl_free(k);
    return status;
  }
  w->loop.parker.bell = ring;
  w->loop.parker.arg = k;
  *out = k;
  return 0;
}

void tdl_keeper_free(tdl_keeper *k) {
  if (k != NULL) {
    tdl_spawn_end(&k->process);
    tdl_link_close(&k->link);
    close(k->bell);
    tdl_nested_fini(&k->nested);
    tdl_tickets_fini(&k->tickets);
    pthread_mutex_destroy(&k->ear.lock);
    tdl_free(k);
  }
}

/* --- sleeping -------------------------------------------------------------- */

static int ms_until(uint64_t due) {
  uint64_t now = tdl_now_ns();
  if (due == TDL_NEVER) {
    return -1;
  } else if (due <= now) {
    return 0;
  }
  return (due - now) / 1000000u > 1000 ? 1000
                                       : (int)((due - now) / 1000000u) + 1;
}

/* Neither blocks, whatever the process does to its ends. */
static void hush(int bell) {
  char rung[512];
  ssize_t n = read(bell, rung, sizeof(rung));
  (void)n; /* taken by somebody else: the rings are the truth */
}

/* On the bells, the line and the process, until `due`; the parker is announced.
** 1 when the process has something to say, or has nothing more to say. */
static int sleep_until(tdl_keeper *k, uint64_t due) {
  struct pollfd fds[4] = {{k->bell, POLLIN, 0},
                          {k->process.bell, POLLIN, 0},
                          {k->process.line, POLLIN, 0},
                          {k->process.pidfd, POLLIN, 0}};
  poll(fds, 4, ms_until(due));
  if (fds[0].revents != 0) {
    hush(k->bell);
  }
  if (fds[1].revents & POLLIN) {
    hush(k->process.bell);
  } else if (fds[1].revents != 0) {
    k->mute = 1; /* nobody has its other end any more */
  }
  tdl_parker_awake(&k->worker->loop.parker);
  return k->mute || fds[2].revents != 0 || fds[3].revents != 0;
}

/* It has closed its descriptors: most likely because it ends. */
static void await_own_end(tdl_keeper *k) {
  struct pollfd fd = {k->process.pidfd, POLLIN, 0};
  poll(&fd, 1, (int)(TDL_KEEPER_PATIENCE_NS / 1000000u));
  if (tdl_spawn_has_ended(&k->process)) {
    k->mute = 0;
  }
}

/* When what the process runs must have ended, by others' will; TDL_NEVER. */
static uint64_t end_of(tdl_worker *w) {
  uint64_t end;
  tdl_supervisor_lock();
  end = w->stop.end_ns < w->stop.leave_ns ? w->stop.end_ns : w->stop.leave_ns;
  tdl_supervisor_unlock();
  return end;
}

/* --- booting --------------------------------------------------------------- */

/* What is in the boot payload is given before the first word. 0: the process ends
** before, or is to. */
static int give_boot(tdl_keeper *k, tdl_bytes *boot) {
  const tdl_worker *w = k->worker;
  uint64_t end = end_of(k->worker);
  int done;
  while ((done = tdl_crossing_write(k->crossing, &w->pool->boot, boot)) == 0 &&
         tdl_pool_phase(w->pool) != TDL_POOL_STOPPED && tdl_now_ns() < end &&
         !tdl_spawn_has_ended(&k->process)) {
    struct pollfd fd = {k->process.line, POLLOUT, 0};
    poll(&fd, 1, 1);
  }
  return done > 0;
}

static int say_hello(tdl_keeper *k) {
  const tdl_worker *w = k->worker;
  const treadle_pool *pool = w->pool;
  const tdl_bytes *policy = &pool->plan->policy;
  const tdl_region *stage = &pool->stage->region;
  tdl_bytes boot = pool->boot;
  int status = TREADLE_ESYSTEM;
  tdl_hello hello = {.kind = TDL_LINE_HELLO,
                     .version = TDL_HELLO_VERSION,
                     .id = w->id,
                     .concurrency = pool->concurrency,
                     .max_payload = pool->max_payload,
                     .spins = w->id < (uint32_t)tdl_spin_cores(),
                     .boot_bytes = (uint32_t)tdl_crossing_bytes(&pool->boot),
                     .policy_bytes = policy->len,
                     .stage_bytes = stage->bytes,
                     .terminate_ns = pool->terminate_ns,
                     .cap_bytes = pool->cap_bytes,
                     .recycle_after = pool->recycle_after,
                     .recycle_bytes = pool->recycle_bytes};
  memcpy(hello.name, pool->name, sizeof(hello.name));
  k->link.out.shown = (tdl_link_shown){stage->data, stage->bytes};
  if (boot.data[0] & TDL_WIRE_THINGS) {
    tdl_bytes_init(&boot, NULL, 0);
    if (!give_boot(k, &boot)) {
      goto done;
    }
  }
  memcpy(k->link.out.bulk, boot.data, boot.len);
  if (policy->len > 0) {
    memcpy(k->link.out.bulk + boot.len, policy->data, policy->len);
  }
  k->link.out.bulk_most = boot.len + policy->len;
  status = tdl_line_send(k->process.line, &hello, sizeof(hello));
done:
  if (boot.data != pool->boot.data) {
    tdl_bytes_reset(&boot, NULL, 0);
  }
  return status;
}

/* 0: nonsense (H5). */
static int take_report(tdl_keeper *k, tdl_bytes *report) {
  const uint8_t *data;
  tdl_record head;
  int done = 0;
  tdl_payload_clear(report);
  if (tdl_link_look(&k->link.in, &head, &data) == 1 &&
      head.kind == TDL_FAR_REPORT &&
      tdl_bytes_append(report, data, head.len) == 0) {
    done = head.len == 0 || !(report->data[0] & TDL_WIRE_THINGS) ||
           tdl_crossing_read(k->crossing, report) == 0;
    tdl_link_take(&k->link.in, &head);
  }
  return done;
}

/* Blocks until the process has loaded the module, or could not. */
static int await_boot(tdl_keeper *k, tdl_bytes *report) {
  tdl_worker *w = k->worker;
  for (;;) {
    tdl_message m;
    uint64_t end = end_of(w);
    int got = tdl_crossing_hear(k->crossing, &m);
    if (got == 1 && m.kind == TDL_LINE_BOOTED) {
      int status = -(int)m.value;
      if (!take_report(k, report) || status > 0 || status < TREADLE_ESYSTEM) {
        break;
      }
      k->tasks = m.ticket;
      return status;
    } else if (got == 1 && m.kind == TDL_LINE_REFUSED) {
      m.text[m.length] = '\0';
      tdl_confined_report(report, m.text);
      return TREADLE_EPERMISSION;
    } else if (got != 0) {
      break; /* it has ended, or talks nonsense */
    }
    if (k->mute) {
      break;
    }
    if (tdl_pool_phase(w->pool) == TDL_POOL_STOPPED || tdl_now_ns() >= end ||
        !tdl_size_wants(w)) {
      return TREADLE_ECLOSED;
    }
    tdl_parker_announce(&w->loop.parker, TDL_BELLED);
    if (tdl_pool_phase(w->pool) != TDL_POOL_STOPPED) {
      sleep_until(k, end);
    } else {
      tdl_parker_awake(&w->loop.parker);
    }
  }
  return TREADLE_ECRASHED;
}

/* What became of the process, as a sentence. */
static void epitaph(tdl_keeper *k, const char *when, char *text, size_t size) {
  char how[64];
  tdl_spawn_say(&k->process, how, sizeof(how));
  snprintf(text, size, "worker %u %s%s", k->worker->id,
           k->mute ? "was killed: it had closed its descriptors" : how, when);
}

static void end_crossing(tdl_keeper *k) {
  tdl_crossing *crossing = k->crossing;
  tdl_pump_lock(k);
  k->crossing = NULL;
  tdl_pump_unlock(k);
  tdl_crossing_end(crossing);
}

static void bury(tdl_keeper *k) {
  tdl_spawn_kill(&k->process);
  tdl_sight_end(k);
  tdl_spawn_end(&k->process);
}

int tdl_keeper_boot(tdl_worker *w, tdl_bytes *report) {
  tdl_keeper *k = w->keeper;
  const tdl_keeper_plan *plan = w->pool->plan;
  int status;
  char text[256];
  tdl_pump_lock(k); /* a home may tell it that it sleeps */
  status = tdl_link_reset(&k->link);
  tdl_pump_unlock(k);
  tdl_payload_clear(report);
  k->rest_ns = TDL_NEVER;
  k->retiring = k->hung = k->mute = k->told_drain = 0;
  tdl_keeper_set_broken(k, 0);
  tdl_worker_set_life(w, TDL_BOOTING);
  if (status == 0) {
    status = tdl_spawn_start(plan->prefix, plan->program, k->link.region.fd,
                             w->pool->stage->region.fd, &k->process);
  }
  if (status != 0) {
    snprintf(text, sizeof(text), "cannot start '%.160s': %.60s",
             plan->prefix[0] != NULL ? plan->prefix[0] : plan->program,
             strerror(errno));
    tdl_payload_set_text(report, text);
    return status == TREADLE_ENOMEM ? status : TREADLE_ELOAD;
  }
  status = tdl_crossing_new(k->process.line, 1, &k->crossing);
  if (status == 0 && say_hello(k) == 0) {
    tdl_crossing_pass_views(k->crossing, tdl_sight_hear, &k->ear);
    tdl_sight_begin(k);
    status = await_boot(k, report);
  } else if (status == 0) {
    status = TREADLE_ECRASHED;
  }
  if (status != 0) {
    if (status == TREADLE_ECRASHED) { /* it may be about to end by itself */
      await_own_end(k);
    }
    end_crossing(k);
    bury(k);
    if (status == TREADLE_ECRASHED) {
      epitaph(k, " while it was loading its module", text, sizeof(text));
      tdl_payload_set_text(report, text);
    }
  }
  return status;
}

/* --- serving --------------------------------------------------------------- */

/* What it takes: anything, what was sent to it, or what it needs (Z2). */
static void look_at_size(tdl_keeper *k) {
  enum tdl_pump_serves serves = k->retiring                  ? TDL_PUMP_LAST
                                : !tdl_size_wants(k->worker) ? TDL_PUMP_SENT
                                                             : TDL_PUMP_ANY;
  k->leaving = serves == TDL_PUMP_SENT;
  tdl_pump_serve(k, serves);
}

/* Nothing is under way in it, nor on its way to it, nor may come of it. */
static int is_quiet(tdl_keeper *k) {
  return tdl_pump_is_idle(k) && tdl_queue_empty(&k->worker->slot->calls) &&
         !tdl_nested_is_busy(k) && tdl_queue_empty(&k->worker->loop.inbox) &&
         tdl_link_is_calm(&k->link);
}

/* A drain waits for it, which has nothing to do and does not rest: what jobs have
** left behind goes on, or it is stopped (SIGSTOP). Not for longer than
** terminate_ns. When that is over, or TDL_NEVER. */
static uint64_t rest_by(tdl_keeper *k) {
  const tdl_worker *w = k->worker;
  if (w->phase != TDL_POOL_DRAINING || !tdl_pump_is_idle(k) ||
      tdl_nested_is_busy(k) || (k->told_drain && tdl_link_is_calm(&k->link))) {
    k->rest_ns = TDL_NEVER;
  } else if (k->rest_ns == TDL_NEVER) {
    k->rest_ns = tdl_now_ns() + w->pool->terminate_ns;
  }
  k->hung = tdl_now_ns() >= k->rest_ns;
  return k->rest_ns;
}

/* It is to have no more jobs, and has none. */
static int has_served(tdl_keeper *k) {
  return (k->retiring ||
          (k->leaving && tdl_queue_empty(&k->worker->slot->calls))) &&
         tdl_pump_retire(k);
}

/* As a worker that has something to tell when it sleeps (P5, P7). */
static void lie_down(tdl_keeper *k) {
  tdl_worker *w = k->worker;
  int watched = tdl_pool_is_watched(w->pool), quiet;
  if (w->phase == TDL_POOL_DRAINING && !k->told_drain) {
    k->told_drain = 1;
    tdl_pump_wake(k); /* it sees that when it is awake */
  }
  tdl_link_listen(&k->link, watched || w->phase == TDL_POOL_DRAINING);
  tdl_pump_lock(k); /* who has it finds the pool closed to him (H1) */
  quiet = is_quiet(k);
  tdl_jobs_trim(&w->loop.jobs);
  tdl_link_trim(&k->link.out);
  tdl_pump_unlock(k);
  w->resting = w->phase == TDL_POOL_DRAINING && quiet;
  if (w->resting) {
    tdl_pool_drop_busy(w->pool);
  }
  w->watched = watched;
  w->calm = w->watched && quiet;
  if (w->calm) {
    tdl_pool_calm(w->pool);
  }
}

static int has_work(const tdl_worker *w) {
  return tdl_loop_has_work(&w->loop) || tdl_worker_is_asked(w) != 0 ||
         tdl_pool_phase(w->pool) != w->phase ||
         tdl_pool_is_watched(w->pool) != w->watched ||
         tdl_pump_has_more(w->keeper);
}

/* Sleeps; 1 when it is to look at the process. */
static int sleep_on(tdl_keeper *k, uint64_t due) {
  tdl_worker *w = k->worker;
  int says = 0;
  lie_down(k);
  tdl_parker_announce(&w->loop.parker, TDL_BELLED);
  tdl_link_set_dozing(&k->link, 1);
  if (has_work(w)) {
    tdl_parker_awake(&w->loop.parker);
  } else {
    says = sleep_until(k, due);
  }
  tdl_link_set_dozing(&k->link, 0);
  tdl_turns_get_up(w);
  return says;
}

/* Its end has come: it has ended, or said what cannot be. */
static int is_gone(tdl_keeper *k, int says) {
  tdl_message m;
  int heard = 0;
  if (says && !tdl_keeper_is_broken(k)) {
    tdl_pump_lock(k);
    heard = tdl_crossing_hear(k->crossing, &m);
    tdl_pump_unlock(k);
    if (heard == TREADLE_EINVAL || heard == 1) { /* it has no more to say */
      tdl_keeper_set_broken(k, 1);
    }
  }
  if (k->mute) {
    await_own_end(k);
    return 1;
  }
  return tdl_keeper_is_broken(k) || heard != 0 ||
         (says && tdl_spawn_has_ended(&k->process));
}

void tdl_keeper_serve(tdl_worker *w) {
  tdl_keeper *k = w->keeper;
  int says = 0;
  look_at_size(k);
  for (;;) {
    uint32_t asked;
    uint64_t due;
    w->phase = tdl_pool_phase(w->pool);
    tdl_loop_dispatch(&w->loop);
    tdl_pump_own(k);
    asked = tdl_worker_is_asked(w);
    if (asked & TDL_ASK_RECYCLE) {
      k->retiring = 1;
    }
    look_at_size(k);
    tdl_worker_unask(w, asked); /* from here on its process takes no call */
    due = tdl_pump_tell_settled(k);
    if (w->phase == TDL_POOL_STOPPED || is_gone(k, says) || has_served(k)) {
      return;
    }
    due = rest_by(k) < due ? k->rest_ns : due;
    if (tdl_now_ns() >= due || tdl_now_ns() >= end_of(w)) {
      return; /* it does not end what it was told to end */
    }
    if (tdl_pump_lacks_room(k)) { /* nobody tells when there is some */
      uint64_t soon = tdl_now_ns() + 1000000u;
      due = soon < due ? soon : due;
    }
    due = end_of(w) < due ? end_of(w) : due;
    says = sleep_on(k, due);
  }
}

/* --- the end --------------------------------------------------------------- */

/* SIGTERM at `end`, SIGKILL when it has had terminate_ns more. */
static void await_end(tdl_keeper *k, uint64_t end) {
  uint64_t last = end + k->worker->pool->terminate_ns;
  int asked = 0;
  while (!tdl_spawn_has_ended(&k->process)) {
    struct pollfd fd = {k->process.pidfd, POLLIN, 0};
    uint64_t now = tdl_now_ns();
    if (now >= last) {
      return; /* tdl_spawn_end kills it */
    }
    if (now >= end && !asked) {
      asked = 1;
      tdl_spawn_signal(&k->process, SIGTERM);
    }
    poll(&fd, 1, ms_until(asked ? last : end));
  }
}

/* Tells it to leave; what runs in it, if anything does, must end at once. */
static void ask_to_leave(tdl_keeper *k, int idle) {
  uint64_t patience =
      idle ? k->worker->pool->terminate_ns : TDL_KEEPER_PATIENCE_NS;
  tdl_message stop = {.kind = TDL_LINE_STOP,
                      .value = idle ? TDL_NEVER : TDL_STOP_GRACE_NS};
  tdl_message_say(&stop, tdl_pool_reason(k->worker->pool));
  if (tdl_line_send(k->process.line, &stop,
                    TDL_LINE_HEAD_BYTES + stop.length) == 0) {
    await_end(k, tdl_now_ns() + patience);
  }
}

const char *tdl_keeper_end(tdl_worker *w) {
  tdl_keeper *k = w->keeper;
  int idle = tdl_pump_is_idle(k), was_asked;
  char text[256];
  tdl_pump_serve(k, TDL_PUMP_SHUT);
  if (!tdl_keeper_is_broken(k) && !k->hung &&
      (idle || tdl_pool_phase(w->pool) == TDL_POOL_STOPPED)) {
    ask_to_leave(k, idle);
  }
  tdl_crossing_cut(k->crossing);
  bury(k);
  if (tdl_keeper_is_broken(k)) {
    snprintf(text, sizeof(text),
             "worker %u was killed: it has written nonsense into the memory "
             "that it shares",
             w->id);
  } else {
    epitaph(k, "", text, sizeof(text));
  }
  k->was_lost = tdl_keeper_is_broken(k) || !idle || k->process.status != 0;
  tdl_pump_lose(k, TREADLE_ECRASHED, text);
  end_crossing(k);
  was_asked =
      k->retiring || k->leaving || tdl_pool_phase(w->pool) == TDL_POOL_STOPPED;
  return tdl_keeper_is_broken(k) || !idle || !was_asked ? "crashed"
         : k->leaving && !k->retiring                   ? "resized"
                                                        : "recycled";
}
