/* The hand-off under load: ten million numbered calls through pools of 1, 2, 4
** and 16 workers. Every call is answered once, with its own number and payload;
** callers' calls start in the order in which they were made; nobody sleeps
** while there is work; nothing is left behind.
**
** usage: handoff_test [--jobs N] [--seed S] [--workers W] [--mode M]
**
** Without --mode all modes run, each in a process of its own; without --workers
** all sizes. A mode is a number: see `modes`. The seed is printed; the same seed
** makes the same calls. `make stress` runs the build as shipped, nospin, stall
** and tinystall, ten million calls in all; to run for longer:
**
**   make stress ONLY=handoff STRESS_ARGS="--jobs 200000000" STRESS_SECONDS=7200
**
** Several hosts work at once, each a thread with a loop and a pool, one of them
** a Lua state (handoff_host.lua); tasks call their own pool (handoff_tasks.lua).
** A host works in rounds: open a pool; bursts of 1 to 5,000 calls, so that the
** run queue and the inbox overflow, with and without gaps in which everybody
** falls asleep; close or terminate the pool with calls under way. */
#include "treadle.h"

#include <dirent.h>
#include <sched.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/alloc.h"
#include "base/stall.h"
#include "handoff_host.h"

/* `make stress` makes ten million in all, in two to three minutes. */
#if defined(__SANITIZE_THREAD__)
#define DEFAULT_JOBS 200000
#elif defined(TDL_TEST_STALL) && TDL_RING_CELLS == 2 /* tinystall */
#define DEFAULT_JOBS 1000000
#elif defined(TDL_TEST_STALL)
#define DEFAULT_JOBS 1500000
#elif defined(TDL_TEST_ALLOC) /* nospin */
#define DEFAULT_JOBS 1000000
#else
#define DEFAULT_JOBS 6500000
#endif

extern char **environ;

/* --- modes ---------------------------------------------------------------- */

typedef struct mode {
  const char *name;
  int counts_one; /* the library counts one processor */
  int has_one;    /* all threads share one */
  int share;      /* of the jobs, in percent */
} mode;

static const mode modes[] = {
    {"all processors", 0, 0, 70},
    {"one processor", 1, 1, 20},
    {"one processor of several", 0, 1, 10}, /* another process has the rest */
};
#define MODES (sizeof(modes) / sizeof(modes[0]))

static const unsigned sizes[] = {1, 2, 4, 16};
#define SIZES (sizeof(sizes) / sizeof(sizes[0]))

static void enter_mode(const mode *m) {
  cpu_set_t all, one;
  size_t cpu = 0;
  sched_getaffinity(0, sizeof(all), &all);
  while (!CPU_ISSET(cpu, &all)) {
    cpu++;
  }
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  sched_setaffinity(0, sizeof(one), m->counts_one ? &one : &all);
  tdl_spin_cores(); /* counts once */
  sched_setaffinity(0, sizeof(one), m->has_one ? &one : &all);
}

/* --- one claim: one mode, one size of pools ------------------------------- */

static int count_entries(const char *path) {
  DIR *dir = opendir(path);
  int n = 0;
  while (readdir(dir) != NULL) {
    n++;
  }
  closedir(dir);
  return n;
}

/* The kernel takes a thread off its list a moment after it was joined. The
** watchdog is on guard. */
static void wait_for_entries(const char *path, int n) {
  while (count_entries(path) > n) {
    sched_yield();
  }
}

static int run_claim(const mode *m, unsigned workers, uint64_t jobs,
                     uint64_t seed) {
  unsigned hosts = workers > 4 ? 2 : 3;
  host *list = calloc(hosts, sizeof(*list));
  long live = tdl_alloc_live();
  int threads, files = count_entries("/proc/self/fd"), failed = 0;
  uint64_t calls = 0, start = tdl_now_ns();
  char claim[160];
  snprintf(claim, sizeof(claim),
           "pools of %u, %s: all calls are answered once, in order", workers,
           m->name);
  watchdog_start(claim);
  threads = count_entries("/proc/self/task");
  for (unsigned i = 0; i < hosts; i++) {
    host *h = &list[i];
    h->random = (seed * 31 + i + workers * 7 + 1) * 0x9e3779b97f4a7c15u | 1;
    h->jobs = jobs / hosts + 1;
    h->workers = workers;
    h->state = &dog.states[i];
    h->is_lua = i == 0;
#ifdef TDL_TEST_STALL
    if (i == 0) { /* many delays, or hardly any */
      tdl_stall_seed(seed, (uint32_t[]){700, 850, 950, 1010}[below(h, 4)]);
    }
#endif
    pthread_create(&h->thread, NULL, h->is_lua ? lua_host : c_host, h);
  }
  for (unsigned i = 0; i < hosts; i++) {
    pthread_join(list[i].thread, NULL);
    calls += list[i].made + list[i].nested;
    if (list[i].failed) {
      printf("# host %u: %s\n", i, list[i].fault);
      failed = 1;
    }
  }
  dog.states[0].doing = "waits for threads to end";
  wait_for_entries("/proc/self/task", threads);
  if (tdl_alloc_live() != live) {
    printf("# %ld blocks left behind\n", tdl_alloc_live() - live);
    failed = 1;
  }
  if (count_entries("/proc/self/fd") != files) {
    printf("# %d descriptors left open\n",
           count_entries("/proc/self/fd") - files);
    failed = 1;
  }
  watchdog_stop();
  printf("%s %s\n# %llu calls in %.1f s\n", failed ? "not ok" : "ok", claim,
         (unsigned long long)calls, (double)(tdl_now_ns() - start) * 1e-9);
  fflush(stdout);
  free(list);
  return failed;
}

/* --- the program ---------------------------------------------------------- */

/* libuv's first loop opens a pipe for good. */
static void open_what_stays(void) {
  treadle_loop *loop;
  treadle_loop_open(&loop);
  treadle_fd(loop);
  treadle_loop_close(loop);
}

static int run_mode(const mode *m, unsigned only, uint64_t jobs,
                    uint64_t seed) {
  int failed = 0;
  enter_mode(m);
  open_what_stays();
  for (size_t i = 0; i < SIZES; i++) {
    if (only == 0) {
      failed |= run_claim(m, sizes[i], jobs / SIZES, seed);
    } else if (i == 0) {
      failed |= run_claim(m, only, jobs, seed);
    }
  }
  return failed;
}

/* In a process of its own, which looks anew for processors. */
static int spawn_mode(const char *self, const mode *m, unsigned workers,
                      uint64_t jobs, uint64_t seed) {
  char text[4][24];
  char *argv[] = {(char *)(uintptr_t)self,
                  "--mode",
                  text[3],
                  "--workers",
                  text[0],
                  "--jobs",
                  text[1],
                  "--seed",
                  text[2],
                  NULL};
  pid_t pid;
  int status;
  snprintf(text[0], sizeof(text[0]), "%u", workers);
  snprintf(text[1], sizeof(text[1]), "%llu",
           (unsigned long long)(jobs * (unsigned)m->share / 100));
  snprintf(text[2], sizeof(text[2]), "%llu", (unsigned long long)seed);
  snprintf(text[3], sizeof(text[3]), "%d", (int)(m - modes) + 1);
  if (posix_spawn(&pid, self, NULL, NULL, argv, environ) != 0 ||
      waitpid(pid, &status, 0) != pid) {
    printf("not ok mode %s: cannot be started\n", m->name);
    return 1;
  }
  if (!WIFEXITED(status)) {
    printf("not ok mode %s: died of signal %d\n", m->name, WTERMSIG(status));
    return 1;
  }
  return WEXITSTATUS(status) != 0;
}

static int usage(void) {
  puts("usage: handoff_test [--jobs N] [--seed S] [--workers W] [--mode M]");
  for (size_t i = 0; i < MODES; i++) {
    printf("  mode %zu: %s\n", i + 1, modes[i].name);
  }
  return 2;
}

int main(int argc, char **argv) {
  uint64_t jobs = DEFAULT_JOBS, seed = 0;
  unsigned workers = 0;
  const mode *only = NULL;
  int failed = 0;
  for (int i = 1; i < argc; i += 2) {
    const char *value = i + 1 < argc ? argv[i + 1] : "";
    char *end = "";
    if (strcmp(argv[i], "--jobs") == 0) {
      jobs = strtoull(value, &end, 10);
    } else if (strcmp(argv[i], "--seed") == 0) {
      seed = strtoull(value, &end, 10);
    } else if (strcmp(argv[i], "--workers") == 0) {
      workers = (unsigned)strtoul(value, &end, 10);
    } else if (strcmp(argv[i], "--mode") == 0) {
      size_t number = strtoul(value, &end, 10);
      if (number < 1 || number > MODES) {
        return usage();
      }
      only = &modes[number - 1];
    } else {
      return usage();
    }
    if (*value == 0 || *end != 0 || jobs == 0) {
      return usage();
    }
  }
  if (only != NULL && seed != 0) {
    return run_mode(only, workers, jobs, seed);
  }
  if (seed == 0) {
    const char *given = getenv("TDL_SEED");
    seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
  }
  printf("# --seed %llu\n", (unsigned long long)seed);
  fflush(stdout);
  if (only != NULL) {
    return run_mode(only, workers, jobs, seed);
  }
  for (size_t i = 0; i < MODES; i++) {
    failed |= spawn_mode(argv[0], &modes[i], workers, jobs, seed);
  }
  return failed;
}
