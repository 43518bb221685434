/* A loop that somebody else's event loop waits for: the descriptor and the
** socket that its senders ring, and when the next timer is due. */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/compiler.h"
#include "check.h"
#include "run/loop.h"
#include "run/peer.h"

enum { SENDERS = 2, ROUNDS = 20000 };

static int is_readable(int fd) {
  struct pollfd p = {fd, POLLIN, 0};
  return poll(&p, 1, 0) == 1;
}

/* A descriptor that has been closed is not that of anything else. */
static int is_open(int fd) {
  return fcntl(fd, F_GETFD) >= 0;
}

static void nothing(tdl_note *note, treadle_loop *at) {
  (void)note;
  (void)at;
}

static tdl_note make_note(void) {
  tdl_note note = {{0}, nothing};
  note.node.kind = TDL_NODE_NOTE;
  return note;
}

static int connect_to(const char *path) {
  struct sockaddr_un at = {.sun_family = AF_UNIX};
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  strncpy(at.sun_path, path, sizeof(at.sun_path) - 1);
  if (connect(fd, (struct sockaddr *)&at, sizeof(at)) != 0) {
    close(fd);
    return -1;
  }
  return fd;
}

static ssize_t take(int fd) {
  char bytes[64];
  return recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
}

static void an_armed_loop_rings_its_socket_once(void) {
  treadle_loop *loop;
  tdl_note notes[3] = {make_note(), make_note(), make_note()};
  int ends[2];
  CHECK(tdl_loop_new(&loop) == 0);
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  CHECK(tdl_loop_join(loop, ends[0]) == 0);
  tdl_loop_post(loop, &notes[0].node); /* awake: nobody rings */
  CHECK(!is_readable(ends[1]));
  CHECK(tdl_loop_dispatch(loop) == 1);
  CHECK(tdl_loop_arm(loop));
  tdl_loop_post(loop, &notes[1].node);
  tdl_loop_post(loop, &notes[2].node);
  CHECK(is_readable(tdl_loop_fd(loop)));
  CHECK(take(ends[1]) == 1);
  tdl_loop_disarm(loop);
  CHECK(tdl_loop_dispatch(loop) == 2);
  tdl_loop_drop(loop);
  CHECK(take(ends[1]) == 0); /* its end is closed */
  close(ends[1]);
}

static void a_socket_that_is_full_or_has_gone_is_no_hindrance(void) {
  treadle_loop *loop;
  tdl_note note = make_note();
  int ends[2], more[2];
  char bytes[4096] = {0};
  CHECK(tdl_loop_new(&loop) == 0);
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  while (send(ends[0], bytes, sizeof(bytes), MSG_DONTWAIT) > 0) {
  }
  while (send(ends[0], bytes, 1, MSG_DONTWAIT) > 0) {
  }
  CHECK(tdl_loop_join(loop, ends[0]) == 0);
  CHECK(tdl_loop_arm(loop));
  tdl_loop_post(loop, &note.node);
  CHECK(is_readable(ends[1]));
  tdl_loop_disarm(loop);
  CHECK(tdl_loop_dispatch(loop) == 1);
  close(ends[1]);
  CHECK(tdl_loop_arm(loop));
  tdl_loop_post(loop, &note.node); /* no SIGPIPE */
  tdl_loop_disarm(loop);
  CHECK(tdl_loop_dispatch(loop) == 1);
  /* another one takes its number */
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, more) == 0);
  CHECK(tdl_loop_join(loop, more[0]) == 0);
  CHECK(is_open(ends[0]) && !is_open(more[0]));
  CHECK(tdl_loop_arm(loop));
  tdl_loop_post(loop, &note.node);
  CHECK(take(more[1]) == 1);
  tdl_loop_disarm(loop);
  CHECK(tdl_loop_dispatch(loop) == 1);
  tdl_loop_drop(loop);
  CHECK(!is_open(ends[0]));
  close(more[1]);
}

typedef struct sender {
  treadle_loop *loop;
  tdl_note note;
  atomic_int is_free;
} sender;

static void arrived(tdl_note *note, treadle_loop *at) {
  (void)at;
  /* release: the note may be sent again */
  atomic_store_explicit(&TDL_CONTAINER(note, sender, note)->is_free, 1,
                        memory_order_release);
}

static void *send_all(void *arg) {
  sender *s = arg;
  for (int i = 0; i < ROUNDS; i++) {
    /* acquire: it has arrived */
    while (!atomic_load_explicit(&s->is_free, memory_order_acquire)) {
      sched_yield();
    }
    /* relaxed: until it arrives it is the sender's */
    atomic_store_explicit(&s->is_free, 0, memory_order_relaxed);
    tdl_loop_post(s->loop, &s->note.node);
  }
  return NULL;
}

/* Who sleeps on the socket alone, without a limit, misses nothing: neither when
** another socket takes the place of the first meanwhile. */
static void who_sleeps_on_the_socket_misses_nothing(void) {
  treadle_loop *loop;
  sender senders[SENDERS];
  pthread_t threads[SENDERS];
  int ends[2], more[2];
  uint32_t count = 0;
  CHECK(tdl_loop_new(&loop) == 0);
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  CHECK(tdl_loop_join(loop, ends[0]) == 0);
  for (int i = 0; i < SENDERS; i++) {
    senders[i].loop = loop;
    senders[i].note = make_note();
    senders[i].note.arrive = arrived;
    atomic_init(&senders[i].is_free, 1);
    CHECK(pthread_create(&threads[i], NULL, send_all, &senders[i]) == 0);
  }
  while (count < SENDERS * ROUNDS) {
    tdl_loop_disarm(loop);
    count += tdl_loop_dispatch(loop);
    if (count % 1000 == 999) {
      CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, more) == 0);
      CHECK(tdl_loop_join(loop, more[0]) == 0);
      close(ends[1]);
      ends[1] = more[1];
    }
    if (count < SENDERS * ROUNDS && tdl_loop_arm(loop)) {
      char bytes[64];
      CHECK(recv(ends[1], bytes, sizeof(bytes), 0) > 0);
    }
  }
  for (int i = 0; i < SENDERS; i++) {
    pthread_join(threads[i], NULL);
  }
  tdl_loop_disarm(loop);
  CHECK(tdl_loop_dispatch(loop) == 0);
  tdl_loop_drop(loop);
  close(ends[1]);
}

static void a_peer_is_whoever_this_process_connects(void) {
  tdl_peer peer;
  struct stat st;
  char folder[sizeof(peer.path)];
  int mine, other, status;
  pid_t child;
  CHECK(tdl_peer_open(&peer, "/tmp") == 0);
  strcpy(folder, peer.path);
  *strrchr(folder, '/') = '\0';
  CHECK(stat(folder, &st) == 0 && (st.st_mode & 0777) == 0700);
  CHECK(tdl_peer_accept(&peer, &other) == TREADLE_ESYSTEM); /* none yet */
  fflush(stdout);
  child = fork();
  if (child == 0) {
    _exit(connect_to(peer.path) >= 0 ? 0 : 1);
  }
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  mine = connect_to(peer.path);
  CHECK(mine >= 0);
  CHECK(tdl_peer_accept(&peer, &other) == 0);
  CHECK(send(other, "x", 1, 0) == 1 && take(mine) == 1);
  tdl_peer_close(&peer);
  tdl_peer_close(&peer);
  CHECK(stat(folder, &st) != 0);
  close(other);
  close(mine);
}

static void a_peer_needs_a_folder_that_it_can_write_to(void) {
  tdl_peer peer;
  char path[300];
  memset(path, 'x', sizeof(path) - 1);
  path[sizeof(path) - 1] = '\0';
  CHECK(tdl_peer_open(&peer, "/nonexistent") == TREADLE_ESYSTEM);
  CHECK(tdl_peer_open(&peer, path) == TREADLE_ESYSTEM);
  tdl_peer_close(&peer);
}

static void never(void *ctx, uint32_t id) {
  (void)ctx;
  (void)id;
}

static void the_next_time_is_a_timers_own_whenever_it_is_looked_for(void) {
  treadle_loop *loop;
  tdl_timer *timers[20];
  uint64_t due, start = tdl_now_ns();
  CHECK(tdl_loop_new(&loop) == 0);
  CHECK(tdl_loop_timer(loop, 3600 * 1000000000ull, never, NULL, 0, timers) ==
        0);
  due = loop->due_ns;
  CHECK(due >= start + 3600 * 1000000000ull); /* never too early */
  for (int i = 1; i < 20; i++) {
    uint64_t stop = tdl_now_ns() + 100000; /* in all parts of a millisecond */
    while (tdl_now_ns() < stop) {
    }
    CHECK(tdl_loop_timer(loop, 7200 * 1000000000ull, never, NULL, 0,
                         &timers[i]) == 0);
    CHECK(loop->due_ns == due);
    tdl_loop_leave(loop, 1);
    tdl_loop_disarm(loop);
    CHECK(loop->due_ns == due);
  }
  for (int i = 0; i < 20; i++) {
    tdl_timer_stop(timers[i]);
  }
  CHECK(tdl_loop_next_ns(loop) == TDL_NEVER);
  tdl_loop_drop(loop);
}

int main(void) {
  alarm(60); /* a missed ring is a hang */
  RUN(an_armed_loop_rings_its_socket_once);
  RUN(a_socket_that_is_full_or_has_gone_is_no_hindrance);
  RUN(who_sleeps_on_the_socket_misses_nothing);
  RUN(a_peer_is_whoever_this_process_connects);
  RUN(a_peer_needs_a_folder_that_it_can_write_to);
  RUN(the_next_time_is_a_timers_own_whenever_it_is_looked_for);
  return check_any_failed;
}
