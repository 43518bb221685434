#include "stamp.h"

#ifdef TDL_STAMPS

#include "alloc.h"

_Thread_local tdl_trace *tdl_trace_own;

static _Atomic(tdl_trace *) newest;

tdl_trace *tdl_trace_new(void) {
  tdl_trace *trace = tdl_calloc(sizeof(*trace));
  if (trace == NULL) {
    return NULL;
  }
  /* relaxed: the exchange looks again */
  trace->next = atomic_load_explicit(&newest, memory_order_relaxed);
  /* [trace-list] release: the trace, and those before it */
  while (!atomic_compare_exchange_weak_explicit(&newest, &trace->next, trace,
                                                memory_order_release,
                                                memory_order_relaxed)) {
  }
  tdl_trace_own = trace;
  return trace;
}

const tdl_trace *tdl_traces(void) {
  /* [trace-list] acquire: pairs with tdl_trace_new */
  return atomic_load_explicit(&newest, memory_order_acquire);
}

#endif
