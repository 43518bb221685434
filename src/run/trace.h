/* tdl_trace: a recording of a pool: what its threads do, written to a file.
** Threads: start and stop are the home's; each function says who else.
** Owns:    its buffers and the file, while it records.
** Fails:   start with a treadle_status; later it counts what it has lost.
**
** Each thread that records has a buffer of its own. A full one goes to a thread
** that writes; a recorder that has filled buffers faster than that one writes
** them waits for it, so that memory is bounded and nothing is left out.
**
** R1  A pool has at most one, from its first recording until the last reference
**     is dropped; it serves the later ones, too. A recorded job has a reference
**     until it is home: its pool may be gone by then.
** R2  A buffer is whose has taken it out of its place, which is BUSY meanwhile. A
**     place is its thread's; who stops the recording takes what lies there, and
**     waits for a moment where it is BUSY. `common` is everybody's.
** R3  Numbers of calls rise, over all recordings: what is below `first` belongs to
**     one that is over. A call that was made before has no number: 0.
** R4  A recorded call leaves the queue once: it is started, or settled while it is
**     QUEUED, or refused, or withdrawn. So the depth is right. Time and depth are
**     one word: the counter's samples are ordered as the changes were.
** R5  What a thread does may lie between two recordings. So it asks whether there
**     is one, and whether that knows the call, once it has taken its place: none
**     ends or begins before that is put back. */
#ifndef TDL_TRACE_H
#define TDL_TRACE_H

#include <stdatomic.h>
#include <stdint.h>

#include "../job/job.h"

typedef struct tdl_trace tdl_trace;

#define TDL_TRACE_ANY UINT32_MAX

typedef enum tdl_trace_kind {
  TDL_TRACE_CALL,        /* a call was made, in [ts, ts + dur] */
  TDL_TRACE_RUN,         /* its code ran */
  TDL_TRACE_RESULT,      /* it came home */
  TDL_TRACE_DEPTH,       /* so many are queued from now on */
  TDL_TRACE_WAIT_BEGINS, /* it waits */
  TDL_TRACE_WAIT_ENDS,
  TDL_TRACE_GUEST_BEGINS, /* the home runs it */
  TDL_TRACE_GUEST_ENDS,
  TDL_TRACE_LOAD, /* a worker has loaded its module */
  TDL_TRACE_MARK, /* something happened: text */
  TDL_TRACE_END   /* something happened to a call: text */
} tdl_trace_kind;

typedef struct tdl_trace_event {
  uint64_t ts, dur; /* ns */
  uint64_t call;    /* its number, or 0 (R3) */
  const char *text; /* static: what happened, how it ended */
  uint32_t task;
  uint32_t depth;
  uint16_t tid; /* a worker, or 0: the home */
  uint8_t kind;
} tdl_trace_event;

/* What is in it; read it when it has stopped. */
typedef struct tdl_trace_result {
  uint64_t events, lost;
  int error; /* an errno of the file, or 0 */
} tdl_trace_result;

/* home; with one reference. NULL without memory. */
tdl_trace *tdl_trace_new(const struct treadle_loop *home);
void tdl_trace_hold(tdl_trace *trace);
void tdl_trace_drop(tdl_trace *trace);

/* home; records to that file from now on. `title` and the names of tasks, by
** number, are quoted as JSON has it. 0, TREADLE_ENOMEM, or TREADLE_ESYSTEM: errno
** says why. Nothing may be recording. */
int tdl_trace_start(tdl_trace *trace, const char *path, const char *title,
                    const char *const *names, uint32_t count);
int tdl_trace_is_on(const tdl_trace *trace);

/* home; writes what is left. Nobody need have told the recorders. */
void tdl_trace_stop(tdl_trace *trace, tdl_trace_result *out);

/* submitter; its job is about to be queued. The second: it is not, after all. */
void tdl_trace_call(tdl_trace *trace, tdl_job *job, uint64_t since_ns);
void tdl_trace_withdrawn(tdl_job *job);

/* home; a job that was recorded is back: R1's reference ends. */
void tdl_trace_home(tdl_job *job, int is_told);

/* who starts it: worker `tid`, or 0 the home; or any other thread,
** TDL_TRACE_ANY. The call, if it is recorded, is not queued any more (R4). */
void tdl_trace_left_queue(tdl_trace *trace, const tdl_job *job, uint32_t tid);

/* worker, or the home; its own events. What began before the recording is left
** out. */
void tdl_trace_put(tdl_trace *trace, const tdl_trace_event *event);

/* any thread; the same for what is rare. */
void tdl_trace_put_common(tdl_trace *trace, const tdl_trace_event *event);

/* The call's number in this recording, or 0 (R3). */
uint64_t tdl_trace_number(const tdl_trace *trace, const tdl_job *job);

#endif
