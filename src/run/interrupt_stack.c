#include "interrupt_stack.h"

#include "interrupt.h"

/* Long, because it is one walk over one set of shapes: LuaJIT's objects (lj_obj.h,
** lj_frame.h, lj_jit.h of 2.1), reading them, frames, the places a thread may be
** in (lj_debug.c and lj_snap.c are what it follows), and the proof of all that. */

#if TDL_INTERRUPT_LEAVES

#include <errno.h>
#include <lauxlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* --- LuaJIT's objects ----------------------------------------------------- */

typedef struct state {
  uint64_t next;
  uint8_t marked, type, dummy_ffid, status;
  uint64_t global, gclist, base, top, maxstack, stack, openupval, env, cframe;
} state;

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

typedef struct trace {
  uint64_t next;
  uint8_t marked, type;
  uint16_t nsnap;
  uint32_t nins, unused;
  uint64_t gclist, ir;
  uint32_t nk, nsnapmap;
  uint64_t snap, snapmap, startpt, startpc;
  uint32_t startins, szmcode;
  uint64_t mcode;
  uint32_t mcloop;
  uint16_t nchild, spadjust, traceno;
} trace;

typedef struct snapshot {
  uint32_t mapofs;
  uint16_t ref, mcofs;
  uint8_t nslots, topslot, nent, count;
} snapshot;

enum { TYPE_THREAD = 6, TYPE_PROTO = 7, TYPE_FUNCTION = 8, TYPE_TRACE = 9 };

/* vmstate, where it is no trace's number */
enum { VM_INTERPRETER = -1, VM_C = -2, VM_COLLECTOR = -3, VM_EXIT = -4 };

#define SLOT           8u
#define LINK           3u /* the kind of a frame: in the link's lowest bits */
#define LINK_LUA       0u
#define LINK_VARG      3u
#define LINK_CONT      2u
#define POINTER        0x7fffffffffffu /* what of a value is a pointer */
#define TAG_SHIFT      47
#define TAG_FUNCTION   0x1fff7u /* ~8 in 17 bits */
#define SNAP_NORESTORE 0x040000u
#define FIRST_CONSTANT 0x8000u /* constants have lower numbers */
#define SAVED_STATE    16      /* in the interpreter's C frame */
#define SAVED_PC       24
#define SAVED_RETURN   72
#define FRAME_SIZE     80
#define COMPILED_FRAME 16 /* what compiled code adds to that frame */
#define TRACES_SIZE    12 /* from the list of traces to its size */
#define TRACES         64u
#define SNAPS          32u
#define CONSTANTS      64u

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

/* 1 if all of it, less than a page, is there. (No sanitizer knows of rep movs:
** they would ask what that memory is.) */
static int fetch(void *to, uint64_t from, size_t n) {
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

static void begin_reading(int is_own) {
  reading.is_own = is_own && can_probe;
  for (uint32_t i = 0; i < PAGES; i++) {
    reading.pages[i] = UINT64_MAX; /* none has that number */
  }
}

typedef struct walk {
  state L;
  uint64_t of; /* that state */
  /* a part of its stack */
  uint64_t window[TDL_STACK_WINDOW_SLOTS];
  uint64_t first, end;
  /* compiled code: what it would write from `floor` on */
  int is_compiled;
  trace T;
  uint64_t floor;
  uint32_t map[256];
  uint32_t entries;
} walk;

/* A slot of the stack as it lies in memory. */
static int slot_in_memory(walk *w, uint64_t at, uint64_t *out) {
  if (at < w->L.stack || at >= w->L.maxstack + SLOT * 64 || at % SLOT != 0) {
    return 0;
  }
  if (at < w->first || at >= w->end) {
    w->end = at + SLOT;
    w->first = w->end - sizeof(w->window);
    if (w->first < w->L.stack || w->first > w->end) {
      w->first = w->L.stack;
    }
    if (!fetch(w->window, w->first, (size_t)(w->end - w->first))) {
      w->first = w->end = 0;
      return 0;
    }
  }
  *out = w->window[(at - w->first) / SLOT];
  return 1;
}

/* The snapshot's entry for that place on the stack; its value, if it is a
** constant. */
enum { NO_ENTRY, CONSTANT, VARIABLE };

static int in_snapshot(const walk *w, uint64_t at, uint64_t *out) {
  if (!w->is_compiled || at < w->floor || at >= w->floor + 256 * SLOT) {
    return NO_ENTRY;
  }
  for (uint32_t i = 0; i < w->entries; i++) {
    uint32_t entry = w->map[i];
    if (entry >> 24 == (at - w->floor) / SLOT && !(entry & SNAP_NORESTORE)) {
      uint64_t ref = entry & 0xffff;
      return ref < FIRST_CONSTANT && ref >= w->T.nk &&
                     fetch(out, w->T.ir + (ref + 1) * 8, sizeof(*out))
                 ? CONSTANT
                 : VARIABLE;
    }
  }
  return NO_ENTRY;
}

static int link_at(walk *w, uint64_t at, uint64_t *out) {
  switch (in_snapshot(w, at, out)) {
  case CONSTANT:
    return 1;
  case VARIABLE:
    return 0;
  default:
    return slot_in_memory(w, at, out);
  }
}

/* The function in a frame, which is in the slot before its link. 0: compiled
** code knows it as a variable. Below 0: there is none. */
static int function_at(walk *w, uint64_t link, uint64_t *out) {
  uint64_t value = 0;
  switch (in_snapshot(w, link - SLOT, &value)) {
  case CONSTANT:
    *out = value;
    return 1;
  case VARIABLE:
    return 0;
  default:
    if (!slot_in_memory(w, link - SLOT, &value)) {
      return -1;
    }
    *out = value & POINTER;
    return *out == w->of || value >> TAG_SHIFT == TAG_FUNCTION ? 1 : -1;
  }
}

/* --- what a function is --------------------------------------------------- */

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
  return fetch(&line, p->lineinfo + (n - 1) * size, size)
             ? p->firstline + (int32_t)line
             : -1;
}

static void name_source(const proto *p, tdl_frame *out) {
  text name;
  size_t n;
  out->source[0] = 0;
  if (!fetch(&name, p->chunkname, sizeof(name))) {
    return;
  }
  n = name.len < sizeof(out->source) - 1 ? name.len : sizeof(out->source) - 1;
  if (!fetch(out->source, p->chunkname + sizeof(name), n)) {
    n = 0;
  }
  out->source[n] = 0;
}

static int describe_proto(uint64_t at, uint64_t pc, tdl_frame *out) {
  proto p;
  if (!fetch(&p, at, sizeof(p)) || p.type != TYPE_PROTO) {
    return 0;
  }
  out->kind = p.firstline == 0 ? TDL_FRAME_MAIN : TDL_FRAME_LUA;
  out->line = line_of(&p, at, pc);
  out->defined = p.firstline;
  name_source(&p, out);
  return 1;
}

/* What a frame is, until all are known: there may be a great many. */
typedef struct site {
  uint64_t function; /* or the proto */
  uint64_t pc;       /* of the instruction; 0: not known */
} site;

static int describe(const site *p, tdl_frame *out) {
  closure f;
  memset(out, 0, offsetof(tdl_frame, source) + 1);
  out->kind = TDL_FRAME_UNKNOWN;
  out->line = out->defined = -1;
  if (p->function == 0) {
    return 1;
  }
  if (!fetch(&f, p->function, sizeof(f))) {
    return 0;
  }
  if (f.type == TYPE_PROTO) {
    return describe_proto(p->function, p->pc, out);
  }
  if (f.type != TYPE_FUNCTION) {
    return 0;
  }
  if (f.ffid == 0) {
    return describe_proto(f.pc - sizeof(proto), p->pc, out);
  }
  out->kind = f.ffid == 1 ? TDL_FRAME_C : TDL_FRAME_BUILTIN;
  out->id = f.ffid == 1 ? f.address : f.ffid;
  return 1;
}

/* Whether it is a function of Lua's, and that instruction in it. */
static int runs(uint64_t at, uint64_t pc) {
  closure f;
  proto p;
  return fetch(&f, at, sizeof(f)) && f.type == TYPE_FUNCTION && f.ffid == 0 &&
         fetch(&p, f.pc - sizeof(p), sizeof(p)) && p.type == TYPE_PROTO &&
         is_in_code(&p, f.pc - sizeof(p), pc);
}

/* The proto with that instruction among the trace's constants, which hold each
** function, or at least its proto, that the trace relies on. */
static uint64_t proto_with(const walk *w, uint64_t pc) {
  uint64_t words[CONSTANTS];
  for (uint32_t ref = w->T.nk; ref < FIRST_CONSTANT; ref += CONSTANTS) {
    uint32_t n = FIRST_CONSTANT - ref;
    n = n < CONSTANTS ? n : CONSTANTS;
    if (!fetch(words, w->T.ir + (uint64_t)ref * 8, n * sizeof(*words))) {
      return 0;
    }
    for (uint32_t i = 0; i < n; i++) {
      uint64_t at = words[i];
      closure f;
      proto p;
      if (at == 0 || at > POINTER || at % 8 != 0 || !fetch(&f, at, sizeof(f))) {
        continue;
      }
      at = f.type == TYPE_FUNCTION && f.ffid == 0 ? f.pc - sizeof(p) : at;
      if ((f.type == TYPE_FUNCTION || f.type == TYPE_PROTO) &&
          fetch(&p, at, sizeof(p)) && p.type == TYPE_PROTO &&
          is_in_code(&p, at, pc)) {
        return at;
      }
    }
  }
  return 0;
}

/* --- the frames ----------------------------------------------------------- */

typedef struct sites {
  site inner[TDL_STACK_INNER], outer[TDL_STACK_OUTER];
  uint32_t count;
} sites;

static void add(sites *p, uint64_t function, uint64_t pc) {
  site *to = p->count < TDL_STACK_INNER
                 ? &p->inner[p->count]
                 : &p->outer[(p->count - TDL_STACK_INNER) % TDL_STACK_OUTER];
  to->function = function;
  to->pc = pc;
  p->count++;
}

/* The frame below: where its link is, and which instruction of its function has
** called, if that is known. */
static int step(walk *w, uint64_t *link, uint64_t value, uint64_t *pc) {
  uint64_t size;
  uint32_t call;
  *pc = 0;
  if ((value & LINK) == LINK_LUA) {
    if (!fetch(&call, value - 4, sizeof(call))) {
      return 0;
    }
    size = SLOT * (2 + ((call >> 8) & 0xff));
    *pc = value - 4;
  } else {
    uint64_t next;
    size = value & ~(uint64_t)7;
    if ((value & 7) == LINK_CONT && link_at(w, *link - 2 * SLOT, &next)) {
      *pc = next - 4;
    }
  }
  if (size == 0 || size > *link - w->L.stack) {
    return 0;
  }
  *link -= size;
  return 1;
}

/* From the frame with that link on; the instruction is that of the innermost
** function. 0 when something is not as it must be. */
static int collect(walk *w, uint64_t link, uint64_t pc, sites *out) {
  uint64_t bottom = w->L.stack + SLOT;
  int is_varg = 0;
  while (link > bottom) {
    uint64_t function = 0, value;
    int known = function_at(w, link, &function);
    if (known == 0) {
      function = proto_with(w, pc);
    }
    if (known < 0 || !link_at(w, link, &value) ||
        out->count >= TDL_STACK_FRAMES) {
      return out->count > 0;
    }
    if (!is_varg && function != w->of) {
      add(out, function, pc);
    }
    is_varg = (value & 7) == LINK_VARG;
    if (!step(w, &link, value, &pc)) {
      return out->count > 0;
    }
  }
  return 1;
}

/* --- where the thread is -------------------------------------------------- */

static uint64_t word_of(const lua_State *L, ptrdiff_t offset) {
  uint64_t value = 0;
  (void)fetch(&value, (uint64_t)(uintptr_t)L + (uint64_t)offset, sizeof(value));
  return value;
}

static int read_trace(const tdl_layout *layout, const lua_State *L,
                      uint32_t number, trace *out) {
  uint64_t at;
  return fetch(&at, word_of(L, layout->traces) + 8 * (uint64_t)number,
               sizeof(at)) &&
         at != 0 && fetch(out, at, sizeof(*out)) && out->type == TYPE_TRACE &&
         out->traceno == number;
}

static int is_in_trace(const trace *T, uint64_t pc) {
  return pc >= T->mcode && pc < T->mcode + T->szmcode;
}

static int32_t vmstate_of(const tdl_layout *layout, const lua_State *L) {
  int32_t value = VM_EXIT;
  (void)fetch(&value, (uint64_t)(uintptr_t)L + (uint64_t)layout->vmstate,
              sizeof(value));
  return value;
}

/* Where a C function that the trace has called returns to. */
static uint64_t return_address(const walk *w, const trace *T) {
  uint64_t at = (w->L.cframe & ~(uint64_t)3) - COMPILED_FRAME - T->spadjust - 8;
  uint64_t pc;
  return fetch(&pc, at, sizeof(pc)) ? pc : 0;
}

/* The place in the trace's code where the thread is, or where the C that it has
** called returns to; 0 when that is not in it. */
static uint64_t place_in(const walk *w, const trace *T, uint64_t pc) {
  pc = is_in_trace(T, pc) ? pc : return_address(w, T);
  return is_in_trace(T, pc) ? pc : 0;
}

/* The trace that runs, and the place in it. It says its number, but not yet at its
** beginning; and not while the collector runs, which it may call. */
static uint64_t find_trace(const tdl_layout *layout, const lua_State *L,
                           walk *w, uint64_t pc) {
  int32_t number = vmstate_of(layout, L);
  uint64_t list = word_of(L, layout->traces), at[TRACES], place = 0;
  uint32_t size = 0;
  if (number > 0 && read_trace(layout, L, (uint32_t)number, &w->T) &&
      (place = place_in(w, &w->T, pc)) != 0) {
    return place;
  }
  (void)fetch(&size,
              (uint64_t)(uintptr_t)L + (uint64_t)layout->traces + TRACES_SIZE,
              sizeof(size));
  size = size < TDL_STACK_TRACES ? size : TDL_STACK_TRACES;
  for (uint32_t i = 0; number != VM_EXIT && i < size; i++) {
    uint32_t n = size - i < TRACES ? size - i : TRACES;
    if (i % TRACES == 0 && !fetch(at, list + 8 * (uint64_t)i, 8 * (size_t)n)) {
      return 0;
    }
    if (at[i % TRACES] != 0 && read_trace(layout, L, i, &w->T) &&
        (place = place_in(w, &w->T, pc)) != 0) {
      return place;
    }
  }
  return 0;
}

/* R3: the last snapshot before that place. */
static int find_snapshot(walk *w, uint64_t pc, snapshot *out) {
  snapshot part[SNAPS];
  uint64_t offset = pc - w->T.mcode;
  int found = 0;
  for (uint32_t i = 0; i < w->T.nsnap; i += SNAPS) {
    uint32_t n = w->T.nsnap - i;
    n = n < SNAPS ? n : SNAPS;
    if (!fetch(part, w->T.snap + i * sizeof(*part), n * sizeof(*part))) {
      return 0;
    }
    for (uint32_t k = 0; k < n; k++) {
      if (part[k].mcofs > offset) {
        return found;
      }
      *out = part[k];
      found = 1;
    }
  }
  return found;
}

static int read_compiled(const tdl_layout *layout, const lua_State *L, walk *w,
                         uint64_t pc, uint64_t jit_base, int *in_c,
                         sites *out) {
  snapshot snap;
  uint64_t where, place = find_trace(layout, L, w, pc);
  *in_c = place != pc;
  if (place == 0 || !find_snapshot(w, place, &snap) ||
      !fetch(w->map, w->T.snapmap + 4 * (uint64_t)snap.mapofs,
             4 * (size_t)snap.nent) ||
      !fetch(&where, w->T.snapmap + 4 * ((uint64_t)snap.mapofs + snap.nent),
             sizeof(where))) {
    return 0;
  }
  w->is_compiled = 1;
  w->entries = snap.nent;
  w->floor = jit_base - 2 * SLOT;
  return collect(w, jit_base + SLOT * (where & 0xff) - SLOT, where >> 8, out);
}

/* In C that the interpreter has called: it has left its place in the state, and
** in its C frame. */
static int read_saved(walk *w, sites *out) {
  uint64_t pc = 0, function = 0, link = w->L.base - SLOT;
  if (function_at(w, link, &function) > 0 &&
      fetch(&pc, (w->L.cframe & ~(uint64_t)3) + SAVED_PC, sizeof(pc)) &&
      !runs(function, pc - 4)) {
    pc = 4;
  }
  return collect(w, link, pc - 4, out);
}

/* The state that has resumed this one, if the interpreter itself has: then its C
** frame lies behind this one's. */
static int next_state(const tdl_layout *layout, walk *w) {
  uint64_t frame = w->L.cframe & ~(uint64_t)3, from;
  if (!fetch(&from, frame + SAVED_RETURN, sizeof(from)) ||
      from < (uintptr_t)layout->vm || from >= (uintptr_t)layout->vm_end ||
      !fetch(&w->of, frame + FRAME_SIZE + SAVED_STATE, sizeof(w->of)) ||
      !fetch(&w->L, w->of, sizeof(w->L))) {
    return 0;
  }
  w->first = w->end = 0;
  w->is_compiled = 0;
  return w->L.type == TYPE_THREAD &&
         (w->L.cframe & ~(uint64_t)3) == frame + FRAME_SIZE;
}

/* In the interpreter itself, if its registers are what they mostly are. */
static int read_interpreter(walk *w, const tdl_registers *at, sites *out) {
  uint64_t function, value, pc = at->next - 4, link = at->base - SLOT;
  if (at->base <= w->L.stack || function_at(w, link, &function) <= 0) {
    return 0;
  }
  if (!runs(function, pc)) { /* it may be about to begin, or to return */
    if (!link_at(w, link, &value) || value != at->next) {
      return 0;
    }
    pc = 0;
  }
  return collect(w, link, pc, out);
}

static void describe_all(const sites *from, tdl_stack *out) {
  uint32_t inner =
      from->count < TDL_STACK_INNER ? from->count : TDL_STACK_INNER;
  uint32_t rest = from->count - inner;
  uint32_t outer = rest < TDL_STACK_OUTER ? rest : TDL_STACK_OUTER;
  out->count = 0;
  out->skipped = rest - outer;
  for (uint32_t i = 0; i < inner; i++) {
    out->count += (uint32_t)describe(&from->inner[i], &out->frames[out->count]);
  }
  for (uint32_t i = rest - outer; i < rest; i++) {
    out->count += (uint32_t)describe(&from->outer[i % TDL_STACK_OUTER],
                                     &out->frames[out->count]);
  }
}

int tdl_stack_read(const tdl_layout *layout, lua_State *L,
                   const tdl_registers *at, tdl_stack *out) {
  walk w;
  sites found;
  uint64_t jit_base, pc = at != NULL ? at->pc : 0;
  int is_vm = at != NULL && pc >= (uintptr_t)layout->vm &&
              pc < (uintptr_t)layout->vm_end;
  int32_t vmstate;
  int is_read;
  begin_reading(at != NULL);
  jit_base = word_of(L, layout->jit_base);
  vmstate = vmstate_of(layout, L);
  w.of = word_of(L, layout->current);
  w.first = w.end = 0;
  w.is_compiled = 0;
  w.entries = 0;
  found.count = 0;
  if (!fetch(&w.L, w.of, sizeof(w.L)) || w.L.type != TYPE_THREAD) {
    return 0;
  }
  if (jit_base != 0) {
    int in_c;
    is_read = read_compiled(layout, L, &w, pc, jit_base, &in_c, &found);
    out->place = vmstate == VM_COLLECTOR ? TDL_IN_COLLECTOR
                 : in_c                  ? TDL_IN_C
                                         : TDL_IN_COMPILED;
    if (!is_read && is_vm) { /* on its way there */
      w.is_compiled = 0;
      found.count = 0;
      out->place = TDL_IN_INTERPRETER;
      is_read = read_interpreter(&w, at, &found);
    }
  } else if (is_vm) {
    out->place = TDL_IN_INTERPRETER;
    is_read = read_interpreter(&w, at, &found);
  } else {
    out->place = vmstate == VM_COLLECTOR ? TDL_IN_COLLECTOR : TDL_IN_C;
    is_read = vmstate != VM_EXIT && read_saved(&w, &found);
  }
  if (is_read) {
    for (int n = 0; n < TDL_STACK_COROUTINES && next_state(layout, &w); n++) {
      (void)read_saved(&w, &found);
    }
    describe_all(&found, out);
  }
  return is_read;
}

/* The collector may give it a smaller stack meanwhile. */
int tdl_stack_read_suspended(lua_State *co, tdl_stack *out) {
  walk w;
  sites found;
  state after;
  begin_reading(0);
  w.of = (uintptr_t)co;
  w.first = w.end = 0;
  w.is_compiled = 0;
  w.entries = 0;
  found.count = 0;
  if (!fetch(&w.L, w.of, sizeof(w.L)) || w.L.type != TYPE_THREAD ||
      w.L.status != LUA_YIELD || !read_saved(&w, &found)) {
    return 0;
  }
  out->place = TDL_IN_C;
  describe_all(&found, out);
  return fetch(&after, w.of, sizeof(after)) && after.status == LUA_YIELD &&
         after.stack == w.L.stack && after.base == w.L.base;
}

/* --- the proof ------------------------------------------------------------ */

/* The stack is read in a function that compiled code has called from within
** another one, and in one that the interpreter has called. */
static const char CHUNK[] =
    "local ffi = require 'ffi'\n"
    "local look = ffi.cast('void (*)(int)', ffi.cast('void *', (...)))\n"
    "local look_too = select(2, ...)\n"
    "local t = {1, 2, 3}\n"
    "local function inner(i)\n"
    "  t.x = i\n" /* a store, and a check behind it, make a snapshot */
    "  local v = t[i % 3 + 1] look(i) return v\n"
    "end\n"
    "local function outer(...)\n"
    "  for i = 1, 200 do\n"
    "    inner(i)\n"
    "  end\n"
    "  look_too()\n"
    "end\n"
    "outer(1)\n";

static struct {
  const tdl_layout *layout;
  lua_State *L;
  tdl_stack stack;
  int compiled, interpreted; /* how often it was right */
} proof;

static int is_frame(uint32_t i, enum tdl_frame_kind kind, int line,
                    int defined) {
  const tdl_frame *f = &proof.stack.frames[i];
  return f->kind == kind && f->line == line && f->defined == defined &&
         strcmp(f->source, "=proof") == 0;
}

/* As from outside, and as in a handler. */
static int is_read(int i) {
  static const tdl_registers nowhere;
  return tdl_stack_read(proof.layout, proof.L, i % 2 == 0 ? NULL : &nowhere,
                        &proof.stack);
}

static void prove(int i) {
  uint64_t jit_base = word_of(proof.L, proof.layout->jit_base);
  proof.compiled +=
      i > 100 && jit_base != 0 && is_read(i) && proof.stack.count >= 3 &&
      is_frame(0, TDL_FRAME_LUA, 7, 5) && is_frame(1, TDL_FRAME_LUA, 11, 9) &&
      is_frame(2, TDL_FRAME_MAIN, 15, 0);
}

static int prove_too(lua_State *L) {
  (void)L;
  proof.interpreted += is_read(1) && proof.stack.count >= 3 &&
                       proof.stack.frames[0].kind == TDL_FRAME_C &&
                       is_frame(1, TDL_FRAME_LUA, 13, 9) &&
                       is_frame(2, TDL_FRAME_MAIN, 15, 0);
  return 0;
}

static int run_proof(lua_State *L) {
  if (luaL_loadbuffer(L, CHUNK, sizeof(CHUNK) - 1, "=proof") != 0) {
    return lua_error(L);
  }
  lua_pushlightuserdata(L, (void *)(uintptr_t)prove);
  lua_pushcfunction(L, prove_too);
  lua_call(L, 2, 0);
  return 0;
}

int tdl_stack_is_list(const tdl_layout *layout, lua_State *L, uint32_t number,
                      uintptr_t pc) {
  trace T;
  self = getpid();
  begin_reading(0);
  return read_trace(layout, L, number, &T) && is_in_trace(&T, pc);
}

int tdl_stack_find(tdl_layout *layout, lua_State *L) {
  self = getpid();
  can_probe = TDL_STACK_PROBES && probe((uintptr_t)&proof) && !probe(0);
  memset(&proof, 0, sizeof(proof));
  proof.layout = layout;
  proof.L = L;
  return layout->cframe == offsetof(state, cframe) &&
         lua_cpcall(L, run_proof, NULL) == 0 && proof.compiled >= 50 &&
         proof.interpreted == 1;
}

#else

int tdl_stack_is_list(const tdl_layout *layout, lua_State *L, uint32_t number,
                      uintptr_t pc) {
  (void)layout;
  (void)L;
  (void)number;
  (void)pc;
  return 0;
}

int tdl_stack_find(tdl_layout *layout, lua_State *L) {
  (void)layout;
  (void)L;
  return 0;
}

int tdl_stack_read_suspended(lua_State *co, tdl_stack *out) {
  (void)co;
  (void)out;
  return 0;
}

int tdl_stack_read(const tdl_layout *layout, lua_State *L,
                   const tdl_registers *at, tdl_stack *out) {
  (void)layout;
  (void)L;
  (void)at;
  (void)out;
  return 0;
}

#endif
