/* store: what the codec keeps in a Lua state: a table in its registry.
** Threads: the state's own.
** Owns:    the scratch memory, in a userdata; Lua functions; caches.
** Fails:   with a Lua memory error; nothing leaks. */
#ifndef TDL_CODEC_STORE_H
#define TDL_CODEC_STORE_H

#include <lua.h>

#include "seen.h"

/* Slots of the store. A codec that nobody uses fills none of them. */
typedef enum tdl_store_slot {
  TDL_STORE_SCRATCH = 1,    /* the scratch when it is idle, else nil */
  TDL_STORE_SCRATCH_META,   /* its metatable */
  TDL_STORE_FFI,            /* the ffi library; false: there is none */
  TDL_STORE_GET_NUMBERS,    /* a compiled loop; false: there is none */
  TDL_STORE_JIT_STATUS,     /* jit.status */
  TDL_STORE_CDATA_DESCRIBE, /* FFI types (cdata.c) */
  TDL_STORE_CDATA_MAKE,     /* ... */
  TDL_STORE_CDATA_SCRUB,    /* ... */
  TDL_STORE_CLASS_NAMES,    /* class name -> class (classes.c) */
  TDL_STORE_CLASS_METAS,    /* metatable -> class */
  TDL_STORE_DUMPS,          /* weak: Lua function -> bytecode */
  TDL_STORE_LOADED,         /* bytecode -> function without upvalues */
  TDL_STORE_LOADED_SERIALS, /* bytecode -> the payload that had it last */
  TDL_STORE_LOADED_COUNT,   /* how many those are */
  TDL_STORE_FACTORIES,      /* bytecode -> makes functions (protos.c) */
  TDL_STORE_FACTORY_COUNT,  /* how many those are */
  TDL_STORE_SAMPLES,        /* number of upvalues -> dump of a factory */
  TDL_STORE_SERIAL,         /* the last payload that loaded a function */
  TDL_STORE_C_MODULES,      /* C function -> module name (names.c) */
  TDL_STORE_C_NAMES,        /* C function -> its name in the module */
  TDL_STORE_CALLS,          /* callbacks that are running now */
  TDL_STORE_CONFINED,       /* in a confined state: its package.loaded */
  TDL_STORE_SLOTS = TDL_STORE_CONFINED
} tdl_store_slot;

/* C memory of one encoding or decoding. */
typedef struct tdl_scratch {
  tdl_seen seen; /* the encoder's objects and upvalues */

  /* The decoder's upvalues: the function that had one first. */
  struct tdl_upvalue {
    uint32_t function; /* its object number */
    uint32_t slot;
  } * upvalues;
  uint32_t upvalue_count;
  uint32_t upvalue_cap;

  /* The encoder's counted things, a reference of each (payload.h). */
  uintptr_t *things;
  uint32_t thing_count;
  uint32_t thing_cap;
} tdl_scratch;

/* Lets go of its things. */
void tdl_scratch_forget(tdl_scratch *scratch);

/* Pushes the store; makes it when it is missing. */
void tdl_store_push(lua_State *L);

/* Pushes the scratch's userdata, emptied; `store` is the store's absolute
** index. It is the caller's while it lies on the stack, so that a callback
** that uses the codec gets another one, and an error frees it. */
tdl_scratch *tdl_scratch_take(lua_State *L, int store);

/* Gives the userdata at absolute index `idx` back to the store. */
void tdl_scratch_give(lua_State *L, int store, int idx);

/* Pushes the ffi library, loading it if need be; 0 and nil when the state
** has none. */
int tdl_store_push_ffi(lua_State *L, int store);

/* Pushes package.loaded as the registry has it; that of the scripts, where the
** state is confined. */
void tdl_store_push_loaded(lua_State *L);

/* Whether the state is confined (tdl_codec_confine). */
int tdl_store_is_confined(lua_State *L);

/* Runs `source` with the ffi library and package.loaded as its arguments, and
** keeps its `n` results in the slots from `slot` on; false where it fails. */
void tdl_store_load(lua_State *L, int store, const char *source,
                    const char *name, int slot, int n);

/* lua_pcall of a user's function, with a bound on callbacks that use the
** codec again, because each lies on the C stack. Results as lua_pcall. */
int tdl_store_call(lua_State *L, int nargs, int nresults);

#endif
