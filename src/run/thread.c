#include "thread.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>

#include "../base/stall.h"
#include "../codec/payload.h"
#include "confined.h"
#include "far.h"
#include "hooks.h"
#include "keeper.h"
#include "phase.h"
#include "state.h"
#include "turns.h"
#include "watch.h"

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
void tdl_thread_drop_inbox(tdl_worker *w) {
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

void tdl_thread_refuse_all(treadle_pool *pool) {
  refuse_shared(pool);
  for (uint32_t i = 0; i < tdl_pool_slots(pool); i++) {
    refuse_sent(pool->slots[i]);
  }
  tdl_stats_closed(pool->stats, 0);
}

/* --- notes to the home; run on the home's thread -------------------------- */

/* What a note is for; the caller drops its reference. */
static void tell(tdl_worker *w, tdl_note *note, treadle_loop *at,
                 tdl_pool_event event, const tdl_bytes *bytes) {
  at->noting = note; /* L3 */
  tdl_pool_tell(w->pool, event, w->id, bytes);
  at->noting = NULL;
}

static void on_started(tdl_note *note, treadle_loop *at) {
  tdl_worker *w = TDL_CONTAINER(note, tdl_worker, started);
  tdl_pool_event event = w->boot_status == 0                 ? TDL_POOL_STARTED
                         : w->boot_status == TREADLE_ECLOSED ? TDL_POOL_CUT_OFF
                                                             : TDL_POOL_FAILED;
  tell(w, note, at, event, &w->report);
  tdl_payload_clear(&w->report);
  tdl_pool_drop(w->pool); /* P1: the note's */
}

static void on_renewed(tdl_note *note, treadle_loop *at) {
  tdl_worker *w = TDL_CONTAINER(note, tdl_worker, renewed);
  /* [renewed] acq_rel: what is booted from here on posts again */
  atomic_exchange_explicit(&w->renewing, 0, memory_order_acq_rel);
  tell(w, note, at, TDL_POOL_RENEWED, NULL);
  tdl_pool_drop(w->pool); /* P1: the note's */
}

static void on_failed(tdl_note *note, treadle_loop *at) {
  tdl_worker *w = TDL_CONTAINER(note, tdl_worker, failed);
  tell(w, note, at, TDL_POOL_FAILED, &w->last_words);
  tdl_pool_drop(w->pool); /* P1: the note's */
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
    tdl_thread_drop_inbox(w);
  }
  if (!w->replaced) {
    /* What the home sent after this worker had looked for the last time; from
    ** here on the home sees the pool STOPPED and sends nothing. */
    refuse_sent(w->slot);
  }
  if (w->last) {
    tdl_thread_refuse_all(pool);
  }
  tdl_pool_tell(pool, TDL_POOL_EXITED, w->id, NULL);
  if (w->last) {
    tdl_pool_tell(pool, TDL_POOL_CLOSED, w->id, NULL);
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
      tdl_thread_refuse_all(pool);
    }
  }
  at->noting = note; /* L3 */
  if (w->gone) {
    tdl_pool_tell(pool, TDL_POOL_LEFT, w->id, NULL);
  }
  if (w->gone && w->last) {
    tdl_pool_tell(pool, TDL_POOL_CLOSED, w->id, NULL);
  }
  at->noting = NULL;
  if (w->gone) {
    tdl_size_vacated(w);
    tdl_pool_drop(pool); /* P1: the thread's */
  }
  tdl_size_noted(w);
  tdl_pool_drop(pool); /* P1: the note's */
}

void tdl_thread_init(tdl_worker *w) {
  w->started.node.kind = w->exited.node.kind = TDL_NODE_NOTE;
  w->failed.node.kind = w->renewed.node.kind = TDL_NODE_NOTE;
  w->left.node.kind = TDL_NODE_NOTE;
  w->started.arrive = on_started;
  w->renewed.arrive = on_renewed;
  w->failed.arrive = on_failed;
  w->exited.arrive = on_exited;
  w->left.arrive = on_left;
}

/* --- the states, on the worker's thread ----------------------------------- */

static void name_thread(const tdl_worker *w) {
  char name[16];
  snprintf(name, sizeof(name), "%.9s/%u", w->pool->name, tdl_worker_number(w));
  prctl(PR_SET_NAME, name);
}

static int is_condemned(const tdl_worker *w) {
  return (tdl_worker_is_asked(w) & TDL_ASK_LEAVE) != 0;
}

/* In the three parts of a state's life its thread may be interrupted; what they
** leave undone is undone here, behind tdl_interrupt_run (interrupt.h, I4). */
static int in_boot(void *arg) {
  tdl_worker *w = arg;
  return tdl_state_boot(w->vm, w->booting);
}

static int in_service(void *arg) {
  tdl_worker *w = arg;
  while (tdl_vm_enter(w->vm, tdl_turns) != 0) {
    tdl_turns_get_up(w);
    if (is_condemned(w) || tdl_pool_phase(w->pool) == TDL_POOL_STOPPED) {
      break; /* however often the scheduler runs out of memory */
    }
    tdl_vm_recover(w->vm);
  }
  return 0;
}

static int in_teardown(void *arg) {
  tdl_worker *w = arg;
  tdl_state_tear_down(w->vm);
  return 0;
}

static int in_close(void *arg) {
  tdl_worker *w = arg;
  tdl_state_close(w->vm);
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
    tdl_state_lose(w->vm);
  }
  tdl_interrupt_close(&w->interrupt);
  tdl_state_free(w->vm);
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

void tdl_thread_tell_renewed(tdl_worker *w) {
  /* [renewed] acq_rel: see on_renewed */
  if (!atomic_exchange_explicit(&w->renewing, 1, memory_order_acq_rel)) {
    tdl_worker_post(w, &w->renewed);
  }
}

/* A state of its own, on this thread. */
static int boot_vm(tdl_worker *w, tdl_bytes *report) {
  int status = tdl_confined_begin(w, report);
  if (status == 0) {
    status = tdl_state_open(w, &w->vm);
  }
  if (status == 0) {
    w->booting = report;
    tdl_interrupt_open(&w->interrupt, w->vm->L, is_meant, w);
    status = run_part(w, in_boot);
    if (status == TDL_INTERRUPTED) {
      status = TREADLE_ECRASHED;
      tdl_payload_clear(report);
    }
    if (status != 0 && tdl_interrupt_has_struck(&w->interrupt) &&
        tdl_pool_phase(w->pool) == TDL_POOL_STOPPED) {
      status = TREADLE_ECLOSED; /* the error is the interrupt's */
      tdl_payload_clear(report);
    }
    if (status != 0) {
      close_vm(w);
    }
  }
  if (w->pool->far != NULL) {
    tdl_far_report(w->pool->far, report, w->vm != NULL ? w->vm->task_count : 0);
  }
  return status;
}

static int boot(tdl_worker *w, tdl_bytes *report) {
  uint64_t start = tdl_now_ns();
  int status =
      w->keeper != NULL ? tdl_keeper_boot(w, report) : boot_vm(w, report);
  if (status != 0 && tdl_watched(w->pool) != 0) {
    tdl_watch_load_failed(w, report, status);
  }
  w->has_state = status == 0;
  if (status == 0) {
    tdl_stats_begin(w->pool->stats, w->loop.tally,
                    w->keeper != NULL ? w->keeper->tasks : w->vm->task_count);
    /* release: who reads the count sees the state before it ended */
    atomic_fetch_add_explicit(&w->slot->states, 1, memory_order_release);
    if (w->keeper == NULL) {
      tdl_hook_renew(w);
    }
    tdl_supervisor_counts(w, 1);
    if (tdl_watched(w->pool) != 0) {
      tdl_watch_worker_started(w, start);
    }
  }
  return status;
}

/* What is left when its state has ended; 1 when another one follows. */
static int has_ended(tdl_worker *w, const char *reason) {
  int stopped = tdl_pool_phase(w->pool) == TDL_POOL_STOPPED;
  tdl_supervisor_counts(w, 0);
  if (tdl_watched(w->pool) != 0) {
    tdl_watch_worker_ends(w, stopped ? "closed" : reason);
  }
  w->has_state = 0;
  return !stopped && !w->pool->mortal;
}

/* The same of its process. */
static int end_process(tdl_worker *w) {
  const char *reason;
  tdl_turns_get_up(w);
  tdl_worker_set_life(w, TDL_CLOSING);
  reason = tdl_keeper_end(w);
  tdl_loop_renew(&w->loop, w->keeper->was_lost);
  return has_ended(w, reason);
}

/* Ends the state; 1 when it was asked to, so that another one follows. */
static int end_state(tdl_worker *w) {
  int condemned = is_condemned(w);
  const char *reason = condemned                            ? "stopped"
                       : w->vm->leaving && !w->vm->retiring ? "resized"
                                                            : "recycled";
  int goes_on;
  tdl_turns_get_up(w);
  tdl_turns_stop_searching(w);
  /* relaxed: see note_idle */
  atomic_store_explicit(&w->idle_ns, TDL_NEVER, memory_order_relaxed);
  tdl_vm_abort_all(w->vm); /* may look at whose code runs */
  if (w->pool->far != NULL) {
    tdl_far_flush(w->pool->far);
  }
  tdl_pool_lose_state(w->pool,
                      w->vm->heap.is_over ? TREADLE_ENOMEM : TREADLE_ECRASHED);
  tdl_worker_runs(w, NULL);
  tdl_worker_set_life(w, TDL_CLOSING);
  tdl_loop_renew(&w->loop, condemned);
  if (!condemned) {
    run_part(w, in_teardown);
  }
  goes_on = has_ended(w, reason);
  close_vm(w);
  w->patience = TDL_UNASKED; /* its timer went with the state's */
  return goes_on;
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
    if (w->has_state) {
      tdl_worker_set_life(w, TDL_SERVING);
      tdl_size_serves(w->pool);
      if (w->keeper != NULL) {
        tdl_keeper_serve(w);
        goes_on = end_process(w);
      } else {
        run_part(w, in_service);
        goes_on = end_state(w);
      }
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
      tdl_thread_tell_renewed(w);
    } else if (tdl_size_wants(w) &&
               tdl_pool_phase(w->pool) != TDL_POOL_STOPPED &&
               ++w->tries == TDL_WORKER_LOAD_TRIES) {
      tdl_worker_post(w, &w->failed);
      wait_for_end(w);
    }
  }
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
  tdl_thread_drop_inbox(w);
  if (end == TDL_ENDS) {
    refuse_sent(w->slot);
    TDL_STALL();
    refuse_shared(pool);
    TDL_STALL();
  }
  if (!tdl_worker_has_ended(w)) { /* left alone, and stays so */
    tdl_pool_drop(pool);
  } else {
    treadle_loop *home = pool->home;
    tdl_loop_hold(home); /* until its parker has been looked at */
    tdl_loop_post(home, &w->exited.node); /* the pool's last touch (P1) */
    tdl_loop_drop(home);
  }
  return NULL;
}

/* --- its start ------------------------------------------------------------ */

/* No signal is a worker's: the process's handlers expect the main thread, and
** LuaJIT's profiler would sample the wrong state. */
int tdl_thread_start(tdl_worker *w) {
  pthread_attr_t attr;
  sigset_t all, old;
  int error;
  tdl_worker_unask(w, ~0u); /* what its last thread was asked */
  tdl_payload_clear(&w->report);
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
