/* tdl_path: where in the values an encoder is, for its error messages.
** Threads: the state's own.
** Owns:    nothing; a path is a chain of structs on the C stack, from the
**          innermost step outwards.
** Fails:   pushing may raise a Lua memory error. */
#ifndef TDL_CODEC_PATH_H
#define TDL_CODEC_PATH_H

#include <lua.h>
#include <stdint.h>

typedef enum tdl_path_kind {
  TDL_PATH_VALUE,   /* the n-th value of the list */
  TDL_PATH_ELEMENT, /* [n] */
  TDL_PATH_KEY,     /* the field whose key lies at stack index n */
  TDL_PATH_AS_KEY,  /* that key itself */
  TDL_PATH_UPVALUE, /* the n-th upvalue of a function, by name */
  TDL_PATH_ELIDED   /* steps that are no longer known */
} tdl_path_kind;

typedef struct tdl_path {
  const struct tdl_path *up;
  tdl_path_kind kind;
  uint32_t n;
  const char *name;
} tdl_path;

/* Pushes e.g. "arguments[1].items[3]"; `list` is "arguments". */
void tdl_path_push(lua_State *L, const char *list, const tdl_path *path);

#endif
