#include "look.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "far.h"
#include "pump.h"
#include "sight.h"
#include "vm.h"

/* --- without asking ------------------------------------------------------- */

/* When the job's code began; if that was not stamped (most short runs are not),
** since when it has been seen. */
static uint64_t since(tdl_worker *w, const tdl_job *job, uint32_t generation) {
  tdl_sighting *look = &w->look;
  uint64_t ns = job == NULL ? 0 : tdl_job_began_ns(job, generation);
  pthread_mutex_lock(&w->lock);
  if (look->job != job || look->generation != generation) {
    look->job = job;
    look->generation = generation;
    look->first_ns = tdl_now_ns();
  }
  ns = ns != 0 ? ns : look->first_ns;
  pthread_mutex_unlock(&w->lock);
  return ns;
}

static int is_booting(tdl_worker *w) {
  int has_state;
  if (w->keeper != NULL) {
    has_state = tdl_sight_is_live(w->keeper);
  } else {
    pthread_mutex_lock(&w->lock);
    has_state = w->seen != NULL;
    pthread_mutex_unlock(&w->lock);
  }
  return has_state && tdl_worker_life(w) == TDL_BOOTING;
}

/* Of a job that is in its process: that one, or the one that was begun last. */
static int glance_far(tdl_worker *w, uint32_t ticket, tdl_glance *out) {
  uint32_t generation;
  const tdl_job *job = tdl_pump_job(w->keeper, ticket, &generation);
  if (job == NULL) {
    return 0;
  }
  *out = (tdl_glance){.runs = 1, .task = tdl_job_task(job)};
  out->since_ns = since(w, job, generation);
  return 1;
}

int tdl_look_glance(tdl_worker *w, tdl_glance *out) {
  const tdl_job *job = tdl_worker_running(w);
  uint32_t generation;
  *out = (tdl_glance){0};
  if (w->keeper != NULL && glance_far(w, 0, out)) {
    return 1;
  }
  if (job == NULL) {
    out->boots = is_booting(w);
    if (out->boots) {
      out->since_ns = since(w, NULL, 1);
    }
    return out->boots;
  }
  generation = tdl_job_generation(job);
  out->task = tdl_job_task(job);
  out->since_ns = since(w, job, generation);
  /* still the same: what was read is of one use */
  out->runs =
      tdl_worker_running(w) == job && tdl_job_generation(job) == generation;
  return out->runs;
}

/* --- a thread that stands still (K1) -------------------------------------- */

/* The text of a file of the thread's in /proc, "" if there is none. */
static void read_file(const tdl_worker *w, const char *name, char *text,
                      size_t size) {
  int tid = atomic_load_explicit(&w->stop.chance.tid, memory_order_relaxed);
  char path[64];
  ssize_t n = -1;
  int fd;
  snprintf(path, sizeof(path), "/proc/self/task/%d/%s", tid, name);
  fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd >= 0) {
    n = read(fd, text, size - 1);
    close(fd);
  }
  text[n > 0 ? n : 0] = 0;
}

/* It waits in the kernel, and not for a processor. */
static int stands_still(const tdl_worker *w) {
  char text[128]; /* "12 (name) S ..." */
  const char *name_end;
  read_file(w, "stat", text, sizeof(text));
  name_end = strrchr(text, ')');
  return name_end != NULL &&
         (strncmp(name_end, ") S", 3) == 0 || strncmp(name_end, ") D", 3) == 0);
}

/* The kernel counts how long it has run, and how often it has begun to. */
static int peek(tdl_view *v) {
  char before[64], after[64];
  read_file(v->worker, "schedstat", before, sizeof(before));
  if (before[0] == 0 || !stands_still(v->worker) ||
      !tdl_interrupt_peek(&v->worker->interrupt, &v->stack)) {
    return 0;
  }
  read_file(v->worker, "schedstat", after, sizeof(after));
  return strcmp(before, after) == 0 && stands_still(v->worker);
}

/* --- asking --------------------------------------------------------------- */

static pthread_mutex_t looking = PTHREAD_MUTEX_INITIALIZER; /* K2 */

/* K3 */
static void try_far(tdl_view *v) {
  tdl_keeper *k = v->worker->keeper;
  if (v->state == TDL_VIEW_WATCHED) {
    v->state = tdl_sight_ask(k, 0, v) ? TDL_VIEW_ASKED : TDL_VIEW_LOST;
  } else if (v->state == TDL_VIEW_ASKED && tdl_sight_is_heard(k)) {
    v->state = TDL_VIEW_DONE;
  }
}

/* What it has heard, of a job that may have ended; if nothing, the first glance
** counts. */
static void end_far(tdl_view *v) {
  tdl_sight_end_look(v->worker->keeper);
  if (v->state == TDL_VIEW_DONE &&
      !(v->ticket != 0 && glance_far(v->worker, v->ticket, &v->glance))) {
    v->glance.runs = 0;
  }
}

/* K1: asked once it was seen to compute. */
static void try(tdl_view *v, int is_due) {
  tdl_interrupt *i = &v->worker->interrupt;
  uint64_t used = v->used_ns;
  if (v->state == TDL_VIEW_ASKED && tdl_interrupt_has_answered(i)) {
    v->has_stack = tdl_interrupt_unask(i);
    v->state = TDL_VIEW_DONE;
  } else if (v->state == TDL_VIEW_WATCHED || is_due) {
    v->used_ns = tdl_interrupt_used_ns(i);
    if (used == 0 || v->used_ns < used) {
      return; /* the first time; or it is not known, or another thread */
    }
    if (v->used_ns - used >= TDL_LOOK_COMPUTES_NS) {
      if (v->state == TDL_VIEW_WATCHED) {
        tdl_interrupt_ask(i, &v->stack);
        v->state = TDL_VIEW_ASKED;
      } else {
        tdl_interrupt_prompt(i);
      }
    } else if (stands_still(v->worker)) {
      v->has_stack = tdl_interrupt_unask(i) || peek(v);
      v->state = v->has_stack ? TDL_VIEW_DONE : TDL_VIEW_WATCHED;
    }
  }
}

static void nap(uint64_t ns) {
  struct timespec t = {0, (long)ns};
  nanosleep(&t, NULL);
}

/* Until all have answered. Who asks itself is met by its signal at once. */
static void hear_all(tdl_view *views, uint32_t n, uint64_t patience_ns) {
  uint64_t start = tdl_now_ns(), now = start, tried = start;
  uint64_t pause = TDL_LOOK_PAUSE_NS;
  for (;;) {
    int is_due = now - tried >= TDL_LOOK_AGAIN_NS;
    uint32_t left = 0;
    tried = is_due ? now : tried;
    for (uint32_t i = 0; i < n; i++) {
      if (views[i].worker->keeper != NULL) {
        try_far(&views[i]);
      } else {
        try(&views[i], is_due);
      }
      left += views[i].state < TDL_VIEW_DONE;
    }
    now = tdl_now_ns();
    if (left == 0 || now - start >= patience_ns) {
      return;
    }
    nap(pause);
    pause += pause < TDL_LOOK_AGAIN_NS ? pause : 0;
    now = tdl_now_ns();
  }
}

/* It may run Lua: it has a job, boots, or is awake and may run what a job has left
** behind. */
static int is_worth_it(tdl_worker *w, tdl_glance *glance) {
  enum tdl_worker_life life = tdl_worker_life(w);
  if (life != TDL_SERVING && life != TDL_BOOTING) {
    return 0;
  }
  if (w->keeper != NULL) {
    return tdl_look_glance(w, glance) || tdl_sight_is_awake(w->keeper);
  }
  /* relaxed: a hint */
  return tdl_look_glance(w, glance) ||
         (life == TDL_SERVING &&
          atomic_load_explicit(&w->loop.parker.state, memory_order_relaxed) ==
              TDL_AWAKE);
}

/* As its parent knows it (far.h). */
static uint32_t ticket_of(const tdl_worker *w, const tdl_job *job) {
  const tdl_far *far = w->pool->far;
  return far != NULL && job != NULL && job->home == far->home
             ? (uint32_t)(uintptr_t)job->ctx
             : 0;
}

static int runs_lua(const tdl_view *v) {
  for (uint32_t i = 0; v->has_stack && i < v->stack.count; i++) {
    if (v->stack.frames[i].kind <= TDL_FRAME_MAIN) {
      return 1;
    }
  }
  return 0;
}

static uint32_t choose(treadle_pool *pool, uint32_t first, tdl_view *views,
                       uint32_t max, uint32_t *next) {
  uint32_t n = 0, i, slots = tdl_pool_slots(pool);
  for (i = first; i <= slots && n < max; i++) {
    tdl_view *v = &views[n];
    v->worker = tdl_slot_worker(pool->slots[i - 1]);
    v->id = i;
    v->has_stack = v->waits = 0;
    v->ticket = 0;
    v->stack.count = v->stack.skipped = 0;
    v->state = TDL_VIEW_WATCHED;
    v->used_ns = 0;
    n += (uint32_t)is_worth_it(v->worker, &v->glance);
  }
  *next = i <= slots ? i : 0;
  return n;
}

uint32_t tdl_look(treadle_pool *pool, uint32_t first, tdl_view *views,
                  uint32_t max, uint64_t patience_ns, uint32_t *next) {
  uint32_t n, kept = 0;
  pthread_mutex_lock(&looking);
  n = choose(pool, first, views, max, next);
  if (pool->plan != NULL || tdl_interrupt_can_look()) {
    hear_all(views, n, patience_ns);
  }
  for (uint32_t i = 0; i < n; i++) {
    tdl_view *v = &views[i];
    tdl_glance now;
    if (v->worker->keeper != NULL) {
      end_far(v);
    } else if (v->state == TDL_VIEW_ASKED) {
      v->has_stack = tdl_interrupt_unask(&v->worker->interrupt);
    }
    if (v->worker->keeper == NULL && tdl_look_glance(v->worker, &now) &&
        now.runs) {
      v->glance = now; /* the stack is younger than the first glance */
      v->ticket = ticket_of(v->worker, tdl_worker_running(v->worker));
    }
    if (v->glance.runs || v->glance.boots || runs_lua(v)) {
      if (&views[kept] != v) {
        views[kept] = *v;
      }
      kept++;
    }
  }
  pthread_mutex_unlock(&looking);
  return kept;
}

/* --- jobs that wait --------------------------------------------------------- */

/* K3: in its process. */
static uint32_t wait_far(tdl_worker *w, uint32_t after, tdl_view *out) {
  tdl_keeper *k = w->keeper;
  uint32_t generation, entry = 0;
  if (tdl_pump_job(k, 0, &generation) == NULL) {
    return 0;
  }
  pthread_mutex_lock(&looking);
  out->worker = w;
  out->ticket = 0;
  if (tdl_sight_ask(k, after + 1, out)) {
    uint64_t end = tdl_now_ns() + TDL_LOOK_PATIENCE_NS;
    while (!tdl_sight_is_heard(k) && tdl_now_ns() < end) {
      nap(TDL_LOOK_PAUSE_NS);
    }
    entry = tdl_sight_end_look(k);
  }
  pthread_mutex_unlock(&looking);
  out->waits = 1;
  out->id = w->id;
  if (entry <= after || !glance_far(w, out->ticket, &out->glance)) {
    return 0;
  }
  return entry;
}

/* What waits is held: its worker cannot go on with its end before the lock is free
** (and may resume it meanwhile, which is found out). */
uint32_t tdl_look_waiting(tdl_worker *w, uint32_t after, tdl_view *out) {
  const tdl_job *job = NULL;
  uint32_t generation = 0, i = after;
  if (w->keeper != NULL) {
    return wait_far(w, after, out);
  }
  pthread_mutex_lock(&w->lock);
  while (job == NULL && w->seen != NULL && ++i < w->seen->entry_count) {
    const tdl_entry *e = &w->seen->entries[i];
    job = e->held != tdl_worker_running(w) ? e->held : NULL;
    if (job != NULL) {
      generation = tdl_job_generation(job);
      out->ticket = ticket_of(w, job);
      out->has_stack = tdl_interrupt_can_look() && e->co != NULL &&
                       tdl_stack_read_suspended(e->co, &out->stack);
    }
  }
  pthread_mutex_unlock(&w->lock);
  if (job == NULL) {
    return 0;
  }
  out->waits = 1;
  out->id = w->id;
  out->glance = (tdl_glance){.runs = 1, .task = tdl_job_task(job)};
  out->glance.since_ns = tdl_job_began_ns(job, generation);
  return i;
}
