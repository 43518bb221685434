/* The script's output may not run into the view. So where both go to a terminal,
** standard output and error become a pipe, which the view's thread reads: it
** writes that above what it draws. Nothing else is changed about the terminal.
**
** X1  The thread reads the pipe until it is closed, whatever happens to its Lua
**     code: else a script that prints would stand still.
** X2  close gives the descriptors back first, then wakes the thread, which
**     writes what is left in the pipe and the last picture. The process ends
**     after that: close is called at exit, too, but not in a forked child. */
#include "live.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <lualib.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../bind/bind.h"
#include "../run/board.h"
#include "../run/heap.h"

#define READ_BYTES 65536
#define OWN_FD_MIN 10 /* out of the way of a script that closes 3 to 9 */

enum { OUT = 1, ERR = 2 };

int luaopen_treadle(lua_State *L); /* bind/core.c */

static struct {
  int is_open;
  pid_t pid;
  pthread_t thread;
  int screen;     /* what standard error was; -1: nothing */
  int kept[3];    /* what is to come back to 1 and 2; -1: they are unchanged */
  int pipe[2];    /* the script's output; -1 without */
  int wake[2];    /* readable at the end */
  char *incoming; /* the thread's */
} live;

/* --- descriptors ---------------------------------------------------------- */

static int own(int fd) {
  return fcntl(fd, F_DUPFD_CLOEXEC, OWN_FD_MIN);
}

static void shut(int *fd) {
  if (*fd >= 0) {
    close(*fd);
    *fd = -1;
  }
}

/* A pipe between own descriptors; 0 or -1. */
static int make_pipe(int ends[2]) {
  int raw[2];
  if (pipe(raw) != 0) {
    return -1;
  }
  for (int i = 0; i < 2; i++) {
    ends[i] = own(raw[i]);
    close(raw[i]);
  }
  if (ends[0] < 0 || ends[1] < 0) {
    shut(&ends[0]);
    shut(&ends[1]);
    return -1;
  }
  return 0;
}

static int is_same(int a, int b) {
  struct stat x, y;
  return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev &&
         x.st_ino == y.st_ino;
}

static void capture(int fd) {
  live.kept[fd] = own(fd);
  if (live.kept[fd] >= 0) {
    dup2(live.pipe[1], fd);
  }
}

static void give_back(void) {
  fflush(stdout);
  fflush(stderr);
  for (int fd = OUT; fd <= ERR; fd++) {
    if (live.kept[fd] >= 0) {
      dup2(live.kept[fd], fd);
      shut(&live.kept[fd]);
    }
  }
}

static void write_all(int fd, const char *data, size_t size) {
  while (size > 0) {
    ssize_t n = write(fd, data, size);
    if (n < 0 && errno == EAGAIN) { /* somebody has made it so */
      struct pollfd p = {fd, POLLOUT, 0};
      poll(&p, 1, -1);
    } else if (n < 0 && errno != EINTR) {
      return;
    } else if (n > 0) {
      data += n;
      size -= (size_t)n;
    }
  }
}

/* --- the thread ----------------------------------------------------------- */

/* Waits so long for output of the script's: how much there is. */
static size_t wait_output(int ms, int *is_over) {
  struct pollfd p[2] = {{live.wake[0], POLLIN, 0}, {live.pipe[0], POLLIN, 0}};
  ssize_t n = -1;
  poll(p, live.pipe[0] >= 0 ? 2 : 1, ms);
  *is_over = p[0].revents != 0;
  if (live.pipe[0] >= 0) {
    n = read(live.pipe[0], live.incoming, READ_BYTES); /* does not block */
  }
  return n > 0 ? (size_t)n : 0;
}

/* wait(seconds) -> whether the view is to end, and output of the script's, or
** nil */
static int screen_wait(lua_State *L) {
  double seconds = luaL_checknumber(L, 1);
  int is_over;
  size_t n = wait_output(seconds > 0 ? (int)ceil(seconds * 1e3) : 0, &is_over);
  lua_pushboolean(L, is_over);
  if (n == 0) {
    return 1;
  }
  lua_pushlstring(L, live.incoming, n);
  return 2;
}

/* write(text) */
static int screen_write(lua_State *L) {
  size_t size;
  const char *text = luaL_checklstring(L, 1, &size);
  if (live.screen >= 0) {
    write_all(live.screen, text, size);
  }
  return 0;
}

static int thread_main_lua(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"wait", screen_wait}, {"write", screen_write}, {NULL, NULL}};
  luaL_openlibs(L);
  lua_pushcfunction(L, luaopen_treadle);
  lua_pushliteral(L, "treadle");
  lua_call(L, 1, 0);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "treadle.top_live");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "run");
  lua_createtable(L, 0, 3);
  luaL_setfuncs(L, functions, 0);
  lua_pushinteger(L, live.screen);
  lua_setfield(L, -2, "fd");
  lua_call(L, 1, 0);
  return 0;
}

static void *thread_main(void *arg) {
  tdl_heap heap;
  lua_State *L = tdl_heap_open(&heap, TDL_HEAP_KEEP_BYTES);
  const char *problem = "not enough memory";
  int is_over = 0;
  size_t n = 0;
  if (L == NULL || lua_cpcall(L, thread_main_lua, NULL) != 0) {
    if (L != NULL && lua_isstring(L, -1)) {
      problem = lua_tostring(L, -1);
    }
    if (live.screen >= 0) {
      dprintf(live.screen, "treadle: the view has ended: %s\n", problem);
    }
    do { /* X1 */
      n = wait_output(n > 0 ? 0 : -1, &is_over);
      write_all(live.screen, live.incoming, n);
    } while (n > 0 || !is_over);
  }
  tdl_board_close();
  if (L != NULL) {
    tdl_heap_close(&heap, L);
  }
  return arg;
}

/* --- opening and closing -------------------------------------------------- */

static void fini(void) {
  shut(&live.screen);
  shut(&live.pipe[0]);
  shut(&live.pipe[1]);
  shut(&live.wake[0]);
  shut(&live.wake[1]);
  free(live.incoming);
  live.incoming = NULL;
}

/* Standard error to the pipe if it is a terminal, and standard output if it is
** the same. 0 or -1. */
static int capture_all(void) {
  if (!isatty(ERR)) {
    return 0;
  }
  if (make_pipe(live.pipe) != 0) {
    return -1;
  }
  fcntl(live.pipe[0], F_SETFL, O_NONBLOCK);
  fflush(stdout);
  if (is_same(OUT, ERR)) {
    capture(OUT);
    setvbuf(stdout, NULL, _IOLBF, 0); /* as on the terminal that it was */
  }
  capture(ERR);
  shut(&live.pipe[1]);
  return 0;
}

/* With all signals blocked: they are the main thread's. */
static int start(void) {
  sigset_t all, old;
  int error;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  error = pthread_create(&live.thread, NULL, thread_main, NULL);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  return error == 0 ? 0 : -1;
}

static void close_live(void) {
  if (!live.is_open || live.pid != getpid()) {
    return;
  }
  live.is_open = 0;
  give_back();
  write_all(live.wake[1], "", 1);
  pthread_join(live.thread, NULL);
  fini();
}

static int live_open(lua_State *L) {
  static int is_registered;
  if (live.is_open) {
    return 0;
  }
  live.screen = live.kept[OUT] = live.kept[ERR] = -1;
  live.pipe[0] = live.pipe[1] = live.wake[0] = live.wake[1] = -1;
  live.pid = getpid();
  live.incoming = malloc(READ_BYTES);
  live.screen = own(ERR);
  tdl_board_open();
  if (live.incoming == NULL || make_pipe(live.wake) != 0 ||
      capture_all() != 0 || start() != 0) {
    tdl_board_close();
    give_back();
    fini();
    return luaL_error(L, "cannot start the view: %s", strerror(errno));
  }
  live.is_open = 1;
  if (!is_registered) {
    is_registered = 1;
    atexit(close_live);
  }
  return 0;
}

static int live_close(lua_State *L) {
  (void)L;
  close_live();
  return 0;
}

int tdl_live_load(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"open", live_open}, {"close", live_close}, {NULL, NULL}};
  lua_newtable(L);
  luaL_setfuncs(L, functions, 0);
  return 1;
}
