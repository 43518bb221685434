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
char *tdl_strdup(const char *text);                 /* a copy */
void tdl_free(void *ptr);                           /* any of them, or NULL */

/* Zeroed pages, which are there only once they are written. */
void *tdl_alloc_pages(size_t size);

/* The pages of a file, shared with all who have it; the second only to be read.
** NULL with errno. */
void *tdl_map_pages(int fd, size_t size);
const void *tdl_map_pages_to_read(int fd, size_t size);

void tdl_free_pages(void *ptr, size_t size); /* of either; ptr may be NULL */

/* Blocks that are allocated now: what a leak test compares. */
long tdl_alloc_live(void);

#ifdef TDL_TEST_ALLOC
typedef enum tdl_alloc_kind {
  TDL_ALLOC_OWN,  /* the blocks of this seam */
  TDL_ALLOC_STATE /* what the Lua states of workers ask for */
} tdl_alloc_kind;

/* Makes one request fail, 0: the next one; below 0: none. */
void tdl_alloc_fail_in(tdl_alloc_kind kind, long n);

/* How many requests are left before that; below 0 when it has failed. */
long tdl_alloc_left(tdl_alloc_kind kind);

/* What an allocator asks before it grants a request: 1 for the one that is to
** fail. */
int tdl_alloc_refused(tdl_alloc_kind kind);

/* From 1 to 0 no request of this thread fails, nor counts. */
void tdl_alloc_spare(int on);
#endif

#endif
