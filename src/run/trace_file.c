#include "trace_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../treadle.h"

/* The longest line but for a name, which may be as long as it likes. */
#define LINE_BYTES 512u

/* --- text ------------------------------------------------------------------ */

void tdl_trace_file_flush(tdl_trace_file *f) {
  size_t done = 0;
  while (f->error == 0 && done < f->used) {
    ssize_t n = write(f->fd, f->buffer + done, f->used - done);
    if (n >= 0) {
      done += (size_t)n;
    } else if (errno != EINTR) {
      f->error = errno;
    }
  }
  f->used = 0;
}

static void put(tdl_trace_file *f, const char *text, size_t len) {
  while (len > 0) {
    size_t room = TDL_TRACE_BUFFER_BYTES - f->used;
    size_t n = len < room ? len : room;
    memcpy(f->buffer + f->used, text, n);
    f->used += n;
    text += n;
    len -= n;
    if (f->used == TDL_TRACE_BUFFER_BYTES) {
      tdl_trace_file_flush(f);
    }
  }
}

static void put_text(tdl_trace_file *f, const char *text) {
  put(f, text, strlen(text));
}

static void put_number(tdl_trace_file *f, uint64_t n) {
  char digits[20];
  size_t at = sizeof(digits);
  do {
    digits[--at] = (char)('0' + n % 10);
    n /= 10;
  } while (n > 0);
  put(f, digits + at, sizeof(digits) - at);
}

/* Nanoseconds as microseconds. */
static void put_us(tdl_trace_file *f, uint64_t ns) {
  char rest[4] = {'.', (char)('0' + ns / 100 % 10), (char)('0' + ns / 10 % 10),
                  (char)('0' + ns % 10)};
  put_number(f, ns / 1000);
  put(f, rest, sizeof(rest));
}

static void put_name(tdl_trace_file *f, uint32_t task) {
  put_text(f, task < f->count ? f->names[task] : "task");
}

/* --- events ---------------------------------------------------------------- */

/* {"ph":"X","pid":1,"tid":1 */
static void begin(tdl_trace_file *f, const char *phase, uint32_t tid) {
  if (TDL_TRACE_BUFFER_BYTES - f->used < LINE_BYTES) {
    tdl_trace_file_flush(f);
  }
  put_text(f, ",\n{\"ph\":\"");
  put_text(f, phase);
  put_text(f, "\",\"pid\":");
  put_number(f, (uint64_t)f->pid);
  put_text(f, ",\"tid\":");
  put_number(f, tid);
}

static void put_ts(tdl_trace_file *f, uint64_t ts) {
  put_text(f, ",\"ts\":");
  put_us(f, ts - f->start);
}

static void put_dur(tdl_trace_file *f, uint64_t dur) {
  put_text(f, ",\"dur\":");
  put_us(f, dur);
}

static void put_id(tdl_trace_file *f, uint64_t id) {
  put_text(f, ",\"id\":\"");
  put_number(f, id);
  put_text(f, "\"");
}

static void put_cat(tdl_trace_file *f, const char *cat) {
  put_text(f, ",\"cat\":\"");
  put_text(f, cat);
  put_text(f, "\"");
}

static void put_label(tdl_trace_file *f, const char *before, uint32_t task,
                      const char *after) {
  put_text(f, ",\"name\":\"");
  put_text(f, before);
  put_name(f, task);
  put_text(f, after);
  put_text(f, "\"");
}

static void end(tdl_trace_file *f) {
  put_text(f, "}");
  f->events++;
}

static void name_track(tdl_trace_file *f, uint32_t tid) {
  if (f->seen[tid / 64] & (1ull << (tid % 64))) {
    return;
  }
  f->seen[tid / 64] |= 1ull << (tid % 64);
  begin(f, "M", tid);
  put_text(f, ",\"name\":\"thread_name\",\"args\":{\"name\":\"");
  put_text(f, tid == 0 ? "host" : "worker ");
  if (tid != 0) {
    put_number(f, tid);
  }
  put_text(f, "\"}}");
  begin(f, "M", tid);
  put_text(f, ",\"name\":\"thread_sort_index\",\"args\":{\"sort_index\":");
  put_number(f, tid);
  put_text(f, "}}");
}

static void put_slice(tdl_trace_file *f, const tdl_trace_event *e,
                      const char *before, const char *cat) {
  begin(f, "X", e->tid);
  put_ts(f, e->ts);
  put_dur(f, e->dur);
  put_cat(f, cat);
  put_label(f, before, e->task, "");
  if (e->text != NULL || e->call != 0) {
    put_text(f, ",\"args\":{");
    if (e->call != 0) {
      put_text(f, "\"call\":");
      put_number(f, e->call);
    }
    if (e->text != NULL) {
      put_text(f, e->call != 0 ? ",\"outcome\":\"" : "\"outcome\":\"");
      put_text(f, e->text);
      put_text(f, "\"");
    }
    put_text(f, "}");
  }
  end(f);
}

/* An arrow's beginning, a point on its way, or its end, in the slice there. */
static void put_flow(tdl_trace_file *f, const tdl_trace_event *e,
                     const char *phase) {
  if (e->call == 0) {
    return;
  }
  begin(f, phase, e->tid);
  put_ts(f, e->ts);
  put_cat(f, "call");
  put_id(f, e->call);
  put_label(f, "", e->task, "");
  if (phase[0] == 'f') {
    put_text(f, ",\"bp\":\"e\"");
  }
  end(f);
}

static void put_span(tdl_trace_file *f, const tdl_trace_event *e,
                     const char *phase, const char *cat, const char *after) {
  begin(f, phase, e->tid);
  put_ts(f, e->ts);
  put_cat(f, cat);
  put_id(f, e->call);
  put_label(f, "", e->task, after);
  end(f);
}

static void put_depth(tdl_trace_file *f, const tdl_trace_event *e) {
  begin(f, "C", 0);
  put_ts(f, e->ts);
  put_text(f, ",\"name\":\"queued\",\"args\":{\"calls\":");
  put_number(f, e->depth);
  put_text(f, "}");
  end(f);
}

static void put_mark(tdl_trace_file *f, const tdl_trace_event *e) {
  begin(f, "i", e->tid);
  put_ts(f, e->ts);
  put_text(f, ",\"s\":\"t\"");
  put_cat(f, e->kind == TDL_TRACE_MARK ? "worker" : "call");
  if (e->kind == TDL_TRACE_MARK) {
    put_text(f, ",\"name\":\"");
    put_text(f, e->text);
    put_text(f, "\"");
  } else {
    put_text(f, ",\"name\":\"");
    put_name(f, e->task);
    put_text(f, " ");
    put_text(f, e->text);
    put_text(f, "\",\"args\":{\"call\":");
    put_number(f, e->call);
    put_text(f, "}");
  }
  end(f);
}

void tdl_trace_file_put(tdl_trace_file *f, const tdl_trace_event *e) {
  if (f->error != 0) {
    return;
  }
  name_track(f, e->tid);
  switch (e->kind) {
  case TDL_TRACE_CALL:
    put_slice(f, e, "call ", "call");
    put_flow(f, e, "s");
    break;
  case TDL_TRACE_RUN:
    put_slice(f, e, "", "run");
    put_flow(f, e, "t");
    break;
  case TDL_TRACE_RESULT:
    put_slice(f, e, "result ", "result");
    put_flow(f, e, "f");
    break;
  case TDL_TRACE_DEPTH:
    put_depth(f, e);
    break;
  case TDL_TRACE_WAIT_BEGINS:
    put_span(f, e, "b", "wait", " waits");
    break;
  case TDL_TRACE_WAIT_ENDS:
    put_span(f, e, "e", "wait", " waits");
    break;
  case TDL_TRACE_GUEST_BEGINS:
    put_span(f, e, "b", "host", " in the host");
    break;
  case TDL_TRACE_GUEST_ENDS:
    put_span(f, e, "e", "host", " in the host");
    break;
  case TDL_TRACE_LOAD:
    begin(f, "X", e->tid);
    put_ts(f, e->ts);
    put_dur(f, e->dur);
    put_cat(f, "worker");
    put_text(f, ",\"name\":\"load\"");
    end(f);
    break;
  default:
    put_mark(f, e);
    break;
  }
}

/* --- the file -------------------------------------------------------------- */

static void fini(tdl_trace_file *f) {
  if (f->fd >= 0) {
    close(f->fd);
  }
  for (uint32_t i = 0; f->names != NULL && i < f->count; i++) {
    tdl_free(f->names[i]);
  }
  tdl_free(f->names);
  tdl_free(f->title);
  tdl_free(f->buffer);
  memset(f, 0, sizeof(*f));
  f->fd = -1;
}

int tdl_trace_file_open(tdl_trace_file *f, const char *path, const char *title,
                        const char *const *names, uint32_t count,
                        uint64_t start_ns) {
  int error;
  f->fd = -1;
  f->start = start_ns;
  f->pid = (int)getpid();
  f->title = tdl_strdup(title);
  f->buffer = tdl_alloc(TDL_TRACE_BUFFER_BYTES);
  f->names = tdl_calloc((count + 1) * sizeof(*f->names));
  f->count = f->names == NULL ? 0 : count;
  for (uint32_t i = 0; i < f->count; i++) {
    f->names[i] = tdl_strdup(names[i]);
    if (f->names[i] == NULL) {
      f->count = i;
    }
  }
  if (f->title == NULL || f->buffer == NULL || f->count != count) {
    fini(f);
    return TREADLE_ENOMEM;
  }
  f->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (f->fd < 0) {
    error = errno;
    fini(f);
    errno = error;
    return TREADLE_ESYSTEM;
  }
  put_text(f, "[\n{\"ph\":\"M\",\"pid\":");
  put_number(f, (uint64_t)f->pid);
  put_text(f, ",\"tid\":0,\"name\":\"process_name\",\"args\":{\"name\":\"");
  put_text(f, f->title);
  put_text(f, "\"}}");
  name_track(f, 0);
  tdl_trace_file_flush(f);
  return 0;
}

int tdl_trace_file_close(tdl_trace_file *f, uint64_t lost) {
  int error;
  begin(f, "M", 0);
  put_text(f, ",\"name\":\"process_labels\",\"args\":{\"labels\":\"");
  put_number(f, f->events);
  put_text(f, " events, ");
  put_number(f, lost);
  put_text(f, " lost\",\"events\":");
  put_number(f, f->events);
  put_text(f, ",\"lost\":");
  put_number(f, lost);
  put_text(f, "}}\n]\n");
  tdl_trace_file_flush(f);
  error = f->error;
  fini(f);
  return error;
}
