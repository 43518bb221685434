#include "board.h"

#include <string.h>

#include "../base/alloc.h"
#include "../treadle.h"

static struct {
  pthread_mutex_t lock;
  atomic_int is_open;
  tdl_shown *first;
  uint32_t count; /* ever shown */
} board = {.lock = PTHREAD_MUTEX_INITIALIZER};

int tdl_board_is_open(void) {
  /* relaxed: whoever shows a pool asks again under the lock */
  return atomic_load_explicit(&board.is_open, memory_order_relaxed);
}

static void set_open(int is_open) {
  pthread_mutex_lock(&board.lock);
  /* relaxed: as above */
  atomic_store_explicit(&board.is_open, is_open, memory_order_relaxed);
  pthread_mutex_unlock(&board.lock);
}

void tdl_board_open(void) {
  set_open(1);
}

void tdl_board_close(void) {
  set_open(0);
  while (board.first != NULL) { /* nobody shows any more */
    tdl_board_forget(board.first);
  }
}

int tdl_board_show(treadle_pool *pool, const char *name, size_t name_size,
                   const char *told, size_t told_size) {
  tdl_shown *s = tdl_calloc(sizeof(*s) + name_size + told_size);
  int taken;
  if (s == NULL) {
    return TREADLE_ENOMEM;
  }
  s->name_size = name_size;
  s->size = name_size + told_size;
  memcpy(s->text, name, name_size);
  memcpy(s->text + name_size, told, told_size);
  s->pool = pool;
  s->stats = pool->stats;
  tdl_pool_hold(pool);
  tdl_stats_hold(s->stats);
  pthread_mutex_lock(&board.lock);
  taken = tdl_board_is_open();
  if (taken) {
    s->number = ++board.count;
    s->next = board.first;
    board.first = s;
  }
  pthread_mutex_unlock(&board.lock);
  if (!taken) {
    tdl_stats_drop(s->stats);
    tdl_pool_drop(pool);
    tdl_free(s);
  }
  return 0;
}

tdl_shown *tdl_board_first(void) {
  tdl_shown *first;
  pthread_mutex_lock(&board.lock);
  first = board.first;
  pthread_mutex_unlock(&board.lock);
  return first;
}

void tdl_board_look(tdl_shown *s) {
  if (s->pool != NULL && tdl_stats_is_closed(s->stats)) {
    tdl_pool_drop(s->pool);
    s->pool = NULL;
  }
}

void tdl_board_forget(tdl_shown *s) {
  tdl_shown **at = &board.first;
  pthread_mutex_lock(&board.lock);
  while (*at != s) {
    at = &(*at)->next;
  }
  *at = s->next;
  pthread_mutex_unlock(&board.lock);
  if (s->pool != NULL) {
    tdl_pool_drop(s->pool);
  }
  tdl_stats_drop(s->stats);
  tdl_free(s);
}
