#include "worker.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>

#include "../base/alloc.h"
#include "../base/compiler.h"
#include "../base/stall.h"
#include "../base/stamp.h"
#include "events.h"
#include "news.h"
#include "phase.h"
#include "vm.h"

/* --- what nobody will handle any more -------------------------------------- */

static void refuse(tdl_job *job) {
  tdl_pool_turn_away(job, TREADLE_ECLOSED, NULL);
}

/* A message that comes too late for the thread still frees what it brings. */
static void drop_message(tdl_worker *w, tdl_node *node) {
  if (node->kind == TDL_NODE_NOTE) {
    tdl_note *note = TDL_CONTAINER(node, tdl_note, node);
    note->arrive(note, &w->loop);
  }
}

/* Results of its own calls stay where they are: their jobs are freed with it.
*/
static void drop_inbox(tdl_worker *w) {
  tdl_node *node;
  while ((node = tdl_queue_pop(&w->loop.inbox)) != NULL) {
    drop_message(w, node);
  }
}

static void refuse_sent(tdl_slot *slot) {
  tdl_node *node;
  while ((node = tdl_queue_pop(&slot->calls)) != NULL) {
    refuse(TDL_CONTAINER(node, tdl_job, node));
  }
}

static void refuse_shared(treadle_pool *pool) {
  uint32_t got = 0;
  tdl_node *node;
  while ((node = tdl_backlog_pop(&pool->run, &got)) != NULL) {
    refuse(TDL_CONTAINER(node, tdl_job, node));
  }
}

void tdl_worker_refuse_all(treadle_pool *pool) {
  refuse_shared(pool);
  for (uint32_t i = 0; i < tdl_pool_slots(pool); i++) {
    refuse_sent(pool->slots[i]);
  }
  tdl_stats_closed(pool->stats, 0);
}

/* --- notes to the home; run on the home's thread -------------------------- */

static void on_started(tdl_note *note, treadle_loop *at) {
  tdl_worker *w = TDL_CONTAINER(note, tdl_worker, started);
  treadle_pool *pool = w->pool;
  tdl_pool_event event = w->boot_status == 0                 ? TDL_POOL_STARTED
                         : w->boot_status == TREADLE_ECLOSED ? TDL_POOL_CUT_OFF
                                                             : TDL_POOL_FAILED;
  at->noting = note; /* L3 */
  if (pool->event != NULL) {
    pool->event(pool, event, w->id, &w->report, pool->ctx);
  }
  at->noting = NULL;
  tdl_pool_drop(pool); /* P1: the note's */
}

static void on_renewed(tdl_note *note, treadle_loop *at) {
  tdl_worker *w = TDL_CONTAINER(note, tdl_worker, renewed);
  treadle_pool *pool = w->pool;
  /* [renewed] acq_rel: what is booted from here on posts again */
  atomic_exchange_explicit(&w->renewing, 0, memory_order_acq_rel);
  at->noting = note; /* L3 */
  if (pool->event != NULL) {
    pool->event(pool, TDL_POOL_RENEWED, w->id, NULL, pool->ctx);
  }
  at->noting = NULL;
  tdl_pool_drop(pool); /* P1: the note's */
}

static void on_failed(tdl_note *note, treadle_loop *at) {
  tdl_worker *w = TDL_CONTAINER(note, tdl_worker, failed);
  treadle_pool *pool = w->pool;
  at->noting = note; /* L3 */
  if (pool->event != NULL) {
    pool->event(pool, TDL_POOL_FAILED, w->id, &w->last_words, pool->ctx);
  }
  at->noting = NULL;
  tdl_pool_drop(pool); /* P1: the note's */
}

static void on_exited(tdl_note *note, treadle_loop *at) {
  tdl_worker *w = TDL_CONTAINER(note, tdl_worker, exited);
  treadle_pool *pool = w->pool;
  if (w->thread_made && !tdl_worker_is_left_alone(w)) {
    pthread_join(w->thread, NULL); /* it has nothing left to do */
  }
  w->thread_made = 0;
  at->noting = note; /* L3 */
  if (!w->gone) {
    w->gone = 1;
    w->last = tdl_pool_thread_ended(pool);
  }
  if (!tdl_worker_is_left_alone(w)) {
    drop_inbox(w);
  }
  if (!w->replaced) {
    /* What the home sent after this worker had looked for the last time; from
    ** here on the home sees the pool STOPPED and sends nothing. */
    refuse_sent(w->slot);
  }
  if (w->last) {
    tdl_worker_refuse_all(pool);
  }
  if (pool->event != NULL) {
    pool->event(pool, TDL_POOL_EXITED, w->id, NULL, pool->ctx);
  }
  if (pool->event != NULL && w->last) {
    pool->event(pool, TDL_POOL_CLOSED, w->id, NULL, pool->ctx);
  }
  at->noting = NULL;
  tdl_pool_drop(pool); /* P1: the thread's reference came with the note */
}

/* Where nothing calls it back meanwhile, the worker's thread ends here. */
static void on_left(tdl_note *note, treadle_loop *at) {
  tdl_worker *w = TDL_CONTAINER(note, tdl_worker, left);
  treadle_pool *pool = w->pool;
  if (!w->gone && tdl_size_dismiss(w)) {
    pthread_join(w->thread, NULL); /* it has nothing left to do */
    w->gone = 1;
    w->last = tdl_pool_thread_ended(pool);
    if (w->last) {
      tdl_worker_refuse_all(pool);
    }
  }
  at->noting = note; /* L3 */
  if (w->gone && pool->event != NULL) {
    pool->event(pool, TDL_POOL_LEFT, w->id, NULL, pool->ctx);
  }
  if (w->gone && pool->event != NULL && w->last) {
    pool->event(pool, TDL_POOL_CLOSED, w->id, NULL, pool->ctx);
  }
  at->noting = NULL;
  if (w->gone) {
    tdl_size_vacated(w);
    tdl_pool_drop(pool); /* P1: the thread's */
  }
  tdl_size_noted(w);
  tdl_pool_drop(pool); /* P1: the note's */
}

/* --- the worker's thread from here on ------------------------------------- */

static void stop_searching(tdl_worker *w) {
  if (w->searching) {
    w->searching = 0;
    TDL_STALL();
    /* <wake.X1> [search] seq_cst: before the look at the queue (P4) */
    if (atomic_fetch_sub_explicit(&w->pool->searching, 1,
                                  memory_order_seq_cst) == 1) {
      tdl_pool_wake_if_work(w->pool);
    }
  }
}

/* What was sent to its slot goes first, but not for ever: see
** TDL_BACKLOG_TURNS. */
static tdl_node *take_sent(tdl_worker *w) {
  if (w->sent % TDL_BACKLOG_TURNS == TDL_BACKLOG_TURNS - 1 &&
      tdl_backlog_ready(&w->pool->run)) {
    w->sent = 0;
    return NULL;
  }
  w->sent++;
  return tdl_queue_pop(&w->slot->calls);
}

/* It has room for a job of the run queue; if its slot is shut, for no more of
** those than its jobs in progress need (Z2). */
static int takes_any(const tdl_worker *w) {
  return tdl_vm_has_room(w->vm) && (!w->vm->leaving || w->vm->exempt > 0);
}

/* The next job to run, or NULL. */
static tdl_job *take(tdl_worker *w) {
  tdl_node *node;
  if (!tdl_vm_has_room(w->vm)) {
    stop_searching(w);
    return NULL;
  }
  if (TDL_UNLIKELY(tdl_queue_ready(&w->slot->calls)) &&
      (node = take_sent(w)) != NULL) {
    stop_searching(w);
    TDL_STAMP(TDL_CONTAINER(node, tdl_job, node), TAKEN);
    return TDL_CONTAINER(node, tdl_job, node);
  }
  if (TDL_UNLIKELY(w->vm->leaving) && !takes_any(w)) {
    stop_searching(w);
    return NULL;
  }
  node = tdl_backlog_pop(&w->pool->run, &w->got); /* <wake.T1> */
  if (node == NULL) {
    return NULL;
  }
  TDL_STAMP(TDL_CONTAINER(node, tdl_job, node), TAKEN);
  TDL_STALL();
  if (w->searching) {
    stop_searching(w);
  } else if (tdl_backlog_ready(&w->pool->run)) { /* <wake.T2> */
    tdl_pool_wake_one(w->pool);
  }
  return TDL_CONTAINER(node, tdl_job, node);
}

/* Somebody has claimed this worker's idle bit to wake it (P3). */
static int is_claimed(const tdl_worker *w) {
  /* <wake.Z3> [idle-bit] seq_cst: after the announcement [park]. A claimer
  ** clears the bit and then looks at the parker; without this look, one that
  ** came between the bit and the announcement would have woken nobody. */
  return w->lies_idle &&
         !(atomic_load_explicit(&w->pool->idle[(w->id - 1) / 64],
                                memory_order_seq_cst) &
           (1ull << ((w->id - 1) % 64)));
}

static uint32_t is_asked(const tdl_worker *w) {
  /* [asked] seq_cst: after the announcement [park] */
  return atomic_load_explicit(&w->asked, memory_order_seq_cst);
}

int tdl_worker_has_work(const tdl_worker *w) {
  return tdl_loop_has_work(&w->loop) || is_asked(w) != 0 ||
         tdl_pool_phase(w->pool) != w->phase || is_claimed(w) || w->vm->turn ||
         tdl_pool_is_watched(w->pool) != w->watched ||
         (tdl_vm_has_room(w->vm) && !tdl_queue_empty(&w->slot->calls)) ||
         (takes_any(w) && !tdl_backlog_empty(&w->pool->run));
}

static int is_called(const void *arg) {
  const tdl_worker *w = arg;
  return tdl_backlog_ready(&w->pool->run) || tdl_queue_ready(&w->loop.inbox) ||
         tdl_queue_ready(&w->slot->calls) ||
         tdl_pool_phase(w->pool) != w->phase;
}

static int is_called_home(const void *arg) { /* no room for another job */
  const tdl_worker *w = arg;
  return tdl_queue_ready(&w->loop.inbox) ||
         tdl_pool_phase(w->pool) != w->phase ||
         (tdl_vm_has_room(w->vm) && tdl_queue_ready(&w->slot->calls));
}

static int search(tdl_worker *w) {
  uint64_t limit = tdl_loop_next_ns(&w->loop);
  if (!takes_any(w)) {
    return tdl_spin_until(&w->loop.spin, is_called_home, w, limit);
  }
  if (!w->searching) {
    w->searching = 1;
    /* <wake.N1> [search] seq_cst: see tdl_pool_wake_one */
    if (atomic_fetch_add_explicit(&w->pool->searching, 1,
                                  memory_order_seq_cst) > 0) {
      return 0; /* one that spins is enough */
    }
  }
  TDL_STALL();
  return tdl_spin_until(&w->loop.spin, is_called, w, limit); /* <wake.N2> */
}

static int spin(tdl_worker *w) {
  uint32_t weight = tdl_stats_times_spin(w->loop.tally);
  uint64_t start = weight != 0 ? tdl_now_ns() : 0;
  int found = search(w);
  if (TDL_UNLIKELY(weight != 0)) {
    tdl_stats_spun(w->loop.tally, tdl_now_ns() - start, weight);
  }
  return found;
}

int tdl_worker_goes_abroad(tdl_worker *w) {
  if (takes_any(w)) {
    w->is_abroad = 1;
    TDL_STALL();
    /* [park] seq_cst: after the announcement, so that who finds the bit rings
    ** the bell; before the second look (P3) */
    atomic_fetch_or_explicit(&w->pool->abroad[(w->id - 1) / 64],
                             1ull << ((w->id - 1) % 64), memory_order_seq_cst);
    TDL_STALL();
  }
  return !tdl_worker_has_work(w);
}

void tdl_worker_is_back(tdl_worker *w) {
  if (w->is_abroad) {
    w->is_abroad = 0;
    /* relaxed: who finds it rings in vain */
    atomic_fetch_and_explicit(&w->pool->abroad[(w->id - 1) / 64],
                              ~(1ull << ((w->id - 1) % 64)),
                              memory_order_relaxed);
  }
}

static void lie_idle(tdl_worker *w) {
  if (takes_any(w)) {
    w->lies_idle = 1;
    TDL_STALL();
    /* <wake.Z1> [park] seq_cst: before the second look (P3) */
    atomic_fetch_or_explicit(&w->pool->idle[(w->id - 1) / 64],
                             1ull << ((w->id - 1) % 64), memory_order_seq_cst);
    TDL_STALL();
  }
}

static void rise(tdl_worker *w) {
  uint64_t bit = 1ull << ((w->id - 1) % 64);
  if (!w->lies_idle) {
    return;
  }
  w->lies_idle = 0;
  TDL_STALL();
  /* <wake.Z6> [idle-bit] seq_cst: as in claim_idle */
  if (!(atomic_fetch_and_explicit(&w->pool->idle[(w->id - 1) / 64], ~bit,
                                  memory_order_seq_cst) &
        bit)) {
    w->searching = 1; /* the waker counted us (P4) */
  }
}

/* Whether calls of this worker are under way, on its own pool or on others. One
** that was settled is not: it may never come home, if its pool was left to
** itself. */
static int has_calls(const tdl_worker *w, int on_own) {
  const tdl_job *job = tdl_jobs_next(&w->loop.jobs, NULL);
  while (job != NULL &&
         (tdl_job_is_settled(job) || (job->pool == w->pool) != on_own)) {
    job = tdl_jobs_next(&w->loop.jobs, job);
  }
  return job != NULL;
}

/* <drain.Q1> Nothing can come of this worker unless somebody sends it
** something, another pool's results included. What looks empty may hold a call
** behind a push that is half done. */
static int is_quiet(tdl_worker *w) {
  return w->vm->progress == 0 && !has_calls(w, 1) &&
         tdl_queue_empty(&w->slot->calls) && tdl_queue_empty(&w->loop.inbox);
}

static void lose_patience(void *ctx, uint32_t id) {
  tdl_worker *w = ctx;
  (void)id;
  w->patience = TDL_IS_OVER;
}

/* Whether it waits for calls on other pools that ended jobs have left: not for
** longer than terminate_ns. Its state ends with those pools then. */
static int waits_for_others(tdl_worker *w) {
  tdl_timer *timer;
  if (w->patience == TDL_IS_OVER || !has_calls(w, 0)) {
    return 0;
  }
  if (w->patience == TDL_UNASKED) {
    w->patience = TDL_RUNS_OUT;
    if (tdl_loop_timer(&w->loop, w->pool->terminate_ns, lose_patience, w, 0,
                       &timer) != 0) {
      w->patience = TDL_IS_OVER;
      return 0;
    }
  }
  return 1;
}

/* Undoes what sleep_on announced; also after an error out of a wait. */
static void get_up(tdl_worker *w) {
  tdl_stats_awake(w->loop.tally, tdl_now_ns());
  rise(w);
  tdl_worker_is_back(w);
  if (w->calm) {
    w->calm = 0;
    tdl_pool_stir(w->pool);
  }
  if (w->resting) {
    w->resting = 0;
    TDL_STALL();
    tdl_pool_add_busy(w->pool); /* <drain.G1> */
  }
}

/* The first sleep is short if the heap keeps much: a longer one gives it back.
*/
static void sleep_on_parker(tdl_worker *w, uint64_t start) {
  uint64_t ns = tdl_loop_next_ns(&w->loop);
  int is_short = ns > TDL_HEAP_TRIM_NS && tdl_heap_has_excess(&w->vm->heap);
  tdl_parker_sleep(&w->loop.parker, is_short ? TDL_HEAP_TRIM_NS : ns);
  ns = tdl_now_ns() - start;
  tdl_spin_slept(&w->loop.spin, ns);
  if (is_short && ns >= TDL_HEAP_TRIM_NS) {
    tdl_heap_trim(&w->vm->heap);
  }
}

/* Since when it has had no job (Z5): not just since this sleep. */
static void note_idle(tdl_worker *w, uint64_t now) {
  uint64_t since = TDL_NEVER;
  if (w->vm->progress == 0) {
    since = atomic_load_explicit(&w->idle_ns, memory_order_relaxed); /* ours */
    since = w->vm->ended != w->idle_ended || since == TDL_NEVER ? now : since;
    w->idle_ended = w->vm->ended;
  }
  /* relaxed: a late look is repeated */
  atomic_store_explicit(&w->idle_ns, since, memory_order_relaxed);
}

static void sleep_on(tdl_worker *w) {
  w->resting =
      w->phase == TDL_POOL_DRAINING && is_quiet(w) && !waits_for_others(w);
  uint64_t start = tdl_now_ns();
  stop_searching(w);
  TDL_STALL();
  if (w->resting && tdl_pool_rest(w->pool)) { /* <drain.R3> */
    TDL_STALL();
    tdl_pool_stop(w->pool, TDL_POOL_STOPPED);
  }
  w->watched = tdl_pool_is_watched(w->pool);
  w->calm = w->watched && is_quiet(w);
  if (w->calm) {
    tdl_pool_calm(w->pool);
  }
  tdl_jobs_trim(&w->loop.jobs);
  note_idle(w, start);
  tdl_stats_heap(w->loop.tally, tdl_vm_heap_bytes(w->vm));
  tdl_stats_sleeps(w->loop.tally, start);
  if (!tdl_vm_wait(w->vm)) {
    lie_idle(w);
    tdl_parker_announce(&w->loop.parker, TDL_ASLEEP); /* <wake.Z2> */
    if (tdl_worker_has_work(w)) { /* <wake.Z4> the second look [park] */
      tdl_parker_awake(&w->loop.parker);
    } else {
      sleep_on_parker(w, start); /* <wake.Z5> */
    }
  }
  get_up(w);
}

/* Z2: its slot is shut, and it has done what was sent there. */
static int has_left(const tdl_worker *w) {
  return w->vm->leaving && w->vm->progress == 0 &&
         tdl_queue_empty(&w->slot->calls);
}

/* What others have asked for; 0 when it leaves its state. */
static int answer(tdl_worker *w, uint32_t asked) {
  if ((asked & TDL_ASK_LEAVE) && !tdl_supervisor_pardons(w)) {
    return 0;
  }
  if (asked & TDL_ASK_RECYCLE) {
    tdl_vm_retire(w->vm);
  }
  tdl_worker_unask(w, TDL_ASK_RECYCLE | TDL_ASK_CANCEL | TDL_ASK_WAKE |
                          TDL_ASK_MOVE);
  if (asked & TDL_ASK_MOVE) { /* after it is unasked: see is_asked */
    w->vm->leaving = !tdl_size_wants(w);
  }
  if (asked & (TDL_ASK_CANCEL | TDL_ASK_WAKE)) {
    tdl_vm_cancel(w->vm);
  }
  return 1;
}

void tdl_worker_listen(tdl_worker *w) {
  if (TDL_UNLIKELY(is_asked(w) & TDL_ASK_CANCEL)) {
    tdl_worker_ask(w, TDL_ASK_WAKE); /* what only the scheduler can do */
    tdl_worker_unask(w, TDL_ASK_CANCEL);
    tdl_vm_cancel_calls(w->vm);
  }
}

/* Step numbers: see worker.h. Returns when the state has come to its end. */
static void turns(tdl_vm *vm) {
  tdl_worker *w = vm->worker;
  for (;;) {
    uint32_t arrived = 0, asked;
    tdl_job *job;
    w->phase = tdl_pool_phase(w->pool); /* <drain.T1> */
    TDL_STALL();
    if (tdl_loop_is_ready(&w->loop)) { /* 1 */
      arrived = tdl_bind_dispatch(vm);
    }
    asked = is_asked(w);
    if (TDL_UNLIKELY(asked != 0) && !answer(w, asked)) {
      return;
    }
    if (vm->turn) {
      stop_searching(w); /* others must be woken while scripts run */
      vm->turn = 0;
      tdl_vm_turn(vm);
      arrived = 1;
    }
    if (w->phase == TDL_POOL_STOPPED || tdl_vm_is_retired(vm) ||
        has_left(w)) { /* 2 */
      tdl_vm_take_leave(vm);
      return;
    }
    job = take(w); /* 3 */
    if (job != NULL) {
      tdl_vm_run(vm, job);
    } else if (!arrived && !spin(w)) { /* 4 */
      sleep_on(w);
    }
  }
}

static void name_thread(const tdl_worker *w) {
  char name[16];
  snprintf(name, sizeof(name), "%.9s/%u", w->pool->name, w->id);
  prctl(PR_SET_NAME, name);
}

static int is_condemned(const tdl_worker *w) {
  return (is_asked(w) & TDL_ASK_LEAVE) != 0;
}

/* In the three parts of a state's life its thread may be interrupted; what they
** leave undone is undone here, behind tdl_interrupt_run (interrupt.h, I4). */
static int in_boot(void *arg) {
  tdl_worker *w = arg;
  return tdl_vm_boot(w->vm, w->booting);
}

static int in_service(void *arg) {
  tdl_worker *w = arg;
  while (tdl_vm_enter(w->vm, turns) != 0) {
    get_up(w);
    if (is_condemned(w) || tdl_pool_phase(w->pool) == TDL_POOL_STOPPED) {
      break; /* however often the scheduler runs out of memory */
    }
    tdl_vm_recover(w->vm);
  }
  return 0;
}

static int in_teardown(void *arg) {
  tdl_worker *w = arg;
  tdl_vm_tear_down(w->vm);
  return 0;
}

static int in_close(void *arg) {
  tdl_worker *w = arg;
  tdl_vm_close(w->vm);
  return 0;
}

/* 0, or TDL_INTERRUPTED. */
static int run_part(tdl_worker *w, int (*part)(void *)) {
  int status = tdl_interrupt_run(&w->interrupt, part, w);
  if (status == TDL_INTERRUPTED) {
    w->vm->left = 1;
  }
  return status;
}

static void close_vm(tdl_worker *w) {
  tdl_interrupt_seal(&w->interrupt);
  if (run_part(w, in_close) == TDL_INTERRUPTED) {
    tdl_vm_lose(w->vm);
  }
  tdl_interrupt_close(&w->interrupt);
  tdl_vm_free(w->vm);
  w->vm = NULL;
}

/* A state that could not be made, the first one: stays to say no, until the
** home has stopped the pool. */
static void wait_for_end(tdl_worker *w) {
  while (tdl_pool_phase(w->pool) != TDL_POOL_STOPPED) {
    tdl_parker_announce(&w->loop.parker, TDL_ASLEEP);
    if (tdl_pool_phase(w->pool) != TDL_POOL_STOPPED) {
      tdl_parker_sleep(&w->loop.parker, TDL_NEVER);
    }
  }
}

/* In the signal handler: what the request was for may have ended. */
static int is_meant(const void *arg) {
  const tdl_worker *w = arg;
  /* relaxed: a request is repeated */
  return atomic_load_explicit(&w->doomed, memory_order_relaxed) ||
         tdl_worker_runs_forced(w);
}

static void tell_renewed(tdl_worker *w) {
  /* [renewed] acq_rel: see on_renewed */
  if (!atomic_exchange_explicit(&w->renewing, 1, memory_order_acq_rel)) {
    tdl_worker_post(w, &w->renewed);
  }
}

static int boot(tdl_worker *w, tdl_bytes *report) {
  int status = tdl_vm_open(w, &w->vm);
  if (status == 0) {
    w->booting = report;
    tdl_interrupt_open(&w->interrupt, w->vm->L, is_meant, w);
    status = run_part(w, in_boot);
    if (status == TDL_INTERRUPTED) {
      status = TREADLE_ECRASHED;
      report->len = 0;
    }
    if (status != 0 && tdl_interrupt_has_struck(&w->interrupt) &&
        tdl_pool_phase(w->pool) == TDL_POOL_STOPPED) {
      status = TREADLE_ECLOSED; /* the error is the interrupt's */
      report->len = 0;
    }
    if (status != 0) {
      close_vm(w);
    }
  }
  if (status == 0) {
    tdl_stats_begin(w->pool->stats, w->loop.tally, w->vm->task_count);
    /* release: who reads the count sees the state before it ended */
    atomic_fetch_add_explicit(&w->slot->states, 1, memory_order_release);
    if (tdl_events_wanted(w->pool)) {
      tdl_events_post(w->pool, w->id, "worker_start", 0, NULL, 0);
    }
  }
  return status;
}

/* Ends the state; 1 when it was asked to, so that another one follows. */
static int end_state(tdl_worker *w) {
  int stopped = tdl_pool_phase(w->pool) == TDL_POOL_STOPPED;
  int condemned = is_condemned(w);
  get_up(w);
  stop_searching(w);
  /* relaxed: see note_idle */
  atomic_store_explicit(&w->idle_ns, TDL_NEVER, memory_order_relaxed);
  tdl_vm_abort_all(w->vm); /* may look at whose code runs */
  tdl_worker_runs(w, NULL);
  tdl_worker_set_life(w, TDL_CLOSING);
  tdl_loop_renew(&w->loop, condemned);
  if (!condemned) {
    run_part(w, in_teardown);
  }
  if (tdl_events_wanted(w->pool)) {
    tdl_events_post(w->pool, w->id, "worker_exit", 0,
                    stopped                              ? "closed"
                    : condemned                          ? "stopped"
                    : w->vm->leaving && !w->vm->retiring ? "resized"
                                                         : "recycled",
                    0);
  }
  close_vm(w);
  w->patience = TDL_UNASKED; /* its timer went with the state's */
  return !stopped;
}

/* Without a state, until it is to boot one or to end (Z2). */
static enum tdl_standing sit_out(tdl_worker *w) {
  enum tdl_standing standing = tdl_size_standing(w);
  while (standing == TDL_SITS) {
    tdl_loop_dispatch(&w->loop); /* calls that its states have left behind */
    tdl_stats_sleeps(w->loop.tally, tdl_now_ns());
    tdl_parker_announce(&w->loop.parker, TDL_ASLEEP);
    standing = tdl_size_standing(w);
    if (standing == TDL_SITS && !tdl_loop_has_work(&w->loop)) {
      tdl_parker_sleep(&w->loop.parker, TDL_NEVER);
    } else {
      tdl_parker_awake(&w->loop.parker);
    }
    tdl_stats_awake(w->loop.tally, tdl_now_ns());
  }
  return standing;
}

/* All the states after the first one, which is booted. Returns why the thread
** ends. */
static enum tdl_standing live(tdl_worker *w) {
  for (;;) {
    int goes_on;
    enum tdl_standing standing;
    if (w->vm != NULL) {
      tdl_worker_set_life(w, TDL_SERVING);
      tdl_size_serves(w->pool);
      run_part(w, in_service);
      goes_on = end_state(w);
    } else {
      goes_on = tdl_pool_phase(w->pool) != TDL_POOL_STOPPED;
    }
    if (!tdl_supervisor_obeyed(w, !goes_on)) {
      return TDL_LOST;
    }
    standing = goes_on ? sit_out(w) : TDL_ENDS;
    if (standing != TDL_GOES_ON) {
      return standing;
    }
    tdl_stats_restarted(w->pool->stats);
    if (boot(w, &w->last_words) == 0) {
      w->tries = 0;
      tell_renewed(w);
    } else if (tdl_size_wants(w) &&
               tdl_pool_phase(w->pool) != TDL_POOL_STOPPED &&
               ++w->tries == TDL_WORKER_LOAD_TRIES) {
      tdl_worker_post(w, &w->failed);
      wait_for_end(w);
    }
  }
}

/* [last-note] acq_rel: the first to come decides (P1), 1 for it */
static int part(tdl_worker *w, int how) {
  int expected = TDL_TOGETHER;
  return atomic_compare_exchange_strong_explicit(
      &w->parting, &expected, how, memory_order_acq_rel, memory_order_acquire);
}

static void *thread_main(void *arg) {
  tdl_worker *w = arg;
  treadle_pool *pool = w->pool;
  enum tdl_standing end;
  tdl_chance_start(&w->stop.chance);
  name_thread(w);
  w->boot_status = boot(w, &w->report);
  if (w->boot_status == 0 || tdl_size_wants(w)) { /* else it was given up */
    if (!tdl_worker_is_left_alone(w)) {           /* a hint */
      tdl_worker_post(w, &w->started);
    }
    if (w->boot_status != 0) {
      wait_for_end(w);
    }
  }
  end = live(w);
  tdl_stats_end(w->loop.tally);
  if (end == TDL_DISMISSED) { /* what comes now is for its next thread */
    return NULL;
  }
  drop_inbox(w);
  if (end == TDL_ENDS) {
    refuse_sent(w->slot);
    TDL_STALL();
    refuse_shared(pool);
    TDL_STALL();
  }
  if (!part(w, TDL_HAS_ENDED)) { /* left alone, and stays so */
    tdl_pool_drop(pool);
  } else {
    treadle_loop *home = pool->home;
    tdl_loop_hold(home); /* until its parker has been looked at */
    tdl_loop_post(home, &w->exited.node); /* the pool's last touch (P1) */
    tdl_loop_drop(home);
  }
  return NULL;
}

/* --- the worker's share of the load (P6) ------------------------------------ */

#define LOST_PLACES (INT64_MIN / 2) /* whatever is added, it stays below 0 */

void tdl_worker_take_place(tdl_worker *w) {
  if (w->pool->max_queue != TDL_POOL_NO_LIMIT) {
    /* relaxed: the job was in `load` before, and stays there */
    atomic_fetch_add_explicit(&w->places, 1, memory_order_relaxed);
  }
}

void tdl_worker_load(tdl_worker *w, int jobs) {
  if (w->pool->max_queue != TDL_POOL_NO_LIMIT &&
      /* relaxed: one of the two has had the place */
      atomic_fetch_add_explicit(&w->places, jobs, memory_order_relaxed) >= 0) {
    tdl_pool_add_load(w->pool, jobs);
  }
}

void tdl_worker_lose_places(tdl_worker *w) {
  if (w->pool->max_queue != TDL_POOL_NO_LIMIT) {
    /* relaxed: as above */
    int64_t places =
        atomic_exchange_explicit(&w->places, LOST_PLACES, memory_order_relaxed);
    tdl_pool_add_load(w->pool, (int)-places);
  }
}

void tdl_worker_set_running(tdl_worker *w, uint32_t jobs) {
  /* relaxed: the home only compares it with its like */
  atomic_store_explicit(&w->running, jobs, memory_order_relaxed);
}

void tdl_worker_runs(tdl_worker *w, tdl_job *job) {
  /* relaxed: the supervisor's look may be late, a handler's is this thread's */
  atomic_store_explicit(&w->runs, job, memory_order_relaxed);
}

/* --- any thread ------------------------------------------------------------ */

void tdl_worker_ask(tdl_worker *w, enum tdl_ask what) {
  /* [asked] seq_cst: after the job was settled, before the look at the parker
  ** [park] */
  atomic_fetch_or_explicit(&w->asked, what, memory_order_seq_cst);
  tdl_parker_wake(&w->loop.parker);
}

void tdl_worker_unask(tdl_worker *w, uint32_t what) {
  /* [asked] seq_cst: before the look at the jobs' words */
  atomic_fetch_and_explicit(&w->asked, ~what, memory_order_seq_cst);
}

enum tdl_worker_life tdl_worker_life(const tdl_worker *w) {
  /* relaxed: changes by itself, or under the supervisor's lock */
  return (enum tdl_worker_life)atomic_load_explicit(&w->life,
                                                    memory_order_relaxed);
}

void tdl_worker_set_life(tdl_worker *w, enum tdl_worker_life life) {
  atomic_store_explicit(&w->life, life, memory_order_relaxed); /* as above */
}

tdl_job *tdl_worker_running(const tdl_worker *w) {
  return atomic_load_explicit(&w->runs, memory_order_relaxed); /* see runs */
}

int tdl_worker_runs_forced(const tdl_worker *w) {
  const tdl_job *job = tdl_worker_running(w);
  return job != NULL && tdl_job_is_forced(job);
}

uint64_t tdl_worker_idle_since(const tdl_worker *w) {
  uint64_t bit = 1ull << ((w->id - 1) % 64);
  /* relaxed: a late look is repeated */
  return (atomic_load_explicit(&w->pool->idle[(w->id - 1) / 64],
                               memory_order_relaxed) |
          atomic_load_explicit(&w->pool->abroad[(w->id - 1) / 64],
                               memory_order_relaxed)) &
                 bit
             ? atomic_load_explicit(&w->idle_ns, memory_order_relaxed)
             : TDL_NEVER;
}

void tdl_worker_doom(tdl_worker *w, int doomed) {
  /* relaxed: see is_meant */
  atomic_store_explicit(&w->doomed, (uint32_t)doomed, memory_order_relaxed);
}

int tdl_worker_leave_alone(tdl_worker *w) {
  return part(w, TDL_LEFT_ALONE);
}

int tdl_worker_is_left_alone(const tdl_worker *w) {
  /* acquire: what was done before it was left alone */
  return atomic_load_explicit(&w->parting, memory_order_acquire) ==
         TDL_LEFT_ALONE;
}

void tdl_worker_post(tdl_worker *w, tdl_note *note) {
  tdl_pool_hold(w->pool); /* P1: the note's; the thread may end before */
  tdl_loop_post(w->pool->home, &note->node);
}

/* --- the home's thread ---------------------------------------------------- */

static void on_child_home(void *owner, const tdl_job *job) {
  tdl_vm_call_home(owner, job);
}

int tdl_worker_new(treadle_pool *pool, tdl_slot *slot, uint32_t id,
                   tdl_worker **out) {
  tdl_worker *w = tdl_alloc_aligned(TDL_LINE_BYTES, sizeof(*w));
  int status = w == NULL ? TREADLE_ENOMEM : tdl_loop_init(&w->loop);
  if (status != 0) {
    tdl_free(w);
    return status;
  }
  w->pool = pool;
  w->slot = slot;
  w->id = id;
  w->loop.child_home = on_child_home;
  w->started.node.kind = w->exited.node.kind = TDL_NODE_NOTE;
  w->failed.node.kind = w->renewed.node.kind = TDL_NODE_NOTE;
  w->left.node.kind = TDL_NODE_NOTE;
  w->started.arrive = on_started;
  w->renewed.arrive = on_renewed;
  w->failed.arrive = on_failed;
  w->exited.arrive = on_exited;
  w->left.arrive = on_left;
  w->stop.end_ns = w->stop.leave_ns = TDL_NEVER;
  atomic_init(&w->idle_ns, TDL_NEVER);
  atomic_init(&w->life, TDL_ENDED); /* it has no thread */
  tdl_bytes_init(&w->report, NULL, 0);
  tdl_bytes_init(&w->last_words, NULL, 0);
  pthread_mutex_init(&w->lock, NULL);
  *out = w;
  return 0;
}

void tdl_worker_empty(tdl_worker *w) {
  drop_inbox(w);
}

void tdl_worker_free(tdl_worker *w) {
  _Static_assert(offsetof(tdl_worker, loop) == 0, "the loop's is the worker's");
  tdl_bytes_reset(&w->report, NULL, 0);
  tdl_bytes_reset(&w->last_words, NULL, 0);
  pthread_mutex_destroy(&w->lock);
  tdl_loop_drop(&w->loop); /* pools that its tasks made may hold it (L1) */
}

/* No signal is a worker's: the process's handlers expect the main thread, and
** LuaJIT's profiler would sample the wrong state. */
int tdl_worker_start(tdl_worker *w) {
  pthread_attr_t attr;
  sigset_t all, old;
  int error;
  tdl_worker_unask(w, ~0u); /* what its last thread was asked */
  w->report.len = 0;
  w->tries = 0;
  w->gone = 0;
  w->loop.tally = tdl_stats_enter(w->pool->stats, w->id);
  if (w->loop.tally == NULL) {
    return TREADLE_ENOMEM;
  }
  tdl_pool_hold(w->pool); /* P1: the thread's */
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, TDL_WORKER_STACK_BYTES);
  error = pthread_create(&w->thread, &attr, thread_main, w);
  pthread_attr_destroy(&attr);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  if (error != 0) {
    tdl_stats_end(w->loop.tally);
    tdl_pool_drop(w->pool);
    return error == EAGAIN ? TREADLE_ENOMEM : TREADLE_ESYSTEM;
  }
  w->thread_made = 1;
  return 0;
}

int tdl_worker_replace(tdl_worker *w, int starts) {
  tdl_worker *other;
  int status = tdl_worker_new(w->pool, w->slot, w->id, &other);
  if (status != 0) {
    return status;
  }
  if (starts && !tdl_pool_add_thread(w->pool)) {
    tdl_worker_free(other);
    return TREADLE_ECLOSED;
  }
  /* [slot] seq_cst: before the new one's first look at the slot's calls */
  atomic_store_explicit(&w->slot->worker, other, memory_order_seq_cst);
  if (starts) {
    tdl_worker_set_life(other, TDL_BOOTING);
    status = tdl_worker_start(other);
  }
  if (status != 0) {
    tdl_pool_no_thread(w->pool);
    atomic_store_explicit(&w->slot->worker, w, memory_order_seq_cst); /* too */
    tdl_worker_free(other);
  }
  return status;
}
