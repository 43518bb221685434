#include "policy.h"

#include <string.h>

#include "../base/alloc.h"
#include "../config.h"
#include "../treadle.h"

#define VERSION 1

static const uint8_t magic[4] = {'t', 'd', 'l', 'p'};

/* --- making --------------------------------------------------------------- */

int tdl_policy_new(tdl_policy **out) {
  tdl_policy *policy = tdl_calloc(sizeof(*policy));
  if (policy == NULL) {
    return TREADLE_ENOMEM;
  }
  *out = policy;
  return 0;
}

void tdl_policy_free(tdl_policy *policy) {
  if (policy == NULL) {
    return;
  }
  for (uint32_t i = 0; i < policy->grant_count; i++) {
    tdl_free(policy->grants[i].path);
  }
  for (uint32_t i = 0; i < policy->env_count; i++) {
    tdl_free(policy->env[i]);
  }
  tdl_free(policy->grants);
  tdl_free(policy->ports);
  tdl_free(policy->env);
  tdl_free(policy);
}

/* Room for one more of them: arrays grow at the powers of two. */
static int make_room(void *array, uint32_t count, size_t size) {
  void *bigger, *now;
  if (count != 0 && (count & (count - 1)) != 0) {
    return 0;
  }
  if (count >= TDL_POLICY_ENTRIES) {
    return TREADLE_EINVAL;
  }
  memcpy(&now, array, sizeof(now));
  bigger = tdl_realloc(now, (count == 0 ? 1 : (size_t)count * 2) * size);
  if (bigger == NULL) {
    return TREADLE_ENOMEM;
  }
  memcpy(array, &bigger, sizeof(bigger));
  return 0;
}

/* A copy that ends with 0, or NULL. */
static char *copy_text(const char *text, size_t length) {
  char *copy = tdl_realloc(NULL, length + 1);
  if (copy != NULL) {
    memcpy(copy, text, length);
    copy[length] = 0;
  }
  return copy;
}

static int add_path(tdl_policy *policy, const char *path, size_t length,
                    uint32_t access) {
  char *copy;
  int status;
  if (length == 0 || length >= TDL_POLICY_PATH_BYTES || path[0] != '/' ||
      memchr(path, 0, length) != NULL || access == 0 || access > 7) {
    return TREADLE_EINVAL;
  }
  status =
      make_room(&policy->grants, policy->grant_count, sizeof(*policy->grants));
  if (status != 0) {
    return status;
  }
  copy = copy_text(path, length);
  if (copy == NULL) {
    return TREADLE_ENOMEM;
  }
  policy->grants[policy->grant_count].path = copy;
  policy->grants[policy->grant_count++].access = access;
  return 0;
}

static int add_env(tdl_policy *policy, const char *name, size_t length) {
  char *copy;
  int status;
  if (length == 0 || length >= TDL_POLICY_PATH_BYTES ||
      memchr(name, 0, length) != NULL || memchr(name, '=', length) != NULL) {
    return TREADLE_EINVAL;
  }
  status = make_room(&policy->env, policy->env_count, sizeof(*policy->env));
  if (status != 0) {
    return status;
  }
  copy = copy_text(name, length);
  if (copy == NULL) {
    return TREADLE_ENOMEM;
  }
  policy->env[policy->env_count++] = copy;
  return 0;
}

int tdl_policy_add_path(tdl_policy *policy, const char *path, uint32_t access) {
  return add_path(policy, path, strlen(path), access);
}

int tdl_policy_add_env(tdl_policy *policy, const char *name) {
  return add_env(policy, name, strlen(name));
}

int tdl_policy_add_port(tdl_policy *policy, uint32_t port, uint32_t how) {
  int status;
  if (port > UINT16_MAX || how == 0 || how > 3) {
    return TREADLE_EINVAL;
  }
  status =
      make_room(&policy->ports, policy->port_count, sizeof(*policy->ports));
  if (status == 0) {
    policy->ports[policy->port_count].port = (uint16_t)port;
    policy->ports[policy->port_count++].how = (uint16_t)how;
  }
  return status;
}

int tdl_policy_has_env(const tdl_policy *policy, const char *name) {
  if (policy->may & TDL_MAY_ENV) {
    return 1;
  }
  for (uint32_t i = 0; i < policy->env_count; i++) {
    if (strcmp(policy->env[i], name) == 0) {
      return 1;
    }
  }
  return 0;
}

/* --- bytes ---------------------------------------------------------------- */

static int put(tdl_bytes *out, uint64_t value, unsigned size) {
  uint8_t bytes[8];
  for (unsigned i = 0; i < size; i++) {
    bytes[i] = (uint8_t)(value >> (8 * i));
  }
  return tdl_bytes_append(out, bytes, size);
}

static int put_text(tdl_bytes *out, const char *text) {
  size_t length = strlen(text);
  int status = put(out, length, 4);
  return status != 0 ? status : tdl_bytes_append(out, text, length);
}

static int write_head(const tdl_policy *p, tdl_bytes *out) {
  int status = tdl_bytes_append(out, magic, sizeof(magic));
  status = status != 0 ? status : put(out, VERSION, 1);
  status = status != 0 ? status : put(out, p->may, 4);
  status = status != 0 ? status : put(out, p->memory_bytes, 8);
  status = status != 0 ? status : put(out, p->cpu_seconds, 8);
  return status != 0 ? status : put(out, p->files, 8);
}

static int write_lists(const tdl_policy *p, tdl_bytes *out) {
  int status = put(out, p->grant_count, 4);
  for (uint32_t i = 0; status == 0 && i < p->grant_count; i++) {
    status = put(out, p->grants[i].access, 1);
    status = status != 0 ? status : put_text(out, p->grants[i].path);
  }
  status = status != 0 ? status : put(out, p->port_count, 4);
  for (uint32_t i = 0; status == 0 && i < p->port_count; i++) {
    status = put(out, p->ports[i].how, 1);
    status = status != 0 ? status : put(out, p->ports[i].port, 2);
  }
  status = status != 0 ? status : put(out, p->env_count, 4);
  for (uint32_t i = 0; status == 0 && i < p->env_count; i++) {
    status = put_text(out, p->env[i]);
  }
  return status;
}

int tdl_policy_write(const tdl_policy *policy, tdl_bytes *out) {
  uint32_t before = out->len;
  int status = write_head(policy, out);
  status = status != 0 ? status : write_lists(policy, out);
  if (status != 0) {
    out->len = before;
  }
  return status;
}

/* What is left to read; `data` is NULL once there was too little. */
typedef struct input {
  const uint8_t *data;
  size_t left;
} input;

static const uint8_t *take(input *in, size_t size) {
  const uint8_t *at = in->data;
  if (at == NULL || size > in->left) {
    in->data = NULL;
    return NULL;
  }
  in->data += size;
  in->left -= size;
  return at;
}

/* 0 where there is too little. */
static uint64_t get(input *in, unsigned size) {
  const uint8_t *at = take(in, size);
  uint64_t value = 0;
  for (unsigned i = 0; at != NULL && i < size; i++) {
    value |= (uint64_t)at[i] << (8 * i);
  }
  return value;
}

/* The bytes of a text, NULL where there are too few. */
static const char *get_text(input *in, size_t *length) {
  *length = (size_t)get(in, 4);
  return (const char *)take(in, *length);
}

static int read_paths(tdl_policy *p, input *in) {
  uint32_t count = (uint32_t)get(in, 4);
  int status = 0;
  for (uint32_t i = 0; status == 0 && in->data != NULL && i < count; i++) {
    uint32_t access = (uint32_t)get(in, 1);
    size_t length;
    const char *path = get_text(in, &length);
    status = path == NULL ? TREADLE_EINVAL : add_path(p, path, length, access);
  }
  return status;
}

static int read_ports(tdl_policy *p, input *in) {
  uint32_t count = (uint32_t)get(in, 4);
  int status = 0;
  for (uint32_t i = 0; status == 0 && in->data != NULL && i < count; i++) {
    uint32_t how = (uint32_t)get(in, 1);
    uint32_t port = (uint32_t)get(in, 2);
    status = tdl_policy_add_port(p, port, how);
  }
  return status;
}

static int read_env(tdl_policy *p, input *in) {
  uint32_t count = (uint32_t)get(in, 4);
  int status = 0;
  for (uint32_t i = 0; status == 0 && in->data != NULL && i < count; i++) {
    size_t length;
    const char *name = get_text(in, &length);
    status = name == NULL ? TREADLE_EINVAL : add_env(p, name, length);
  }
  return status;
}

static int read_all(tdl_policy *p, input *in) {
  const uint8_t *head = take(in, sizeof(magic));
  int status;
  if (head == NULL || memcmp(head, magic, sizeof(magic)) != 0 ||
      get(in, 1) != VERSION) {
    return TREADLE_EINVAL;
  }
  p->may = (uint32_t)get(in, 4);
  p->memory_bytes = get(in, 8);
  p->cpu_seconds = get(in, 8);
  p->files = get(in, 8);
  status = (p->may & ~TDL_MAY_ALL) != 0 ? TREADLE_EINVAL : read_paths(p, in);
  status = status != 0 ? status : read_ports(p, in);
  status = status != 0 ? status : read_env(p, in);
  if (status == 0 && (in->data == NULL || in->left != 0)) {
    status = TREADLE_EINVAL;
  }
  return status;
}

int tdl_policy_read(const uint8_t *data, size_t size, tdl_policy **out) {
  input in = {data, size};
  tdl_policy *policy;
  int status = tdl_policy_new(&policy);
  if (status != 0) {
    return status;
  }
  status = read_all(policy, &in);
  if (status != 0) {
    tdl_policy_free(policy);
    return status;
  }
  *out = policy;
  return 0;
}
