/* codec: Lua values to bytes and back (docs/wire-format.md).
** Threads: a codec belongs to one Lua state and its thread.
** Owns:    scratch memory, in a userdata anchored in the state's registry.
** Fails:   with a status and a message; the Lua stack is then as before. */
#ifndef TDL_CODEC_H
#define TDL_CODEC_H

#include <lua.h>

#include "../base/bytes.h"

/* Prepares the state: anchors the scratch memory. Raises only for memory. */
void tdl_codec_open(lua_State *L);

/* Confines it: takes the table on top of the stack as package.loaded, in which
** names in payloads are looked up. From then on the state sends no functions, and,
** unless it has the FFI, neither sends nor takes cdata. */
void tdl_codec_confine(lua_State *L, int has_ffi);

/* Appends the `n` values from stack index `first` (absolute) to `out`, at
** most `limit` bytes. The stack is left as it was.
** Returns 0, TREADLE_EPAYLOAD or TREADLE_ENOMEM; on failure out->len is as
** before and a message string is pushed, e.g. "cannot send a coroutine
** (arguments[1].items[3])"; `what` names the list of values in that path
** ("arguments", "results"). May raise a Lua memory error; nothing leaks. */
int tdl_encode(lua_State *L, int first, int n, const char *what, tdl_bytes *out,
               uint32_t limit);

/* Who gets the bytes: that decides which counted things may be among the values.
** Others are refused, with their path. */
typedef enum tdl_target {
  TDL_TO_STATE,   /* a state of this process: all */
  TDL_TO_PROCESS, /* another process: those that it can have, too. What stands in
                  ** the bytes are this process' addresses: to be translated */
  TDL_TO_STRING   /* anybody, at any time: none */
} tdl_target;

int tdl_encode_to(lua_State *L, int first, int n, const char *what,
                  tdl_bytes *out, uint32_t limit, tdl_target target);

/* The same for values that are all scalars, into the memory that `out` has:
** 1; or 0, with nothing appended, when one is not or when there is too little
** memory. Calls nothing that could raise. */
int tdl_encode_scalars(lua_State *L, int first, int n, tdl_bytes *out);

/* Pushes the values of the payload; trusts none of its bytes.
** Returns their number (>= 0); or TREADLE_EPAYLOAD / TREADLE_ENOMEM with only
** a message string pushed. May raise a Lua memory error; nothing leaks. */
int tdl_decode(lua_State *L, const uint8_t *data, size_t len);

/* The same with flags. NO_CODE refuses functions and modules: for payloads
** from senders who are not trusted to run code here. NO_THINGS refuses counted
** things: for bytes that may have been kept since, or made up. */
#define TDL_DECODE_NO_CODE   1u
#define TDL_DECODE_NO_THINGS 2u
int tdl_decode_flags(lua_State *L, const uint8_t *data, size_t len,
                     unsigned flags);

#endif
