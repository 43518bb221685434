#include "status.h"

#include <string.h>

/* In the order of enum treadle_status, which starts at 0 and counts down. */
static const struct {
  const char *kind;
  const char *text;
} table[] = {
    {"ok", "success"},
    {"task", "the task raised an error"},
    {"timeout", "the time for the call is over"},
    {"cancelled", "the call was cancelled"},
    {"closed", "the pool is closed"},
    {"crashed", "the worker died"},
    {"memory", "not enough memory"},
    {"payload", "the payload cannot be carried"},
    {"queue_full", "the queue is full"},
    {"permission", "not permitted"},
    {"load", "the task module cannot be loaded"},
    {"argument", "bad argument"},
    {"system", "the operating system refused"},
};

#define COUNT ((int)(sizeof(table) / sizeof(table[0])))

const char *tdl_status_text(int status) {
  int i = -status;
  return i >= 0 && i < COUNT ? table[i].text : "unknown status";
}

const char *tdl_status_kind(int status) {
  int i = -status;
  return i >= 0 && i < COUNT ? table[i].kind : "system";
}

int tdl_status_of_kind(const char *kind) {
  for (int i = 0; i < COUNT; i++) {
    if (strcmp(table[i].kind, kind) == 0) {
      return -i;
    }
  }
  return TREADLE_ESYSTEM;
}
