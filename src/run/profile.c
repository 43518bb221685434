#include "profile.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#include "../base/alloc.h"
#include "../base/compiler.h"
#include "../treadle.h"
#include "look.h"
#include "pool.h"

typedef struct entry {
  char *text; /* NULL: free */
  uint32_t length;
  uint64_t hash, count;
} entry;

struct tdl_profile {
  tdl_counted counted; /* first */
  treadle_pool *pool;  /* the thread's */
  uint64_t end_ns, interval_ns;
  pthread_mutex_t lock;   /* guards the rest */
  pthread_cond_t changed; /* one of these two */
  int stopped, over;
  /* the thread's until it is over */
  tdl_view *views;
  tdl_profile_counts counts;
  entry *entries;
  uint32_t room, used; /* room: a power of two, or 0 */
  char text[TDL_PROFILE_TEXT_BYTES];
  uint32_t length;
};

/* --- stacks --------------------------------------------------------------- */

/* FNV-1a */
static uint64_t hash_text(const char *text, uint32_t length) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (uint32_t i = 0; i < length; i++) {
    hash = (hash ^ (unsigned char)text[i]) * 0x100000001b3u;
  }
  return hash;
}

static entry *find(entry *entries, uint32_t room, const char *text,
                   uint32_t length, uint64_t hash) {
  uint32_t i = (uint32_t)hash & (room - 1);
  while (entries[i].text != NULL &&
         (entries[i].hash != hash || entries[i].length != length ||
          memcmp(entries[i].text, text, length) != 0)) {
    i = (i + 1) & (room - 1);
  }
  return &entries[i];
}

static int grow(tdl_profile *p) {
  uint32_t room = p->room == 0 ? 64 : p->room * 2;
  entry *entries;
  if (p->used * 2 < p->room) {
    return 1;
  }
  entries = tdl_calloc(room * sizeof(*entries));
  if (entries == NULL) {
    return 0;
  }
  for (uint32_t i = 0; i < p->room; i++) {
    const entry *e = &p->entries[i];
    if (e->text != NULL) {
      *find(entries, room, e->text, e->length, e->hash) = *e;
    }
  }
  tdl_free(p->entries);
  p->entries = entries;
  p->room = room;
  return 1;
}

/* What lacks memory is not counted. */
static void count(tdl_profile *p) {
  uint64_t hash = hash_text(p->text, p->length);
  entry *e;
  if (!grow(p)) {
    return;
  }
  e = find(p->entries, p->room, p->text, p->length, hash);
  if (e->text == NULL) {
    e->text = tdl_alloc(p->length);
    if (e->text == NULL) {
      return;
    }
    memcpy(e->text, p->text, p->length);
    e->length = p->length;
    e->hash = hash;
    p->used++;
  }
  e->count++;
  p->counts.stacks++;
}

static void put(tdl_profile *p, const char *text) {
  while (*text != 0 && p->length < sizeof(p->text)) {
    p->text[p->length++] = *text++;
  }
}

static void put_number(tdl_profile *p, const char *before, uint64_t n) {
  char text[32];
  snprintf(text, sizeof(text), "%s%" PRIu64, before, n);
  put(p, text);
}

/* The first line of it: the name of a string of code is all of that. */
static void put_source(tdl_profile *p, const char *source) {
  put(p, "\t");
  while (*source != 0 && *source != '\n' && p->length < sizeof(p->text)) {
    p->text[p->length++] = *source++;
  }
}

static void put_frame(tdl_profile *p, const tdl_frame *f) {
  switch (f->kind) {
  case TDL_FRAME_LUA:
  case TDL_FRAME_MAIN:
    put_number(p, f->kind == TDL_FRAME_LUA ? "\nL" : "\nM",
               (uint64_t)f->defined);
    put_source(p, f->source);
    break;
  case TDL_FRAME_C:
  case TDL_FRAME_BUILTIN:
    put_number(p, f->kind == TDL_FRAME_C ? "\nC" : "\nB", f->id);
    break;
  case TDL_FRAME_UNKNOWN:
    put(p, "\n?");
    break;
  }
}

static void count_view(tdl_profile *p, const tdl_view *v) {
  p->length = 0;
  if (v->glance.runs) {
    put_number(p, "", v->glance.task);
  } else {
    put(p, v->glance.boots ? "load" : "other");
  }
  for (uint32_t i = v->stack.count; i > 0; i--) {
    if (i == TDL_STACK_INNER && v->stack.skipped > 0) {
      put(p, "\n+");
    }
    put_frame(p, &v->stack.frames[i - 1]);
  }
  if (v->stack.place == TDL_IN_COLLECTOR) {
    put(p, "\nG");
  }
  count(p);
}

static void look(tdl_profile *p) {
  uint64_t start = tdl_now_ns();
  uint32_t next = 1;
  while (next != 0) {
    uint32_t n = tdl_look(p->pool, next, p->views, TDL_LOOK_VIEWS,
                          TDL_PROFILE_PATIENCE_NS, &next);
    for (uint32_t i = 0; i < n; i++) {
      if (p->views[i].has_stack) {
        count_view(p, &p->views[i]);
      } else {
        p->counts.unanswered++;
      }
    }
  }
  p->counts.looks++;
  p->counts.look_ns += tdl_now_ns() - start;
}

/* --- the thread ----------------------------------------------------------- */

/* 1 when it is to look at that time. */
static int wait_until(tdl_profile *p, uint64_t due) {
  struct timespec t = {(time_t)(due / 1000000000u), (long)(due % 1000000000u)};
  int stopped;
  pthread_mutex_lock(&p->lock);
  while (!p->stopped && tdl_now_ns() < due) {
    pthread_cond_timedwait(&p->changed, &p->lock, &t);
  }
  stopped = p->stopped;
  pthread_mutex_unlock(&p->lock);
  /* relaxed: once there is one, nobody can make it two */
  return !stopped && tdl_pool_phase(p->pool) != TDL_POOL_STOPPED &&
         atomic_load_explicit(&p->counted.refs, memory_order_relaxed) > 1;
}

static void *thread_main(void *arg) {
  tdl_profile *p = arg;
  uint64_t due = tdl_now_ns() + p->interval_ns;
  prctl(PR_SET_NAME, "treadle/profile");
  prctl(PR_SET_TIMERSLACK, 1UL);
  while (due <= p->end_ns && wait_until(p, due)) {
    uint64_t now;
    look(p);
    now = tdl_now_ns();
    due += p->interval_ns;
    due = due > now ? due : now; /* it takes longer than that */
  }
  tdl_pool_drop(p->pool);
  tdl_free(p->views);
  pthread_mutex_lock(&p->lock);
  p->over = 1;
  pthread_cond_broadcast(&p->changed);
  pthread_mutex_unlock(&p->lock);
  tdl_counted_drop(&p->counted);
  return NULL;
}

static int start(tdl_profile *p) {
  pthread_attr_t attr;
  pthread_t thread;
  sigset_t all, old;
  int error;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, TDL_PROFILE_STACK_BYTES);
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  error = pthread_create(&thread, &attr, thread_main, p);
  pthread_attr_destroy(&attr);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  return error == 0 ? 0 : TREADLE_ESYSTEM;
}

/* --- any thread ----------------------------------------------------------- */

static void free_profile(tdl_counted *counted) {
  tdl_profile *p = tdl_profile_of(counted);
  for (uint32_t i = 0; i < p->room; i++) {
    tdl_free(p->entries[i].text);
  }
  tdl_free(p->entries);
  pthread_cond_destroy(&p->changed);
  pthread_mutex_destroy(&p->lock);
  tdl_free(p);
}

const tdl_kind tdl_profile_kind = {"profile", free_profile};

tdl_counted *tdl_profile_counted(tdl_profile *p) {
  return &p->counted;
}

tdl_profile *tdl_profile_of(tdl_counted *counted) {
  return TDL_CONTAINER(counted, tdl_profile, counted);
}

int tdl_profile_new(treadle_pool *pool, uint64_t ns, uint64_t interval_ns,
                    tdl_profile **out) {
  tdl_profile *p = tdl_calloc(sizeof(*p));
  pthread_condattr_t attr;
  int status;
  if (p == NULL) {
    return TREADLE_ENOMEM;
  }
  tdl_counted_init(&p->counted, &tdl_profile_kind);
  p->pool = pool;
  p->interval_ns = interval_ns;
  p->end_ns = tdl_now_ns() + ns;
  pthread_mutex_init(&p->lock, NULL);
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_cond_init(&p->changed, &attr);
  pthread_condattr_destroy(&attr);
  p->views = tdl_calloc(TDL_LOOK_VIEWS * sizeof(*p->views));
  tdl_counted_hold(&p->counted); /* the thread's */
  tdl_pool_hold(pool);
  status = p->views == NULL ? TREADLE_ENOMEM : start(p);
  if (status != 0) {
    tdl_free(p->views);
    tdl_pool_drop(pool);
    tdl_counted_drop(&p->counted);
    tdl_counted_drop(&p->counted);
    return status;
  }
  *out = p;
  return 0;
}

void tdl_profile_stop(tdl_profile *p) {
  pthread_mutex_lock(&p->lock);
  p->stopped = 1;
  pthread_cond_broadcast(&p->changed);
  pthread_mutex_unlock(&p->lock);
}

int tdl_profile_is_over(tdl_profile *p) {
  int over;
  pthread_mutex_lock(&p->lock);
  over = p->over;
  pthread_mutex_unlock(&p->lock);
  return over;
}

void tdl_profile_wait(tdl_profile *p) {
  pthread_mutex_lock(&p->lock);
  while (!p->over) {
    pthread_cond_wait(&p->changed, &p->lock);
  }
  pthread_mutex_unlock(&p->lock);
}

void tdl_profile_read(tdl_profile *p, tdl_profile_counts *out) {
  *out = p->counts;
}

void tdl_profile_each(tdl_profile *p,
                      void (*fn)(void *ctx, const char *text, uint32_t length,
                                 uint64_t count),
                      void *ctx) {
  for (uint32_t i = 0; i < p->room; i++) {
    const entry *e = &p->entries[i];
    if (e->text != NULL) {
      fn(ctx, e->text, e->length, e->count);
    }
  }
}
