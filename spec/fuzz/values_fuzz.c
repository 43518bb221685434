/* values_fuzz: libFuzzer over what treadle.h reads bytes with.
** Threads: one.
** Owns:    nothing.
** Fails:   by crashing, which is the point.
**
** Every way to read agrees with the others: to get all that is in a value brings
** one as far as to pass over it does. */
#include <stdlib.h>
#include <string.h>

#include "../../src/treadle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(int condition) {
  if (!condition) {
    abort();
  }
}

/* What a table says of itself by key and by index, of the first few elements. */
static void look_inside(const treadle_value *table) {
  double numbers[8];
  treadle_value v;
  treadle_values in = table->inside;
  size_t count = table->length < 8 ? table->length : 8;
  if (treadle_field(table, "a", &v) == 0) {
    expect(table->pairs > 0);
  }
  expect(treadle_element(table, 0, &v) == TREADLE_EINVAL);
  expect(treadle_element(table, table->length + 1, &v) == TREADLE_EINVAL);
  if (treadle_copy_numbers(table, numbers, count) == 0) {
    for (size_t i = 0; i < count; i++) {
      expect(treadle_element(table, i + 1, &v) == 0);
      expect(memcmp(&v.number, &numbers[i], sizeof(v.number)) == 0);
    }
  }
  if (treadle_get(&in, &v) == 0 && v.type == TREADLE_NUMBERS && v.length > 0) {
    (void)treadle_number_at(&v, v.length - 1);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  treadle_values values;
  treadle_value v;
  treadle_error error;
  if (treadle_values_open(data, size, &values) != 0) {
    return 0;
  }
  treadle_read_error(TREADLE_ETASK, &values, &error);
  expect(error.message != NULL);
  for (int status = 0; status == 0;) {
    treadle_values skipped = values, got = values;
    int can_skip = treadle_skip(&skipped) == 0;
    status = treadle_get(&values, &v);
    if (status != 0) {
      expect(!can_skip);
    } else if (v.type == TREADLE_TABLE) {
      look_inside(&v);
    } else {
      expect(can_skip && skipped.next == values.next);
    }
    if (can_skip) { /* then so does reading all that is in it */
      while (got.left > skipped.left) {
        expect(treadle_get(&got, &v) == 0);
      }
      expect(got.left == skipped.left && got.next == skipped.next);
    }
  }
  return 0;
}
