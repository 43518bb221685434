/* tdl_trace_file: events as JSON, in the array form of the Trace Event Format,
** which may lack its end: what a process that died has written can be read.
** https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
** Threads: one at a time.
** Owns:    the file; copies of the names.
** Fails:   open with a treadle_status; afterwards `error` says it. */
#ifndef TDL_TRACE_FILE_H
#define TDL_TRACE_FILE_H

#include "../config.h"
#include "trace.h"

typedef struct tdl_trace_file {
  int fd;
  int error;      /* an errno: nothing more is written */
  uint64_t start; /* ns: the zero of its times */
  uint64_t events;
  int pid;
  char *title;
  char **names;
  uint32_t count;
  char *buffer;
  size_t used;
  uint64_t seen[TDL_POOL_MAX_WORKERS / 64 + 1]; /* tracks that have a name */
} tdl_trace_file;

/* `file` is zeroed. 0, TREADLE_ENOMEM, or TREADLE_ESYSTEM with errno. */
int tdl_trace_file_open(tdl_trace_file *file, const char *path,
                        const char *title, const char *const *names,
                        uint32_t count, uint64_t start_ns);
void tdl_trace_file_put(tdl_trace_file *file, const tdl_trace_event *event);

/* What was put is in the file, whole lines. */
void tdl_trace_file_flush(tdl_trace_file *file);

/* An errno, or 0: all of it is there. */
int tdl_trace_file_close(tdl_trace_file *file, uint64_t lost);

#endif
