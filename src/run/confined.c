#include "confined.h"

#include <stdio.h>

#include "../base/status.h"
#include "../codec/payload.h"
#include "../confine/confine.h"
#include "embed.h"
#include "line.h"

static void write_report(tdl_bytes *report, const char *text) {
  treadle_writer w = {.things = NULL};
  tdl_payload_clear(report); /* the last state's */
  tdl_embed_begin(&w, report, TDL_PAYLOAD_CEILING_BYTES, 2);
  treadle_put_text(&w, text);
  treadle_put_text(&w, tdl_status_kind(TREADLE_EPERMISSION));
  tdl_embed_end(&w); /* without memory there is no report */
  tdl_embed_fini(&w);
}

void tdl_confined_report(tdl_bytes *report, const char *why) {
  char text[TDL_LINE_TEXT_BYTES + 64];
  snprintf(text, sizeof(text), "the worker cannot be confined: %s", why);
  write_report(report, text);
}

int tdl_confined_begin(tdl_worker *worker, tdl_bytes *report) {
  const tdl_policy *policy = worker->pool->policy;
  char why[256];
  if (policy == NULL || tdl_confine_thread(policy, why, sizeof(why)) == 0) {
    return 0;
  }
  tdl_confined_report(report, why);
  return TREADLE_EPERMISSION;
}
