#include "known.h"

#include <string.h>

#include "../base/alloc.h"
#include "embed.h"

tdl_known *tdl_known_new(uint32_t count, double timeout) {
  tdl_known *k = tdl_calloc(sizeof(*k) + (size_t)count * sizeof(k->tasks[0]));
  if (k != NULL) {
    k->timeout = timeout;
  }
  return k;
}

void tdl_known_free(tdl_known *known) {
  if (known != NULL) {
    for (uint32_t i = 0; i < known->count; i++) {
      tdl_free(known->tasks[i].name);
    }
    tdl_free(known);
  }
}

int tdl_known_add(tdl_known *known, const char *name, size_t length) {
  tdl_known_task *task = &known->tasks[known->count];
  task->name = tdl_calloc(length + 1);
  if (task->name == NULL) {
    return TREADLE_ENOMEM;
  }
  memcpy(task->name, name, length);
  task->timeout = -1;
  known->count++;
  return 0;
}

void tdl_known_set_timeout(tdl_known *known, double timeout) {
  known->tasks[known->count - 1].timeout = timeout;
}

void tdl_known_set_priority(tdl_known *known, const char *word, size_t length) {
  tdl_known_task *task = &known->tasks[known->count - 1];
  if (length == 4 && memcmp(word, "high", 4) == 0) {
    task->priority = TREADLE_HIGH;
  } else if (length == 3 && memcmp(word, "low", 3) == 0) {
    task->priority = TREADLE_LOW;
  }
}

static void read_options(tdl_known *known, const treadle_value *own) {
  treadle_value v;
  if (treadle_field(own, "timeout", &v) == 0 && v.type == TREADLE_NUMBER) {
    tdl_known_set_timeout(known, v.number);
  }
  if (treadle_field(own, "priority", &v) == 0 && v.type == TREADLE_STRING) {
    tdl_known_set_priority(known, v.string, v.length);
  }
}

/* A name, and what belongs to it. */
static int read_task(tdl_known *known, treadle_values *names,
                     const treadle_value *options) {
  treadle_value name, own;
  int status = treadle_get(names, &name);
  if (status == 0) {
    status = name.type == TREADLE_STRING
                 ? tdl_known_add(known, name.string, name.length)
                 : TREADLE_EPAYLOAD;
  }
  if (status == 0 && treadle_element(options, known->count, &own) == 0) {
    read_options(known, &own);
  }
  return status;
}

int tdl_known_read(const tdl_bytes *report, double timeout, tdl_known **out) {
  treadle_values values, rest;
  treadle_value names, options;
  tdl_known *known;
  int status = 0;
  tdl_embed_open(report, &values);
  if (treadle_get(&values, &names) != 0 || names.type != TREADLE_TABLE) {
    return TREADLE_EPAYLOAD;
  }
  rest = names.inside;
  memset(&options, 0, sizeof(options));
  for (size_t i = 0; i < names.length && status == 0; i++) {
    status = treadle_skip(&values); /* of the names' own */
  }
  if (status != 0 || treadle_get(&values, &options) != 0) {
    options.type = TREADLE_NIL;
  }
  known = tdl_known_new((uint32_t)names.length, timeout);
  status = known == NULL ? TREADLE_ENOMEM : 0;
  while (status == 0 && known->count < names.length) {
    status = read_task(known, &rest, &options);
  }
  if (status != 0) {
    tdl_known_free(known);
    return status;
  }
  *out = known;
  return 0;
}
