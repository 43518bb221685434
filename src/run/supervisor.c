#include "supervisor.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>

#include "../base/stall.h"
#include "deadlines.h"
#include "phase.h"
#include "upcall.h"
#include "vm.h"
#include "watch.h"

/* One for the process. `life` guards users and running, and is held while the
** thread ends, so that the next pool finds it gone; `lock`, taken after it,
** guards the rest. */
static struct {
  pthread_mutex_t life;
  pthread_mutex_t lock;
  pthread_cond_t changed; /* something is due earlier, or the end */
  int users;
  int running; /* written with both locks, while there are users */
  int stop;
  pthread_t thread;
  tdl_deadlines deadlines;
  tdl_worker *listed;  /* those it looks at */
  treadle_pool *sized; /* those whose size it looks at */
} sv = {.life = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER};

/* --- settling ------------------------------------------------------------- */

/* S2 */
static void send_word_locked(tdl_job *job, int status) {
  TDL_STALL();
  job->verdict = (int8_t)status;
  job->expiring = 1;
  job->expiry.kind = TDL_NODE_EXPIRED;
  tdl_loop_post(job->home, &job->expiry);
}

static void list_locked(tdl_worker *w, uint64_t due) {
  tdl_stop *s = &w->stop;
  if (tdl_worker_life(w) == TDL_ENDED || s->written_off) {
    return;
  }
  if (w->keeper != NULL) { /* its own thread looks at the clock (H4) */
    tdl_parker_wake(&w->loop.parker);
    return;
  }
  if (!s->listed) {
    s->listed = 1;
    s->next = sv.listed;
    s->pause_ns = TDL_STOP_AGAIN_NS;
    s->due_ns = due;
    tdl_chance_pause(&s->chance);
    sv.listed = w;
  }
  s->due_ns = due < s->due_ns ? due : s->due_ns;
  pthread_cond_signal(&sv.changed);
}

static void unlist_locked(tdl_worker *w) {
  tdl_worker **at = &sv.listed;
  if (w->stop.listed) {
    while (*at != w) {
      at = &(*at)->stop.next;
    }
    *at = w->stop.next;
    w->stop.listed = 0;
  }
}

static int force_locked(tdl_job *job, uint32_t generation,
                        enum tdl_job_state to) {
  int state = tdl_job_settle(job, generation, to);
  tdl_worker *w;
  tdl_pool_count_settled(job, state,
                         to == TDL_JOB_EXPIRED ? TREADLE_ETIMEOUT
                                               : TREADLE_ECANCELLED);
  TDL_STALL();
  w = tdl_pool_settled(job, state);
  if (w != NULL) {
    w->stop.forced++;
    list_locked(w, tdl_now_ns() + TDL_STOP_GRACE_NS);
    tdl_worker_ask(w, TDL_ASK_CANCEL);
  }
  return state != 0;
}

static void expire_locked(uint64_t now) {
  tdl_job *job;
  while ((job = tdl_deadlines_first(&sv.deadlines)) != NULL &&
         job->deadline_ns <= now) {
    tdl_deadlines_remove(&sv.deadlines, job);
    TDL_STALL();
    if (force_locked(job, tdl_job_generation(job), TDL_JOB_EXPIRED)) {
      send_word_locked(job, TREADLE_ETIMEOUT);
    }
  }
}

/* --- stopping (S3, S4) ---------------------------------------------------- */

/* When what it runs must end. */
static uint64_t end_of(const tdl_stop *s) {
  return s->end_ns < s->leave_ns ? s->end_ns : s->leave_ns;
}

/* Whether the FORCED job that runs has had its chance to end; or, when the time
** of all is over, whatever runs. */
static int goes_on_locked(tdl_worker *w, int is_late) {
  tdl_stop *s = &w->stop;
  tdl_job *job = tdl_worker_runs_forced(w) ? tdl_worker_running(w) : NULL;
  if (is_late ? !s->late : job == NULL || job != s->suspect) {
    s->suspect = job;
    s->used_ns = s->chance.used_ns;
    s->still_ns = s->chance.still_ns;
    s->pause_ns = TDL_STOP_AGAIN_NS;
    s->late = is_late;
    return 0;
  }
  return s->chance.used_ns - s->used_ns >= TDL_STOP_COMPUTE_NS ||
         s->chance.still_ns - s->still_ns >= TDL_STOP_STILL_NS;
}

static int is_guilty_locked(tdl_worker *w, uint64_t now) {
  if (tdl_worker_life(w) == TDL_CLOSING) {
    return w->stop.condemned_ns != 0 ||
           (end_of(&w->stop) != TDL_NEVER &&
            now >= end_of(&w->stop) + w->pool->terminate_ns);
  }
  if (now < end_of(&w->stop)) {
    w->stop.late = 0;
    return goes_on_locked(w, 0);
  }
  return w->stop.condemned_ns != 0 || w->stop.exhausted || goes_on_locked(w, 1);
}

/* Running, and its worker will not end it. */
static void lose_job_locked(tdl_job *job, int status) {
  int state = tdl_job_settle(job, tdl_job_generation(job), TDL_JOB_CLOSED);
  if (state != 0) {
    tdl_pool_count_settled(job, state, status);
    if (job->heap_index != 0) {
      tdl_deadlines_remove(&sv.deadlines, job);
    }
    send_word_locked(job, status);
  }
}

static void lose_jobs_locked(tdl_worker *w) {
  tdl_job *running = tdl_worker_running(w);
  int status = tdl_pool_phase(w->pool) == TDL_POOL_STOPPED ? TREADLE_ECLOSED
                                                           : TREADLE_ECRASHED;
  if (running != NULL) { /* first: it may be held, too */
    lose_job_locked(running, status == TREADLE_ECRASHED && w->stop.exhausted
                                 ? TREADLE_ENOMEM
                                 : status);
  }
  pthread_mutex_lock(&w->lock);
  for (uint32_t i = 1; w->seen != NULL && i < w->seen->entry_count; i++) {
    if (w->seen->entries[i].held != NULL) {
      lose_job_locked(w->seen->entries[i].held, status);
    }
  }
  pthread_mutex_unlock(&w->lock);
}

/* Whether it has a state that has booted. */
static void count_locked(tdl_worker *w, int up) {
  if (w->up != up) {
    w->up = up;
    /* release: as any count (stats.h) */
    atomic_fetch_add_explicit(&w->pool->up, up ? 1 : -1, memory_order_release);
  }
}

void tdl_supervisor_counts(tdl_worker *w, int up) {
  pthread_mutex_lock(&sv.lock);
  count_locked(w, up && !w->stop.written_off);
  pthread_mutex_unlock(&sv.lock);
}

/* Without memory or threads for another one it keeps its slot until a later
** look. */
static void write_off_locked(tdl_worker *w) {
  treadle_pool *pool = w->pool;
  int replaced = tdl_pool_phase(pool) != TDL_POOL_STOPPED && !pool->mortal;
  int wanted = tdl_size_wants(w);
  if (replaced && tdl_worker_replace(w, wanted) != 0) {
    return;
  }
  w->stop.given_up = 1;
  if (!tdl_worker_leave_alone(w)) { /* its home has done that */
    return;
  }
  w->stop.written_off = 1;
  w->replaced = replaced;
  lose_jobs_locked(w);
  count_locked(w, 0);
  tdl_pool_lose_state(pool,
                      w->stop.exhausted ? TREADLE_ENOMEM : TREADLE_ECRASHED);
  if (tdl_watched(pool) != 0) {
    tdl_watch_worker_lost(w);
  }
  tdl_worker_lose_places(w);
  if (replaced && !wanted) {
    tdl_size_left_locked(w);
  }
  pthread_detach(w->thread);
  tdl_pool_lose(pool, w);
}

/* The call's maker, if it waits in a worker of this pool. */
static tdl_job *maker_locked(const treadle_pool *pool, const tdl_job *job) {
  tdl_job *maker = NULL;
  uint32_t parent = tdl_job_parent(job);
  for (uint32_t i = 0; i < tdl_pool_slots(pool); i++) {
    tdl_worker *w = tdl_slot_worker(pool->slots[i]);
    if (&w->loop == job->home) {
      pthread_mutex_lock(&w->lock);
      if (w->seen != NULL && parent < w->seen->entry_count) {
        maker = w->seen->entries[parent].held;
      }
      pthread_mutex_unlock(&w->lock);
      break;
    }
  }
  return maker;
}

/* S5 */
static void force_call_locked(tdl_worker *w) {
  tdl_job *job = tdl_worker_running(w), *maker = job;
  /* first: it may end meanwhile, and be another call then */
  uint32_t generation = job != NULL ? tdl_job_generation(job) : 0;
  while (maker != NULL && !tdl_job_is_forced(maker)) {
    maker = maker_locked(w->pool, maker);
  }
  if (maker != NULL && maker != job &&
      force_locked(job, generation, TDL_JOB_FORCED)) {
    if (job->heap_index != 0) {
      tdl_deadlines_remove(&sv.deadlines, job);
    }
    send_word_locked(job, TREADLE_ECANCELLED);
  }
}

static void look_locked(tdl_worker *w, uint64_t now) {
  tdl_stop *s = &w->stop;
  uint64_t patience = tdl_worker_life(w) == TDL_CLOSING ? TDL_STOP_CLOSE_NS
                                                        : TDL_STOP_PATIENCE_NS;
  s->due_ns = now + s->pause_ns;
  tdl_chance_look(&s->chance, w->thread, now);
  if (s->forced > 0 && !s->given_up && tdl_worker_life(w) != TDL_CLOSING) {
    force_call_locked(w);
  }
  if (!s->given_up && !is_guilty_locked(w, now)) {
    if (s->condemned_ns == 0 && s->forced <= 0 && end_of(s) == TDL_NEVER) {
      unlist_locked(w);
    }
    if (s->suspect == NULL && s->pause_ns < TDL_STOP_RARELY_NS) {
      s->pause_ns *= 2;
    }
    if (now < end_of(s) && end_of(s) < s->due_ns) {
      s->due_ns = end_of(s);
    }
    return;
  }
  if (s->given_up) { /* in Lua again, it may not end either */
    s->pause_ns += s->pause_ns < TDL_STOP_RARELY_NS ? s->pause_ns : 0;
  } else {
    s->pause_ns = TDL_STOP_AGAIN_NS;
    s->due_ns = now + s->pause_ns;
    if (s->condemned_ns == 0) {
      s->condemned_ns = now;
      s->had_ns = s->chance.used_ns + s->chance.still_ns;
      tdl_worker_ask(w, TDL_ASK_LEAVE);
      if (tdl_watched(w->pool) != 0) {
        tdl_watch_interrupted(w);
      }
    } else if (s->chance.used_ns + s->chance.still_ns - s->had_ns >= patience) {
      write_off_locked(w);
    }
  }
  tdl_worker_doom(w, s->given_up || now >= end_of(s));
  tdl_interrupt_request(&w->interrupt);
}

static void look_at_all_locked(uint64_t now) {
  tdl_worker *next;
  for (tdl_worker *w = sv.listed; w != NULL; w = next) {
    next = w->stop.next;
    if (now >= w->stop.due_ns) {
      look_locked(w, now);
    }
  }
}

static void look_at_sizes_locked(uint64_t now) {
  for (treadle_pool *p = sv.sized; p != NULL; p = p->size.next) {
    if (now >= p->size.due_ns) {
      tdl_size_look_locked(p, now);
    }
  }
}

/* --- the thread ----------------------------------------------------------- */

static uint64_t due_locked(void) {
  tdl_job *job = tdl_deadlines_first(&sv.deadlines);
  uint64_t due = job != NULL ? job->deadline_ns : TDL_NEVER;
  for (tdl_worker *w = sv.listed; w != NULL; w = w->stop.next) {
    due = w->stop.due_ns < due ? w->stop.due_ns : due;
  }
  for (treadle_pool *p = sv.sized; p != NULL; p = p->size.next) {
    due = p->size.due_ns < due ? p->size.due_ns : due;
  }
  return due;
}

static void *thread_main(void *arg) {
  (void)arg;
  prctl(PR_SET_NAME, "treadle");
  pthread_mutex_lock(&sv.lock);
  while (!sv.stop) {
    uint64_t due = due_locked();
    if (due == TDL_NEVER) {
      pthread_cond_wait(&sv.changed, &sv.lock);
    } else {
      struct timespec t = {(time_t)(due / 1000000000u),
                           (long)(due % 1000000000u)};
      pthread_cond_timedwait(&sv.changed, &sv.lock, &t);
    }
    expire_locked(tdl_now_ns());
    look_at_all_locked(tdl_now_ns());
    look_at_sizes_locked(tdl_now_ns());
  }
  pthread_mutex_unlock(&sv.lock);
  return NULL;
}

/* The thread, unless it is there. */
static int start_locked(void) {
  pthread_condattr_t attr;
  sigset_t all, old;
  int error;
  if (sv.running) {
    return 0;
  }
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_cond_init(&sv.changed, &attr);
  pthread_condattr_destroy(&attr);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  error = pthread_create(&sv.thread, NULL, thread_main, NULL);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  if (error != 0) {
    pthread_cond_destroy(&sv.changed);
    return TREADLE_ESYSTEM;
  }
  sv.running = 1;
  sv.stop = 0;
  return 0;
}

/* --- for the homes -------------------------------------------------------- */

int tdl_supervisor_start(void) {
  int status;
  pthread_mutex_lock(&sv.lock);
  status = start_locked();
  pthread_mutex_unlock(&sv.lock);
  return status;
}

void tdl_supervisor_hold(void) {
  pthread_mutex_lock(&sv.life);
  sv.users++;
  pthread_mutex_unlock(&sv.life);
}

static void end_thread(void) {
  pthread_mutex_lock(&sv.lock);
  sv.stop = 1;
  pthread_cond_signal(&sv.changed);
  pthread_mutex_unlock(&sv.lock);
  pthread_join(sv.thread, NULL);
  pthread_cond_destroy(&sv.changed);
  tdl_deadlines_fini(&sv.deadlines);
  sv.running = 0;
}

void tdl_supervisor_drop(void) {
  pthread_mutex_lock(&sv.life);
  if (--sv.users == 0 && sv.running) {
    end_thread();
  }
  pthread_mutex_unlock(&sv.life);
}

int tdl_supervisor_watch(tdl_job *job) {
  int status;
  pthread_mutex_lock(&sv.lock);
  status = start_locked();
  if (status == 0) {
    status = tdl_deadlines_add(&sv.deadlines, job);
  }
  if (status == 0 && job->heap_index == 1) {
    pthread_cond_signal(&sv.changed);
  }
  pthread_mutex_unlock(&sv.lock);
  return status;
}

void tdl_supervisor_forget(tdl_job *job) {
  TDL_STALL();
  pthread_mutex_lock(&sv.lock);
  if (job->heap_index != 0 && sv.deadlines.count > 0) {
    tdl_deadlines_remove(&sv.deadlines, job);
  }
  pthread_mutex_unlock(&sv.lock);
}

int tdl_supervisor_force(tdl_job *job) {
  int settled =
      tdl_supervisor_stop(job, tdl_job_generation(job), TDL_JOB_FORCED);
  if (settled) {
    tdl_upcall_settled(job, TDL_JOB_FORCED);
  }
  return settled;
}

int tdl_supervisor_stop(tdl_job *job, uint32_t generation,
                        enum tdl_job_state to) {
  int settled;
  pthread_mutex_lock(&sv.lock);
  start_locked(); /* without a thread it is a cancellation like any */
  settled = force_locked(job, generation, to);
  pthread_mutex_unlock(&sv.lock);
  return settled;
}

static void end_locked(tdl_worker *w, uint64_t ns) {
  uint64_t at = tdl_now_ns() + ns;
  if (start_locked() == 0) {
    w->stop.end_ns = at < w->stop.end_ns ? at : w->stop.end_ns;
    list_locked(w, w->stop.end_ns);
  }
}

void tdl_supervisor_end(tdl_worker *w, uint64_t ns) {
  pthread_mutex_lock(&sv.lock);
  end_locked(w, ns);
  pthread_mutex_unlock(&sv.lock);
}

void tdl_supervisor_exhausted(tdl_worker *w) {
  pthread_mutex_lock(&sv.lock);
  w->stop.exhausted = 1;
  end_locked(w, 0);
  tdl_worker_ask(w, TDL_ASK_LEAVE); /* before it takes another job */
  pthread_mutex_unlock(&sv.lock);
}

void tdl_supervisor_lock(void) {
  pthread_mutex_lock(&sv.lock);
}

void tdl_supervisor_unlock(void) {
  pthread_mutex_unlock(&sv.lock);
}

int tdl_supervisor_look_at_locked(treadle_pool *pool, uint64_t due) {
  tdl_size *s = &pool->size;
  int status = start_locked();
  if (status != 0) {
    return status;
  }
  if (!s->listed) {
    s->listed = 1;
    s->next = sv.sized;
    sv.sized = pool;
  }
  if (due < s->due_ns) {
    s->due_ns = due;
    pthread_cond_signal(&sv.changed);
  }
  return 0;
}

void tdl_supervisor_leave_locked(tdl_worker *w, uint64_t ns) {
  uint64_t at = tdl_now_ns() + ns;
  w->stop.leave_ns = at < w->stop.leave_ns ? at : w->stop.leave_ns;
  list_locked(w, w->stop.leave_ns);
}

void tdl_supervisor_forget_pool(treadle_pool *pool) {
  treadle_pool **at = &sv.sized;
  pthread_mutex_lock(&sv.lock);
  if (pool->size.listed) {
    while (*at != pool) {
      at = &(*at)->size.next;
    }
    *at = pool->size.next;
  }
  pthread_mutex_unlock(&sv.lock);
}

void tdl_supervisor_quiesce(void) {
  pthread_mutex_lock(&sv.lock);
  pthread_mutex_unlock(&sv.lock);
}

/* --- for the workers ------------------------------------------------------ */

void tdl_supervisor_job_ended(tdl_worker *w, const tdl_job *job) {
  pthread_mutex_lock(&sv.lock);
  w->stop.forced -= tdl_job_is_forced(job);
  if (w->stop.suspect == job) {
    w->stop.suspect = NULL;
  }
  pthread_mutex_unlock(&sv.lock);
}

int tdl_supervisor_pardons(tdl_worker *w) {
  int pardoned;
  pthread_mutex_lock(&sv.lock);
  pardoned = !w->stop.written_off && tdl_now_ns() < end_of(&w->stop) &&
             !tdl_interrupt_has_struck(&w->interrupt);
  if (pardoned) {
    w->stop.condemned_ns = 0;
    tdl_interrupt_withdraw(&w->interrupt);
    tdl_worker_unask(w, TDL_ASK_LEAVE);
  }
  pthread_mutex_unlock(&sv.lock);
  return pardoned;
}

/* Nothing is wanted of it any more. */
static void acquit_locked(tdl_worker *w, enum tdl_worker_life life) {
  unlist_locked(w);
  w->stop.forced = w->stop.exhausted = 0;
  w->stop.suspect = NULL;
  w->stop.end_ns = w->stop.leave_ns = TDL_NEVER;
  w->stop.condemned_ns = 0;
  tdl_worker_doom(w, 0);
  tdl_worker_unask(w, ~0u);
  tdl_worker_set_life(w, life);
}

void tdl_supervisor_rests_locked(tdl_worker *w) {
  acquit_locked(w, TDL_ENDED);
}

int tdl_supervisor_obeyed(tdl_worker *w, int ends) {
  int stays;
  pthread_mutex_lock(&sv.lock);
  stays = !w->stop.written_off;
  if (!stays) {
    unlist_locked(w);
  } else {
    acquit_locked(w, ends ? TDL_ENDED : TDL_BOOTING);
  }
  pthread_mutex_unlock(&sv.lock);
  return stays;
}
