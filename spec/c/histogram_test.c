/* tdl_histogram: its error bound over the whole range, merging, the edges. */
#include "base/histogram.h"

#include <pthread.h>
#include <string.h>

#include "check.h"

static tdl_histogram one, two;
static tdl_histogram_copy copy;

static void start(void) {
  tdl_histogram_init(&one);
  tdl_histogram_init(&two);
  memset(&copy, 0, sizeof(copy));
}

static void end(void) {
  tdl_histogram_fini(&one);
  tdl_histogram_fini(&two);
}

/* splitmix64 */
static uint64_t next_random(uint64_t *state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/* The largest value of a bucket is too large by less than a sixteenth. */
static int is_close(uint64_t told, uint64_t value) {
  return told >= value && told - value <= value / 16;
}

static void buckets_cover_64_bits_without_gap_or_overlap(void) {
  uint32_t last = TDL_HISTOGRAM_BLOCKS * TDL_HISTOGRAM_STEPS - 1;
  uint64_t lowest = 0;
  for (uint32_t i = 0; i <= last; i++) {
    uint64_t highest = tdl_histogram_highest(i);
    CHECK(highest >= lowest);
    CHECK(tdl_histogram_bucket(lowest) == i);
    CHECK(tdl_histogram_bucket(highest) == i);
    CHECK(is_close(highest, lowest)); /* and so for all between the two */
    lowest = highest + 1;
  }
  CHECK(lowest == 0); /* the last one ends at UINT64_MAX */
}

static void values_below_32_are_exact(void) {
  for (uint64_t v = 0; v < 32; v++) {
    CHECK(tdl_histogram_highest(tdl_histogram_bucket(v)) == v);
  }
}

static void one_value_is_told_as_it_is(void) {
  static const uint64_t values[] = {0,
                                    1,
                                    15,
                                    16,
                                    17,
                                    31,
                                    32,
                                    33,
                                    1000000007,
                                    1ull << 63,
                                    UINT64_MAX - 1,
                                    UINT64_MAX};
  for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
    start();
    tdl_histogram_record(&one, values[i], 3);
    tdl_histogram_add(&copy, &one);
    CHECK(copy.count == 3 && copy.counted == 3 && copy.max == values[i]);
    CHECK(tdl_histogram_percentile(&copy, 0) == values[i]);
    CHECK(tdl_histogram_percentile(&copy, 0.5) == values[i]);
    CHECK(tdl_histogram_percentile(&copy, 1) == values[i]);
    end();
  }
}

static void nothing_recorded_is_all_zeros(void) {
  start();
  tdl_histogram_add(&copy, &one);
  CHECK(copy.count == 0 && copy.max == 0 && tdl_histogram_mean(&copy) == 0);
  CHECK(tdl_histogram_percentile(&copy, 0.99) == 0);
  end();
}

static void mean_and_max_are_exact_and_the_sum_stops_at_its_end(void) {
  start();
  tdl_histogram_record(&one, 10, 1);
  tdl_histogram_record(&one, 1000003, 3);
  tdl_histogram_add(&copy, &one);
  CHECK(copy.sum == 10 + 3 * 1000003 && copy.max == 1000003);
  CHECK(tdl_histogram_mean(&copy) == (10 + 3 * 1000003) / 4.0);
  tdl_histogram_record(&one, UINT64_MAX, 2);
  tdl_histogram_record(&one, UINT64_MAX, 1);
  memset(&copy, 0, sizeof(copy));
  tdl_histogram_add(&copy, &one);
  CHECK(copy.sum == UINT64_MAX && copy.count == 7);
  tdl_histogram_add(&copy, &one);
  CHECK(copy.sum == UINT64_MAX && copy.count == 14);
  end();
}

static int compare(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

/* Against the sorted list of all values, of every length of bits. */
static void percentiles_keep_the_bound(void) {
  enum { COUNT = 20000 };
  static uint64_t values[COUNT];
  static const double shares[] = {0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 1};
  uint64_t state = check_seed();
  start();
  for (int i = 0; i < COUNT; i++) {
    values[i] = next_random(&state) >> (next_random(&state) % 64);
    tdl_histogram_record(&one, values[i], 1);
  }
  qsort(values, COUNT, sizeof(*values), compare);
  tdl_histogram_add(&copy, &one);
  for (size_t i = 0; i < sizeof(shares) / sizeof(*shares); i++) {
    int rank = (int)(shares[i] * COUNT);
    rank = rank < shares[i] * COUNT ? rank + 1 : rank;
    CHECK(
        is_close(tdl_histogram_percentile(&copy, shares[i]), values[rank - 1]));
  }
  CHECK(tdl_histogram_percentile(&copy, 1) == values[COUNT - 1]);
  end();
}

static void a_weight_counts_as_so_many_values(void) {
  tdl_histogram_copy other;
  start();
  memset(&other, 0, sizeof(other));
  for (uint64_t v = 1; v < 1000; v++) {
    tdl_histogram_record(&one, v * v, v);
    for (uint64_t i = 0; i < v; i++) {
      tdl_histogram_record(&two, v * v, 1);
    }
  }
  tdl_histogram_add(&copy, &one);
  tdl_histogram_add(&other, &two);
  CHECK(memcmp(&copy, &other, sizeof(copy)) == 0);
  end();
}

static void merged_is_as_if_recorded_in_one(void) {
  tdl_histogram all;
  tdl_histogram_copy whole;
  uint64_t state = check_seed();
  start();
  tdl_histogram_init(&all);
  memset(&whole, 0, sizeof(whole));
  for (int i = 0; i < 10000; i++) {
    uint64_t v = next_random(&state) >> (16 + next_random(&state) % 48);
    tdl_histogram_record(next_random(&state) % 3 == 0 ? &one : &two, v, 1);
    tdl_histogram_record(&all, v, 1);
  }
  tdl_histogram_add(&copy, &one);
  tdl_histogram_add(&copy, &two);
  tdl_histogram_add(&whole, &all);
  CHECK(copy.count == 10000 && memcmp(&copy, &whole, sizeof(copy)) == 0);
  tdl_histogram_fini(&all);
  end();
}

/* A task's times from 1 us to 1 s. */
static void a_typical_one_is_small(void) {
  long live = tdl_alloc_live();
  start();
  for (uint64_t v = 1000; v < 1000000000u; v += v / 20) {
    tdl_histogram_record(&one, v, 1);
  }
  CHECK((size_t)(tdl_alloc_live() - live) * TDL_HISTOGRAM_STEPS *
                sizeof(uint64_t) +
            sizeof(one) <
        3400);
  end();
}

/* --- a writer and a reader ------------------------------------------------- */

enum { RECORDS = 400000 };

static void *record_all(void *arg) {
  uint64_t state = 1;
  (void)arg;
  for (int i = 0; i < RECORDS; i++) {
    tdl_histogram_record(&one, next_random(&state) >> (i % 60), 1);
  }
  return NULL;
}

static void a_reader_meanwhile_sees_what_can_be(void) {
  pthread_t writer;
  uint64_t counted = 0;
  start();
  CHECK(pthread_create(&writer, NULL, record_all, NULL) == 0);
  while (counted < RECORDS) {
    uint64_t before = 0;
    memset(&copy, 0, sizeof(copy));
    tdl_histogram_add(&copy, &one);
    CHECK(copy.counted >= counted && copy.counted <= RECORDS);
    counted = copy.counted;
    for (int i = 0; i <= 10; i++) {
      uint64_t p = tdl_histogram_percentile(&copy, i / 10.0);
      CHECK(p >= before);
      before = p;
    }
    for (uint32_t i = 0; i < sizeof(copy.buckets) / sizeof(*copy.buckets);
         i++) { /* H3: max is known before the value */
      CHECK(copy.buckets[i] == 0 || i <= tdl_histogram_bucket(copy.max));
    }
  }
  pthread_join(writer, NULL);
  end();
}

/* --- without memory -------------------------------------------------------- */

#ifdef TDL_TEST_ALLOC
static void without_memory_it_counts_and_knows_the_max(void) {
  start();
  tdl_histogram_record(&one, 5, 1);
  tdl_alloc_fail_in(TDL_ALLOC_OWN, 0);
  tdl_histogram_record(&one, 5000, 1);
  CHECK(tdl_alloc_left(TDL_ALLOC_OWN) < 0);
  tdl_alloc_fail_in(TDL_ALLOC_OWN, -1);
  tdl_histogram_add(&copy, &one);
  CHECK(copy.count == 2 && copy.counted == 1 && copy.max == 5000);
  CHECK(tdl_histogram_mean(&copy) == 5005 / 2.0);
  CHECK(tdl_histogram_percentile(&copy, 1) == 5);
  memset(&copy, 0, sizeof(copy));
  tdl_histogram_record(&one, 5000, 1); /* later there is memory again */
  tdl_histogram_add(&copy, &one);
  CHECK(copy.count == 3 && copy.counted == 2);
  end();
}
#endif

int main(void) {
  RUN(buckets_cover_64_bits_without_gap_or_overlap);
  RUN(values_below_32_are_exact);
  RUN(one_value_is_told_as_it_is);
  RUN(nothing_recorded_is_all_zeros);
  RUN(mean_and_max_are_exact_and_the_sum_stops_at_its_end);
  RUN(percentiles_keep_the_bound);
  RUN(a_weight_counts_as_so_many_values);
  RUN(merged_is_as_if_recorded_in_one);
  RUN(a_typical_one_is_small);
  RUN(a_reader_meanwhile_sees_what_can_be);
#ifdef TDL_TEST_ALLOC
  RUN(without_memory_it_counts_and_knows_the_max);
#endif
  return check_any_failed;
}
