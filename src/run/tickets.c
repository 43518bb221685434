#include "tickets.h"

#include <string.h>

#include "../base/alloc.h"
#include "../base/compiler.h"
#include "far.h"

void tdl_tickets_fini(tdl_tickets *t) {
  tdl_free(t->list);
}

tdl_ticket *tdl_tickets_find(const tdl_tickets *t, uint32_t number) {
  uint32_t i = TDL_FAR_INDEX(number);
  return i < t->count && t->list[i].job != NULL && t->list[i].number == number
             ? &t->list[i]
             : NULL;
}

static int add(tdl_tickets *t) {
  uint32_t first = t->count == 0 ? 1 : t->count; /* 0: none */
  uint32_t count = t->count == 0 ? 16 : t->count * 2;
  tdl_ticket *list;
  if (count > TDL_FAR_TICKETS) {
    return 0;
  }
  list = tdl_realloc(t->list, count * sizeof(*list));
  if (list == NULL) {
    return 0;
  }
  memset(&list[first], 0, (count - first) * sizeof(*list));
  t->list = list;
  t->count = count;
  for (uint32_t i = count; i-- > first;) {
    list[i].number = i;
    list[i].next = t->free;
    t->free = i;
  }
  return 1;
}

tdl_ticket *tdl_tickets_take(tdl_tickets *t, tdl_job *job) {
  tdl_ticket *ticket;
  if (TDL_UNLIKELY(t->free == 0) && !add(t)) {
    return NULL;
  }
  ticket = &t->list[t->free];
  t->free = ticket->next;
  ticket->number += TDL_FAR_USE;
  if (ticket->number < TDL_FAR_USE) {
    ticket->number += TDL_FAR_USE; /* never 0 */
  }
  ticket->job = job;
  ticket->is_ahead = ticket->is_late = 0;
  ticket->record = ticket->began_ns = ticket->heard_ns = 0;
  ticket->end_ns = TDL_NEVER;
  ticket->told = 0;
  return ticket;
}

void tdl_tickets_give(tdl_tickets *t, tdl_ticket *ticket) {
  ticket->job = NULL;
  ticket->next = t->free;
  t->free = TDL_FAR_INDEX(ticket->number);
}

/* --- ahead ----------------------------------------------------------------- */

static void count_ahead(tdl_tickets *t, int more) {
  /* [ahead] seq_cst: before the look at the bits of other workers */
  atomic_fetch_add_explicit(&t->ahead, (uint32_t)more, memory_order_seq_cst);
}

void tdl_tickets_push(tdl_tickets *t, tdl_ticket *ticket) {
  uint32_t i = TDL_FAR_INDEX(ticket->number);
  ticket->is_ahead = 1;
  ticket->next = 0;
  if (t->last != 0) {
    t->list[t->last].next = i;
  } else {
    t->first = i;
  }
  t->last = i;
  t->bare = t->bare == 0 ? i : t->bare;
  count_ahead(t, 1);
}

void tdl_tickets_remove(tdl_tickets *t, tdl_ticket *ticket) {
  uint32_t i = TDL_FAR_INDEX(ticket->number), before = 0;
  for (uint32_t at = t->first; at != i; at = t->list[at].next) {
    before = at;
  }
  if (before == 0) {
    t->first = ticket->next;
  } else {
    t->list[before].next = ticket->next;
  }
  t->last = t->last == i ? before : t->last;
  t->bare = t->bare == i ? ticket->next : t->bare;
  ticket->is_ahead = 0;
  count_ahead(t, -1);
}

tdl_ticket *tdl_tickets_shift(tdl_tickets *t) {
  tdl_ticket *ticket = &t->list[t->first];
  tdl_tickets_remove(t, ticket);
  return ticket;
}

tdl_ticket *tdl_tickets_next(const tdl_tickets *t, const tdl_ticket *ticket) {
  uint32_t i = ticket == NULL ? t->first : ticket->next;
  return i == 0 ? NULL : &t->list[i];
}

void tdl_tickets_put(tdl_tickets *t, uint64_t begins, uint64_t record) {
  tdl_ticket *ticket = &t->list[t->bare];
  ticket->begins = begins;
  ticket->record = record;
  t->bare = ticket->next;
}

void tdl_tickets_bare(tdl_tickets *t, tdl_ticket *ticket) {
  t->bare = TDL_FAR_INDEX(ticket->number);
  for (; ticket != NULL; ticket = tdl_tickets_next(t, ticket)) {
    ticket->record = 0;
  }
}
