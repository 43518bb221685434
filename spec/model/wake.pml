/* Which worker is woken: src/run/pool.c and src/run/turns.c. Senders bring
** jobs, workers take them (P3, P4).
**
** Steps:   <wake.S1> to <wake.S4> are tdl_pool_submit with is_taken_soon,
**          <wake.W1> to <wake.W6> tdl_pool_wake_one with claim_idle,
**          <wake.T1> and <wake.T2> take, <wake.X1> stop_searching, <wake.X2>
**          and <wake.X3> tdl_pool_wake_if_work, <wake.N1> and <wake.N2> spin,
**          <wake.Z1> lie_idle, <wake.Z2> to <wake.Z5> sleep_on with
**          is_claimed, <wake.Z6> rise.
** Memory:  memory.pml. The ring is ring.pml's: its looks are exact.
** Claims:  every job is taken. Some jobs run until all others are taken, so
**          work never waits for ever while a worker sleeps. In the end nobody
**          counts as searching.
**          The proof NO_CHAIN goes without T2: that look wakes the next worker
**          sooner, it is not what keeps work from waiting for ever.
** Bounds:  two workers; one sender of three jobs, or two of one job each.
**
** proof ONE: -DFIRST=3
** proof TWO: -DFIRST=1 -DSECOND=1 -DVAIN=0 -DWHOLE_PUSH
** proof NO_CHAIN: -DNO_CHAIN
** mutant NO_CLAIM_LOOK: invalid end state
** mutant NO_SECOND_LOOK: invalid end state
** mutant NO_LAST_LOOK: invalid end state
** mutant LAST_LOOK_FIRST: invalid end state
** mutant STOP_RELAXED: invalid end state
** mutant PUBLISH_RELAXED: invalid end state
** mutant CLAIM_RELAXED: invalid end state
** mutant NO_LOOK_AFTER_GIVING_BACK -DFIRST=3: invalid end state
** mutant COUNT_LOST: assertion violated */
#ifndef FIRST
#define FIRST 2
#endif
#ifndef SECOND
#define SECOND 0
#endif
#ifndef VAIN
#define VAIN 1
#endif
#define JOBS (FIRST + SECOND)
#define WORKERS 2
#define SENDERS 2
#define THREADS (WORKERS + SENDERS) /* the workers are the first */

#define IDLE 0
#define SEARCHING 1
#define TAIL 2
#define STATE 3 /* one place per worker */
#define TURN (STATE + WORKERS) /* one place per position */
#define PLACES (TURN + JOBS)

#define AWAKE 0
#define ASLEEP 1

#define AT_ONCE
#ifdef MUTANT_PUBLISH_RELAXED
#define PUBLISH RELAXED
#else
#define PUBLISH SEQ_CST
#endif
#ifdef MUTANT_CLAIM_RELAXED
#define CLAIM RELAXED
#else
#define CLAIM SEQ_CST
#endif
#ifdef MUTANT_STOP_RELAXED
#define STOP RELAXED
#else
#define STOP SEQ_CST
#endif
#ifdef WHOLE_PUSH
#define OWN SEQ_CST
#else
#define OWN RELAXED
#endif
#include "memory.pml"

byte head;
bit waiting[WORKERS]; /* in the futex */
byte vain = VAIN;     /* waits that may end for no reason */
byte longs = WORKERS - 1; /* jobs that may still turn out long */

#define ALL_TAKEN (head == JOBS)
#define BIT (1 << me)
#define IS_READY (!ALL_TAKEN && READ(me, TURN + head)) /* tdl_queue_ready */
#define LOOKS_FULL (READ(me, TAIL) != head)

active proctype memory() {
  do
  :: reach(0)
  :: reach(1)
  :: reach(2)
  :: reach(3)
  :: atomic {
      _nr_pr == 1 && DRAINED(0) && DRAINED(1) && DRAINED(2) && DRAINED(3) ->
      assert(mem[SEARCHING] == 0 && mem[IDLE] == 0);
      break
    }
  od
}

inline look() {
  d_step { MAY_READ(me, SEQ_CST) -> x = LOOKS_FULL }
}

inline wake(who) {
  load(me, x, STATE + who, SEQ_CST);
  if
  :: x != AWAKE ->
    modify(me, x, STATE + who, AWAKE, SEQ_CST);
    if
    :: x == ASLEEP -> d_step { DRAINED(me) -> waiting[who] = 0 }
    :: else
    fi
  :: else
  fi
}

inline wake_one() {
  do
  :: load(me, x, IDLE, SEQ_CST); /* <wake.W1> */
    if
    :: x == 0 -> break
    :: else
    fi;
    /* <wake.W2> a failed compare-and-swap is a read */
    if
    :: d_step { MAY_READ(me, SEQ_CST) && !modified[SEARCHING] && mem[SEARCHING] != 0 -> x = 0 }; break
    :: d_step { MAY_MODIFY(me, SEARCHING, SEQ_CST) && DRAINED(me) && mem[SEARCHING] == 0 -> mem[SEARCHING] = 1 }
    fi;
    load(me, bits, IDLE, SEQ_CST); /* <wake.W3> */
    do
    :: bits != 0 ->
      d_step { who = (bits & 1 -> 0 : 1); bits = bits & ~(1 << who) };
      modify(me, x, IDLE, x & ~(1 << who), CLAIM); /* <wake.W4> */
      if
      :: x & (1 << who) -> break
      :: else
      fi
    :: bits == 0 -> who = WORKERS; break
    od;
    if
    :: who < WORKERS -> wake(who); d_step { bits = 0; who = 0; x = 0 }; break
    :: else -> who = 0
    fi;
    modify(me, x, SEARCHING, x - 1, SEQ_CST); /* <wake.W5> */
    assert(x > 0);
#ifdef MUTANT_NO_LOOK_AFTER_GIVING_BACK
    break
#else
    look(); /* <wake.W6> */
    if
    :: x == 0 -> break
    :: else
    fi
#endif
  od;
  x = 0
}

proctype sender(byte me; byte jobs) {
  byte x, bits, who;
  do
  :: jobs > 0 ->
#ifdef WHOLE_PUSH
    d_step {
      DRAINED(me) ->
      mem[TURN + mem[TAIL]] = 1;
      mem[TAIL] = mem[TAIL] + 1;
      jobs--
    };
#else
    modify(me, x, TAIL, x + 1, PUBLISH); /* <wake.S1> */
    atomic { store(me, TURN + x, 1, ACQ_REL); jobs-- };
#endif
    load(me, x, IDLE, SEQ_CST); /* <wake.S2> */
    if
    :: x != 0 ->
      load(me, x, SEARCHING, SEQ_CST); /* <wake.S3> */
      if
      :: x == 0 ->
        look(); /* <wake.S4> */
        if
        :: x -> wake_one()
        :: else
        fi
      :: else
      fi
    :: else
    fi;
    x = 0
  :: else -> break
  od
}

#ifdef MUTANT_LAST_LOOK_FIRST
inline stop_searching() {
  if
  :: searching ->
    searching = 0;
    look();
    seen = x;
    modify(me, x, SEARCHING, x - 1, SEQ_CST);
    if
    :: x == 1 && seen -> wake_one()
    :: else
    fi
  :: else
  fi;
  d_step { x = 0; seen = 0 }
}
#else
inline stop_searching() {
  if
  :: searching ->
    searching = 0;
    modify(me, x, SEARCHING, x - 1, STOP); /* <wake.X1> */
    assert(x > 0);
#ifndef MUTANT_NO_LAST_LOOK
    if
    :: x == 1 ->
      load(me, x, IDLE, SEQ_CST); /* <wake.X2> */
      if
      :: x != 0 ->
        look(); /* <wake.X3> */
        if
        :: x -> wake_one()
        :: else
        fi
      :: else
      fi
    :: else
    fi
#endif
  :: else
  fi;
  x = 0
}
#endif

proctype worker(byte me) {
  byte x, bits, who;
  bit searching, seen;
  do
  :: ALL_TAKEN -> break
  :: else ->
    /* <wake.T1> */
    d_step { x = IS_READY; head = head + x };
    if
    :: x ->
      if
      :: searching -> stop_searching()
      :: else ->
#ifndef NO_CHAIN
        if
        :: IS_READY -> wake_one() /* <wake.T2> */
        :: else
        fi
#endif
      fi;
      if
      :: true
      :: atomic { longs > 0 -> longs-- }; ALL_TAKEN
      fi
    :: else ->
      if
      :: !searching ->
        searching = 1;
        modify(me, x, SEARCHING, x + 1, SEQ_CST) /* <wake.N1> */
      :: else
      fi;
      if
      :: x == 0 -> /* <wake.N2> */
        if
        :: d_step { IS_READY -> x = 0 }; goto again
        :: true
        fi
      :: else
      fi;
      stop_searching();
      modify(me, x, IDLE, x | BIT, SEQ_CST); /* <wake.Z1> */
      store(me, STATE + me, ASLEEP, SEQ_CST); /* <wake.Z2> */
#ifdef MUTANT_NO_CLAIM_LOOK
      x = BIT;
#else
      load(me, x, IDLE, SEQ_CST); /* <wake.Z3> */
#endif
      if
      :: x & BIT ->
#ifdef MUTANT_NO_SECOND_LOOK
        x = 0;
#else
        look(); /* <wake.Z4> */
#endif
        if
        :: x
        :: else -> /* <wake.Z5> */
          atomic { DRAINED(me) -> waiting[me] = (mem[STATE + me] == ASLEEP) };
          if
          :: !waiting[me]
#if VAIN
          :: atomic { waiting[me] && vain > 0 -> vain--; waiting[me] = 0 }
#endif
          :: atomic { waiting[me] && ALL_TAKEN -> waiting[me] = 0 }
          fi
        fi
      :: else
      fi;
      store(me, STATE + me, AWAKE, OWN);
      modify(me, x, IDLE, x & ~BIT, SEQ_CST); /* <wake.Z6> */
#ifdef MUTANT_COUNT_LOST
      x = 0
#else
      d_step { searching = ((x & BIT) == 0); x = 0 }
#endif
    fi;
  again:
    skip
  od;
  if
  :: searching -> searching = 0; modify(me, x, SEARCHING, x - 1, SEQ_CST); x = 0
  :: else
  fi
}

init {
  atomic {
    run worker(0);
    run worker(1);
    run sender(2, FIRST);
#if SECOND
    run sender(3, SECOND)
#endif
  }
}
