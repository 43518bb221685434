/* The rings that a worker's process shares with its parent: what a record is,
** what is refused, and that nobody sleeps while there is one. A hostile child is
** one that writes what it likes into what it can reach: all of the region. */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/compiler.h"
#include "check.h"
#include "config.h"
#include "link/link.h"
#include "treadle.h"

#define MOST   (1u << 20)
#define GRAIN  TDL_LINK_GRAIN_BYTES
#define RING   TDL_LINK_RING_BYTES
#define HEAD   ((uint64_t)sizeof(tdl_record))
#define INLINE (RING / 8) /* what is longer lies in the bulk */

/* A shrunk build is one that runs where everything is slow. */
#ifdef TDL_TEST_ALLOC
#define RECORDS 50000u
#else
#define RECORDS 1000000u
#endif

/* Both ends in this process. */
typedef struct pair {
  tdl_link parent, child;
} pair;

static int open_pair(pair *p, size_t most) {
  memset(p, 0, sizeof(*p));
  return tdl_link_open(most, &p->parent) == 0 &&
         tdl_link_join(dup(p->parent.region.fd), &p->child) == 0;
}

/* For the next child, which is this process again. */
static int renew(pair *p) {
  tdl_link_close(&p->child);
  return tdl_link_reset(&p->parent) == 0 &&
         tdl_link_join(dup(p->parent.region.fd), &p->child) == 0;
}

static void close_pair(pair *p) {
  tdl_link_close(&p->child);
  tdl_link_close(&p->parent);
}

static uint64_t random_of(uint64_t *state) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return *state >> 33;
}

static uint64_t round_up(uint64_t n) {
  return (n + GRAIN - 1) / GRAIN * GRAIN;
}

static uint64_t got(const tdl_link_reader *r) {
  return atomic_load_explicit(&r->got, memory_order_relaxed); /* one thread */
}

/* Bytes that tell which record they are of. */
static void fill(uint8_t *bytes, size_t n, uint32_t number) {
  for (size_t i = 0; i < n; i++) {
    bytes[i] = (uint8_t)(number * 31 + i);
  }
}

static int is_filled(const uint8_t *bytes, size_t n, uint32_t number) {
  for (size_t i = 0; i < n; i++) {
    if (bytes[i] != (uint8_t)(number * 31 + i)) {
      return 0;
    }
  }
  return 1;
}

static uint8_t *scratch(void) {
  static uint8_t bytes[2 * MOST];
  return bytes;
}

static int put_number(tdl_link_writer *w, uint32_t number, uint32_t len) {
  tdl_record head = {.kind = (uint8_t)(1 + number % 254),
                     .len = len,
                     .status = (int16_t) - (int)(number % 100),
                     .ticket = number,
                     .task = ~number,
                     .when = (uint64_t)number << 32 | len};
  fill(scratch(), len, number);
  return tdl_link_put(w, &head, scratch());
}

/* Looks; 1 when it is that record, all of it. */
static int looks_like(tdl_link_reader *r, uint32_t number, tdl_record *head) {
  const uint8_t *data = NULL;
  return tdl_link_ready(r) && tdl_link_look(r, head, &data) == 1 &&
         head->kind == 1 + number % 254 && head->ticket == number &&
         head->status == -(int)(number % 100) && head->task == ~number &&
         head->when == ((uint64_t)number << 32 | head->len) &&
         is_filled(data, head->len, number);
}

static int takes(tdl_link_reader *r, uint32_t number) {
  tdl_record head;
  if (!looks_like(r, number, &head)) {
    return 0;
  }
  tdl_link_take(r, &head);
  return 1;
}

static int is_empty(tdl_link_reader *r) {
  const uint8_t *data;
  tdl_record head;
  return !tdl_link_ready(r) && tdl_link_look(r, &head, &data) == 0;
}

/* --- records --------------------------------------------------------------- */

static void both_directions_begin_empty_and_keep_apart(void) {
  pair p;
  CHECK(open_pair(&p, MOST));
  CHECK(is_empty(&p.parent.in) && is_empty(&p.child.in));
  CHECK(put_number(&p.parent.out, 1, 10) == 1);
  CHECK(is_empty(&p.parent.in));
  CHECK(put_number(&p.child.out, 2, 20) == 1);
  CHECK(takes(&p.child.in, 1) && takes(&p.parent.in, 2));
  CHECK(is_empty(&p.parent.in) && is_empty(&p.child.in));
  close_pair(&p);
}

/* Of every length around each border, many laps; some lie for a while. */
static void records_come_in_order_through_many_laps(void) {
  static const uint32_t lengths[] = {0,
                                     1,
                                     GRAIN / 2 - 1,
                                     GRAIN / 2,
                                     GRAIN / 2 + 1,
                                     GRAIN,
                                     3 * GRAIN / 2,
                                     INLINE - 1,
                                     INLINE,
                                     INLINE + 1,
                                     2 * INLINE,
                                     RING,
                                     MOST};
  uint64_t seed = check_seed();
  uint32_t put = 0, taken = 0;
  pair p;
  CHECK(open_pair(&p, MOST));
  while (p.parent.out.put < 40 * (uint64_t)RING) {
    uint32_t len = random_of(&seed) % 4 == 0
                       ? lengths[random_of(&seed) % 13]
                       : (uint32_t)(random_of(&seed) % INLINE);
    int done = put_number(&p.parent.out, put, len);
    CHECK(done == 0 || done == 1);
    put += (uint32_t)done;
    for (uint64_t n = done ? random_of(&seed) % 3 : 1 + random_of(&seed) % 9;
         n > 0 && taken < put; n--) {
      CHECK(takes(&p.child.in, taken++));
    }
    CHECK(taken < put || is_empty(&p.child.in));
  }
  while (taken < put) {
    CHECK(takes(&p.child.in, taken++));
  }
  CHECK(is_empty(&p.child.in) && put > 100);
  close_pair(&p);
}

static void a_look_takes_nothing(void) {
  tdl_record head;
  pair p;
  CHECK(open_pair(&p, MOST));
  CHECK(put_number(&p.parent.out, 1, 5) == 1);
  CHECK(put_number(&p.parent.out, 2, INLINE + 5) == 1);
  for (int i = 0; i < 3; i++) {
    CHECK(looks_like(&p.child.in, 1, &head));
    CHECK(!tdl_link_has_taken(&p.parent.out, GRAIN));
  }
  tdl_link_take(&p.child.in, &head);
  CHECK(tdl_link_has_taken(&p.parent.out, GRAIN));
  CHECK(!tdl_link_has_taken(&p.parent.out, p.parent.out.put));
  CHECK(takes(&p.child.in, 2));
  CHECK(tdl_link_has_taken(&p.parent.out, p.parent.out.put));
  close_pair(&p);
}

static void a_full_ring_takes_nothing_and_goes_on_with_room(void) {
  uint32_t put = 0, taken = 0;
  pair p;
  CHECK(open_pair(&p, MOST));
  for (int lap = 0; lap < 3; lap++) {
    tdl_link_writer before;
    int done;
    while ((done = put_number(&p.parent.out, put, GRAIN)) == 1) {
      put++;
    }
    CHECK(done == 0 && put - taken > RING / (3 * GRAIN));
    before = p.parent.out;
    CHECK(put_number(&p.parent.out, put, GRAIN) == 0);
    CHECK(memcmp(&before, &p.parent.out, sizeof(before)) == 0);
    for (int i = 0; i < 5; i++) { /* one out, one in */
      CHECK(takes(&p.child.in, taken++));
      CHECK(put_number(&p.parent.out, put++, GRAIN) == 1);
      CHECK(put_number(&p.parent.out, put, GRAIN) == 0);
    }
    while (taken < put) {
      CHECK(takes(&p.child.in, taken++));
    }
    CHECK(is_empty(&p.child.in));
  }
  close_pair(&p);
}

static void long_payloads_fill_their_memory_and_begin_anew(void) {
  pair p;
  uint32_t n = MOST / 4, put = 0, taken = 0;
  CHECK(open_pair(&p, MOST));
  for (int lap = 0; lap < 3; lap++) {
    while (put_number(&p.parent.out, put, n) == 1) {
      put++;
    }
    CHECK(put - taken == 4);
    CHECK(put_number(&p.parent.out, put, 1) == 1); /* short ones still go */
    put++;
    CHECK(takes(&p.child.in, taken++));
    CHECK(put_number(&p.parent.out, put, n) == 0); /* N4: in order */
    while (taken < put) {
      CHECK(takes(&p.child.in, taken++));
    }
    CHECK(put_number(&p.parent.out, put, MOST) == 1);
    put++;
    CHECK(takes(&p.child.in, taken++));
  }
  close_pair(&p);
}

static void what_is_written_where_it_was_lent_is_not_copied(void) {
  tdl_record head = {.kind = 1, .len = INLINE + 1}, copy;
  const uint8_t *seen;
  uint8_t *data = NULL;
  pair p;
  CHECK(open_pair(&p, MOST));
  CHECK(put_number(&p.child.out, 1, INLINE + 9) == 1);
  CHECK(tdl_link_lend(&p.child.out, &data) ==
        p.child.out.bulk_bytes - round_up(INLINE + 9));
  fill(data, head.len, 2);
  CHECK(put_number(&p.child.out, 3, GRAIN) == 1); /* a short one meanwhile */
  CHECK(takes(&p.parent.in, 1) && takes(&p.parent.in, 3));
  CHECK(tdl_link_put(&p.child.out, &head, data) == 1);
  CHECK(put_number(&p.child.out, 4, INLINE + 2) == 1); /* and one behind it */
  CHECK(tdl_link_look(&p.parent.in, &copy, &seen) == 1);
  CHECK(seen - p.parent.in.bulk == data - p.child.out.bulk);
  CHECK(copy.len == head.len && is_filled(seen, copy.len, 2));
  tdl_link_take(&p.parent.in, &copy);
  CHECK(takes(&p.parent.in, 4) && is_empty(&p.parent.in));
  close_pair(&p);
}

static void what_was_lent_may_be_left_or_hold_a_short_payload(void) {
  tdl_record head = {.kind = 1, .len = INLINE}, copy;
  const uint8_t *seen;
  uint8_t *data = NULL;
  pair p;
  CHECK(open_pair(&p, MOST));
  CHECK(tdl_link_lend(&p.child.out, &data) == p.child.out.bulk_bytes);
  fill(data, head.len, 1);
  CHECK(tdl_link_put(&p.child.out, &head, data) == 1);
  memset(data, 0, head.len); /* it was short: it lies in the ring */
  CHECK(tdl_link_look(&p.parent.in, &copy, &seen) == 1);
  CHECK(copy.len == INLINE && is_filled(seen, copy.len, 1));
  tdl_link_take(&p.parent.in, &copy);
  CHECK(put_number(&p.child.out, 2, MOST) == 1 && takes(&p.parent.in, 2));
  close_pair(&p);
}

/* All that a full ring has taken was put, and nothing of it is copied twice. */
static void what_was_lent_waits_for_room_in_the_ring(void) {
  tdl_record head = {.kind = 1, .len = MOST}, copy;
  uint32_t put = 0, taken = 0;
  const uint8_t *seen;
  uint8_t *data = NULL;
  pair p;
  CHECK(open_pair(&p, MOST));
  CHECK(tdl_link_lend(&p.child.out, &data) >= MOST);
  fill(data, MOST, 7);
  while (put_number(&p.child.out, put, 8) == 1) {
    put++;
  }
  CHECK(tdl_link_put(&p.child.out, &head, data) == 0);
  while (taken < put) {
    CHECK(takes(&p.parent.in, taken++));
  }
  CHECK(tdl_link_put(&p.child.out, &head, data) == 1);
  CHECK(tdl_link_look(&p.parent.in, &copy, &seen) == 1);
  CHECK(copy.len == MOST && is_filled(seen, MOST, 7));
  close_pair(&p);
}

static void what_is_shown_is_not_copied_and_holds_nobody_up(void) {
  static uint8_t memory[2 * MOST], mapping[2 * MOST];
  tdl_record head = {.kind = 1, .len = MOST}, copy;
  const uint8_t *seen;
  pair p;
  CHECK(open_pair(&p, MOST));
  p.parent.out.shown = (tdl_link_shown){memory, sizeof(memory)};
  p.child.in.shown = (tdl_link_shown){mapping, sizeof(mapping)};
  CHECK(put_number(&p.parent.out, 1, MOST) == 1); /* the bulk is full */
  CHECK(put_number(&p.parent.out, 2, INLINE + 1) == 0);
  CHECK(tdl_link_put(&p.parent.out, &head, memory + 64) == 1);
  CHECK(tdl_link_put(&p.parent.out, &head, memory + MOST) == 1);
  CHECK(put_number(&p.parent.out, 3, 10) == 1);
  CHECK(takes(&p.child.in, 1));
  CHECK(tdl_link_look(&p.child.in, &copy, &seen) == 1);
  CHECK(copy.len == MOST && seen == mapping + 64);
  tdl_link_take(&p.child.in, &copy);
  CHECK(tdl_link_look(&p.child.in, &copy, &seen) == 1);
  CHECK(copy.len == MOST && seen == mapping + MOST);
  tdl_link_take(&p.child.in, &copy);
  CHECK(takes(&p.child.in, 3) && is_empty(&p.child.in));
  close_pair(&p);
}

/* The parent is shown nothing; and nobody looks beyond what he is shown. */
static void what_is_not_shown_is_refused(void) {
  static uint8_t memory[MOST];
  tdl_record head = {.kind = 1, .len = INLINE + 1}, copy;
  const uint8_t *seen;
  pair p;
  CHECK(open_pair(&p, MOST));
  p.child.out.shown = (tdl_link_shown){memory, sizeof(memory)};
  CHECK(tdl_link_put(&p.child.out, &head, memory) == 1);
  CHECK(tdl_link_look(&p.parent.in, &copy, &seen) == TREADLE_EINVAL);
  p.parent.in.shown = (tdl_link_shown){memory, INLINE};
  CHECK(tdl_link_look(&p.parent.in, &copy, &seen) == TREADLE_EINVAL);
  p.parent.in.shown.bytes = INLINE + 1;
  CHECK(tdl_link_look(&p.parent.in, &copy, &seen) == 1);
  close_pair(&p);
}

static void what_never_fits_is_refused(void) {
  tdl_link_writer before;
  tdl_record head = {.kind = 1};
  pair p;
  CHECK(open_pair(&p, MOST));
  before = p.parent.out;
  head.len = (uint32_t)before.bulk_bytes + 1;
  CHECK(tdl_link_put(&p.parent.out, &head, scratch()) == TREADLE_EPAYLOAD);
  head.len = UINT32_MAX;
  CHECK(tdl_link_put(&p.parent.out, &head, scratch()) == TREADLE_EPAYLOAD);
  CHECK(memcmp(&before, &p.parent.out, sizeof(before)) == 0);
  CHECK(is_empty(&p.child.in));
  head.len = (uint32_t)before.bulk_bytes;
  CHECK(tdl_link_put(&p.parent.out, &head, scratch()) == 1);
  close_pair(&p);
}

/* N2: each word of a payload is the stamp of the record that will lie there in
** the next lap. None is taken for one. */
static void a_payload_that_looks_like_stamps_is_none(void) {
  uint64_t seed = check_seed(), words[INLINE / 8];
  uint32_t number = 0;
  pair p;
  CHECK(open_pair(&p, MOST));
  while (p.parent.out.put < 40 * (uint64_t)RING) {
    tdl_record head = {.kind = 1, .ticket = ++number}, copy;
    const uint8_t *data;
    uint64_t at = p.parent.out.put, bytes;
    head.len = 8 * (uint32_t)(random_of(&seed) % (INLINE / 8));
    bytes = round_up(HEAD + head.len);
    if (bytes > RING - at % RING) {
      at += RING - at % RING;
    }
    for (uint64_t i = 0; i < head.len / 8; i++) {
      words[i] = at + HEAD + 8 * i + RING + 1;
    }
    CHECK(tdl_link_put(&p.parent.out, &head, words) == 1);
    CHECK(tdl_link_look(&p.child.in, &copy, &data) == 1);
    CHECK(copy.ticket == number && copy.len == head.len);
    CHECK(memcmp(data, words, head.len) == 0);
    tdl_link_take(&p.child.in, &copy);
    CHECK(is_empty(&p.child.in));
  }
  close_pair(&p);
}

/* --- memory ---------------------------------------------------------------- */

static size_t pages_of(const tdl_link *link) {
  struct stat file;
  return fstat(link->region.fd, &file) == 0 ? (size_t)file.st_blocks * 512 : 0;
}

static void pages_are_there_only_where_they_were_used(void) {
  pair p;
  CHECK(open_pair(&p, (size_t)64 << 20));
  CHECK(put_number(&p.parent.out, 1, 10) == 1 && takes(&p.child.in, 1));
  CHECK(pages_of(&p.parent) < (1u << 20));
  close_pair(&p);
}

static void trimming_gives_back_what_nobody_reads_any_more(void) {
  uint32_t big = 2 * TDL_LINK_KEEP_BYTES;
  tdl_record head = {.kind = 1, .len = big};
  uint8_t *payload = calloc(1, big);
  const uint8_t *data;
  pair p;
  CHECK(payload != NULL && open_pair(&p, 2 * (size_t)big));
  memset(payload, 5, big);
  CHECK(tdl_link_put(&p.parent.out, &head, payload) == 1);
  tdl_link_trim(&p.parent.out); /* it is under way */
  CHECK(pages_of(&p.parent) >= big);
  CHECK(tdl_link_look(&p.child.in, &head, &data) == 1);
  CHECK(head.len == big && memcmp(data, payload, big) == 0);
  tdl_link_take(&p.child.in, &head);
  tdl_link_trim(&p.parent.out);
  CHECK(pages_of(&p.parent) <= big / 2 + (2u << 20));
  CHECK(tdl_link_put(&p.parent.out, &head, payload) == 1);
  CHECK(tdl_link_look(&p.child.in, &head, &data) == 1);
  CHECK(memcmp(data, payload, big) == 0);
  free(payload);
  close_pair(&p);
}

/* --- joining and resetting ------------------------------------------------- */

static int fails_to_join(const tdl_link *link) {
  tdl_link other = {.page = NULL};
  int fd = dup(link->region.fd);
  int status = tdl_link_join(fd, &other);
  close(fd);
  return status == TREADLE_EINVAL && other.page == NULL;
}

static void what_is_no_link_is_not_joined(void) {
  static const uint64_t odd[] = {0,        2,
                                 RING / 2, RING * 2,
                                 1u << 20, SIZE_MAX / 4,
                                 SIZE_MAX, SIZE_MAX - 4096};
  uint64_t *words;
  tdl_link link, other;
  int ends[2];
  CHECK(tdl_link_open(MOST, &link) == 0);
  words = (uint64_t *)link.region.data;
  for (int word = 0; word < 3; word++) {
    uint64_t right = words[word];
    for (size_t i = 0; i < sizeof(odd) / sizeof(*odd); i++) {
      words[word] = odd[i] == right ? 7 : odd[i];
      CHECK(fails_to_join(&link));
    }
    words[word] = right;
  }
  CHECK(tdl_link_join(dup(link.region.fd), &other) == 0);
  tdl_link_close(&other);
  CHECK(pipe(ends) == 0);
  CHECK(tdl_link_join(ends[0], &other) == TREADLE_EINVAL);
  CHECK(tdl_link_join(-1, &other) == TREADLE_EINVAL);
  close(ends[0]);
  close(ends[1]);
  tdl_link_close(&link);
}

/* Whether both ends are as new, with the sizes that the parent has chosen. */
static int works_as_new(pair *p, uint64_t bulk) {
  const tdl_link *l = &p->parent;
  const uint8_t *end = l->region.data + l->region.bytes;
  if (l->in.ring_bytes != RING || l->out.ring_bytes != RING ||
      l->in.bulk_bytes != bulk || l->out.bulk_bytes != bulk ||
      l->in.ring + RING > end || l->in.bulk + bulk > end ||
      !is_empty(&p->parent.in)) {
    return 0;
  }
  tdl_link_close(&p->child);
  return tdl_link_join(dup(l->region.fd), &p->child) == 0 &&
         is_empty(&p->child.in) && put_number(&p->parent.out, 1, 9) == 1 &&
         takes(&p->child.in, 1) && put_number(&p->child.out, 2, MOST) == 1 &&
         takes(&p->parent.in, 2);
}

/* What a dead child has left is nothing to its successor, nor to the parent. */
static void resetting_believes_nothing_that_lies_there(void) {
  static const uint64_t forged[] = {0,         1,          RING / 2,
                                    RING * 16, 1ull << 40, UINT64_MAX};
  uint64_t bulk;
  pair p;
  CHECK(open_pair(&p, MOST));
  bulk = p.parent.in.bulk_bytes;
  for (size_t i = 0; i < sizeof(forged) / sizeof(*forged); i++) {
    CHECK(put_number(&p.parent.out, 3, 9) == 1);
    CHECK(put_number(&p.child.out, 4, 9) == 1);
    for (uint64_t *word = (uint64_t *)p.child.region.data;
         (uint8_t *)word < p.child.region.data + TDL_LINK_PAGE_BYTES + 2 * RING;
         word++) {
      *word = forged[i];
    }
    CHECK(tdl_link_reset(&p.parent) == 0);
    CHECK(is_empty(&p.parent.in) && put_number(&p.child.out, 4, 9) >= 0);
    CHECK(is_empty(&p.parent.in)); /* who is left behind does not reach it */
    CHECK(works_as_new(&p, bulk));
  }
  close_pair(&p);
}

/* --- forgeries ------------------------------------------------------------- */

static int is_within(const uint8_t *data, uint64_t n, const uint8_t *from,
                     uint64_t bytes) {
  return data >= from && data <= from + bytes &&
         n <= bytes - (size_t)(data - from);
}

/* What a look has found lies within what is its own. */
static int is_sound(const tdl_link_reader *r, const tdl_record *head,
                    const uint8_t *data) {
  return head->kind != 0 &&
         (is_within(data, head->len, r->ring, r->ring_bytes) ||
          is_within(data, head->len, r->bulk, r->bulk_bytes));
}

/* Reads all of it, as a copy would. */
static uint8_t sum_of(const uint8_t *data, uint64_t n) {
  uint8_t sum = 0;
  for (uint64_t i = 0; i < n; i++) {
    sum = (uint8_t)(sum + data[i]);
  }
  return sum;
}

/* A header at `at` of the ring up; as its writer would, but for the values. */
static void forge(const pair *p, uint64_t at, const tdl_record *head,
                  uint64_t offset) {
  uint8_t *ring = p->child.out.ring;
  tdl_record *record = (tdl_record *)(ring + at % RING);
  record->len = head->len;
  record->kind = head->kind;
  record->place = head->place;
  if (at % RING + HEAD + sizeof(offset) <= RING) {
    memcpy(record + 1, &offset, sizeof(offset));
  }
  atomic_store_explicit(&record->stamp, at + 1, memory_order_release);
}

static uint64_t odd_number(uint64_t *seed, uint64_t around) {
  static const uint64_t odd[] = {0,         1,         GRAIN,     INLINE,
                                 RING,      MOST,      INT32_MAX, UINT32_MAX,
                                 INT64_MAX, UINT64_MAX};
  switch (random_of(seed) % 4) {
  case 0:
    return odd[random_of(seed) % 10];
  case 1:
    return odd[random_of(seed) % 10] + random_of(seed) % 9 - 4;
  case 2:
    return around + random_of(seed) % (4 * GRAIN) - 2 * GRAIN;
  default:
    return random_of(seed) % (around + 1);
  }
}

static void forged_headers_are_refused_or_lie_within(void) {
  uint64_t seed = check_seed();
  unsigned refused = 0, found = 0;
  volatile uint8_t sum = 0;
  pair p;
  CHECK(open_pair(&p, MOST));
  for (int i = 0; i < 5000; i++) {
    tdl_link_reader *r = &p.parent.in;
    uint64_t at = got(r), end = RING - at % RING, offset;
    tdl_record head = {.kind = (uint8_t)(random_of(&seed) % 3),
                       .place = (uint8_t)(random_of(&seed) % 3)};
    const uint8_t *data = NULL;
    int status;
    head.len = (uint32_t)odd_number(&seed, head.place ? MOST : end);
    offset = odd_number(&seed, p.parent.in.bulk_bytes - head.len);
    forge(&p, at, &head, offset);
    if (end < RING) {
      forge(&p, at + end, &head, offset); /* what a skip leads to */
    }
    status = tdl_link_look(r, &head, &data);
    if (status == 1) {
      CHECK(is_sound(r, &head, data));
      sum = (uint8_t)(sum + sum_of(data, head.len));
      at = got(r);
      tdl_link_take(r, &head);
      CHECK(got(r) > at &&
            got(r) % RING + (got(r) - at) <= RING + got(r) % RING);
      CHECK(got(r) % GRAIN == 0);
      found++;
    } else {
      CHECK(status == TREADLE_EINVAL);
      CHECK(renew(&p));
      refused++;
    }
  }
  CHECK(refused > 500 && found > 500);
  close_pair(&p);
}

static void a_length_or_an_offset_beyond_the_end_is_refused(void) {
  const uint8_t *data;
  tdl_record head;
  uint64_t bulk;
  pair p;
  CHECK(open_pair(&p, MOST));
  bulk = p.parent.in.bulk_bytes;
  {
    const struct {
      uint8_t kind, place;
      uint32_t len;
      uint64_t offset;
      int status;
    } forgeries[] = {
        {1, 0, RING - HEAD, 0, 1},
        {1, 0, RING - HEAD + 1, 0, TREADLE_EINVAL},
        {1, 0, UINT32_MAX, 0, TREADLE_EINVAL},
        {1, 0, UINT32_MAX - (uint32_t)HEAD + 1, 0, TREADLE_EINVAL},
        {1, 1, (uint32_t)bulk, 0, 1},
        {1, 1, 1, bulk - 1, 1},
        {1, 2, 0, 0, TREADLE_EINVAL}, /* it is shown nothing */
        {1, 255, 1, bulk - 1, TREADLE_EINVAL},
        {1, 1, 0, bulk, 1},
        {1, 1, 0, bulk + 1, TREADLE_EINVAL},
        {1, 1, (uint32_t)bulk + 1, 0, TREADLE_EINVAL},
        {1, 1, 2, bulk - 1, TREADLE_EINVAL},
        {1, 1, 2, UINT64_MAX, TREADLE_EINVAL},
        {1, 1, 2, UINT64_MAX - 1, TREADLE_EINVAL},
        {1, 1, UINT32_MAX, 1, TREADLE_EINVAL},
        {0, 0, 0, 0, TREADLE_EINVAL}, /* a skip of the whole ring */
    };
    for (size_t i = 0; i < sizeof(forgeries) / sizeof(*forgeries); i++) {
      CHECK(renew(&p));
      head = (tdl_record){.kind = forgeries[i].kind,
                          .place = forgeries[i].place,
                          .len = forgeries[i].len};
      forge(&p, 0, &head, forgeries[i].offset);
      CHECK(tdl_link_look(&p.parent.in, &head, &data) == forgeries[i].status);
      CHECK(forgeries[i].status != 1 || is_sound(&p.parent.in, &head, data));
    }
  }
  close_pair(&p);
}

static void another_stamp_is_no_record(void) {
  static const uint64_t stamps[] = {0,         2,        GRAIN,
                                    GRAIN + 1, RING + 1, UINT64_MAX};
  tdl_record *first;
  pair p;
  CHECK(open_pair(&p, MOST));
  first = (tdl_record *)p.child.out.ring;
  first->kind = 1;
  for (size_t i = 0; i < sizeof(stamps) / sizeof(*stamps); i++) {
    atomic_store_explicit(&first->stamp, stamps[i], memory_order_release);
    CHECK(is_empty(&p.parent.in));
  }
  close_pair(&p);
}

static void set_taken(const pair *p, uint64_t to) {
  atomic_store_explicit(&p->parent.page->down_taken, to, memory_order_release);
}

/* N3 */
static void a_forged_place_is_believed_only_between_seen_and_put(void) {
  uint64_t first, put;
  pair p;
  CHECK(open_pair(&p, MOST));
  CHECK(put_number(&p.parent.out, 0, 10) == 1);
  first = p.parent.out.put;
  while (put_number(&p.parent.out, 1, GRAIN) == 1) {
  }
  put = p.parent.out.put;
  set_taken(&p, put + 1);
  CHECK(put_number(&p.parent.out, 2, GRAIN) == TREADLE_EINVAL);
  set_taken(&p, UINT64_MAX);
  CHECK(put_number(&p.parent.out, 2, GRAIN) == TREADLE_EINVAL);
  CHECK(p.parent.out.put == put);
  set_taken(&p, first + 4 * GRAIN);
  CHECK(put_number(&p.parent.out, 2, GRAIN) == 1);
  set_taken(&p, first); /* back again: before what was seen */
  while (put_number(&p.parent.out, 2, GRAIN) == 1) {
  }
  CHECK(put_number(&p.parent.out, 2, GRAIN) == TREADLE_EINVAL);
  set_taken(&p, 0);
  CHECK(put_number(&p.parent.out, 2, INLINE + 1) == TREADLE_EINVAL);
  tdl_link_trim(&p.parent.out);
  close_pair(&p);
}

/* The memory on both sides of the rings and of the bulks stays as it is. */
static void forged_places_let_the_writer_write_nowhere_else(void) {
  uint64_t seed = check_seed();
  pair p;
  CHECK(open_pair(&p, MOST));
  for (int i = 0; i < 20000; i++) {
    const tdl_link_writer *w = &p.parent.out;
    uint32_t number = (uint32_t)i;
    uint32_t len = random_of(&seed) % 50 == 0
                       ? (uint32_t)(random_of(&seed) % MOST)
                       : (uint32_t)(random_of(&seed) % (INLINE + 1));
    tdl_record *up = (tdl_record *)p.parent.in.ring;
    uint8_t *bulk_up = p.parent.in.bulk;
    set_taken(&p, random_of(&seed) % 9 == 0
                      ? odd_number(&seed, w->put)
                      : w->seen + random_of(&seed) % (w->put - w->seen + 1));
    if (put_number(&p.parent.out, number, len) < 0) {
      CHECK(renew(&p));
    }
    CHECK(w->bulk_at <= w->bulk_bytes && w->put - w->seen <= RING);
    /* relaxed: one thread */
    CHECK(atomic_load_explicit(&up->stamp, memory_order_relaxed) == 0);
    CHECK(bulk_up[0] == 0);
  }
  close_pair(&p);
}

/* A child that goes on writing while its parent reads. */
static void scribble(const tdl_link *link, uint64_t seed) {
  uint64_t *words = (uint64_t *)link->region.data;
  uint64_t ring = (uint64_t)(link->out.ring - link->region.data) / 8;
  for (;;) {
    /* mostly what is a stamp somewhere near the beginning, or a small header */
    uint64_t at = ring + random_of(&seed) % (RING / 8);
    words[at] = random_of(&seed) % 2
                    ? (at - ring) * 8 + 1
                    : random_of(&seed) << 31 ^ random_of(&seed);
    words[random_of(&seed) % 512] = random_of(&seed);
    for (uint64_t i = 0; i < 8; i++) {
      words[ring + i] =
          i == 0 ? 1 : random_of(&seed) >> (random_of(&seed) % 40);
    }
  }
}

/* As new, but in the memory that the child has. */
static void rewind_all(tdl_link *link) {
  atomic_store_explicit(&link->in.got, 0, memory_order_relaxed); /* ours */
  link->out.put = link->out.seen = link->out.bulk_at = link->out.lent = 0;
}

static void what_changes_while_it_is_read_is_refused_or_lies_within(void) {
  uint64_t seed = check_seed();
  volatile uint8_t sum = 0;
  int status;
  pid_t child;
  pair p;
  CHECK(open_pair(&p, MOST));
  fflush(stdout);
  child = fork();
  if (child == 0) {
    scribble(&p.child, seed);
  }
  CHECK(child > 0);
  for (int i = 0; i < 200000; i++) {
    tdl_link_reader *r = &p.parent.in;
    const uint8_t *data = NULL;
    tdl_record head;
    status = tdl_link_look(r, &head, &data);
    if (status == 1) {
      CHECK(is_sound(r, &head, data));
      sum = (uint8_t)(sum + sum_of(data, head.len < 64 ? head.len : 64));
      tdl_link_take(r, &head);
    }
    if (status < 0 || i % 64 == 0) {
      rewind_all(&p.parent);
      CHECK(r->ring_bytes == RING && r->bulk_bytes == p.child.in.bulk_bytes);
    }
    if (put_number(&p.parent.out, 1, 100) < 0) {
      rewind_all(&p.parent);
    }
    tdl_link_wake(&p.parent);
  }
  CHECK(kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child);
  close_pair(&p);
}

/* --- two processes --------------------------------------------------------- */

/* A record there: at once, or asleep meanwhile. */
static void await_call(tdl_link *link) {
  while (!tdl_link_ready(&link->in)) {
    tdl_link_announce(link, TDL_LINK_SLEEPS);
    if (!tdl_link_ready(&link->in)) {
      tdl_link_sleep(link, UINT64_C(3600000000000));
    }
    tdl_link_awake(link);
  }
}

/* Sends back what it is sent, until it is sent a record of kind 255. */
static void echo(tdl_link *link, int bell) {
  for (;;) {
    const uint8_t *data;
    tdl_record head;
    int kind, got;
    do { /* see is_there */
      await_call(link);
      got = tdl_link_look(&link->in, &head, &data);
    } while (got == 0);
    if (got != 1) {
      _exit(2);
    }
    kind = head.kind;
    while (tdl_link_put(&link->out, &head, data) == 0) {
      eventfd_write(bell, 1);
      sched_yield();
    }
    tdl_link_take(&link->in, &head);
    if (tdl_link_call_home(link) == TDL_LINK_ON_BELL) {
      eventfd_write(bell, 1);
    }
    if (kind == 255) {
      _exit(0);
    }
  }
}

/* What is ready may be the rest of the ring, with no record behind it yet. */
static int is_there(tdl_link_reader *r) {
  const uint8_t *data;
  tdl_record head;
  return tdl_link_look(r, &head, &data) == 1;
}

/* Asleep on the bell, or on the word, until there is an answer. */
static int await_answer(tdl_link *link, int bell, enum tdl_link_away how) {
  const _Atomic uint32_t *word = tdl_link_away_word(link);
  eventfd_t count;
  tdl_link_set_away(link, how);
  while (!is_there(&link->in)) {
    if (how == TDL_LINK_ON_WORD) {
      syscall(SYS_futex, word, FUTEX_WAIT, how, NULL, NULL, 0);
    } else if (eventfd_read(bell, &count) != 0) {
      return 0;
    }
  }
  tdl_link_set_away(link, TDL_LINK_HERE);
  return 1;
}

/* Both sleep whenever there is nothing to do, at any moment: a lost wake-up is a
** test that does not end. */
static void a_million_records_go_to_a_child_and_back(void) {
  uint64_t seed = check_seed();
  uint32_t put = 0, taken = 0;
  int bell = eventfd(0, EFD_CLOEXEC), status;
  pid_t child;
  pair p;
  CHECK(bell >= 0 && open_pair(&p, MOST));
  fflush(stdout);
  child = fork();
  if (child == 0) {
    echo(&p.child, bell);
  }
  CHECK(child > 0);
  while (taken < RECORDS) {
    uint64_t burst =
        1 + random_of(&seed) % (random_of(&seed) % 8 == 0 ? 500 : 20);
    for (; burst > 0 && put < RECORDS; burst--) {
      uint32_t len = random_of(&seed) % 5000 == 0
                         ? (uint32_t)(random_of(&seed) % MOST)
                         : (uint32_t)(random_of(&seed) % 100);
      if (put_number(&p.parent.out, put, len) == 0) {
        break;
      }
      put++;
      tdl_link_wake(&p.parent);
    }
    while (taken < put) {
      CHECK(await_answer(&p.parent, bell,
                         random_of(&seed) % 2 == 0 ? TDL_LINK_ON_WORD
                                                   : TDL_LINK_ON_BELL));
      CHECK(takes(&p.parent.in, taken++));
    }
    tdl_link_trim(&p.parent.out);
  }
  {
    tdl_record last = {.kind = 255};
    CHECK(tdl_link_put(&p.parent.out, &last, NULL) == 1);
    tdl_link_wake(&p.parent);
  }
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  close(bell);
  close_pair(&p);
}

/* --- withdrawing (N3) ------------------------------------------------------ */

static uint64_t put_one(pair *p, uint32_t ticket) {
  tdl_record head = {.kind = 1, .ticket = ticket};
  return tdl_link_put(&p->parent.out, &head, NULL) == 1 ? p->parent.out.last
                                                        : UINT64_MAX;
}

/* The next that the child begins, and takes: its ticket; 0: none. */
static uint32_t begin_one(pair *p) {
  const uint8_t *data;
  tdl_record head;
  if (tdl_link_kind(&p->child.in) == 0 ||
      tdl_link_look(&p->child.in, &head, &data) != 1 ||
      tdl_link_begin(&p->child, &head) != 1) {
    return 0;
  }
  tdl_link_take(&p->child.in, &head);
  return head.ticket;
}

static void what_is_withdrawn_is_skipped_and_the_rest_is_not(void) {
  uint64_t begins[6], begun;
  pair p;
  CHECK(open_pair(&p, MOST));
  for (uint32_t i = 1; i <= 5; i++) {
    begins[i] = put_one(&p, i);
  }
  CHECK(begin_one(&p) == 1);
  begun = tdl_link_hold(&p.parent);
  CHECK(begun > begins[1] && begun <= begins[2]);
  tdl_link_withdraw(&p.parent, begins[2]);
  tdl_link_withdraw(&p.parent, begins[4]);
  tdl_link_withdraw(&p.parent, begins[5]);
  tdl_link_let_go(&p.parent);
  CHECK(begin_one(&p) == 3);
  CHECK(begin_one(&p) == 0);
  CHECK(tdl_link_ready(&p.child.in) == 0);
  CHECK(put_one(&p, 6) != UINT64_MAX);
  CHECK(begin_one(&p) == 6);
  CHECK(tdl_link_had_begun(&p.parent, p.parent.out.put) == 1);
  close_pair(&p);
}

static void what_was_seen_before_it_was_withdrawn_is_not_begun(void) {
  const uint8_t *data;
  tdl_record head;
  uint64_t begins;
  pair p;
  CHECK(open_pair(&p, MOST));
  begins = put_one(&p, 1);
  CHECK(tdl_link_look(&p.child.in, &head, &data) == 1 && head.ticket == 1);
  CHECK(tdl_link_hold(&p.parent) <= begins);
  tdl_link_withdraw(&p.parent, begins);
  tdl_link_let_go(&p.parent);
  CHECK(tdl_link_begin(&p.child, &head) == 0);
  CHECK(tdl_link_kind(&p.child.in) == 0);
  close_pair(&p);
}

static void a_forged_word_of_what_is_begun_is_found(void) {
  const uint8_t *data;
  tdl_record head;
  pair p;
  CHECK(open_pair(&p, MOST));
  put_one(&p, 1);
  CHECK(tdl_link_look(&p.child.in, &head, &data) == 1);
  atomic_store_explicit(&p.parent.page->down_begun, UINT64_MAX - 1,
                        memory_order_relaxed);
  CHECK(tdl_link_hold(&p.parent) == UINT64_MAX);
  tdl_link_let_go(&p.parent);
  CHECK(tdl_link_begin(&p.child, &head) == TREADLE_EINVAL);
  close_pair(&p);
}

enum { CONTESTED = 30000 };

typedef struct contest {
  pair p;
  uint8_t begun[CONTESTED + 1];
  atomic_int over;
} contest;

static void *begin_all(void *arg) {
  contest *c = arg;
  for (;;) {
    /* in this order: what was put before it was over is begun */
    int over = atomic_load_explicit(&c->over, memory_order_acquire);
    uint32_t ticket = begin_one(&c->p);
    c->begun[ticket]++;
    if (ticket == 0 && over && !tdl_link_ready(&c->p.child.in)) {
      return NULL;
    }
  }
}

/* Each is begun once, or withdrawn once. */
static void what_is_begun_is_not_withdrawn(void) {
  static contest c;
  static uint8_t withdrawn[CONTESTED + 1];
  uint64_t seed = check_seed(), begins[16];
  uint32_t tickets[16], put = 0, both = 0, left = 0;
  pthread_t thread;
  CHECK(open_pair(&c.p, MOST));
  CHECK(pthread_create(&thread, NULL, begin_all, &c) == 0);
  while (put < CONTESTED) {
    uint32_t n = 0, most = 1 + (uint32_t)(random_of(&seed) % 16);
    uint64_t begun;
    while (n < most && put < CONTESTED) {
      begins[n] = put_one(&c.p, put + 1);
      if (begins[n] == UINT64_MAX) {
        sched_yield();
        continue;
      }
      tickets[n++] = ++put;
    }
    for (uint64_t k = random_of(&seed) % 400; k > 0; k--) {
      tdl_pause();
    }
    begun = tdl_link_hold(&c.p.parent);
    CHECK(begun != UINT64_MAX);
    for (uint32_t i = 0; i < n; i++) {
      if (begins[i] >= begun && random_of(&seed) % 4 != 0) {
        tdl_link_withdraw(&c.p.parent, begins[i]);
        withdrawn[tickets[i]]++;
      }
    }
    tdl_link_let_go(&c.p.parent);
  }
  atomic_store_explicit(&c.over, 1, memory_order_release);
  pthread_join(thread, NULL);
  for (uint32_t i = 1; i <= CONTESTED; i++) {
    both += c.begun[i] + withdrawn[i] > 1;
    left += c.begun[i] + withdrawn[i] == 0;
  }
  CHECK(both == 0 && left == 0);
  close_pair(&c.p);
}

/* --- sleeping -------------------------------------------------------------- */

static void who_rests_in_a_loop_is_sent_one_message(void) {
  pair p;
  CHECK(open_pair(&p, MOST));
  CHECK(tdl_link_wake(&p.parent) == 0);
  tdl_link_announce(&p.child, TDL_LINK_IN_LOOP);
  CHECK(tdl_link_wake(&p.parent) == 1);
  CHECK(tdl_link_wake(&p.parent) == 0);
  tdl_link_announce(&p.child, TDL_LINK_IN_LOOP);
  tdl_link_awake(&p.child);
  CHECK(tdl_link_wake(&p.parent) == 0);
  tdl_link_announce(&p.child, TDL_LINK_SLEEPS);
  CHECK(tdl_link_wake(&p.parent) == 0);              /* the futex does it */
  tdl_link_sleep(&p.child, UINT64_C(3600000000000)); /* it was woken */
  close_pair(&p);
}

static void that_a_record_is_copied_is_seen(void) {
  pair p;
  CHECK(open_pair(&p, MOST));
  CHECK(!tdl_link_is_copied(&p.child));
  tdl_link_set_copying(&p.parent, 1);
  CHECK(tdl_link_is_copied(&p.child));
  tdl_link_set_copying(&p.parent, 0);
  CHECK(!tdl_link_is_copied(&p.child));
  close_pair(&p);
}

static void a_home_is_called_where_it_sleeps(void) {
  pair p;
  CHECK(open_pair(&p, MOST));
  CHECK(tdl_link_call_home(&p.child) == TDL_LINK_HERE);
  tdl_link_set_away(&p.parent, TDL_LINK_ON_BELL);
  CHECK(tdl_link_call_home(&p.child) == TDL_LINK_ON_BELL);
  CHECK(tdl_link_call_home(&p.child) ==
        TDL_LINK_ON_BELL); /* until it is back */
  tdl_link_set_away(&p.parent, TDL_LINK_ON_WORD);
  CHECK(tdl_link_call_home(&p.child) == TDL_LINK_ON_WORD);
  CHECK(tdl_link_call_home(&p.child) == TDL_LINK_HERE); /* it was woken */
  close_pair(&p);
}

static void a_forged_rest_is_no_message_and_wakes_nobody(void) {
  static const uint32_t words[] = {3, 77, INT32_MAX, UINT32_MAX};
  pair p;
  CHECK(open_pair(&p, MOST));
  for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
    atomic_store_explicit(&p.parent.page->rest, words[i], memory_order_relaxed);
    CHECK(tdl_link_wake(&p.parent) == 0);
  }
  close_pair(&p);
}

static void a_sleep_ends_by_its_time(void) {
  pair p;
  CHECK(open_pair(&p, MOST));
  tdl_link_announce(&p.child, TDL_LINK_SLEEPS);
  tdl_link_sleep(&p.child, 1000000);
  tdl_link_awake(&p.child);
  tdl_link_sleep(&p.child, UINT64_C(3600000000000)); /* it does not rest */
  close_pair(&p);
}

int main(void) {
  RUN(both_directions_begin_empty_and_keep_apart);
  RUN(records_come_in_order_through_many_laps);
  RUN(a_look_takes_nothing);
  RUN(a_full_ring_takes_nothing_and_goes_on_with_room);
  RUN(long_payloads_fill_their_memory_and_begin_anew);
  RUN(what_is_written_where_it_was_lent_is_not_copied);
  RUN(what_was_lent_may_be_left_or_hold_a_short_payload);
  RUN(what_was_lent_waits_for_room_in_the_ring);
  RUN(what_is_shown_is_not_copied_and_holds_nobody_up);
  RUN(what_is_not_shown_is_refused);
  RUN(what_never_fits_is_refused);
  RUN(a_payload_that_looks_like_stamps_is_none);
  RUN(pages_are_there_only_where_they_were_used);
  RUN(trimming_gives_back_what_nobody_reads_any_more);
  RUN(what_is_no_link_is_not_joined);
  RUN(resetting_believes_nothing_that_lies_there);
  RUN(forged_headers_are_refused_or_lie_within);
  RUN(a_length_or_an_offset_beyond_the_end_is_refused);
  RUN(another_stamp_is_no_record);
  RUN(a_forged_place_is_believed_only_between_seen_and_put);
  RUN(forged_places_let_the_writer_write_nowhere_else);
  RUN(what_changes_while_it_is_read_is_refused_or_lies_within);
  RUN(who_rests_in_a_loop_is_sent_one_message);
  RUN(what_is_withdrawn_is_skipped_and_the_rest_is_not);
  RUN(what_was_seen_before_it_was_withdrawn_is_not_begun);
  RUN(a_forged_word_of_what_is_begun_is_found);
  RUN(what_is_begun_is_not_withdrawn);
  RUN(that_a_record_is_copied_is_seen);
  RUN(a_home_is_called_where_it_sleeps);
  RUN(a_forged_rest_is_no_message_and_wakes_nobody);
  RUN(a_sleep_ends_by_its_time);
  RUN(a_million_records_go_to_a_child_and_back);
  return check_any_failed;
}
