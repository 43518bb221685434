#include "chance.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void tdl_chance_start(tdl_chance *c) {
  atomic_store_explicit(&c->tid, gettid(), memory_order_relaxed);
}

void tdl_chance_pause(tdl_chance *c) {
  c->seen_ns = 0;
}

static uint64_t used_ns(pthread_t thread) {
  clockid_t clock;
  struct timespec t;
  if (pthread_getcpuclockid(thread, &clock) != 0 ||
      clock_gettime(clock, &t) != 0) {
    return 0;
  }
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Whether it waits in the kernel, not for a processor; 1 where nobody knows. */
static int stands_still(int tid) {
  char text[128]; /* "12 (name) R ..." */
  const char *name_end;
  ssize_t n = -1;
  int fd;
  snprintf(text, sizeof(text), "/proc/self/task/%d/stat", tid);
  fd = open(text, O_RDONLY | O_CLOEXEC);
  if (fd >= 0) {
    n = read(fd, text, sizeof(text) - 1);
    close(fd);
  }
  text[n > 0 ? n : 0] = 0;
  name_end = strrchr(text, ')');
  return name_end == NULL || strncmp(name_end, ") R", 3) != 0;
}

void tdl_chance_look(tdl_chance *c, pthread_t thread, uint64_t now) {
  int was_still = c->seen_ns != 0 && c->is_still;
  c->is_still =
      stands_still(atomic_load_explicit(&c->tid, memory_order_relaxed));
  /* Seen twice: with few processors looks are rare, and it may have been on its
  ** way in between. */
  if (was_still && c->is_still) {
    c->still_ns += now - c->seen_ns;
  }
  c->used_ns = used_ns(thread);
  c->seen_ns = now;
}
