/* tdl_watch: what of a pool's calls and workers somebody watches, and the one
** place that is told of them: it hands on to whoever wants to know.
** Threads: each function says whose it is.
** Owns:    nothing.
** Fails:   never; without memory those who watch are told less.
**
** Who watches is a set of bits above the pool's phase, in the same word (P2): a
** call that nobody watches is submitted, started and ended by looks at that word
** that are there for the phase. Where it is not OPEN alone, these functions are
** called. A call that was under way when the watch began may be told in part. */
#ifndef TDL_WATCH_H
#define TDL_WATCH_H

#include "pool.h"

enum tdl_watch {
  TDL_WATCH_EVENTS = 1, /* pool:on, see events.h */
  TDL_WATCH_DEBUG = 2,
  TDL_WATCH_TRACE = 4,
  TDL_WATCH_COUNTS = 8 /* TDL_NEWS_COUNTS, when one has changed */
};

struct tdl_entry;
struct tdl_trace;
struct tdl_worker;

/* home; whether that one watches from now on. */
void tdl_watch_set(treadle_pool *pool, enum tdl_watch who, int on);

/* home; it is about to look at the counts: it is told of what changes from here
** on, once. */
void tdl_watch_look(treadle_pool *pool);

/* any thread that keeps the pool; a set of enum tdl_watch. */
static inline uint32_t tdl_watched(const treadle_pool *pool) {
  /* relaxed: who has not seen it yet tells too little, or in vain */
  return tdl_pool_watch_bits(
      atomic_load_explicit(&pool->phase, memory_order_relaxed));
}

/* --- to be called if it is watched ----------------------------------------- */

/* submitter, when it is counted and before it is pushed; and if it is not, after
** all. */
void tdl_watch_submitted(tdl_job *job);
void tdl_watch_withdrawn(tdl_job *job);

/* worker; the entry's job starts, its code runs next. And its end, before it goes
** home, with what it had come to before anybody settled it. */
void tdl_watch_started(struct tdl_vm *vm, struct tdl_entry *entry);
void tdl_watch_ended(struct tdl_vm *vm, struct tdl_entry *entry, int status);

/* keeper; the same of a job that its process is given, and that has come back. */
void tdl_watch_call_started(struct tdl_worker *worker, const tdl_job *job);
void tdl_watch_call_ended(struct tdl_worker *worker, tdl_job *job,
                          uint64_t heard_ns, int status);

/* worker; the code of another entry takes over, or of none: 0. `current` is the
** one that ran. */
void tdl_watch_switches(struct tdl_vm *vm, uint32_t entry);

/* home; the same for a job that it runs itself. */
void tdl_watch_guest_started(tdl_job *job);
void tdl_watch_guest_ended(tdl_job *job, int status);

/* who settled it, as tdl_pool_count_settled has it; who refused a queued call. */
void tdl_watch_settled(const tdl_job *job, int state, int status);
void tdl_watch_refused(const tdl_job *job, int status);

/* worker; a state of its has booted since then, or ends for that reason. And the
** supervisor: it has written the worker off. */
void tdl_watch_worker_started(struct tdl_worker *worker, uint64_t since_ns);
void tdl_watch_worker_ends(struct tdl_worker *worker, const char *reason);
void tdl_watch_worker_lost(struct tdl_worker *worker);

/* worker; it could not load its module: the encoded report. */
void tdl_watch_load_failed(struct tdl_worker *worker, const tdl_bytes *report,
                           int status);

/* supervisor; what runs there is interrupted from now on. */
void tdl_watch_interrupted(struct tdl_worker *worker);

/* --- recordings (trace.h) -------------------------------------------------- */

/* home; records what is watched to a file, as tdl_trace_start has it. One at a
** time: TREADLE_EINVAL. */
int tdl_watch_record(treadle_pool *pool, const char *path, const char *title,
                     const char *const *names, uint32_t count,
                     struct tdl_trace **out);

/* The last reference to the pool: ends what it records. */
void tdl_watch_drop_trace(treadle_pool *pool);

#endif
