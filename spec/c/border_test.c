/* What a process may say of buffers, and what it may not: the parent's side of the
** line and of payloads, with somebody hostile at the other end. */
#include <dirent.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "check.h"
#include "codec/payload.h"
#include "codec/reader.h"
#include "run/crossing.h"
#include "share/buffer.h"
#include "treadle.h"

/* As in crossing.c; the numbers of a child have the top bit. */
typedef struct entry {
  uint64_t id, first, count, is_slice;
} entry;

#define CHILD                 (1ull << 63)
#define NUMBER(serial, place) ((uint64_t)(serial) << 16 | (place))

static int line[2];
static tdl_crossing *parent;

/* Without it there is nothing to test. */
static void must(int is_so) {
  if (!is_so) {
    abort();
  }
}

static int descriptors(void) {
  DIR *dir = opendir("/proc/self/fd");
  int n = 0;
  while (readdir(dir) != NULL) {
    n++;
  }
  closedir(dir);
  return n;
}

static void begin(void) {
  CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, line) == 0);
  CHECK(tdl_crossing_new(line[0], 1, &parent) == 0);
}

static void end(void) {
  tdl_crossing_end(parent);
  close(line[0]);
  close(line[1]);
}

static int hear(void) {
  tdl_message m;
  return tdl_crossing_hear(parent, &m);
}

static void say(uint32_t kind, uint64_t id, uint64_t a, uint64_t b,
                const char *type, int fd) {
  tdl_message m = {.kind = kind, .value = id, .length = 16};
  memcpy(m.text, &a, 8);
  memcpy(m.text + 8, &b, 8);
  memcpy(m.text + 16, type, strlen(type));
  m.length += (uint32_t)strlen(type);
  if (fd >= 0) {
    tdl_line_send_fd(line[1], &m, TDL_LINE_HEAD_BYTES + m.length, fd);
  } else {
    tdl_line_send(line[1], &m, TDL_LINE_HEAD_BYTES + m.length);
  }
}

/* What the parent says of a payload with these entries; it lets go of it. */
static int result(const entry *entries, uint32_t n) {
  static const uint8_t head[] = {0x01 | TDL_WIRE_THINGS, 0};
  uint8_t count[4];
  tdl_bytes b;
  int status;
  tdl_bytes_init(&b, NULL, 0);
  tdl_store_32(count, n);
  tdl_bytes_append(&b, head, sizeof(head));
  tdl_bytes_append(&b, entries, n * sizeof(*entries));
  tdl_bytes_append(&b, count, 4);
  status = tdl_crossing_read(parent, &b);
  tdl_payload_clear(&b);
  tdl_bytes_reset(&b, NULL, 0);
  return status;
}

static int result_of(uint64_t id, uint64_t first, uint64_t count,
                     uint64_t is_slice) {
  entry e = {id, first, count, is_slice};
  return result(&e, 1);
}

static int memory_file(int seals, off_t size) {
  int fd = memfd_create("hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  must(ftruncate(fd, size) == 0);
  must(fcntl(fd, F_ADD_SEALS, seals) == 0);
  return fd;
}

#define SEALED (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

/* Sends the parent a whole of its own, and what it may be named by. */
static uint64_t give(tdl_buffer *b) {
  uintptr_t address = (uintptr_t)b;
  uint8_t bytes[2 + sizeof(address) + 4] = {0x01 | TDL_WIRE_THINGS, 0};
  tdl_bytes payload, out;
  tdl_message m;
  uint64_t id;
  int fd;
  memcpy(bytes + 2, &address, sizeof(address));
  tdl_store_32(bytes + 2 + sizeof(address), 1);
  tdl_bytes_init(&payload, bytes, sizeof(bytes));
  payload.len = sizeof(bytes);
  tdl_bytes_init(&out, NULL, 0);
  must(tdl_crossing_write(parent, &payload, &out) == 1);
  must(out.len == tdl_crossing_bytes(&payload));
  memcpy(&id, out.data + 2, sizeof(id));
  tdl_bytes_reset(&out, NULL, 0);
  if (tdl_line_receive(line[1], &m, &fd) == 1 && fd >= 0) {
    must(m.kind == TDL_LINE_GIVE && m.value == id);
    close(fd);
  }
  return id;
}

static uint32_t refs_of(tdl_buffer *b) {
  return atomic_load_explicit(&b->counted.refs, memory_order_relaxed);
}

static void what_is_given_is_named_until_it_is_forgotten(void) {
  tdl_buffer *b;
  uint64_t id;
  begin();
  CHECK(tdl_buffer_open("int", 4, 100, &b) == 0);
  id = give(b);
  CHECK(refs_of(b) == 2);
  CHECK(give(b) == id);
  CHECK(result_of(id, 0, 100, 0) == 0);
  CHECK(result_of(id, 99, 1, 1) == 0 && result_of(id, 100, 0, 1) == 0);
  say(TDL_LINE_FORGET, id, 1, 3, "", -1); /* one is on its way */
  CHECK(hear() == 0 && refs_of(b) == 2);
  say(TDL_LINE_FORGET, id, 2, 4, "", -1); /* and one on its way back */
  CHECK(hear() == 0 && refs_of(b) == 2);
  CHECK(result_of(id, 0, 100, 0) == 0 && refs_of(b) == 1);
  CHECK(result_of(id, 0, 100, 0) == TREADLE_EINVAL);
  CHECK(give(b) != id);
  end();
  CHECK(refs_of(b) == 1);
  tdl_counted_drop(&b->counted);
}

static void numbers_and_ranges_that_are_none_end_it(void) {
  tdl_buffer *b;
  uint64_t id;
  begin();
  CHECK(tdl_buffer_open("int", 4, 100, &b) == 0);
  id = give(b);
  CHECK(result_of(0, 0, 0, 0) == TREADLE_EINVAL);
  CHECK(result_of(id + 1, 0, 100, 0) == TREADLE_EINVAL);
  CHECK(result_of(id + (1u << 16), 0, 100, 0) == TREADLE_EINVAL);
  CHECK(result_of(id | CHILD, 0, 100, 0) == TREADLE_EINVAL);
  CHECK(result_of(UINT64_MAX, 0, 100, 0) == TREADLE_EINVAL);
  CHECK(result_of((uintptr_t)b, 0, 100, 0) == TREADLE_EINVAL);
  CHECK(result_of(id, 0, 101, 1) == TREADLE_EINVAL);
  CHECK(result_of(id, 101, 0, 1) == TREADLE_EINVAL);
  CHECK(result_of(id, 1, UINT64_MAX, 1) == TREADLE_EINVAL);
  CHECK(result_of(id, UINT64_MAX, 2, 1) == TREADLE_EINVAL);
  CHECK(result_of(id, 0, 99, 0) == TREADLE_EINVAL);
  CHECK(refs_of(b) == 2);
  end();
  CHECK(refs_of(b) == 1);
  tdl_counted_drop(&b->counted);
}

static void lists_that_are_none_end_it(void) {
  static const uint8_t none[] = {0x81, 0, 0, 0, 0, 0};
  static const uint8_t many[] = {0x81, 0, 0xff, 0xff, 0xff, 0xff};
  tdl_bytes b;
  begin();
  for (uint32_t len = 0; len <= sizeof(many); len++) {
    tdl_bytes_init(&b, NULL, 0);
    tdl_bytes_append(&b, len % 2 ? none : many, len);
    CHECK(tdl_crossing_read(parent, &b) == TREADLE_EINVAL && b.len == 0);
    tdl_bytes_reset(&b, NULL, 0);
  }
  end();
}

static void counts_that_cannot_be_end_it(void) {
  tdl_buffer *b;
  uint64_t id;
  begin();
  CHECK(tdl_buffer_open("int", 4, 100, &b) == 0);
  id = give(b);
  CHECK(result_of(id, 0, 100, 0) == 0);
  say(TDL_LINE_FORGET, id, 2, 1, "", -1);
  CHECK(hear() == TREADLE_EINVAL);
  say(TDL_LINE_FORGET, id, 1, 0, "", -1);
  CHECK(hear() == TREADLE_EINVAL);
  say(TDL_LINE_FORGET, id + 1, 1, 1, "", -1);
  CHECK(hear() == TREADLE_EINVAL);
  say(TDL_LINE_GONE, id, 0, 0, "", -1);
  CHECK(hear() == TREADLE_EINVAL);
  CHECK(refs_of(b) == 2);
  end();
  tdl_counted_drop(&b->counted);
}

static void memory_that_is_none_ends_it(void) {
  int fds[] = {memory_file(0, 4096),
               memory_file(F_SEAL_SHRINK, 4096),
               memory_file(SEALED, 8192),
               memory_file(SEALED | F_SEAL_WRITE, 4096),
               open("/dev/zero", O_RDWR | O_CLOEXEC),
               open("/proc/self/exe", O_RDONLY | O_CLOEXEC)};
  int ends[2], before;
  begin();
  before = descriptors();
  for (unsigned i = 0; i < sizeof(fds) / sizeof(*fds); i++) {
    say(TDL_LINE_GIVE, CHILD | NUMBER(1, 0), 1024, 4, "int", fds[i]);
    CHECK(hear() == TREADLE_EINVAL);
  }
  CHECK(pipe2(ends, O_CLOEXEC) == 0);
  say(TDL_LINE_GIVE, CHILD | NUMBER(1, 0), 1024, 4, "int", ends[1]);
  CHECK(hear() == TREADLE_EINVAL);
  close(ends[0]);
  close(ends[1]);
  say(TDL_LINE_GIVE, CHILD | NUMBER(1, 0), 1024, 4, "int", -1);
  CHECK(hear() == TREADLE_EINVAL);
  CHECK(descriptors() == before);
  for (unsigned i = 0; i < sizeof(fds) / sizeof(*fds); i++) {
    close(fds[i]);
  }
  end();
}

static void names_and_places_that_cannot_be_end_it(void) {
  static const char *const types[] = {"char *", "struct { int x; }",
                                      "int (*)(int)", ""};
  static const uint64_t numbers[] = {NUMBER(1, 0), CHILD,
                                     CHILD | NUMBER(1, TDL_CROSSING_MOST),
                                     CHILD | NUMBER(1, 0xffff)};
  int fd = memory_file(SEALED, 4096), before;
  begin();
  before = descriptors();
  for (int i = 0; i < 4; i++) {
    say(TDL_LINE_GIVE, CHILD | NUMBER(1, 0), 1024, 4, types[i], fd);
    CHECK(hear() == TREADLE_EINVAL);
    say(TDL_LINE_GIVE, numbers[i], 1024, 4, "int", fd);
    CHECK(hear() == TREADLE_EINVAL);
  }
  CHECK(descriptors() == before);
  say(TDL_LINE_GIVE, CHILD | NUMBER(1, 0), 1024, 4, "int", fd);
  CHECK(hear() == 0);
  say(TDL_LINE_GIVE, CHILD | NUMBER(1, 0), 1024, 4, "int", fd);
  CHECK(hear() == TREADLE_EINVAL);
  say(TDL_LINE_GIVE, CHILD | NUMBER(2, 0), 1024, 4, "int", fd);
  CHECK(hear() == TREADLE_EINVAL);
  CHECK(result_of(CHILD | NUMBER(2, 0), 0, 1024, 0) == TREADLE_EINVAL);
  CHECK(result_of(CHILD | NUMBER(1, 0), 0, 1024, 0) == 0);
  end();
  CHECK(descriptors() == before - 2);
  close(fd);
}

static void ten_thousand_descriptors_are_not_taken(void) {
  int fd = memory_file(SEALED, 4096), before, heard = 0, most = 0;
  before = descriptors();
  begin();
  for (uint32_t i = 0; i < 10000 && heard == 0; i++) {
    say(TDL_LINE_GIVE, CHILD | NUMBER(i + 1, i % 0x10000), 1024, 4, "int", fd);
    heard = hear();
    most++;
  }
  CHECK(heard == TREADLE_EINVAL && most == TDL_CROSSING_MOST + 1);
  end();
  CHECK(descriptors() == before);
  close(fd);
}

static void several_in_one_message_are_not_taken(void) {
  int fds[100], before;
  union {
    struct cmsghdr head;
    char room[CMSG_SPACE(sizeof(fds))];
  } control;
  tdl_message m = {.kind = TDL_LINE_WAKE};
  struct iovec part = {&m, TDL_LINE_HEAD_BYTES};
  struct msghdr message = {.msg_iov = &part,
                           .msg_iovlen = 1,
                           .msg_control = &control,
                           .msg_controllen = sizeof(control.room)};
  begin();
  before = descriptors();
  for (int i = 0; i < 100; i++) {
    fds[i] = line[1];
  }
  control.head.cmsg_level = SOL_SOCKET;
  control.head.cmsg_type = SCM_RIGHTS;
  control.head.cmsg_len = CMSG_LEN(sizeof(fds));
  memcpy(CMSG_DATA(&control.head), fds, sizeof(fds));
  CHECK(sendmsg(line[1], &message, 0) == TDL_LINE_HEAD_BYTES);
  CHECK(hear() == 1);
  CHECK(descriptors() == before);
  end();
}

/* What Lua takes by the FFI, as the quick way of results does, has these bits. */
static void numbers_are_no_forged_values(void) {
  static const uint64_t forged[] = {UINT64_C(0xfffa000000001000),
                                    UINT64_C(0xffffffffffffffff),
                                    UINT64_C(0x7ff0000000000001)};
  for (int i = 0; i < 3; i++) {
    uint8_t bytes[11] = {TDL_WIRE_VERSION, 1, TDL_TAG_NUMBER};
    tdl_reader reader;
    tdl_item item;
    uint32_t count;
    uint64_t bits;
    uint8_t flags;
    tdl_store_64(bytes + 3, forged[i]);
    CHECK(tdl_get_begin(&reader, bytes, sizeof(bytes), &count, &flags) == 0);
    CHECK(tdl_get_value(&reader, &item) == 0);
    memcpy(&bits, &item.number, sizeof(bits));
    CHECK(bits == UINT64_C(0x7ff8000000000000));
  }
}

int main(void) {
  RUN(numbers_are_no_forged_values);
  RUN(what_is_given_is_named_until_it_is_forgotten);
  RUN(numbers_and_ranges_that_are_none_end_it);
  RUN(lists_that_are_none_end_it);
  RUN(counts_that_cannot_be_end_it);
  RUN(memory_that_is_none_ends_it);
  RUN(names_and_places_that_cannot_be_end_it);
  RUN(ten_thousand_descriptors_are_not_taken);
  RUN(several_in_one_message_are_not_taken);
  return check_any_failed;
}
