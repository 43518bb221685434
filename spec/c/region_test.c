/* Memory of several processes: what a child may do with it, what it may not, and
** what happens where the kernel gives none. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/region.h"
#include "check.h"
#include "config.h"
#include "treadle.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static size_t page(void) {
  return (size_t)sysconf(_SC_PAGESIZE);
}

/* The lowest descriptor that is free: one that is left behind moves it. */
static int next_fd(void) {
  int fd = dup(STDERR_FILENO);
  close(fd);
  return fd;
}

/* Runs `body` in a child; 1 when it says 1. */
static int in_child(int (*body)(void *), void *arg) {
  pid_t child;
  int status;
  fflush(stdout);
  child = fork();
  if (child == 0) {
    _exit(body(arg) == 1 ? 0 : 1);
  }
  return child > 0 && waitpid(child, &status, 0) == child &&
         WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* --- what it is ----------------------------------------------------------- */

static void a_region_is_zeroed_and_all_of_it_there(void) {
  static const size_t sizes[] = {0, 1, 4096, 4097, 1 << 20, (3 << 20) + 5};
  int fd = next_fd();
  for (size_t k = 0; k < sizeof(sizes) / sizeof(*sizes); k++) {
    tdl_region r = TDL_REGION_NONE;
    struct stat file;
    uint8_t any = 0;
    CHECK(tdl_region_open(sizes[k], &r) == 0);
    CHECK(r.bytes >= sizes[k] && r.bytes < sizes[k] + page() + (sizes[k] == 0));
    CHECK(r.bytes % page() == 0 && (uintptr_t)r.data % page() == 0);
    CHECK(fstat(r.fd, &file) == 0 && (size_t)file.st_size == r.bytes);
    CHECK((size_t)file.st_blocks * 512 == r.bytes); /* G2 */
    CHECK(fcntl(r.fd, F_GETFD) & FD_CLOEXEC);
    for (size_t i = 0; i < r.bytes; i++) {
      any |= r.data[i];
    }
    CHECK(any == 0);
    memset(r.data, 0xff, r.bytes);
    tdl_region_close(&r);
    CHECK(r.fd == -1 && r.data == NULL);
    tdl_region_close(&r); /* twice */
  }
  CHECK(next_fd() == fd);
}

static void maps_tell_its_name(void) {
  char line[512];
  tdl_region r;
  FILE *maps;
  int found = 0;
  CHECK(tdl_region_open(1, &r) == 0);
  maps = fopen("/proc/self/maps", "r");
  CHECK(maps != NULL);
  while (fgets(line, sizeof(line), maps) != NULL) {
    found |= strtoul(line, NULL, 16) == (uintptr_t)r.data &&
             strstr(line, " rw-s ") != NULL &&
             strstr(line, "/memfd:" TDL_REGION_NAME " (deleted)") != NULL;
  }
  fclose(maps);
  CHECK(found);
  tdl_region_close(&r);
}

/* --- what others may do with it ------------------------------------------- */

static int is_refused(int result) {
  return result == -1 && errno == EPERM;
}

/* Each is denied, by the seals of its maker. */
static int cannot_be_changed(int fd, size_t bytes) {
  off_t size = (off_t)bytes;
  return is_refused(ftruncate(fd, 0)) && is_refused(ftruncate(fd, size - 1)) &&
         is_refused(ftruncate(fd, size + 1)) &&
         is_refused(fallocate(fd, 0, 0, size + 1)) &&
         is_refused(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE)) &&
         is_refused(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE)) &&
         is_refused((int)pwrite(fd, "x", 1, size));
}

/* Linux 6.3 */
static int has_noexec(void) {
  int fd = memfd_create("probe", MFD_CLOEXEC | 0x0008U);
  return fd >= 0 && close(fd) == 0;
}

static void nobody_changes_its_size_or_seals(void) {
  tdl_region r;
  struct stat file;
  CHECK(tdl_region_open(3 * page(), &r) == 0);
  CHECK(fcntl(r.fd, F_GET_SEALS) >= 0);
  CHECK((fcntl(r.fd, F_GET_SEALS) & SEALS) == SEALS);
  CHECK(cannot_be_changed(r.fd, r.bytes));
  CHECK(fstat(r.fd, &file) == 0 && (size_t)file.st_size == 3 * page());
  CHECK((file.st_mode & 0111) == 0 || !has_noexec());
  tdl_region_close(&r);
}

/* What a child does that means harm; it ends in the middle of it. */
static void be_hostile(int fd, size_t bytes) {
  tdl_region own;
  off_t size = (off_t)bytes;
  if (tdl_region_adopt(dup(fd), bytes, &own) != 0) {
    _exit(1);
  }
  if (!cannot_be_changed(own.fd, own.bytes) ||
      fallocate(own.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, size) !=
          0) {
    _exit(2);
  }
  own.data[page()] = 42;
  close(fd);
  kill(getpid(), SIGKILL);
  _exit(3);
}

static void a_hostile_child_leaves_it_whole(void) {
  tdl_region r;
  pid_t child;
  int status;
  CHECK(tdl_region_open(3 * page(), &r) == 0);
  memset(r.data, 7, r.bytes);
  child = fork();
  if (child == 0) {
    be_hostile(r.fd, r.bytes);
  }
  CHECK(child > 0 && waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  CHECK(r.data[page()] == 42 && r.data[0] == 0); /* G3: a hole reads as zeros */
  memset(r.data, 1, r.bytes);
  CHECK(r.data[r.bytes - 1] == 1);
  tdl_region_close(&r);
}

/* --- descriptors from elsewhere ------------------------------------------- */

static void who_adopts_it_sees_the_same_memory(void) {
  int fd = next_fd();
  tdl_region r, other;
  CHECK(tdl_region_open(5000, &r) == 0);
  CHECK(tdl_region_adopt(dup(r.fd), 5000, &other) == 0);
  CHECK(other.bytes == r.bytes && other.data != r.data && other.fd != r.fd);
  CHECK(fcntl(other.fd, F_GETFD) & FD_CLOEXEC); /* dup has none */
  other.data[4999] = 9;
  CHECK(r.data[4999] == 9);
  tdl_region_close(&r);
  CHECK(other.data[4999] == 9);
  tdl_region_close(&other);
  CHECK(next_fd() == fd);
}

/* 1 when the descriptor is refused, and stays; closes it. */
static int is_no_region(int fd, size_t bytes) {
  tdl_region r = TDL_REGION_NONE;
  return tdl_region_adopt(fd, bytes, &r) == TREADLE_EINVAL && r.fd == -1 &&
         close(fd) == 0;
}

static int sealed(unsigned flags, size_t bytes, int seals) {
  int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);
  if (fd >= 0 && (ftruncate(fd, (off_t)bytes) != 0 ||
                  (seals != 0 && fcntl(fd, F_ADD_SEALS, seals) != 0))) {
    close(fd);
    fd = -1;
  }
  return fd;
}

static void what_lacks_a_seal_is_refused(void) {
  size_t n = page();
  int fd = next_fd();
  tdl_region r;
  CHECK(is_no_region(sealed(0, n, 0), n));
  CHECK(is_no_region(sealed(0, n, SEALS & ~F_SEAL_SHRINK), n));
  CHECK(is_no_region(sealed(0, n, SEALS & ~F_SEAL_GROW), n));
  CHECK(is_no_region(sealed(0, n, SEALS & ~F_SEAL_SEAL), n));
  CHECK(is_no_region(sealed(0, n, SEALS | F_SEAL_WRITE), n));
  CHECK(is_no_region(sealed(0, n, SEALS | F_SEAL_FUTURE_WRITE), n));
  CHECK(next_fd() == fd);
  CHECK(tdl_region_adopt(sealed(0, n, SEALS), n, &r) == 0);
  tdl_region_close(&r);
}

static void another_size_is_refused(void) {
  size_t n = page();
  CHECK(is_no_region(sealed(0, n, SEALS), n + 1));
  CHECK(is_no_region(sealed(0, 2 * n, SEALS), n));
  CHECK(is_no_region(sealed(0, n - 1, SEALS), n));
  CHECK(is_no_region(sealed(0, 0, SEALS), 0));
  CHECK(is_no_region(sealed(0, n, SEALS), SIZE_MAX));
  CHECK(is_no_region(sealed(0, n, SEALS), 0x8000000000000000u));
}

static void what_is_no_memory_file_is_refused(void) {
  tdl_region r = TDL_REGION_NONE, half;
  char path[64];
  int ends[2], huge = sealed(MFD_HUGETLB, (size_t)2 << 20, SEALS);
  CHECK(tdl_region_adopt(-1, 1, &r) == TREADLE_EINVAL);
  CHECK(tdl_region_adopt(next_fd(), 1, &r) == TREADLE_EINVAL);
  CHECK(pipe(ends) == 0);
  CHECK(is_no_region(ends[0], 1) && is_no_region(ends[1], 1));
  CHECK(is_no_region(open("/proc/self/exe", O_RDONLY), 1));
  CHECK(is_no_region(open("/", O_PATH), 1));
  CHECK(huge == -1 || is_no_region(huge, (size_t)2 << 20));
  CHECK(tdl_region_open(1, &half) == 0);
  snprintf(path, sizeof(path), "/proc/self/fd/%d", half.fd);
  CHECK(is_no_region(open(path, O_RDONLY), 1));
  CHECK(is_no_region(open(path, O_PATH), 1));
  tdl_region_close(&half);
  CHECK(r.data == NULL && r.fd == -1);
}

/* --- where there is none -------------------------------------------------- */

static void sizes_that_no_machine_has_are_refused(void) {
  static const size_t sizes[] = {SIZE_MAX, PTRDIFF_MAX, PTRDIFF_MAX - 4096,
                                 (size_t)1 << 60, (size_t)1 << 46};
  int fd = next_fd();
  tdl_region r = TDL_REGION_NONE;
  struct rlimit before, small = {64 << 20, 0};
  CHECK(getrlimit(RLIMIT_FSIZE, &before) == 0);
  small.rlim_max = before.rlim_max; /* who tries it does not fill the machine */
  CHECK(setrlimit(RLIMIT_FSIZE, &small) == 0);
  for (size_t k = 0; k < sizeof(sizes) / sizeof(*sizes); k++) {
    CHECK(tdl_region_open(sizes[k], &r) == TREADLE_ENOMEM);
  }
  CHECK(setrlimit(RLIMIT_FSIZE, &before) == 0);
  CHECK(r.fd == -1 && next_fd() == fd);
}

/* A child with a limit of its own: of what, how much, what comes of it. */
typedef struct limit {
  unsigned resource;
  rlim_t most;
  int status, error;
} limit;

static int be_limited(void *arg) {
  const limit *l = arg;
  struct rlimit most;
  tdl_region r = TDL_REGION_NONE;
  int status;
  if (getrlimit(l->resource, &most) != 0) {
    return 0;
  }
  most.rlim_cur = l->most;
  if (setrlimit(l->resource, &most) != 0) {
    return 0;
  }
  errno = 0;
  status = tdl_region_open((size_t)8 << 20, &r);
  return status == l->status && r.fd == -1 &&
         (l->error == 0 || errno == l->error);
}

static void a_limit_is_a_status_and_no_signal(void) {
  limit files = {RLIMIT_NOFILE, 0, TREADLE_ESYSTEM, EMFILE};
  limit size = {RLIMIT_FSIZE, (8 << 20) - 1, TREADLE_ESYSTEM, EFBIG};
  files.most = (rlim_t)next_fd();
  CHECK(in_child(be_limited, &files));
  CHECK(in_child(be_limited, &size));
  size.most = 8 << 20;
  CHECK(!in_child(be_limited, &size)); /* so much may be */
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
static void a_full_address_space_is_no_memory(void) {
  limit space = {RLIMIT_AS, 1 << 20, TREADLE_ENOMEM, 0};
  CHECK(in_child(be_limited, &space));
}
#endif

static void hear(int signal) {
  (void)signal;
}

static int be_disturbed(void *arg) {
  static const struct itimerval often = {{0, 100}, {0, 100}};
  struct sigaction action;
  tdl_region r;
  (void)arg;
  memset(&action, 0, sizeof(action));
  action.sa_handler = hear;
  return sigaction(SIGALRM, &action, NULL) == 0 &&
         setitimer(ITIMER_REAL, &often, NULL) == 0 &&
         tdl_region_open((size_t)64 << 20, &r) == 0;
}

static void signals_do_not_keep_it_from_getting_there(void) {
  CHECK(in_child(be_disturbed, NULL));
}

/* A kernel that answers `error` to a system call whose argument `arg` (0: the
** first) has one of the bits, or is `is`. */
typedef struct kernel {
  long call;
  unsigned arg;
  uint32_t bits, is;
  int error;  /* what the kernel says */
  int status; /* what comes of it */
} kernel;

#define LOW(arg) ((uint32_t)(offsetof(struct seccomp_data, args) + 8 * (arg)))

static int run_on(void *arg) {
  const kernel *k = arg;
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)k->call, 0, 4),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, LOW(k->arg)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, k->is, 1, 0),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, k->bits, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)k->error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {sizeof(code) / sizeof(*code), code};
  tdl_region r = TDL_REGION_NONE;
  int status, fd = next_fd();
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    return 0;
  }
  errno = 0;
  status = tdl_region_open((size_t)2 << 20, &r);
  if (status != k->status || (status != 0 && (r.fd != -1 || next_fd() != fd))) {
    return 0;
  }
  if (status == TREADLE_ESYSTEM) {
    return errno == k->error;
  }
  return status != 0 || cannot_be_changed(r.fd, r.bytes);
}

static void what_a_kernel_refuses_is_a_status_and_leaves_nothing(void) {
  const uint32_t none = 0, never = 0xffffffffu;
  kernel kernels[] = {
      /* no flag MFD_NOEXEC_SEAL: it goes without */
      {SYS_memfd_create, 1, 0x0008, never, EINVAL, 0},
      {SYS_memfd_create, 1, never, never, ENOSYS, TREADLE_ESYSTEM},
      {SYS_memfd_create, 1, never, never, ENOMEM, TREADLE_ENOMEM},
      {SYS_fallocate, 1, none, 0, ENOSPC, TREADLE_ENOMEM},
      {SYS_fallocate, 1, none, 0, EOPNOTSUPP, TREADLE_ESYSTEM},
      {SYS_fcntl, 1, none, F_ADD_SEALS, EINVAL, TREADLE_ESYSTEM},
      {SYS_mmap, 3, MAP_SHARED, never, ENOMEM, TREADLE_ENOMEM},
  };
  for (size_t i = 0; i < sizeof(kernels) / sizeof(*kernels); i++) {
    CHECK(in_child(run_on, &kernels[i]));
  }
}

#ifdef TDL_TEST_ALLOC
static void without_memory_nothing_is_made(void) {
  int fd = next_fd();
  tdl_region r = TDL_REGION_NONE, other = TDL_REGION_NONE;
  for (long n = 0; n < 2; n++) {
    tdl_alloc_fail_in(TDL_ALLOC_OWN, n);
    CHECK(tdl_region_open(1, &r) == TREADLE_ENOMEM);
  }
  CHECK(r.fd == -1 && next_fd() == fd);
  CHECK(tdl_region_open(1, &r) == 0);
  tdl_alloc_fail_in(TDL_ALLOC_OWN, 0);
  CHECK(tdl_region_adopt(r.fd, 1, &other) == TREADLE_ENOMEM);
  CHECK(other.fd == -1 && fcntl(r.fd, F_GETFD) >= 0);
  tdl_region_close(&r);
}
#endif

/* --- what is shown (G4) ---------------------------------------------------- */

/* Opened anew, as a process may that has only a descriptor. */
static int reopen(int fd, int how) {
  char path[64];
  snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
  return open(path, how | O_CLOEXEC);
}

static int is_denied(const void *pages) {
  return pages == MAP_FAILED && errno == EPERM;
}

static int can_only_read(void *arg) {
  const tdl_region *r = arg;
  int all = PROT_READ | PROT_WRITE, hole = FALLOC_FL_PUNCH_HOLE;
  int fd = reopen(r->fd, O_RDWR);
  const uint8_t *seen = NULL;
  uint8_t *pages = mmap(NULL, r->bytes, PROT_READ, MAP_SHARED, fd, 0);
  int ok = fd >= 0 && pages != MAP_FAILED &&
           is_denied(mmap(NULL, r->bytes, all, MAP_SHARED, fd, 0)) &&
           is_denied(mmap(NULL, r->bytes, PROT_WRITE, MAP_SHARED, r->fd, 0)) &&
           mprotect(pages, 1, PROT_WRITE) != 0 && write(fd, "x", 1) < 0 &&
           pwrite(r->fd, "x", 1, 0) < 0 && ftruncate(fd, 0) != 0 &&
           fallocate(fd, hole | FALLOC_FL_KEEP_SIZE, 0, (off_t)page()) != 0 &&
           fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) != 0 &&
           tdl_region_see(r->fd, r->bytes, &seen) == 0 && seen[0] == 7 &&
           seen[r->bytes - 1] == 9;
  if (seen != NULL) {
    tdl_free_pages((uint8_t *)(uintptr_t)seen, r->bytes);
  }
  munmap(pages, r->bytes);
  close(fd);
  return ok;
}

static void what_is_shown_is_read_by_others_and_written_by_its_maker(void) {
  int fd = next_fd();
  tdl_region r;
  CHECK(tdl_region_open_shown(100000, &r) == 0);
  r.data[0] = 7;
  r.data[r.bytes - 1] = 9; /* G1 to G3 hold, and the mapping is what it was */
  CHECK(in_child(can_only_read, &r));
  CHECK(can_only_read(&r) == 1);
  r.data[1] = 8;
  CHECK(r.data[0] == 7 && r.data[1] == 8);
  tdl_region_close(&r);
  CHECK(next_fd() == fd);
}

static void what_is_not_shown_is_not_seen(void) {
  const uint8_t *seen = NULL;
  tdl_region sparse, shown, other;
  CHECK(tdl_region_open_sparse(100000, &sparse) == 0);
  CHECK(tdl_region_open_shown(100000, &shown) == 0);
  CHECK(tdl_region_see(sparse.fd, 100000, &seen) == TREADLE_EINVAL);
  CHECK(tdl_region_see(shown.fd, 200000, &seen) == TREADLE_EINVAL);
  CHECK(tdl_region_see(shown.fd, 0, &seen) == TREADLE_EINVAL);
  CHECK(tdl_region_see(-1, 100000, &seen) == TREADLE_EINVAL && seen == NULL);
  CHECK(tdl_region_adopt(shown.fd, 100000, &other) == TREADLE_EINVAL);
  tdl_region_close(&sparse);
  tdl_region_close(&shown);
}

int main(void) {
  RUN(a_region_is_zeroed_and_all_of_it_there);
  RUN(maps_tell_its_name);
  RUN(nobody_changes_its_size_or_seals);
  RUN(a_hostile_child_leaves_it_whole);
  RUN(who_adopts_it_sees_the_same_memory);
  RUN(what_lacks_a_seal_is_refused);
  RUN(another_size_is_refused);
  RUN(what_is_no_memory_file_is_refused);
  RUN(sizes_that_no_machine_has_are_refused);
  RUN(a_limit_is_a_status_and_no_signal);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  RUN(a_full_address_space_is_no_memory);
#endif
  RUN(signals_do_not_keep_it_from_getting_there);
  RUN(what_a_kernel_refuses_is_a_status_and_leaves_nothing);
#ifdef TDL_TEST_ALLOC
  RUN(without_memory_nothing_is_made);
#endif
  RUN(what_is_shown_is_read_by_others_and_written_by_its_maker);
  RUN(what_is_not_shown_is_not_seen);
  return check_any_failed;
}
