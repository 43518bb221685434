/* tdl_state: making a worker's Lua state fit to serve, and closing it.
** Threads: the worker's.
** Owns:    nothing; the vm is the caller's from open to free.
** Fails:   open with TREADLE_ENOMEM; boot with a status, and the error, encoded,
**          in `report`: without memory that is empty. */
#ifndef TDL_STATE_H
#define TDL_STATE_H

#include "vm.h"

/* A field of the registry: in a confined state the FFI library, which is taken away
** from everybody, and must stay: LuaJIT needs tables that it alone holds. */
#define TDL_STATE_CONFINED "treadle.confined"

/* Makes the state; boots it: loads the module, runs init. The report for the
** home, good or bad, is in `report`. */
int tdl_state_open(tdl_worker *worker, tdl_vm **out);
int tdl_state_boot(tdl_vm *vm, tdl_bytes *report);

/* The end, in this order: runs the script's teardown; closes the state, or if
** that was interrupted gives back what can be; frees the rest. */
void tdl_state_tear_down(tdl_vm *vm);
void tdl_state_close(tdl_vm *vm);
void tdl_state_lose(tdl_vm *vm);
void tdl_state_free(tdl_vm *vm);

/* For Lua: print, each line in one piece, so that those of several threads never
** mix. */
int tdl_state_print(lua_State *L);

#endif
