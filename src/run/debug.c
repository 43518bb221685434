#include "debug.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../base/alloc.h"

struct tdl_debug_names {
  uint32_t count;
  char *names[];
};

static void write_all(const char *text, size_t len) {
  while (len > 0) {
    ssize_t n = write(STDERR_FILENO, text, len);
    if (n > 0) {
      text += n;
      len -= (size_t)n;
    } else if (n == 0 || errno != EINTR) {
      return;
    }
  }
}

void tdl_debug_say(const treadle_pool *pool, uint32_t worker,
                   enum tdl_debug kind, const char *format, ...) {
  static const char *const kinds[] = {"pool", "worker", "load",
                                      "job",  "signal", "payload"};
  char line[TDL_DEBUG_LINE_BYTES], who[16] = "host";
  uint64_t ns = tdl_now_ns() - pool->stats->opened_ns;
  size_t used;
  int error = errno, n;
  va_list args;
  if (!tdl_debug_wants(pool, kind)) {
    return;
  }
  if (worker != 0) {
    snprintf(who, sizeof(who), "w%u", worker);
  }
  used = (size_t)snprintf(line, sizeof(line), "[treadle %s %s +%.3fms] ", who,
                          kinds[__builtin_ctz(kind)], (double)ns * 1e-6);
  va_start(args, format);
  n = vsnprintf(line + used, sizeof(line) - used - 1, format, args);
  va_end(args);
  used += n < 0 ? 0 : (size_t)n;
  if (used > sizeof(line) - 2) {
    used = sizeof(line) - 2;
    memcpy(line + used - 3, "...", 3);
  }
  for (size_t i = 0; i < used; i++) { /* one line, whatever a name holds */
    if ((unsigned char)line[i] < ' ') {
      line[i] = ' ';
    }
  }
  line[used++] = '\n';
  write_all(line, used);
  errno = error;
}

/* --- names ----------------------------------------------------------------- */

static void free_names(struct tdl_debug_names *n) {
  for (uint32_t i = 0; n != NULL && i < n->count; i++) {
    tdl_free(n->names[i]);
  }
  tdl_free(n);
}

void tdl_debug_set_names(treadle_pool *pool, const char *const *names,
                         uint32_t count) {
  struct tdl_debug_names *n =
      tdl_calloc(sizeof(*n) + count * sizeof(n->names[0]));
  /* relaxed: the home's own */
  if (n == NULL ||
      atomic_load_explicit(&pool->debug_names, memory_order_relaxed) != NULL) {
    tdl_free(n);
    return;
  }
  for (n->count = 0; n->count < count; n->count++) {
    n->names[n->count] = tdl_strdup(names[n->count]);
    if (n->names[n->count] == NULL) {
      free_names(n);
      return;
    }
  }
  /* [debug-names] release: the names */
  atomic_store_explicit(&pool->debug_names, n, memory_order_release);
}

void tdl_debug_drop_names(treadle_pool *pool) {
  /* relaxed: the last reference */
  free_names(atomic_load_explicit(&pool->debug_names, memory_order_relaxed));
}

const char *tdl_debug_name(const treadle_pool *pool, uint32_t task,
                           char buffer[16]) {
  /* [debug-names] acquire: the names */
  const struct tdl_debug_names *n =
      atomic_load_explicit(&pool->debug_names, memory_order_acquire);
  if (n != NULL && task < n->count) {
    return n->names[task];
  }
  snprintf(buffer, 16, "#%u", task);
  return buffer;
}
