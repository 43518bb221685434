#include "limits.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "../treadle.h"

/* Of the address space of this process, in bytes; 0: not known. */
static uint64_t size_now(void) {
  char text[64];
  ssize_t n;
  int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return 0;
  }
  n = read(fd, text, sizeof(text) - 1);
  close(fd);
  text[n > 0 ? n : 0] = 0;
  return strtoull(text, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static int limit(int resource, uint64_t soft, uint64_t hard, const char *what,
                 char *why, size_t size) {
  struct rlimit now, wanted;
  if (getrlimit((__rlimit_resource_t)resource, &now) == 0) {
    wanted.rlim_max = hard < now.rlim_max ? hard : now.rlim_max;
    wanted.rlim_cur = soft < wanted.rlim_max ? soft : wanted.rlim_max;
    if (setrlimit((__rlimit_resource_t)resource, &wanted) == 0) {
      return 0;
    }
  }
  snprintf(why, size, "the limit of %s: %s", what, strerror(errno));
  return TREADLE_EPERMISSION;
}

int tdl_limits_apply(const tdl_policy *p, char *why, size_t size) {
  int status = limit(RLIMIT_CORE, 0, 0, "core files", why, size);
  if (status == 0 && p->memory_bytes > 0) {
    uint64_t now = size_now();
    uint64_t most = now + p->memory_bytes;
    if (now == 0) {
      snprintf(why, size, "the limit of memory: /proc is not there");
      return TREADLE_EPERMISSION;
    }
    status = limit(RLIMIT_AS, most < now ? RLIM_INFINITY : most,
                   most < now ? RLIM_INFINITY : most, "memory", why, size);
  }
  if (status == 0 && p->cpu_seconds > 0) { /* SIGXCPU first, then SIGKILL */
    status =
        limit(RLIMIT_CPU, p->cpu_seconds, p->cpu_seconds + 1, "cpu", why, size);
  }
  if (status == 0 && p->files > 0) {
    status = limit(RLIMIT_NOFILE, p->files, p->files, "files", why, size);
  }
  return status;
}
