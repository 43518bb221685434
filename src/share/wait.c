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
  w->next = NULL;
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

tdl_waiter *tdl_waiters_grant_all(tdl_waiters *list, void *value) {
  tdl_waiter *granted = NULL, **end = &granted;
  while ((*end = tdl_waiters_grant(list, value)) != NULL) {
    end = &(*end)->next;
  }
  return granted;
}

void tdl_waiters_tell(tdl_waiter *granted) {
  while (granted != NULL) {
    tdl_wait *wait = granted->wait;
    granted = granted->next; /* it may be gone once it is told */
    TDL_STALL();
    wait->tell(wait);
  }
}

int tdl_wait_give_up(tdl_wait *wait) {
  unsigned waiting = TDL_WAITING;
  return atomic_compare_exchange_strong_explicit(/* [wait-word] acq_rel: W1 */
                                                 &wait->word, &waiting,
                                                 TDL_GONE, memory_order_acq_rel,
                                                 memory_order_acquire);
}
