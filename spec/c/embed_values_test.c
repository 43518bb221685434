/* treadle.h: values that are written and read, there and back through a worker,
** and with no worker at all. */
#include "treadle.h"

#include <math.h>
#include <string.h>

#include "check.h"

static const char source[] =
    "local treadle = require 'treadle'\n"
    "local ffi = require 'ffi'\n"
    "local M = {}\n"
    "function M.echo(...) return ... end\n"
    "function M.nested() return { 1, 'two', { deep = { 3, 4, 5.5 } },\n"
    "  name = 'n', flag = true, [7] = 'seven', [{}] = 0 } end\n"
    "function M.odd() local t = { 1 }\n"
    "  return print, t, t, ffi.new('double[2]'), function() return t end,\n"
    "    { f = print, last = 'l' }, 'end' end\n"
    "function M.fill(b, n) for i = 0, #b - 1 do b:set(i, i * n) end\n"
    "  return b end\n"
    "function M.share() local b = treadle.buffer('int32_t', 3)\n"
    "  b:set(2, -7) return b, treadle.event() end\n"
    "function M.wait() treadle.sleep(60) end\n"
    "function M.raise() error({ code = 7 }) end\n"
    "function M.complain() error('not so') end\n"
    "function M.encode() return treadle.encode({ a = 1 }, 'x') end\n"
    "function M.deep(n) local t = {} for _ = 1, n do t = { t } end\n"
    "  return t, 'behind' end\n"
    "return M\n";

/* --- one call, and what its callback finds ----------------------------------- */

typedef struct rig {
  treadle_loop *loop;
  treadle_pool *pool;
  void (*look)(int status, treadle_values *values);
  int calls;
} rig;

static int rig_open(rig *r) {
  treadle_pool_options o = {.module = "values", .source = source, .threads = 1};
  memset(r, 0, sizeof(*r));
  return treadle_loop_open(&r->loop) == 0 &&
         treadle_pool_open(r->loop, &o, &r->pool, NULL, 0) == 0;
}

static void rig_close(rig *r) {
  treadle_pool_close(r->pool, -1);
  treadle_loop_close(r->loop);
}

static treadle_call *begin(rig *r, const char *task, unsigned count) {
  treadle_call *call = NULL;
  treadle_call_new(r->pool, treadle_pool_task(r->pool, task), count, &call);
  return call;
}

static void done(int status, treadle_values *values, void *ctx) {
  rig *r = ctx;
  r->calls++;
  r->look(status, values);
}

static int finish(rig *r, treadle_call *call,
                  void (*look)(int status, treadle_values *values)) {
  int before = r->calls;
  r->look = look;
  if (treadle_submit(call, -1, done, r) != 0) {
    return 0;
  }
  while (r->calls == before) {
    treadle_poll(r->loop, 1);
  }
  return 1;
}

/* --- the tests ----------------------------------------------------------------- */

static void look_at_scalars(int status, treadle_values *values) {
  treadle_value v;
  CHECK(status == 0 && treadle_values_count(values) == 8);
  CHECK(treadle_get(values, &v) == 0 && v.type == TREADLE_NIL);
  CHECK(treadle_get(values, &v) == 0 && v.type == TREADLE_BOOLEAN && v.boolean);
  CHECK(treadle_get(values, &v) == 0 && v.type == TREADLE_NUMBER &&
        isnan(v.number));
  CHECK(treadle_get(values, &v) == 0 && v.type == TREADLE_STRING &&
        v.length == 3 && memcmp(v.string, "a\0b", 3) == 0);
  CHECK(treadle_get(values, &v) == 0 && v.type == TREADLE_INT64 &&
        v.int64 == INT64_MIN);
  CHECK(treadle_get(values, &v) == 0 && v.type == TREADLE_UINT64 &&
        v.uint64 == UINT64_MAX);
  CHECK(treadle_skip(values) == 0);
  CHECK(treadle_get(values, &v) == 0 && v.type == TREADLE_NIL);
  CHECK(treadle_get(values, &v) == TREADLE_EPAYLOAD);
  CHECK(treadle_skip(values) == TREADLE_EPAYLOAD);
}

static void each_scalar_comes_back_as_it_was(void) {
  treadle_call *call;
  treadle_writer *w;
  rig r;
  CHECK(rig_open(&r));
  call = begin(&r, "echo", 8);
  w = treadle_arguments(call);
  treadle_put_nil(w);
  treadle_put_boolean(w, 1);
  treadle_put_number(w, NAN);
  treadle_put_string(w, "a\0b", 3);
  treadle_put_int64(w, INT64_MIN);
  treadle_put_uint64(w, UINT64_MAX);
  treadle_put_text(w, "skipped");
  treadle_put_nil(w);
  CHECK(finish(&r, call, look_at_scalars));
  rig_close(&r);
}

static void look_at_nested(int status, treadle_values *values) {
  treadle_value t, v, deep;
  treadle_values all = *values; /* a copy remembers the place */
  double numbers[3];
  unsigned n = 0;
  CHECK(status == 0 && treadle_values_count(values) == 1);
  CHECK(treadle_get(values, &t) == 0 && t.type == TREADLE_TABLE);
  CHECK(treadle_field(&t, "name", &v) == 0 && v.length == 1 &&
        v.string[0] == 'n');
  CHECK(treadle_field(&t, "flag", &v) == 0 && v.boolean);
  CHECK(treadle_field(&t, "none", &v) == TREADLE_EINVAL);
  CHECK(treadle_field(&v, "flag", &v) == TREADLE_EINVAL);
  CHECK(treadle_element(&t, 2, &v) == 0 && v.length == 3);
  CHECK(treadle_element(&t, 0, &v) == TREADLE_EINVAL);
  CHECK(treadle_element(&t, t.length + 1, &v) == TREADLE_EINVAL);
  CHECK(treadle_element(&t, 3, &v) == 0 &&
        treadle_field(&v, "deep", &deep) == 0 && deep.length == 3);
  CHECK(treadle_copy_numbers(&deep, numbers, 3) == 0 && numbers[2] == 5.5);
  CHECK(treadle_copy_numbers(&deep, numbers, 4) == TREADLE_EINVAL);
  CHECK(treadle_copy_numbers(&t, numbers, 2) == TREADLE_EINVAL);
  CHECK(treadle_element(&deep, 2, &v) == 0 && v.type == TREADLE_NUMBER &&
        v.number == 4);
  while (treadle_get(values, &v) == 0) { /* all that is in it */
    n++;
  }
  CHECK(n > t.length + 2 * t.pairs); /* and deeper */
  n = 0;
  for (treadle_values in = t.inside; treadle_skip(&in) == 0;) {
    n++;
  }
  CHECK(n == t.length + 2 * t.pairs);
  CHECK(treadle_skip(&all) == 0 && treadle_get(&all, &v) == TREADLE_EPAYLOAD);
}

static void a_table_is_read_by_key_by_index_and_in_order(void) {
  rig r;
  CHECK(rig_open(&r));
  CHECK(finish(&r, begin(&r, "nested", 0), look_at_nested));
  rig_close(&r);
}

static void look_at_odd(int status, treadle_values *values) {
  treadle_value v, last;
  CHECK(status == 0 && treadle_values_count(values) == 7);
  CHECK(treadle_get(values, &v) == 0 && v.type == TREADLE_OTHER); /* print */
  CHECK(treadle_get(values, &v) == 0 && v.type == TREADLE_TABLE);
  CHECK(treadle_get(values, &v) == 0 && v.number == 1);
  CHECK(treadle_get(values, &v) == 0 && v.type == TREADLE_OTHER); /* again */
  CHECK(treadle_get(values, &v) == 0 && v.type == TREADLE_OTHER); /* cdata */
  CHECK(treadle_get(values, &v) == 0 && v.type == TREADLE_OTHER); /* function */
  CHECK(treadle_get(values, &v) == 0 && v.type == TREADLE_TABLE);
  CHECK(treadle_field(&v, "last", &last) == 0 && last.length == 1);
  CHECK(treadle_field(&v, "f", &last) == 0 && last.type == TREADLE_OTHER);
  for (size_t i = 0; i < 2 * v.pairs; i++) {
    CHECK(treadle_skip(values) == 0);
  }
  CHECK(treadle_get(values, &v) == 0 && v.length == 3);
  CHECK(treadle_get(values, &v) == TREADLE_EPAYLOAD);
}

static void look_at_deep(int status, treadle_values *values) {
  treadle_value v;
  CHECK(status == 0);
  CHECK(treadle_skip(values) == 0); /* as deep as it is */
  CHECK(treadle_get(values, &v) == 0 && v.length == 6);
  CHECK(treadle_get(values, &v) == TREADLE_EPAYLOAD); /* bodies are no values */
}

static void what_only_lua_has_is_passed_over_as_a_whole(void) {
  treadle_call *call;
  rig r;
  CHECK(rig_open(&r));
  CHECK(finish(&r, begin(&r, "odd", 0), look_at_odd));
  call = begin(&r, "deep", 1);
  treadle_put_number(treadle_arguments(call), 5000);
  CHECK(finish(&r, call, look_at_deep));
  rig_close(&r);
}

static treadle_buffer *kept;

static void look_at_buffer(int status, treadle_values *values) {
  treadle_value v;
  CHECK(status == 0 && treadle_get(values, &v) == 0 &&
        v.type == TREADLE_BUFFER);
  kept = v.buffer;
  treadle_buffer_hold(kept);
  CHECK(treadle_get(values, &v) != 0 || v.type == TREADLE_OTHER);
}

static void a_buffer_is_the_same_memory_on_both_sides(void) {
  treadle_buffer *b, *none;
  treadle_call *call;
  treadle_writer *w;
  const int32_t *ints;
  float *data;
  rig r;
  CHECK(treadle_buffer_new("long", 4, &none) == TREADLE_EINVAL);
  CHECK(treadle_buffer_new("float", 4, &b) == 0);
  CHECK(treadle_buffer_count(b) == 4 && treadle_buffer_bytes(b) == 16);
  data = treadle_buffer_data(b);
  CHECK(rig_open(&r));
  call = begin(&r, "fill", 2);
  w = treadle_arguments(call);
  treadle_put_buffer(w, b);
  treadle_put_number(w, 1.5);
  CHECK(finish(&r, call, look_at_buffer));
  CHECK(kept == b && data[3] == 4.5f);
  treadle_buffer_drop(kept);
  treadle_buffer_drop(b);
  CHECK(finish(&r, begin(&r, "share", 0), look_at_buffer));
  rig_close(&r); /* its worker's state is gone, the memory stays */
  ints = treadle_buffer_data(kept);
  CHECK(treadle_buffer_count(kept) == 3 && ints[2] == -7);
  treadle_buffer_drop(kept);
}

static void a_call_that_is_not_made_gives_its_buffers_back(void) {
  treadle_buffer *b;
  treadle_call *call;
  rig r;
  CHECK(treadle_buffer_new("uint8_t", 64, &b) == 0);
  CHECK(rig_open(&r));
  for (int i = 0; i < 20; i++) { /* more than the list begins with */
    call = begin(&r, "echo", 30);
    for (int k = 0; k < i; k++) {
      treadle_put_buffer(treadle_arguments(call), b);
    }
    if (i % 2) {
      treadle_call_drop(call);
    } else { /* too few values */
      CHECK(treadle_submit(call, -1, done, &r) == TREADLE_EINVAL);
    }
  }
  rig_close(&r);
  treadle_buffer_drop(b); /* check_run finds what is left of it */
}

static void look_at_table_error(int status, treadle_values *values) {
  treadle_error e;
  treadle_value v;
  treadle_read_error(status, values, &e);
  CHECK(status == TREADLE_ETASK && strcmp(e.kind, "task") == 0);
  CHECK(e.traceback_length > 0 && e.has_value);
  CHECK(treadle_field(&e.value, "code", &v) == 0 && v.number == 7);
}

static void look_at_text_error(int status, treadle_values *values) {
  treadle_error e;
  treadle_read_error(status, values, &e);
  CHECK(e.message_length > 6 &&
        memcmp(e.message + e.message_length - 6, "not so", 6) == 0);
  CHECK(e.traceback_length > 0 && strncmp(e.traceback, "stack", 5) == 0);
}

static void look_at_no_report(int status, treadle_values *values) {
  treadle_error e;
  treadle_read_error(status, values, &e);
  CHECK(status == TREADLE_ECANCELLED && strcmp(e.kind, "cancelled") == 0);
  CHECK(strcmp(e.message, treadle_status_text(status)) == 0);
  CHECK(e.message_length == strlen(e.message) && e.traceback == NULL &&
        !e.has_value);
}

static void an_error_tells_kind_message_traceback_and_value(void) {
  treadle_call *call;
  rig r;
  CHECK(rig_open(&r));
  CHECK(finish(&r, begin(&r, "raise", 0), look_at_table_error));
  CHECK(finish(&r, begin(&r, "complain", 0), look_at_text_error));
  call = begin(&r, "wait", 0);
  r.look = look_at_no_report;
  CHECK(treadle_submit(call, -1, done, &r) == 0);
  CHECK(treadle_cancel(call) == 0);
  CHECK(r.calls == 3);
  rig_close(&r);
}

static void look_at_bytes(int status, treadle_values *values) {
  treadle_value v, field;
  treadle_values kept_values;
  CHECK(status == 0 && treadle_get(values, &v) == 0);
  CHECK(treadle_values_open(v.string, v.length, &kept_values) == 0);
  CHECK(treadle_values_count(&kept_values) == 2);
  CHECK(treadle_get(&kept_values, &v) == 0 &&
        treadle_field(&v, "a", &field) == 0 && field.number == 1);
}

static void values_are_written_to_bytes_and_read_without_a_pool(void) {
  treadle_writer *w;
  treadle_values values;
  treadle_value v, e;
  treadle_buffer *b;
  const void *bytes;
  size_t size;
  double many[300];
  rig r;
  for (int i = 0; i < 300; i++) {
    many[i] = i;
  }
  CHECK(treadle_writer_new(300, &w) == 0); /* as many as need a wide head */
  for (int i = 0; i < 299; i++) {
    treadle_put_boolean(w, i % 2);
  }
  CHECK(treadle_writer_bytes(w, &bytes, &size) == TREADLE_EINVAL);
  treadle_put_table(w, 301, 1);
  treadle_put_numbers(w, many, 300);
  treadle_put_text(w, "the last element");
  treadle_put_text(w, "key");
  treadle_put_uint64(w, 5);
  CHECK(treadle_writer_bytes(w, &bytes, &size) == 0);
  CHECK(treadle_values_open(bytes, size, &values) == 0);
  CHECK(treadle_values_count(&values) == 300);
  for (int i = 0; i < 299; i++) {
    CHECK(treadle_get(&values, &v) == 0 && v.boolean == i % 2);
  }
  CHECK(treadle_get(&values, &v) == 0 && v.length == 301);
  CHECK(treadle_element(&v, 300, &e) == 0 && e.number == 299);
  CHECK(treadle_element(&v, 301, &e) == 0 && e.type == TREADLE_STRING);
  CHECK(treadle_field(&v, "key", &e) == 0 && e.uint64 == 5);
  CHECK(treadle_get(&values, &v) == 0 && v.type == TREADLE_NUMBERS &&
        treadle_number_at(&v, 299) == 299);
  for (size_t n = 0; n < size; n++) { /* less is refused, and harms nobody */
    int status = treadle_values_open(bytes, n, &values);
    while (status == 0) {
      status = treadle_get(&values, &v);
      if (status == 0 && v.type == TREADLE_TABLE) {
        (void)treadle_field(&v, "key", &e);
        (void)treadle_element(&v, 301, &e);
      }
    }
    CHECK(status == TREADLE_EPAYLOAD);
  }
  treadle_put_nil(w); /* one too many */
  CHECK(treadle_writer_bytes(w, &bytes, &size) == TREADLE_EINVAL);
  treadle_writer_free(w);
  CHECK(treadle_buffer_new("double", 1, &b) == 0);
  CHECK(treadle_writer_new(1, &w) == 0);
  treadle_put_buffer(w, b);
  CHECK(treadle_writer_bytes(w, &bytes, &size) == TREADLE_EPAYLOAD);
  treadle_writer_free(w);
  treadle_buffer_drop(b);
  CHECK(rig_open(&r));
  CHECK(finish(&r, begin(&r, "encode", 0), look_at_bytes));
  rig_close(&r);
}

int main(void) {
  RUN(each_scalar_comes_back_as_it_was);
  RUN(a_table_is_read_by_key_by_index_and_in_order);
  RUN(what_only_lua_has_is_passed_over_as_a_whole);
  RUN(a_buffer_is_the_same_memory_on_both_sides);
  RUN(a_call_that_is_not_made_gives_its_buffers_back);
  RUN(an_error_tells_kind_message_traceback_and_value);
  RUN(values_are_written_to_bytes_and_read_without_a_pool);
  return check_any_failed;
}
