/* The base layer: bytes, status, clock. */
#include "base/bytes.h"
#include "base/clock.h"
#include "base/status.h"
#include "check.h"
#include "config.h"

static void bytes_stay_in_the_fixed_memory_until_it_is_full(void) {
  char fixed[8];
  tdl_bytes b;
  tdl_bytes_init(&b, fixed, sizeof(fixed));
  CHECK(tdl_bytes_append(&b, "12345678", 8) == 0);
  CHECK(b.data == (uint8_t *)fixed && tdl_bytes_heap(&b) == 0);
  CHECK(tdl_bytes_append(&b, "9", 1) == 0);
  CHECK(b.data != (uint8_t *)fixed && b.len == 9);
  CHECK(memcmp(b.data, "123456789", 9) == 0);
  tdl_bytes_reset(&b, fixed, sizeof(fixed));
  CHECK(b.data == (uint8_t *)fixed && b.len == 0);
}

static void bytes_grow_from_nothing_and_keep_what_they_hold(void) {
  tdl_bytes b;
  tdl_bytes_init(&b, NULL, 0);
  for (int i = 0; i < 100000; i++) {
    uint8_t byte = (uint8_t)(i * 7);
    CHECK(tdl_bytes_append(&b, &byte, 1) == 0);
  }
  for (int i = 0; i < 100000; i++) {
    CHECK(b.data[i] == (uint8_t)(i * 7));
  }
  tdl_bytes_reset(&b, NULL, 0);
}

static void bytes_refuse_more_than_the_ceiling(void) {
  tdl_bytes b;
  tdl_bytes_init(&b, NULL, 0);
  CHECK(tdl_bytes_reserve(&b, (size_t)TDL_PAYLOAD_CEILING_BYTES + 1) ==
        TREADLE_ENOMEM);
  CHECK(b.data == NULL && b.len == 0 && tdl_bytes_cap(&b) == 0);
}

static void every_status_has_a_kind_that_leads_back_to_it(void) {
  for (int s = TREADLE_OK; s >= TREADLE_ESYSTEM; s--) {
    CHECK(tdl_status_of_kind(tdl_status_kind(s)) == s);
    CHECK(tdl_status_text(s)[0] != 0);
  }
  CHECK(tdl_status_of_kind("no such kind") == TREADLE_ESYSTEM);
}

static void seconds_become_nanoseconds_without_wrapping(void) {
  CHECK(tdl_seconds_ns(0) == 0 && tdl_seconds_ns(-1) == 0);
  CHECK(tdl_seconds_ns(1.5) == 1500000000u);
  CHECK(tdl_seconds_ns(1e300) == (uint64_t)9e18);
  CHECK(tdl_now_ns() + tdl_seconds_ns(1e300) > tdl_now_ns());
}

int main(void) {
  RUN(bytes_stay_in_the_fixed_memory_until_it_is_full);
  RUN(bytes_grow_from_nothing_and_keep_what_they_hold);
  RUN(bytes_refuse_more_than_the_ceiling);
  RUN(every_status_has_a_kind_that_leads_back_to_it);
  RUN(seconds_become_nanoseconds_without_wrapping);
  return check_any_failed;
}
