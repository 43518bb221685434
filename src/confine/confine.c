#include "confine.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../treadle.h"
#include "filter.h"
#include "landlock.h"
#include "limits.h"

static int refuse(char *why, size_t size, const char *text) {
  snprintf(why, size, "%s", text);
  return TREADLE_EPERMISSION;
}

int tdl_confine_check(const tdl_policy *p, int process, char *why,
                      size_t size) {
  const char *lacks = tdl_landlock_lacks(p, tdl_landlock_version());
  if (lacks == NULL) {
    lacks = tdl_filter_lacks();
  }
  if (lacks == NULL && !process) {
    if (p->memory_bytes > 0 || p->cpu_seconds > 0 || p->files > 0) {
      lacks = "limits of memory, cpu and files are those of a process";
    } else if (p->may & TDL_MAY_FFI) {
      lacks = "code that uses the FFI reaches all memory of the process";
    }
  }
  return lacks == NULL ? 0 : refuse(why, size, lacks);
}

int tdl_confine_thread(const tdl_policy *p, char *why, size_t size) {
  static _Thread_local const tdl_policy *in_force;
  int status;
  if (in_force == p) {
    return 0;
  }
  if (in_force != NULL) {
    return refuse(why, size, "the thread is confined by another policy");
  }
  status = tdl_confine_check(p, 0, why, size);
  status = status != 0 ? status : tdl_landlock_apply(p, why, size);
  status = status != 0 ? status : tdl_filter_apply(p, 0, -1, why, size);
  if (status == 0) {
    in_force = p;
  }
  return status;
}

/* The first descriptor to keep that is at least `from`, -1: none. */
static int next_kept(const int *keep, size_t count, int from) {
  int next = -1;
  for (size_t i = 0; i < count; i++) {
    if (keep[i] >= from && (next < 0 || keep[i] < next)) {
      next = keep[i];
    }
  }
  return next;
}

/* By the system call: the C library's function is younger than some. */
static int close_between(unsigned first, unsigned last) {
  return first > last ? 0 : (int)syscall(SYS_close_range, first, last, 0);
}

static int close_others(const int *keep, size_t count, char *why, size_t size) {
  int from = 3, kept;
  while ((kept = next_kept(keep, count, from)) >= 0) {
    if (close_between((unsigned)from, (unsigned)kept - 1) != 0) {
      break;
    }
    from = kept + 1;
  }
  if (kept < 0 && close_between((unsigned)from, ~0u) == 0) {
    return 0;
  }
  snprintf(why, size, "closing descriptors: %s", strerror(errno));
  return TREADLE_EPERMISSION;
}

int tdl_confine_process(const tdl_policy *p, int line, const int *keep,
                        size_t count, char *why, size_t size) {
  int status = tdl_confine_check(p, 1, why, size);
  status = status != 0 ? status : close_others(keep, count, why, size);
  status = status != 0 ? status : tdl_limits_apply(p, why, size);
  status = status != 0 ? status : tdl_landlock_apply(p, why, size);
  return status != 0 ? status : tdl_filter_apply(p, 1, line, why, size);
}
