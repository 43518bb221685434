#include "landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../treadle.h"

/* The system's headers may be older than its kernel: these are the kernel's
** numbers, which never change. They are the same on every architecture. */
#define NR_CREATE_RULESET 444
#define NR_ADD_RULE       445
#define NR_RESTRICT_SELF  446

#define ASK_VERSION 1u
#define RULE_PATH   1
#define RULE_PORT   2

enum {
  FS_EXECUTE = 1 << 0,
  FS_WRITE_FILE = 1 << 1,
  FS_READ_FILE = 1 << 2,
  FS_READ_DIR = 1 << 3,
  FS_REMOVE_DIR = 1 << 4,
  FS_REMOVE_FILE = 1 << 5,
  FS_MAKE_DIR = 1 << 7,
  FS_MAKE_REG = 1 << 8,
  FS_REFER = 1 << 13,    /* version 2 */
  FS_TRUNCATE = 1 << 14, /* version 3 */
  FS_IOCTL_DEV = 1 << 15 /* version 5 */
};
#define FS_ALL        0xffffu
#define FS_NOT_BEFORE 3 /* without TRUNCATE any file could be emptied */

#define NET_BIND    1u
#define NET_CONNECT 2u
#define NET_SINCE   4
#define DEV_SINCE   5

#define SCOPE_ABSTRACT_SOCKETS 1u
#define SCOPE_SIGNALS          2u
#define SCOPE_SINCE            6

/* Of a file, not a folder. Devices and links are not made. */
#define FILE_RIGHTS                                                            \
  (FS_EXECUTE | FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV)
#define WRITE_RIGHTS                                                           \
  (FS_WRITE_FILE | FS_TRUNCATE | FS_REMOVE_DIR | FS_REMOVE_FILE |              \
   FS_MAKE_DIR | FS_MAKE_REG | FS_REFER)

typedef struct ruleset_attr {
  uint64_t fs, net, scoped;
} ruleset_attr;

typedef struct path_attr {
  uint64_t allowed;
  int32_t parent_fd;
} __attribute__((packed)) path_attr;

typedef struct port_attr {
  uint64_t allowed;
  uint64_t port;
} port_attr;

int tdl_landlock_version(void) {
  long version = syscall(NR_CREATE_RULESET, NULL, 0, ASK_VERSION);
  return version < 0 ? 0 : (int)version;
}

const char *tdl_landlock_lacks(const tdl_policy *policy, int version) {
  if (version == 0) {
    return "this kernel has no Landlock, or it is switched off";
  }
  if (version < FS_NOT_BEFORE) {
    return "this kernel's Landlock cannot keep files from being emptied "
           "(Linux 6.2 can)";
  }
  if (version < NET_SINCE && policy->port_count > 0) {
    return "this kernel's Landlock knows no ports (Linux 6.7 does)";
  }
  if (version < SCOPE_SINCE && (policy->may & TDL_MAY_NET)) {
    return "this kernel's Landlock cannot keep other programs' abstract "
           "sockets out (Linux 6.12 can)";
  }
  return NULL;
}

static int fail(char *why, size_t size, const char *what) {
  snprintf(why, size, "%s: %s", what, strerror(errno));
  return TREADLE_EPERMISSION;
}

static uint64_t rights_of(uint32_t access) {
  uint64_t rights = 0;
  if (access & TDL_MAY_READ) {
    rights |= FS_READ_FILE | FS_READ_DIR;
  }
  if (access & TDL_MAY_WRITE) {
    rights |= WRITE_RIGHTS;
  }
  if (access & TDL_MAY_RUN) {
    rights |= FS_EXECUTE;
  }
  return rights;
}

/* What the kernel takes as its struct open_how. */
typedef struct open_how {
  uint64_t flags, mode, resolve;
} open_how;

#define NO_SYMLINKS 4u

/* The path has been made free of links: one that is there now was put there
** since, and leads to what nobody has granted. */
static int open_path(const char *path) {
  open_how how = {O_PATH | O_CLOEXEC, 0, NO_SYMLINKS};
  return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
}

/* What is not there cannot be reached: no rule is needed. */
static int add_path(int ruleset, const tdl_grant *grant, uint64_t handled,
                    char *why, size_t size) {
  path_attr attr;
  struct stat st;
  int error = 0, fd = open_path(grant->path);
  if (fd < 0) {
    return errno == ENOENT || errno == ENOTDIR || errno == EACCES ||
                   errno == ELOOP
               ? 0
               : fail(why, size, grant->path);
  }
  attr.parent_fd = fd;
  attr.allowed = rights_of(grant->access) & handled;
  if (fstat(fd, &st) != 0) {
    error = errno;
  } else if (!S_ISDIR(st.st_mode)) {
    attr.allowed &= FILE_RIGHTS;
  }
  if (error == 0 && attr.allowed != 0 &&
      syscall(NR_ADD_RULE, ruleset, RULE_PATH, &attr, 0) != 0) {
    error = errno;
  }
  close(fd);
  errno = error;
  return error == 0 ? 0 : fail(why, size, grant->path);
}

static int add_rules(const tdl_policy *p, int ruleset, uint64_t handled,
                     char *why, size_t size) {
  int status = 0;
  for (uint32_t i = 0; status == 0 && i < p->grant_count; i++) {
    status = add_path(ruleset, &p->grants[i], handled, why, size);
  }
  for (uint32_t i = 0; status == 0 && i < p->port_count; i++) {
    port_attr attr = {0, p->ports[i].port};
    attr.allowed |= p->ports[i].how & TDL_MAY_BIND ? NET_BIND : 0;
    attr.allowed |= p->ports[i].how & TDL_MAY_CONNECT ? NET_CONNECT : 0;
    if (syscall(NR_ADD_RULE, ruleset, RULE_PORT, &attr, 0) != 0) {
      status = fail(why, size, "a port");
    }
  }
  return status;
}

int tdl_landlock_apply(const tdl_policy *p, char *why, size_t size) {
  int version = tdl_landlock_version();
  ruleset_attr attr = {FS_ALL, 0, 0};
  const char *lacks = tdl_landlock_lacks(p, version);
  int ruleset, status;
  if (lacks != NULL) {
    snprintf(why, size, "%s", lacks);
    return TREADLE_EPERMISSION;
  }
  if (version < DEV_SINCE) {
    attr.fs &= ~(uint64_t)FS_IOCTL_DEV;
  }
  if (version >= NET_SINCE && !(p->may & TDL_MAY_NET)) {
    attr.net = NET_BIND | NET_CONNECT;
  }
  if (version >= SCOPE_SINCE) {
    attr.scoped = SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS;
  }
  ruleset = (int)syscall(NR_CREATE_RULESET, &attr, sizeof(attr), 0);
  if (ruleset < 0) {
    return fail(why, size, "Landlock's rules");
  }
  status = add_rules(p, ruleset, attr.fs, why, size);
  if (status == 0 && (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
                      syscall(NR_RESTRICT_SELF, ruleset, 0) != 0)) {
    status = fail(why, size, "Landlock");
  }
  close(ruleset);
  return status;
}
