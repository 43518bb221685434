#include "line.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../treadle.h"

void tdl_message_say(tdl_message *m, const char *text) {
  size_t n = text == NULL ? 0 : strlen(text);
  m->length = (uint32_t)(n < sizeof(m->text) ? n : sizeof(m->text) - 1);
  if (n > 0) {
    memcpy(m->text, text, m->length);
  }
}

int tdl_line_send(int line, const void *message, uint32_t size) {
  ssize_t n;
  do {
    n = send(line, message, size, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (n < 0 && errno == EINTR);
  return n == (ssize_t)size ? 0 : TREADLE_ESYSTEM;
}

int tdl_line_send_fd(int line, const void *message, uint32_t size, int fd) {
  union {
    struct cmsghdr head; /* aligns it */
    char room[CMSG_SPACE(sizeof(int))];
  } control = {.room = {0}};
  struct iovec part = {(void *)(uintptr_t)message, size};
  struct msghdr m = {.msg_iov = &part,
                     .msg_iovlen = 1,
                     .msg_control = &control,
                     .msg_controllen = sizeof(control.room)};
  struct cmsghdr *head = CMSG_FIRSTHDR(&m);
  ssize_t n;
  head->cmsg_level = SOL_SOCKET;
  head->cmsg_type = SCM_RIGHTS;
  head->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(head), &fd, sizeof(fd));
  do {
    n = sendmsg(line, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (n < 0 && errno == EINTR);
  return n == (ssize_t)size;
}

static ssize_t receive(int line, void *out, size_t size, int flags) {
  ssize_t n;
  do {
    n = recv(line, out, size, flags);
  } while (n < 0 && errno == EINTR);
  return n;
}

int tdl_line_peek(int line, uint32_t *kind) {
  ssize_t n = receive(line, kind, sizeof(*kind), MSG_DONTWAIT | MSG_PEEK);
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
    return 0;
  } else if (n <= 0) {
    return TREADLE_ECLOSED;
  }
  *kind = n == (ssize_t)sizeof(*kind) ? *kind : 0;
  return 1;
}

int64_t tdl_line_take(int line, void *out, size_t size) {
  ssize_t n = receive(line, out, size, MSG_DONTWAIT | MSG_TRUNC);
  return n > 0 && (size_t)n <= size ? n : -1;
}

/* At most one: the kernel closes those for which there is no room. */
static ssize_t receive_with(int line, void *out, size_t size, int *fd) {
  union {
    struct cmsghdr head;
    char room[CMSG_SPACE(sizeof(int))];
  } control;
  struct iovec part = {out, size};
  struct msghdr m = {.msg_iov = &part,
                     .msg_iovlen = 1,
                     .msg_control = &control,
                     .msg_controllen = CMSG_LEN(sizeof(int))};
  const struct cmsghdr *head;
  ssize_t n;
  do {
    n = recvmsg(line, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  *fd =
      n >= 0 && (m.msg_flags & MSG_CTRUNC) ? TDL_LINE_LOST_FD : TDL_LINE_NO_FD;
  head = n >= 0 ? CMSG_FIRSTHDR(&m) : NULL;
  if (head != NULL && head->cmsg_level == SOL_SOCKET &&
      head->cmsg_type == SCM_RIGHTS &&
      head->cmsg_len >= CMSG_LEN(sizeof(int))) {
    memcpy(fd, CMSG_DATA(head), sizeof(*fd));
  }
  return n;
}

int tdl_line_receive(int line, tdl_message *out, int *fd) {
  ssize_t n = receive_with(line, out, sizeof(*out), fd);
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
    return 0;
  } else if (n <= 0) {
    return TREADLE_ECLOSED;
  }
  if ((size_t)n >= TDL_LINE_HEAD_BYTES && out->length < TDL_LINE_TEXT_BYTES &&
      (size_t)n == TDL_LINE_HEAD_BYTES + out->length) {
    return 1;
  }
  if (*fd >= 0) {
    close(*fd);
  }
  return TREADLE_EINVAL;
}

uint32_t tdl_line_next_kind(int line) {
  uint32_t kind;
  ssize_t n = receive(line, &kind, sizeof(kind), MSG_PEEK);
  return n == (ssize_t)sizeof(kind) ? kind : 0;
}

int tdl_line_receive_hello(int line, tdl_hello *out) {
  ssize_t n = receive(line, out, sizeof(*out), 0);
  if (n != (ssize_t)sizeof(*out) || out->kind != TDL_LINE_HELLO ||
      out->version != TDL_HELLO_VERSION) {
    return TREADLE_EINVAL;
  }
  out->name[sizeof(out->name) - 1] = '\0';
  return 0;
}
