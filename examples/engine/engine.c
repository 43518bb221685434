/* A frame loop of 60 frames a second that has its landscape made while it runs.
**
**   engine TERRAIN.lua OUT.ppm [COLUMNS ROWS [SIZE]]
**
** Each chunk of the landscape is several milliseconds of Lua (terrain.lua). The
** program makes the same landscape twice:
** - with tasks. A frame asks for chunks while few are under way, and gives
**   treadle_poll_for a budget: callbacks paint what has come. No frame waits for a
**   chunk, and the chunks are made on all cores but one.
** - inline. A frame makes one chunk itself, in a Lua state of its own.
** It prints how long the frames took, proves that both pictures agree byte by
** byte, and writes one.
**
** What it shows: a module that comes from the program instead of package.path;
** memory that is shared with the workers, so that no height is copied; a budget
** that is kept. The last is proved in each frame, by the processor time of this
** thread: no callback begins when the budget is used up (its own time may exceed
** it: here that is the painting of a chunk, less than a millisecond). The exit status
** is 0 if all of that held. */
#define _POSIX_C_SOURCE 200809L
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "treadle.h"

#define FRAME_NS  16666667 /* 60 a second */
#define WORK_NS   3000000  /* what the rest of the game computes in a frame */
#define BUDGET_S  0.002    /* for treadle, of these 16.7 ms */
#define SLACK_S   0.0005   /* from the look at the clock to the callback */
#define MAX_FRAME 20000
#define SEED      7

static _Noreturn void fail(const char *what, const char *why) {
  fprintf(stderr, "engine: %s: %s\n", what, why);
  exit(1);
}

static void check(const char *what, int status) {
  if (status < 0) {
    fail(what, treadle_status_text(status));
  }
}

/* --- clocks --------------------------------------------------------------------- */

static int64_t clock_ns(clockid_t id) {
  struct timespec t;
  clock_gettime(id, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t now_ns(void) {
  return clock_ns(CLOCK_MONOTONIC);
}

/* Of this thread: what others do on this processor does not count. */
static int64_t used_ns(void) {
  return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

static void sleep_until(int64_t ns) {
  struct timespec t;
  t.tv_sec = (time_t)(ns / 1000000000);
  t.tv_nsec = (long)(ns % 1000000000);
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) != 0) {
  }
}

/* --- the world ------------------------------------------------------------------- */

typedef struct world {
  int columns, rows, size; /* chunks, and pixels of one side of a chunk */
  int width, height;       /* pixels */
  unsigned char *pixels;   /* red, green, blue */
  int painted;             /* chunks */
} world;

static void world_open(world *w, int columns, int rows, int size) {
  w->columns = columns;
  w->rows = rows;
  w->size = size;
  w->width = columns * size;
  w->height = rows * size;
  w->painted = 0;
  w->pixels = calloc((size_t)w->width * (size_t)w->height, 3);
  if (w->pixels == NULL) {
    fail("the picture", "out of memory");
  }
}

/* The colour of a height: water, sand, grass, rock, snow. */
static void colour(float height, unsigned char *rgb) {
  static const struct {
    float at;
    float rgb[3];
  } steps[] = {{0.00f, {6, 20, 60}},     {0.30f, {28, 80, 150}},
               {0.36f, {70, 140, 190}},  {0.38f, {214, 198, 150}},
               {0.42f, {92, 140, 60}},   {0.56f, {40, 84, 40}},
               {0.66f, {110, 100, 92}},  {0.78f, {170, 166, 164}},
               {0.84f, {250, 250, 252}}, {1.01f, {255, 255, 255}}};
  int i = 0;
  float part;
  while (steps[i + 1].at <= height) {
    i++;
  }
  part = (height - steps[i].at) / (steps[i + 1].at - steps[i].at);
  for (int c = 0; c < 3; c++) {
    rgb[c] = (unsigned char)(steps[i].rgb[c] +
                             part * (steps[i + 1].rgb[c] - steps[i].rgb[c]));
  }
}

static void paint(world *w, int number, const float *heights) {
  int x = number % w->columns * w->size, y = number / w->columns * w->size;
  for (int row = 0; row < w->size; row++) {
    for (int column = 0; column < w->size; column++) {
      size_t at = (size_t)(y + row) * (size_t)w->width + (size_t)(x + column);
      colour(heights[row * w->size + column], w->pixels + 3 * at);
    }
  }
  w->painted++;
}

static void world_write(const world *w, const char *path) {
  FILE *f = fopen(path, "wb");
  size_t count = (size_t)w->width * (size_t)w->height;
  if (f == NULL) {
    fail(path, "cannot be written");
  }
  fprintf(f, "P6\n%d %d\n255\n", w->width, w->height);
  if (fwrite(w->pixels, 3, count, f) != count || fclose(f) != 0) {
    fail(path, "cannot be written");
  }
}

/* --- frames ---------------------------------------------------------------------- */

typedef struct frames {
  double ms[MAX_FRAME];
  int count;
} frames;

static void other_work(void) {
  int64_t start = used_ns();
  while (used_ns() - start < WORK_NS) {
  }
}

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double percentile(const frames *f, int percent) {
  return f->ms[(f->count - 1) * percent / 100];
}

static void report(const char *name, frames *f) {
  int late = 0;
  for (int i = 0; i < f->count; i++) {
    late += f->ms[i] > FRAME_NS / 1e6;
  }
  qsort(f->ms, (size_t)f->count, sizeof(f->ms[0]), by_size);
  printf("%-10s %5d frames; ms of a frame: p50 %6.2f, p90 %6.2f, p99 %6.2f, "
         "max %6.2f; %d too long\n",
         name, f->count, percentile(f, 50), percentile(f, 90),
         percentile(f, 99), percentile(f, 100), late);
}

/* Frames of one kind until the world is painted. */
static void run(world *w, frames *f, void (*step)(void *ctx), void *ctx) {
  int64_t next = now_ns();
  while (w->painted < w->columns * w->rows) {
    int64_t start = now_ns();
    if (f->count == MAX_FRAME) {
      fail("the world", "not finished");
    }
    other_work();
    step(ctx);
    f->ms[f->count++] = (double)(now_ns() - start) / 1e6;
    next += FRAME_NS;
    if (next < now_ns()) { /* this frame was too long: go on from here */
      next = now_ns();
    }
    sleep_until(next);
  }
}

/* --- with tasks ------------------------------------------------------------------ */

typedef struct engine {
  world *world;
  treadle_loop *loop;
  treadle_pool *pool;
  int task;
  int asked, under_way;
  int64_t used;  /* of this thread, when the frame's poll began */
  int callbacks; /* in this poll */
  int broken;    /* budgets that were not kept */
} engine;

typedef struct chunk {
  engine *engine;
  int number;
  treadle_buffer *heights;
} chunk;

static void on_chunk(int status, treadle_values *values, void *ctx) {
  chunk *c = ctx;
  engine *e = c->engine;
  double used = (double)(used_ns() - e->used) / 1e9;
  if (status != TREADLE_OK) {
    treadle_error error;
    treadle_read_error(status, values, &error);
    fprintf(stderr, "engine: %.*s\n", (int)error.message_length, error.message);
    exit(1);
  }
  if (e->callbacks++ > 0 && used > BUDGET_S + SLACK_S) {
    e->broken++;
  }
  paint(e->world, c->number, treadle_buffer_data(c->heights));
  treadle_buffer_drop(c->heights);
  free(c);
  e->under_way--;
}

static void ask(engine *e) {
  world *w = e->world;
  chunk *c = malloc(sizeof(*c));
  treadle_writer *arguments;
  treadle_call *call;
  if (c == NULL) {
    fail("a chunk", "out of memory");
  }
  c->engine = e;
  c->number = e->asked++;
  check("a chunk",
        treadle_buffer_new("float", (size_t)w->size * (size_t)w->size,
                           &c->heights));
  check("a chunk", treadle_call_new(e->pool, e->task, 5, &call));
  arguments = treadle_arguments(call);
  treadle_put_buffer(arguments, c->heights);
  treadle_put_number(arguments, c->number % w->columns * w->size);
  treadle_put_number(arguments, c->number / w->columns * w->size);
  treadle_put_number(arguments, w->size);
  treadle_put_number(arguments, SEED);
  check("a chunk", treadle_submit(call, -1, on_chunk, c));
  e->under_way++;
}

/* As much as the workers can do until the next frame, and not much more: what is
** asked for first is what the player sees first. */
static void step_with_tasks(void *ctx) {
  engine *e = ctx;
  int wanted = 8 * (int)treadle_pool_size(e->pool);
  int64_t start = now_ns();
  e->used = used_ns();
  e->callbacks = 0;
  treadle_poll_for(e->loop, BUDGET_S);
  while (e->asked < e->world->columns * e->world->rows &&
         e->under_way < wanted && (double)(now_ns() - start) / 1e9 < BUDGET_S) {
    ask(e);
  }
}

/* --- inline ---------------------------------------------------------------------- */

typedef struct inliner {
  world *world;
  lua_State *L;
  float *heights;
  int number;
} inliner;

static void step_inline(void *ctx) {
  inliner *i = ctx;
  world *w = i->world;
  lua_getfield(i->L, 1, "fill");
  lua_pushlightuserdata(i->L, i->heights);
  lua_pushnumber(i->L, i->number % w->columns * w->size);
  lua_pushnumber(i->L, i->number / w->columns * w->size);
  lua_pushnumber(i->L, w->size);
  lua_pushnumber(i->L, SEED);
  if (lua_pcall(i->L, 5, 0, 0) != 0) {
    fail("a chunk", lua_tostring(i->L, -1));
  }
  paint(w, i->number++, i->heights);
}

/* --- all ------------------------------------------------------------------------- */

static char *read_all(const char *path) {
  FILE *f = fopen(path, "rb");
  char *text = NULL;
  size_t length = 0, got = 1;
  if (f == NULL) {
    fail(path, "cannot be read");
  }
  while (got > 0) {
    text = realloc(text, length + 4097);
    if (text == NULL) {
      fail(path, "out of memory");
    }
    got = fread(text + length, 1, 4096, f);
    length += got;
  }
  text[length] = 0;
  fclose(f);
  return text;
}

static int with_tasks(world *w, const char *source) {
  static frames f;
  treadle_pool_options options = {0};
  engine e = {0};
  treadle_stats stats;
  long processors = sysconf(_SC_NPROCESSORS_ONLN);
  char error[500] = "";
  options.module = "terrain";
  options.source = source;
  options.threads =
      processors > 2 ? (unsigned)processors - 1 : 1; /* one is ours */
  e.world = w;
  check("the loop", treadle_loop_open(&e.loop));
  if (treadle_pool_open(e.loop, &options, &e.pool, error, sizeof(error)) != 0) {
    fail("the pool", error);
  }
  e.task = treadle_pool_task(e.pool, "chunk");
  check("the task", e.task);
  run(w, &f, step_with_tasks, &e);
  treadle_pool_stats(e.pool, &stats);
  printf(
      "%d chunks by %u workers, which worked %.0f %% of the time; budgets of "
      "%.1f ms that were not kept: %d\n",
      (int)stats.done, treadle_pool_size(e.pool), 100 * stats.utilisation,
      1e3 * BUDGET_S, e.broken);
  report("with tasks", &f);
  treadle_pool_close(e.pool, -1);
  treadle_loop_close(e.loop);
  return e.broken == 0 && e.under_way == 0;
}

static void make_inline(world *w, const char *source) {
  static frames f;
  inliner i = {0};
  i.world = w;
  i.L = luaL_newstate();
  i.heights = calloc((size_t)w->size * (size_t)w->size, sizeof(*i.heights));
  if (i.L == NULL || i.heights == NULL) {
    fail("a state", "out of memory");
  }
  luaL_openlibs(i.L);
  if (luaL_loadstring(i.L, source) != 0 || lua_pcall(i.L, 0, 1, 0) != 0) {
    fail("terrain", lua_tostring(i.L, -1));
  }
  run(w, &f, step_inline, &i);
  report("inline", &f);
  free(i.heights);
  lua_close(i.L);
}

static int number(const char *text, int least, int most) {
  char *end;
  long n = strtol(text, &end, 10);
  if (*end != 0 || n < least || n > most) {
    fail(text, "not such a number");
  }
  return (int)n;
}

int main(int argc, char **argv) {
  world by_tasks, by_frames;
  int columns = 8, rows = 5, size = 256, kept, agree;
  char *source;
  if (argc != 3 && argc != 5 && argc != 6) {
    fputs("usage: engine TERRAIN.lua OUT.ppm [COLUMNS ROWS [SIZE]]\n", stderr);
    return 1;
  }
  if (argc > 3) {
    columns = number(argv[3], 1, 100);
    rows = number(argv[4], 1, 100);
  }
  if (argc > 5) {
    size = number(argv[5], 1, 512);
  }
  source = read_all(argv[1]);
  world_open(&by_tasks, columns, rows, size);
  world_open(&by_frames, columns, rows, size);
  kept = with_tasks(&by_tasks, source);
  make_inline(&by_frames, source);
  agree = memcmp(by_tasks.pixels, by_frames.pixels,
                 3 * (size_t)by_tasks.width * (size_t)by_tasks.height) == 0;
  world_write(&by_tasks, argv[2]);
  printf("%s, %d x %d pixels: %s\n", argv[2], by_tasks.width, by_tasks.height,
         agree ? "every byte agrees" : "the pictures differ");
  free(by_tasks.pixels);
  free(by_frames.pixels);
  free(source);
  return kept && agree ? 0 : 1;
}
