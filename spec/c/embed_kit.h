/* embed_kit: calls by treadle.h, and what becomes of them.
** Threads: the one that polls the loop.
** Owns:    nothing: a call is the library's once it is submitted.
** Fails:   a call that is refused leaves calls at 0. */
#ifndef TDL_SPEC_EMBED_KIT_H
#define TDL_SPEC_EMBED_KIT_H

#include "treadle.h"

#include <stdio.h>

/* What `keep` has seen: how many calls have ended, the status of the last one,
** its first numbers (a boolean is 0 or 1), its first string or error message. */
typedef struct outcome {
  int calls, status;
  double number[2];
  char text[200];
} outcome;

static inline void keep(int status, treadle_values *values, void *ctx) {
  outcome *o = ctx;
  treadle_value v;
  int n = 0;
  o->calls++;
  o->status = status;
  o->text[0] = 0;
  if (status != 0) {
    treadle_error e;
    treadle_read_error(status, values, &e);
    snprintf(o->text, sizeof(o->text), "%.*s", (int)e.message_length,
             e.message);
    return;
  }
  while (treadle_get(values, &v) == 0) {
    if (v.type == TREADLE_NUMBER && n < 2) {
      o->number[n++] = v.number;
    } else if (v.type == TREADLE_BOOLEAN && n < 2) {
      o->number[n++] = v.boolean;
    } else if (v.type == TREADLE_STRING && o->text[0] == 0) {
      snprintf(o->text, sizeof(o->text), "%.*s", (int)v.length, v.string);
    }
  }
}

static inline treadle_call *begin(treadle_pool *pool, const char *task) {
  treadle_call *call = NULL;
  treadle_call_new(pool, treadle_pool_task(pool, task), 0, &call);
  return call;
}

static inline treadle_call *begin_with(treadle_pool *pool, const char *task,
                                       double number) {
  treadle_call *call = NULL;
  treadle_call_new(pool, treadle_pool_task(pool, task), 1, &call);
  treadle_put_number(treadle_arguments(call), number);
  return call;
}

/* One call, until it has ended. */
static inline outcome run(treadle_loop *loop, treadle_call *call) {
  outcome out = {0};
  if (treadle_submit(call, -1, keep, &out) == 0) {
    while (out.calls == 0) {
      treadle_poll(loop, 1);
    }
  }
  return out;
}

static inline treadle_stats stats_of(const treadle_pool *pool) {
  treadle_stats s;
  treadle_pool_stats(pool, &s);
  return s;
}

#endif
