/* tdl_region: memory that processes share, behind a descriptor.
** Threads: one at a time; what lies in the memory is its users' business.
** Owns:    its descriptor and its mapping.
** Fails:   TREADLE_ENOMEM; TREADLE_ESYSTEM with errno (no descriptor is left,
**          RLIMIT_FSIZE, a kernel without any of it); TREADLE_EINVAL.
**
** G1  Its file never changes its size: that is sealed, and the seals with it,
**     before anybody else can have the descriptor. Nobody who has it can make
**     these pages a SIGBUS by cutting them off, nor stop others from writing.
** G2  Its pages are there before it is handed out: where memory is short, to
**     make it fails, and not a write to it.
** G3  A descriptor from elsewhere is mapped after it was seen to be what G1 says
**     (as G1 cannot be undone, that it was so then is enough). G2 is not known
**     of it: who has it may punch holes, which read as zeros. The kernel fills
**     one at the next touch; under strict overcommit (vm.overcommit_memory = 2)
**     without memory left for it that is a SIGBUS.
** G4  One that is shown is its maker's to write: the kernel lets nobody map it to
**     write, nor write to the file, nor punch holes, from the moment on when it is
**     mapped here; not its maker either, whose mapping stays as it is. */
#ifndef TDL_BASE_REGION_H
#define TDL_BASE_REGION_H

#include <stddef.h>
#include <stdint.h>

typedef struct tdl_region {
  uint8_t *data;
  size_t bytes; /* whole pages */
  int fd;       /* -1: there is none */
} tdl_region;

#define TDL_REGION_NONE                                                        \
  { NULL, 0, -1 }

/* At least so many zeroed bytes, and one page. */
int tdl_region_open(size_t bytes, tdl_region *out);

/* The same without G2: each page is there once it is written. */
int tdl_region_open_sparse(size_t bytes, tdl_region *out);

/* The same with G4. */
int tdl_region_open_shown(size_t bytes, tdl_region *out);

/* The one that a tdl_region_open with so many bytes has made, here or in another
** process, by a descriptor of it. TREADLE_EINVAL when it is none, or another
** size. Takes the descriptor, which no new program inherits from then on; on
** failure it stays the caller's. */
int tdl_region_adopt(int fd, size_t bytes, tdl_region *out);

/* Maps one that is shown, to be read: 0, with its pages, for good. The descriptor
** stays the caller's. */
int tdl_region_see(int fd, size_t bytes, const uint8_t **out);

/* One that tdl_region_open_sparse has made, at the same address, but of new memory:
** whoever else has the old one reaches it no more. Threads that read it meanwhile
** see the one or the other. On failure it is as it was. */
int tdl_region_renew(tdl_region *region);

/* Other mappings and descriptors of it stay. For one that is not open, too. */
void tdl_region_close(tdl_region *region);

#endif
