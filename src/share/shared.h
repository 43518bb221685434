/* tdl_shared: a tree of tables that is never changed again: all states read it.
** Threads: its maker alone until tdl_shared_finish; then any.
** Owns:    the bytes of its strings; a reference of every counted thing in it.
** Fails:   TREADLE_ENOMEM while it is made; may be dropped half made.
**
** R1  Tables are numbered in the order in which they were added; 0 is the root.
**     A table that occurs twice has one number, so cycles are cells like others.
** R2  A table's cells lie together: its elements 1 to `array`, none of them nil;
**     then a key and a value for each pair. Its maker adds them between one
**     tdl_shared_open and the next.
** R3  After tdl_shared_finish nothing in it is written but `refs`. Who got it by
**     a queue or an inbox sees all of it. */
#ifndef TDL_SHARE_SHARED_H
#define TDL_SHARE_SHARED_H

#include "../base/bytes.h"
#include "../base/counted.h"

typedef enum tdl_cell_kind {
  TDL_CELL_FALSE,
  TDL_CELL_TRUE,
  TDL_CELL_NUMBER,
  TDL_CELL_STRING,
  TDL_CELL_TABLE,
  TDL_CELL_PAYLOAD /* any other value, as a payload of its own */
} tdl_cell_kind;

typedef struct tdl_cell {
  uint32_t kind;
  uint32_t length; /* of a string */
  union {
    double number;
    uint64_t at;    /* STRING, PAYLOAD: its first byte */
    uint32_t table; /* its number */
  } as;
} tdl_cell;

typedef struct tdl_shared_table {
  size_t first; /* of its cells */
  size_t index; /* of its buckets, if it has a mask */
  uint32_t array, pairs;
  uint32_t length; /* what # says */
  uint32_t mask;
} tdl_shared_table;

/* A growing array. */
typedef struct tdl_shared_list {
  void *items;
  size_t count, cap;
} tdl_shared_list;

typedef struct tdl_shared {
  tdl_counted counted;     /* first */
  tdl_shared_list tables;  /* tdl_shared_table */
  tdl_shared_list cells;   /* tdl_cell */
  tdl_shared_list bytes;   /* uint8_t */
  tdl_shared_list buckets; /* uint32_t: number of a pair, + 1 */
  tdl_shared_list holders; /* uint64_t: cells whose payloads have references */
  tdl_bytes payload;       /* of the value that is being added */
} tdl_shared;

extern const tdl_kind tdl_shared_kind;

/* --- making: each answers 0 or TREADLE_ENOMEM ----------------------------- */

int tdl_shared_new(tdl_shared **out);

/* One more table, whose cells are not known yet. */
int tdl_shared_add_table(tdl_shared *shared, uint32_t *number);

/* Cells that are added from here on are that table's. */
void tdl_shared_open(tdl_shared *shared, uint32_t number);

int tdl_shared_add(tdl_shared *shared, const tdl_cell *cell);

/* Makes the cell of a string; that of the value in `payload`, with the
** references that it has. */
int tdl_shared_put_string(tdl_shared *shared, const char *s, size_t length,
                          tdl_cell *cell);
int tdl_shared_put_payload(tdl_shared *shared, tdl_cell *cell);

/* What of the open table's cells are elements, and what its length is. */
void tdl_shared_shape(tdl_shared *shared, uint32_t number, uint32_t array,
                      uint32_t length);

/* Nothing is added any more. */
int tdl_shared_finish(tdl_shared *shared);

/* --- reading -------------------------------------------------------------- */

static inline const tdl_shared_table *
tdl_shared_table_of(const tdl_shared *shared, uint32_t number) {
  return (const tdl_shared_table *)shared->tables.items + number;
}

/* Its elements, then its pairs. */
static inline const tdl_cell *tdl_shared_cells(const tdl_shared *shared,
                                               const tdl_shared_table *table) {
  return (const tdl_cell *)shared->cells.items + table->first;
}

static inline const uint8_t *tdl_shared_bytes(const tdl_shared *shared,
                                              const tdl_cell *cell) {
  return (const uint8_t *)shared->bytes.items + cell->as.at;
}

/* The payload of number `i` of those that refer to counted things; its bytes are
** not the caller's. */
tdl_bytes tdl_shared_payload(const tdl_shared *shared, size_t i);

/* The value under a key: a number, a boolean, or a string with the bytes `s`.
** NULL when there is none. */
const tdl_cell *tdl_shared_find(const tdl_shared *shared,
                                const tdl_shared_table *table,
                                const tdl_cell *key, const char *s);

#endif
