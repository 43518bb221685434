#include "pump.h"

#include <sched.h>
#include <time.h>

#include "../base/compiler.h"
#include "ahead.h"
#include "errand.h"
#include "far.h"
#include "harvest.h"
#include "news.h"
#include "phase.h"
#include "turns.h"

/* --- room ------------------------------------------------------------------ */

/* It takes calls of the run queue. */
static int takes_any(const tdl_keeper *k) {
  return tdl_keeper_serves(k) == TDL_PUMP_ANY || tdl_keeper_exempt(k) > 0;
}

static int has_room(const tdl_keeper *k) {
  int is_last = tdl_keeper_serves(k) == TDL_PUMP_LAST ||
                (tdl_worker_is_asked(k->worker) & TDL_ASK_RECYCLE);
  return tdl_keeper_serves(k) != TDL_PUMP_SHUT &&
         (!is_last || tdl_keeper_exempt(k) > 0) && !tdl_keeper_is_broken(k) &&
         k->waits == 0 && !tdl_nested_is_late(&k->nested) &&
         tdl_keeper_progress(k) - tdl_keeper_exempt(k) <
             k->worker->pool->concurrency;
}

void tdl_pump_wake(tdl_keeper *k) {
  if (tdl_link_wake(&k->link)) {
    tdl_message message = {.kind = TDL_LINE_WAKE};
    tdl_line_send(k->process.line, &message, TDL_LINE_HEAD_BYTES);
  }
}

int tdl_pump_put(tdl_keeper *k, tdl_record *head, const tdl_bytes *payload) {
  int done;
  if (TDL_UNLIKELY(k->tickets.first != k->tickets.bare)) {
    tdl_ahead_withdraw(k); /* what waits for room would be in its way */
  }
  done = tdl_keeper_serves(k) == TDL_PUMP_SHUT || tdl_keeper_is_broken(k)
             ? 1 /* nobody will read it */
             : tdl_crossing_put(k->crossing, &k->link.out, head, payload);
  if (done > 0) {
    tdl_pump_wake(k);
  } else if (done < 0 && done != TREADLE_EPAYLOAD && done != TREADLE_ENOMEM) {
    tdl_keeper_end_badly(k); /* it has taken what there never was */
  }
  return done;
}

/* --- the lock (H1) --------------------------------------------------------- */

static int try_lock(tdl_keeper *k) {
  /* [pump] seq_cst: after the call was published; either we have the lock, or
  ** who has it looks at the queues when it has given it back */
  return !atomic_exchange_explicit(&k->lock, 1, memory_order_seq_cst);
}

static void unlock(tdl_keeper *k) {
  if (TDL_UNLIKELY(k->copies)) {
    k->copies = 0;
    tdl_link_set_copying(&k->link, 0);
  }
  /* [pump] seq_cst: before the look at the queues */
  atomic_store_explicit(&k->lock, 0, memory_order_seq_cst);
}

static int is_marked(const tdl_keeper *k) {
  /* relaxed: changes under the lock, and who looks without it looks at the
  ** queues afterwards */
  return (atomic_load_explicit(tdl_keeper_idle_word(k), memory_order_relaxed) &
          tdl_keeper_idle_bit(k)) != 0;
}

static void mark_spare(tdl_keeper *k) {
  _Atomic uint64_t *word = &k->worker->pool->spare[(k->worker->id - 1) / 64];
  int spare = tdl_ahead_has_room(k);
  /* relaxed, all: changes under the lock; who looks too early adds to the queue,
  ** at which its keeper looks when its process has ended a job */
  if (spare == ((atomic_load_explicit(word, memory_order_relaxed) &
                 tdl_keeper_idle_bit(k)) != 0)) {
    return;
  }
  if (spare) {
    atomic_fetch_or_explicit(word, tdl_keeper_idle_bit(k),
                             memory_order_relaxed);
  } else {
    atomic_fetch_and_explicit(word, ~tdl_keeper_idle_bit(k),
                              memory_order_relaxed);
  }
}

/* H3 */
static void mark(tdl_keeper *k) {
  int room = has_room(k);
  mark_spare(k);
  if (room == is_marked(k)) {
    return;
  }
  /* [park] seq_cst: before the look at the queues */
  if (room) {
    atomic_fetch_or_explicit(tdl_keeper_idle_word(k), tdl_keeper_idle_bit(k),
                             memory_order_seq_cst);
  } else {
    atomic_fetch_and_explicit(tdl_keeper_idle_word(k), ~tdl_keeper_idle_bit(k),
                              memory_order_seq_cst);
  }
}

void tdl_pump_tell_pool(tdl_keeper *k) {
  const treadle_pool *pool = k->worker->pool;
  tdl_link_set_pool(&k->link, tdl_size_min(pool), tdl_size_now(pool),
                    tdl_pool_phase(pool) != TDL_POOL_OPEN);
}

/* A process that has no job may make calls: for its keeper's thread to see. */
static int has_records(const tdl_keeper *k, int is_own) {
  return (is_own ? tdl_keeper_serves(k) != TDL_PUMP_SHUT
                 : tdl_keeper_progress(k) > 0 && !tdl_harvest_is_owed(k)) &&
         tdl_link_ready(&k->link.in) && !tdl_keeper_is_broken(k);
}

/* But for the run queue. */
static int has_own_more(const tdl_keeper *k) {
  return has_records(k, 0) ||
         (is_marked(k) && !tdl_queue_empty(&k->worker->slot->calls));
}

static int has_more(const tdl_keeper *k, int is_own) {
  return has_own_more(k) ||
         /* [pump] seq_cst: behind the lock */
         atomic_load_explicit(&k->recalls, memory_order_seq_cst) ||
         (is_own && (has_records(k, 1) ||
                     (tdl_keeper_serves(k) != TDL_PUMP_SHUT &&
                      tdl_keeper_said_exempt(k) != tdl_keeper_exempt(k)))) ||
         (is_marked(k) && takes_any(k) &&
          !tdl_backlog_empty(&k->worker->pool->run));
}

/* Others than its thread may: see H1. */
int tdl_pump_is_open(const treadle_pool *pool) {
  return !tdl_pool_forked() && tdl_pool_phase(pool) == TDL_POOL_OPEN &&
         !tdl_pool_is_watched(pool);
}

/* --- feeding --------------------------------------------------------------- */

/* The oldest call that another worker has ahead, if it can be had. Whoever has that
** one's lock sees that this one is idle when he gives it back. */
static tdl_job *take_from(tdl_keeper *other) {
  tdl_job *job;
  if (tdl_tickets_ahead(&other->tickets) == 0 || !try_lock(other)) {
    return NULL;
  }
  job = tdl_ahead_take(other);
  unlock(other);
  if (has_more(other, 0)) { /* see try_lock */
    tdl_parker_wake(&other->worker->loop.parker);
  }
  return job;
}

/* Another worker that has calls ahead, and has ended none for a while (ahead.h, W2); NULL:
** there is none. */
static tdl_keeper *find_stuck(const tdl_keeper *k) {
  const treadle_pool *pool = k->worker->pool;
  uint32_t slots = tdl_pool_slots(pool);
  for (uint32_t i = 0; i < slots; i++) {
    tdl_keeper *other = tdl_slot_worker(pool->slots[i])->keeper;
    if (other != k && tdl_tickets_ahead(&other->tickets) > 0 &&
        tdl_ahead_is_stuck(other)) {
      return other;
    }
  }
  return NULL;
}

tdl_node *tdl_pump_next(tdl_keeper *k) {
  tdl_job *job = k->rescues == NULL ? NULL : take_from(k->rescues);
  if (TDL_UNLIKELY(job != NULL)) {
    return &job->node;
  }
  k->rescues = NULL;
  return tdl_backlog_pop(&k->worker->pool->run, &k->worker->got);
}

/* It has room, which is marked, and there was no call: 1 when it has one now. */
static uint32_t help_others(tdl_keeper *k) {
  const treadle_pool *pool = k->worker->pool;
  tdl_job *job = NULL;
  uint32_t slots =
      tdl_keeper_serves(k) == TDL_PUMP_ANY ? tdl_pool_slots(pool) : 0;
  for (uint32_t i = 0; i < slots && job == NULL; i++) {
    tdl_keeper *other = tdl_slot_worker(pool->slots[i])->keeper;
    job = other == k ? NULL : take_from(other);
  }
  if (job == NULL) {
    return 0;
  }
  tdl_errand_begin(k, job);
  tdl_pump_wake(k);
  return 1;
}

/* What its process may have begun; else what was sent to its slot; what it has ahead;
** or the run queue's. 0 when there is none. */
static int start_next(tdl_keeper *k) {
  tdl_tickets *tickets = &k->tickets;
  tdl_worker *w = k->worker;
  int is_sent = tdl_queue_ready(&w->slot->calls);
  tdl_node *node = NULL;
  if (TDL_UNLIKELY(is_sent) && tickets->first != tickets->bare) {
    tdl_ahead_withdraw(k);
  }
  if (tickets->first == tickets->bare) {
    node = TDL_UNLIKELY(is_sent) ? tdl_turns_take_sent(w) : NULL;
    if (node == NULL && tickets->first == 0 && takes_any(k)) {
      node = tdl_pump_next(k);
    }
  }
  if (node != NULL) {
    tdl_errand_begin(k, TDL_CONTAINER(node, tdl_job, node));
  } else if (TDL_UNLIKELY(tickets->first != 0)) {
    tdl_errand_start(k, tdl_tickets_shift(tickets));
  } else {
    return 0;
  }
  return 1;
}

static uint32_t feed(tdl_keeper *k) {
  uint32_t count = 0;
  if (TDL_UNLIKELY(k->waits != 0) &&
      tdl_errand_call(k, &k->tickets.list[k->waits])) {
    count++;
  }
  k->rescues = k->worker->pool->goes_ahead ? find_stuck(k) : NULL;
  while (has_room(k) && start_next(k)) {
    count++;
  }
  if (k->worker->pool->goes_ahead) {
    count += tdl_ahead_feed(k);
  }
  if (count > 0) {
    tdl_pump_wake(k);
  }
  return count;
}

static uint32_t move(tdl_keeper *k, int is_own) {
  uint32_t count = 0;
  tdl_ahead_heed(k);
  if (tdl_keeper_serves(k) != TDL_PUMP_SHUT) {
    if (is_own) {
      tdl_harvest_set_owed(k, 0);
    }
    tdl_pump_tell_pool(k);
    count = tdl_harvest_is_owed(k) ? 0 : tdl_harvest(k, is_own);
    tdl_errand_exempt(k, tdl_keeper_said_exempt(k));
    count += tdl_nested_answer(k);
  }
  count += feed(k);
  mark(k);
  if (TDL_UNLIKELY(k->worker->pool->goes_ahead) && is_marked(k) &&
      help_others(k) > 0) {
    mark(k);
    count++;
  }
  return count;
}

/* With the lock: it would begin at once; a process that computes does not. */
static int is_free(const tdl_keeper *k) {
  return tdl_keeper_progress(k) == 0 || tdl_link_rests(&k->link);
}

static int feed_all(treadle_pool *pool, const _Atomic uint64_t *words,
                    int if_free);

/* Without the lock: what it has ahead, to who is idle (ahead.h, W1). */
static void offer(const tdl_keeper *k) {
  treadle_pool *pool = k->worker->pool;
  if (TDL_UNLIKELY(tdl_tickets_ahead(&k->tickets) > 0) &&
      tdl_ahead_is_wanted(k)) {
    feed_all(pool, pool->idle, 0);
  }
}

/* `if_free`: only then. */
static uint32_t pump(tdl_keeper *k, int if_free) {
  const treadle_pool *pool = k->worker->pool;
  uint32_t count = 0;
  int open = 1, moves = 1, again;
  do {
    if (!try_lock(k)) {
      return count;
    }
    open = tdl_pump_is_open(pool);
    moves = open && (!if_free || is_free(k));
    if (TDL_LIKELY(moves)) {
      count += move(k, 0);
    }
    unlock(k);
    again = moves ? has_more(k, 0) : has_own_more(k); /* see try_lock */
    if_free = 0;
  } while (open && again);
  if (TDL_UNLIKELY(!tdl_pump_is_open(pool))) {
    tdl_parker_wake(&k->worker->loop.parker);
  }
  offer(k);
  return count;
}

/* Who has it for longer copies something long. */
void tdl_pump_lock(tdl_keeper *k) {
  for (int tries = 0; !try_lock(k); tries++) {
    if (tries < TDL_PUMP_YIELDS) {
      sched_yield();
    } else {
      struct timespec moment = {0, TDL_PUMP_NAP_NS};
      nanosleep(&moment, NULL);
    }
  }
}

void tdl_pump_unlock(tdl_keeper *k) {
  unlock(k);
}

uint32_t tdl_pump_own(tdl_keeper *k) {
  uint32_t count = 0;
  do {
    tdl_pump_lock(k);
    count += move(k, 1);
    unlock(k);
    tdl_nested_go_on(k);
  } while (has_more(k, 1));
  offer(k);
  return count;
}

int tdl_pump_has_more(const tdl_keeper *k) {
  return has_more(k, 1);
}

/* --- for those who call and wait ------------------------------------------- */

/* To those whose bit is set: 1 when nothing is left to be handed over. */
static int feed_all(treadle_pool *pool, const _Atomic uint64_t *words,
                    int if_free) {
  uint32_t slots = tdl_pool_slots(pool);
  for (uint32_t word = 0; word * 64 < slots; word++) {
    /* [park] seq_cst: after the call was published (H3) */
    uint64_t bits = atomic_load_explicit(&words[word], memory_order_seq_cst);
    for (; bits != 0; bits &= bits - 1) {
      uint32_t i = word * 64 + (uint32_t)__builtin_ctzll(bits);
      pump(tdl_slot_worker(pool->slots[i])->keeper, if_free);
      if (tdl_backlog_empty(&pool->run)) {
        return 1;
      }
    }
  }
  return 0;
}

void tdl_pump_feed(treadle_pool *pool) {
  if ((pool->concurrency == 1 || !feed_all(pool, pool->idle, 1)) &&
      !feed_all(pool, pool->idle, 0) && pool->goes_ahead) {
    if (TDL_LIKELY(tdl_backlog_ranks(&pool->run) == NULL)) {
      feed_all(pool, pool->spare, 0);
    } else {
      tdl_pump_recall(pool, 0);
    }
  }
}

/* What it has ahead is not to be in the way of that. */
void tdl_pump_sent(tdl_worker *w) {
  tdl_keeper *k = w->keeper;
  if (TDL_UNLIKELY(tdl_tickets_ahead(&k->tickets) > 0)) {
    /* [pump] seq_cst: before the look at the lock */
    atomic_store_explicit(&k->recalls, 1, memory_order_seq_cst);
  }
  pump(k, 0);
}

void tdl_pump_recall(treadle_pool *pool, int waits) {
  uint32_t slots =
      pool->goes_ahead && !tdl_pool_forked() ? tdl_pool_slots(pool) : 0;
  /* [ahead] seq_cst: between what was settled and the looks what is ahead */
  atomic_thread_fence(memory_order_seq_cst);
  for (uint32_t i = 0; i < slots; i++) {
    tdl_keeper *k = tdl_slot_worker(pool->slots[i])->keeper;
    if (tdl_tickets_ahead(&k->tickets) == 0) {
      continue;
    }
    /* [pump] seq_cst: before the look at the lock; and until it was heeded */
    atomic_store_explicit(&k->recalls, 1, memory_order_seq_cst);
    while (atomic_load_explicit(&k->recalls, memory_order_seq_cst)) {
      if (try_lock(k)) {
        tdl_ahead_heed(k);
        tdl_pump_leave(k);
      } else if (waits) {
        sched_yield();
      } else {
        break;
      }
    }
  }
}

void tdl_pump_give_back(treadle_pool *pool) {
  uint32_t slots =
      pool->goes_ahead && !tdl_pool_forked() ? tdl_pool_slots(pool) : 0;
  /* relaxed: the locks come between */
  atomic_fetch_add_explicit(&pool->stays, 1, memory_order_relaxed);
  for (uint32_t i = 0; i < slots; i++) {
    tdl_keeper *k = tdl_slot_worker(pool->slots[i])->keeper;
    tdl_pump_lock(k);
    tdl_ahead_give_back(k, 1);
    tdl_pump_unlock(k); /* for who takes them out */
  }
}

void tdl_pump_may_go_ahead(treadle_pool *pool) {
  /* relaxed: as above */
  atomic_fetch_sub_explicit(&pool->stays, 1, memory_order_relaxed);
}

int tdl_pump_home(treadle_loop *loop) {
  uint32_t count = 0;
  for (treadle_pool *p = loop->far_pools; p != NULL; p = p->next_far) {
    uint32_t slots = tdl_pool_slots(p);
    for (uint32_t i = 0; i < slots; i++) {
      tdl_keeper *k = tdl_slot_worker(p->slots[i])->keeper;
      if (has_records(k, 0)) {
        count += pump(k, 0);
      }
    }
  }
  return (int)count;
}

int tdl_pump_ready(const treadle_loop *loop) {
  for (const treadle_pool *p = loop->far_pools; p != NULL; p = p->next_far) {
    uint32_t slots = tdl_pool_slots(p);
    for (uint32_t i = 0; i < slots; i++) {
      const tdl_keeper *k = tdl_slot_worker(p->slots[i])->keeper;
      if (has_records(k, 0) && tdl_pump_is_open(p)) {
        return 1;
      }
    }
  }
  return 0;
}

/* How the home sleeps: on the process's word, if there is room and it has calls. */
static uint32_t tell_away(tdl_keeper *k, enum tdl_link_away away,
                          tdl_parker_word *words, uint32_t most) {
  uint32_t count = 0;
  tdl_pump_lock(k); /* its memory may just be another process's */
  if (most > 0 && tdl_keeper_progress(k) > 0) {
    away = TDL_LINK_ON_WORD;
    words[count++] = (tdl_parker_word){tdl_link_away_word(&k->link), away};
  }
  tdl_link_set_away(&k->link, away);
  tdl_pump_leave(k);
  return count;
}

static uint32_t tell_all_away(treadle_loop *loop, enum tdl_link_away away,
                              tdl_parker_word *words, uint32_t most) {
  uint32_t count = 0;
  if (tdl_pool_forked()) {
    return 0; /* it is the parent's memory, too */
  }
  for (treadle_pool *p = loop->far_pools; p != NULL; p = p->next_far) {
    uint32_t slots = tdl_pool_slots(p);
    for (uint32_t i = 0; i < slots; i++) {
      count += tell_away(tdl_slot_worker(p->slots[i])->keeper, away,
                         words + count, most - count);
    }
  }
  return count;
}

void tdl_pump_away(treadle_loop *loop, enum tdl_link_away away) {
  tell_all_away(loop, away, NULL, 0);
}

uint32_t tdl_pump_away_on(treadle_loop *loop, tdl_parker_word *words,
                          uint32_t most) {
  return tell_all_away(loop, TDL_LINK_ON_BELL, words, most);
}

/* Who wanted it meanwhile has left it to us [pump]. */
void tdl_pump_leave(tdl_keeper *k) {
  unlock(k);
  if (has_more(k, 0)) {
    pump(k, 0);
  }
}

const tdl_job *tdl_pump_job(tdl_keeper *k, uint32_t ticket,
                            uint32_t *generation) {
  const tdl_ticket *found = NULL;
  const tdl_job *job = NULL;
  if (tdl_pool_forked()) {
    return NULL; /* it is the parent's */
  }
  tdl_pump_lock(k);
  if (ticket != 0) {
    found = tdl_tickets_find(&k->tickets, ticket);
  }
  for (uint32_t i = 1; ticket == 0 && i < k->tickets.count; i++) {
    const tdl_ticket *t = &k->tickets.list[i];
    if (t->job != NULL && t->record != 0 &&
        tdl_link_has_taken(&k->link.out, t->record) &&
        (found == NULL || t->record > found->record)) {
      found = t;
    }
  }
  if (found != NULL) {
    job = found->job;
    *generation = tdl_job_generation(job);
  }
  tdl_pump_leave(k);
  return job;
}

/* --- for the worker's thread ----------------------------------------------- */

int tdl_pump_is_idle(const tdl_keeper *k) {
  return tdl_keeper_progress(k) == 0 && tdl_tickets_ahead(&k->tickets) == 0;
}

int tdl_pump_retire(tdl_keeper *k) {
  int is_idle;
  tdl_pump_lock(k);
  is_idle = tdl_pump_is_idle(k);
  if (is_idle) {
    atomic_store_explicit(&k->serves, TDL_PUMP_SHUT,
                          memory_order_relaxed); /* H1 */
    mark(k);
  }
  tdl_pump_unlock(k);
  return is_idle;
}

void tdl_pump_serve(tdl_keeper *k, enum tdl_pump_serves serves) {
  uint32_t given = 0;
  tdl_pump_lock(k);
  if (serves == TDL_PUMP_LAST || serves == TDL_PUMP_SENT) {
    given = tdl_ahead_give_back(k, serves == TDL_PUMP_LAST);
  }
  if (tdl_keeper_serves(k) ==
      TDL_PUMP_SHUT) { /* it has just booted, or it ends */
    tdl_errand_progress(k, tdl_keeper_progress(k));
  }
  atomic_store_explicit(&k->serves, (int)serves, memory_order_relaxed); /* H1 */
  mark(k);
  tdl_pump_unlock(k);
  if (TDL_UNLIKELY(given > 0)) {
    tdl_pool_wake_one(k->worker->pool);
  }
}

void tdl_pump_lose(tdl_keeper *k, int status, const char *text) {
  int stopped;
  do {
    tdl_pump_lock(k);
    atomic_store_explicit(&k->serves, TDL_PUMP_SHUT,
                          memory_order_relaxed); /* H1 */
    mark(k);
    tdl_harvest(k, 1);
    tdl_pump_unlock(k);
    tdl_nested_go_on(k);
  } while (tdl_link_ready(&k->link.in) && !tdl_keeper_is_broken(k));
  stopped = tdl_pool_phase(k->worker->pool) == TDL_POOL_STOPPED;
  tdl_pump_lock(k);
  tdl_errand_exempt(k, 0);
  while (k->tickets.first != 0) {
    tdl_ahead_lose(k, stopped);
  }
  for (uint32_t i = 1; i < k->tickets.count; i++) {
    tdl_ticket *t = &k->tickets.list[i];
    int begun = tdl_errand_had_begun(k, t);
    if (t->job != NULL && (begun || stopped)) {
      tdl_errand_fail(k, t, status, text);
    } else if (t->job != NULL) {
      tdl_errand_take_back(k, t);
    }
  }
  tdl_nested_lose(k);
  tdl_pump_unlock(k);
}

int tdl_pump_lacks_room(tdl_keeper *k) {
  int lacks;
  tdl_pump_lock(k);
  lacks = k->waits != 0 || k->owes || tdl_nested_is_late(&k->nested);
  tdl_pump_unlock(k);
  return lacks;
}

static void tell(const tdl_keeper *k, tdl_ticket *t, int state) {
  tdl_message m = {
      .kind = TDL_LINE_SETTLE, .ticket = t->number, .value = (uint64_t)state};
  if (state != TDL_JOB_EXPIRED) { /* J5 */
    tdl_message_say(&m, tdl_job_reason(t->job));
  }
  if (tdl_line_send(k->process.line, &m, TDL_LINE_HEAD_BYTES + m.length) == 0) {
    t->told = state;
  }
}

uint64_t tdl_pump_tell_settled(tdl_keeper *k) {
  uint64_t end = TDL_NEVER;
  tdl_pump_lock(k);
  k->owes = 0;
  for (uint32_t i = 1; i < k->tickets.count; i++) {
    tdl_ticket *t = &k->tickets.list[i];
    int state = t->job != NULL ? tdl_job_is_settled(t->job) : 0;
    if (state == 0) {
      if (t->job != NULL && t->record != 0 && tdl_job_stream(t->job) != NULL) {
        tdl_harvest_credit(k, t);
      }
      continue;
    }
    if (t->told == 0 && (t->record != 0 || !t->is_ahead)) {
      tell(k, t, state);
    }
    if (state != TDL_JOB_CANCELLED && t->end_ns == TDL_NEVER &&
        !t->is_ahead) { /* H4 */
      t->end_ns = tdl_now_ns() + TDL_KEEPER_PATIENCE_NS;
    }
    end = t->end_ns < end ? t->end_ns : end;
  }
  tdl_pump_unlock(k);
  return end;
}
