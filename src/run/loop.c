#include "loop.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/compiler.h"
#include "../base/stall.h"
#include "../base/stamp.h"
#include "pool.h"
#include "pump.h"
#include "supervisor.h"
#include "trace.h"
#include "upcall.h"

int tdl_loop_init(treadle_loop *loop) {
  int status;
  memset(loop, 0, sizeof(*loop));
  status = tdl_queue_init(&loop->inbox, TDL_RING_CELLS);
  if (status == 0) {
    tdl_parker_init(&loop->parker);
    atomic_init(&loop->refs, 1);
    atomic_init(&loop->peer, -1);
    tdl_jobs_init(&loop->jobs);
    loop->spin.budget_ns = TDL_SPIN_MAX_NS;
    loop->due_ns = TDL_NEVER;
  }
  return status;
}

int tdl_loop_new(treadle_loop **out) {
  treadle_loop *loop = tdl_alloc_aligned(TDL_LINE_BYTES, sizeof(*loop));
  int status = loop == NULL ? TREADLE_ENOMEM : tdl_loop_init(loop);
  if (status != 0) {
    tdl_free(loop);
    return status;
  }
  *out = loop;
  return 0;
}

void tdl_loop_hold(treadle_loop *loop) {
  /* relaxed: the holder has a reference already */
  atomic_fetch_add_explicit(&loop->refs, 1, memory_order_relaxed);
}

/* --- processes ------------------------------------------------------------ */

static int has_far_results(const treadle_loop *loop) {
  return (TDL_UNLIKELY(loop->far_pools != NULL) && tdl_pump_ready(loop)) ||
         (TDL_UNLIKELY(loop->far != NULL) && tdl_upcall_ready(loop->far));
}

/* What they have sent comes into the inbox: how much. */
static int collect_far(treadle_loop *loop) {
  int count = loop->far_pools != NULL ? tdl_pump_home(loop) : 0;
  return loop->far != NULL ? count + tdl_upcall_collect(loop->far, loop)
                           : count;
}

/* How its processes wake it from now on (far.h, F4). */
static void set_away(treadle_loop *loop, enum tdl_link_away away) {
  if (TDL_UNLIKELY(loop->far_pools != NULL)) {
    tdl_pump_away(loop, away);
  }
}

/* --- libuv: timers, and the descriptor for foreign loops ----------------- */

static void ring(void *arg) { /* <parker.B1>, <parker.B2>, <parker.B3> */
  treadle_loop *loop = arg;
  int peer;
  uv_async_send(&loop->bell);
  /* [peer] acquire: the socket is there */
  peer = atomic_load_explicit(&loop->peer, memory_order_acquire);
  if (peer >= 0) { /* L5; full: it is readable already */
    send(peer, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
  }
}

static void rung(uv_async_t *bell) {
  (void)bell; /* the inbox is the truth */
}

/* libuv aborts the process when it closes a descriptor with the number of a
** standard stream. Where one is closed, its number is taken for good. */
static void take_standard_numbers(void) {
  int fd;
  do {
    fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  } while (fd >= 0 && fd <= STDERR_FILENO);
  if (fd >= 0) {
    close(fd);
  }
}

static int need_uv(treadle_loop *loop) {
  uv_loop_t *uv;
  if (loop->uv != NULL) {
    return 0;
  }
  take_standard_numbers();
  uv = tdl_alloc(sizeof(*uv));
  if (uv == NULL) {
    return TREADLE_ENOMEM;
  }
  if (uv_loop_init(uv) != 0) {
    tdl_free(uv);
    return TREADLE_ESYSTEM;
  }
  if (uv_async_init(uv, &loop->bell, rung) != 0) {
    uv_loop_close(uv);
    tdl_free(uv);
    return TREADLE_ESYSTEM;
  }
  uv_run(uv, UV_RUN_NOWAIT); /* registers the bell with the descriptor */
  loop->parker.bell = ring;
  loop->parker.arg = loop;
  loop->uv = uv;
  return 0;
}

static void free_timer(uv_handle_t *handle) {
  tdl_free(TDL_CONTAINER(handle, tdl_timer, uv));
}

static void close_handle(uv_handle_t *handle, void *arg) {
  (void)arg;
  if (!uv_is_closing(handle)) {
    uv_close(handle, handle->type == UV_TIMER ? free_timer : NULL);
  }
}

void tdl_loop_fini(treadle_loop *loop) {
  if (loop->uv != NULL) {
    uv_walk(loop->uv, close_handle, NULL);
    uv_run(loop->uv, UV_RUN_DEFAULT); /* runs the handles' close, no timer */
    uv_loop_close(loop->uv);
    tdl_free(loop->uv);
    loop->uv = NULL;
  }
  /* relaxed: the last one to know it */
  if (atomic_load_explicit(&loop->peer, memory_order_relaxed) >= 0) {
    close(atomic_load_explicit(&loop->peer, memory_order_relaxed));
  }
  /* calls that never came home: the supervisor must not keep them */
  for (tdl_job *job = tdl_jobs_next(&loop->jobs, NULL); job != NULL;
       job = tdl_jobs_next(&loop->jobs, job)) {
    if (job->deadline_ns != TDL_NEVER) {
      tdl_supervisor_forget(job);
    }
    if (job->trace != NULL) {
      tdl_trace_home(job, 0);
    }
  }
  tdl_jobs_fini(&loop->jobs);
  tdl_queue_fini(&loop->inbox);
}

void tdl_loop_drop(treadle_loop *loop) {
  /* [refs] acq_rel: the last one sees what all the others did */
  if (atomic_fetch_sub_explicit(&loop->refs, 1, memory_order_acq_rel) == 1) {
    tdl_loop_fini(loop);
    tdl_free(loop);
  }
}

/* libuv counts from the time that it has kept, in whole milliseconds of the
** clock that we use, too: so this is the timer's own, whenever it is asked. */
static void update_due(treadle_loop *loop) {
  int ms = uv_backend_timeout(loop->uv);
  uint64_t now;
  if (loop->timers == 0 || ms < 0) {
    loop->due_ns = TDL_NEVER;
    return;
  }
  now = tdl_now_ns();
  loop->due_ns = (uv_now(loop->uv) + (uint64_t)ms) * 1000000u;
  if (ms > 0 && loop->due_ns <= now) { /* libuv's may be a coarse one: late */
    loop->due_ns = now + 1000000u;
  }
}

static void fired(uv_timer_t *uv) {
  tdl_timer *timer = TDL_CONTAINER(uv, tdl_timer, uv);
  treadle_loop *loop = timer->loop;
  void (*fire)(void *, uint32_t) = timer->fire;
  void *ctx = timer->ctx;
  uint32_t id = timer->id;
  uv_timer_start(uv, fired, 0, 0); /* once more if an error leaves (L3) */
  fire(ctx, id);
  tdl_timer_stop(timer);
  loop->fired++;
}

int tdl_loop_timer(treadle_loop *loop, uint64_t ns,
                   void (*fire)(void *ctx, uint32_t id), void *ctx, uint32_t id,
                   tdl_timer **out) {
  tdl_timer *timer;
  uint64_t now, due_ms;
  int status = need_uv(loop);
  if (status != 0) {
    return status;
  }
  timer = loop->idle_timers;
  if (timer != NULL) {
    loop->idle_timers = timer->next;
  } else {
    timer = tdl_alloc(sizeof(*timer));
    if (timer == NULL) {
      return TREADLE_ENOMEM;
    }
    uv_timer_init(loop->uv, &timer->uv); /* cannot fail */
    timer->loop = loop;
  }
  timer->fire = fire;
  timer->ctx = ctx;
  timer->id = id;
  timer->active = 1;
  loop->timers++;
  uv_update_time(loop->uv);
  now = uv_now(loop->uv); /* whole milliseconds of the clock we use, too */
  due_ms = (tdl_now_ns() + ns + 999999u) / 1000000u; /* never too early */
  uv_timer_start(&timer->uv, fired, due_ms > now ? due_ms - now : 0, 0);
  update_due(loop);
  *out = timer;
  return 0;
}

void tdl_timer_stop(tdl_timer *timer) {
  treadle_loop *loop = timer->loop;
  if (timer->active) {
    timer->active = 0;
    uv_timer_stop(&timer->uv);
    timer->next = loop->idle_timers;
    loop->idle_timers = timer;
    if (--loop->timers == 0) { /* else the time may come for nothing */
      loop->due_ns = TDL_NEVER;
    }
  }
}

uint64_t tdl_loop_next_ns(const treadle_loop *loop) {
  uint64_t now;
  if (loop->due_ns == TDL_NEVER) {
    return TDL_NEVER;
  }
  now = tdl_now_ns();
  return loop->due_ns > now ? loop->due_ns - now : 0;
}

int tdl_loop_fd(treadle_loop *loop) {
  int status = need_uv(loop);
  return status != 0 ? status : uv_backend_fd(loop->uv);
}

int tdl_loop_join(treadle_loop *loop, int socket) {
  int status = need_uv(loop);
  /* relaxed: it is written here only */
  int peer = atomic_load_explicit(&loop->peer, memory_order_relaxed);
  if (status != 0) {
    return status;
  }
  if (peer < 0) {
    /* [peer] release: the socket is there */
    atomic_store_explicit(&loop->peer, socket, memory_order_release);
    return 0;
  }
  if (dup3(socket, peer, O_CLOEXEC) < 0) { /* L5 */
    return TREADLE_ESYSTEM;
  }
  close(socket);
  return 0;
}

int tdl_loop_arm(treadle_loop *loop) {
  loop->belled = 1;
  set_away(loop, TDL_LINK_ON_BELL);
  tdl_parker_announce(&loop->parker, TDL_BELLED); /* <parker.L1> */
  if (tdl_loop_has_work(loop)) {
    tdl_loop_disarm(loop);
    return 0;
  }
  return 1;
}

void tdl_loop_leave(treadle_loop *loop, int ready) {
  loop->belled = 1;
  set_away(loop, TDL_LINK_ON_BELL);
  tdl_parker_announce(&loop->parker, TDL_BELLED); /* <parker.L2> */
  if (ready || tdl_loop_has_work(loop)) {
    tdl_parker_wake(&loop->parker);
  }
}

void tdl_loop_disarm(treadle_loop *loop) { /* <parker.L3> */
  if (loop->belled) {
    loop->belled = 0;
    set_away(loop, TDL_LINK_HERE);
    tdl_parker_awake(&loop->parker);
    TDL_STALL();
    uv_run(loop->uv, UV_RUN_NOWAIT); /* takes the ring off the descriptor */
    update_due(loop);
  }
}

/* --- the inbox ------------------------------------------------------------ */

void tdl_loop_post(treadle_loop *loop, tdl_node *node) {
  tdl_queue_push(&loop->inbox, node); /* <parker.P1>, <parker.P2> */
  TDL_STALL();
  tdl_parker_wake(&loop->parker);
}

void tdl_loop_ring(treadle_loop *loop) {
  tdl_parker_wake(&loop->parker);
}

void tdl_loop_send_home(tdl_job *job) {
  tdl_loop_post(job->home, &job->node);
  TDL_STAMP(job, SENT);
}

/* Tells the caller. */
static void report(treadle_loop *loop, tdl_job *job, int status,
                   const tdl_bytes *bytes) {
  loop->arriving = job; /* L3 */
  job->done(job, status, bytes, job->ctx);
  loop->arriving = NULL; /* again ours, if there was a dispatch within (L4) */
}

void tdl_loop_tell(tdl_job *job) {
  int status = job->untold;
  job->untold = 0;
  job->away = 1;
  report(job->home, job, status, NULL);
  job->away = 0;
}

void tdl_loop_cancel(tdl_job *job, const char *reason, int force) {
  if (!tdl_job_is_settled(job)) {
    tdl_job_set_reason(job, reason);
    if (force ? tdl_pool_settle_by_force(job)
              : tdl_pool_settle(job, TDL_JOB_CANCELLED)) {
      job->untold = TREADLE_ECANCELLED;
      job->home->untold = 1;
    }
  }
}

/* The job is over for everybody; its caller has been told. */
static void recycle(treadle_loop *loop, tdl_job *job) {
  if (tdl_job_parent(job) != 0 && loop->child_home != NULL) {
    loop->child_home(loop->owner, job);
  }
  tdl_job_set_parent(job, 0);
  tdl_jobs_give(&loop->jobs, job);
}

static void come_home(treadle_loop *loop, tdl_job *job) {
  int settled = tdl_job_is_settled(job);
  TDL_STAMP(job, RECEIVED);
  if (TDL_UNLIKELY(job->timed & TDL_JOB_STREAMED)) {
    job->extras |= TDL_JOB_HAS_STREAM;
  }
  if (TDL_UNLIKELY(job->deadline_ns != TDL_NEVER || settled)) {
    TDL_STALL();
    tdl_supervisor_forget(job);
    if (job->expiring) { /* S2: its expiry comes behind it */
      job->came_home = 1;
      return;
    }
  }
  if (TDL_LIKELY(!settled)) {
    TDL_STAMP(job, OPENED);
    report(loop, job, job->status, &job->bytes);
    TDL_STAMP(job, REPORTED);
  } else if (job->untold != 0) {
    int status = job->untold;
    job->untold = 0;
    report(loop, job, status, NULL);
  } else if (job->awaited) { /* J6 */
    job->awaited = 0;
    report(loop, job, TREADLE_ECANCELLED, NULL);
  } /* else reported when it was settled (J3) */
  recycle(loop, job);
}

static void expired(treadle_loop *loop, tdl_job *job) {
  int came_home = job->came_home;
  job->expiring = 0;
  job->away = !came_home;
  report(loop, job, job->verdict, NULL);
  job->away = 0;
  if (came_home) {
    recycle(loop, job);
  }
}

void tdl_loop_lose(treadle_loop *loop) {
  tdl_job *job = loop->arriving;
  if (job != NULL) {
    loop->arriving = NULL;
    job->next_idle = loop->lost;
    loop->lost = job;
  }
  if (loop->noting != NULL) {
    loop->noting->node.next = loop->lost_notes;
    loop->lost_notes = &loop->noting->node;
    loop->noting = NULL;
  }
  loop->untold = 1; /* those behind the one that is lost */
}

static void ignore(tdl_job *job, int status, const tdl_bytes *bytes,
                   void *ctx) {
  (void)job;
  (void)status;
  (void)bytes;
  (void)ctx;
}

static void stop_timer(uv_handle_t *handle, void *arg) {
  (void)arg;
  if (handle->type == UV_TIMER && !uv_is_closing(handle)) {
    tdl_timer_stop(TDL_CONTAINER(handle, tdl_timer, uv));
  }
}

void tdl_loop_renew(treadle_loop *loop, int settle) {
  tdl_loop_lose(loop);
  for (tdl_job *job = tdl_jobs_next(&loop->jobs, NULL); job != NULL;
       job = tdl_jobs_next(&loop->jobs, job)) {
    job->done = ignore;
    tdl_job_set_parent(job, 0);
    if (settle) {
      tdl_pool_settle(job, TDL_JOB_CANCELLED);
    }
  }
  if (loop->uv != NULL) {
    uv_walk(loop->uv, stop_timer, NULL);
    tdl_loop_disarm(loop);
    update_due(loop);
  }
}

static void arrive(treadle_loop *loop, tdl_node *node);

/* L3 */
static uint32_t report_lost(treadle_loop *loop) {
  uint32_t count = 0;
  while (loop->lost != NULL) {
    tdl_job *job = loop->lost;
    loop->lost = job->next_idle;
    report(loop, job, TREADLE_ENOMEM, NULL);
    if (!job->away) {
      recycle(loop, job);
    }
    job->away = 0;
    count++;
  }
  while (loop->lost_notes != NULL) {
    tdl_node *node = loop->lost_notes;
    loop->lost_notes = node->next;
    arrive(loop, node);
    count++;
  }
  return count;
}

static uint32_t tell_untold(treadle_loop *loop) {
  uint32_t count = 0;
  loop->untold = 0;
  for (tdl_job *job = tdl_jobs_next(&loop->jobs, NULL); job != NULL;
       job = tdl_jobs_next(&loop->jobs, job)) {
    if (job->untold != 0) {
      tdl_loop_tell(job);
      count++;
    }
  }
  return count;
}

static void arrive(treadle_loop *loop, tdl_node *node) {
  switch (node->kind) {
  case TDL_NODE_HOME:
    come_home(loop, TDL_CONTAINER(node, tdl_job, node));
    break;
  case TDL_NODE_WATCHED:
    tdl_trace_home(TDL_CONTAINER(node, tdl_job, node), 1);
    come_home(loop, TDL_CONTAINER(node, tdl_job, node));
    break;
  case TDL_NODE_EXPIRED:
    expired(loop, TDL_CONTAINER(node, tdl_job, expiry));
    break;
  default: {
    tdl_note *note = TDL_CONTAINER(node, tdl_note, node);
    note->arrive(note, loop);
    break;
  }
  }
}

static tdl_node *next_node(treadle_loop *loop) {
  tdl_node *node = loop->held;
  loop->held = NULL;
  if (node == NULL) {
    node = tdl_queue_pop(&loop->inbox);
  }
  if (node == NULL && TDL_UNLIKELY(has_far_results(loop)) &&
      collect_far(loop) > 0) {
    node = tdl_queue_pop(&loop->inbox);
  }
  return node;
}

tdl_job *tdl_loop_next_home(treadle_loop *loop) {
  tdl_node *node = next_node(loop);
  tdl_job *job;
  if (node == NULL) {
    return NULL;
  }
  job = TDL_CONTAINER(node, tdl_job, node);
  TDL_STAMP(job, RECEIVED); /* if it is a job */
  if (node->kind != TDL_NODE_HOME || job->deadline_ns != TDL_NEVER ||
      job->status != 0 || (job->timed & TDL_JOB_STREAMED) ||
      (job->extras & TDL_JOB_HAS_STREAM) || tdl_job_is_settled(job)) {
    loop->held = node;
    return NULL;
  }
  TDL_STAMP(job, OPENED);
  loop->arriving = job;
  return job;
}

void tdl_loop_reported(treadle_loop *loop) {
  tdl_job *job = loop->arriving;
  loop->arriving = NULL;
  recycle(loop, job);
}

void tdl_loop_hold_back(treadle_loop *loop) {
  loop->held = &loop->arriving->node;
  loop->arriving = NULL;
}

static uint32_t fire_timers(treadle_loop *loop) {
  uint32_t count = 0;
  if (loop->due_ns != TDL_NEVER && tdl_now_ns() >= loop->due_ns) {
    uv_run(loop->uv, UV_RUN_NOWAIT);
    update_due(loop);
    count = loop->fired;
    loop->fired = 0;
  }
  return count;
}

uint32_t tdl_loop_dispatch(treadle_loop *loop) {
  uint32_t count = report_lost(loop);
  tdl_node *node;
  if (TDL_UNLIKELY(loop->untold)) {
    count += tell_untold(loop);
  }
  while ((node = next_node(loop)) != NULL) {
    arrive(loop, node);
    count++;
  }
  return count + fire_timers(loop);
}

uint32_t tdl_loop_dispatch_until(treadle_loop *loop, uint64_t end_ns) {
  uint32_t count = report_lost(loop) + fire_timers(loop);
  tdl_node *node;
  if (TDL_UNLIKELY(loop->untold)) {
    count += tell_untold(loop);
  }
  while ((count == 0 || tdl_now_ns() < end_ns) &&
         (node = next_node(loop)) != NULL) {
    arrive(loop, node);
    count++;
  }
  return count;
}

int tdl_loop_has_rest(const treadle_loop *loop) {
  return loop->held != NULL || loop->lost != NULL || loop->lost_notes != NULL ||
         loop->untold;
}

int tdl_loop_is_ready(const treadle_loop *loop) {
  return tdl_queue_ready(&loop->inbox) || tdl_loop_has_rest(loop) ||
         tdl_loop_next_ns(loop) == 0 || has_far_results(loop);
}

int tdl_loop_has_work(const treadle_loop *loop) {
  return !tdl_queue_empty(&loop->inbox) || tdl_loop_has_rest(loop) ||
         tdl_loop_next_ns(loop) == 0 || has_far_results(loop);
}

static int has_arrived(const void *arg) {
  const treadle_loop *loop = arg;
  return tdl_queue_ready(&loop->inbox) || has_far_results(loop);
}

int tdl_loop_spin(treadle_loop *loop) {
  return loop->due_ns == TDL_NEVER && loop->held == NULL &&
         tdl_spin_until(&loop->spin, has_arrived, loop, TDL_NEVER);
}

/* 0 when there is work after all. */
static int sleep_here(treadle_loop *loop, uint64_t ns,
                      const tdl_parker_word *words, uint32_t count) {
  tdl_parker_announce(&loop->parker, TDL_ASLEEP);
  if (!tdl_queue_empty(&loop->inbox) || /* <parker.A2> [park] */
      has_far_results(loop)) {
    tdl_parker_awake(&loop->parker);
    return 0;
  }
  if (count == 0) {
    tdl_parker_sleep(&loop->parker, ns);
  } else {
    tdl_parker_sleep_beside(&loop->parker, ns, words, count);
  }
  return 1;
}

/* The same, while processes may have its calls. */
static int sleep_far(treadle_loop *loop, uint64_t ns) {
  tdl_parker_word words[TDL_PARKER_WORDS];
  uint32_t count = tdl_pump_away_on(loop, words, tdl_parker_most_words());
  int slept = sleep_here(loop, ns, words, count);
  set_away(loop, TDL_LINK_HERE);
  return slept;
}

void tdl_loop_wait(treadle_loop *loop, uint64_t ns) {
  uint64_t next = tdl_loop_next_ns(loop);
  uint64_t start = 0, end, left;
  ns = next < ns ? next : ns;
  if (ns == 0 || tdl_loop_has_work(loop)) {
    return;
  }
  end = ns == TDL_NEVER ? TDL_NEVER : tdl_now_ns() + ns;
  if (tdl_spin_until(&loop->spin, has_arrived, loop, ns)) {
    return;
  }
  start = tdl_now_ns();
  if (start >= end) {
    return;
  }
  left = end == TDL_NEVER ? TDL_NEVER : end - start;
  tdl_jobs_trim(&loop->jobs);
  if (TDL_UNLIKELY(loop->far != NULL)) {
    tdl_upcall_wait(loop->far, loop, left);
    return;
  }
  TDL_STALL();
  if (TDL_LIKELY(loop->far_pools == NULL) ? !sleep_here(loop, left, NULL, 0)
                                          : !sleep_far(loop, left)) {
    return;
  }
  tdl_spin_slept(&loop->spin, tdl_now_ns() - start);
}
