#include "far.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/compiler.h"
#include "../base/stall.h"
#include "../codec/payload.h"
#include "spawn.h"
#include "supervisor.h"
#include "worker.h"

int tdl_far_new(const tdl_link *link, tdl_crossing *crossing,
                const tdl_hello *hello, tdl_far **out) {
  tdl_far *far = tdl_calloc(sizeof(*far));
  int status = far == NULL ? TREADLE_ENOMEM : tdl_loop_new(&far->home);
  if (status != 0) {
    tdl_free(far);
    return status;
  }
  far->link = *link;
  far->crossing = crossing;
  far->id = hello->id;
  far->spins = (int)hello->spins;
  pthread_mutex_init(&far->lock, NULL);
  *out = far;
  return 0;
}

/* Of its block of entries nobody has one any more. */
void tdl_far_free(tdl_far *far) {
  for (uint32_t i = 0; i < TDL_FAR_BLOCKS; i++) {
    /* relaxed: the last one to know it */
    tdl_free(atomic_load_explicit(&far->blocks[i], memory_order_relaxed));
  }
  tdl_loop_drop(far->home);
  tdl_crossing_end(far->crossing);
  tdl_link_close(&far->link);
  pthread_mutex_destroy(&far->lock);
  tdl_free(far);
}

/* --- tickets (F2) ---------------------------------------------------------- */

/* NULL without memory. */
static tdl_far_entry *entry_of(tdl_far *far, uint32_t ticket) {
  _Atomic(tdl_far_entry *) *at;
  tdl_far_entry *block, *other = NULL;
  uint32_t i = TDL_FAR_INDEX(ticket);
  at = &far->blocks[i / TDL_FAR_ENTRIES];
  /* [far-block] acquire: its zeros */
  block = atomic_load_explicit(at, memory_order_acquire);
  if (TDL_UNLIKELY(block == NULL)) {
    block = tdl_calloc(TDL_FAR_ENTRIES * sizeof(*block));
    /* [far-block] release: its zeros; acquire: the other one's */
    if (block != NULL &&
        !atomic_compare_exchange_strong_explicit(
            at, &other, block, memory_order_acq_rel, memory_order_acquire)) {
      tdl_free(block);
      block = other;
    }
  }
  return block == NULL ? NULL : &block[i % TDL_FAR_ENTRIES];
}

/* F2 */
static uint64_t word_of(uint32_t ticket, uint32_t state) {
  return (uint64_t)ticket << 32 | state;
}

tdl_far_entry *tdl_far_entry_of(tdl_far *far, const tdl_job *job) {
  return entry_of(far, (uint32_t)(uintptr_t)job->ctx); /* it exists */
}

tdl_far_entry *tdl_far_entry_at(tdl_far *far, uint32_t ticket) {
  tdl_far_entry *entry = entry_of(far, ticket);
  /* relaxed: our own */
  return entry != NULL && (uint32_t)(atomic_load_explicit(
                                         &entry->word, memory_order_relaxed) >>
                                     32) == ticket
             ? entry
             : NULL;
}

/* --- results --------------------------------------------------------------- */

static void ring(void) {
  ssize_t n = write(TDL_SPAWN_BELL, "", 1);
  (void)n; /* full: it is ringing */
}

/* F6. The job's bytes are its own again, with nothing in them. */
static void take_back(tdl_far *far) {
  tdl_payload_clear(&far->writes->bytes); /* buffers, if it was settled */
  tdl_bytes_reset(&far->writes->bytes, NULL, 0); /* what it may have outgrown */
  far->writes->bytes = far->aside;
  far->writes = NULL;
}

/* F6. The same with what is in them: 0 without memory for that. */
static int recall(tdl_far *far) {
  tdl_bytes *bytes = &far->writes->bytes;
  if (tdl_bytes_heap(bytes) == 0) {
    if (tdl_bytes_append(&far->aside, bytes->data, bytes->len) != 0) {
      return 0;
    }
    *bytes = far->aside;
  } else {
    tdl_bytes_reset(&far->aside, NULL, 0);
  }
  far->writes = NULL;
  return 1;
}

void tdl_far_answers(tdl_far *far, tdl_job *job) {
  uint8_t *data = NULL;
  uint64_t size = 0;
  if (far->is_long && far->writes == NULL && job->home == far->home) {
    size = tdl_link_lend(&far->link.out, &data);
  }
  if (size > 0) {
    far->writes = job;
    far->aside = job->bytes;
    tdl_bytes_init(&job->bytes, data, (uint32_t)size);
  }
}

static int has_things(const tdl_bytes *bytes) {
  return bytes->len > 0 && (bytes->data[0] & TDL_WIRE_THINGS);
}

void tdl_far_ring(tdl_far *far) {
  if (tdl_link_is_dozing(&far->link)) { /* else it looks before it sleeps */
    ring();
  }
}

/* F6: before another payload is put. 0 without memory. */
static int make_way(tdl_far *far, const tdl_bytes *payload) {
  return far->writes == NULL ||
         !(payload == &far->writes->bytes
               ? has_things(payload)
               : payload->len > TDL_LINK_INLINE_BYTES) ||
         recall(far);
}

/* The keeper makes room as soon as it hears the bell. */
static void await_room(void) {
  struct timespec moment = {0, TDL_FAR_ROOM_NS};
  ring();
  nanosleep(&moment, NULL);
}

int tdl_far_put(tdl_far *far, tdl_record *head, const tdl_bytes *payload) {
  int done;
  if (payload != NULL && !make_way(far, payload)) {
    return TREADLE_ENOMEM;
  }
  while ((done = tdl_crossing_put(far->crossing, &far->link.out, head,
                                  payload)) == 0) {
    await_room();
  }
  /* else nobody reads it */
  return done == TREADLE_EPAYLOAD || done == TREADLE_ENOMEM ? done : 0;
}

void tdl_far_put_text(tdl_far *far, tdl_record *head, const void *text,
                      size_t len) {
  head->len = len < TDL_LINK_INLINE_BYTES ? (uint32_t)len : 0;
  while (tdl_link_put(&far->link.out, head, text) == 0) {
    await_room();
  }
}

/* Of results: what cannot go up is a failure. */
static void put(tdl_far *far, tdl_record *head, const tdl_bytes *payload) {
  int status = tdl_far_put(far, head, payload);
  if (status != 0) {
    head->status = (int16_t)status;
    tdl_far_put(far, head, NULL);
  }
}

void tdl_far_report(tdl_far *far, const tdl_bytes *report, uint32_t tasks) {
  tdl_record head = {.kind = TDL_FAR_REPORT};
  put(far, &head, report);
  far->tasks = tasks;
  far->has_started = 1;
}

/* F5: the ring is the parent's again, and the job's bytes its own. */
static void release(tdl_far *far) {
  if (far->reads != NULL) {
    tdl_bytes_reset(&far->reads->bytes, NULL, 0); /* a text, at the most */
    far->reads->bytes = far->kept;
    far->reads = NULL;
    tdl_link_take(&far->link.in, &far->open);
  }
}

void tdl_far_decoded(tdl_far *far, const tdl_job *job) {
  if (job == far->reads) { /* else one of this process's own */
    release(far);
  }
}

static void come_home(tdl_far *far, tdl_job *job) {
  uint32_t ticket = (uint32_t)(uintptr_t)job->ctx;
  tdl_far_entry *entry = entry_of(far, ticket); /* it exists */
  tdl_record head = {
      .kind = TDL_FAR_RESULT, .ticket = ticket, .status = job->status};
  int is_settled = tdl_job_is_settled(job) != 0;
  enum tdl_link_away away;
  if (is_settled) { /* the parent has told its caller */
    head.status = TREADLE_ECRASHED;
  }
  put(far, &head, is_settled ? NULL : &job->bytes);
  far->is_long = head.len > TDL_LINK_INLINE_BYTES;
  if (job == far->writes) {
    take_back(far);
  }
  if (job == far->reads) { /* it never was decoded */
    release(far);
  }
  /* [far-entry] relaxed: before the fence in tdl_link_call_home */
  atomic_store_explicit(&entry->word, 0, memory_order_relaxed);
  away = tdl_link_call_home(&far->link); /* F4 */
  if (away == TDL_LINK_ON_BELL || entry->is_urgent) {
    tdl_far_ring(far);
  }
  far->has_called = away == TDL_LINK_ON_WORD;
  /* [far-entry] relaxed: behind that fence (F3) */
  if (TDL_UNLIKELY(
          atomic_load_explicit(&far->settling, memory_order_relaxed))) {
    pthread_mutex_lock(&far->lock);
    pthread_mutex_unlock(&far->lock);
  }
  if (TDL_UNLIKELY(job->timed & TDL_JOB_STREAMED)) {
    job->extras |= TDL_JOB_HAS_STREAM;
  }
  tdl_jobs_give(&far->home->jobs, job);
}

void tdl_far_flush(tdl_far *far) {
  tdl_node *node;
  while ((node = tdl_queue_pop(&far->home->inbox)) != NULL) {
    if (node->kind != TDL_NODE_EXPIRED) { /* of a job that comes, or is lost */
      come_home(far, TDL_CONTAINER(node, tdl_job, node));
    }
  }
  if (TDL_UNLIKELY(far->rings)) { /* F4 */
    far->rings = 0;
    tdl_far_ring(far);
  }
}

/* --- sleeping -------------------------------------------------------------- */

static void rouse(void *link) {
  tdl_link_rouse(link);
}

void tdl_far_serve(tdl_far *far, tdl_parker *parker) {
  parker->rouse = rouse;
  parker->sleeper = &far->link;
}

void tdl_far_announce(tdl_far *far, tdl_worker *w, enum tdl_link_rest how) {
  if (how == TDL_LINK_SLEEPS) {
    tdl_parker_announce(&w->loop.parker, TDL_ELSEWHERE);
  }
  tdl_link_announce(&far->link, how);
}

void tdl_far_awake(tdl_far *far, tdl_worker *w) {
  tdl_link_awake(&far->link);
  tdl_parker_awake(&w->loop.parker);
}

/* What it has put is not left lying (F4). */
void tdl_far_rests(tdl_far *far) {
  if (tdl_link_is_heard(&far->link) ||
      (!tdl_link_has_taken(&far->link.out, far->link.out.put) &&
       !far->has_called && !tdl_link_is_copied(&far->link))) {
    tdl_far_ring(far);
  }
}

void tdl_far_sleep(tdl_far *far, tdl_worker *w, uint64_t ns) {
  if (far->writes == NULL) {
    tdl_link_trim(&far->link.out);
  }
  tdl_far_rests(far);
  tdl_link_sleep(&far->link, ns);
  tdl_far_awake(far, w);
}

void tdl_far_show(tdl_far *far, const tdl_worker *w) {
  const tdl_tally *tally = w->loop.tally;
  /* relaxed, all: our own, and each of them is a number by itself */
  atomic_store_explicit(
      &far->link.page->heap_bytes,
      atomic_load_explicit(&tally->heap_bytes, memory_order_relaxed),
      memory_order_relaxed);
  atomic_store_explicit(
      &far->link.page->idle,
      atomic_load_explicit(&tally->idle, memory_order_relaxed),
      memory_order_relaxed);
}

/* --- calls ----------------------------------------------------------------- */

/* What cannot even be a job. */
static void turn_away(tdl_far *far, const tdl_record *call) {
  tdl_record head = {
      .kind = TDL_FAR_RESULT, .ticket = call->ticket, .status = TREADLE_ENOMEM};
  put(far, &head, NULL);
  tdl_far_ring(far);
}

/* F5: gives the job the payload of `open`; 0 without memory, and nothing more is
** to be done with that. */
static int bring(tdl_far *far, tdl_job *job, const uint8_t *data) {
  uint32_t len = far->open.len;
  int status;
  if (TDL_UNLIKELY(len > 0 && (data[0] & TDL_WIRE_THINGS))) {
    status = tdl_bytes_append(&job->bytes, data, len);
    if (status == 0) {
      status = tdl_crossing_read(far->crossing, &job->bytes);
    }
    if (status == TREADLE_EINVAL) {
      abort(); /* as in tdl_far_take */
    }
    if (status != 0) {
      turn_away(far, &far->open);
    }
    tdl_link_take(&far->link.in, &far->open);
    return status == 0;
  }
  /* without a capacity nothing is ever written there */
  far->reads = job;
  far->kept = job->bytes;
  tdl_bytes_init(&job->bytes, (uint8_t *)(uintptr_t)data, 0);
  job->bytes.len = len;
  return 1;
}

int tdl_far_ready(tdl_far *far, int has_room) {
  return tdl_link_ready(&far->link.in) &&
         (has_room || tdl_link_kind(&far->link.in) != TDL_FAR_AHEAD);
}

/* F4: since the last call, and that one's result is not the first to lie. One job at
** a time comes when the last one's result was taken, but for those that lay ahead:
** of them a few are enough to look at. */
static void ring_for_results(tdl_far *far, uint32_t concurrency) {
  if (concurrency == 1 && (far->open.kind == TDL_FAR_CALL ||
                           ++far->unlooked < TDL_FAR_LOOK_CALLS)) {
    return;
  }
  far->unlooked = 0;
  if (TDL_LIKELY(tdl_link_has_taken(&far->link.out, far->put_before))) {
    far->lain_ns = 0;
  } else if (far->lain_ns == 0) {
    far->lain_ns = tdl_now_ns();
  } else if (tdl_now_ns() - far->lain_ns >= TDL_FAR_LAIN_NS) {
    tdl_far_ring(far);
  }
  far->put_before = far->link.out.put;
}

tdl_job *tdl_far_take(tdl_far *far, tdl_worker *w) {
  tdl_far_entry *entry;
  const uint8_t *data;
  tdl_job *job;
  uint64_t doomed;
  uint32_t ticket;
  int got = tdl_link_kind(&far->link.in) == 0
                ? 0
                : tdl_link_look(&far->link.in, &far->open, &data);
  if (got == 0 || (got > 0 && far->open.kind != TDL_FAR_CALL &&
                   far->open.kind != TDL_FAR_AHEAD)) {
    return NULL; /* what there is arrives in the worker's loop (upcall.h) */
  }
  got = got < 0 ? got : tdl_link_begin(&far->link, &far->open);
  if (got < 0) {
    abort(); /* N1: this process has written into what is not its own */
  } else if (got == 0) {
    return NULL; /* it is nobody's any more */
  }
  ring_for_results(far, w->pool->concurrency);
  if (TDL_UNLIKELY(++far->unshown >= TDL_FAR_SHOWN_CALLS)) {
    far->unshown = 0;
    tdl_far_show(far, w);
  }
  ticket = far->open.ticket;
  entry = entry_of(far, ticket);
  job = entry == NULL ? NULL : tdl_jobs_take(&far->home->jobs, far->home);
  if (job == NULL) {
    turn_away(far, &far->open);
    tdl_link_take(&far->link.in, &far->open);
    return NULL;
  }
  job->pool = w->pool;
  job->ctx = (void *)(uintptr_t)ticket;
  job->deadline_ns = far->open.when;
  job->timed = far->open.when != TDL_NEVER ? TDL_JOB_LIMITED : 0;
  tdl_job_set_task(job, far->open.task);
  if (!bring(far, job, data)) {
    tdl_jobs_give(&far->home->jobs, job);
    return NULL;
  }
  tdl_jobs_submit(&far->home->jobs, job);
  tdl_stats_submitted(w->pool->stats, &w->pool->stats->home, job);
  entry->is_urgent = far->open.status == TDL_FAR_URGENT;
  entry->waits = entry->is_unwanted = 0;
  entry->credit = TDL_STREAM_BUFFER;
  /* [far-entry] release: what the job is */
  atomic_store_explicit(&entry->job, job, memory_order_release);
  /* [far-entry] seq_cst: before the look at `doomed` (F2) */
  atomic_store_explicit(&entry->word,
                        word_of(ticket, tdl_job_generation(job) | 1u),
                        memory_order_seq_cst);
  doomed = atomic_load_explicit(&entry->doomed, memory_order_seq_cst); /* too */
  if (TDL_UNLIKELY((uint32_t)(doomed >> 32) == ticket)) {
    tdl_job_settle(job, tdl_job_generation(job),
                   (enum tdl_job_state)(doomed & 7u));
  }
  return job;
}

void tdl_far_settle(tdl_far *far, const tdl_message *m) {
  tdl_far_entry *entry = entry_of(far, m->ticket);
  enum tdl_job_state to = (enum tdl_job_state)(m->value & 7u);
  uint64_t word;
  if (entry == NULL || to < TDL_JOB_SETTLED) {
    return;
  }
  pthread_mutex_lock(&far->lock);
  /* [far-entry] seq_cst, all: before the look at the word (F2, F3) */
  atomic_store_explicit(&entry->doomed, word_of(m->ticket, (uint32_t)to),
                        memory_order_seq_cst);
  atomic_store_explicit(&far->settling, 1, memory_order_seq_cst);
  word = atomic_load_explicit(&entry->word, memory_order_seq_cst);
  if ((uint32_t)(word >> 32) == m->ticket) {
    /* [far-entry] acquire: what the job is */
    tdl_job *job = atomic_load_explicit(&entry->job, memory_order_acquire);
    uint32_t generation = (uint32_t)word & ~7u;
    if (m->length > 0) {
      tdl_job_set_reason(job, m->text);
    }
    if (to == TDL_JOB_CANCELLED) {
      tdl_pool_settle_use(job, generation, to);
    } else {
      tdl_supervisor_stop(job, generation, to);
    }
  }
  /* [far-entry] seq_cst: as above */
  atomic_store_explicit(&far->settling, 0, memory_order_seq_cst);
  pthread_mutex_unlock(&far->lock);
}
