#include "pump.h"

#include <sched.h>
#include <time.h>

#include "../base/alloc.h"
#include "../base/compiler.h"
#include "../base/stall.h"
#include "../codec/payload.h"
#include "emitted.h"
#include "far.h"
#include "phase.h"
#include "news.h"
#include "turns.h"
#include "watch.h"

/* H5: its thread ends the process. */
static void end_badly(tdl_keeper *k) {
  tdl_keeper_set_broken(k, 1);
  tdl_parker_wake(&k->worker->loop.parker);
}

/* --- tickets --------------------------------------------------------------- */

static tdl_ticket *ticket_at(tdl_keeper *k, uint32_t number) {
  uint32_t i = TDL_FAR_INDEX(number);
  return i < k->ticket_count && k->tickets[i].job != NULL &&
                 k->tickets[i].number == number
             ? &k->tickets[i]
             : NULL;
}

static int add_tickets(tdl_keeper *k) {
  uint32_t first = k->ticket_count == 0 ? 1 : k->ticket_count; /* 0: none */
  uint32_t count = k->ticket_count == 0 ? 16 : k->ticket_count * 2;
  tdl_ticket *tickets;
  if (count > TDL_FAR_TICKETS) {
    return 0;
  }
  tickets = tdl_realloc(k->tickets, count * sizeof(*tickets));
  if (tickets == NULL) {
    return 0;
  }
  memset(&tickets[first], 0, (count - first) * sizeof(*tickets));
  k->tickets = tickets;
  k->ticket_count = count;
  for (uint32_t i = count; i-- > first;) {
    tickets[i].number = i;
    tickets[i].next_free = k->free_ticket;
    k->free_ticket = i;
  }
  return 1;
}

static int serves_of(const tdl_keeper *k) {
  /* relaxed: under the lock, or a hint */
  return atomic_load_explicit(&k->serves, memory_order_relaxed);
}

static uint32_t progress_of(const tdl_keeper *k) {
  /* relaxed: under the lock, or a hint */
  return atomic_load_explicit(&k->progress, memory_order_relaxed);
}

static void set_progress(tdl_keeper *k, uint32_t jobs) {
  tdl_worker *w = k->worker;
  const tdl_size *s = &w->pool->size;
  atomic_store_explicit(&k->progress, jobs, memory_order_relaxed); /* too */
  if (TDL_UNLIKELY(w->pool->regulated)) {
    tdl_worker_set_running(w, jobs);
  }
  /* relaxed, all: a late look is repeated (Z5) */
  if (TDL_UNLIKELY(atomic_load_explicit(&s->min, memory_order_relaxed) <
                   atomic_load_explicit(&s->max, memory_order_relaxed))) {
    atomic_store_explicit(&w->idle_ns, jobs == 0 ? tdl_now_ns() : TDL_NEVER,
                          memory_order_relaxed);
  }
}

/* NULL without memory. */
static tdl_ticket *take_ticket(tdl_keeper *k, tdl_job *job) {
  tdl_ticket *t;
  if (TDL_UNLIKELY(k->free_ticket == 0) && !add_tickets(k)) {
    return NULL;
  }
  t = &k->tickets[k->free_ticket];
  k->free_ticket = t->next_free;
  t->number += TDL_FAR_USE;
  if (t->number < TDL_FAR_USE) {
    t->number += TDL_FAR_USE; /* never 0 */
  }
  t->job = job;
  t->record = t->began_ns = t->heard_ns = 0;
  t->end_ns = TDL_NEVER;
  t->told = 0;
  set_progress(k, progress_of(k) + 1);
  return t;
}

/* V3, P6 */
static uint32_t exempt_of(const tdl_keeper *k) {
  /* relaxed: under the lock, or a hint */
  return atomic_load_explicit(&k->exempt, memory_order_relaxed);
}

static void set_exempt(tdl_keeper *k, uint32_t jobs) {
  uint32_t was = exempt_of(k);
  if (TDL_UNLIKELY(was != jobs)) {
    atomic_store_explicit(&k->exempt, jobs, memory_order_relaxed); /* too */
    tdl_worker_load(k->worker, (int)was - (int)jobs);
  }
}

/* H6 */
static uint32_t said_exempt(const tdl_keeper *k) {
  uint32_t jobs = tdl_link_exempt(&k->link);
  return jobs < progress_of(k) ? jobs : progress_of(k);
}

/* One less in progress: before it gives back its place (P6). */
static void end_exempt(tdl_keeper *k) {
  if (TDL_UNLIKELY(exempt_of(k) == progress_of(k))) {
    set_exempt(k, progress_of(k) - 1);
  }
}

static void give_ticket(tdl_keeper *k, tdl_ticket *t) {
  t->job = NULL;
  t->next_free = k->free_ticket;
  k->free_ticket = TDL_FAR_INDEX(t->number);
  if (k->waits == k->free_ticket) {
    k->waits = 0;
  }
  set_progress(k, progress_of(k) - 1);
}

/* --- the end of a job ------------------------------------------------------ */

/* With what is in its bytes. */
static void end_job(tdl_keeper *k, tdl_ticket *t, int status) {
  tdl_worker *w = k->worker;
  tdl_job *job = t->job;
  if (TDL_UNLIKELY(status != 0) &&
      tdl_pool_phase(w->pool) == TDL_POOL_STOPPED) {
    status = TREADLE_ECLOSED;
    tdl_payload_clear(&job->bytes);
  }
  job->status = (int8_t)status;
  if (TDL_UNLIKELY(t->began_ns != 0)) {
    tdl_stats_ran(w->pool->stats, w->loop.tally, job,
                  tdl_now_ns() - t->began_ns);
  }
  if (TDL_LIKELY(tdl_job_finish(job))) {
    tdl_stats_ended(w->loop.tally, job);
  } else { /* it goes home all the same (J2) */
    tdl_supervisor_job_ended(w, job);
  }
  if (TDL_UNLIKELY(tdl_watched(w->pool) != 0)) {
    tdl_watch_call_ended(w, job, t->heard_ns, status);
  }
  end_exempt(k);
  give_ticket(k, t);
  if (TDL_UNLIKELY(w->pool->regulated)) {
    tdl_worker_load(w, -1);
  }
  tdl_loop_send_home(job);
}

static void fail_text(tdl_keeper *k, tdl_ticket *t, int status,
                      const char *text) {
  tdl_payload_set_text(&t->job->bytes, text);
  end_job(k, t, status);
}

/* H2: nobody has begun it. */
static void take_back(tdl_keeper *k, tdl_ticket *t) {
  tdl_worker *w = k->worker;
  tdl_job *job = t->job;
  if (!tdl_job_requeue(job)) { /* somebody has settled it */
    end_job(k, t, TREADLE_ECRASHED);
    return;
  }
  tdl_stats_taken_back(w->loop.tally, job);
  end_exempt(k);
  give_ticket(k, t);
  tdl_worker_give_place(w);
  tdl_queue_push(&w->slot->calls, &job->node);
}

/* --- results --------------------------------------------------------------- */

/* 0: nonsense (H5). What a settled call's result names is counted, too. */
static int take_payload(tdl_keeper *k, tdl_bytes *bytes, int is_settled,
                        const uint8_t *data, uint32_t len, int *status) {
  int read;
  if (len == 0 || (is_settled && !(data[0] & TDL_WIRE_THINGS))) {
    return 1;
  }
  if (len > TDL_LINK_INLINE_BYTES && !k->copies) {
    k->copies = 1;
    tdl_link_set_copying(&k->link, 1);
  }
  if (tdl_bytes_append(bytes, data, len) != 0) {
    *status = TREADLE_ENOMEM;
  } else if (bytes->data[0] & TDL_WIRE_THINGS) { /* it may have changed */
    read = tdl_crossing_read(k->crossing, bytes);
    *status = read == TREADLE_ENOMEM ? read : *status;
    if (read == TREADLE_EINVAL) {
      return 0;
    }
  }
  if (is_settled) {
    tdl_payload_clear(bytes);
  }
  return 1;
}

/* 0: nonsense (H5). */
static int take_result(tdl_keeper *k, const tdl_record *head,
                       const uint8_t *data) {
  tdl_ticket *t = ticket_at(k, head->ticket);
  int status = head->status;
  tdl_bytes *bytes;
  if (t == NULL || t->record == 0 || status > 0 || status < TREADLE_ESYSTEM) {
    return 0;
  }
  bytes = &t->job->bytes;
  tdl_payload_clear(bytes);
  if (TDL_UNLIKELY(tdl_bytes_cap(bytes) == 0)) { /* E1 */
    tdl_stage_leave(t->job);
  }
  if (!take_payload(k, bytes, tdl_job_is_settled(t->job) != 0, data, head->len,
                    &status)) {
    return 0;
  }
  end_job(k, t, status);
  return 1;
}

/* --- streams --------------------------------------------------------------- */

static void give_credit(tdl_keeper *k, const tdl_ticket *t) {
  int is_closed;
  uint32_t count = tdl_bind_credit(t->job, &is_closed);
  tdl_record head = {.kind = TDL_FAR_CREDIT,
                     .ticket = t->number,
                     .task = count,
                     .status = (int16_t)is_closed};
  if (count == 0 && !is_closed) {
    return;
  }
  if (tdl_pump_put(k, &head, NULL) > 0) {
    tdl_bind_gave_credit(t->job, count, is_closed);
  } else {
    k->owes = 1;
  }
}

/* 0: nonsense (H5). Without memory the process ends, too: no value is left out. */
static int take_emit(tdl_keeper *k, const tdl_record *head,
                     const uint8_t *data) {
  tdl_ticket *t = ticket_at(k, head->ticket);
  int settled, status = 0, done;
  tdl_bytes bytes;
  if (t == NULL || t->record == 0) {
    return 0;
  }
  settled = tdl_job_is_settled(t->job) != 0;
  tdl_bytes_init(&bytes, NULL, 0);
  done =
      take_payload(k, &bytes, settled, data, head->len, &status) && status == 0;
  if (done && !settled && head->status != 0) {
    tdl_bind_starves(t->job);
  } else if (done && !settled) {
    done = tdl_bind_emitted(t->job, &bytes);
  }
  tdl_payload_clear(&bytes);
  tdl_bytes_reset(&bytes, NULL, 0);
  if (done && !settled) {
    give_credit(k, t);
  }
  return done;
}

/* --- records --------------------------------------------------------------- */

/* X1 */
static void set_owed(tdl_keeper *k, int owed) {
  /* relaxed: under the lock; else it saves a look */
  atomic_store_explicit(&k->owed, (uint32_t)owed, memory_order_relaxed);
}

static int is_owed(const tdl_keeper *k) {
  /* relaxed: as above */
  return (int)atomic_load_explicit(&k->owed, memory_order_relaxed);
}

/* `is_own`: by its thread, up to what is asked of the pool. */
static uint32_t collect(tdl_keeper *k, int is_own) {
  uint32_t count = 0;
  tdl_record head;
  const uint8_t *data;
  int got = 0;
  while (!tdl_keeper_is_broken(k) && !k->nested.is_asked &&
         (got = tdl_link_look(&k->link.in, &head, &data)) > 0) {
    int is_call = head.kind != TDL_FAR_RESULT && head.kind != TDL_FAR_EMIT;
    if (is_call && !is_own) {
      set_owed(k, 1);
      tdl_parker_wake(&k->worker->loop.parker);
      return count;
    }
    if (is_call                       ? !tdl_nested_hear(k, &head, data)
        : head.kind == TDL_FAR_RESULT ? !take_result(k, &head, data)
                                      : !take_emit(k, &head, data)) {
      got = TREADLE_EINVAL;
      break;
    }
    tdl_link_take(&k->link.in, &head);
    count++;
  }
  if (got < 0) {
    end_badly(k);
  }
  return count;
}

/* --- calls ----------------------------------------------------------------- */

/* It takes calls of the run queue. */
static int takes_any(const tdl_keeper *k) {
  return serves_of(k) == TDL_PUMP_ANY || exempt_of(k) > 0;
}

static int has_room(const tdl_keeper *k) {
  int is_last = serves_of(k) == TDL_PUMP_LAST ||
                (tdl_worker_is_asked(k->worker) & TDL_ASK_RECYCLE);
  return serves_of(k) != TDL_PUMP_SHUT && (!is_last || exempt_of(k) > 0) &&
         !tdl_keeper_is_broken(k) && k->waits == 0 &&
         !tdl_nested_is_late(&k->nested) &&
         progress_of(k) - exempt_of(k) < k->worker->pool->concurrency;
}

/* 0 when it has to wait for room in the ring. */
static int put_call(tdl_keeper *k, tdl_ticket *t) {
  const tdl_job *job = t->job;
  tdl_record head = {.kind = TDL_FAR_CALL,
                     .ticket = t->number,
                     .task = tdl_job_task(job),
                     .when = job->deadline_ns,
                     .status =
                         job->home != job->pool->home ? TDL_FAR_URGENT : 0};
  int done = tdl_crossing_put(k->crossing, &k->link.out, &head, &job->bytes);
  if (TDL_LIKELY(done > 0)) {
    t->record = k->link.out.put;
    k->waits = 0;
  } else if (done == 0) {
    k->waits = TDL_FAR_INDEX(t->number);
    tdl_parker_wake(&k->worker->loop.parker); /* its thread tries again */
  } else if (done == TREADLE_EPAYLOAD || done == TREADLE_ENOMEM) {
    fail_text(k, t, done,
              done == TREADLE_EPAYLOAD && tdl_crossing_is_full(k->crossing)
                  ? "a worker's process cannot have more buffers at a time"
                  : NULL);
  } else {
    end_badly(k); /* it has taken what there never was */
  }
  return done != 0;
}

/* As tdl_vm_run begins. */
static void hand_over(tdl_keeper *k, tdl_job *job) {
  tdl_worker *w = k->worker;
  tdl_tally *tally = w->loop.tally;
  tdl_ticket *t;
  job->worker = (uint16_t)w->id; /* before it is RUNNING */
  if (TDL_UNLIKELY(!tdl_job_start(job))) {
    tdl_loop_send_home(job);
    return;
  }
  tdl_stats_started(tally, job);
  t = take_ticket(k, job);
  if (TDL_UNLIKELY(t == NULL)) {
    tdl_pool_load(w->pool, -1);
    job->status = TREADLE_ENOMEM;
    tdl_payload_clear(&job->bytes);
    if (tdl_job_finish(job)) {
      tdl_stats_ended(tally, job);
    }
    tdl_loop_send_home(job);
    return;
  }
  if (TDL_UNLIKELY(w->pool->regulated)) {
    tdl_worker_take_place(w);
  }
  if (TDL_UNLIKELY(tdl_watched(w->pool) != 0)) {
    t->heard_ns = tdl_now_ns();
    tdl_watch_call_started(w, job);
  }
  if (TDL_UNLIKELY(job->timed != 0)) {
    uint64_t now = tdl_now_ns();
    if ((job->timed & TDL_JOB_LIMITED) && now >= job->deadline_ns) {
      tdl_payload_clear(&job->bytes);
      end_job(k, t, TREADLE_ETIMEOUT);
      return;
    }
    if (job->timed & TDL_JOB_STAMPED) {
      tdl_stats_waited(tally, job, now);
      t->began_ns = now;
      tdl_job_began(job, now);
    }
  }
  put_call(k, t);
}

static tdl_node *next_call(tdl_keeper *k) {
  tdl_worker *w = k->worker;
  tdl_node *node = NULL;
  if (tdl_queue_ready(&w->slot->calls)) {
    node = tdl_turns_take_sent(w);
  }
  if (node == NULL && takes_any(k)) {
    node = tdl_backlog_pop(&w->pool->run, &w->got);
  }
  return node;
}

void tdl_pump_wake(tdl_keeper *k) {
  if (tdl_link_wake(&k->link)) {
    tdl_message message = {.kind = TDL_LINE_WAKE};
    tdl_line_send(k->process.line, &message, TDL_LINE_HEAD_BYTES);
  }
}

int tdl_pump_put(tdl_keeper *k, tdl_record *head, const tdl_bytes *payload) {
  int done = serves_of(k) == TDL_PUMP_SHUT || tdl_keeper_is_broken(k)
                 ? 1 /* nobody will read it */
                 : tdl_crossing_put(k->crossing, &k->link.out, head, payload);
  if (done > 0) {
    tdl_pump_wake(k);
  } else if (done < 0 && done != TREADLE_EPAYLOAD && done != TREADLE_ENOMEM) {
    end_badly(k); /* it has taken what there never was */
  }
  return done;
}

static uint32_t feed(tdl_keeper *k) {
  uint32_t count = 0;
  tdl_node *node;
  if (TDL_UNLIKELY(k->waits != 0) && put_call(k, &k->tickets[k->waits])) {
    count++;
  }
  while (has_room(k) && (node = next_call(k)) != NULL) {
    hand_over(k, TDL_CONTAINER(node, tdl_job, node));
    count++;
  }
  if (count > 0) {
    tdl_pump_wake(k);
  }
  return count;
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

static _Atomic uint64_t *idle_word(const tdl_keeper *k) {
  return &k->worker->pool->idle[(k->worker->id - 1) / 64];
}

static uint64_t idle_bit(const tdl_keeper *k) {
  return 1ull << ((k->worker->id - 1) % 64);
}

static int is_marked(const tdl_keeper *k) {
  /* relaxed: changes under the lock, and who looks without it looks at the
  ** queues afterwards */
  return (atomic_load_explicit(idle_word(k), memory_order_relaxed) &
          idle_bit(k)) != 0;
}

/* H3 */
static void mark(tdl_keeper *k) {
  int room = has_room(k);
  if (room == is_marked(k)) {
    return;
  }
  /* [park] seq_cst: before the look at the queues */
  if (room) {
    atomic_fetch_or_explicit(idle_word(k), idle_bit(k), memory_order_seq_cst);
  } else {
    atomic_fetch_and_explicit(idle_word(k), ~idle_bit(k), memory_order_seq_cst);
  }
}

void tdl_pump_tell_pool(tdl_keeper *k) {
  const treadle_pool *pool = k->worker->pool;
  tdl_link_set_pool(&k->link, tdl_size_min(pool), tdl_size_now(pool),
                    tdl_pool_phase(pool) != TDL_POOL_OPEN);
}

static uint32_t move(tdl_keeper *k, int is_own) {
  uint32_t count = 0;
  if (serves_of(k) != TDL_PUMP_SHUT) {
    if (is_own) {
      set_owed(k, 0);
    }
    tdl_pump_tell_pool(k);
    count = is_owed(k) ? 0 : collect(k, is_own);
    set_exempt(k, said_exempt(k));
    count += tdl_nested_answer(k);
  }
  count += feed(k);
  mark(k);
  return count;
}

/* A process that has no job may make calls: for its keeper's thread to see. */
static int has_records(const tdl_keeper *k, int is_own) {
  return (is_own ? serves_of(k) != TDL_PUMP_SHUT
                 : progress_of(k) > 0 && !is_owed(k)) &&
         tdl_link_ready(&k->link.in) && !tdl_keeper_is_broken(k);
}

/* But for the run queue. */
static int has_own_more(const tdl_keeper *k) {
  return has_records(k, 0) ||
         (is_marked(k) && !tdl_queue_empty(&k->worker->slot->calls));
}

static int has_more(const tdl_keeper *k, int is_own) {
  return has_own_more(k) ||
         (is_own && (has_records(k, 1) || (serves_of(k) != TDL_PUMP_SHUT &&
                                           said_exempt(k) != exempt_of(k)))) ||
         (is_marked(k) && takes_any(k) &&
          !tdl_backlog_empty(&k->worker->pool->run));
}

/* Others than its thread may: see H1. */
static int is_open(const treadle_pool *pool) {
  return !tdl_pool_forked() && tdl_pool_phase(pool) == TDL_POOL_OPEN &&
         !tdl_pool_is_watched(pool);
}

/* With the lock: it would begin at once; a process that computes does not. */
static int is_free(const tdl_keeper *k) {
  return progress_of(k) == 0 || tdl_link_rests(&k->link);
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
    open = is_open(pool);
    moves = open && (!if_free || is_free(k));
    if (TDL_LIKELY(moves)) {
      count += move(k, 0);
    }
    unlock(k);
    again = moves ? has_more(k, 0) : has_own_more(k); /* see try_lock */
    if_free = 0;
  } while (open && again);
  if (TDL_UNLIKELY(!is_open(pool))) {
    tdl_parker_wake(&k->worker->loop.parker);
  }
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
  return count;
}

int tdl_pump_has_more(const tdl_keeper *k) {
  return has_more(k, 1);
}

/* --- for those who call and wait ------------------------------------------- */

/* 1 when nothing is left to be handed over. */
static int feed_all(treadle_pool *pool, int if_free) {
  uint32_t slots = tdl_pool_slots(pool);
  for (uint32_t word = 0; word * 64 < slots; word++) {
    /* [park] seq_cst: after the call was published (H3) */
    uint64_t bits =
        atomic_load_explicit(&pool->idle[word], memory_order_seq_cst);
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
  if (pool->concurrency == 1 || !feed_all(pool, 1)) {
    feed_all(pool, 0);
  }
}

void tdl_pump_sent(tdl_worker *w) {
  pump(w->keeper, 0);
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
      if (has_records(k, 0) && is_open(p)) {
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
  if (most > 0 && progress_of(k) > 0) {
    away = TDL_LINK_ON_WORD;
    words[count++] = (tdl_parker_word){tdl_link_away_word(&k->link), away};
  }
  tdl_link_set_away(&k->link, away);
  tdl_pump_unlock(k);
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
    found = ticket_at(k, ticket);
  }
  for (uint32_t i = 1; ticket == 0 && i < k->ticket_count; i++) {
    const tdl_ticket *t = &k->tickets[i];
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
  return progress_of(k) == 0;
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
  tdl_pump_lock(k);
  if (serves_of(k) == TDL_PUMP_SHUT) { /* it has just booted, or it ends */
    set_progress(k, progress_of(k));
  }
  atomic_store_explicit(&k->serves, (int)serves, memory_order_relaxed); /* H1 */
  mark(k);
  tdl_pump_unlock(k);
}

void tdl_pump_lose(tdl_keeper *k, int status, const char *text) {
  int stopped;
  do {
    tdl_pump_lock(k);
    atomic_store_explicit(&k->serves, TDL_PUMP_SHUT,
                          memory_order_relaxed); /* H1 */
    mark(k);
    collect(k, 1);
    tdl_pump_unlock(k);
    tdl_nested_go_on(k);
  } while (tdl_link_ready(&k->link.in) && !tdl_keeper_is_broken(k));
  stopped = tdl_pool_phase(k->worker->pool) == TDL_POOL_STOPPED;
  tdl_pump_lock(k);
  set_exempt(k, 0);
  for (uint32_t i = 1; i < k->ticket_count; i++) {
    tdl_ticket *t = &k->tickets[i];
    int begun = t->record != 0 && (tdl_keeper_is_broken(k) ||
                                   tdl_link_had_begun(&k->link, t->record));
    if (t->job != NULL && (begun || stopped)) {
      fail_text(k, t, status, text);
    } else if (t->job != NULL) {
      take_back(k, t);
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
  for (uint32_t i = 1; i < k->ticket_count; i++) {
    tdl_ticket *t = &k->tickets[i];
    int state = t->job != NULL ? tdl_job_is_settled(t->job) : 0;
    if (state == 0) {
      if (t->job != NULL && t->record != 0 && tdl_job_stream(t->job) != NULL) {
        give_credit(k, t);
      }
      continue;
    }
    if (t->told == 0) {
      tell(k, t, state);
    }
    if (state != TDL_JOB_CANCELLED && t->end_ns == TDL_NEVER) { /* H4 */
      t->end_ns = tdl_now_ns() + TDL_KEEPER_PATIENCE_NS;
    }
    end = t->end_ns < end ? t->end_ns : end;
  }
  tdl_pump_unlock(k);
  return end;
}
