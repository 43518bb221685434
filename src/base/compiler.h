/* compiler: the seam to the compiler and the processor.
** Threads: everything here is thread-safe.
** Owns:    nothing.
** Fails:   never. */
#ifndef TDL_BASE_COMPILER_H
#define TDL_BASE_COMPILER_H

#include <stddef.h>

#define TDL_LIKELY(x)   __builtin_expect(!!(x), 1)
#define TDL_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* The struct that holds `member` at `ptr`. */
#define TDL_CONTAINER(ptr, type, member)                                       \
  ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* Compiles a declaration, and keeps its text (NAME_text) for the FFI. */
#define TDL_DECLARE(name, ...)                                                 \
  typedef __VA_ARGS__ name;                                                    \
  static const char name##_text[] = #__VA_ARGS__;

/* Asks for the line of `p` (anything), to be written soon: it comes without a
** copy staying elsewhere, so that the write need not send for it again. */
static inline void tdl_prefetch(const void *p) {
#if defined(__x86_64__)
  __asm__ __volatile__("prefetchw %0" ::"m"(*(const char *)p));
#else
  __builtin_prefetch(p, 1);
#endif
}

/* Tells the processor (and a sibling thread on its core) that we spin. */
static inline void tdl_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("isb" ::: "memory");
#endif
}

#endif
