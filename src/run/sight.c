#include "sight.h"

#include <string.h>

#include "pump.h"

/* --- time and heap --------------------------------------------------------- */

static void hear(const tdl_keeper *k) {
  const tdl_link_page *page = k->link.page;
  /* relaxed, both: each of them is a number by itself */
  tdl_stats_process_says(
      k->worker->loop.tally,
      atomic_load_explicit(&page->idle, memory_order_relaxed),
      atomic_load_explicit(&page->heap_bytes, memory_order_relaxed));
}

void tdl_sight_begin(tdl_keeper *k) {
  tdl_pump_lock(k);
  tdl_stats_process_begins(k->worker->loop.tally, k->process.pid);
  k->lives = 1;
  tdl_pump_unlock(k);
}

void tdl_sight_end(tdl_keeper *k) {
  tdl_pump_lock(k);
  if (k->lives) {
    hear(k);
    tdl_stats_process_ends(k->worker->loop.tally);
  }
  k->lives = 0;
  tdl_pump_unlock(k);
}

void tdl_sight_tally(const treadle_pool *pool) {
  uint32_t slots =
      pool->plan == NULL || tdl_pool_forked() ? 0 : tdl_pool_slots(pool);
  for (uint32_t i = 0; i < slots; i++) {
    tdl_keeper *k = tdl_slot_worker(pool->slots[i])->keeper;
    tdl_pump_lock(k);
    if (k->lives) {
      hear(k);
    }
    tdl_pump_leave(k);
  }
}

/* --- who looks ------------------------------------------------------------- */

int tdl_sight_is_live(tdl_keeper *k) {
  int lives;
  tdl_pump_lock(k);
  lives = k->lives;
  tdl_pump_leave(k);
  return lives;
}

int tdl_sight_is_awake(tdl_keeper *k) {
  int is_awake;
  tdl_pump_lock(k);
  /* relaxed: a hint */
  is_awake = k->lives &&
             atomic_load_explicit(&k->link.page->rest, memory_order_relaxed) ==
                 TDL_LINK_AWAKE;
  tdl_pump_leave(k);
  return is_awake;
}

/* Who has asked before hears no more. */
static uint32_t begin_look(tdl_ear *ear, tdl_view *view) {
  uint32_t number;
  pthread_mutex_lock(&ear->lock);
  ear->view = view;
  ear->entry = 0;
  ear->heard = 0;
  number = ++ear->number;
  pthread_mutex_unlock(&ear->lock);
  return number;
}

int tdl_sight_ask(tdl_keeper *k, uint32_t after, tdl_view *view) {
  tdl_message m = {.kind = TDL_LINE_LOOK, .value = after};
  int asked = 0;
  tdl_pump_lock(k);
  if (k->lives) {
    m.ticket = begin_look(&k->ear, view);
    asked = tdl_line_send(k->process.line, &m, TDL_LINE_HEAD_BYTES) == 0;
  }
  tdl_pump_leave(k);
  return asked;
}

int tdl_sight_is_heard(tdl_keeper *k) {
  int heard;
  pthread_mutex_lock(&k->ear.lock);
  heard = k->ear.heard;
  pthread_mutex_unlock(&k->ear.lock);
  return heard;
}

uint32_t tdl_sight_end_look(tdl_keeper *k) {
  uint32_t entry;
  pthread_mutex_lock(&k->ear.lock);
  k->ear.view = NULL;
  entry = k->ear.entry;
  pthread_mutex_unlock(&k->ear.lock);
  return entry;
}

/* --- what is heard --------------------------------------------------------- */

/* Addresses of functions of C mean nothing here. */
static int check_frame(tdl_frame *f) {
  if ((uint32_t)f->kind > TDL_FRAME_UNKNOWN) {
    return 0;
  }
  if (f->kind > TDL_FRAME_MAIN) {
    f->id = f->kind == TDL_FRAME_BUILTIN ? f->id & UINT8_MAX : 0;
  }
  f->source[sizeof(f->source) - 1] = '\0';
  return 1;
}

static size_t size_of(uint32_t frames) {
  return offsetof(tdl_sight, stack) + offsetof(tdl_stack, frames) +
         frames * sizeof(tdl_frame);
}

static int check(tdl_sight *s, size_t bytes) {
  int is_sound =
      bytes >= size_of(0) &&
      s->stack.count <= sizeof(s->stack.frames) / sizeof(s->stack.frames[0]) &&
      bytes == size_of(s->stack.count) &&
      (uint32_t)s->stack.place <= TDL_IN_COLLECTOR;
  for (uint32_t i = 0; is_sound && i < s->stack.count; i++) {
    is_sound = check_frame(&s->stack.frames[i]);
  }
  return is_sound;
}

int tdl_sight_hear(void *arg, int line) {
  tdl_ear *ear = arg;
  tdl_sight s;
  int64_t n = tdl_line_take(line, &s, sizeof(s));
  if (n < 0 || !check(&s, (size_t)n)) {
    return 0;
  }
  pthread_mutex_lock(&ear->lock);
  if (ear->view != NULL && s.number == ear->number) { /* else it is too late */
    ear->view->ticket = s.ticket;
    ear->view->has_stack = s.has_stack != 0;
    memcpy(&ear->view->stack, &s.stack,
           size_of(s.stack.count) - offsetof(tdl_sight, stack));
    ear->entry = s.entry;
    ear->heard = 1;
  }
  pthread_mutex_unlock(&ear->lock);
  return 1;
}

/* --- the process ----------------------------------------------------------- */

void tdl_sight_answer(treadle_pool *pool, int line, const tdl_message *m) {
  tdl_sight s = {.kind = TDL_LINE_VIEW, .number = m->ticket};
  uint32_t next, found = 0;
  tdl_view view;
  if (m->value == 0) {
    found = tdl_look(pool, 1, &view, 1, TDL_SIGHT_PATIENCE_NS, &next);
  } else {
    found = tdl_look_waiting(tdl_slot_worker(pool->slots[0]),
                             (uint32_t)m->value - 1, &view);
    s.entry = found;
  }
  if (found != 0) {
    s.ticket = view.ticket;
    s.has_stack = (uint32_t)view.has_stack;
  }
  if (s.has_stack) {
    memcpy(&s.stack, &view.stack,
           size_of(view.stack.count) - offsetof(tdl_sight, stack));
  }
  tdl_line_send(line, &s, (uint32_t)size_of(s.stack.count));
}
