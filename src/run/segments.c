#include "segments.h"

#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "../config.h"

/* A reader in a signal handler cannot wait for a writer, which may be the very
** thread that it interrupted. So it reads a copy and looks whether somebody
** wrote meanwhile (a sequence lock); if so, it does not know.
**
** G1  `version` is odd while the table is written. It only rises.
** G2  All words are atomic. Whoever reads a word of a new table sees, by its
**     acquire, the odd version that was stored before that word. */
static struct {
  pthread_mutex_t lock; /* guards what writers alone use, and the writing */
  unsigned long long adds, subs; /* the linker's counts when it was read */
  int is_read;
  atomic_uint version;
  atomic_int count; /* below 0: there were more than the table holds */
  _Atomic uintptr_t first[TDL_INTERRUPT_SEGMENTS];
  _Atomic uintptr_t end[TDL_INTERRUPT_SEGMENTS];
} table = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void add_locked(uintptr_t first, uintptr_t end) {
  /* relaxed: only writers, which hold the lock, change it */
  int n = atomic_load_explicit(&table.count, memory_order_relaxed);
  if (n < 0 || n == TDL_INTERRUPT_SEGMENTS) {
    n = -2;
  } else {
    /* [segments-word] release: after the odd version (G2) */
    atomic_store_explicit(&table.first[n], first, memory_order_release);
    atomic_store_explicit(&table.end[n], end, memory_order_release);
  }
  /* [segments-word] release: as above */
  atomic_store_explicit(&table.count, n + 1, memory_order_release);
}

static void begin_locked(void) {
  /* relaxed: made visible by the words that follow (G2) */
  atomic_fetch_add_explicit(&table.version, 1, memory_order_relaxed);
  /* [segments-word] release: after the odd version (G2) */
  atomic_store_explicit(&table.count, 0, memory_order_release);
}

static int on_object(struct dl_phdr_info *info, size_t size, void *ctx) {
  int *begun = ctx;
  (void)size;
  if (!*begun) {
    if (table.is_read && table.adds == info->dlpi_adds &&
        table.subs == info->dlpi_subs) {
      return 1; /* nothing has changed */
    }
    *begun = 1;
    table.is_read = 1;
    table.adds = info->dlpi_adds;
    table.subs = info->dlpi_subs;
    begin_locked();
  }
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *p = &info->dlpi_phdr[i];
    if (p->p_type == PT_LOAD && (p->p_flags & PF_X)) {
      uintptr_t first = info->dlpi_addr + p->p_vaddr;
      add_locked(first, first + p->p_memsz);
    }
  }
  return 0;
}

void tdl_segments_refresh(void) {
  int begun = 0;
  pthread_mutex_lock(&table.lock);
  dl_iterate_phdr(on_object, &begun);
  if (begun) {
    /* [segments-version] release: after all words */
    atomic_fetch_add_explicit(&table.version, 1, memory_order_release);
  }
  pthread_mutex_unlock(&table.lock);
}

int tdl_segments_find(const void *place) {
  uintptr_t at = (uintptr_t)place;
  /* [segments-version] acquire: before the words */
  unsigned version = atomic_load_explicit(&table.version, memory_order_acquire);
  /* [segments-word] acquire: G2; so for each word below */
  int count = atomic_load_explicit(&table.count, memory_order_acquire);
  int found = 0;
  for (int i = 0; i < count && found == 0; i++) {
    if (at >= atomic_load_explicit(&table.first[i], memory_order_acquire) &&
        at < atomic_load_explicit(&table.end[i], memory_order_acquire)) {
      found = i + 1;
    }
  }
  /* relaxed: the acquires before it keep it last */
  if (version % 2 != 0 || count <= 0 ||
      atomic_load_explicit(&table.version, memory_order_relaxed) != version) {
    return -1;
  }
  return found;
}
