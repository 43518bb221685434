/* Policies as values, and what the kernel makes of them: for one thread, for a
** process. Each confined piece runs in a child process or a thread of its own. */
#include "../../src/confine/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <netinet/in.h>
#include <unistd.h>

#include "../../src/confine/filter.h"
#include "../../src/confine/landlock.h"
#include "../../src/treadle.h"
#include "check.h"

static char why[256];

static tdl_policy *new_policy(void) {
  tdl_policy *p = NULL;
  if (tdl_policy_new(&p) != 0) {
    abort();
  }
  return p;
}

/* --- bytes ---------------------------------------------------------------- */

static tdl_policy *full_policy(void) {
  tdl_policy *p = new_policy();
  p->may = TDL_MAY_START | TDL_MAY_FFI;
  p->memory_bytes = UINT64_C(1) << 40;
  p->cpu_seconds = 7;
  p->files = 64;
  if (tdl_policy_add_path(p, "/usr/lib", TDL_MAY_READ) != 0 ||
      tdl_policy_add_path(p, "/tmp", TDL_MAY_READ | TDL_MAY_WRITE) != 0 ||
      tdl_policy_add_path(p, "/bin/sh", TDL_MAY_RUN) != 0 ||
      tdl_policy_add_port(p, 443, TDL_MAY_CONNECT) != 0 ||
      tdl_policy_add_port(p, 65535, TDL_MAY_BIND) != 0 ||
      tdl_policy_add_env(p, "HOME") != 0) {
    abort();
  }
  return p;
}

static void a_policy_comes_back_from_its_bytes(void) {
  tdl_policy *p = full_policy(), *q = NULL;
  tdl_bytes bytes, again;
  tdl_bytes_init(&bytes, NULL, 0);
  tdl_bytes_init(&again, NULL, 0);
  CHECK(tdl_policy_write(p, &bytes) == 0);
  CHECK(tdl_policy_read(bytes.data, bytes.len, &q) == 0);
  CHECK(q->may == p->may && q->memory_bytes == p->memory_bytes);
  CHECK(q->cpu_seconds == 7 && q->files == 64);
  CHECK(q->grant_count == 3 && strcmp(q->grants[1].path, "/tmp") == 0);
  CHECK(q->grants[1].access == (TDL_MAY_READ | TDL_MAY_WRITE));
  CHECK(q->port_count == 2 && q->ports[1].port == 65535);
  CHECK(q->ports[1].how == TDL_MAY_BIND);
  CHECK(tdl_policy_has_env(q, "HOME") && !tdl_policy_has_env(q, "PATH"));
  CHECK(tdl_policy_write(q, &again) == 0);
  CHECK(again.len == bytes.len &&
        memcmp(again.data, bytes.data, bytes.len) == 0);
  tdl_policy_free(p);
  tdl_policy_free(q);
  tdl_bytes_reset(&bytes, NULL, 0);
  tdl_bytes_reset(&again, NULL, 0);
}

/* In memory of its very size, so that a read beyond it is seen. */
static int reads(const uint8_t *data, size_t size) {
  uint8_t *exact = malloc(size + (size == 0));
  tdl_policy *q = NULL;
  int status;
  memcpy(exact, data, size);
  status = tdl_policy_read(exact, size, &q);
  free(exact);
  if (status == 0) {
    tdl_policy_free(q);
  }
  return status == 0;
}

static void bytes_that_end_early_or_late_are_no_policy(void) {
  tdl_policy *p = full_policy();
  tdl_bytes bytes;
  int early = 0, late;
  tdl_bytes_init(&bytes, NULL, 0);
  CHECK(tdl_policy_write(p, &bytes) == 0);
  tdl_policy_free(p);
  for (uint32_t n = 0; n < bytes.len; n++) {
    early += reads(bytes.data, n);
  }
  CHECK(tdl_bytes_append(&bytes, "", 1) == 0);
  late = reads(bytes.data, bytes.len);
  tdl_bytes_reset(&bytes, NULL, 0);
  CHECK(early == 0 && !late);
}

static void forged_bytes_are_refused_or_a_policy_but_read_no_further(void) {
  tdl_policy *p = full_policy();
  unsigned seed = check_seed();
  tdl_bytes bytes;
  tdl_bytes_init(&bytes, NULL, 0);
  CHECK(tdl_policy_write(p, &bytes) == 0);
  tdl_policy_free(p);
  for (int round = 0; round < 20000; round++) {
    uint32_t at = (unsigned)rand_r(&seed) % bytes.len;
    uint8_t was = bytes.data[at];
    bytes.data[at] = (uint8_t)rand_r(&seed);
    (void)reads(bytes.data, bytes.len);
    bytes.data[at] = was;
  }
  tdl_bytes_reset(&bytes, NULL, 0);
}

static void what_is_no_path_port_or_variable_is_refused(void) {
  tdl_policy *p = new_policy();
  int bad = 0;
  bad += tdl_policy_add_path(p, "relative", TDL_MAY_READ) == TREADLE_EINVAL;
  bad += tdl_policy_add_path(p, "", TDL_MAY_READ) == TREADLE_EINVAL;
  bad += tdl_policy_add_path(p, "/", 0) == TREADLE_EINVAL;
  bad += tdl_policy_add_path(p, "/", 8) == TREADLE_EINVAL;
  bad += tdl_policy_add_port(p, 65536, TDL_MAY_BIND) == TREADLE_EINVAL;
  bad += tdl_policy_add_port(p, 80, 0) == TREADLE_EINVAL;
  bad += tdl_policy_add_env(p, "A=B") == TREADLE_EINVAL;
  bad += tdl_policy_add_env(p, "") == TREADLE_EINVAL;
  tdl_policy_free(p);
  CHECK(bad == 8);
}

/* --- what cannot be enforced ---------------------------------------------- */

static void what_an_older_kernel_cannot_enforce_is_said(void) {
  tdl_policy *p = new_policy();
  const char *none = tdl_landlock_lacks(p, 0);
  const char *old = tdl_landlock_lacks(p, 2);
  const char *fine = tdl_landlock_lacks(p, 3), *ports, *net;
  int added = tdl_policy_add_port(p, 80, TDL_MAY_CONNECT);
  ports = tdl_landlock_lacks(p, 3);
  p->may = TDL_MAY_NET;
  net = tdl_landlock_lacks(p, 5);
  tdl_policy_free(p);
  CHECK(added == 0 && none != NULL && old != NULL && fine == NULL);
  CHECK(ports != NULL && strstr(ports, "ports") != NULL);
  CHECK(net != NULL && strstr(net, "abstract") != NULL);
}

static void limits_and_the_ffi_are_not_for_a_thread(void) {
  tdl_policy *p = new_policy();
  int plain = tdl_confine_check(p, 0, why, sizeof(why)), limited, ffi, process;
  p->memory_bytes = 1;
  limited = tdl_confine_check(p, 0, why, sizeof(why));
  p->memory_bytes = 0;
  p->may = TDL_MAY_FFI;
  ffi = tdl_confine_check(p, 0, why, sizeof(why));
  process = tdl_confine_check(p, 1, why, sizeof(why));
  tdl_policy_free(p);
  CHECK(plain == 0 && process == 0);
  CHECK(limited == TREADLE_EPERMISSION && ffi == TREADLE_EPERMISSION);
}

/* --- a thread ------------------------------------------------------------- */

typedef struct attempt {
  const tdl_policy *policy;
  void (*try)(struct attempt *);
  int status, done, denied;
} attempt;

static void note(attempt *a, int failed) {
  a->done++;
  a->denied += failed && (errno == EPERM || errno == EACCES);
}

static int opens(const char *path, int flags) {
  int fd = open(path, flags | O_CLOEXEC);
  if (fd >= 0) {
    close(fd);
  }
  return fd >= 0;
}

static void *no_thread(void *arg) {
  return arg;
}

static void try_everything(attempt *a) {
  pthread_t thread;
  int sockets[2], error;
  note(a, !opens("/etc/passwd", O_RDONLY));
  note(a, !opens("/proc/self/mem", O_RDWR));
  note(a, !opens("/proc/1/environ", O_RDONLY));
  note(a, !opens("/tmp", O_TMPFILE | O_RDWR));
  note(a, socket(AF_INET, SOCK_STREAM, 0) < 0);
  note(a, socket(AF_UNIX, SOCK_STREAM, 0) < 0);
  note(a, socket(AF_NETLINK, SOCK_RAW, 0) < 0);
  note(a, socket(AF_VSOCK, SOCK_STREAM, 0) < 0);
  note(a, socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) < 0);
  note(a, syscall(SYS_fork) < 0);
  note(a, execl("/bin/true", "true", (char *)NULL) < 0);
  note(a, kill(getpid(), 0) < 0);
  note(a, syscall(SYS_tgkill, 1, 1, 0) < 0);
  note(a, syscall(SYS_ptrace, 0, 0, 0, 0) < 0);
  note(a, syscall(SYS_process_vm_readv, getppid(), 0, 0, 0, 0, 0) < 0);
  note(a, syscall(SYS_pidfd_open, getppid(), 0) < 0);
  note(a, syscall(SYS_io_uring_setup, 1, NULL) < 0);
  note(a, syscall(SYS_bpf, 0, NULL, 0) < 0);
  note(a, syscall(SYS_userfaultfd, 0) < 0);
  note(a, syscall(SYS_perf_event_open, NULL, 0, 0, 0, 0) < 0);
  note(a, syscall(SYS_keyctl, 0, 0, 0, 0, 0) < 0);
  note(a, syscall(SYS_mount, "none", "/mnt", "tmpfs", 0, NULL) < 0);
  note(a, syscall(SYS_unshare, 0x10000000) < 0);
  note(a, syscall(SYS_setns, 0, 0) < 0);
  note(a, syscall(SYS_memfd_create, "x", 0) < 0);
  note(a, syscall(SYS_open_by_handle_at, 0, NULL, 0) < 0);
  note(a, chdir("/") < 0);
  note(a, chroot("/") < 0);
  note(a, chmod("/tmp", 01777) < 0);
  note(a, chown("/tmp", 0, 0) < 0);
  note(a, syscall(SYS_setuid, 0) < 0); /* glibc asks all threads */
  note(a, prctl(PR_SET_DUMPABLE, 1) < 0);
  note(a, fcntl(0, F_SETOWN, 1) < 0);
  error = pthread_create(&thread, NULL, no_thread, NULL); /* C2 */
  errno = error;
  note(a, error != 0);
}

static void *confined(void *arg) {
  attempt *a = arg;
  a->status = tdl_confine_thread(a->policy, why, sizeof(why));
  if (a->status == 0) {
    a->try(a);
  }
  return NULL;
}

static int in_a_thread(attempt *a) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, confined, a) != 0) {
    return -1;
  }
  pthread_join(thread, NULL);
  return a->status;
}

static void a_thread_is_denied_what_is_not_listed(void) {
  tdl_policy *p = new_policy();
  attempt a = {p, try_everything, 0, 0, 0};
  int status = in_a_thread(&a);
  tdl_policy_free(p);
  CHECK(status == 0);
  CHECK(a.done == 34 && a.denied == a.done);
}

static void the_others_of_its_process_are_not_confined(void) {
  pthread_t thread;
  int fd;
  CHECK(opens("/etc/passwd", O_RDONLY));
  CHECK(prctl(PR_GET_NO_NEW_PRIVS) == 0 && prctl(PR_GET_SECCOMP) == 0);
  fd = socket(AF_UNIX, SOCK_STREAM, 0);
  CHECK(fd >= 0);
  close(fd);
  CHECK(pthread_create(&thread, NULL, no_thread, NULL) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
}

static char folder[] = "/tmp/confine_test.XXXXXX";

static const char *in_folder(const char *name) {
  static char path[128];
  snprintf(path, sizeof(path), "%s/%s", folder, name);
  return path;
}

static int make_file(const char *name) {
  int fd = open(in_folder(name), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  return fd >= 0 && write(fd, "text", 4) == 4 && close(fd) == 0;
}

/* Its files are read, and nothing else is done to them. */
static void try_reading(attempt *a) {
  char other[128];
  a->denied = opens(in_folder("file"), O_RDONLY);
  a->done = 1;
  note(a, !opens(in_folder("file"), O_WRONLY));
  note(a, !opens(in_folder("new"), O_WRONLY | O_CREAT));
  note(a, truncate(in_folder("file"), 0) < 0);
  note(a, unlink(in_folder("file")) < 0);
  snprintf(other, sizeof(other), "%s/other", folder);
  note(a, rename(in_folder("file"), other) < 0);
  note(a, link(in_folder("file"), other) < 0);
  note(a, symlink("/etc/passwd", other) < 0);
  note(a, mkdir(other, 0700) < 0);
  note(a, mkfifo(other, 0600) < 0);
}

static void a_folder_to_read_is_not_written(void) {
  tdl_policy *p = new_policy();
  attempt a = {p, try_reading, 0, 0, 0};
  int status = tdl_policy_add_path(p, folder, TDL_MAY_READ);
  status = status != 0 ? status : in_a_thread(&a);
  tdl_policy_free(p);
  CHECK(status == 0 && a.done == 10 && a.denied == a.done);
}

static void try_writing(attempt *a) {
  char other[128];
  snprintf(other, sizeof(other), "%s/other", folder);
  a->denied = opens(in_folder("file"), O_RDWR) &&
              rename(in_folder("file"), other) == 0 &&
              rename(other, in_folder("file")) == 0 &&
              mkdir(other, 0700) == 0 && rmdir(other) == 0;
  a->done = 1;
  note(a, symlink("/etc/passwd", other) < 0);
  note(a, link("/etc/passwd", other) < 0 && (errno = EPERM));
  note(a, rename("/etc/hostname", other) < 0 && (errno = EPERM));
}

static void a_folder_to_write_takes_files_but_no_links_out_of_it(void) {
  tdl_policy *p = new_policy();
  attempt a = {p, try_writing, 0, 0, 0};
  int status = tdl_policy_add_path(p, folder, TDL_MAY_READ | TDL_MAY_WRITE);
  status = status != 0 ? status : in_a_thread(&a);
  tdl_policy_free(p);
  CHECK(status == 0 && a.done == 4 && a.denied == a.done);
}

static void apply_twice(attempt *a) {
  tdl_policy *other = new_policy();
  a->denied = tdl_confine_thread(a->policy, why, sizeof(why)) == 0;
  a->denied += tdl_confine_thread(other, why, sizeof(why)) != 0;
  a->done = 2;
  tdl_policy_free(other);
}

static void the_same_policy_again_changes_nothing_another_is_refused(void) {
  tdl_policy *p = new_policy();
  attempt a = {p, apply_twice, 0, 0, 0};
  int status = in_a_thread(&a);
  tdl_policy_free(p);
  CHECK(status == 0 && a.denied == 2);
}

/* What a worker's own machinery needs: compiled code, clocks, waits. */
static void try_working(attempt *a) {
  void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  struct timespec now;
  struct rusage usage;
  int pipes[2];
  a->done = 6;
  a->denied = page != MAP_FAILED &&
              mprotect(page, 4096, PROT_READ | PROT_EXEC) == 0 &&
              munmap(page, 4096) == 0;
  a->denied += clock_gettime(CLOCK_MONOTONIC, &now) == 0;
  a->denied += getrusage(RUSAGE_THREAD, &usage) == 0;
  a->denied += pipe2(pipes, O_CLOEXEC) == 0 && close(pipes[0]) == 0 &&
               close(pipes[1]) == 0;
  a->denied += prctl(PR_SET_NAME, "confined") == 0;
  a->denied += syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), 0) == 0;
}

static void a_confined_thread_can_still_work(void) {
  tdl_policy *p = new_policy();
  attempt a = {p, try_working, 0, 0, 0};
  int status = in_a_thread(&a);
  tdl_policy_free(p);
  CHECK(status == 0 && a.denied == a.done);
}

/* --- a process ------------------------------------------------------------ */

/* Runs `body` in a child; its exit code. */
static int in_a_child(int (*body)(void)) {
  int status;
  pid_t child = fork();
  if (child == 0) {
    _exit(body());
  }
  return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status)
             ? WEXITSTATUS(status)
             : -1;
}

static int confine_child(tdl_policy *p, const int *keep, size_t count) {
  return tdl_confine_process(p, -1, keep, count, why, sizeof(why));
}

static int limited_child(void) {
  tdl_policy *p = new_policy();
  pthread_t thread;
  struct rlimit files;
  int pipes[2], kept = pipe(pipes);
  p->memory_bytes = 64u << 20;
  p->cpu_seconds = 5;
  p->files = 16;
  if (kept != 0 || confine_child(p, &pipes[1], 1) != 0) {
    return 1;
  }
  if (fcntl(pipes[1], F_GETFD) < 0 || fcntl(pipes[0], F_GETFD) >= 0) {
    return 2; /* what it keeps, and nothing else */
  }
  if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur != 16 ||
      files.rlim_max != 16) {
    return 3;
  }
  if (mmap(NULL, 128u << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
      MAP_FAILED) {
    return 4;
  }
  files.rlim_cur = files.rlim_max = 17;
  if (setrlimit(RLIMIT_NOFILE, &files) == 0) {
    return 5;
  }
  if (pthread_create(&thread, NULL, no_thread, NULL) != 0 ||
      pthread_join(thread, NULL) != 0) {
    return 6; /* threads are its own */
  }
  if (fork() >= 0 || opens("/etc/passwd", O_RDONLY)) {
    return 7;
  }
  return 0;
}

static void a_process_has_limits_closes_the_rest_and_keeps_its_threads(void) {
  CHECK(in_a_child(limited_child) == 0);
}

static int tcp(int use, uint16_t port) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), error = 0;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd < 0) {
    return errno;
  }
  if ((use == TDL_MAY_BIND
           ? bind(fd, (struct sockaddr *)&to, sizeof(to))
           : connect(fd, (struct sockaddr *)&to, sizeof(to))) != 0) {
    error = errno;
  }
  close(fd);
  return error;
}

static int denied(int error) {
  return error == EACCES || error == EPERM;
}

static int port_child(void) {
  tdl_policy *p = new_policy();
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
  int fd;
  if (tdl_policy_add_port(p, 7, TDL_MAY_CONNECT) != 0 ||
      confine_child(p, NULL, 0) != 0) {
    return 1;
  }
  if (denied(tcp(TDL_MAY_CONNECT, 7))) {
    return 2; /* nobody listens, but it may try */
  }
  if (!denied(tcp(TDL_MAY_CONNECT, 9)) || !denied(tcp(TDL_MAY_BIND, 7))) {
    return 3;
  }
  if (socket(AF_INET, SOCK_DGRAM, 0) >= 0 ||
      socket(AF_UNIX, SOCK_STREAM, 0) >= 0 ||
      socket(AF_INET, SOCK_STREAM, 262 /* MPTCP */) >= 0) {
    return 4;
  }
  fd = socket(AF_INET, SOCK_STREAM, 0);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (sendto(fd, "x", 1, MSG_FASTOPEN, (struct sockaddr *)&to, sizeof(to)) >=
          0 ||
      errno != EPERM) {
    return 5; /* opening while sending goes around the rule */
  }
  return listen(fd, 1) == 0 ? 6 : 0;
}

static void of_the_network_the_listed_ports_alone_are_reached(void) {
  CHECK(in_a_child(port_child) == 0);
}

/* The memory of another process, both ways. */
static int looks_into(pid_t pid) {
  char path[64];
  snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
  return opens(path, O_RDONLY) ||
         syscall(SYS_process_vm_readv, pid, NULL, 0, NULL, 0, 0) >= 0;
}

static int signal_child(void) {
  tdl_policy *p = new_policy();
  p->may = TDL_MAY_NET;
  if (confine_child(p, NULL, 0) != 0) {
    return 1;
  }
  return kill(getppid(), 0) == 0 || looks_into(getppid()) ? 2 : 0;
}

static void other_processes_are_out_of_reach(void) {
  CHECK(in_a_child(signal_child) == 0);
}

int main(void) {
  RUN(a_policy_comes_back_from_its_bytes);
  RUN(bytes_that_end_early_or_late_are_no_policy);
  RUN(forged_bytes_are_refused_or_a_policy_but_read_no_further);
  RUN(what_is_no_path_port_or_variable_is_refused);
  RUN(what_an_older_kernel_cannot_enforce_is_said);
  RUN(limits_and_the_ffi_are_not_for_a_thread);
  RUN(a_thread_is_denied_what_is_not_listed);
  RUN(the_others_of_its_process_are_not_confined);
  if (mkdtemp(folder) == NULL || !make_file("file")) {
    return 1;
  }
  RUN(a_folder_to_read_is_not_written);
  RUN(a_folder_to_write_takes_files_but_no_links_out_of_it);
  unlink(in_folder("file"));
  rmdir(folder);
  RUN(the_same_policy_again_changes_nothing_another_is_refused);
  RUN(a_confined_thread_can_still_work);
  RUN(a_process_has_limits_closes_the_rest_and_keeps_its_threads);
  RUN(of_the_network_the_listed_ports_alone_are_reached);
  RUN(other_processes_are_out_of_reach);
  return check_any_failed;
}
