#include "keys.h"

#include "pool.h"
#include "upcall.h"

/* FNV-1a, https://www.rfc-editor.org/rfc/rfc9923 */
static uint64_t hash_bytes(const void *data, size_t size, uint64_t hash) {
  const uint8_t *at = data;
  for (size_t i = 0; i < size; i++) {
    hash = (hash ^ at[i]) * 0x100000001b3u;
  }
  return hash;
}

uint64_t tdl_key_hash(uint8_t type, const void *data, size_t size) {
  return hash_bytes(data, size, hash_bytes(&type, 1, 0xcbf29ce484222325u));
}

/* Lamping and Veach, "A fast, minimal memory, consistent hash algorithm": of n
** slots one; with n + 1 of them, only each (n + 1)th key changes its slot. */
static uint32_t jump(uint64_t key, uint32_t slots) {
  int64_t slot = -1, next = 0;
  while (next < slots) {
    slot = next;
    key = key * 2862933555777941757u + 1;
    next = (int64_t)((double)(slot + 1) *
                     (2147483648.0 / (double)((key >> 33) + 1)));
  }
  return (uint32_t)slot;
}

uint32_t tdl_key_slot(const treadle_pool *pool, uint64_t hash) {
  uint32_t slots =
      pool->far == NULL ? tdl_size_min(pool) : tdl_upcall_min_size(pool->far);
  return jump(hash, slots > 0 ? slots : 1) + 1;
}
