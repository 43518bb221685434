#include "watch.h"

#include <stdio.h>
#include <string.h>

#include "../base/status.h"
#include "../codec/reader.h"
#include "debug.h"
#include "events.h"
#include "far.h"
#include "news.h"
#include "trace.h"
#include "vm.h"

void tdl_watch_set(treadle_pool *pool, enum tdl_watch who, int on) {
  uint32_t bits = TDL_POOL_WATCH(who);
  /* relaxed: see tdl_watched; it keeps what a release of the phase published */
  if (on) {
    atomic_fetch_or_explicit(&pool->phase, bits, memory_order_relaxed);
  } else {
    atomic_fetch_and_explicit(&pool->phase, ~bits, memory_order_relaxed);
  }
}

static int is_watched_by(const treadle_pool *pool, enum tdl_watch who) {
  return (tdl_watched(pool) & who) != 0;
}

/* Once until the home looks: however fast they change, it hears of that in its
** next turn and not all the time. */
static void tell_counts(treadle_pool *pool) {
  if (is_watched_by(pool, TDL_WATCH_COUNTS) &&
      /* [counts] acq_rel: what was counted, to the home's look */
      !atomic_exchange_explicit(&pool->counts_told, 1, memory_order_acq_rel)) {
    tdl_news_tell(pool, TDL_NEWS_COUNTS);
  }
}

void tdl_watch_look(treadle_pool *pool) {
  /* [counts] acq_rel: who has found it told, counted before that */
  atomic_exchange_explicit(&pool->counts_told, 0, memory_order_acq_rel);
}

/* What its caller hears, or heard when it was settled. */
static int outcome(const tdl_job *job, int status) {
  switch (tdl_job_is_settled(job)) {
  case 0:
    return status;
  case TDL_JOB_EXPIRED:
    return TREADLE_ETIMEOUT;
  case TDL_JOB_CLOSED:
    return TREADLE_ECLOSED;
  default:
    return TREADLE_ECANCELLED;
  }
}

/* The recording, if there is one. */
static tdl_trace *trace_of(const treadle_pool *pool) {
  /* [trace] acquire: it was made */
  return is_watched_by(pool, TDL_WATCH_TRACE)
             ? atomic_load_explicit(&pool->trace, memory_order_acquire)
             : NULL;
}

/* How a call ended. */
static const char *outcome_text(int status) {
  return status == 0 ? "done" : tdl_status_kind(status);
}

/* --- lines ----------------------------------------------------------------- */

/* In a worker's process. */
static int is_from_parent(const tdl_job *job) {
  return job->pool->far != NULL && job->home == job->pool->far->home;
}

/* Who made the call: a worker of the pool, or 0. */
static uint32_t caller_of(const tdl_job *job) {
  return job->home == job->pool->home || is_from_parent(job)
             ? 0
             : TDL_CONTAINER(job->home, const tdl_worker, loop)->id;
}

static double ms_since(uint64_t ns) {
  return (double)(tdl_now_ns() - ns) * 1e-6;
}

static void say_queued(const tdl_job *job) {
  char name[16];
  const char *task = tdl_debug_name(job->pool, job->task, name);
  uint32_t who = caller_of(job);
  tdl_debug_say(job->pool, who, TDL_DEBUG_JOB, "queued %s", task);
  tdl_debug_say(job->pool, who, TDL_DEBUG_PAYLOAD, "%s: arguments, %u bytes",
                task, job->bytes.len);
}

static void say_ended(const tdl_worker *w, const tdl_job *job, int status,
                      uint64_t since_ns) {
  char name[16];
  const char *task = tdl_debug_name(w->pool, job->task, name);
  double ms = since_ns == 0 ? 0 : ms_since(since_ns);
  if (status == 0) {
    tdl_debug_say(w->pool, w->id, TDL_DEBUG_JOB, "done %s %.2fms", task, ms);
  } else {
    tdl_debug_say(w->pool, w->id, TDL_DEBUG_JOB, "failed %s %.2fms: %s", task,
                  ms, tdl_status_kind(status));
  }
  tdl_debug_say(w->pool, w->id, TDL_DEBUG_PAYLOAD, "%s: %s, %u bytes", task,
                status == 0 ? "results" : "error", job->bytes.len);
}

/* The reason of one that is CANCELLED is its home's, which is this thread (J5);
** who settles one otherwise may be the supervisor. */
static const char *why_settled(const tdl_job *job, int status) {
  switch (tdl_job_is_settled(job)) {
  case TDL_JOB_CANCELLED:
    return tdl_job_reason(job);
  case TDL_JOB_FORCED:
    return "by force";
  default:
    return tdl_status_text(status);
  }
}

static void say_settled(const tdl_job *job, int state, int status) {
  char name[16], where[32] = "queued";
  const char *task = tdl_debug_name(job->pool, job->task, name);
  uint32_t who = caller_of(job);
  if (state == TDL_JOB_RUNNING && job->worker == TDL_JOB_HOSTED) {
    snprintf(where, sizeof(where), "running in the host");
  } else if (state == TDL_JOB_RUNNING) {
    snprintf(where, sizeof(where), "running in w%u", job->worker);
  }
  tdl_debug_say(job->pool, who, TDL_DEBUG_JOB, "%s %s, %s",
                tdl_status_kind(status), task, where);
  tdl_debug_say(job->pool, who, TDL_DEBUG_SIGNAL, "%s of %s, %s: %s",
                status == TREADLE_ETIMEOUT     ? "deadline"
                : status == TREADLE_ECANCELLED ? "cancellation"
                                               : "end",
                task, where, why_settled(job, status));
}

/* --- calls ----------------------------------------------------------------- */

void tdl_watch_submitted(tdl_job *job) {
  tdl_trace *trace = trace_of(job->pool);
  if (is_watched_by(job->pool, TDL_WATCH_DEBUG)) {
    say_queued(job);
  }
  if (trace != NULL) {
    tdl_trace_call(trace, job, tdl_now_ns());
  }
  tell_counts(job->pool);
}

void tdl_watch_withdrawn(tdl_job *job) {
  if (job->trace != NULL) {
    tdl_trace_withdrawn(job);
  }
  tell_counts(job->pool);
}

/* One event of a worker's, about a job. */
static void put(tdl_trace *trace, const tdl_worker *w, const tdl_job *job,
                tdl_trace_kind kind, uint64_t ts, uint64_t dur,
                const char *text) {
  tdl_trace_event e = {.ts = ts,
                       .dur = dur,
                       .call = tdl_trace_number(trace, job),
                       .text = text,
                       .task = tdl_job_task(job),
                       .tid = (uint16_t)w->id,
                       .kind = (uint8_t)kind};
  tdl_trace_put(trace, &e);
}

/* The piece of the entry's code that runs is over; now it waits, or has ended:
** `text` says how. */
static void end_piece(tdl_vm *vm, tdl_trace *trace, tdl_entry *e, uint64_t now,
                      const char *text) {
  put(trace, vm->worker, e->job, TDL_TRACE_RUN, vm->piece_ns,
      now - vm->piece_ns, text);
  vm->piece_ns = 0;
}

/* A wait of a call that has no number in this recording cannot be told apart. */
static void tell_wait(tdl_vm *vm, tdl_trace *trace, tdl_entry *e, uint64_t now,
                      int begins) {
  if (e->waits != begins && tdl_trace_number(trace, e->job) != 0) {
    put(trace, vm->worker, e->job,
        begins ? TDL_TRACE_WAIT_BEGINS : TDL_TRACE_WAIT_ENDS, now, 0, NULL);
  }
  e->waits = (uint8_t)begins;
}

/* What a worker that was written off does is nobody's any more; its place has
** another one. */
static tdl_trace *trace_of_worker(const tdl_worker *w) {
  tdl_trace *trace = trace_of(w->pool);
  return trace != NULL && !tdl_worker_is_left_alone(w) ? trace : NULL;
}

void tdl_watch_call_started(tdl_worker *w, const tdl_job *job) {
  tdl_trace *trace = trace_of_worker(w);
  if (is_watched_by(w->pool, TDL_WATCH_EVENTS)) {
    tdl_events_post(w->pool, w->id, "job_start", tdl_job_task(job), NULL, 0);
  }
  tell_counts(w->pool);
  if (is_watched_by(w->pool, TDL_WATCH_DEBUG)) {
    char name[16];
    tdl_debug_say(w->pool, w->id, TDL_DEBUG_JOB, "started %s",
                  tdl_debug_name(w->pool, job->task, name));
  }
  if (trace != NULL) {
    tdl_trace_left_queue(trace, job, w->id);
  }
}

void tdl_watch_started(tdl_vm *vm, tdl_entry *e) {
  const tdl_trace *trace = trace_of_worker(vm->worker);
  tdl_watch_call_started(vm->worker, e->job);
  e->heard_ns = tdl_now_ns();
  vm->piece_ns = trace != NULL ? e->heard_ns : 0;
}

/* To all but the recording. */
static void tell_ended(tdl_worker *w, const tdl_job *job, uint64_t heard_ns,
                       uint64_t now, int status) {
  if (heard_ns != 0 && is_watched_by(w->pool, TDL_WATCH_EVENTS)) {
    tdl_events_post(w->pool, w->id, status == 0 ? "job_done" : "job_error",
                    tdl_job_task(job),
                    status == 0 ? NULL : tdl_status_kind(status),
                    (double)(now - heard_ns) * 1e-9);
  }
  if (is_watched_by(w->pool, TDL_WATCH_DEBUG)) {
    say_ended(w, job, status, heard_ns);
  }
  tell_counts(w->pool);
}

void tdl_watch_ended(tdl_vm *vm, tdl_entry *e, int status) {
  tdl_trace *trace = trace_of_worker(vm->worker);
  uint64_t now = tdl_now_ns();
  status = outcome(e->job, status);
  if (trace != NULL && vm->piece_ns != 0 && e == &vm->entries[vm->current]) {
    end_piece(vm, trace, e, now, outcome_text(status));
  } else if (trace != NULL) {
    tell_wait(vm, trace, e, now, 0);
  }
  tell_ended(vm->worker, e->job, e->heard_ns, now, status);
}

/* What it did in between is not known: one piece. */
void tdl_watch_call_ended(tdl_worker *w, tdl_job *job, uint64_t heard_ns,
                          int status) {
  tdl_trace *trace = trace_of_worker(w);
  uint64_t now = tdl_now_ns();
  status = outcome(job, status);
  if (trace != NULL && heard_ns != 0) {
    put(trace, w, job, TDL_TRACE_RUN, heard_ns, now - heard_ns,
        outcome_text(status));
  }
  tell_ended(w, job, heard_ns, now, status);
}

void tdl_watch_switches(tdl_vm *vm, uint32_t to) {
  tdl_trace *trace = trace_of_worker(vm->worker);
  tdl_entry *from = tdl_vm_entry(vm, vm->current);
  tdl_entry *next = tdl_vm_entry(vm, to);
  uint64_t now;
  if (trace == NULL || (to == vm->current && vm->piece_ns != 0)) {
    return;
  }
  now = tdl_now_ns();
  if (from != NULL && vm->piece_ns != 0) {
    end_piece(vm, trace, from, now, NULL);
    tell_wait(vm, trace, from, now, 1);
  }
  vm->piece_ns = 0;
  if (next != NULL && next->heard_ns != 0) {
    tell_wait(vm, trace, next, now, 0);
    vm->piece_ns = now;
  }
}

static void put_guest(const tdl_job *job, tdl_trace_kind kind) {
  tdl_trace *trace = trace_of(job->pool);
  tdl_trace_event e = {
      .ts = tdl_now_ns(), .task = tdl_job_task(job), .kind = (uint8_t)kind};
  if (trace != NULL && (e.call = tdl_trace_number(trace, job)) != 0) {
    tdl_trace_put(trace, &e);
    if (kind == TDL_TRACE_GUEST_BEGINS) {
      tdl_trace_left_queue(trace, job, 0);
    }
  }
}

static void say_guest(const tdl_job *job, const char *what) {
  char name[16];
  if (is_watched_by(job->pool, TDL_WATCH_DEBUG)) {
    tdl_debug_say(job->pool, 0, TDL_DEBUG_JOB, "%s %s", what,
                  tdl_debug_name(job->pool, job->task, name));
  }
}

void tdl_watch_guest_started(tdl_job *job) {
  say_guest(job, "started");
  put_guest(job, TDL_TRACE_GUEST_BEGINS);
  tell_counts(job->pool);
}

void tdl_watch_guest_ended(tdl_job *job, int status) {
  say_guest(job, status == 0 ? "done" : "failed");
  put_guest(job, TDL_TRACE_GUEST_ENDS);
  tell_counts(job->pool);
}

/* Somebody has ended it who does not run it: on the track of who did. */
static void put_end(const tdl_job *job, int was_queued, int status) {
  tdl_trace *trace = trace_of(job->pool);
  tdl_trace_event e = {.ts = tdl_now_ns(),
                       .text = outcome_text(status),
                       .task = tdl_job_task(job),
                       .kind = TDL_TRACE_END};
  if (trace != NULL && (e.call = tdl_trace_number(trace, job)) != 0) {
    if (was_queued) {
      tdl_trace_left_queue(trace, job, TDL_TRACE_ANY);
    } else if (job->worker != TDL_JOB_HOSTED) {
      e.tid = job->worker;
    }
    tdl_trace_put_common(trace, &e);
  }
}

void tdl_watch_settled(const tdl_job *job, int state, int status) {
  if (is_watched_by(job->pool, TDL_WATCH_DEBUG)) {
    say_settled(job, state, status);
  }
  put_end(job, state == TDL_JOB_QUEUED, status);
  tell_counts(job->pool);
}

void tdl_watch_refused(const tdl_job *job, int status) {
  if (is_watched_by(job->pool, TDL_WATCH_DEBUG)) {
    char name[16];
    tdl_debug_say(job->pool, caller_of(job), TDL_DEBUG_JOB, "%s %s, queued",
                  tdl_status_kind(status),
                  tdl_debug_name(job->pool, job->task, name));
  }
  put_end(job, 1, status);
  tell_counts(job->pool);
}

/* --- workers --------------------------------------------------------------- */

static void put_mark(const tdl_worker *w, tdl_trace *trace, tdl_trace_kind kind,
                     uint64_t ts, const char *text) {
  tdl_trace_event e = {.ts = ts,
                       .dur = tdl_now_ns() - ts,
                       .text = text,
                       .tid = (uint16_t)w->id,
                       .kind = (uint8_t)kind};
  tdl_trace_put_common(trace, &e);
}

void tdl_watch_worker_started(tdl_worker *w, uint64_t since_ns) {
  tdl_trace *trace = trace_of_worker(w);
  if (is_watched_by(w->pool, TDL_WATCH_EVENTS)) {
    tdl_events_post(w->pool, w->id, "worker_start", 0, NULL, 0);
  }
  tdl_debug_say(w->pool, w->id, TDL_DEBUG_WORKER, "started in %.2fms",
                ms_since(since_ns));
  if (trace != NULL) {
    put_mark(w, trace, TDL_TRACE_LOAD, since_ns, NULL);
    put_mark(w, trace, TDL_TRACE_MARK, tdl_now_ns(), "started");
  }
  tell_counts(w->pool);
}

static void end_worker(tdl_worker *w, tdl_trace *trace, const char *reason) {
  if (is_watched_by(w->pool, TDL_WATCH_EVENTS)) {
    tdl_events_post(w->pool, w->id, "worker_exit", 0, reason, 0);
  }
  tdl_debug_say(w->pool, w->id, TDL_DEBUG_WORKER, "exits: %s", reason);
  if (trace != NULL) {
    put_mark(w, trace, TDL_TRACE_MARK, tdl_now_ns(), reason);
  }
  tell_counts(w->pool);
}

void tdl_watch_worker_ends(tdl_worker *w, const char *reason) {
  end_worker(w, trace_of_worker(w), reason);
}

void tdl_watch_worker_lost(tdl_worker *w) {
  end_worker(w, trace_of(w->pool), "stuck");
}

void tdl_watch_load_failed(tdl_worker *w, const tdl_bytes *report, int status) {
  tdl_reader reader;
  tdl_item item;
  uint32_t count;
  uint8_t flags;
  if (report->len > 0 &&
      tdl_get_begin(&reader, report->data, report->len, &count, &flags) == 0 &&
      tdl_get_value(&reader, &item) == 0 && item.kind == TDL_ITEM_STRING) {
    const char *end = memchr(item.string, '\n', item.n);
    tdl_debug_say(
        w->pool, w->id, TDL_DEBUG_LOAD, "failed: %.*s",
        (int)(end != NULL ? end - (const char *)item.string : (long)item.n),
        (const char *)item.string);
  } else {
    tdl_debug_say(w->pool, w->id, TDL_DEBUG_LOAD, "failed: %s",
                  tdl_status_text(status));
  }
}

void tdl_watch_interrupted(tdl_worker *w) {
  tdl_debug_say(w->pool, w->id, TDL_DEBUG_SIGNAL, "interrupted");
}

/* --- recordings ------------------------------------------------------------ */

int tdl_watch_record(treadle_pool *pool, const char *path, const char *title,
                     const char *const *names, uint32_t count,
                     tdl_trace **out) {
  /* relaxed: the home's own */
  tdl_trace *trace = atomic_load_explicit(&pool->trace, memory_order_relaxed);
  int status;
  if (trace == NULL) {
    trace = tdl_trace_new(pool->home);
    if (trace == NULL) {
      return TREADLE_ENOMEM;
    }
    /* [trace] release: it was made */
    atomic_store_explicit(&pool->trace, trace, memory_order_release);
  }
  if (tdl_trace_is_on(trace)) {
    return TREADLE_EINVAL;
  }
  status = tdl_trace_start(trace, path, title, names, count);
  if (status == 0) {
    tdl_watch_set(pool, TDL_WATCH_TRACE, 1);
    *out = trace;
  }
  return status;
}

void tdl_watch_drop_trace(treadle_pool *pool) {
  /* relaxed: the last reference */
  tdl_trace *trace = atomic_load_explicit(&pool->trace, memory_order_relaxed);
  tdl_trace_result result;
  if (trace != NULL) {
    tdl_trace_stop(trace, &result);
    tdl_trace_drop(trace);
  }
}
