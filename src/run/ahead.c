#include "ahead.h"

#include "../base/compiler.h"
#include "../codec/payload.h"
#include "errand.h"
#include "far.h"
#include "pump.h"

/* --- withdrawing ----------------------------------------------------------- */

/* From where on nothing is begun; NULL: all that is ahead is, or nothing is. */
static tdl_ticket *find_unbegun(tdl_keeper *k, uint64_t begun) {
  tdl_ticket *t = tdl_tickets_next(&k->tickets, NULL);
  while (t != NULL && t->record != 0 && t->begins < begun) {
    t = tdl_tickets_next(&k->tickets, t);
  }
  return t;
}

/* What its process has not begun of what is ahead is bare afterwards (G3); or, if
** only one is to be withdrawn, the first of that, which it answers. */
static tdl_ticket *withdraw_some(tdl_keeper *k, int all) {
  uint64_t begun;
  tdl_ticket *first;
  if (k->tickets.first == k->tickets.bare) { /* without a record */
    return tdl_tickets_next(&k->tickets, NULL);
  }
  begun = tdl_link_hold(&k->link);
  first = begun == UINT64_MAX ? NULL : find_unbegun(k, begun);
  for (tdl_ticket *t = first; t != NULL && t->record != 0;
       t = all ? tdl_tickets_next(&k->tickets, t) : NULL) {
    tdl_link_withdraw(&k->link, t->begins);
  }
  tdl_link_let_go(&k->link);
  if (begun == UINT64_MAX) {
    tdl_keeper_end_badly(k);
  } else if (all && first != NULL) {
    tdl_tickets_bare(&k->tickets, first);
  }
  return first;
}

void tdl_ahead_withdraw(tdl_keeper *k) {
  withdraw_some(k, 1);
}

/* Out of the list, with its job, which nobody has begun. */
static tdl_job *take_out(tdl_keeper *k, tdl_ticket *t) {
  tdl_job *job = t->job;
  tdl_tickets_remove(&k->tickets, t);
  tdl_tickets_give(&k->tickets, t);
  return job;
}

tdl_job *tdl_ahead_take(tdl_keeper *k) {
  tdl_ticket *t = withdraw_some(k, 0);
  return t == NULL ? NULL : take_out(k, t);
}

/* What was settled goes home; its process learns it of what it has begun. */
static void send_settled_home(tdl_keeper *k) {
  tdl_ticket *next, *t = tdl_tickets_next(&k->tickets, NULL);
  for (; t != NULL; t = next) {
    next = tdl_tickets_next(&k->tickets, t);
    if (tdl_job_is_settled(t->job) && t->record == 0) {
      tdl_loop_send_home(take_out(k, t));
    } else if (tdl_job_is_settled(t->job)) {
      tdl_parker_wake(&k->worker->loop.parker);
    }
  }
}

/* Into the run queue, or the slot's. */
uint32_t tdl_ahead_give_back(tdl_keeper *k, int to_slot) {
  tdl_worker *w = k->worker;
  tdl_ticket *next, *t;
  uint32_t count = 0;
  tdl_ahead_withdraw(k);
  for (t = tdl_tickets_next(&k->tickets, NULL); t != NULL; t = next) {
    next = tdl_tickets_next(&k->tickets, t);
    if (t->record == 0) {
      tdl_node *node = &take_out(k, t)->node;
      if (to_slot) {
        tdl_queue_push(&w->slot->calls, node);
      } else {
        tdl_backlog_push(&w->pool->run, node, TDL_RANK_NORMAL);
      }
      count++;
    }
  }
  return count;
}

/* Somebody wants that (H7). */
void tdl_ahead_heed(tdl_keeper *k) {
  /* [pump] seq_cst: before the look at what it is for; as in try_lock */
  if (TDL_LIKELY(atomic_load_explicit(&k->recalls, memory_order_relaxed) ==
                 0)) {
    return;
  }
  atomic_store_explicit(&k->recalls, 0, memory_order_seq_cst); /* as above */
  tdl_ahead_withdraw(k);
  send_settled_home(k);
  if (tdl_backlog_ranks(&k->worker->pool->run) != NULL) {
    tdl_ahead_give_back(k, 0);
  }
}

/* --- going ahead ----------------------------------------------------------- */

/* Room for calls ahead. */
int tdl_ahead_has_room(const tdl_keeper *k) {
  return k->worker->pool->goes_ahead && tdl_keeper_serves(k) == TDL_PUMP_ANY &&
         k->tickets.bare == 0 &&
         tdl_tickets_ahead(&k->tickets) <= TDL_PUMP_AHEAD / 2;
}

/* What may wait in the ring while its process computes: a short payload that names
** nothing, of a call that nobody settles but who withdraws it. */
static int is_plain(const tdl_job *job) {
  return !(job->timed & TDL_JOB_LIMITED) && job->home == job->pool->home &&
         job->bytes.len <= TDL_LINK_INLINE_BYTES &&
         (job->bytes.len == 0 || !(job->bytes.data[0] & TDL_WIRE_THINGS)) &&
         !tdl_job_is_settled(job);
}

int tdl_ahead_is_wanted(const tdl_keeper *k) {
  const treadle_pool *pool = k->worker->pool;
  uint32_t slots = tdl_pool_slots(pool);
  for (uint32_t word = 0; word * 64 < slots; word++) {
    /* [ahead] seq_cst: after what is ahead was counted */
    uint64_t bits =
        atomic_load_explicit(&pool->idle[word], memory_order_seq_cst);
    if ((&pool->idle[word] == tdl_keeper_idle_word(k)
             ? bits & ~tdl_keeper_idle_bit(k)
             : bits) != 0) {
      return 1;
    }
  }
  return 0;
}

int tdl_ahead_is_stuck(tdl_keeper *k) {
  /* relaxed, all: a hint */
  uint64_t since = atomic_load_explicit(&k->seen_ns, memory_order_relaxed);
  if (since == 0) {
    atomic_store_explicit(&k->seen_ns, tdl_now_ns(), memory_order_relaxed);
    return 0;
  }
  return tdl_now_ns() - since > TDL_PUMP_STUCK_NS;
}

/* Else it would not grow for what waits. */
static int is_fixed(const treadle_pool *pool) {
  /* relaxed, both: one that changes is seen at the next call */
  return atomic_load_explicit(&pool->size.min, memory_order_relaxed) ==
         atomic_load_explicit(&pool->size.max, memory_order_relaxed);
}

/* Ahead of a job in progress, whose end is what starts it: a call that comes while
** there is room is seen by who gives the lock back. */
static int may_go_ahead(const tdl_keeper *k) {
  treadle_pool *pool = k->worker->pool;
  return pool->goes_ahead && tdl_keeper_serves(k) == TDL_PUMP_ANY &&
         tdl_keeper_progress(k) > 0 && tdl_keeper_exempt(k) == 0 &&
         k->waits == 0 && !tdl_keeper_is_broken(k) &&
         !tdl_nested_is_late(&k->nested) &&
         !(tdl_worker_is_asked(k->worker) & TDL_ASK_RECYCLE) &&
         tdl_queue_empty(&k->worker->slot->calls) && is_fixed(pool) &&
         tdl_backlog_ranks(&pool->run) == NULL && tdl_pump_is_open(pool) &&
         /* relaxed: who sets it withdraws what is ahead */
         !atomic_load_explicit(&pool->stays, memory_order_relaxed) &&
         !tdl_ahead_is_wanted(k);
}

static uint32_t put_ahead(tdl_keeper *k) {
  tdl_tickets *tickets = &k->tickets;
  uint32_t count = 0;
  /* [ahead] seq_cst: between what was counted and the looks whether it is settled */
  atomic_thread_fence(memory_order_seq_cst);
  while (tickets->bare != 0 && is_plain(tickets->list[tickets->bare].job)) {
    int done = tdl_errand_put(k, &tickets->list[tickets->bare], TDL_FAR_AHEAD);
    if (done <= 0) { /* as a CALL it will meet the same */
      break;
    }
    tdl_tickets_put(tickets, k->link.out.last, k->link.out.put);
    count++;
  }
  return count;
}

/* From the run queue, until there is one that cannot wait in the ring. */
uint32_t tdl_ahead_feed(tdl_keeper *k) {
  tdl_tickets *tickets = &k->tickets;
  uint32_t count;
  if (!may_go_ahead(k) || tdl_ahead_is_stuck(k)) {
    return 0;
  }
  count = put_ahead(k);
  while (tdl_tickets_ahead(tickets) < TDL_PUMP_AHEAD && tickets->bare == 0) {
    tdl_node *node = tdl_pump_next(k);
    tdl_ticket *t;
    if (node == NULL) {
      break;
    }
    t = tdl_tickets_take(tickets, TDL_CONTAINER(node, tdl_job, node));
    if (t == NULL) {
      tdl_errand_refuse(k, TDL_CONTAINER(node, tdl_job, node));
      break;
    }
    tdl_tickets_push(tickets, t);
    count += put_ahead(k);
  }
  return count;
}

/* The first that is ahead: it has begun, or goes back. */
void tdl_ahead_lose(tdl_keeper *k, int stopped) {
  tdl_ticket *t = tdl_tickets_shift(&k->tickets);
  if (stopped || tdl_errand_had_begun(k, t)) {
    t->record = t->record == 0 ? 1 : t->record; /* none is put any more */
    tdl_errand_start(k, t);
  } else {
    tdl_queue_push(&k->worker->slot->calls, &t->job->node);
    tdl_tickets_give(&k->tickets, t);
  }
}
