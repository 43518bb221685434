#include "interrupt_stack.h"

#include "interrupt.h"

#if TDL_INTERRUPT_LEAVES

#include <lauxlib.h>
#include <string.h>

#include "interrupt_objects.h"

/* vmstate, where it is no trace's number */
enum { VM_INTERPRETER = -1, VM_C = -2, VM_COLLECTOR = -3, VM_EXIT = -4 };

#define SLOT           8u
#define LINK           3u /* the kind of a frame: in the link's lowest bits */
#define LINK_LUA       0u
#define LINK_VARG      3u
#define LINK_CONT      2u
#define TAG_SHIFT      47
#define TAG_FUNCTION   0x1fff7u /* ~8 in 17 bits */
#define SNAP_NORESTORE 0x040000u
#define SAVED_STATE    16 /* in the interpreter's C frame */
#define SAVED_PC       24
#define SAVED_RETURN   72
#define FRAME_SIZE     80
#define COMPILED_FRAME 16 /* what compiled code adds to that frame */
#define TRACES_SIZE    12 /* from the list of traces to its size */
#define TRACES         64u
#define SNAPS          32u

/* --- the stack, slot by slot ---------------------------------------------- */

typedef struct walk {
  tdl_object_state L;
  uint64_t of; /* that state */
  /* a part of its stack */
  uint64_t window[TDL_STACK_WINDOW_SLOTS];
  uint64_t first, end;
  /* compiled code: what it would write from `floor` on */
  int is_compiled;
  tdl_object_trace T;
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
    if (!tdl_object_fetch(w->window, w->first, (size_t)(w->end - w->first))) {
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
      return ref < TDL_OBJECT_FIRST_CONSTANT && ref >= w->T.nk &&
                     tdl_object_fetch(out, w->T.ir + (ref + 1) * 8,
                                      sizeof(*out))
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
    *out = value & TDL_OBJECT_POINTER;
    return *out == w->of || value >> TAG_SHIFT == TAG_FUNCTION ? 1 : -1;
  }
}

/* --- the frames ----------------------------------------------------------- */

/* What a frame is, until all are known: there may be a great many. */
typedef struct site {
  uint64_t function; /* or the proto */
  uint64_t pc;       /* of the instruction; 0: not known */
} site;

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
    if (!tdl_object_fetch(&call, value - 4, sizeof(call))) {
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
      function = tdl_object_proto_with(&w->T, pc);
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
  (void)tdl_object_fetch(&value, (uint64_t)(uintptr_t)L + (uint64_t)offset,
                         sizeof(value));
  return value;
}

static int read_trace(const tdl_layout *layout, const lua_State *L,
                      uint32_t number, tdl_object_trace *out) {
  uint64_t at;
  return tdl_object_fetch(&at,
                          word_of(L, layout->traces) + 8 * (uint64_t)number,
                          sizeof(at)) &&
         at != 0 && tdl_object_trace_at(at, out) && out->traceno == number;
}

static int is_in_trace(const tdl_object_trace *T, uint64_t pc) {
  return pc >= T->mcode && pc < T->mcode + T->szmcode;
}

static int32_t vmstate_of(const tdl_layout *layout, const lua_State *L) {
  int32_t value = VM_EXIT;
  (void)tdl_object_fetch(&value,
                         (uint64_t)(uintptr_t)L + (uint64_t)layout->vmstate,
                         sizeof(value));
  return value;
}

/* Where a C function that the trace has called returns to. */
static uint64_t return_address(const walk *w, const tdl_object_trace *T) {
  uint64_t at = (w->L.cframe & ~(uint64_t)3) - COMPILED_FRAME - T->spadjust - 8;
  uint64_t pc;
  return tdl_object_fetch(&pc, at, sizeof(pc)) ? pc : 0;
}

/* The place in the trace's code where the thread is, or where the C that it has
** called returns to; 0 when that is not in it. */
static uint64_t place_in(const walk *w, const tdl_object_trace *T,
                         uint64_t pc) {
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
  (void)tdl_object_fetch(
      &size, (uint64_t)(uintptr_t)L + (uint64_t)layout->traces + TRACES_SIZE,
      sizeof(size));
  size = size < TDL_STACK_TRACES ? size : TDL_STACK_TRACES;
  for (uint32_t i = 0; number != VM_EXIT && i < size; i++) {
    uint32_t n = size - i < TRACES ? size - i : TRACES;
    if (i % TRACES == 0 &&
        !tdl_object_fetch(at, list + 8 * (uint64_t)i, 8 * (size_t)n)) {
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
static int find_snapshot(walk *w, uint64_t pc, tdl_object_snapshot *out) {
  tdl_object_snapshot part[SNAPS];
  uint64_t offset = pc - w->T.mcode;
  int found = 0;
  for (uint32_t i = 0; i < w->T.nsnap; i += SNAPS) {
    uint32_t n = w->T.nsnap - i;
    n = n < SNAPS ? n : SNAPS;
    if (!tdl_object_fetch(part, w->T.snap + i * sizeof(*part),
                          n * sizeof(*part))) {
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
  tdl_object_snapshot snap;
  uint64_t where, place = find_trace(layout, L, w, pc);
  *in_c = place != pc;
  if (place == 0 || !find_snapshot(w, place, &snap) ||
      !tdl_object_fetch(w->map, w->T.snapmap + 4 * (uint64_t)snap.mapofs,
                        4 * (size_t)snap.nent) ||
      !tdl_object_fetch(&where,
                        w->T.snapmap + 4 * ((uint64_t)snap.mapofs + snap.nent),
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
      tdl_object_fetch(&pc, (w->L.cframe & ~(uint64_t)3) + SAVED_PC,
                       sizeof(pc)) &&
      !tdl_object_runs(function, pc - 4)) {
    pc = 4;
  }
  return collect(w, link, pc - 4, out);
}

/* The state that has resumed this one, if the interpreter itself has: then its C
** frame lies behind this one's. */
static int next_state(const tdl_layout *layout, walk *w) {
  uint64_t frame = w->L.cframe & ~(uint64_t)3, from;
  if (!tdl_object_fetch(&from, frame + SAVED_RETURN, sizeof(from)) ||
      from < (uintptr_t)layout->vm || from >= (uintptr_t)layout->vm_end ||
      !tdl_object_fetch(&w->of, frame + FRAME_SIZE + SAVED_STATE,
                        sizeof(w->of)) ||
      !tdl_object_state_at(w->of, &w->L)) {
    return 0;
  }
  w->first = w->end = 0;
  w->is_compiled = 0;
  return (w->L.cframe & ~(uint64_t)3) == frame + FRAME_SIZE;
}

/* In the interpreter itself, if its registers are what they mostly are. */
static int read_interpreter(walk *w, const tdl_registers *at, sites *out) {
  uint64_t function, value, pc = at->next - 4, link = at->base - SLOT;
  if (at->base <= w->L.stack || function_at(w, link, &function) <= 0) {
    return 0;
  }
  if (!tdl_object_runs(function, pc)) {
    /* it may be about to begin, or to return */
    if (!link_at(w, link, &value) || value != at->next) {
      return 0;
    }
    pc = 0;
  }
  return collect(w, link, pc, out);
}

static int describe_site(const site *p, tdl_frame *out) {
  return tdl_object_describe(p->function, p->pc, out);
}

static void describe_all(const sites *from, tdl_stack *out) {
  uint32_t inner =
      from->count < TDL_STACK_INNER ? from->count : TDL_STACK_INNER;
  uint32_t rest = from->count - inner;
  uint32_t outer = rest < TDL_STACK_OUTER ? rest : TDL_STACK_OUTER;
  out->count = 0;
  out->skipped = rest - outer;
  for (uint32_t i = 0; i < inner; i++) {
    out->count +=
        (uint32_t)describe_site(&from->inner[i], &out->frames[out->count]);
  }
  for (uint32_t i = rest - outer; i < rest; i++) {
    out->count += (uint32_t)describe_site(&from->outer[i % TDL_STACK_OUTER],
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
  tdl_object_begin(at != NULL);
  jit_base = word_of(L, layout->jit_base);
  vmstate = vmstate_of(layout, L);
  w.of = word_of(L, layout->current);
  w.first = w.end = 0;
  w.is_compiled = 0;
  w.entries = 0;
  found.count = 0;
  if (!tdl_object_state_at(w.of, &w.L)) {
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
  tdl_object_state after;
  tdl_object_begin(0);
  w.of = (uintptr_t)co;
  w.first = w.end = 0;
  w.is_compiled = 0;
  w.entries = 0;
  found.count = 0;
  if (!tdl_object_state_at(w.of, &w.L) || w.L.status != LUA_YIELD ||
      !read_saved(&w, &found)) {
    return 0;
  }
  out->place = TDL_IN_C;
  describe_all(&found, out);
  return tdl_object_fetch(&after, w.of, sizeof(after)) &&
         after.status == LUA_YIELD && after.stack == w.L.stack &&
         after.base == w.L.base;
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
  tdl_object_trace T;
  tdl_object_setup();
  tdl_object_begin(0);
  return read_trace(layout, L, number, &T) && is_in_trace(&T, pc);
}

int tdl_stack_find(tdl_layout *layout, lua_State *L) {
  tdl_object_setup();
  memset(&proof, 0, sizeof(proof));
  proof.layout = layout;
  proof.L = L;
  return layout->cframe == offsetof(tdl_object_state, cframe) &&
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
