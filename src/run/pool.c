#include "pool.h"

#include <stdio.h>

#include "../base/alloc.h"
#include "../base/compiler.h"
#include "../base/stall.h"
#include "../codec/payload.h"
#include "../confine/policy.h"
#include "debug.h"
#include "guests.h"
#include "hooks.h"
#include "keeper.h"
#include "known.h"
#include "news.h"
#include "phase.h"
#include "pump.h"
#include "supervisor.h"
#include "thread.h"
#include "trace.h"
#include "upcall.h"
#include "watch.h"

/* --- fork ----------------------------------------------------------------- */

static atomic_int forked;

static void in_child(void) {
  atomic_store_explicit(&forked, 1, memory_order_relaxed); /* one thread */
}

static void watch_fork(void) {
  pthread_atfork(NULL, NULL, in_child);
}

int tdl_pool_forked(void) {
  return atomic_load_explicit(&forked, memory_order_relaxed); /* a flag */
}

/* --- open and free -------------------------------------------------------- */

static void free_slot(tdl_slot *slot) {
  tdl_queue_fini(&slot->calls);
  tdl_free(slot);
}

static int new_slot(treadle_pool *pool, uint32_t id, tdl_slot **out) {
  tdl_slot *slot = tdl_alloc_aligned(TDL_LINE_BYTES, sizeof(*slot));
  int status = slot == NULL ? TREADLE_ENOMEM
                            : tdl_queue_init(&slot->calls, TDL_SLOT_CELLS);
  if (status == 0) {
    tdl_worker *worker = NULL;
    status = tdl_worker_new(pool, slot, id, &worker);
    atomic_init(&slot->worker, worker);
    atomic_init(&slot->seat.shut, 0);
    if (status != 0) {
      tdl_queue_fini(&slot->calls);
    }
  }
  if (status != 0) {
    tdl_free(slot);
    return status;
  }
  *out = slot;
  return 0;
}

int tdl_pool_add_slot_locked(treadle_pool *pool) {
  uint32_t n = tdl_pool_slots(pool);
  int status = new_slot(pool, n + 1, &pool->slots[n]);
  if (status == 0) {
    /* seq_cst: before its worker's first look [park] */
    atomic_store_explicit(&pool->threads, n + 1, memory_order_seq_cst);
  }
  return status;
}

tdl_worker *tdl_slot_worker(const tdl_slot *slot) {
  /* [slot] seq_cst: after a call was published; either we see who has the slot
  ** now, or that one sees the call */
  return atomic_load_explicit(&slot->worker, memory_order_seq_cst);
}

static void free_pool(treadle_pool *pool) {
  tdl_worker *w, *next;
  uint32_t slots = tdl_pool_slots(pool);
  tdl_supervisor_forget_pool(pool);
  tdl_watch_drop_trace(pool);
  tdl_debug_drop_names(pool);
  for (uint32_t i = 0; i < slots; i++) {
    tdl_thread_drop_inbox(tdl_slot_worker(pool->slots[i]));
  }
  for (w = pool->lost; w != NULL; w = w->stop.next_lost) {
    tdl_thread_drop_inbox(w);
  }
  for (uint32_t i = 0; i < slots; i++) {
    tdl_worker_free(tdl_slot_worker(pool->slots[i]));
    free_slot(pool->slots[i]);
  }
  for (w = pool->lost; w != NULL; w = next) {
    next = w->stop.next_lost;
    tdl_worker_free(w);
  }
  tdl_free(pool->slots);
  if (pool->stats != NULL) {
    tdl_stats_drop(pool->stats);
  }
  tdl_backlog_fini(&pool->run);
  tdl_hook_drop(pool);
  tdl_known_free(pool->known);
  tdl_keeper_plan_free(pool->plan);
  if (pool->stage != NULL) {
    tdl_stage_drop(pool->stage);
  }
  tdl_policy_free(pool->policy);
  tdl_payload_clear(&pool->boot);
  tdl_bytes_reset(&pool->boot, NULL, 0);
  /* relaxed: the last reference (P1) */
  tdl_free(atomic_load_explicit(&pool->reason, memory_order_relaxed));
  tdl_loop_drop(pool->home);
  tdl_free(pool);
  tdl_supervisor_drop();
}

void tdl_pool_unlist(treadle_pool *pool) {
  treadle_pool **at = &pool->home->far_pools;
  while (*at != NULL && *at != pool) {
    at = &(*at)->next_far;
  }
  if (*at == pool) {
    *at = pool->next_far;
  }
}

void tdl_pool_hold(treadle_pool *pool) {
  /* relaxed: the holder has a reference already */
  atomic_fetch_add_explicit(&pool->refs, 1, memory_order_relaxed);
}

void tdl_pool_drop(treadle_pool *pool) {
  /* [refs] acq_rel: the last one sees what all the others did */
  if (atomic_fetch_sub_explicit(&pool->refs, 1, memory_order_acq_rel) == 1) {
    free_pool(pool);
  }
}

int tdl_pool_open(treadle_loop *home, const tdl_pool_options *options,
                  treadle_pool **out) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  treadle_pool *pool;
  int status;
  pthread_once(&once, watch_fork);
  if (tdl_interrupt_setup() != 0) {
    tdl_keeper_plan_free(options->plan);
    return TREADLE_ESYSTEM;
  }
  if (tdl_pool_forked() || options->max_threads < 1 ||
      options->min_threads > options->max_threads ||
      options->max_threads > TDL_POOL_MAX_WORKERS || options->concurrency < 1 ||
      (options->mortal && options->min_threads != options->max_threads)) {
    tdl_keeper_plan_free(options->plan);
    return TREADLE_EINVAL;
  }
  pool = tdl_alloc_aligned(TDL_LINE_BYTES, sizeof(*pool));
  if (pool == NULL) {
    tdl_keeper_plan_free(options->plan);
    return TREADLE_ENOMEM;
  }
  tdl_supervisor_hold();
  pool->home = home;
  tdl_loop_hold(home);
  pool->concurrency = options->concurrency;
  pool->max_payload = options->max_payload;
  pool->terminate_ns = options->terminate_ns;
  pool->recycle_after = options->recycle_after;
  pool->recycle_bytes = options->recycle_bytes;
  pool->cap_bytes = options->cap_bytes;
  pool->max_queue = options->max_queue;
  pool->helped = options->helped;
  pool->mortal = options->mortal;
  pool->regulated = options->max_queue != TDL_POOL_NO_LIMIT ||
                    options->helped || options->balanced ||
                    options->far != NULL;
  pool->debug = options->debug;
  pool->plan = options->plan;
  pool->far = options->far;
  pool->goes_ahead = options->plan != NULL && !pool->regulated &&
                     options->concurrency == 1 && options->recycle_after == 0 &&
                     options->recycle_bytes == 0;
  pool->trusts_code = options->plan == NULL || options->policy == NULL ||
                      *options->policy == NULL;
  if (pool->plan != NULL) {
    pool->next_far = home->far_pools;
    home->far_pools = pool;
  }
  pool->event = options->event;
  pool->ctx = options->ctx;
  snprintf(pool->name, sizeof(pool->name), "%s", options->name);
  pool->boot = *options->boot;
  tdl_bytes_init(options->boot, NULL, 0);
  if (options->policy != NULL) {
    pool->policy = *options->policy;
    *options->policy = NULL;
  }
  atomic_init(&pool->refs, 1);
  atomic_init(&pool->phase, TDL_POOL_OPEN);
  tdl_watch_set(pool, TDL_WATCH_DEBUG, options->debug != 0);
  tdl_news_init(pool);
  status = tdl_backlog_init(&pool->run);
  if (status == 0) {
    /* so many that nobody who looks at one ever sees them move */
    pool->slots = tdl_calloc(TDL_POOL_MAX_WORKERS * sizeof(*pool->slots));
    status = pool->slots == NULL ? TREADLE_ENOMEM : 0;
  }
  if (status == 0) {
    status = tdl_stats_new(&pool->stats);
  }
  if (status == 0 && pool->plan != NULL) {
    status = tdl_stage_new(pool->max_payload, &pool->stage);
  }
  if (status == 0 && pool->policy != NULL) {
    status = pool->plan != NULL
                 ? tdl_policy_write(pool->policy, &pool->plan->policy)
                 : tdl_supervisor_start();
  }
  if (status == 0) {
    status = tdl_size_open(pool, options->min_threads, options->max_threads,
                           options->idle_ns);
  }
  if (status != 0) {
    /* relaxed: nobody else tells; and nobody is to be told */
    atomic_store_explicit(&pool->told_closed, 1, memory_order_relaxed);
    tdl_pool_stop(pool, TDL_POOL_STOPPED);
    tdl_pool_abandon(pool);
    tdl_pool_drop(pool);
    return status;
  }
  *out = pool;
  return 0;
}

/* --- waking --------------------------------------------------------------- */

static int claim_idle(treadle_pool *pool) {
  uint32_t slots = tdl_pool_slots(pool);
  for (uint32_t w = 0; w * 64 < slots; w++) {
    /* <wake.W3> [park] seq_cst: after the sender published */
    uint64_t bits = atomic_load_explicit(&pool->idle[w], memory_order_seq_cst);
    while (bits != 0) {
      uint64_t bit = bits & (~bits + 1);
      TDL_STALL();
      /* <wake.W4> [idle-bit] seq_cst: one claims it (P3), before it looks at
      ** the parker */
      if (atomic_fetch_and_explicit(&pool->idle[w], ~bit,
                                    memory_order_seq_cst) &
          bit) {
        return (int)(w * 64) + __builtin_ctzll(bit);
      }
      bits &= ~bit;
    }
  }
  return -1;
}

static inline int any_idle(const treadle_pool *pool) {
  uint32_t slots = tdl_pool_slots(pool), w = 0;
  do { /* there is a slot at least */
    /* [park] seq_cst: after the sender published */
    if ((atomic_load_explicit(&pool->idle[w], memory_order_seq_cst) |
         atomic_load_explicit(&pool->abroad[w], memory_order_seq_cst)) != 0) {
      return 1;
    }
  } while (TDL_UNLIKELY(++w * 64 < slots));
  return 0;
}

/* Work waits, and there could be more workers than there are (Z4). */
static int may_ask(const treadle_pool *pool) {
  /* [grow] seq_cst: after the push */
  return TDL_UNLIKELY(atomic_load_explicit(&pool->size.may_grow,
                                           memory_order_seq_cst)) &&
         !atomic_load_explicit(&pool->size.asked, memory_order_seq_cst);
}

static void wake_abroad(treadle_pool *pool) {
  uint32_t slots = tdl_pool_slots(pool);
  for (uint32_t w = 0; w * 64 < slots; w++) {
    /* [park] seq_cst: before the look at the parkers */
    uint64_t bits =
        atomic_exchange_explicit(&pool->abroad[w], 0, memory_order_seq_cst);
    for (; bits != 0; bits &= bits - 1) {
      uint32_t worker = w * 64 + (uint32_t)__builtin_ctzll(bits);
      tdl_parker_wake(&tdl_slot_worker(pool->slots[worker])->loop.parker);
    }
  }
}

void tdl_pool_wake_one(treadle_pool *pool) {
  if (pool->plan != NULL) {
    tdl_pump_feed(pool);
    if (may_ask(pool) && !tdl_backlog_empty(&pool->run)) {
      tdl_size_ask(pool);
    }
    return;
  }
  while (any_idle(pool)) { /* <wake.W1> */
    int expected = 0, worker;
    TDL_STALL();
    /* <wake.W2> [search] seq_cst: either we see the last searcher gone, or it
    ** sees our item when it looks again (P4) */
    if (!atomic_compare_exchange_strong_explicit(&pool->searching, &expected, 1,
                                                 memory_order_seq_cst,
                                                 memory_order_seq_cst)) {
      return;
    }
    TDL_STALL();
    worker = claim_idle(pool);
    TDL_STALL();
    if (worker >= 0) {
      tdl_parker_wake(&tdl_slot_worker(pool->slots[worker])->loop.parker);
      return;
    }
    /* Nobody was left to wake whom one may rely on. A sender that relied on
    ** our count of 1 may have gone, and a worker may have lain down: look
    ** again. */
    wake_abroad(pool);
    /* <wake.W5> [search] seq_cst: see above */
    atomic_fetch_sub_explicit(&pool->searching, 1, memory_order_seq_cst);
    TDL_STALL();
    if (tdl_backlog_empty(&pool->run)) { /* <wake.W6> */
      return;
    }
  }
  if (may_ask(pool) && !tdl_backlog_empty(&pool->run)) {
    tdl_size_ask(pool);
  }
}

void tdl_pool_wake_if_work(treadle_pool *pool) {
  TDL_STALL();
  /* <wake.X2> First the line that rarely changes. Who lies idle after this
  ** look looks at the queue himself (P3). <wake.X3> */
  if ((any_idle(pool) || may_ask(pool)) && !tdl_backlog_empty(&pool->run)) {
    tdl_pool_wake_one(pool);
  }
}

int tdl_pool_lacks_workers(const treadle_pool *pool) {
  /* [search] seq_cst: as the failing compare-and-swap in wake_one */
  return !tdl_backlog_empty(&pool->run) && !any_idle(pool) &&
         atomic_load_explicit(&pool->searching, memory_order_seq_cst) == 0;
}

/* A worker that has just sent a result home takes the next call within a
** moment, and waking another costs twenty times that moment: look first whether
** it takes ours. 1 when somebody did, or searches and will. */
static int is_taken_soon(const treadle_pool *pool) {
  for (int i = 0; i < TDL_POOL_TAKE_PAUSES; i++) {
    /* <wake.S3> <wake.S4> [search] seq_cst: as the failing compare-and-swap in
    ** wake_one */
    if (atomic_load_explicit(&pool->searching, memory_order_seq_cst) != 0 ||
        tdl_backlog_empty(&pool->run)) {
      return 1;
    }
    tdl_pause();
  }
  return 0;
}

/* --- calls ---------------------------------------------------------------- */

/* P2; a guest is as good as a worker's job. */
static int takes(const treadle_pool *pool, const tdl_job *job, uint32_t word) {
  switch (TDL_POOL_PHASE(word)) {
  case TDL_POOL_OPEN:
    return !tdl_pool_forked();
  case TDL_POOL_DRAINING:
    return job->home != pool->home || job->home->guest != 0;
  default:
    return 0;
  }
}

/* It was never counted, and the pool may be gone when it comes home. */
void tdl_pool_refuse(tdl_job *job) {
  job->status = TREADLE_ECLOSED;
  tdl_payload_clear(&job->bytes);
  tdl_loop_send_home(job);
}

int tdl_pool_prepare(treadle_pool *pool, tdl_job *job) {
  treadle_loop *home = job->home;
  /* acquire: as tdl_pool_phase */
  uint32_t word = atomic_load_explicit(&pool->phase, memory_order_acquire);
  int limited = job->deadline_ns != TDL_NEVER;
  /* where the caller counts: a pool's callers are its home and its workers */
  tdl_tally *tally = home == pool->home ? &pool->stats->home : home->tally;
  job->doubted = !pool->trusts_code;
  int status = 0;
  job->pool = pool;
  job->timed = limited ? TDL_JOB_LIMITED : 0;
  job->refused =
      (uint8_t)(TDL_LIKELY(word == TDL_POOL_OPEN) ? tdl_pool_forked()
                                                  : !takes(pool, job, word));
  tdl_jobs_submit(&home->jobs, job);
  if (TDL_UNLIKELY(job->refused)) {
    return 0;
  }
  tdl_stats_submitted(pool->stats, tally, job);
  if (TDL_UNLIKELY(tdl_pool_watch_bits(word) != 0)) {
    tdl_watch_submitted(job);
  }
  if (TDL_UNLIKELY(limited)) {
    status = tdl_supervisor_watch(job);
    if (status != 0) {
      tdl_stats_withdrawn(tally);
      tdl_jobs_withdraw(&home->jobs, job);
      if (tdl_pool_watch_bits(word) != 0) {
        tdl_watch_withdrawn(job);
      }
    }
  }
  return status;
}

static inline void submit(tdl_job *job, enum tdl_rank rank) {
  treadle_pool *pool = job->pool;
  const treadle_loop *home = job->home; /* the job is gone after the push */
  int regulated = pool->regulated;
  if (TDL_UNLIKELY(job->refused)) {
    tdl_pool_refuse(job);
    return;
  }
  if (TDL_UNLIKELY(regulated)) {
    if (pool->far != NULL) {
      tdl_upcall_submit(job, -(int)rank);
      return;
    }
    tdl_pool_load(pool, 1);
  }
  TDL_STALL();
  tdl_backlog_push(&pool->run, &job->node, rank); /* <wake.S1> */
  TDL_STALL();
  /* <wake.S2> */
  if ((TDL_UNLIKELY(any_idle(pool)) || may_ask(pool) ||
       TDL_UNLIKELY(pool->goes_ahead)) &&
      (TDL_UNLIKELY(pool->plan != NULL) || !is_taken_soon(pool))) {
    tdl_pool_wake_one(pool);
  }
  if (TDL_UNLIKELY(regulated) && pool->helped) {
    tdl_news_of_work(pool, home);
  }
}

void tdl_pool_submit(tdl_job *job) {
  submit(job, TDL_RANK_NORMAL);
}

void tdl_pool_submit_ranked(tdl_job *job, enum tdl_rank rank) {
  submit(job, rank);
}

void tdl_pool_submit_to(tdl_job *job, uint32_t worker) {
  treadle_pool *pool = job->pool;
  tdl_slot *slot;
  if (job->refused) {
    tdl_pool_refuse(job);
    return;
  }
  if (pool->far != NULL) {
    tdl_upcall_submit(job, (int)worker);
    return;
  }
  slot = pool->slots[worker - 1];
  tdl_pool_load(pool, 1);
  TDL_STALL();
  tdl_queue_push(&slot->calls, &job->node);
  TDL_STALL();
  tdl_size_sent(pool, slot);
}

void tdl_pool_count_settled(const tdl_job *job, int state, int status) {
  TDL_STALL();
  if (state != 0 && !job->refused) {
    tdl_stats_settled(job->pool->stats, job, state, status);
    if (tdl_watched(job->pool) != 0) {
      tdl_watch_settled(job, state, status);
    }
  }
}

tdl_worker *tdl_pool_settled(const tdl_job *job, int state) {
  if (state == TDL_JOB_QUEUED) {
    tdl_pool_load(job->pool, -1);
  } else if (state == TDL_JOB_RUNNING && job->worker == TDL_JOB_HOSTED) {
    tdl_news_tell(job->pool, TDL_NEWS_SETTLED);
  } else if (state == TDL_JOB_RUNNING && job->worker != 0) {
    return tdl_slot_worker(job->pool->slots[job->worker - 1]);
  }
  return NULL; /* worker 0: it is being refused */
}

int tdl_pool_settle(tdl_job *job, enum tdl_job_state to) {
  treadle_pool *pool = job->pool;
  int state = tdl_pool_settle_use(job, tdl_job_generation(job), to);
  if (state == TDL_JOB_QUEUED && pool->goes_ahead) {
    tdl_pump_recall(pool, 1);
  }
  return state;
}

int tdl_pool_settle_by_force(tdl_job *job) {
  treadle_pool *pool = job->pool;
  int settled = tdl_supervisor_force(job);
  if (settled && pool->goes_ahead) {
    tdl_pump_recall(pool, 1);
  }
  return settled;
}

int tdl_pool_settle_use(tdl_job *job, uint32_t generation,
                        enum tdl_job_state to) {
  int state = tdl_job_settle(job, generation, to);
  tdl_worker *w;
  tdl_pool_count_settled(job, state, TREADLE_ECANCELLED);
  TDL_STALL();
  w = tdl_pool_settled(job, state);
  if (w != NULL) {
    tdl_worker_ask(w, TDL_ASK_CANCEL);
  }
  if (state == TDL_JOB_QUEUED) {
    tdl_upcall_settled(job, to);
  }
  return state;
}

/* --- calls that nobody will run -------------------------------------------- */

int tdl_pool_turn_away(tdl_job *job, int status, const tdl_bytes *report) {
  tdl_stats *stats = job->pool->stats;
  int is_ours = tdl_job_start(job);
  if (is_ours) {
    TDL_STALL();
    tdl_stats_refusing(stats);
    job->status = (int8_t)status;
    tdl_payload_clear(&job->bytes);
    if (report != NULL) {
      tdl_bytes_append(&job->bytes, report->data, report->len);
    }
    if (tdl_job_finish(job)) {
      tdl_stats_refused(stats);
    }
    if (tdl_watched(job->pool) != 0) {
      tdl_watch_refused(job, status);
    }
  }
  tdl_loop_send_home(job);
  return is_ours;
}

static uint32_t cancel_node(treadle_pool *pool, tdl_node *node,
                            const tdl_bytes *report) {
  /* a job that was settled in the queue has given its share back (P6) */
  if (!tdl_pool_turn_away(TDL_CONTAINER(node, tdl_job, node),
                          TREADLE_ECANCELLED, report)) {
    return 0;
  }
  tdl_pool_load(pool, -1);
  return 1;
}

/* As many as there are now: others may go on calling. */
uint32_t tdl_pool_cancel_pending(treadle_pool *pool, const tdl_bytes *report) {
  uint32_t count = 0, got = 0;
  tdl_node *node;
  tdl_pump_give_back(pool);
  for (uint32_t n = tdl_backlog_length(&pool->run);
       n > 0 && (node = tdl_backlog_pop(&pool->run, &got)) != NULL; n--) {
    count += cancel_node(pool, node, report);
  }
  for (uint32_t i = 0; i < tdl_pool_slots(pool); i++) {
    tdl_queue *calls = &pool->slots[i]->calls;
    for (uint32_t n = tdl_queue_length(calls);
         n > 0 && (node = tdl_queue_pop(calls)) != NULL; n--) {
      count += cancel_node(pool, node, report);
    }
  }
  tdl_pump_may_go_ahead(pool);
  /* Who has seen them, and rests, relies on another one to take them (P5, P7).
  */
  tdl_pool_wake_all(pool);
  return count;
}

/* --- closing -------------------------------------------------------------- */

uint32_t tdl_pool_terminate(treadle_pool *pool) {
  tdl_jobs *jobs = &pool->home->jobs;
  uint32_t count = 0;
  tdl_job *job;
  /* Before it is STOPPED: a task fails when its own calls are refused, and
  ** that error must not come first. Nor is a worker told before: it would end
  ** the task's wait and take the next call, which is not settled yet. */
  for (job = tdl_jobs_next(jobs, NULL); job != NULL;
       job = tdl_jobs_next(jobs, job)) {
    int state = 0;
    if (job->pool == pool) {
      state = tdl_job_settle(job, tdl_job_generation(job), TDL_JOB_CLOSED);
      tdl_pool_count_settled(job, state, TREADLE_ECLOSED);
    }
    if (state != 0) {
      job->untold = TREADLE_ECLOSED;
      count++;
    }
  }
  tdl_pump_recall(pool, 1);
  tdl_pool_stop(pool, TDL_POOL_STOPPED);
  tdl_pool_force(pool, TDL_STOP_GRACE_NS);
  /* Last, because it runs the caller's code: it may leave by an error (what is
  ** untold is then told when it comes home), or make calls. */
  for (job = tdl_jobs_next(jobs, NULL); job != NULL;
       job = tdl_jobs_next(jobs, job)) {
    if (job->pool == pool && job->untold) {
      tdl_loop_tell(job);
    }
  }
  return count;
}

void tdl_pool_force(treadle_pool *pool, uint64_t ns) {
  for (uint32_t i = 0; i < tdl_pool_slots(pool); i++) {
    tdl_supervisor_end(tdl_slot_worker(pool->slots[i]), ns);
  }
}

void tdl_pool_recycle(treadle_pool *pool) {
  for (uint32_t i = 0; i < tdl_size_now(pool); i++) {
    tdl_worker *w = tdl_slot_worker(pool->slots[i]);
    tdl_supervisor_end(w, pool->terminate_ns);
    tdl_worker_ask(w, TDL_ASK_RECYCLE);
  }
}

void tdl_pool_lose(treadle_pool *pool, tdl_worker *w) {
  if (w->replaced) { /* else it keeps its slot */
    w->stop.next_lost = pool->lost;
    pool->lost = w;
  }
  tdl_stats_written_off(pool->stats, w->loop.tally);
  tdl_worker_post(w, &w->exited);
}

void tdl_pool_abandon(treadle_pool *pool) {
  tdl_supervisor_quiesce(); /* STOPPED: slots do not change any more */
  for (uint32_t i = 0; i < tdl_pool_slots(pool); i++) {
    tdl_worker *w = tdl_slot_worker(pool->slots[i]);
    if (w->thread_made) {
      w->thread_made = 0;
      if (tdl_worker_leave_alone(w)) {
        pthread_detach(w->thread);
      } else if (!tdl_worker_is_left_alone(w)) {
        pthread_join(w->thread, NULL); /* it posts its note and returns */
      }
    }
  }
  tdl_news_end(pool);
  tdl_pool_unlist(pool);
  pool->event = NULL;
  if (pool->stats != NULL) {
    tdl_stats_closed(pool->stats, 1);
  }
}
