#include "look.h"

#include "worker.h"

/* When the job's code began; if that was not stamped (most short runs are not),
** since when it has been seen. */
static uint64_t since(tdl_worker *w, const tdl_job *job, uint32_t generation,
                      int is_booting) {
  tdl_look *look = &w->look;
  uint64_t ns = is_booting ? 0 : tdl_job_began_ns(job, generation);
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
  pthread_mutex_lock(&w->lock);
  has_state = w->seen != NULL;
  pthread_mutex_unlock(&w->lock);
  return has_state && tdl_worker_life(w) == TDL_BOOTING;
}

int tdl_look_glance(tdl_worker *w, tdl_glance *out) {
  const tdl_job *job = tdl_worker_running(w);
  uint32_t generation;
  *out = (tdl_glance){0};
  if (job == NULL) {
    out->boots = is_booting(w);
    if (out->boots) {
      out->since_ns = since(w, NULL, 1, 1);
    }
    return out->boots;
  }
  generation = tdl_job_generation(job);
  out->task = tdl_job_task(job);
  out->since_ns = since(w, job, generation, 0);
  /* still the same: what was read is of one use */
  return tdl_worker_running(w) == job && tdl_job_generation(job) == generation;
}
