#include "vm_calls.h"

#include "../base/compiler.h"
#include "../base/status.h"
#include "upcall.h"

void tdl_vm_change_exempt(tdl_vm *vm, int jobs) {
  const treadle_pool *pool = vm->worker->pool;
  vm->exempt += (uint32_t)jobs;
  tdl_worker_load(vm->worker, -jobs);
  if (TDL_UNLIKELY(pool->far != NULL)) {
    tdl_upcall_exempt(pool->far, vm->exempt, jobs > 0);
  }
}

void tdl_vm_add_calls(tdl_vm *vm, uint32_t i, int calls) {
  tdl_entry *e = &vm->entries[i];
  int was;
  if (i == 0 || i >= vm->entry_count || !e->used) {
    return; /* a coroutine that a job left behind */
  }
  was = tdl_vm_is_exempt(e);
  e->calls = (uint32_t)((int)e->calls + calls);
  tdl_vm_set_exempt(vm, tdl_vm_is_exempt(e) - was);
  tdl_vm_free_if_done(vm, i);
}

static int is_own(const tdl_vm *vm, const tdl_job *job) {
  return job->pool == vm->worker->pool;
}

void tdl_vm_call_made(tdl_vm *vm, tdl_job *job) {
  tdl_entry *e = tdl_vm_entry(vm, vm->current);
  if (e != NULL) { /* else the code is nobody's */
    tdl_job_set_parent(job, vm->current);
    e->childless = 0;
    if (is_own(vm, job)) {
      tdl_vm_add_calls(vm, vm->current, 1);
    } else {
      e->others++;
    }
  }
}

void tdl_vm_call_home(tdl_vm *vm, const tdl_job *job) {
  if (is_own(vm, job)) {
    tdl_vm_add_calls(vm, tdl_job_parent(job), -1);
  } else {
    vm->entries[tdl_job_parent(job)].others--;
    tdl_vm_free_if_done(vm, tdl_job_parent(job));
  }
}

/* V4. One pass for all of them: thousands may be cancelled at once. */
void tdl_vm_cancel_calls(tdl_vm *vm) {
  const tdl_jobs *jobs = &vm->worker->loop.jobs;
  for (tdl_job *job = tdl_jobs_next(jobs, NULL); job != NULL;
       job = tdl_jobs_next(jobs, job)) {
    tdl_entry *e = tdl_vm_entry(vm, tdl_job_parent(job));
    if (e != NULL && tdl_job_is_settled(e->job)) {
      tdl_loop_cancel(job, tdl_job_reason(e->job), tdl_job_is_forced(e->job));
    }
  }
  for (uint32_t i = 1; i < vm->entry_count; i++) {
    tdl_entry *e = &vm->entries[i];
    e->childless = e->job != NULL && tdl_job_is_settled(e->job);
  }
}

void tdl_vm_abort_calls(tdl_vm *vm) {
  const tdl_jobs *jobs = &vm->worker->loop.jobs;
  for (tdl_job *job = tdl_jobs_next(jobs, NULL); job != NULL;
       job = tdl_jobs_next(jobs, job)) {
    const tdl_entry *e = tdl_vm_entry(vm, tdl_job_parent(job));
    if (e != NULL) {
      tdl_loop_cancel(job, tdl_status_text(tdl_vm_verdict(vm, e->job)), 0);
    }
  }
}

void tdl_vm_collect_strays(tdl_vm *vm) {
  const tdl_jobs *jobs = &vm->worker->loop.jobs;
  int lost = 0;
  vm->strays = 0;
  for (const tdl_job *job = tdl_jobs_next(jobs, NULL); job != NULL;
       job = tdl_jobs_next(jobs, job)) {
    uint32_t parent = tdl_job_parent(job);
    if (parent != 0 && vm->entries[parent].job == NULL) {
      lost |= tdl_bind_is_stray(job, &vm->strays);
    }
  }
  if (lost) {
    tdl_vm_collect(vm);
  }
}
