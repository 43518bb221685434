/* tdl_vm_calls: the calls that jobs in progress have made and that are under way.
** Threads: the worker's.
** Owns:    nothing: the calls are the loop's, the entries the vm's.
** Fails:   never.
**
** V3  A job that waits for calls on its own pool does not count against the
**     pool's concurrency: nested calls cannot deadlock.
** V4  A call knows the entry of the job that made it (its `parent`), and an
**     entry is used again only when no such call is under way. A job that is
**     settled while it runs takes the calls that it made along: when it waits,
**     asks, or ends. Calls of a job that ended otherwise go on. */
#ifndef TDL_VM_CALLS_H
#define TDL_VM_CALLS_H

#include "vm.h"

/* V3. */
static inline int tdl_vm_is_exempt(const tdl_entry *e) {
  return e->job != NULL && e->co != NULL && e->calls > 0;
}

void tdl_vm_change_exempt(tdl_vm *vm, int jobs);
static inline void tdl_vm_set_exempt(tdl_vm *vm, int jobs) {
  if (jobs != 0) {
    tdl_vm_change_exempt(vm, jobs);
  }
}

/* V4. */
static inline void tdl_vm_free_if_done(tdl_vm *vm, uint32_t i) {
  tdl_entry *e = &vm->entries[i];
  if (e->used && e->job == NULL && e->calls == 0 && e->others == 0) {
    e->used = 0;
    e->next_free = vm->free_entry;
    vm->free_entry = i;
  }
}

/* V3's count. */
void tdl_vm_add_calls(tdl_vm *vm, uint32_t entry, int calls);

/* A call of this state that is about to be submitted, or has come home: counts
** for the job whose code runs (V3, V4). */
void tdl_vm_call_made(tdl_vm *vm, tdl_job *job);
void tdl_vm_call_home(tdl_vm *vm, const tdl_job *job);

/* For jobs that were settled meanwhile: cancels the calls that they made (V4). */
void tdl_vm_cancel_calls(tdl_vm *vm);

/* The same for all jobs in progress: they are lost. */
void tdl_vm_abort_calls(tdl_vm *vm);

/* A call may wait for somebody to read what it emits, and what its maker has left
** behind is garbage; who sleeps collects none. So after each turn in which that
** may have become so: if a job has ended before such a call, and nobody is just
** waiting for its values. */
void tdl_vm_collect_strays(tdl_vm *vm);

#endif
