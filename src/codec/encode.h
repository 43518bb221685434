/* tdl_encoder: one encoding on its way; what the encoders of each kind of
** value (encode.c, classes.c, functions.c, cdata.c, ...) share.
** Threads: the state's own.
** Owns:    four slots of the Lua stack, from `base` on.
** Fails:   with a status, and a message at the top of the Lua stack when
**          `failed` is set. */
#ifndef TDL_CODEC_ENCODE_H
#define TDL_CODEC_ENCODE_H

#include <lua.h>

#include "../treadle.h"
#include "codec.h"
#include "path.h"
#include "store.h"
#include "writer.h"

/* Tables deeper than this are written after the values, so that the C stack
** holds this many steps of 200 bytes however deep the values are. */
#define TDL_DEPTH_LATER 100

/* The steps of a packed object go on below that depth: it must be whole when
** it is unpacked. At this depth an object in an object in ... is refused. */
#define TDL_DEPTH_MAX 190

/* How far below a packed object its own tables are nested at least. */
#define TDL_DEPTH_PACKED 8

/* Lua stack that a step of the walk takes. It is asked for every so many
** steps, for the first ones at the start. */
#define TDL_ENCODE_STEP_SLOTS    8
#define TDL_ENCODE_STEPS_CHECKED 16
#define TDL_ENCODE_STEPS_SLOTS                                                 \
  (TDL_ENCODE_STEP_SLOTS * TDL_ENCODE_STEPS_CHECKED)

/* Lua stack that a step needs beyond its own: callbacks, messages. */
#define TDL_ENCODE_END_SLOTS 24

/* A status besides those of treadle.h: a callback is needed, so start again
** under lua_pcall (see `guarded`). */
#define TDL_ENCODE_AGAIN 1

/* LuaJIT's lua_type of FFI data, which lua.h does not name. */
#define TDL_LUA_TCDATA 10

/* The value of an object in tdl_seen that is being packed right now. */
#define TDL_SEEN_OPEN UINT32_MAX

/* ... that has been packed into a value without identity. */
#define TDL_SEEN_NONE (UINT32_MAX - 1)

/* Objects that are told apart by looking through a list: most payloads have
** no more, and pay for no map. */
#define TDL_ENCODER_FEW 12

typedef struct tdl_encoder {
  lua_State *L;
  tdl_writer w;
  const char *list; /* "arguments" */
  int first;        /* stack index of the first value */
  int n;
  int base;          /* slots at base + enum tdl_encoder_slot */
  int raw;           /* tables are read in place (raw.h) */
  int guarded;       /* under lua_pcall: callbacks may run and raise */
  int failed;        /* a message has been pushed */
  tdl_target target; /* which things are refused */
  int later_depth;   /* tables at this depth are written later */
  uint8_t flags;     /* TDL_WIRE_REFS ... */
  uint32_t value;    /* number of the value that is being written */
  uint32_t objects;  /* numbered so far */
  uint32_t upvalues; /* numbered so far */
  uint32_t queued;   /* objects whose bodies wait */
  uint32_t pinned;
  tdl_scratch *scratch;             /* when `few` do not suffice */
  const void *few[TDL_ENCODER_FEW]; /* the first objects, by number */
} tdl_encoder;

enum tdl_encoder_slot {
  TDL_ENCODER_STORE = 1,
  TDL_ENCODER_SCRATCH,
  TDL_ENCODER_QUEUE, /* object, number of its value, object, ... */
  TDL_ENCODER_PINS,  /* keeps addresses from being used twice */
  TDL_ENCODER_SLOTS = TDL_ENCODER_PINS
};

/* Writes the value at absolute index `idx`. */
int tdl_encode_value(tdl_encoder *e, int idx, const tdl_path *path, int depth);

/* The same for a table. */
int tdl_encode_table(tdl_encoder *e, int idx, const tdl_path *path, int depth);

/* Writes counts, elements and pairs of the table at `idx`: no metatable. */
int tdl_encode_fields(tdl_encoder *e, int idx, const tdl_path *path, int depth);

/* Makes room on the Lua stack for the steps from `depth` on, if it is time. */
static inline int tdl_encode_room(tdl_encoder *e, int depth) {
  return depth == 0 || depth % TDL_ENCODE_STEPS_CHECKED != 0 ||
         lua_checkstack(e->L, TDL_ENCODE_STEPS_SLOTS + TDL_ENCODE_END_SLOTS);
}

/* Sets the counts of the table whose tag lies at `mark`, written with its
** number of elements or with less than 256, and its fields behind. */
int tdl_encode_counts(tdl_encoder *e, uint32_t mark, uint32_t array,
                      uint32_t pairs);

/* Has the body of the object at `idx` written later. */
int tdl_encode_later(tdl_encoder *e, int idx);

/* Writes the bodies that were queued since the queue had `from` of them. */
int tdl_encode_bodies(tdl_encoder *e, uint32_t from, int depth);

/* Numbers the object at `idx`, known by the address `p`. 0: it is new; 1: it
** is not, and a reference to it has been written; or a status. */
int tdl_encode_known(tdl_encoder *e, const void *p, int idx,
                     const tdl_path *path);

/* Keeps the value at `idx` alive until the end. */
void tdl_encode_pin(tdl_encoder *e, int idx);

/* The map of objects, opened when need be; NULL when memory is short. */
tdl_seen *tdl_encode_map(tdl_encoder *e);

/* The absolute index of the store. */
int tdl_encode_store(tdl_encoder *e);

/* Pushes what the metatable at `meta` says that its objects are called; NULL if
** that is no string. */
const char *tdl_encode_name(lua_State *L, int meta);

/* Fails with the message (as lua_pushfstring) and the path. */
int tdl_encode_refuse(tdl_encoder *e, const tdl_path *path, const char *format,
                      ...) __attribute__((format(printf, 3, 4)));

#endif
