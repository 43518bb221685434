#include "interrupt_layout.h"

#include "interrupt.h"
#include "interrupt_stack.h"

#if TDL_INTERRUPT_LEAVES

#include <lauxlib.h>
#include <lualib.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unwind.h>

/* LuaJIT puts lua_State, global_State, jit_State and the dispatch table of a
** state into one block of more than 5 KiB (GG_State). The words of its first
** half are compared at moments at which they must differ: interpreted,
** compiled, and in another coroutine. A word that is what it should be at each
** of these moments is taken for the one that is sought; none, or two that
** disagree, and nothing is. */
#define WORDS  512
#define HEADER 12 /* words that every lua_State has at least */

enum { BEFORE, DURING, AFTER, MOMENTS };
#define COROUTINES 2

typedef struct sight {
  uintptr_t words[WORDS];
} sight;

static struct {
  const char *main; /* the main lua_State */
  uintptr_t running[COROUTINES];
  int n;
  uintptr_t from; /* in compiled code */
  sight seen[COROUTINES][MOMENTS];
} watch;

/* What the interpreter's registers hold when it calls a C function, and the
** header of the lua_State then. */
typedef struct tdl_layout_call {
  uintptr_t dispatch; /* r14 */
  uintptr_t stack;    /* rsp */
  uintptr_t from;     /* return address */
  uintptr_t header[HEADER];
} tdl_layout_call;

extern tdl_layout_call tdl_layout_seen;
extern int tdl_layout_look(lua_State *L);
__attribute__((visibility("hidden"))) tdl_layout_call tdl_layout_seen;

__asm__(".text\n"
        ".globl tdl_layout_look\n"
        ".hidden tdl_layout_look\n"
        ".type tdl_layout_look, @function\n"
        "tdl_layout_look:\n"
        "  .cfi_startproc\n"
        "  mov %rdi, %rsi\n"
        "  lea tdl_layout_seen(%rip), %rdi\n"
        "  mov %r14, (%rdi)\n"
        "  mov %rsp, 8(%rdi)\n"
        "  mov (%rsp), %rax\n"
        "  mov %rax, 16(%rdi)\n"
        "  add $24, %rdi\n"
        "  mov $12, %ecx\n" /* HEADER */
        "  rep movsq\n"
        "  xor %eax, %eax\n"
        "  ret\n"
        "  .cfi_endproc\n"
        ".size tdl_layout_look, .-tdl_layout_look\n");

/* Called through the FFI, so that compiled code calls it. The block has parts
** that are no objects of C's: no memcpy, which a sanitizer would look into. */
__attribute__((no_sanitize("address", "thread", "undefined"))) static void
see(int moment) {
  const volatile uintptr_t *from =
      (const volatile uintptr_t *)(const void *)watch.main;
  uintptr_t *to = watch.seen[watch.n][moment].words;
  if (moment == DURING) {
    watch.from = (uintptr_t)__builtin_return_address(0);
  }
  for (int i = 0; i < WORDS; i++) {
    to[i] = from[i];
  }
}

static const char CHUNK[] =
    "local ffi = require 'ffi'\n"
    "local see = ffi.cast('void (*)(int)', ffi.cast('void *', (...)))\n"
    "local enter = select(2, ...)\n"
    "local function watch(n)\n"
    "  enter(n)\n"
    "  see(0)\n"
    "  for i = 1, 200 do see(1) end\n"
    "  see(2)\n"
    "end\n"
    "for n = 0, 1 do coroutine.wrap(watch)(n) end\n"
    "local kept = {}\n"
    "for i = 1, 200 do kept[1] = ffi.new('int[3]') end\n";

static int enter(lua_State *L) {
  watch.n = (int)lua_tointeger(L, 1);
  watch.running[watch.n] = (uintptr_t)L;
  return 0;
}

static int run_chunk(lua_State *L) {
  luaL_openlibs(L);
  lua_pushcfunction(L, tdl_layout_look);
  lua_call(L, 0, 0);
  if (luaL_loadbuffer(L, CHUNK, sizeof(CHUNK) - 1, "=watch") != 0) {
    return lua_error(L);
  }
  lua_pushlightuserdata(L, (void *)(uintptr_t)see);
  lua_pushcfunction(L, enter);
  lua_call(L, 2, 0);
  return 0;
}

/* A place on the Lua stack of the lua_State at `of`: some word in its header
** is near it. */
static int is_on_stack(uintptr_t of, uintptr_t place) {
  const uintptr_t *header = (const uintptr_t *)of;
  for (int i = 0; i < HEADER; i++) {
    if (place - header[i] + 4096 < 8192) {
      return 1;
    }
  }
  return 0;
}

static int is_jit_base(int word) {
  for (int n = 0; n < COROUTINES; n++) {
    const sight *s = watch.seen[n];
    uintptr_t value = s[DURING].words[word];
    if (s[BEFORE].words[word] != 0 || s[AFTER].words[word] != 0 || value == 0 ||
        !is_on_stack(watch.running[n], value)) {
      return 0;
    }
  }
  return 1;
}

static int is_current(int word) {
  for (int n = 0; n < COROUTINES; n++) {
    if (watch.seen[n][DURING].words[word] != watch.running[n]) {
      return 0;
    }
  }
  return 1;
}

/* A page that may be read: a word that looks like an area's address may be any
** number. */
static int is_mapped(uintptr_t page) {
  return msync((void *)page, 4096, MS_ASYNC) == 0; /* else ENOMEM */
}

/* The mapping that holds the code that has called `see`. */
static int is_areas(int word) {
  uintptr_t area = watch.seen[COROUTINES - 1][DURING].words[word];
  return area != 0 && area % 4096 == 0 && area < watch.from &&
         watch.from - area < TDL_INTERRUPT_CODE_AREA_BYTES && is_mapped(area) &&
         watch.from - area < ((const tdl_code_area *)area)->size;
}

/* Behind the header lies a CIE with the augmentation "zPR", in which P is an
** absolute pointer. */
static _Unwind_Personality_Fn personality_of(const tdl_code_area *area) {
  static const unsigned char head[] = {0, 0, 0, 0, 1, 'z', 'P', 'R', 0};
  const unsigned char *cie = (const unsigned char *)(area + 1) + 4;
  _Unwind_Personality_Fn fn;
  if (memcmp(cie, head, sizeof(head)) != 0 || cie[12] != 10 || cie[13] != 0) {
    return NULL;
  }
  memcpy(&fn, cie + 14, sizeof(fn));
  return fn;
}

static int find_words(tdl_layout *out) {
  int bases = 0, currents = 0, areas = 0;
  for (int i = HEADER; i < WORDS; i++) {
    ptrdiff_t at = i * (ptrdiff_t)sizeof(uintptr_t);
    if (is_jit_base(i)) {
      out->jit_base = at;
      bases++;
    }
    if (is_current(i)) { /* several are: the same at all these moments */
      out->current = at;
      currents++;
    }
    if (is_areas(i)) {
      const void *area =
          (const void *)watch.seen[COROUTINES - 1][DURING].words[i];
      out->areas = at;
      out->personality = personality_of(area);
      areas++;
    }
  }
  return bases == 1 && currents > 0 && areas == 1;
}

/* Reads no byte behind one that differs: there may be none. */
static int begins(const unsigned char *code, const unsigned char *with,
                  size_t n) {
  size_t i = 0;
  while (i < n && code[i] == with[i]) {
    i++;
  }
  return i == n;
}

/* Compiled code asks lj_mem_newgco for a cdata, which is in the collector's
** list then, and writes its kind by itself:
**   movzx ecx, byte [r14 + currentwhite]
**   and ecx, 3
**   or ecx, kind
**   mov [rax + 8], ecx */
int tdl_layout_is_birth(const unsigned char *code) {
  static const unsigned char white[] = {0x41, 0x0f, 0xb6};
  static const unsigned char mask[] = {0x83, 0xe1, 3};
  static const unsigned char kind[] = {0x81, 0xc9};
  static const unsigned char store[] = {0x89, 0x48, 8};
  if (begins(code, white, sizeof(white)) && (code[3] & 0x3f) == 0x0e) {
    code += code[3] & 0x80 ? 8 : 5;
  }
  if (begins(code, mask, sizeof(mask))) {
    code += sizeof(mask);
  }
  if (begins(code, kind, sizeof(kind))) {
    code += sizeof(kind) + 4;
  }
  return begins(code, store, sizeof(store));
}

/* The state has compiled a birth: it looks as above, and may be recognised. */
static int find_birth(const tdl_layout *layout, const char *L) {
  const tdl_code_area *area =
      *(tdl_code_area *const *)(const void *)(L + layout->areas);
  const unsigned char *code = (const unsigned char *)(area + 1);
  const unsigned char *end = (const unsigned char *)area + area->size - 32;
  for (; code < end; code++) {
    if (code[0] == 0x41 && code[1] == 0x0f && tdl_layout_is_birth(code) &&
        !tdl_layout_is_birth(code + 1)) {
      return 1;
    }
  }
  return 0;
}

/* The interpreter's frame is where the stack pointer was before the call. */
static int find_frame(tdl_layout *out) {
  const tdl_layout_call *call = &tdl_layout_seen;
  int found = 0;
  for (int i = 0; i < HEADER; i++) {
    if ((call->header[i] & ~(uintptr_t)3) == call->stack + sizeof(uintptr_t)) {
      out->cframe = i * (ptrdiff_t)sizeof(uintptr_t);
      found++;
    }
  }
  return found == 1;
}

/* The unwinder knows the whole of the assembler code as one function. */
static int find_vm(tdl_layout *out) {
  char *inside = (char *)tdl_layout_seen.from;
  char *first = _Unwind_FindEnclosingFunction(inside);
  size_t low, high;
  if (first == NULL) {
    return 0;
  }
  low = (size_t)(inside - first); /* is in it */
  for (high = low + 1; _Unwind_FindEnclosingFunction(first + high) == first;
       high *= 2) {
    low = high;
  }
  while (high - low > 1) {
    size_t middle = low + (high - low) / 2;
    if (_Unwind_FindEnclosingFunction(first + middle) == first) {
      low = middle;
    } else {
      high = middle;
    }
  }
  out->vm = first;
  out->vm_end = first + low;
  out->vm_inside = inside;
  return 1;
}

/* The 32 bits at that place have been the number of the trace that has called
** `see`, and say before and after that that a C function runs. */
static int is_vmstate(size_t at) {
  for (int n = 0; n < COROUTINES; n++) {
    const char *seen[MOMENTS];
    int32_t number[MOMENTS];
    for (int m = 0; m < MOMENTS; m++) {
      seen[m] = (const char *)watch.seen[n][m].words + at;
      memcpy(&number[m], seen[m], sizeof(*number));
    }
    if (number[BEFORE] != -2 || number[AFTER] != -2 || number[DURING] <= 0 ||
        number[DURING] > 64) {
      return 0;
    }
  }
  return 1;
}

/* What only stacks need: which of the words may be the list of traces is told by
** the proof. */
static int find_traces(tdl_layout *out, lua_State *L) {
  const sight *s = &watch.seen[COROUTINES - 1][DURING];
  for (size_t at = HEADER * sizeof(uintptr_t); at < sizeof(s->words); at += 4) {
    if (!is_vmstate(at)) {
      continue;
    }
    out->vmstate = (ptrdiff_t)at;
    for (size_t i = HEADER; i < WORDS; i++) {
      int32_t number;
      memcpy(&number, (const char *)s->words + at, sizeof(number));
      out->traces = (ptrdiff_t)(i * sizeof(uintptr_t));
      if (tdl_stack_is_list(out, L, (uint32_t)number, watch.from) &&
          tdl_stack_find(out, L)) {
        return 1;
      }
    }
  }
  return 0;
}

int tdl_layout_find(tdl_layout *out) {
  lua_State *L = luaL_newstate();
  tdl_layout found;
  int is_found = 0;
  if (L == NULL) {
    return 0;
  }
  memset(&found, 0, sizeof(found));
  watch.main = (const char *)L;
  if (lua_cpcall(L, run_chunk, NULL) == 0) {
    found.dispatch = (ptrdiff_t)(tdl_layout_seen.dispatch - (uintptr_t)L);
    is_found = find_words(&found) && find_frame(&found) && find_vm(&found) &&
               find_birth(&found, (const char *)L);
    found.reads = is_found && find_traces(&found, L);
  }
  lua_close(L);
  if (is_found) {
    *out = found;
  }
  return is_found;
}

#else

int tdl_layout_find(tdl_layout *out) {
  (void)out;
  return 0;
}

int tdl_layout_is_birth(const unsigned char *code) {
  (void)code;
  return 0;
}

#endif
