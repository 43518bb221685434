#include "turns.h"

#include "../base/compiler.h"
#include "../base/stall.h"
#include "../base/stamp.h"
#include "far.h"
#include "news.h"
#include "phase.h"
#include "upcall.h"

/* --- taking jobs ---------------------------------------------------------- */

void tdl_turns_stop_searching(tdl_worker *w) {
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
tdl_node *tdl_turns_take_sent(tdl_worker *w) {
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

/* A call of another process' (upcall.h, U4). */
static int is_far_ready(const tdl_worker *w) {
  return TDL_UNLIKELY(w->pool->far != NULL) &&
         (!w->vm->retiring || w->vm->exempt > 0) &&
         tdl_far_ready(w->pool->far, tdl_vm_has_room(w->vm));
}

static tdl_job *take_far(tdl_worker *w) {
  tdl_job *job = is_far_ready(w) ? tdl_far_take(w->pool->far, w) : NULL;
  if (job != NULL || !takes_any(w)) {
    tdl_turns_stop_searching(w);
  }
  return job;
}

/* The next job to run, or NULL. */
static tdl_job *take(tdl_worker *w) {
  tdl_node *node;
  if (TDL_UNLIKELY(w->pool->far != NULL)) {
    return take_far(w);
  }
  if (!tdl_vm_has_room(w->vm)) {
    tdl_turns_stop_searching(w);
    return NULL;
  }
  if (TDL_UNLIKELY(tdl_queue_ready(&w->slot->calls)) &&
      (node = tdl_turns_take_sent(w)) != NULL) {
    tdl_turns_stop_searching(w);
    TDL_STAMP(TDL_CONTAINER(node, tdl_job, node), TAKEN);
    return TDL_CONTAINER(node, tdl_job, node);
  }
  if (TDL_UNLIKELY(w->vm->leaving) && !takes_any(w)) {
    tdl_turns_stop_searching(w);
    return NULL;
  }
  node = tdl_backlog_pop(&w->pool->run, &w->got); /* <wake.T1> */
  if (node == NULL) {
    return NULL;
  }
  TDL_STAMP(TDL_CONTAINER(node, tdl_job, node), TAKEN);
  TDL_STALL();
  if (w->searching) {
    tdl_turns_stop_searching(w);
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

int tdl_turns_have_work(const tdl_worker *w) {
  return tdl_loop_has_work(&w->loop) || tdl_worker_is_asked(w) != 0 ||
         tdl_pool_phase(w->pool) != w->phase || is_claimed(w) || w->vm->turn ||
         tdl_pool_is_watched(w->pool) != w->watched ||
         (tdl_vm_has_room(w->vm) && !tdl_queue_empty(&w->slot->calls)) ||
         (takes_any(w) && !tdl_backlog_empty(&w->pool->run)) || is_far_ready(w);
}

static int is_far_called(const tdl_worker *w) {
  return TDL_UNLIKELY(w->pool->far != NULL) &&
         (is_far_ready(w) || tdl_upcall_ready(w->pool->far));
}

static int is_called(const void *arg) {
  const tdl_worker *w = arg;
  return tdl_backlog_ready(&w->pool->run) || tdl_queue_ready(&w->loop.inbox) ||
         tdl_queue_ready(&w->slot->calls) || is_far_called(w) ||
         tdl_pool_phase(w->pool) != w->phase;
}

static int is_called_home(const void *arg) { /* no room for another job */
  const tdl_worker *w = arg;
  return tdl_queue_ready(&w->loop.inbox) || is_far_called(w) ||
         tdl_pool_phase(w->pool) != w->phase ||
         (tdl_vm_has_room(w->vm) && tdl_queue_ready(&w->slot->calls));
}

static int search(tdl_worker *w) {
  uint64_t limit = tdl_loop_next_ns(&w->loop);
  if (TDL_UNLIKELY(w->pool->far != NULL) && !w->pool->far->spins) {
    return 0; /* others do, for the processors that there are */
  }
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

/* To its parent, if that is another process. */
static void show(const tdl_worker *w) {
  if (TDL_UNLIKELY(w->pool->far != NULL)) {
    tdl_far_show(w->pool->far, w);
  }
}

static int spin(tdl_worker *w) {
  uint32_t weight = tdl_stats_times_spin(w->loop.tally);
  uint64_t start = weight != 0 ? tdl_now_ns() : 0;
  int found = search(w);
  if (TDL_UNLIKELY(weight != 0)) {
    tdl_stats_spun(w->loop.tally, tdl_now_ns() - start, weight);
    show(w);
  }
  return found;
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

/* Nothing is to be done in it for its own pool. */
static int is_idle(tdl_worker *w) {
  return w->vm->progress == 0 && !has_calls(w, 1) &&
         tdl_queue_empty(&w->slot->calls);
}

/* <drain.Q1> Nothing can come of this worker unless somebody sends it
** something, another pool's results included. What looks empty may hold a call
** behind a push that is half done. */
static int is_quiet(tdl_worker *w) {
  return is_idle(w) && tdl_queue_empty(&w->loop.inbox);
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

/* Its script may have something to do before the end. */
static int may_leave(tdl_worker *w, int quiet) {
  tdl_turns_stop_searching(w); /* others must be woken while scripts run */
  return tdl_vm_leave(w->vm, quiet);
}

/* The pool drains: told once. */
static void hear_of_drain(tdl_worker *w) {
  if (!w->vm->is_told) {
    w->vm->is_told = 1;
    may_leave(w, 0);
  }
}

/* Others' results may come again and again, and keep it from sleeping: what
** was left behind calls again. When its patience is over it rests all the same,
** for a moment in each turn. */
static void rest_awake(tdl_worker *w) {
  if (is_idle(w) && !waits_for_others(w) && w->patience == TDL_IS_OVER &&
      may_leave(w, 1)) {
    TDL_STALL();
    tdl_pool_drop_busy(w->pool);
    TDL_STALL();
    tdl_pool_add_busy(w->pool); /* <drain.G1> */
  }
}

static int is_draining(const tdl_worker *w) {
  return w->phase == TDL_POOL_DRAINING || (TDL_UNLIKELY(w->pool->far != NULL) &&
                                           tdl_upcall_is_closing(w->pool->far));
}

/* In a process: its pool, which is the parent's, drains, and it has no job, but
** something to do for itself. */
static int lingers(tdl_worker *w) {
  return is_draining(w) && w->vm->progress == 0 &&
         (waits_for_others(w) || !may_leave(w, 1));
}

int tdl_turns_go_abroad(tdl_worker *w) {
  if (w->pool->far != NULL) {
    tdl_link_set_waiting(&w->pool->far->link, lingers(w));
    tdl_far_announce(w->pool->far, w, TDL_LINK_IN_LOOP);
  }
  if (takes_any(w)) {
    w->is_abroad = 1;
    TDL_STALL();
    /* [park] seq_cst: after the announcement, so that who finds the bit rings
    ** the bell; before the second look (P3) */
    atomic_fetch_or_explicit(&w->pool->abroad[(w->id - 1) / 64],
                             1ull << ((w->id - 1) % 64), memory_order_seq_cst);
    TDL_STALL();
  }
  if (tdl_turns_have_work(w)) {
    return 0;
  }
  if (w->pool->far != NULL) {
    tdl_far_rests(w->pool->far);
  }
  return 1;
}

void tdl_turns_are_back(tdl_worker *w) {
  if (w->pool->far != NULL) {
    tdl_link_awake(&w->pool->far->link);
  }
  if (w->is_abroad) {
    w->is_abroad = 0;
    /* relaxed: who finds it rings in vain */
    atomic_fetch_and_explicit(&w->pool->abroad[(w->id - 1) / 64],
                              ~(1ull << ((w->id - 1) % 64)),
                              memory_order_relaxed);
  }
}

/* Undoes what sleep_on announced; also after an error out of a wait. */
void tdl_turns_get_up(tdl_worker *w) {
  tdl_stats_awake(w->loop.tally, tdl_now_ns());
  show(w);
  rise(w);
  tdl_turns_are_back(w);
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
  if (TDL_UNLIKELY(w->pool->far != NULL)) {
    tdl_far_sleep(w->pool->far, w, is_short ? TDL_HEAP_TRIM_NS : ns);
  } else {
    tdl_parker_sleep(&w->loop.parker, is_short ? TDL_HEAP_TRIM_NS : ns);
  }
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

static void announce(tdl_worker *w) {
  if (TDL_UNLIKELY(w->pool->far != NULL)) {
    tdl_link_set_waiting(&w->pool->far->link, lingers(w));
    tdl_far_announce(w->pool->far, w, TDL_LINK_SLEEPS);
  } else {
    tdl_parker_announce(&w->loop.parker, TDL_ASLEEP);
  }
}

static void wake_up(tdl_worker *w) {
  if (TDL_UNLIKELY(w->pool->far != NULL)) {
    tdl_far_awake(w->pool->far, w);
  } else {
    tdl_parker_awake(&w->loop.parker);
  }
}

static void sleep_on(tdl_worker *w) {
  w->resting = w->phase == TDL_POOL_DRAINING && is_quiet(w) &&
               !waits_for_others(w) && may_leave(w, 1);
  uint64_t start = tdl_now_ns();
  tdl_turns_stop_searching(w);
  TDL_STALL();
  if (w->resting) {
    tdl_pool_drop_busy(w->pool);
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
  show(w);
  if (!tdl_vm_wait(w->vm)) {
    lie_idle(w);
    announce(w);                  /* <wake.Z2> */
    if (tdl_turns_have_work(w)) { /* <wake.Z4> the second look [park] */
      wake_up(w);
    } else {
      sleep_on_parker(w, start); /* <wake.Z5> */
    }
  }
  tdl_turns_get_up(w);
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
  tdl_worker_unask(w, asked & ~(uint32_t)TDL_ASK_LEAVE); /* and no later one */
  if (asked & TDL_ASK_MOVE) { /* after it is unasked: see tdl_worker_is_asked */
    w->vm->leaving = !tdl_size_wants(w);
  }
  if (asked & TDL_ASK_HOOK) { /* the same */
    tdl_bind_take_hook(w->vm);
  }
  if (asked & (TDL_ASK_CANCEL | TDL_ASK_WAKE)) {
    tdl_vm_cancel(w->vm);
  }
  return 1;
}

/* What has ended goes to the parent before other code runs. */
static void flush(tdl_worker *w) {
  if (TDL_UNLIKELY(w->pool->far != NULL)) {
    tdl_far_flush(w->pool->far);
  }
}

/* Step numbers: see turns.h. Returns when the state has come to its end. */
void tdl_turns(tdl_vm *vm) {
  tdl_worker *w = vm->worker;
  for (;;) {
    uint32_t arrived = 0, asked;
    tdl_job *job;
    w->phase = tdl_pool_phase(w->pool); /* <drain.T1> */
    TDL_STALL();
    if (tdl_loop_is_ready(&w->loop)) { /* 1 */
      arrived = tdl_bind_dispatch(vm);
    }
    asked = tdl_worker_is_asked(w);
    if (TDL_UNLIKELY(asked != 0) && !answer(w, asked)) {
      return;
    }
    if (vm->turn) {
      tdl_turns_stop_searching(w); /* others must be woken while scripts run */
      flush(w);
      vm->turn = 0;
      tdl_vm_turn(vm);
      arrived = 1;
    }
    if (w->phase == TDL_POOL_STOPPED || tdl_vm_is_retired(vm) ||
        has_left(w)) { /* 2 */
      tdl_vm_take_leave(vm);
      return;
    }
    if (TDL_UNLIKELY(is_draining(w))) {
      hear_of_drain(w);
      if (arrived && w->pool->far == NULL) {
        rest_awake(w);
      }
    }
    flush(w);
    job = take(w); /* 3 */
    if (job != NULL) {
      tdl_vm_run(vm, job);
    } else if (!arrived && !spin(w)) { /* 4 */
      sleep_on(w);
    }
  }
}
