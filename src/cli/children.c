/* A nursery is a process that has loaded busted. It forks one child for each file
** of specs that it is asked for, waits until that has ended, and tells how
** (lua/treadle/suite_file.lua). Both have:
**
**   10  the pipe of the children's events (CHILD_EVENTS)
**   11  the program that the nursery runs (CHILD_CODE)
**   12  the pipe in which the nursery tells how they end (CHILD_ENDS)
**   13  the pipe of the requests (CHILD_REQUESTS)
**   14  the file that is locked when figures of coverage are written
**
** What a child prints goes to files without a name. Unlike a pipe, they tell how
** much was printed before each event; hold all that a file prints; and are no
** reason to wait for a process that a child has left behind.
**
** C1  A nursery, and each child, leads a process group: a child is killed with
**     all that it has started, and a terminal's Ctrl-C is ours alone.
** C2  They die with us, whatever ends us (PR_SET_PDEATHSIG).
** C3  Our own descriptors are 64 and above: none is in the way of these. */
#include "children.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define OWN_FD_MIN 64 /* C3 */
#define PATH_BYTES 4096
#define READ_BYTES 65536
#define COPY_BYTES 65536

/* From a signal to the end at the latest: what is known may be long. */
#define END_LIMIT_US 800000

enum { CHILD_EVENTS = 10, CHILD_CODE, CHILD_ENDS, CHILD_REQUESTS, CHILD_LOCK };

static const int end_signals[] = {SIGINT, SIGTERM, SIGHUP};
#define END_SIGNALS (sizeof(end_signals) / sizeof(end_signals[0]))

static volatile sig_atomic_t caught_signal;

/* --- signals -------------------------------------------------------------- */

static void on_second(int sig) {
  _exit(128 + (sig == SIGALRM ? (int)caught_signal : sig));
}

static void on_first(int sig) {
  struct itimerval limit = {{0, 0}, {0, END_LIMIT_US}};
  int error = errno;
  caught_signal = sig;
  for (size_t i = 0; i < END_SIGNALS; i++) {
    signal(end_signals[i], on_second);
  }
  signal(SIGALRM, on_second);
  setitimer(ITIMER_REAL, &limit, NULL);
  errno = error;
}

/* Of the signals that end us: none may come between a look and the wait. */
static void mask_signals(int how, sigset_t *before) {
  sigset_t set;
  sigemptyset(&set);
  for (size_t i = 0; i < END_SIGNALS; i++) {
    sigaddset(&set, end_signals[i]);
  }
  pthread_sigmask(how, &set, before);
}

/* catch(): from now on the signals that end a process are told by caught(). */
static int children_catch(lua_State *L) {
  struct sigaction action, old;
  (void)L;
  memset(&action, 0, sizeof(action));
  action.sa_handler = on_first; /* no SA_RESTART: waits must return */
  for (size_t i = 0; i < END_SIGNALS; i++) {
    sigaction(end_signals[i], NULL, &old);
    if (old.sa_handler != SIG_IGN) {
      sigaction(end_signals[i], &action, NULL);
    }
  }
  return 0;
}

/* caught() -> the number of the signal that came, or nil */
static int children_caught(lua_State *L) {
  if (caught_signal == 0) {
    return 0;
  }
  lua_pushinteger(L, caught_signal);
  return 1;
}

/* --- descriptors ---------------------------------------------------------- */

static void shut(int *fd) {
  if (*fd >= 0) {
    close(*fd);
    *fd = -1;
  }
}

/* Takes `fd`; -1 if there was none. */
static int own(int fd) {
  int moved = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, OWN_FD_MIN);
  if (fd >= 0) {
    close(fd);
  }
  return moved;
}

static int own_pipe(int ends[2]) {
  int raw[2];
  if (pipe2(raw, O_CLOEXEC) != 0) {
    return -1;
  }
  ends[0] = own(raw[0]);
  ends[1] = own(raw[1]);
  return ends[0] < 0 || ends[1] < 0 ? -1 : 0;
}

static const char *scratch_folder(void) {
  const char *folder = getenv("TMPDIR");
  return folder != NULL && folder[0] != '\0' ? folder : "/tmp";
}

/* An empty file that has no name any more. */
static int open_scratch(void) {
  char path[PATH_BYTES];
  int fd;
  snprintf(path, sizeof(path), "%s/treadle-test-XXXXXX", scratch_folder());
  fd = mkostemp(path, O_CLOEXEC);
  if (fd >= 0) {
    unlink(path);
  }
  return own(fd);
}

/* All of it; -1 if that cannot be. */
static int write_all(int fd, const char *data, size_t size) {
  while (size > 0) {
    ssize_t n = write(fd, data, size);
    if (n < 0 && errno == EAGAIN) { /* somebody has made it so */
      struct pollfd p = {fd, POLLOUT, 0};
      poll(&p, 1, -1);
    } else if (n < 0 && errno != EINTR) {
      return -1;
    } else if (n > 0) {
      data += n;
      size -= (size_t)n;
    }
  }
  return 0;
}

static int is_same(int a, int b) {
  struct stat x, y;
  return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev &&
         x.st_ino == y.st_ino;
}

/* close(fd) */
static int children_close(lua_State *L) {
  int fd = (int)luaL_checkinteger(L, 1);
  shut(&fd);
  return 0;
}

/* is_one(): whether standard output and error are the same file */
static int children_is_one(lua_State *L) {
  lua_pushboolean(L, is_same(STDOUT_FILENO, STDERR_FILENO));
  return 1;
}

/* size(fd) -> bytes in a file */
static int children_size(lua_State *L) {
  struct stat s;
  int is_known = fstat((int)luaL_checkinteger(L, 1), &s) == 0;
  lua_pushnumber(L, is_known ? (lua_Number)s.st_size : 0);
  return 1;
}

/* text(fd, size) -> what is in a file */
static int children_text(lua_State *L) {
  int fd = (int)luaL_checkinteger(L, 1);
  size_t size = (size_t)luaL_checknumber(L, 2), at = 0;
  char *bytes = lua_newuserdata(L, size + 1);
  while (at < size) {
    ssize_t n = pread(fd, bytes + at, size - at, (off_t)at);
    if (n <= 0) {
      break;
    }
    at += (size_t)n;
  }
  lua_pushlstring(L, bytes, at);
  return 1;
}

/* copy(from, first, last, to): bytes of a file; less if nobody takes them */
static int children_copy(lua_State *L) {
  int from = (int)luaL_checkinteger(L, 1);
  off_t at = (off_t)luaL_checknumber(L, 2);
  off_t last = (off_t)luaL_checknumber(L, 3);
  int to = (int)luaL_checkinteger(L, 4);
  char *bytes = lua_newuserdata(L, COPY_BYTES);
  fflush(stdout);
  fflush(stderr);
  while (at < last) {
    size_t want = last - at < COPY_BYTES ? (size_t)(last - at) : COPY_BYTES;
    ssize_t n = pread(from, bytes, want, at);
    if (n <= 0 || write_all(to, bytes, (size_t)n) != 0) {
      break;
    }
    at += n;
  }
  return 0;
}

/* --- processes ------------------------------------------------------------ */

typedef struct nursery {
  char **argv;
  int events[2], ends[2], requests[2]; /* where one reads, where one writes */
  int code, lock;
  pid_t pid;
} nursery;

static void fini(nursery *n) {
  for (int i = 0; i < 2; i++) {
    shut(&n->events[i]);
    shut(&n->ends[i]);
    shut(&n->requests[i]);
  }
  shut(&n->code);
}

static void give(int fd, int as) {
  dup2(fd, as); /* without FD_CLOEXEC */
}

/* In the new process: other threads may have held locks at the fork, so that
** only what POSIX calls async-signal-safe is used. */
static void become(const nursery *n, pid_t parent) {
  sigset_t none;
  setpgid(0, 0);                    /* C1 */
  prctl(PR_SET_PDEATHSIG, SIGKILL); /* C2 */
  if (getppid() != parent) {
    _exit(EXIT_FAILURE); /* it was too late for that */
  }
  give(open("/dev/null", O_RDONLY | O_CLOEXEC), STDIN_FILENO);
  give(n->events[1], CHILD_EVENTS);
  give(n->code, CHILD_CODE);
  give(n->ends[1], CHILD_ENDS);
  give(n->requests[0], CHILD_REQUESTS);
  give(n->lock, CHILD_LOCK);
  sigemptyset(&none);
  pthread_sigmask(SIG_SETMASK, &none, NULL);
  execvp(n->argv[0], n->argv);
  dprintf(STDERR_FILENO, "treadle: cannot run %s: %s\n", n->argv[0],
          strerror(errno));
  _exit(127);
}

static int open_all(nursery *n, const char *code, size_t size) {
  if (own_pipe(n->events) != 0 || own_pipe(n->ends) != 0 ||
      own_pipe(n->requests) != 0) {
    return -1;
  }
  n->code = own(memfd_create("treadle test", MFD_CLOEXEC));
  return n->code < 0 ? -1 : write_all(n->code, code, size);
}

/* start(words, code, lock) -> pid of a nursery, its events, ends, and where
** requests are written: words[1] is looked for in PATH. */
static int children_start(lua_State *L) {
  size_t size;
  const char *code = luaL_checklstring(L, 2, &size);
  int count = (int)lua_objlen(L, 1);
  pid_t parent = getpid();
  nursery n = {NULL, {-1, -1}, {-1, -1}, {-1, -1}, -1, -1, -1};
  n.lock = (int)luaL_checkinteger(L, 3);
  n.argv = lua_newuserdata(L, ((size_t)count + 1) * sizeof(char *));
  luaL_checkstack(L, count, NULL);
  for (int i = 0; i < count; i++) {
    lua_rawgeti(L, 1, i + 1);
    n.argv[i] = (char *)(uintptr_t)luaL_checkstring(L, -1);
  }
  n.argv[count] = NULL;
  fflush(stdout);
  if (open_all(&n, code, size) == 0) {
    mask_signals(SIG_BLOCK, NULL);
    n.pid = fork();
    if (n.pid == 0) {
      become(&n, parent);
    }
    mask_signals(SIG_UNBLOCK, NULL);
  }
  if (n.pid < 0) {
    int error = errno;
    fini(&n);
    return luaL_error(L, "cannot start a process: %s", strerror(error));
  }
  setpgid(n.pid, n.pid); /* C1, whoever is first */
  shut(&n.events[1]);
  shut(&n.ends[1]);
  shut(&n.requests[0]);
  shut(&n.code);
  lua_pushinteger(L, n.pid);
  lua_pushinteger(L, n.events[0]);
  lua_pushinteger(L, n.ends[0]);
  lua_pushinteger(L, n.requests[1]);
  return 4;
}

/* scratch() -> an empty file without a name */
static int children_scratch(lua_State *L) {
  int fd = open_scratch();
  if (fd < 0) {
    return luaL_error(L, "no temporary file in %s: %s", scratch_folder(),
                      strerror(errno));
  }
  lua_pushinteger(L, fd);
  return 1;
}

/* write(fd, text): all of it, unless nobody reads any more: which is told
** otherwise, so that the signal for it is taken back. */
static int children_write(lua_State *L) {
  const struct timespec at_once = {0, 0};
  size_t size;
  const char *text = luaL_checklstring(L, 2, &size);
  sigset_t pipe_signal, before;
  sigemptyset(&pipe_signal);
  sigaddset(&pipe_signal, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
  if (write_all((int)luaL_checkinteger(L, 1), text, size) != 0) {
    sigtimedwait(&pipe_signal, NULL, &at_once);
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return 0;
}

/* pid() -> our own */
static int children_pid(lua_State *L) {
  lua_pushinteger(L, getpid());
  return 1;
}

/* kill(pid): its group, at once */
static int children_kill(lua_State *L) {
  kill(-(pid_t)luaL_checkinteger(L, 1), SIGKILL);
  return 0;
}

/* reap(pid): whether it had ended */
static int children_reap(lua_State *L) {
  pid_t pid = (pid_t)luaL_checkinteger(L, 1);
  lua_pushboolean(L, waitpid(pid, NULL, WNOHANG) != 0);
  return 1;
}

/* --- waiting -------------------------------------------------------------- */

/* wait(fds, seconds): until one of them is readable, or a signal has come; a
** table of those that are */
static int children_wait(lua_State *L) {
  double seconds = luaL_checknumber(L, 2);
  struct timespec limit = {(time_t)seconds,
                           (long)((seconds - (double)(time_t)seconds) * 1e9)};
  int count = (int)lua_objlen(L, 1), ready = 0, found;
  size_t bytes = ((size_t)count + 1) * sizeof(struct pollfd);
  struct pollfd *list = lua_newuserdata(L, bytes);
  sigset_t before;
  for (int i = 0; i < count; i++) {
    lua_rawgeti(L, 1, i + 1);
    list[i] = (struct pollfd){(int)lua_tointeger(L, -1), POLLIN, 0};
    lua_pop(L, 1);
  }
  mask_signals(SIG_BLOCK, &before);
  if (caught_signal != 0) {
    limit = (struct timespec){0, 0};
  }
  found = ppoll(list, (nfds_t)count, &limit, &before);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  lua_newtable(L);
  for (int i = 0; found > 0 && i < count; i++) {
    if (list[i].revents != 0) {
      lua_pushinteger(L, list[i].fd);
      lua_rawseti(L, -2, ++ready);
    }
  }
  return 1;
}

/* read(fd) -> bytes, or nil at the end: of one that is readable */
static int children_read(lua_State *L) {
  char bytes[READ_BYTES];
  ssize_t n;
  do {
    n = read((int)luaL_checkinteger(L, 1), bytes, sizeof(bytes));
  } while (n < 0 && errno == EINTR);
  if (n <= 0) {
    return 0;
  }
  lua_pushlstring(L, bytes, (size_t)n);
  return 1;
}

int tdl_children_load(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"catch", children_catch},   {"caught", children_caught},
      {"close", children_close},   {"copy", children_copy},
      {"is_one", children_is_one}, {"kill", children_kill},
      {"pid", children_pid},       {"read", children_read},
      {"reap", children_reap},     {"scratch", children_scratch},
      {"size", children_size},     {"start", children_start},
      {"text", children_text},     {"wait", children_wait},
      {"write", children_write},   {NULL, NULL}};
  lua_newtable(L);
  luaL_setfuncs(L, functions, 0);
  return 1;
}
