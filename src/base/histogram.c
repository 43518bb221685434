#include "histogram.h"

#include <stddef.h>

#include "alloc.h"
#include "compiler.h"

#define STEPS TDL_HISTOGRAM_STEPS

void tdl_histogram_init(tdl_histogram *h) {
  atomic_init(&h->count, 0);
  atomic_init(&h->sum, 0);
  atomic_init(&h->max, 0);
  for (uint32_t i = 0; i < TDL_HISTOGRAM_BLOCKS; i++) {
    atomic_init(&h->blocks[i], NULL);
  }
}

void tdl_histogram_fini(tdl_histogram *h) {
  for (uint32_t i = 0; i < TDL_HISTOGRAM_BLOCKS; i++) {
    /* relaxed: the last one to know it */
    tdl_free((void *)atomic_load_explicit(&h->blocks[i], memory_order_relaxed));
    atomic_init(&h->blocks[i], NULL);
  }
}

uint32_t tdl_histogram_bucket(uint64_t value) {
  uint32_t shift;
  if (value < STEPS) {
    return (uint32_t)value;
  }
  shift = 59u - (uint32_t)__builtin_clzll(value); /* leaves 5 bits: 1xxxx */
  return shift * STEPS + (uint32_t)(value >> shift);
}

uint64_t tdl_histogram_highest(uint32_t bucket) {
  uint32_t shift = bucket < 2 * STEPS ? 0 : bucket / STEPS - 1;
  uint64_t first = (uint64_t)(bucket - shift * STEPS) << shift;
  return first + (((uint64_t)1 << shift) - 1);
}

/* --- the writer ----------------------------------------------------------- */

static uint64_t look(const _Atomic uint64_t *field) {
  return atomic_load_explicit(field, memory_order_relaxed); /* H1 */
}

static void set(_Atomic uint64_t *field, uint64_t value) {
  /* relaxed: readers take each field as it is */
  atomic_store_explicit(field, value, memory_order_relaxed);
}

static _Atomic uint64_t *add_block(tdl_histogram *h, uint32_t i) {
  _Atomic uint64_t *block = tdl_calloc(STEPS * sizeof(*block));
  /* [histogram-block] release: readers find its zeros */
  atomic_store_explicit(&h->blocks[i], block, memory_order_release);
  return block;
}

/* a * b + c, or UINT64_MAX */
static uint64_t saturated(uint64_t a, uint64_t b, uint64_t c) {
  uint64_t product, sum;
  return __builtin_mul_overflow(a, b, &product) ||
                 __builtin_add_overflow(product, c, &sum)
             ? UINT64_MAX
             : sum;
}

void tdl_histogram_record(tdl_histogram *h, uint64_t value, uint64_t weight) {
  uint32_t bucket = tdl_histogram_bucket(value);
  _Atomic uint64_t *block = atomic_load_explicit(&h->blocks[bucket / STEPS],
                                                 memory_order_relaxed); /* H1 */
  if (TDL_UNLIKELY(block == NULL)) {
    block = add_block(h, bucket / STEPS);
  }
  if (value > look(&h->max)) {
    set(&h->max, value);
  }
  set(&h->count, look(&h->count) + weight);
  set(&h->sum, saturated(value, weight, look(&h->sum)));
  if (TDL_LIKELY(block != NULL)) {
    /* [histogram-count] release: whoever sees it sees max, too (H3) */
    atomic_store_explicit(&block[bucket % STEPS],
                          look(&block[bucket % STEPS]) + weight,
                          memory_order_release);
  }
}

/* --- readers -------------------------------------------------------------- */

void tdl_histogram_add(tdl_histogram_copy *copy, const tdl_histogram *h) {
  uint64_t max;
  for (uint32_t i = 0; i < TDL_HISTOGRAM_BLOCKS; i++) {
    /* [histogram-block] acquire: pairs with add_block */
    const _Atomic uint64_t *block =
        atomic_load_explicit(&h->blocks[i], memory_order_acquire);
    for (uint32_t k = 0; block != NULL && k < STEPS; k++) {
      /* [histogram-count] acquire: pairs with record */
      uint64_t n = atomic_load_explicit(&block[k], memory_order_acquire);
      copy->buckets[i * STEPS + k] += n;
      copy->counted += n;
    }
  }
  copy->count += look(&h->count);
  copy->sum = saturated(look(&h->sum), 1, copy->sum);
  max = look(&h->max);
  copy->max = max > copy->max ? max : copy->max;
}

uint64_t tdl_histogram_percentile(const tdl_histogram_copy *copy,
                                  double share) {
  double wanted = share * (double)copy->counted;
  uint64_t seen = 0;
  for (uint32_t i = 0; i < TDL_HISTOGRAM_BLOCKS * STEPS; i++) {
    seen += copy->buckets[i];
    if (copy->buckets[i] > 0 && (double)seen >= wanted) {
      uint64_t value = tdl_histogram_highest(i);
      return value < copy->max ? value : copy->max; /* H3 */
    }
  }
  return copy->max;
}

double tdl_histogram_mean(const tdl_histogram_copy *copy) {
  return copy->count == 0 ? 0 : (double)copy->sum / (double)copy->count;
}
