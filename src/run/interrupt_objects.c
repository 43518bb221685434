#include "interrupt_objects.h"

#include "interrupt.h"

#if TDL_INTERRUPT_LEAVES

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { TYPE_THREAD = 6, TYPE_PROTO = 7, TYPE_FUNCTION = 8, TYPE_TRACE = 9 };

#define CONSTANTS 64u

typedef struct closure {
  uint64_t next;
  uint8_t marked, type, ffid, nupvalues; /* ffid: 0 is Lua's, 1 is C's */
  uint64_t env, gclist, pc;
  uint64_t address; /* C's */
} closure;

typedef struct proto {
  uint64_t next;
  uint8_t marked, type, numparams, framesize;
  uint32_t sizebc, unused;
  uint64_t gclist, k, uv;
  uint32_t sizekgc, sizekn, sizept;
  uint8_t sizeuv, flags;
  uint16_t trace;
  uint64_t chunkname;
  int32_t firstline, numline;
  uint64_t lineinfo, uvinfo, varinfo;
} proto;

typedef struct text {
  uint64_t next;
  uint8_t marked, type, reserved, hashalg;
  uint32_t sid, hash, len;
} text;

/* --- reading (R2) --------------------------------------------------------- */

#define PAGE_BYTES 4096u
#define PAGES      16u

static pid_t self;
static int can_probe; /* the kernel tells cheaply whether a page may be read */

/* For the present reading. initial-exec: a handler may touch it. */
static _Thread_local struct {
  int is_own; /* the memory is this thread's: no page of it vanishes */
  uint64_t pages[PAGES]; /* which were seen to be there */
} reading;

/* Asks for something that does not exist: the kernel says so, if it has got as far
** as that. Half a microsecond; a copy by the kernel takes five. */
static int probe(uint64_t at) {
  return syscall(SYS_rt_sigprocmask, 77, at & ~(uint64_t)7, NULL, 8) == -1 &&
         errno == EINVAL;
}

static int is_there(uint64_t at) {
  uint64_t page = at / PAGE_BYTES;
  if (reading.pages[page % PAGES] != page) {
    if (!probe(at)) {
      return 0;
    }
    reading.pages[page % PAGES] = page;
  }
  return 1;
}

/* No sanitizer knows of rep movs: they would ask what that memory is. */
int tdl_object_fetch(void *to, uint64_t from, size_t n) {
  struct iovec local = {to, n}, remote = {(void *)(uintptr_t)from, n};
  if (!reading.is_own) {
    return syscall(SYS_process_vm_readv, self, &local, 1, &remote, 1, 0) ==
           (long)n;
  }
  if (n > 0 && (!is_there(from) || !is_there(from + n - 1))) {
    return 0;
  }
  __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
  return 1;
}

void tdl_object_begin(int is_own) {
  reading.is_own = is_own && can_probe;
  for (uint32_t i = 0; i < PAGES; i++) {
    reading.pages[i] = UINT64_MAX; /* none has that number */
  }
}

void tdl_object_setup(void) {
  self = getpid();
  can_probe = TDL_STACK_PROBES && probe((uintptr_t)&can_probe) && !probe(0);
}

/* --- what is there -------------------------------------------------------- */

int tdl_object_state_at(uint64_t at, tdl_object_state *out) {
  return tdl_object_fetch(out, at, sizeof(*out)) && out->type == TYPE_THREAD;
}

int tdl_object_trace_at(uint64_t at, tdl_object_trace *out) {
  return tdl_object_fetch(out, at, sizeof(*out)) && out->type == TYPE_TRACE;
}

static int is_in_code(const proto *p, uint64_t at, uint64_t pc) {
  uint64_t code = at + sizeof(*p);
  return pc >= code && pc < code + 4 * (uint64_t)p->sizebc && pc % 4 == 0;
}

static int32_t line_of(const proto *p, uint64_t at, uint64_t pc) {
  uint64_t n = (pc - at - sizeof(*p)) / 4;
  uint32_t line = 0;
  size_t size = p->numline < 256 ? 1 : p->numline < 65536 ? 2 : 4;
  if (pc == 0 || !is_in_code(p, at, pc) || p->lineinfo == 0) {
    return -1;
  }
  if (n == 0) {
    return p->firstline;
  }
  return tdl_object_fetch(&line, p->lineinfo + (n - 1) * size, size)
             ? p->firstline + (int32_t)line
             : -1;
}

static void name_source(const proto *p, tdl_frame *out) {
  text name;
  size_t n;
  out->source[0] = 0;
  if (!tdl_object_fetch(&name, p->chunkname, sizeof(name))) {
    return;
  }
  n = name.len < sizeof(out->source) - 1 ? name.len : sizeof(out->source) - 1;
  if (!tdl_object_fetch(out->source, p->chunkname + sizeof(name), n)) {
    n = 0;
  }
  out->source[n] = 0;
}

static int describe_proto(uint64_t at, uint64_t pc, tdl_frame *out) {
  proto p;
  if (!tdl_object_fetch(&p, at, sizeof(p)) || p.type != TYPE_PROTO) {
    return 0;
  }
  out->kind = p.firstline == 0 ? TDL_FRAME_MAIN : TDL_FRAME_LUA;
  out->line = line_of(&p, at, pc);
  out->defined = p.firstline;
  name_source(&p, out);
  return 1;
}

int tdl_object_describe(uint64_t function, uint64_t pc, tdl_frame *out) {
  closure f;
  memset(out, 0, offsetof(tdl_frame, source) + 1);
  out->kind = TDL_FRAME_UNKNOWN;
  out->line = out->defined = -1;
  if (function == 0) {
    return 1;
  }
  if (!tdl_object_fetch(&f, function, sizeof(f))) {
    return 0;
  }
  if (f.type == TYPE_PROTO) {
    return describe_proto(function, pc, out);
  }
  if (f.type != TYPE_FUNCTION) {
    return 0;
  }
  if (f.ffid == 0) {
    return describe_proto(f.pc - sizeof(proto), pc, out);
  }
  out->kind = f.ffid == 1 ? TDL_FRAME_C : TDL_FRAME_BUILTIN;
  out->id = f.ffid == 1 ? f.address : f.ffid;
  return 1;
}

int tdl_object_runs(uint64_t at, uint64_t pc) {
  closure f;
  proto p;
  return tdl_object_fetch(&f, at, sizeof(f)) && f.type == TYPE_FUNCTION &&
         f.ffid == 0 && tdl_object_fetch(&p, f.pc - sizeof(p), sizeof(p)) &&
         p.type == TYPE_PROTO && is_in_code(&p, f.pc - sizeof(p), pc);
}

uint64_t tdl_object_proto_with(const tdl_object_trace *T, uint64_t pc) {
  uint64_t words[CONSTANTS];
  for (uint32_t ref = T->nk; ref < TDL_OBJECT_FIRST_CONSTANT;
       ref += CONSTANTS) {
    uint32_t n = TDL_OBJECT_FIRST_CONSTANT - ref;
    n = n < CONSTANTS ? n : CONSTANTS;
    if (!tdl_object_fetch(words, T->ir + (uint64_t)ref * 8,
                          n * sizeof(*words))) {
      return 0;
    }
    for (uint32_t i = 0; i < n; i++) {
      uint64_t at = words[i];
      closure f;
      proto p;
      if (at == 0 || at > TDL_OBJECT_POINTER || at % 8 != 0 ||
          !tdl_object_fetch(&f, at, sizeof(f))) {
        continue;
      }
      at = f.type == TYPE_FUNCTION && f.ffid == 0 ? f.pc - sizeof(p) : at;
      if ((f.type == TYPE_FUNCTION || f.type == TYPE_PROTO) &&
          tdl_object_fetch(&p, at, sizeof(p)) && p.type == TYPE_PROTO &&
          is_in_code(&p, at, pc)) {
        return at;
      }
    }
  }
  return 0;
}

#endif
