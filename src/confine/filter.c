#include "filter.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../treadle.h"

#if defined(__x86_64__)
#define OUR_ARCH     AUDIT_ARCH_X86_64
#define OTHER_CALLS  0x40000000u /* x32, with the same architecture */
#define MACHINE_OURS 1
#elif defined(__aarch64__)
#define OUR_ARCH     AUDIT_ARCH_AARCH64
#define OTHER_CALLS  0xffffffffu
#define MACHINE_OURS 1
#else
#define OUR_ARCH     0
#define OTHER_CALLS  0
#define MACHINE_OURS 0
#endif

/* Numbers that the system's headers may not have yet; the same everywhere. */
#ifndef SYS_clone3
#define SYS_clone3 435
#endif
#ifndef SYS_faccessat2
#define SYS_faccessat2 439
#endif
#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif
#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

#define MOST_STEPS 1024

/* --- the lists ------------------------------------------------------------ */

/* Whatever arguments they have. Calls that an architecture lacks are left out:
** they have no number there. */
static const int always[] = {
    /* files: where they lie is Landlock's business */
    SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_pread64, SYS_pwrite64,
    SYS_preadv, SYS_pwritev, SYS_preadv2, SYS_pwritev2, SYS_openat, SYS_openat2,
    SYS_close, SYS_close_range, SYS_lseek, SYS_fstat, SYS_newfstatat, SYS_statx,
    SYS_faccessat, SYS_faccessat2, SYS_readlinkat, SYS_getdents64, SYS_getcwd,
    SYS_renameat2, SYS_unlinkat, SYS_mkdirat, SYS_linkat, SYS_truncate,
    SYS_ftruncate, SYS_fallocate, SYS_fsync, SYS_fdatasync, SYS_sync_file_range,
    SYS_flock, SYS_dup, SYS_dup3, SYS_statfs, SYS_fstatfs, SYS_fadvise64,
    SYS_sendfile, SYS_copy_file_range,
#if defined(__x86_64__)
    SYS_open, SYS_creat, SYS_stat, SYS_lstat, SYS_access, SYS_readlink,
    SYS_getdents, SYS_rename, SYS_unlink, SYS_mkdir, SYS_rmdir, SYS_link,
    SYS_dup2, SYS_renameat, SYS_arch_prctl, SYS_time, SYS_getrlimit, SYS_poll,
    SYS_select, SYS_pipe, SYS_epoll_create, SYS_epoll_wait, SYS_eventfd,
    SYS_getpgrp,
#endif
    /* waiting */
    SYS_ppoll, SYS_pselect6, SYS_pipe2, SYS_epoll_create1, SYS_epoll_ctl,
    SYS_epoll_pwait, SYS_epoll_pwait2, SYS_eventfd2, SYS_timerfd_create,
    SYS_timerfd_settime, SYS_timerfd_gettime, SYS_nanosleep,
    SYS_clock_nanosleep, SYS_futex, SYS_futex_waitv, SYS_sched_yield,
    SYS_restart_syscall,
    /* memory: compiled code needs pages that can be executed */
    SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_madvise, SYS_brk,
    SYS_mlock, SYS_munlock, SYS_msync, SYS_mincore, SYS_membarrier,
    /* itself: signals, time, who it is */
    SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigpending,
    SYS_rt_sigtimedwait, SYS_rt_sigsuspend, SYS_sigaltstack,
    SYS_set_robust_list, SYS_get_robust_list, SYS_set_tid_address, SYS_rseq,
    SYS_sched_getaffinity, SYS_sched_getparam, SYS_sched_getscheduler,
    SYS_getpriority, SYS_clock_gettime, SYS_clock_getres, SYS_gettimeofday,
    SYS_times, SYS_getrusage, SYS_getrandom, SYS_getpid, SYS_gettid,
    SYS_getppid, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid,
    SYS_getgroups, SYS_getresuid, SYS_getresgid, SYS_getpgid, SYS_getsid,
    SYS_uname, SYS_sysinfo, SYS_getcpu, SYS_exit, SYS_exit_group};

/* What a process of its own may do to itself; in a thread it would be done to
** the host. */
static const int processes[] = {
    SYS_chdir,         SYS_fchdir,        SYS_umask,
    SYS_setitimer,     SYS_getitimer,     SYS_timer_create,
    SYS_timer_settime, SYS_timer_gettime, SYS_timer_delete};

static const int starting[] = {SYS_execve,  SYS_wait4,  SYS_waitid,
                               SYS_setpgid, SYS_setsid,
#if defined(__x86_64__)
                               SYS_fork,    SYS_vfork,
#endif
                               SYS_fchdir,  SYS_chdir};

static const int talking[] = {SYS_connect,    SYS_getsockname, SYS_getpeername,
                              SYS_getsockopt, SYS_setsockopt,  SYS_shutdown,
                              SYS_recvfrom,   SYS_recvmsg,     SYS_recvmmsg};

static const int listening[] = {SYS_bind, SYS_listen, SYS_accept4, SYS_accept};

static const int retouching[] = {
    SYS_fchmod,      SYS_fchmodat,     SYS_fchown,
    SYS_fchownat,    SYS_utimensat,
#if defined(__x86_64__)
    SYS_chmod,       SYS_chown,        SYS_lchown,
    SYS_utime,       SYS_utimes,       SYS_futimesat,
#endif
    SYS_setxattr,    SYS_fsetxattr,    SYS_lsetxattr,
    SYS_removexattr, SYS_fremovexattr, SYS_lremovexattr};

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

/* --- the program ---------------------------------------------------------- */

typedef struct program {
  struct sock_filter step[MOST_STEPS];
  size_t count; /* beyond MOST_STEPS: it does not fit */
} program;

static void emit(program *p, unsigned code, unsigned yes, unsigned no,
                 uint32_t k) {
  if (p->count < MOST_STEPS) {
    p->step[p->count] =
        (struct sock_filter){(uint16_t)code, (uint8_t)yes, (uint8_t)no, k};
  }
  p->count++;
}

static void answer(program *p, uint32_t action) {
  emit(p, BPF_RET | BPF_K, 0, 0, action);
}

#define DENY    (SECCOMP_RET_ERRNO | EPERM)
#define UNKNOWN (SECCOMP_RET_ERRNO | ENOSYS)

static void load(program *p, size_t offset) {
  emit(p, BPF_LD | BPF_W | BPF_ABS, 0, 0, (uint32_t)offset);
}

/* Half of an argument; both architectures are little-endian. */
static void load_arg(program *p, unsigned arg, unsigned high) {
  load(p, offsetof(struct seccomp_data, args) + 8 * arg + 4 * high);
}

/* One test, and what it answers; else it goes on. */
static void when(program *p, uint32_t value, uint32_t action) {
  emit(p, BPF_JMP | BPF_JEQ | BPF_K, 0, 1, value);
  answer(p, action);
}

static void when_any_bit(program *p, uint32_t bits, uint32_t action) {
  emit(p, BPF_JMP | BPF_JSET | BPF_K, 0, 1, bits);
  answer(p, action);
}

static void allow_all(program *p, const int *list, size_t count) {
  for (size_t i = 0; i < count; i++) {
    when(p, (uint32_t)list[i], SECCOMP_RET_ALLOW);
  }
}

/* A call whose arguments matter: its part ends with an answer, so that what
** follows still has the number at hand. The jump over it is set at its end. */
static size_t begin(program *p, int call) {
  emit(p, BPF_JMP | BPF_JEQ | BPF_K, 0, 0, (uint32_t)call);
  return p->count - 1;
}

static void end(program *p, size_t start, uint32_t action) {
  answer(p, action);
  if (p->count <= MOST_STEPS) {
    p->step[start].jf = (uint8_t)(p->count - 1 - start);
  }
}

/* An argument of 32 bits that must be one of the list. */
static void allow_one_of(program *p, int call, unsigned arg,
                         const uint32_t *list, size_t count) {
  size_t start = begin(p, call);
  load_arg(p, arg, 0);
  for (size_t i = 0; i < count; i++) {
    when(p, list[i], SECCOMP_RET_ALLOW);
  }
  end(p, start, DENY);
}

static void allow_without(program *p, int call, unsigned arg, uint32_t bits) {
  size_t start = begin(p, call);
  load_arg(p, arg, 0);
  when_any_bit(p, bits, DENY);
  end(p, start, SECCOMP_RET_ALLOW);
}

/* --- calls whose arguments matter ----------------------------------------- */

/* Namespaces, and children of the parent's: it would wait for them. */
#define NO_CHILD                                                               \
  (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |               \
   CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_PTRACE | CLONE_PARENT)

/* Flags of clone3 lie in memory, where no filter sees them: the C library takes
** clone where that one is not there. Threads are for processes of their own;
** in a thread they would be the host's (C2). */
static void filter_clone(program *p, const tdl_policy *policy, int process) {
  size_t start;
  when(p, SYS_clone3, UNKNOWN);
  start = begin(p, SYS_clone);
  load_arg(p, 0, 0);
  when_any_bit(p, NO_CHILD, DENY);
  when_any_bit(p, CLONE_THREAD, process ? SECCOMP_RET_ALLOW : DENY);
  end(p, start, policy->may & TDL_MAY_START ? SECCOMP_RET_ALLOW : DENY);
}

/* No terminal is written to in the place of its user. */
static void filter_ioctl(program *p) {
  static const uint32_t fine[] = {FIOCLEX,  FIONCLEX, FIONBIO,
                                  FIONREAD, TCGETS,   TIOCGWINSZ};
  allow_one_of(p, SYS_ioctl, 1, fine, COUNT(fine));
}

/* A descriptor may have no signals sent to another process, and may not keep
** others from a file (a lease). */
static void filter_fcntl(program *p) {
  static const uint32_t fine[] = {
      F_DUPFD,      F_DUPFD_CLOEXEC, F_GETFD,     F_SETFD,
      F_GETFL,      F_SETFL,         F_GETLK,     F_SETLK,
      F_SETLKW,     F_OFD_GETLK,     F_OFD_SETLK, F_OFD_SETLKW,
      F_GETPIPE_SZ, F_SETPIPE_SZ,    F_ADD_SEALS, F_GET_SEALS};
  allow_one_of(p, SYS_fcntl, 1, fine, COUNT(fine));
}

/* Not PR_SET_PDEATHSIG: a process dies with its host. */
static void filter_prctl(program *p) {
  static const uint32_t fine[] = {PR_SET_NAME,    PR_GET_NAME,
                                  PR_SET_VMA,     PR_GET_NO_NEW_PRIVS,
                                  PR_GET_SECCOMP, PR_SET_NO_NEW_PRIVS};
  allow_one_of(p, SYS_prctl, 0, fine, COUNT(fine));
}

/* Signals to the own process, as abort and an interrupt's sender send them; its
** own memory, read where a plain access might fault. */
static void filter_own(program *p) {
  const uint32_t own[] = {(uint32_t)getpid()};
  allow_one_of(p, SYS_tgkill, 0, own, 1);
  allow_one_of(p, SYS_process_vm_readv, 0, own, 1);
}

/* How much of the processors a process has, and where: its own affair, but not
** that of others of its user. */
static void filter_share(program *p) {
  const uint32_t own[] = {0, (uint32_t)getpid()};
  size_t start = begin(p, SYS_setpriority);
  load_arg(p, 0, 0);
  emit(p, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, PRIO_PROCESS);
  answer(p, DENY);
  load_arg(p, 1, 0);
  when(p, 0, SECCOMP_RET_ALLOW);
  end(p, start, DENY);
  allow_one_of(p, SYS_sched_setaffinity, 0, own, COUNT(own));
}

/* Asking for a limit, one's own. */
static void filter_limits(program *p) {
  size_t start = begin(p, SYS_prlimit64);
  for (unsigned half = 0; half < 2; half++) {
    load_arg(p, 2, half);
    emit(p, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 0);
    answer(p, DENY);
  }
  load_arg(p, 0, 0);
  when(p, 0, SECCOMP_RET_ALLOW);
  end(p, start, DENY);
}

/* Of a list of ports, TCP alone: Landlock's rules are of nothing else, and
** opening while sending (fast open) goes around them. */
static void filter_socket(program *p, int any) {
  static const uint32_t families[] = {AF_INET, AF_INET6, AF_UNIX};
  size_t start = begin(p, SYS_socket);
  if (!any) {
    load_arg(p, 1, 0);
    emit(p, BPF_ALU | BPF_AND | BPF_K, 0, 0, 0xf);
    emit(p, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, SOCK_STREAM);
    answer(p, DENY);
    load_arg(p, 2, 0);
    emit(p, BPF_JMP | BPF_JEQ | BPF_K, 2, 0, 0);
    emit(p, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 6 /* TCP */);
    answer(p, DENY);
  } else { /* raw packets are not for a worker, also if it is root's */
    load_arg(p, 1, 0);
    emit(p, BPF_ALU | BPF_AND | BPF_K, 0, 0, 0xf);
    emit(p, BPF_JMP | BPF_JEQ | BPF_K, 2, 0, SOCK_STREAM);
    emit(p, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, SOCK_DGRAM);
    answer(p, DENY);
  }
  load_arg(p, 0, 0);
  for (size_t i = 0; i < (any ? 3u : 2u); i++) {
    when(p, families[i], SECCOMP_RET_ALLOW);
  }
  end(p, start, DENY);
}

/* The socket that a process was given: messages on that one alone. */
static void filter_line(program *p, int line) {
  static const int calls[] = {SYS_recvfrom, SYS_recvmsg, SYS_sendto,
                              SYS_sendmsg};
  for (size_t i = 0; line >= 0 && i < COUNT(calls); i++) {
    emit(p, BPF_JMP | BPF_JEQ | BPF_K, 0, 4, (uint32_t)calls[i]);
    load_arg(p, 0, 0);
    when(p, (uint32_t)line, SECCOMP_RET_ALLOW);
    load(p, offsetof(struct seccomp_data, nr));
  }
}

static void filter_net(program *p, const tdl_policy *policy) {
  int any = (policy->may & TDL_MAY_NET) != 0, binds = any;
  for (uint32_t i = 0; i < policy->port_count; i++) {
    binds |= policy->ports[i].how & TDL_MAY_BIND;
  }
  if (!any && policy->port_count == 0) {
    return;
  }
  filter_socket(p, any);
  allow_all(p, talking, COUNT(talking));
  allow_without(p, SYS_sendto, 3, any ? 0 : MSG_FASTOPEN);
  allow_without(p, SYS_sendmsg, 2, any ? 0 : MSG_FASTOPEN);
  allow_without(p, SYS_sendmmsg, 3, any ? 0 : MSG_FASTOPEN);
  if (binds) {
    allow_all(p, listening, COUNT(listening));
  }
  if (any) {
    when(p, SYS_socketpair, SECCOMP_RET_ALLOW);
  }
}

/* The number is at hand from the first part on, except inside of the parts of
** begin and end, which never come out. */
static void write_program(program *p, const tdl_policy *policy, int process,
                          int line) {
  load(p, offsetof(struct seccomp_data, arch));
  emit(p, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, OUR_ARCH);
  answer(p, DENY);
  load(p, offsetof(struct seccomp_data, nr));
  emit(p, BPF_JMP | BPF_JGE | BPF_K, 0, 1, OTHER_CALLS);
  answer(p, DENY);
  allow_all(p, always, COUNT(always));
  filter_clone(p, policy, process);
  filter_ioctl(p);
  filter_fcntl(p);
  filter_prctl(p);
  filter_own(p);
  filter_limits(p);
  filter_line(p, line);
  filter_net(p, policy);
  if (process) {
    allow_all(p, processes, COUNT(processes));
    filter_share(p);
  }
  if (process && policy->memory_bytes == 0) { /* what is not mapped is not
                                               ** counted */
    when(p, SYS_memfd_create, SECCOMP_RET_ALLOW);
  }
  if (policy->may & TDL_MAY_START) {
    allow_all(p, starting, process ? COUNT(starting) : COUNT(starting) - 2);
  }
  if (policy->may & TDL_MAY_RETOUCH) {
    allow_all(p, retouching, COUNT(retouching));
  }
  answer(p, DENY);
}

/* --- putting it into force ------------------------------------------------ */

const char *tdl_filter_lacks(void) {
  uint32_t action = SECCOMP_RET_ERRNO;
  if (!MACHINE_OURS) {
    return "system calls are filtered on x86-64 and aarch64 alone";
  }
  if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) != 0) {
    return "this kernel cannot filter system calls (seccomp)";
  }
  return NULL;
}

int tdl_filter_apply(const tdl_policy *policy, int process, int line, char *why,
                     size_t size) {
  program p = {.count = 0};
  struct sock_fprog whole = {.filter = p.step};
  write_program(&p, policy, process, line);
  whole.len = (unsigned short)p.count;
  if (p.count > MOST_STEPS) {
    snprintf(why, size, "the filter of system calls has %zu steps", p.count);
    return TREADLE_EPERMISSION;
  }
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &whole) != 0) {
    snprintf(why, size, "the filter of system calls: %s", strerror(errno));
    return TREADLE_EPERMISSION;
  }
  return 0;
}
