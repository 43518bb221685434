#include "region.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "../config.h"
#include "../treadle.h"
#include "alloc.h"

#ifndef MFD_NOEXEC_SEAL /* Linux 6.3: not executable, and never made so */
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#ifndef F_SEAL_FUTURE_WRITE /* Linux 5.1 */
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

enum kind { WHOLE, SPARSE, SHOWN };

/* The size of the file; 0: there can be none so large. */
static size_t round_up(size_t bytes) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  if (bytes > (size_t)PTRDIFF_MAX - page) {
    return 0;
  }
  return (bytes > 0 ? (bytes + page - 1) / page : 1) * page;
}

/* Whether the kernel grants private memory of that size: it refuses what the
** machine, its overcommit or RLIMIT_AS do not allow. For a file it would only
** find out page by page, with the OOM killer behind it. */
static int can_be(size_t size) {
  void *pages = tdl_alloc_pages(size);
  tdl_free_pages(pages, size);
  return pages != NULL;
}

/* Beyond that limit a file that grows is a SIGXFSZ. */
static int is_within_limit(size_t size) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || size > limit.rlim_cur) {
    errno = EFBIG;
    return 0;
  }
  return 1;
}

static int make_file(void) {
  unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  int fd = memfd_create(TDL_REGION_NAME, flags | MFD_NOEXEC_SEAL);
  if (fd < 0 && errno == EINVAL) { /* an older kernel */
    fd = memfd_create(TDL_REGION_NAME, flags);
  }
  return fd;
}

/* G2. In pieces: a signal interrupts one, and the next try goes on from there,
** however often signals come. */
static int fill_file(int fd, size_t size) {
  size_t at = 0;
  while (at < size) {
    size_t left = size - at;
    size_t n = left < TDL_REGION_FILL_BYTES ? left : TDL_REGION_FILL_BYTES;
    if (fallocate(fd, 0, (off_t)at, (off_t)n) == 0) {
      at += n;
    } else if (errno == ENOSPC || errno == ENOMEM) {
      return TREADLE_ENOMEM;
    } else if (errno != EINTR) {
      return TREADLE_ESYSTEM;
    }
  }
  return 0;
}

/* A file of that size, without its seals; a status. */
static int open_file(size_t size, enum kind kind, int *out) {
  int status, saved, fd = is_within_limit(size) ? make_file() : -1;
  if (fd < 0) {
    return errno == ENOMEM ? TREADLE_ENOMEM : TREADLE_ESYSTEM;
  }
  status = kind == WHOLE                     ? fill_file(fd, size)
           : ftruncate(fd, (off_t)size) == 0 ? 0
                                             : TREADLE_ESYSTEM;
  if (status != 0) {
    saved = errno;
    close(fd);
    errno = saved;
    return status;
  }
  *out = fd;
  return 0;
}

static int open_region(size_t bytes, enum kind kind, tdl_region *out) {
  size_t size = round_up(bytes);
  uint8_t *data;
  int fd, status, saved;
  if (size == 0 || (kind == WHOLE && !can_be(size))) {
    return TREADLE_ENOMEM;
  }
  status = open_file(size, kind, &fd);
  if (status != 0) {
    return status;
  }
  data = tdl_map_pages(fd, size);
  if (data == NULL) {
    status = TREADLE_ENOMEM;
    goto fail;
  }
  if (fcntl(fd, F_ADD_SEALS, /* G1, G4 */
            SEALS | (kind == SHOWN ? F_SEAL_FUTURE_WRITE : 0)) != 0) {
    status = TREADLE_ESYSTEM;
    tdl_free_pages(data, size);
    goto fail;
  }
  out->data = data;
  out->bytes = size;
  out->fd = fd;
  return 0;
fail:
  saved = errno;
  close(fd);
  errno = saved;
  return status;
}

int tdl_region_renew(tdl_region *r) {
  int fd, status = open_file(r->bytes, SPARSE, &fd), saved;
  if (status != 0) {
    return status;
  }
  if (fcntl(fd, F_ADD_SEALS, SEALS) != 0) {
    status = TREADLE_ESYSTEM;
  } else if (mmap(r->data, r->bytes, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
    status = TREADLE_ENOMEM;
  }
  if (status != 0) {
    saved = errno;
    close(fd);
    errno = saved;
    return status;
  }
  close(r->fd);
  r->fd = fd;
  return 0;
}

int tdl_region_open(size_t bytes, tdl_region *out) {
  return open_region(bytes, WHOLE, out);
}

int tdl_region_open_sparse(size_t bytes, tdl_region *out) {
  return open_region(bytes, SPARSE, out);
}

int tdl_region_open_shown(size_t bytes, tdl_region *out) {
  return open_region(bytes, SHOWN, out);
}

/* G3. Neither a file of huge pages, whose holes need not be filled again, nor
** one that can be written through this descriptor only in part. */
static int is_region(int fd, size_t size, int seals) {
  struct stat file;
  struct statfs system;
  int has = fcntl(fd, F_GET_SEALS);
  return has >= 0 && (has & seals) == seals &&
         (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR && fstat(fd, &file) == 0 &&
         S_ISREG(file.st_mode) && (size_t)file.st_size == size &&
         fstatfs(fd, &system) == 0 && system.f_type == TMPFS_MAGIC;
}

int tdl_region_adopt(int fd, size_t bytes, tdl_region *out) {
  size_t size = round_up(bytes);
  uint8_t *data;
  if (size == 0 || !is_region(fd, size, SEALS)) {
    return TREADLE_EINVAL;
  }
  data = tdl_map_pages(fd, size);
  if (data == NULL) { /* sealed against writing, or no memory for the map */
    return errno == EPERM ? TREADLE_EINVAL : TREADLE_ENOMEM;
  }
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  out->data = data;
  out->bytes = size;
  out->fd = fd;
  return 0;
}

int tdl_region_see(int fd, size_t bytes, const uint8_t **out) {
  size_t size = round_up(bytes);
  const uint8_t *data;
  if (size == 0 || !is_region(fd, size, SEALS | F_SEAL_FUTURE_WRITE)) {
    return TREADLE_EINVAL;
  }
  data = tdl_map_pages_to_read(fd, size);
  if (data == NULL) {
    return TREADLE_ENOMEM;
  }
  *out = data;
  return 0;
}

void tdl_region_close(tdl_region *r) {
  if (r->fd >= 0) {
    tdl_free_pages(r->data, r->bytes);
    close(r->fd);
    *r = (tdl_region)TDL_REGION_NONE;
  }
}
