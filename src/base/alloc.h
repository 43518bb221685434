/* alloc: the allocation seam; all of treadle's own memory passes here.
** Threads: any.
** Owns:    what it returns is the caller's until tdl_free.
** Fails:   with NULL; a test build makes the n-th allocation fail. */
#ifndef TDL_BASE_ALLOC_H
#define TDL_BASE_ALLOC_H

#include <stddef.h>

void *tdl_alloc(size_t size);                       /* uninitialised */
void *tdl_calloc(size_t size);                      /* zeroed */
void *tdl_realloc(void *ptr, size_t size);          /* ptr may be NULL */
void *tdl_alloc_aligned(size_t align, size_t size); /* zeroed */
void tdl_free(void *ptr);                           /* any of them, or NULL */

/* Blocks that are allocated now: what a leak test compares. */
long tdl_alloc_live(void);

#endif
