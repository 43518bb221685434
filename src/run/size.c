#include "size.h"

#include "../base/stall.h"
#include "news.h"
#include "phase.h"
#include "pump.h"
#include "supervisor.h"
#include "thread.h"

/* --- one slot ------------------------------------------------------------- */

static int is_shut(const tdl_slot *slot) {
  /* [shut] seq_cst: after a call was published (Z3) */
  return (int)atomic_load_explicit(&slot->seat.shut, memory_order_seq_cst);
}

static void set_shut_locked(tdl_slot *slot, uint32_t shut) {
  /* [shut] seq_cst: before the look at the calls (Z3) */
  atomic_store_explicit(&slot->seat.shut, shut, memory_order_seq_cst);
}

/* P5, P7: somebody more, or less, who may bring forth calls. */
static void count_in(treadle_pool *pool) {
  tdl_pool_add_busy(pool);
  tdl_pool_stir(pool);
}

static void count_out(treadle_pool *pool) {
  tdl_pool_calm(pool);
  tdl_pool_drop_busy(pool);
}

static int start_locked(treadle_pool *pool, tdl_slot *slot) {
  tdl_worker *w = tdl_slot_worker(slot);
  int status;
  if (!tdl_pool_add_thread(pool)) {
    return 0;
  }
  count_in(pool);
  slot->seat.before =
      atomic_load_explicit(&slot->states, memory_order_relaxed); /* no thread */
  slot->seat.state = TDL_SEAT_TAKEN;
  tdl_worker_set_life(w, TDL_BOOTING);
  status = tdl_thread_start(w);
  if (status != 0) {
    slot->seat.state = TDL_SEAT_EMPTY;
    tdl_worker_set_life(w, TDL_ENDED);
    count_out(pool);
    tdl_pool_no_thread(pool);
  }
  return status;
}

static int open_locked(treadle_pool *pool, tdl_slot *slot) {
  tdl_worker *w = tdl_slot_worker(slot);
  int was_shut = is_shut(slot);
  if (was_shut) {
    set_shut_locked(slot, 0);
  }
  switch (slot->seat.state) {
  case TDL_SEAT_EMPTY:
    return start_locked(pool, slot);
  case TDL_SEAT_TAKEN:
    if (was_shut) {
      w->stop.leave_ns = TDL_NEVER;
      tdl_worker_ask(w, TDL_ASK_MOVE);
    }
    return 0;
  case TDL_SEAT_PARKED:
    count_in(pool);
    slot->seat.before = atomic_load_explicit(
        &slot->states, memory_order_relaxed); /* it boots none now */
    slot->seat.state = TDL_SEAT_TAKEN;
    tdl_worker_set_life(w, TDL_BOOTING);
    tdl_parker_wake(&w->loop.parker);
    return 0;
  default: /* its home starts it when it has joined the thread */
    return 0;
  }
}

/* --- all of them ---------------------------------------------------------- */

uint32_t tdl_size_now(const treadle_pool *pool) {
  /* acquire: the slots up to it have been made */
  return atomic_load_explicit(&pool->size.now, memory_order_acquire);
}

uint32_t tdl_size_min(const treadle_pool *pool) {
  return atomic_load_explicit(&pool->size.min,
                              memory_order_relaxed); /* alone */
}

uint32_t tdl_size_max(const treadle_pool *pool) {
  return atomic_load_explicit(&pool->size.max, memory_order_relaxed); /* too */
}

static void set_bounds_locked(treadle_pool *pool, uint32_t min, uint32_t max) {
  /* relaxed: each is looked at alone */
  atomic_store_explicit(&pool->size.min, min, memory_order_relaxed);
  atomic_store_explicit(&pool->size.max, max, memory_order_relaxed);
}

/* Starts what is lacking: 0, or why that was not possible yet. */
static int fill_locked(treadle_pool *pool) {
  uint32_t now = tdl_size_now(pool);
  int status = 0;
  for (uint32_t i = 0; status == 0 && i < now; i++) {
    status = open_locked(pool, pool->slots[i]);
  }
  return status;
}

/* Numbers first: a slot below `now` exists. */
static int set_now_locked(treadle_pool *pool, uint32_t now) {
  tdl_size *s = &pool->size;
  int status = 0;
  while (status == 0 && tdl_pool_slots(pool) < now) {
    status = tdl_pool_add_slot_locked(pool);
  }
  if (status == 0) {
    /* release: see tdl_size_now */
    atomic_store_explicit(&s->now, now, memory_order_release);
    /* [grow] seq_cst: before the look at the queue that follows */
    atomic_store_explicit(&s->may_grow, now < tdl_size_max(pool),
                          memory_order_seq_cst);
    if (pool->plan != NULL) { /* whose keepers show it to their processes */
      tdl_pool_wake_all(pool);
    }
  }
  return status;
}

/* Z3; to one worker, so that they keep their order. */
static void forward_locked(treadle_pool *pool, tdl_slot *slot) {
  uint32_t now = tdl_size_now(pool);
  tdl_slot *to;
  tdl_node *node;
  if (tdl_queue_empty(&slot->calls)) {
    return;
  }
  if (now == 0) {
    now = 1;
    set_now_locked(pool, now); /* there is a first slot */
    if (fill_locked(pool) != 0) {
      tdl_supervisor_look_at_locked(pool, tdl_now_ns() + TDL_SIZE_RETRY_NS);
    }
  }
  to = pool->slots[(tdl_slot_worker(slot)->id - 1) % now];
  while (to != slot && (node = tdl_queue_pop(&slot->calls)) != NULL) {
    TDL_STALL();
    tdl_queue_push(&to->calls, node);
  }
  TDL_STALL();
  tdl_parker_wake(&tdl_slot_worker(to)->loop.parker);
}

static void shut_locked(treadle_pool *pool, tdl_slot *slot, int forced) {
  tdl_worker *w = tdl_slot_worker(slot);
  int taken = slot->seat.state == TDL_SEAT_TAKEN;
  if (!is_shut(slot)) {
    set_shut_locked(slot, 1);
    TDL_STALL();
    if (taken) {
      tdl_worker_ask(w, TDL_ASK_MOVE);
    } else {
      forward_locked(pool, slot);
    }
  }
  if (forced && taken) {
    tdl_supervisor_leave_locked(w, pool->terminate_ns);
  }
}

static void shut_rest_locked(treadle_pool *pool, int forced) {
  uint32_t slots = tdl_pool_slots(pool);
  for (uint32_t i = slots; i-- > tdl_size_now(pool);) {
    shut_locked(pool, pool->slots[i], forced);
  }
}

int tdl_size_open(treadle_pool *pool, uint32_t min, uint32_t max,
                  uint64_t idle_ns) {
  tdl_size *s = &pool->size;
  int status = 0;
  tdl_supervisor_lock();
  set_bounds_locked(pool, min, max);
  s->idle_ns = idle_ns;
  s->due_ns = TDL_NEVER;
  if (min < max) {
    status = tdl_supervisor_look_at_locked(pool, tdl_now_ns());
  }
  if (status == 0) {
    /* who opens it waits for the first one to load the module */
    status = set_now_locked(pool, min > 0 ? min : 1);
  }
  if (status == 0) {
    status = fill_locked(pool);
  }
  tdl_supervisor_unlock();
  return status;
}

int tdl_size_set(treadle_pool *pool, uint32_t min, uint32_t max) {
  uint32_t now;
  int status;
  if (max < 1 || min > max || max > TDL_POOL_MAX_WORKERS) {
    return TREADLE_EINVAL;
  }
  tdl_supervisor_lock();
  now = tdl_size_now(pool);
  now = now < min ? min : now > max ? max : now;
  status = tdl_supervisor_look_at_locked(pool, tdl_now_ns());
  while (status == 0 && tdl_pool_slots(pool) < now) {
    status = tdl_pool_add_slot_locked(pool); /* or nothing changes */
  }
  if (status == 0) {
    set_bounds_locked(pool, min, max);
    set_now_locked(pool, now);
    fill_locked(pool); /* what fails the look tries again */
    shut_rest_locked(pool, 1);
  }
  tdl_supervisor_unlock();
  tdl_pool_wake_if_work(pool);
  tdl_pool_look_at_room(pool);
  return status;
}

int tdl_size_is_reached(treadle_pool *pool) {
  int reached = 1;
  uint32_t now;
  tdl_supervisor_lock();
  now = tdl_size_now(pool);
  for (uint32_t i = 0; reached && i < tdl_pool_slots(pool); i++) {
    const tdl_slot *slot = pool->slots[i];
    /* acquire: see boot */
    uint32_t states = atomic_load_explicit(&slot->states, memory_order_acquire);
    reached = i < now ? slot->seat.state == TDL_SEAT_TAKEN &&
                            states != slot->seat.before
                      : slot->seat.state == TDL_SEAT_EMPTY ||
                            slot->seat.state == TDL_SEAT_DISMISSED;
  }
  tdl_supervisor_unlock();
  return reached;
}

void tdl_size_sent(treadle_pool *pool, tdl_slot *slot) {
  if (TDL_UNLIKELY(is_shut(slot))) {
    tdl_supervisor_lock();
    if (is_shut(slot) && slot->seat.state != TDL_SEAT_TAKEN) {
      forward_locked(pool, slot);
    }
    tdl_supervisor_unlock();
  }
  if (pool->plan != NULL) {
    tdl_pump_sent(tdl_slot_worker(slot));
  } else {
    tdl_parker_wake(&tdl_slot_worker(slot)->loop.parker);
  }
}

/* --- growing and shrinking (Z4, Z5) --------------------------------------- */

void tdl_size_ask(treadle_pool *pool) {
  /* [grow] seq_cst: after the push; either we ask, or who lets it fall sees
  ** what we have pushed (Z4) */
  if (tdl_pool_forked() ||
      atomic_exchange_explicit(&pool->size.asked, 1, memory_order_seq_cst)) {
    return;
  }
  tdl_supervisor_lock();
  pool->size.looked = 0;
  tdl_supervisor_look_at_locked(pool, tdl_now_ns());
  tdl_supervisor_unlock();
}

static void unask(treadle_pool *pool) {
  /* [grow] seq_cst: before the look at the queue (Z4) */
  atomic_store_explicit(&pool->size.asked, 0, memory_order_seq_cst);
}

void tdl_size_serves(treadle_pool *pool) {
  /* relaxed: set before this thread began, or another one's affair */
  if (atomic_load_explicit(&pool->size.asked, memory_order_relaxed)) {
    unask(pool);
    TDL_STALL();
    tdl_pool_wake_if_work(pool);
  }
}

/* Workers that are about to serve, and will take what waits. */
static uint32_t starting_locked(const treadle_pool *pool) {
  uint32_t now = tdl_size_now(pool), n = 0;
  for (uint32_t i = 0; i < now; i++) {
    const tdl_slot *slot = pool->slots[i];
    /* relaxed: a late look is repeated */
    n += atomic_load_explicit(&slot->states, memory_order_relaxed) ==
         slot->seat.before;
  }
  return n;
}

static int must_grow_locked(const treadle_pool *pool) {
  return tdl_size_now(pool) < tdl_size_max(pool) &&
         tdl_pool_lacks_workers(pool) &&
         tdl_backlog_length(&pool->run) > starting_locked(pool);
}

/* When to look again. */
static uint64_t grow_locked(treadle_pool *pool, uint64_t now) {
  tdl_size *s = &pool->size;
  if (must_grow_locked(pool)) {
    s->looked = 0;
    if (set_now_locked(pool, tdl_size_now(pool) + 1) != 0 ||
        fill_locked(pool) != 0) {
      return now + TDL_SIZE_RETRY_NS;
    }
    return now + TDL_SIZE_LOOK_NS;
  }
  if (!s->looked) {
    s->looked = 1;
    return now + TDL_SIZE_LOOK_NS;
  }
  s->looked = 0;
  unask(pool);
  TDL_STALL();
  if (must_grow_locked(pool)) {
    /* relaxed: nobody has relied on it since, or it is set */
    atomic_store_explicit(&s->asked, 1, memory_order_relaxed);
  }
  return now;
}

static uint64_t spare_ns(const tdl_size *s) {
  return s->idle_ns > TDL_SIZE_DWELL_NS ? s->idle_ns : TDL_SIZE_DWELL_NS;
}

/* The same; TDL_NEVER if it cannot shrink. */
static uint64_t shrink_locked(treadle_pool *pool, uint64_t now) {
  tdl_size *s = &pool->size;
  uint32_t size = tdl_size_now(pool), min = tdl_size_min(pool), spare = 0;
  uint64_t due = now + spare_ns(s);
  if (s->idle_ns == TDL_NEVER || s->idle_ns > TDL_SIZE_IDLE_MAX_NS) {
    return TDL_NEVER;
  }
  for (uint32_t i = 0; i < size; i++) {
    uint64_t since = tdl_worker_idle_since(tdl_slot_worker(pool->slots[i]));
    if (since != TDL_NEVER && since + spare_ns(s) <= now) {
      spare++;
    } else if (since != TDL_NEVER && since + spare_ns(s) < due) {
      due = since + spare_ns(s);
    }
  }
  spare = spare < size - min ? spare : size - min;
  if (spare > 0) {
    set_now_locked(pool, size - spare);
    shut_rest_locked(pool, 0);
    size -= spare;
  }
  return size > min ? due : TDL_NEVER;
}

void tdl_size_look_locked(treadle_pool *pool, uint64_t now) {
  tdl_size *s = &pool->size;
  uint64_t due = TDL_NEVER;
  if (tdl_pool_phase(pool) != TDL_POOL_STOPPED) {
    if (fill_locked(pool) != 0) {
      due = now + TDL_SIZE_RETRY_NS;
    } else if (atomic_load_explicit(&s->asked, memory_order_seq_cst)) {
      /* [grow] seq_cst: before the look at the queue (Z4) */
      due = grow_locked(pool, now);
    } else if (tdl_size_now(pool) > tdl_size_min(pool)) {
      due = shrink_locked(pool, now);
    }
  }
  s->due_ns = due;
}

/* --- the worker ----------------------------------------------------------- */

int tdl_size_wants(const tdl_worker *w) {
  return !is_shut(w->slot);
}

static void note_locked(tdl_worker *w) {
  w->slot->seat.noted = 1;
  tdl_worker_post(w, &w->left);
}

enum tdl_standing tdl_size_standing(tdl_worker *w) {
  tdl_seat *seat = &w->slot->seat;
  enum tdl_standing what = TDL_GOES_ON;
  int parks = 0;
  tdl_supervisor_lock();
  if (w->stop.written_off) {
    what = TDL_LOST;
  } else if (seat->state == TDL_SEAT_DISMISSED) {
    what = TDL_DISMISSED;
  } else if (tdl_pool_phase(w->pool) == TDL_POOL_STOPPED) {
    seat->state = TDL_SEAT_EMPTY;
    tdl_supervisor_rests_locked(w);
    what = TDL_ENDS;
  } else if (is_shut(w->slot)) {
    what = TDL_SITS;
    parks = seat->state == TDL_SEAT_TAKEN;
    if (parks) {
      seat->state = TDL_SEAT_PARKED;
      tdl_supervisor_rests_locked(w);
      forward_locked(w->pool, w->slot);
      what = seat->state == TDL_SEAT_PARKED ? TDL_SITS : TDL_GOES_ON;
    }
    if (parks && what == TDL_SITS && !seat->noted) {
      note_locked(w);
    }
  }
  tdl_supervisor_unlock();
  if (parks) {
    TDL_STALL();
    count_out(w->pool);
    tdl_pool_wake_if_work(w->pool);
  }
  return what;
}

void tdl_size_left_locked(tdl_worker *w) {
  w->slot->seat.state = TDL_SEAT_EMPTY;
  forward_locked(w->pool, w->slot);
  count_out(w->pool);
}

/* --- the home ------------------------------------------------------------- */

int tdl_size_dismiss(tdl_worker *w) {
  tdl_seat *seat = &w->slot->seat;
  int dismissed;
  tdl_supervisor_lock();
  dismissed = seat->state == TDL_SEAT_PARKED && w->thread_made &&
              tdl_slot_worker(w->slot) == w;
  if (dismissed) {
    seat->state = TDL_SEAT_DISMISSED;
    tdl_parker_wake(&w->loop.parker);
  }
  tdl_supervisor_unlock();
  return dismissed;
}

void tdl_size_vacated(tdl_worker *w) {
  tdl_supervisor_lock();
  w->thread_made = 0;
  w->gone = 0;
  w->slot->seat.state = TDL_SEAT_EMPTY;
  if (tdl_size_wants(w) && open_locked(w->pool, w->slot) != 0) {
    tdl_supervisor_look_at_locked(w->pool, tdl_now_ns() + TDL_SIZE_RETRY_NS);
  }
  tdl_supervisor_unlock();
}

void tdl_size_noted(tdl_worker *w) {
  tdl_seat *seat = &w->slot->seat;
  tdl_supervisor_lock();
  seat->noted = 0;
  if (seat->state == TDL_SEAT_PARKED && tdl_slot_worker(w->slot)->thread_made) {
    note_locked(tdl_slot_worker(w->slot)); /* it has left again since */
  }
  tdl_supervisor_unlock();
}
