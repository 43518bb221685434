#include "wait.h"

#include <stddef.h>

#include "../base/stall.h"

void tdl_waiters_add(tdl_waiters *list, tdl_waiter *w) {
  w->list = list;
  w->next = NULL;
  w->before = list->last;
  if (list->last != NULL) {
    list->last->next = w;
  } else {
    list->first = w;
  }
  list->last = w;
}

void tdl_waiters_remove(tdl_waiter *w) {
  if (w->list == NULL) {
    return;
  }
  *(w->before != NULL ? &w->before->next : &w->list->first) = w->next;
  *(w->next != NULL ? &w->next->before : &w->list->last) = w->before;
  w->list = NULL;
}

int tdl_waiter_grant(tdl_waiter *w, void *value) {
  unsigned waiting = TDL_WAITING;
  tdl_waiters_remove(w);
  TDL_STALL();
  /* [wait-word] acq_rel: W1; what goes with it goes by the home's inbox */
  if (!atomic_compare_exchange_strong_explicit(
          &w->wait->word, &waiting, TDL_GRANTED, memory_order_acq_rel,
          memory_order_acquire)) {
    return 0;
  }
  w->wait->index = w->index;
  w->wait->value = value;
  return 1;
}

tdl_waiter *tdl_waiters_grant(tdl_waiters *list, void *value) {
  tdl_waiter *w;
  while ((w = list->first) != NULL) {
    if (tdl_waiter_grant(w, value)) {
      return w;
    }
  }
  return NULL;
}

int tdl_wait_give_up(tdl_wait *wait) {
  unsigned waiting = TDL_WAITING;
  return atomic_compare_exchange_strong_explicit(/* [wait-word] acq_rel: W1 */
                                                 &wait->word, &waiting,
                                                 TDL_GONE, memory_order_acq_rel,
                                                 memory_order_acquire);
}
