/* A binary heap with places, as in any textbook. */
#include "deadlines.h"

#include "../base/alloc.h"
#include "../treadle.h"

static void put(tdl_deadlines *d, uint32_t i, tdl_job *job) {
  d->heap[i] = job;
  job->heap_index = i;
}

static void up(tdl_deadlines *d, uint32_t i, tdl_job *job) {
  while (i > 1 && d->heap[i / 2]->deadline_ns > job->deadline_ns) {
    put(d, i, d->heap[i / 2]);
    i /= 2;
  }
  put(d, i, job);
}

static void down(tdl_deadlines *d, uint32_t i, tdl_job *job) {
  for (;;) {
    uint32_t child = i * 2;
    if (child < d->count &&
        d->heap[child + 1]->deadline_ns < d->heap[child]->deadline_ns) {
      child++;
    }
    if (child > d->count || d->heap[child]->deadline_ns >= job->deadline_ns) {
      break;
    }
    put(d, i, d->heap[child]);
    i = child;
  }
  put(d, i, job);
}

int tdl_deadlines_add(tdl_deadlines *d, tdl_job *job) {
  if (d->count + 1 >= d->room) {
    uint32_t room = d->room == 0 ? 64 : d->room * 2;
    tdl_job **heap = tdl_realloc(d->heap, room * sizeof(tdl_job *));
    if (heap == NULL) {
      return TREADLE_ENOMEM;
    }
    d->heap = heap;
    d->room = room;
  }
  up(d, ++d->count, job);
  return 0;
}

void tdl_deadlines_remove(tdl_deadlines *d, tdl_job *job) {
  uint32_t i = job->heap_index;
  tdl_job *last = d->heap[d->count--];
  job->heap_index = 0;
  if (last != job) {
    up(d, i, last);
    down(d, last->heap_index, last);
  }
}

tdl_job *tdl_deadlines_first(const tdl_deadlines *d) {
  return d->count > 0 ? d->heap[1] : NULL;
}

void tdl_deadlines_fini(tdl_deadlines *d) {
  tdl_free(d->heap);
  d->heap = NULL;
  d->count = d->room = 0;
}
