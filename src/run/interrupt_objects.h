/* tdl_object: LuaJIT's objects as they lie in memory, read without its help.
** Threads: any, also in a signal handler; a reading is the calling thread's.
** Owns:    nothing.
** Fails:   with 0: it is not there, or not what it should be (interrupt_stack.h,
**          R2).
**
** The shapes are those of version 2.1 with 64-bit references (lj_obj.h, lj_jit.h).
** An address is a number here: whether something is there turns out. */
#ifndef TDL_RUN_INTERRUPT_OBJECTS_H
#define TDL_RUN_INTERRUPT_OBJECTS_H

#include <stddef.h>
#include <stdint.h>

#include "interrupt_stack.h"

typedef struct tdl_object_state {
  uint64_t next;
  uint8_t marked, type, dummy_ffid, status;
  uint64_t global, gclist, base, top, maxstack, stack, openupval, env, cframe;
} tdl_object_state;

typedef struct tdl_object_trace {
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
} tdl_object_trace;

typedef struct tdl_object_snapshot {
  uint32_t mapofs;
  uint16_t ref, mcofs;
  uint8_t nslots, topslot, nent, count;
} tdl_object_snapshot;

#define TDL_OBJECT_POINTER        0x7fffffffffffu /* what of a value is a pointer */
#define TDL_OBJECT_FIRST_CONSTANT 0x8000u /* constants have lower numbers */

/* Before all else, by one thread: which process this is, and how its memory can be
** read. */
void tdl_object_setup(void);

/* A reading begins: of what belongs to this thread, so that no page of it vanishes
** meanwhile, or to another one. */
void tdl_object_begin(int is_own);

/* 1 if all of it, less than a page, is there. */
int tdl_object_fetch(void *to, uint64_t from, size_t n);

/* The lua_State there, or the trace. */
int tdl_object_state_at(uint64_t at, tdl_object_state *out);
int tdl_object_trace_at(uint64_t at, tdl_object_trace *out);

/* Whether it is a function of Lua's, and that instruction in it. */
int tdl_object_runs(uint64_t at, uint64_t pc);

/* The proto with that instruction among the trace's constants, which hold each
** function, or at least its proto, that the trace relies on. */
uint64_t tdl_object_proto_with(const tdl_object_trace *T, uint64_t pc);

/* Fills in what is known of a function, or a proto; and of the instruction. Either
** may be 0: not known. */
int tdl_object_describe(uint64_t function, uint64_t pc, tdl_frame *out);

#endif
