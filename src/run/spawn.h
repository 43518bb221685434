/* tdl_spawn: starts the process of a worker, and knows when it has ended.
** Threads: the one that started it, which lives longer than the process: its
**          end would be a signal to that (prctl, PR_SET_PDEATHSIG).
** Owns:    the process until it is reaped; the parent's ends of line and bell.
** Fails:   with a treadle_status.
**
** The program is the treadle command, which is looked for next to the library. It
** finds four descriptors: the line, a socket of messages that is at its end when
** either of them has died; the memory that they share; a bell, a pipe that its
** keeper reads; and what its pool shows to all of its processes (stage.h). Of line
** and bell each side has an end of its own: what a process sets of a descriptor's
** flags, that it might block, holds for its own. */
#ifndef TDL_SPAWN_H
#define TDL_SPAWN_H

#include <stddef.h>
#include <sys/types.h>

/* What the child finds where. */
enum tdl_spawn_fd {
  TDL_SPAWN_LINE = 3,
  TDL_SPAWN_MEMORY,
  TDL_SPAWN_BELL,
  TDL_SPAWN_STAGE,
  TDL_SPAWN_END
};

#define TDL_SPAWN_ARGUMENT "--worker"

typedef struct tdl_spawn {
  pid_t pid;  /* 0: there is none */
  int pidfd;  /* readable when it has ended */
  int line;   /* -1: there is none */
  int bell;   /* readable when the process has rung it; -1: there is none */
  int status; /* as waitpid has it, once it was reaped; -1: somebody else has */
} tdl_spawn;

#define TDL_SPAWN_NONE                                                         \
  { 0, -1, -1, -1, 0 }

/* The path of the command. TREADLE_ESYSTEM when there is none where it is looked
** for; `tried` says where that was. */
int tdl_spawn_program(char *path, size_t size, char *tried, size_t tried_size);

/* `prefix`: what comes before the program, ended by NULL; or NULL. */
int tdl_spawn_start(char *const *prefix, const char *program, int memory,
                    int stage, tdl_spawn *out);

/* Sends it a signal, unless it was reaped. */
void tdl_spawn_signal(const tdl_spawn *s, int signal);

/* 1 when it has ended. */
int tdl_spawn_has_ended(tdl_spawn *s);

/* Kills it unless it has ended, and waits for that: its clock can still be read.
** Then it is reaped, and what there is is closed. */
void tdl_spawn_kill(tdl_spawn *s);
void tdl_spawn_end(tdl_spawn *s);

/* What it died of, after it was reaped: "was killed by SIGSEGV", "exited with
** status 1". */
void tdl_spawn_say(const tdl_spawn *s, char *text, size_t size);

#endif
