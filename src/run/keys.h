/* tdl_key: which worker serves the calls of a key.
** Threads: any that keeps the pool.
** Owns:    nothing.
** Fails:   never. */
#ifndef TDL_KEYS_H
#define TDL_KEYS_H

#include <stddef.h>
#include <stdint.h>

struct treadle_pool;

/* What begins a key's hash: the type that Lua gives it. */
#define TDL_KEY_STRING 4

uint64_t tdl_key_hash(uint8_t type, const void *data, size_t size);

/* A slot from 1: the same in every state, and for as long as the bounds of the
** pool's size are; so it is one of those that always have a worker, or the
** first. */
uint32_t tdl_key_slot(const struct treadle_pool *pool, uint64_t hash);

#endif
