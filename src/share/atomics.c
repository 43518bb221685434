/* Lists of waiters by address: a table of as many lists as there are guards.
** Addresses that meet in a list only wait for each other's guard. */
#include "atomics.h"

#include <stdatomic.h>

#include "../base/stall.h"
#include "../config.h"
#include "guard.h"

/* --- operations ----------------------------------------------------------- */

/* A1. The memory is the buffer's: aligned, and never accessed as anything but
** integers while somebody uses these. */
#define OPERATIONS(name, type)                                                 \
  static type name##_load(void *p) {                                           \
    return atomic_load_explicit((_Atomic type *)p, memory_order_seq_cst);      \
  }                                                                            \
  static void name##_store(void *p, type v) {                                  \
    atomic_store_explicit((_Atomic type *)p, v, memory_order_seq_cst);         \
  }                                                                            \
  static type name##_add(void *p, type v) {                                    \
    return atomic_fetch_add_explicit((_Atomic type *)p, v,                     \
                                     memory_order_seq_cst);                    \
  }                                                                            \
  static type name##_sub(void *p, type v) {                                    \
    return atomic_fetch_sub_explicit((_Atomic type *)p, v,                     \
                                     memory_order_seq_cst);                    \
  }                                                                            \
  static type name##_band(void *p, type v) {                                   \
    return atomic_fetch_and_explicit((_Atomic type *)p, v,                     \
                                     memory_order_seq_cst);                    \
  }                                                                            \
  static type name##_bor(void *p, type v) {                                    \
    return atomic_fetch_or_explicit((_Atomic type *)p, v,                      \
                                    memory_order_seq_cst);                     \
  }                                                                            \
  static type name##_bxor(void *p, type v) {                                   \
    return atomic_fetch_xor_explicit((_Atomic type *)p, v,                     \
                                     memory_order_seq_cst);                    \
  }                                                                            \
  static type name##_exchange(void *p, type v) {                               \
    return atomic_exchange_explicit((_Atomic type *)p, v,                      \
                                    memory_order_seq_cst);                     \
  }                                                                            \
  static type name##_compare_exchange(void *p, type expected, type v) {        \
    atomic_compare_exchange_strong_explicit((_Atomic type *)p, &expected, v,   \
                                            memory_order_seq_cst,              \
                                            memory_order_seq_cst);             \
    return expected;                                                           \
  }                                                                            \
  TDL_DECLARE(                                                                 \
      name##_functions, struct {                                               \
        type (*load)(void *p);                                                 \
        void (*store)(void *p, type v);                                        \
        type (*add)(void *p, type v);                                          \
        type (*sub)(void *p, type v);                                          \
        type (*band)(void *p, type v);                                         \
        type (*bor)(void *p, type v);                                          \
        type (*bxor)(void *p, type v);                                         \
        type (*exchange)(void *p, type v);                                     \
        type (*compare_exchange)(void *p, type expected, type v);              \
      })                                                                       \
  static const name##_functions name = {                                       \
      name##_load, name##_store,    name##_add,                                \
      name##_sub,  name##_band,     name##_bor,                                \
      name##_bxor, name##_exchange, name##_compare_exchange};

OPERATIONS(i8, int8_t)
OPERATIONS(u8, uint8_t)
OPERATIONS(i16, int16_t)
OPERATIONS(u16, uint16_t)
OPERATIONS(i32, int32_t)
OPERATIONS(u32, uint32_t)
OPERATIONS(i64, int64_t)
OPERATIONS(u64, uint64_t)

const tdl_atomics_type tdl_atomics_types[] = {
    {"int8_t", i8_functions_text, &i8},
    {"uint8_t", u8_functions_text, &u8},
    {"int16_t", i16_functions_text, &i16},
    {"uint16_t", u16_functions_text, &u16},
    {"int32_t", i32_functions_text, &i32},
    {"uint32_t", u32_functions_text, &u32},
    {"int64_t", i64_functions_text, &i64},
    {"uint64_t", u64_functions_text, &u64},
    {NULL, NULL, NULL}};

/* --- waiting -------------------------------------------------------------- */

typedef struct list {
  _Alignas(TDL_LINE_BYTES) tdl_guard guard;
  tdl_waiters waiters; /* `offer` is the address */
} list;

static list lists[TDL_ATOMICS_LISTS];

static list *list_of(const void *address) {
  /* Fibonacci hashing: the upper bits have them all */
  uint64_t h = (uint64_t)(uintptr_t)address * UINT64_C(0x9e3779b97f4a7c15);
  return &lists[(h >> 32) % TDL_ATOMICS_LISTS];
}

static uint64_t look(void *address, size_t bytes) {
  switch (bytes) {
  case 1:
    return u8_load(address);
  case 2:
    return u16_load(address);
  case 4:
    return u32_load(address);
  default:
    return u64_load(address);
  }
}

int tdl_atomics_wait(void *address, size_t bytes, uint64_t expected,
                     tdl_waiter *waiter) {
  list *l = list_of(address);
  uint64_t mask = UINT64_MAX >> (64 - 8 * bytes);
  int differs;
  tdl_guard_lock(&l->guard);
  differs = look(address, bytes) != (expected & mask); /* A2 */
  if (!differs) {
    TDL_STALL();
    waiter->offer = address;
    tdl_waiters_add(&l->waiters, waiter);
  }
  tdl_guard_unlock(&l->guard);
  return differs;
}

void tdl_atomics_leave(tdl_waiter *waiter) {
  list *l = list_of(waiter->offer);
  tdl_guard_lock(&l->guard);
  tdl_waiters_remove(waiter);
  tdl_guard_unlock(&l->guard);
}

uint32_t tdl_atomics_notify(void *address, uint32_t n) {
  list *l = list_of(address);
  tdl_waiter *granted = NULL, **end = &granted, *next;
  uint32_t count = 0;
  tdl_guard_lock(&l->guard); /* A2 */
  for (tdl_waiter *w = l->waiters.first; w != NULL && count < n; w = next) {
    next = w->next;
    if (w->offer == address && tdl_waiter_grant(w, NULL)) {
      *end = w;
      end = &w->next;
      count++;
    }
  }
  tdl_guard_unlock(&l->guard);
  tdl_waiters_tell(granted);
  return count;
}
