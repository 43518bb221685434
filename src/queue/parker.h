/* tdl_parker: how one state falls asleep and how the others wake it.
** Threads: the owner announces and sleeps; any thread wakes.
** Owns:    nothing.
** Fails:   never.
**
** The queues are the truth, the parker is a hint. [park]
**   sender: publish (seq_cst read-modify-write), then look at the parker
**   owner:  announce (seq_cst), then look at the queues again, then sleep
** In the one order of all sequentially consistent operations either the
** sender sees the announcement or the owner sees the item. */
#ifndef TDL_PARKER_H
#define TDL_PARKER_H

#include <stdatomic.h>
#include <stdint.h>

enum tdl_parker_state {
  TDL_AWAKE = 0,
  TDL_ASLEEP,   /* in the futex */
  TDL_BELLED,   /* in some event loop; the bell makes a descriptor readable */
  TDL_ELSEWHERE /* on something that others wake, too */
};

typedef struct tdl_parker {
  _Atomic uint32_t state;
  void (*bell)(void *arg); /* set by the owner before the first TDL_BELLED */
  void *arg;
  void (*rouse)(void *sleeper); /* set before the first TDL_ELSEWHERE */
  void *sleeper;
} tdl_parker;

void tdl_parker_init(tdl_parker *p);

/* owner; says how it is going to sleep. It must look at all its queues
** between this and sleeping. */
void tdl_parker_announce(tdl_parker *p, enum tdl_parker_state how);

/* owner; takes the announcement back, or says that it is awake again. */
void tdl_parker_awake(tdl_parker *p);

/* owner, after announcing TDL_ASLEEP; blocks until woken, until `ns` have
** passed (TDL_NEVER: no limit) or until a signal handler ran. Awake after. */
void tdl_parker_sleep(tdl_parker *p, uint64_t ns);

/* A word that others than the parker's wake, too: in memory that is shared with
** their processes. */
typedef struct tdl_parker_word {
  const _Atomic uint32_t *at;
  uint32_t value; /* on which it sleeps */
} tdl_parker_word;

#define TDL_PARKER_WORDS 127

/* Whether the kernel lets a thread sleep on several words: how many, or 0. */
uint32_t tdl_parker_most_words(void);

/* owner; the same as tdl_parker_sleep, but it wakes also when one of at most
** TDL_PARKER_WORDS words changes, and now and then for nothing. */
void tdl_parker_sleep_beside(tdl_parker *p, uint64_t ns,
                             const tdl_parker_word *words, uint32_t count);

/* any thread, after publishing; one load when the owner is awake, one system
** call per sleep otherwise. */
void tdl_parker_wake(tdl_parker *p);

/* --- spinning before sleep ---------------------------------------------- */

/* How long the owner spins: what paid off lately. Owner only. */
typedef struct tdl_spin {
  uint32_t budget_ns; /* starts as TDL_SPIN_MAX_NS */
  uint32_t sleeps;    /* in a row without a spin before them */
} tdl_spin;

/* Processors that this process may use; 1 or more. Looked up once. */
int tdl_spin_cores(void);

/* Looks, at most `limit_ns` long, whether `ready(arg)`, and says so at the end.
** 0 at once where spinning has not paid off lately, or when as many threads
** as processors spin already. First it only pauses: the answer to a trivial
** call is half a microsecond away. Then it offers its processor to others
** between two looks, for the thread that it waits for may have no other. */
int tdl_spin_until(tdl_spin *s, int (*ready)(const void *arg), const void *arg,
                   uint64_t limit_ns);

/* It slept `ns`. A sleep that a spin would have caught asks for spinning; and
** after TDL_SPIN_RETRY_SLEEPS without a spin one is tried, because two states
** that both sleep make each other's sleeps look long. */
void tdl_spin_slept(tdl_spin *s, uint64_t ns);

#endif
