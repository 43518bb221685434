/* tags: the tags and flags of a payload, and its numbers in memory
** (docs/wire-format.md); writer.h and reader.h stand on it.
** Threads: any.
** Owns:    nothing.
** Fails:   never. */
#ifndef TDL_CODEC_TAGS_H
#define TDL_CODEC_TAGS_H

#include <stdint.h>
#include <string.h>

/* The first byte: the version, and flags that tell the reader what it need
** not prepare for. */
#define TDL_WIRE_VERSION      0x01
#define TDL_WIRE_VERSION_MASK 0x0f
#define TDL_WIRE_REFS         0x10 /* objects are referred to by number */
#define TDL_WIRE_LATER        0x20 /* bodies follow the values */
#define TDL_WIRE_CODE         0x40 /* functions or modules occur */
#define TDL_WIRE_THINGS       0x80 /* addresses follow: it cannot be kept */

/* Numbers of things: a byte below this one, else this one and 32 bits. */
#define TDL_WIRE_WIDE 0xff

typedef enum tdl_tag {
  TDL_TAG_NIL,
  TDL_TAG_FALSE,
  TDL_TAG_TRUE,
  TDL_TAG_NUMBER,         /* f64 */
  TDL_TAG_STR8,           /* u8 length, bytes */
  TDL_TAG_STR32,          /* u32 length, bytes */
  TDL_TAG_TABLE8,         /* u8 array, u8 pairs, elements, key value ... */
  TDL_TAG_TABLE32,        /* the same with u32 */
  TDL_TAG_NUMBERS,        /* u32 n, n f64: n elements of an array */
  TDL_TAG_REF,            /* u32 object */
  TDL_TAG_LATER,          /* a table whose body follows the values */
  TDL_TAG_OBJECT,         /* class name, then a table: its raw fields */
  TDL_TAG_PACKED,         /* class name, then the value to unpack, bodies */
  TDL_TAG_INT64,          /* i64 */
  TDL_TAG_UINT64,         /* u64 */
  TDL_TAG_CDATA,          /* type name, u32 size, bytes */
  TDL_TAG_FUNCTION,       /* u32 length, bytecode, u8 n, n upvalues */
  TDL_TAG_FUNCTION_LATER, /* the same; the upvalues follow the values */
  TDL_TAG_CFUNCTION,      /* module, name (or nil: the module itself) */
  TDL_TAG_MODULE,         /* name; only as an upvalue */
  TDL_TAG_UPVALUE,        /* u32 upvalue; only as an upvalue: the same one */
  TDL_TAG_THING,          /* u32: a counted thing of the list at the end */
  TDL_TAG_PART,           /* u32 thing, u32: a part of it */
  TDL_TAG_COUNT
} tdl_tag;

static inline uint32_t tdl_wire_32(uint32_t v) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  v = __builtin_bswap32(v);
#endif
  return v;
}

static inline uint64_t tdl_wire_64(uint64_t v) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  v = __builtin_bswap64(v);
#endif
  return v;
}

static inline void tdl_store_32(uint8_t *p, uint32_t v) {
  v = tdl_wire_32(v);
  memcpy(p, &v, 4);
}

static inline void tdl_store_64(uint8_t *p, uint64_t v) {
  v = tdl_wire_64(v);
  memcpy(p, &v, 8);
}

static inline void tdl_store_f64(uint8_t *p, double v) {
  uint64_t bits;
  memcpy(&bits, &v, 8);
  tdl_store_64(p, bits);
}

static inline uint32_t tdl_load_32(const uint8_t *p) {
  uint32_t v;
  memcpy(&v, p, 4);
  return tdl_wire_32(v);
}

static inline uint64_t tdl_load_64(const uint8_t *p) {
  uint64_t v;
  memcpy(&v, p, 8);
  return tdl_wire_64(v);
}

static inline double tdl_load_f64(const uint8_t *p) {
  uint64_t bits = tdl_load_64(p);
  double v;
  memcpy(&v, &bits, 8);
  return v;
}

#endif
