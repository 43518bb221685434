/* tdl_turns: what a worker does while it has a state that serves.
** Threads: the worker's.
** Owns:    nothing.
** Fails:   never; errors of scripts leave it with a jump (vm.h, V1), after which
**          the worker gets up and goes on.
**
** One turn:
**   1. handle what arrived in the inbox; let the Lua scheduler run what is
**      ready
**   2. leave when the pool is stopped
**   3. take a job, if the pool's concurrency allows: one sent to its slot, else
**      the oldest of the run queue; run it; next turn
**   4. nothing to do: search (spin), then sleep */
#ifndef TDL_TURNS_H
#define TDL_TURNS_H

#include "vm.h"

/* Returns when the state has come to its end. */
void tdl_turns(tdl_vm *vm);

/* Undoes what a sleep has announced; also after an error out of a wait. */
void tdl_turns_get_up(tdl_worker *worker);

/* The same of its search: others are woken if there is work. */
void tdl_turns_stop_searching(tdl_worker *worker);

/* Whoever takes for a worker: the next call that was sent to its slot; NULL when
** there is none, or when the run queue is to have its turn. */
tdl_node *tdl_turns_take_sent(tdl_worker *worker);

/* 1 when a turn would find something to do. The second look before it sleeps
** [park]. */
int tdl_turns_have_work(const tdl_worker *worker);

/* Its script's own loop may sleep on its bell, which is announced: 0 when there
** is work after all. And has slept. */
int tdl_turns_go_abroad(tdl_worker *worker);
void tdl_turns_are_back(tdl_worker *worker);

#endif
