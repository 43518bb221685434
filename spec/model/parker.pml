/* Falling asleep: src/queue/parker.c, with a queue that one state owns, and
** the bell of src/run/loop.c. Two senders.
**
** Steps:   <parker.P1> and <parker.P2> publish (tdl_ring_push, P6 and P8),
**          <parker.W1> to <parker.W4> are tdl_parker_wake, <parker.B1> to
**          <parker.B3> what uv_async_send does in `ring`; <parker.A1> is
**          tdl_parker_announce, <parker.A2> the second look, <parker.A3>
**          tdl_parker_awake, <parker.S1> and <parker.S2> tdl_parker_sleep,
**          <parker.L1> tdl_loop_arm, <parker.L2> tdl_loop_leave, <parker.L3>
**          tdl_loop_disarm.
** Memory:  memory.pml.
** Kernel:  FUTEX_WAIT compares and lies down in one step, FUTEX_WAKE and
**          FUTEX_WAIT are full fences; a wait may end in vain (time, signal,
**          nothing at all), VAIN times, so that a lost wake-up stays lost.
** Claims:  the owner gets every item, so it never sleeps for ever while one
**          waits; there is at most one system call per announcement.
**
** proof BOTH:
** mutant NO_SECOND_LOOK: invalid end state
** mutant LOOK_FIRST: invalid end state
** mutant ANNOUNCE_RELAXED: invalid end state
** mutant LOOK_RELAXED: invalid end state
** mutant PUBLISH_RELAXED: invalid end state
** mutant WAKE_RELAXED: invalid end state
** mutant WAKE_FIRST: invalid end state
** mutant NO_COMPARE: invalid end state
** mutant LOOK_AT_TURN: invalid end state
** mutant NO_EXCHANGE: assertion violated
** mutant NO_LEAVE_RING: invalid end state
** mutant RING_KEPT: invalid end state */
#define THREADS 3 /* 0 and 1 send, 2 owns */
#define OWNER 2
#define ITEMS 3 /* two from one sender, one from the other */
#ifndef VAIN
#define VAIN 1
#endif

#define STATE 0
#define TAIL 1
#define TURN 2 /* one place per position */
#define PLACES (TURN + ITEMS)

#define AWAKE 0
#define ASLEEP 1
#define BELLED 2

#include "memory.pml"

#ifdef MUTANT_ANNOUNCE_RELAXED
#define ANNOUNCE RELAXED
#else
#define ANNOUNCE SEQ_CST
#endif
#ifdef MUTANT_LOOK_RELAXED
#define LOOK RELAXED
#else
#define LOOK SEQ_CST
#endif
#ifdef MUTANT_PUBLISH_RELAXED
#define PUBLISH RELAXED
#else
#define PUBLISH SEQ_CST
#endif
#ifdef MUTANT_WAKE_RELAXED
#define WAKE RELAXED
#else
#define WAKE SEQ_CST
#endif

bit waiting;       /* in the futex */
byte vain = VAIN;  /* wake-ups for nothing that are still to come */
byte pending;      /* uv_async_t.pending: 1 being sent, 2 sent */
bit readable;      /* the descriptor of treadle's loop */
bit unanswered;    /* an announcement that no sender has taken on */

active proctype memory() {
  do
  :: reach(0)
  :: reach(1)
  :: reach(OWNER)
  :: atomic { _nr_pr == 1 && DRAINED(0) && DRAINED(1) && DRAINED(OWNER) -> break }
  od
}

/* Who takes an announcement on makes its one system call. */
inline take_on() {
  if
  :: x != AWAKE -> assert(unanswered); unanswered = 0
  :: else
  fi
}

/* uv_async_send; one that finds another's ring under way leaves it at that. */
inline bell(me) {
  if
  :: d_step { pending == 0 -> pending = 1 }; /* <parker.B1> */
    d_step { DRAINED(me) -> readable = 1 }; /* <parker.B2> */
    pending = 2 /* <parker.B3> */
  :: pending != 0
  fi
}

inline wake(me) {
  load(me, x, STATE, WAKE); /* <parker.W1> */
  if
  :: x != AWAKE ->
#ifdef MUTANT_NO_EXCHANGE
    atomic { store(me, STATE, AWAKE, ACQ_REL); take_on() };
#else
    atomic { /* <parker.W2> */
      modify(me, x, STATE, AWAKE, ACQ_REL);
      take_on()
    };
#endif
    if
    :: x == ASLEEP -> /* <parker.W3> */
      d_step { DRAINED(me) -> waiting = 0 }
    :: x == BELLED -> bell(me) /* <parker.W4> */
    :: x == AWAKE
    fi
  :: else
  fi;
  x = 0
}

inline publish(me) {
  modify(me, x, TAIL, x + 1, PUBLISH); /* <parker.P1> */
  store(me, TURN + x, 1, ACQ_REL)     /* <parker.P2> */
}

proctype sender(byte me; byte items) {
  byte x;
  do
  :: items > 0 ->
    items--;
#ifdef MUTANT_WAKE_FIRST
    wake(me);
    publish(me)
#else
    publish(me);
    wake(me)
#endif
  :: else -> break
  od
}

inline disarm() { /* <parker.L3> */
  store(OWNER, STATE, AWAKE, RELAXED);
  if
  :: readable ->
    readable = 0;
#ifndef MUTANT_RING_KEPT
    d_step { pending == 2 -> pending = 0 } /* libuv waits for B3 */
#endif
  :: else
  fi
}

inline futex_sleep() {
  do
  :: load(OWNER, x, STATE, RELAXED); /* <parker.S1> */
    if
    :: x != ASLEEP -> break
    :: else
    fi;
    atomic { /* <parker.S2> */
      DRAINED(OWNER) ->
#ifdef MUTANT_NO_COMPARE
      waiting = 1
#else
      waiting = (mem[STATE] == ASLEEP)
#endif
    };
    if
    :: !waiting
    :: atomic { vain > 0 && waiting -> vain--; waiting = 0 };
      if
      :: break /* time, or a signal */
      :: true  /* for no reason */
      fi
    fi
  od;
  store(OWNER, STATE, AWAKE, RELAXED) /* <parker.A3> */
}

/* x: whether there is work. */
inline look() { /* <parker.A2> */
#ifdef MUTANT_NO_SECOND_LOOK
  x = 0
#else
#ifdef MUTANT_LOOK_AT_TURN
  load(OWNER, x, TURN + head, LOOK)
#else
  d_step { MAY_READ(OWNER, LOOK) -> x = (READ(OWNER, TAIL) != head) }
#endif
#endif
}

inline announce(how) { /* <parker.A1> */
  d_step { MAY_WRITE(OWNER, STATE) ->
    unanswered = 1;
    put(OWNER, STATE, how, ANNOUNCE)
  }
}

inline bell_sleep() {
  if
  :: readable
  :: atomic { vain > 0 && !readable -> vain-- } /* the foreign loop's own */
  fi
}

active proctype owner() {
  byte x, head;
  do
  :: head == ITEMS -> break
  :: head < ITEMS ->
    load(OWNER, x, TURN + head, ACQ_REL); /* tdl_ring_pop */
    if
    :: x -> d_step { x = 0; head++ }
    :: else ->
      if
      :: /* tdl_loop_wait, sleep_on */
#ifdef MUTANT_LOOK_FIRST
        look();
        announce(ASLEEP);
#else
        announce(ASLEEP);
        look();
#endif
        if
        :: x -> store(OWNER, STATE, AWAKE, RELAXED) /* <parker.A3> */
        :: else -> futex_sleep()
        fi
      :: announce(BELLED); /* <parker.L1> */
        look();
        if
        :: x -> disarm()
        :: else -> bell_sleep(); disarm()
        fi
      :: announce(BELLED); /* <parker.L2> */
        look();
#ifndef MUTANT_NO_LEAVE_RING
        if
        :: x ->
          atomic { modify(OWNER, x, STATE, AWAKE, ACQ_REL); take_on() };
          if
          :: x == BELLED -> bell(OWNER)
          :: x == AWAKE /* a sender was first */
          fi
        :: else
        fi;
#endif
        bell_sleep();
        disarm()
      fi;
      x = 0
    fi
  od
}

init {
  atomic {
    run sender(0, 2);
    run sender(1, 1)
  }
}
