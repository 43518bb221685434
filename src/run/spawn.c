#include "spawn.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../treadle.h"

extern char **environ;

/* Above those that the child finds its own at; and how many those are. */
#define FIRST_FREE 16
#define FDS        (TDL_SPAWN_END - TDL_SPAWN_LINE)

#define MOST_PREFIX 64

/* --- which program --------------------------------------------------------- */

/* The folder of a file, without the last slash. */
static int folder_of(const char *file, char *folder, size_t size) {
  char path[PATH_MAX];
  char *slash;
  if (realpath(file, path) == NULL || (slash = strrchr(path, '/')) == NULL ||
      (size_t)(slash - path) >= size) {
    return 0;
  }
  *slash = '\0';
  memcpy(folder, path, (size_t)(slash - path) + 1);
  return 1;
}

static int is_in(const char *folder, char *path, size_t size, char *tried,
                 size_t tried_size) {
  /* beside it (a build, or the command itself), or as `make install` and
  ** luarocks put a library */
  static const char *const places[] = {"/treadle", "/../bin/treadle",
                                       "/../../bin/treadle",
                                       "/../../../bin/treadle"};
  for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
    size_t len = strlen(tried);
    if (snprintf(path, size, "%s%s", folder, places[i]) < (int)size &&
        access(path, X_OK) == 0) {
      return 1;
    }
    snprintf(tried + len, tried_size - len, "%s'%s'", len > 0 ? ", " : "",
             path);
  }
  return 0;
}

/* The library first, then the program that it is in. */
int tdl_spawn_program(char *path, size_t size, char *tried, size_t tried_size) {
  char folder[PATH_MAX];
  Dl_info info;
  tried[0] = '\0';
  if (dladdr((const void *)(uintptr_t)&tdl_spawn_program, &info) != 0 &&
      info.dli_fname != NULL && strchr(info.dli_fname, '/') != NULL &&
      folder_of(info.dli_fname, folder, sizeof(folder)) &&
      is_in(folder, path, size, tried, tried_size)) {
    return 0;
  }
  if (folder_of("/proc/self/exe", folder, sizeof(folder)) &&
      is_in(folder, path, size, tried, tried_size)) {
    return 0;
  }
  return TREADLE_ESYSTEM;
}

/* --- starting -------------------------------------------------------------- */

/* A copy that no descriptor of the child's lies on. */
static int above(int fd) {
  return fcntl(fd, F_DUPFD_CLOEXEC, FIRST_FREE);
}

static int start(const char *const *argv, const int fds[FDS], pid_t *pid) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attr;
  sigset_t signals;
  int error;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attr);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null",
                                   O_RDONLY, 0);
  for (int i = 0; i < FDS; i++) {
    posix_spawn_file_actions_adddup2(&actions, fds[i], TDL_SPAWN_LINE + i);
  }
  posix_spawn_file_actions_addclosefrom_np(&actions, TDL_SPAWN_END);
  sigemptyset(&signals);
  posix_spawnattr_setsigmask(&attr, &signals);
  sigfillset(&signals);
  posix_spawnattr_setsigdefault(&attr, &signals);
  posix_spawnattr_setflags(&attr,
                           POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  error =
      posix_spawnp(pid, argv[0], &actions, &attr, (char *const *)argv, environ);
  posix_spawnattr_destroy(&attr);
  posix_spawn_file_actions_destroy(&actions);
  errno = error;
  return error == 0 ? 0 : error == ENOMEM ? TREADLE_ENOMEM : TREADLE_ESYSTEM;
}

static void close_all(const int *fds, int n) {
  for (int i = 0; i < n; i++) {
    if (fds[i] >= 0) {
      close(fds[i]);
    }
  }
}

/* Starts it with the other ends of line and bell. */
static int start_with(const char *const *argv, int line, int memory, int bell,
                      int stage, tdl_spawn *out) {
  int fds[FDS] = {above(line), above(memory), above(bell), above(stage)};
  int status = TREADLE_ESYSTEM;
  if (fds[0] >= 0 && fds[1] >= 0 && fds[2] >= 0 && fds[3] >= 0) {
    status = start(argv, fds, &out->pid);
  }
  if (status == 0) {
    out->pidfd = (int)syscall(SYS_pidfd_open, out->pid, 0);
    if (out->pidfd < 0) {
      kill(out->pid, SIGKILL);
      waitpid(out->pid, NULL, 0);
      status = TREADLE_ESYSTEM;
    }
  }
  close_all(fds, FDS);
  return status;
}

/* A new program, so that nothing of the parent's memory is in it. */
int tdl_spawn_start(char *const *prefix, const char *program, int memory,
                    int stage, tdl_spawn *out) {
  const char *argv[MOST_PREFIX + 3];
  int ends[4] = {-1, -1, -1, -1}; /* line: ours, its; bell: ours, its */
  int n = 0, status = TREADLE_ESYSTEM, saved;
  for (; prefix != NULL && prefix[n] != NULL && n < MOST_PREFIX; n++) {
    argv[n] = prefix[n];
  }
  argv[n++] = program;
  argv[n++] = TDL_SPAWN_ARGUMENT;
  argv[n] = NULL;
  *out = (tdl_spawn)TDL_SPAWN_NONE;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0 &&
      pipe2(ends + 2, O_CLOEXEC | O_NONBLOCK) == 0) {
    status = start_with(argv, ends[1], memory, ends[3], stage, out);
  }
  saved = errno;
  if (status == 0) {
    out->line = ends[0];
    out->bell = ends[2];
    ends[0] = ends[2] = -1;
  } else {
    *out = (tdl_spawn)TDL_SPAWN_NONE;
  }
  close_all(ends, 4);
  errno = saved;
  return status;
}

/* --- the end --------------------------------------------------------------- */

void tdl_spawn_signal(const tdl_spawn *s, int signal) {
  if (s->pid != 0 && s->pidfd >= 0) {
    syscall(SYS_pidfd_send_signal, s->pidfd, signal, NULL, 0);
  }
}

/* Leaves it to be reaped. 1 when it has ended, also if a waitpid of the host's,
** for any child, was first. */
static int await(const tdl_spawn *s, int options) {
  siginfo_t info = {.si_pid = 0};
  int status;
  do {
    status = waitid(P_PID, (id_t)s->pid, &info, WEXITED | WNOWAIT | options);
  } while (status < 0 && errno == EINTR);
  return status < 0 || info.si_pid != 0;
}

int tdl_spawn_has_ended(tdl_spawn *s) {
  return s->pid == 0 || await(s, WNOHANG);
}

void tdl_spawn_kill(tdl_spawn *s) {
  if (s->pid != 0) {
    tdl_spawn_signal(s, SIGKILL);
    await(s, 0);
  }
}

void tdl_spawn_end(tdl_spawn *s) {
  tdl_spawn_kill(s);
  if (s->pid != 0 && waitpid(s->pid, &s->status, 0) < 0) {
    s->status = -1;
  }
  s->pid = 0;
  if (s->pidfd >= 0) {
    close(s->pidfd);
  }
  if (s->line >= 0) {
    close(s->line);
  }
  if (s->bell >= 0) {
    close(s->bell);
  }
  s->pidfd = s->line = s->bell = -1;
}

void tdl_spawn_say(const tdl_spawn *s, char *text, size_t size) {
  if (s->status >= 0 && WIFSIGNALED(s->status)) {
    const char *name = sigabbrev_np(WTERMSIG(s->status));
    snprintf(text, size, "was killed by signal %d%s%s", WTERMSIG(s->status),
             name != NULL ? ", SIG" : "", name != NULL ? name : "");
  } else if (s->status >= 0 && WIFEXITED(s->status)) {
    snprintf(text, size, "exited with status %d", WEXITSTATUS(s->status));
  } else {
    snprintf(text, size, "has ended");
  }
}
