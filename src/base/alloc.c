#include "alloc.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifdef TDL_TEST_ALLOC
/* The test build counts blocks, and fails the one that a test asks for. */
static atomic_long live;
static atomic_long fail_in[] = {-1, -1};
static _Thread_local int is_spared;

void tdl_alloc_spare(int on) {
  is_spared = on;
}

void tdl_alloc_fail_in(tdl_alloc_kind kind, long n) {
  /* relaxed: a test's own counter */
  atomic_store_explicit(&fail_in[kind], n, memory_order_relaxed);
}

long tdl_alloc_left(tdl_alloc_kind kind) {
  /* relaxed: a test's own counter */
  return atomic_load_explicit(&fail_in[kind], memory_order_relaxed);
}

int tdl_alloc_refused(tdl_alloc_kind kind) {
  if (is_spared || tdl_alloc_left(kind) < 0) {
    return 0;
  }
  /* relaxed: a test's own counter */
  return atomic_fetch_sub_explicit(&fail_in[kind], 1, memory_order_relaxed) ==
         0;
}

static int refused(void) {
  return tdl_alloc_refused(TDL_ALLOC_OWN);
}

static void *counted(void *ptr) {
  if (ptr != NULL) { /* relaxed: a statistic */
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
  }
  return ptr;
}

static void uncount(const void *ptr) {
  if (ptr != NULL) { /* relaxed: a statistic */
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
  }
}

long tdl_alloc_live(void) {
  return atomic_load_explicit(&live, memory_order_relaxed); /* a statistic */
}
#else
#define refused()    0
#define counted(ptr) (ptr)
#define uncount(ptr) ((void)0)

long tdl_alloc_live(void) {
  return -1;
}
#endif

void *tdl_alloc(size_t size) {
  return refused() ? NULL : counted(malloc(size));
}

void *tdl_calloc(size_t size) {
  return refused() ? NULL : counted(calloc(1, size));
}

char *tdl_strdup(const char *text) {
  char *copy = refused() ? NULL : strdup(text);
  return counted(copy);
}

void *tdl_realloc(void *ptr, size_t size) {
  if (ptr == NULL) {
    return tdl_alloc(size);
  }
  return refused() ? NULL : realloc(ptr, size);
}

void *tdl_alloc_aligned(size_t align, size_t size) {
  void *ptr = NULL;
  if (refused() || posix_memalign(&ptr, align, size) != 0) {
    return NULL;
  }
  memset(ptr, 0, size);
  return counted(ptr);
}

static void *map(size_t size, int may, int flags, int fd) {
  void *ptr = MAP_FAILED;
  if (refused()) {
    errno = ENOMEM;
  } else {
    ptr = mmap(NULL, size, may, flags, fd, 0);
  }
  return counted(ptr == MAP_FAILED ? NULL : ptr);
}

void *tdl_alloc_pages(size_t size) {
  return map(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

void *tdl_map_pages(int fd, size_t size) {
  return map(size, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
}

const void *tdl_map_pages_to_read(int fd, size_t size) {
  return map(size, PROT_READ, MAP_SHARED, fd);
}

void tdl_free_pages(void *ptr, size_t size) {
  if (ptr != NULL) {
    uncount(ptr);
    munmap(ptr, size);
  }
}

void tdl_free(void *ptr) {
  uncount(ptr);
  free(ptr);
}
