#include "line.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

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

static ssize_t receive(int line, void *out, size_t size, int flags) {
  ssize_t n;
  do {
    n = recv(line, out, size, flags);
  } while (n < 0 && errno == EINTR);
  return n;
}

int tdl_line_receive(int line, tdl_message *out, int wait) {
  ssize_t n = receive(line, out, sizeof(*out), wait ? 0 : MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
    return 0;
  } else if (n <= 0) {
    return TREADLE_ECLOSED;
  }
  return (size_t)n >= TDL_LINE_HEAD_BYTES &&
                 out->length < TDL_LINE_TEXT_BYTES &&
                 (size_t)n == TDL_LINE_HEAD_BYTES + out->length
             ? 1
             : TREADLE_EINVAL;
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
