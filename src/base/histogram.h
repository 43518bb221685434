/* tdl_histogram: how often which length of time occurred.
** Threads: one writer; any thread may read meanwhile.
** Owns:    its blocks of counts, each made when a value first falls into it.
** Fails:   never: without memory for a block its values are missing in the
**          percentiles, not in count, mean and max.
**
** HdrHistogram's idea (Gil Tene, http://hdrhistogram.org): every power of two
** is divided into equally many buckets, so that the whole range of 64 bits has
** the same relative error. Here 16 buckets: below 16 all values are exact,
** above a bucket is at most 1/16 of its values wide.
**
** H1  Every field has one writing thread, which adds by a load and a store.
** H2  A block, once there, stays until fini.
** H3  A percentile is the largest value of its bucket, or max if that is less:
**     never too small, too large by less than 1/16. */
#ifndef TDL_BASE_HISTOGRAM_H
#define TDL_BASE_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>

#define TDL_HISTOGRAM_STEPS  16u /* buckets of a block */
#define TDL_HISTOGRAM_BLOCKS 61u /* below 16, then a block for each octave */

typedef struct tdl_histogram {
  _Atomic uint64_t count, sum, max;
  _Atomic(_Atomic uint64_t *) blocks[TDL_HISTOGRAM_BLOCKS]; /* H2 */
} tdl_histogram;

/* What a reader makes of one or several histograms: its own. */
typedef struct tdl_histogram_copy {
  uint64_t count, sum, max; /* sum: at most UINT64_MAX */
  uint64_t counted;         /* in the buckets */
  uint64_t buckets[TDL_HISTOGRAM_BLOCKS * TDL_HISTOGRAM_STEPS];
} tdl_histogram_copy;

void tdl_histogram_init(tdl_histogram *h);
void tdl_histogram_fini(tdl_histogram *h); /* nobody writes or reads any more */

/* writer; `value` has occurred `weight` times. */
void tdl_histogram_record(tdl_histogram *h, uint64_t value, uint64_t weight);

/* any thread; adds what is in `h` to the copy, which starts as zeros. */
void tdl_histogram_add(tdl_histogram_copy *copy, const tdl_histogram *h);

/* The value that `share` (0 to 1) of all do not exceed (H3); 0 of none. */
uint64_t tdl_histogram_percentile(const tdl_histogram_copy *copy, double share);
double tdl_histogram_mean(const tdl_histogram_copy *copy);

/* The bucket of a value, and the largest value of a bucket. */
uint32_t tdl_histogram_bucket(uint64_t value);
uint64_t tdl_histogram_highest(uint32_t bucket);

#endif
