#include "hooks.h"

#include "../base/alloc.h"
#include "../codec/payload.h"
#include "../treadle.h"
#include "thread.h"

static void free_hook(tdl_counted *counted) {
  tdl_hook *hook = TDL_CONTAINER(counted, tdl_hook, counted);
  tdl_payload_clear(&hook->bytes);
  tdl_bytes_reset(&hook->bytes, NULL, 0);
  tdl_free(hook);
}

static const tdl_kind kind = {"hook", free_hook};

int tdl_hook_set(treadle_pool *pool, tdl_bytes *bytes) {
  tdl_hook *hook = tdl_calloc(sizeof(*hook)), *old;
  if (hook == NULL) {
    return TREADLE_ENOMEM;
  }
  tdl_counted_init(&hook->counted, &kind);
  hook->bytes = *bytes;
  tdl_bytes_init(bytes, NULL, 0);
  tdl_supervisor_lock();
  old = pool->hook;
  hook->version = old == NULL ? 1 : old->version + 1;
  pool->hook = hook;
  tdl_supervisor_unlock();
  if (old != NULL) {
    tdl_counted_drop(&old->counted);
  }
  for (uint32_t i = 0; i < tdl_pool_slots(pool); i++) {
    tdl_worker_ask(tdl_slot_worker(pool->slots[i]), TDL_ASK_HOOK);
  }
  return 0;
}

void tdl_hook_drop(treadle_pool *pool) {
  if (pool->hook != NULL) {
    tdl_counted_drop(&pool->hook->counted);
    pool->hook = NULL;
  }
}

tdl_hook *tdl_hook_get(treadle_pool *pool) {
  tdl_hook *hook;
  tdl_supervisor_lock();
  hook = pool->hook;
  if (hook != NULL) {
    tdl_counted_hold(&hook->counted);
  }
  tdl_supervisor_unlock();
  return hook;
}

int tdl_hook_is_taken(treadle_pool *pool) {
  tdl_hook *hook = tdl_hook_get(pool);
  uint32_t n = tdl_size_now(pool);
  int is_taken = 1;
  if (hook == NULL) {
    return 1;
  }
  for (uint32_t i = 0; i < n; i++) {
    /* [hooked] acquire: what the state does from there on is hooked */
    is_taken &= atomic_load_explicit(&pool->slots[i]->hooked,
                                     memory_order_acquire) == hook->version;
  }
  tdl_counted_drop(&hook->counted);
  return is_taken;
}

void tdl_hook_taken(tdl_worker *w, uint32_t version) {
  /* [hooked] release: see above */
  atomic_store_explicit(&w->slot->hooked, version, memory_order_release);
  tdl_thread_tell_renewed(w);
}

void tdl_hook_renew(tdl_worker *w) {
  tdl_hook *hook = tdl_hook_get(w->pool);
  if (hook != NULL) {
    tdl_counted_drop(&hook->counted);
    /* relaxed: a number of this thread's */
    atomic_store_explicit(&w->slot->hooked, 0, memory_order_relaxed);
    tdl_worker_ask(w, TDL_ASK_HOOK);
  }
}
