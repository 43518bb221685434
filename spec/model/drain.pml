/* The end of a pool: DRAINING in src/run/turns.c (P2, P5). The home brings
** jobs, then drains; two workers run them, one job makes a call of its own.
**
** Steps:   <drain.H1> is tdl_pool_stop by the home, <drain.T1> the phase as a
**          turn sees it, <drain.Q1> is_quiet, <drain.R1> and <drain.R2> is_last,
**          <drain.R3> tdl_pool_stop by the last to rest, <drain.G1> get_up.
** Memory:  everything is seq_cst or comes with the phase, so there is one
**          order. A push claims its place first and is there later, as in
**          ring.pml. A worker that sleeps wakes when there is something to do,
**          as parker.pml and wake.pml show, or VAIN times for no reason.
** Claims:  the pool is stopped, and not before every job has ended.
**          The proof NO_QUEUE_LOOK goes without R2: a job under way always
**          leaves one worker that does not rest. R2 is there in case.
** Bounds:  three jobs of the home, one sent to a worker; one makes a call; a
**          note to that worker, from a thread that no count speaks of.
**
** proof ALL:
** proof NO_QUEUE_LOOK: -DNO_QUEUE_LOOK
** mutant NO_INBOX_LOOK: assertion violated
** mutant CALLS_FORGOTTEN: assertion violated
** mutant QUEUE_LOOK_FIRST: invalid end state
** mutant LATE_GET_UP: assertion violated
** mutant NEVER_RESTS: invalid end state */
#define WORKERS 2
#define VAIN 1
#define PLACES 4

#define OPEN 0
#define DRAINING 1
#define STOPPED 2

/* What lies in a queue. */
#define NOTHING 0
#define JOB 1    /* the home's; ends at once */
#define PARENT 2 /* the home's; makes a call, ends when that is home */
#define CALL 3   /* a worker's; CALL + 1 the other's */
#define HOME 5   /* a call that has ended */
#define NOTE 6

/* Queue 0 and 1 are the workers' inboxes, 2 is the pool's. */
#define RUN 2
typedef queue {
  byte head;
  byte tail;
  byte item[PLACES]
}
queue q[3];

byte phase;
byte busy = WORKERS;
byte begun, ended;
byte vain = VAIN;

#define EMPTY(i) (q[i].tail == q[i].head)
#define READY(i) (!EMPTY(i) && q[i].item[q[i].head] != NOTHING)

inline push(i, what) {
  d_step { at = q[i].tail; q[i].tail++ };
  q[i].item[at] = what;
  at = 0
}

/* Whoever settles a running job, say: nobody's busy count speaks of it. */
active proctype noter() {
  byte at;
  push(0, NOTE)
}

active proctype home() {
  byte at;
  begun = 3;
  push(RUN, PARENT);
  push(RUN, JOB);
  push(0, JOB);
  phase = DRAINING /* <drain.H1> */
}

inline run_job() {
  if
  :: job == JOB -> ended++
  :: job == PARENT ->
    d_step { live = 1; begun++ };
    if
    :: push(RUN, CALL + me)
    :: push(1 - me, CALL + me)
    fi
  :: job == CALL || job == CALL + 1 ->
    ended++;
    push(job - CALL, HOME)
  fi;
  job = 0
}

inline pop(i) {
  d_step {
    if
    :: READY(i) ->
      job = q[i].item[q[i].head];
      q[i].item[q[i].head] = 0; /* for fewer states */
      q[i].head++
    :: else
    fi
  }
}

inline rest() {
#ifdef MUTANT_QUEUE_LOOK_FIRST
  last = EMPTY(RUN);
  d_step { busy--; last = last && busy == 0 };
#else
  d_step { busy--; last = (busy == 0) }; /* <drain.R1> */
#ifndef NO_QUEUE_LOOK
  last = last && EMPTY(RUN); /* <drain.R2> */
#endif
#endif
  if
  :: last -> /* <drain.R3> */
    d_step {
      assert(ended == begun);
      phase = STOPPED;
      last = 0
    }
  :: else
  fi
}

inline get_up() { /* <drain.G1> */
  if
  :: resting -> d_step { busy++; resting = 0 }
  :: else
  fi
}

proctype worker(byte me) {
  byte at, job, seen, sent, live;
  bit resting, last;
  do
  :: seen = phase; /* <drain.T1> */
    do /* tdl_loop_dispatch */
    :: pop(me);
      if
      :: job == HOME -> d_step { live = 0; ended++; job = 0 }
      :: job == NOTE -> job = 0
      :: job == NOTHING -> break
      :: else -> d_step { sent = sent * 8 + job; job = 0 }
      fi
    od;
    if
    :: seen == STOPPED -> break
    :: else
    fi;
    if /* take */
    :: sent -> d_step { job = sent % 8; sent = sent / 8 }
    :: else -> pop(RUN)
    fi;
#ifdef MUTANT_LATE_GET_UP
    get_up();
#endif
    if
    :: job -> run_job()
    :: else ->
      /* <drain.Q1> */
      resting = (seen == DRAINING && sent == 0
#ifndef MUTANT_CALLS_FORGOTTEN
        && live == 0
#endif
#ifndef MUTANT_NO_INBOX_LOOK
        && EMPTY(me)
#endif
      );
#ifdef MUTANT_NEVER_RESTS
      resting = 0;
#endif
      if
      :: resting -> rest()
      :: else
      fi;
      if
      :: !EMPTY(me) || !EMPTY(RUN) || phase != seen
      :: atomic { EMPTY(me) && EMPTY(RUN) && phase == seen && vain -> vain-- }
      fi;
#ifndef MUTANT_LATE_GET_UP
      get_up()
#endif
    fi
  od
}

init {
  atomic {
    run worker(0);
    run worker(1)
  }
}
