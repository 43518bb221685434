/* tdl_shared and tdl_counted: what was put in is found, by many threads at once;
** the last one to let go frees all, also in a long chain. */
#include "share/shared.h"

#include <pthread.h>
#include <string.h>

#include "check.h"
#include "codec/payload.h"
#include "config.h"
#include "treadle.h"

enum { THREADS = 8, TABLES = 40, LOOKS = 20000 };

static uint64_t next_random(uint64_t *state) { /* splitmix64 */
  uint64_t z = (*state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/* Table i has i * i elements and pairs: i and j -> i * 1000 + j, as "key j" and
** as j + 0.5; and under true the next table, the last one the first. */
static uint32_t count_of(uint32_t i) {
  return i * i;
}

static tdl_cell number_cell(double n) {
  tdl_cell cell = {0};
  cell.kind = TDL_CELL_NUMBER;
  cell.as.number = n;
  return cell;
}

static int add_number(tdl_shared *s, double n) {
  tdl_cell cell = number_cell(n);
  return tdl_shared_add(s, &cell);
}

static int add_table(tdl_shared *s, uint32_t i) {
  uint32_t n = count_of(i);
  tdl_cell cell = {0};
  int status = 0;
  tdl_shared_open(s, i);
  for (uint32_t j = 1; j <= n; j++) {
    status |= add_number(s, i * 1000.0 + j);
  }
  for (uint32_t j = 1; j <= n; j++) {
    char key[20];
    int length = snprintf(key, sizeof(key), "key %u", j);
    status |= tdl_shared_put_string(s, key, (size_t)length, &cell);
    status |= tdl_shared_add(s, &cell);
    status |= add_number(s, i * 1000.0 + j);
    status |= add_number(s, j + 0.5);
    status |= add_number(s, i * 1000.0 + j);
  }
  cell.kind = TDL_CELL_TRUE;
  status |= tdl_shared_add(s, &cell);
  cell.kind = TDL_CELL_TABLE;
  cell.as.table = (i + 1) % TABLES;
  status |= tdl_shared_add(s, &cell);
  tdl_shared_shape(s, i, n, n);
  return status;
}

static tdl_shared *make(void) {
  tdl_shared *s;
  uint32_t number;
  int status = tdl_shared_new(&s);
  for (uint32_t i = 0; i < TABLES; i++) {
    status |= tdl_shared_add_table(s, &number);
  }
  for (uint32_t i = 0; i < TABLES; i++) {
    status |= add_table(s, i);
  }
  status |= tdl_shared_finish(s);
  return status == 0 ? s : NULL;
}

/* Looks for one key, which is there if j is from 1 to the count. */
static int look(const tdl_shared *s, uint32_t i, uint32_t j, int how) {
  const tdl_shared_table *t = tdl_shared_table_of(s, i);
  tdl_cell key = number_cell(how == 0 ? j : j + 0.5);
  char text[20] = "";
  const tdl_cell *found;
  if (how == 2) {
    key.kind = TDL_CELL_STRING;
    key.length = (uint32_t)snprintf(text, sizeof(text), "key %u", j);
  }
  found = tdl_shared_find(s, t, &key, text);
  if (j < 1 || j > count_of(i)) {
    return found == NULL;
  }
  return found != NULL && found->kind == TDL_CELL_NUMBER &&
         found->as.number == i * 1000.0 + j;
}

static void finds_what_was_put_in_and_nothing_else(void) {
  tdl_shared *s = make();
  CHECK(s != NULL);
  for (uint32_t i = 0; i < TABLES; i++) {
    const tdl_shared_table *t = tdl_shared_table_of(s, i);
    tdl_cell key = {0};
    CHECK(t->array == count_of(i) && t->pairs == 2 * count_of(i) + 1);
    CHECK((t->mask != 0) == (t->pairs > TDL_SHARED_WHOLE_COUNT));
    for (uint32_t j = 0; j <= count_of(i) + 1; j++) {
      CHECK(look(s, i, j, 0) && look(s, i, j, 1) && look(s, i, j, 2));
    }
    key.kind = TDL_CELL_TRUE;
    CHECK(tdl_shared_find(s, t, &key, NULL)->as.table == (i + 1) % TABLES);
    key.kind = TDL_CELL_FALSE;
    CHECK(tdl_shared_find(s, t, &key, NULL) == NULL);
    key = number_cell(-1);
    CHECK(tdl_shared_find(s, t, &key, NULL) == NULL);
    key = number_cell(1e300);
    CHECK(tdl_shared_find(s, t, &key, NULL) == NULL);
  }
  tdl_counted_drop(&s->counted);
}

typedef struct reader {
  pthread_t thread;
  tdl_shared *shared; /* a reference */
  uint64_t seed;
  int failed;
} reader;

static void *read_at_random(void *ctx) {
  reader *r = ctx;
  for (int n = 0; n < LOOKS; n++) {
    uint32_t i = (uint32_t)(next_random(&r->seed) % TABLES);
    uint32_t j = (uint32_t)(next_random(&r->seed) % (count_of(i) + 2));
    if (next_random(&r->seed) % 16 == 0) {
      tdl_counted_hold(&r->shared->counted);
      r->failed |= !look(r->shared, i, j, (int)(n % 3));
      tdl_counted_drop(&r->shared->counted);
    }
    r->failed |= !look(r->shared, i, j, (int)(n % 3));
  }
  tdl_counted_drop(&r->shared->counted);
  return NULL;
}

static unsigned seed;

static void many_threads_read_it_and_the_last_one_frees_it(void) {
  reader readers[THREADS];
  tdl_shared *s = make();
  CHECK(s != NULL);
  for (int i = 0; i < THREADS; i++) {
    tdl_counted_hold(&s->counted);
    readers[i].shared = s;
    readers[i].seed = seed * 31u + (unsigned)i;
    readers[i].failed = 0;
    CHECK(pthread_create(&readers[i].thread, NULL, read_at_random,
                         &readers[i]) == 0);
  }
  tdl_counted_drop(&s->counted);
  for (int i = 0; i < THREADS; i++) {
    pthread_join(readers[i].thread, NULL);
    CHECK(!readers[i].failed);
  }
}

/* A shared table whose one value is a payload that refers to `inner`; takes over
** the reference. */
static tdl_shared *wrap(tdl_shared *inner) {
  static const uint8_t head[] = {
      TDL_WIRE_VERSION | TDL_WIRE_THINGS, 1, TDL_TAG_THING, 0, 0, 0, 0};
  static const uint8_t one[] = {1, 0, 0, 0};
  tdl_counted *thing = &inner->counted;
  tdl_cell cell = {0};
  tdl_shared *s;
  uint32_t number;
  if (tdl_shared_new(&s) != 0 || tdl_shared_add_table(s, &number) != 0 ||
      tdl_bytes_append(&s->payload, head, sizeof(head)) != 0 ||
      tdl_bytes_append(&s->payload, &thing, sizeof(thing)) != 0 ||
      tdl_bytes_append(&s->payload, one, sizeof(one)) != 0) {
    return NULL;
  }
  tdl_shared_open(s, number);
  if (tdl_shared_put_payload(s, &cell) != 0 || tdl_shared_add(s, &cell) != 0) {
    return NULL;
  }
  tdl_shared_shape(s, number, 1, 1);
  return tdl_shared_finish(s) == 0 ? s : NULL;
}

/* A chain that was freed by recursion would need a stack of 16 MiB and more. */
static void a_chain_of_a_hundred_thousand_goes_with_its_first(void) {
  tdl_shared *s = make();
  for (int i = 0; i < 100000; i++) {
    s = wrap(s);
    CHECK(s != NULL);
  }
  tdl_counted_drop(&s->counted);
}

static void is_freed_half_made(void) {
  tdl_shared *s;
  tdl_cell cell = {0};
  uint32_t number;
  CHECK(tdl_shared_new(&s) == 0);
  tdl_counted_drop(&s->counted);
  CHECK(tdl_shared_new(&s) == 0);
  CHECK(tdl_shared_add_table(s, &number) == 0);
  tdl_shared_open(s, number);
  CHECK(tdl_shared_put_string(s, "", 0, &cell) == 0);
  CHECK(tdl_shared_add(s, &cell) == 0);
  tdl_counted_drop(&s->counted);
}

static void an_empty_one_has_nothing(void) {
  tdl_shared *s;
  tdl_cell key = number_cell(1);
  uint32_t number;
  CHECK(tdl_shared_new(&s) == 0);
  CHECK(tdl_shared_add_table(s, &number) == 0);
  tdl_shared_open(s, number);
  tdl_shared_shape(s, number, 0, 0);
  CHECK(tdl_shared_finish(s) == 0);
  CHECK(tdl_shared_find(s, tdl_shared_table_of(s, 0), &key, NULL) == NULL);
  tdl_counted_drop(&s->counted);
}

int main(void) {
  seed = check_seed();
  RUN(finds_what_was_put_in_and_nothing_else);
  RUN(many_threads_read_it_and_the_last_one_frees_it);
  RUN(a_chain_of_a_hundred_thousand_goes_with_its_first);
  RUN(is_freed_half_made);
  RUN(an_empty_one_has_nothing);
  return check_any_failed;
}
