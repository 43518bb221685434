/* tdl_known: what a caller in C knows of a pool's tasks: names and call options.
** Threads: the home's.
** Owns:    copies of the names.
** Fails:   TREADLE_ENOMEM; TREADLE_EPAYLOAD for what is no report. */
#ifndef TDL_KNOWN_H
#define TDL_KNOWN_H

#include <stddef.h>
#include <stdint.h>

#include "../base/bytes.h"
#include "../treadle.h"

typedef struct tdl_known_task {
  char *name;
  double timeout; /* below 0: it names none */
  treadle_priority priority;
} tdl_known_task;

typedef struct tdl_known {
  uint32_t count;
  double timeout; /* of tasks that name none; below 0: none */
  tdl_known_task tasks[];
} tdl_known;

/* Room for so many tasks; NULL without memory. */
tdl_known *tdl_known_new(uint32_t count, double timeout);
void tdl_known_free(tdl_known *known); /* may be NULL */

/* Tasks are added one after the other. */
int tdl_known_add(tdl_known *known, const char *name, size_t length);

/* Of the last one; `word` is a priority's name, others are ignored. */
void tdl_known_set_timeout(tdl_known *known, double timeout);
void tdl_known_set_priority(tdl_known *known, const char *word, size_t length);

/* What a worker reports that has loaded them: a list of names, then one of
** options, a table or false for each. */
int tdl_known_read(const tdl_bytes *report, double timeout, tdl_known **out);

#endif
