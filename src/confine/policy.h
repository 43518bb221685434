/* tdl_policy: what a worker may do, as a value.
** Threads: one that makes it; any, once it is made: nobody changes it then.
** Owns:    copies of all that it was given.
** Fails:   TREADLE_ENOMEM; TREADLE_EINVAL for what is no policy.
**
** It lists what is granted: what it does not name is denied. So bytes that end
** early never allow more; they are refused all the same.
** Where it comes as bytes, they are trusted in nothing. Layout, little-endian:
**   "tdlp" version:8 may:32 memory:64 cpu:64 files:64
**   count:32 { access:8 length:32 path }     paths, absolute
**   count:32 { how:8 port:16 }               TCP ports
**   count:32 { length:32 name }              environment */
#ifndef TDL_CONFINE_POLICY_H
#define TDL_CONFINE_POLICY_H

#include <stddef.h>
#include <stdint.h>

#include "../base/bytes.h"

/* Of a path, and of all that is below it. */
enum tdl_access {
  TDL_MAY_READ = 1,
  TDL_MAY_WRITE = 2, /* make, change, rename, remove */
  TDL_MAY_RUN = 4    /* as a program */
};

enum tdl_port_use { TDL_MAY_CONNECT = 1, TDL_MAY_BIND = 2 };

/* What is granted as a whole. */
enum tdl_may {
  TDL_MAY_NET = 1,     /* any socket; without it: TCP to the listed ports */
  TDL_MAY_START = 2,   /* programs, those with TDL_MAY_RUN */
  TDL_MAY_ENV = 4,     /* every variable; without it: the listed ones */
  TDL_MAY_FFI = 8,     /* C code of its own */
  TDL_MAY_RETOUCH = 16 /* owners, modes and times, of any file it can reach */
};
#define TDL_MAY_ALL 31u

typedef struct tdl_grant {
  char *path;
  uint32_t access; /* enum tdl_access */
} tdl_grant;

typedef struct tdl_port {
  uint16_t port;
  uint16_t how; /* enum tdl_port_use */
} tdl_port;

typedef struct tdl_policy {
  uint32_t may; /* enum tdl_may */
  uint32_t grant_count, port_count, env_count;
  uint64_t memory_bytes, cpu_seconds, files; /* 0: no limit */
  tdl_grant *grants;
  tdl_port *ports;
  char **env;
} tdl_policy;

/* One that allows nothing. */
int tdl_policy_new(tdl_policy **out);
void tdl_policy_free(tdl_policy *policy); /* NULL: nothing */

/* Before it is given to anybody. The path is absolute, and has no links in it: one
** with links grants nothing. */
int tdl_policy_add_path(tdl_policy *policy, const char *path, uint32_t access);
int tdl_policy_add_port(tdl_policy *policy, uint32_t port, uint32_t how);
int tdl_policy_add_env(tdl_policy *policy, const char *name);

/* Appends it. */
int tdl_policy_write(const tdl_policy *policy, tdl_bytes *out);

/* The same value again; every byte must be used. */
int tdl_policy_read(const uint8_t *data, size_t size, tdl_policy **out);

/* Whether the variable may be seen. */
int tdl_policy_has_env(const tdl_policy *policy, const char *name);

#endif
