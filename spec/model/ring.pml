/* The ring: src/queue/ring.c. Two pushers and two poppers on two cells.
**
** Steps:   <ring.P1> to <ring.P8> are tdl_ring_push with has_room, <ring.Q1> to
**          <ring.Q4> tdl_ring_pop, <ring.E1> and <ring.E2> tdl_ring_empty.
** Memory:  the items and turns that a pusher writes lie in its store buffer
**          before all see them; a turn, a release store, leaves it after the
**          item. No read comes early.
** Claims:  no item is lost or comes twice; each pusher's items leave in order
**          (I1, I2); push says "full" only when that is so, in the moment of
**          P3; pop says "empty" only when that is so, or while a push is half
**          done; the ring looks empty only when it is, in the moment of E2,
**          so it never does between a push's P6 and the pop's Q4; turns only
**          rise (I3); no push and no pop waits for ever.
**          A turn is a lap plus 1 here, a position plus 1 there: to a cell
**          the same order.
** Bounds:  one pusher brings MOST items, the other two. With three, the first
**          cell is used in three laps.
**
** proof LAPS: -DMOST=3
** proof LOOK: -DMOST=2 -DLOOK
** mutant TURN_FIRST: assertion violated
** mutant TURN_RELAXED: assertion violated
** mutant CLAIM_FIRST: assertion violated
** mutant NO_TAIL_CAS: assertion violated
** mutant NO_HEAD_CAS: assertion violated
** mutant NO_ROOM_LOOK: assertion violated
** mutant ONE_TOO_MANY: assertion violated
** mutant FULL_BY_OLD_HEAD: assertion violated
** mutant FULL_BY_OLD_TAIL: assertion violated
** mutant TURN_FORGOTTEN: invalid end state
** mutant EMPTY_BY_TURN: assertion violated
** mutant EMPTY_TAIL_FIRST: assertion violated */
#define CELLS 2
#ifndef MOST
#define MOST 2
#endif
#if defined(MUTANT_EMPTY_BY_TURN) || defined(MUTANT_EMPTY_TAIL_FIRST)
#define LOOK
#endif
#define ITEMS (MOST + 2)
#define NEVER 255

byte tail, head, head_seen;
byte turn[CELLS], item[CELLS];

/* Store buffers; 0: nothing there. */
byte buffered_turn[2], turn_cell[2];
byte buffered_item[2], item_cell[2];

/* What the claims need to know: each pusher's item that left last. */
byte last[2];

#define CELL(pos) ((pos) % CELLS)
#define FULL_TURN(pos) ((pos) / CELLS + 1)
#define PUSHED (turn[0] + turn[1])
#ifdef MUTANT_ONE_TOO_MANY
#define FAR(pos, from) ((pos) < (from) || (pos) - (from) > CELLS)
#else
#define FAR(pos, from) ((pos) < (from) || (pos) - (from) >= CELLS)
#endif

inline store_turn() {
  d_step {
    buffered_turn[me] == 0 ->
    buffered_turn[me] = FULL_TURN(pos);
    turn_cell[me] = CELL(pos)
  }
}

inline store_item() {
  d_step {
    buffered_item[me] == 0 ->
    buffered_item[me] = 1 + me * MOST + n;
    item_cell[me] = CELL(pos);
    n++
  }
}

#ifdef MUTANT_TURN_RELAXED
#define MAY_LEAVE(thread) 1
#else
#define MAY_LEAVE(thread) (buffered_item[thread] == 0)
#endif
#ifdef MUTANT_TURN_FORGOTTEN
#define LEAVES(thread) (buffered_turn[thread] == 1)
#else
#define LEAVES(thread) 1
#endif

inline turn_leaves(thread) {
  d_step {
    buffered_turn[thread] && MAY_LEAVE(thread) ->
    if
    :: LEAVES(thread) ->
      assert(turn[turn_cell[thread]] + 1 == buffered_turn[thread]); /* I3 */
      turn[turn_cell[thread]] = buffered_turn[thread]
#ifdef MUTANT_TURN_FORGOTTEN
    :: else
#endif
    fi;
    buffered_turn[thread] = 0;
    turn_cell[thread] = 0
  }
}

inline item_leaves(thread) {
  d_step {
    buffered_item[thread] ->
    item[item_cell[thread]] = buffered_item[thread];
    buffered_item[thread] = 0;
    item_cell[thread] = 0
  }
}

active proctype memory() {
  do
  :: turn_leaves(0)
  :: turn_leaves(1)
  :: item_leaves(0)
  :: item_leaves(1)
  :: atomic { head == ITEMS -> break } /* then all buffers are empty */
  od
}

proctype pusher(byte me; byte items) {
  byte n, pos, seen;
  bit was_full;
  do
  :: atomic { n == items -> pos = 0; break }
  :: n < items ->
    pos = tail; /* <ring.P1> */
  again:
#ifdef MUTANT_NO_ROOM_LOOK
    seen = pos;
#else
    seen = head_seen; /* <ring.P2> */
#endif
    if
    :: FAR(pos, seen) ->
#ifndef MUTANT_FULL_BY_OLD_HEAD
      d_step { seen = head; was_full = (tail - head == CELLS) }; /* <ring.P3> */
#endif
      if
      :: FAR(pos, seen) ->
        atomic { /* <ring.P5> */
          if
#ifndef MUTANT_FULL_BY_OLD_TAIL
          :: tail != pos -> pos = tail; was_full = 0; seen = 0; goto again
          :: tail == pos
#else
          :: true
#endif
          fi;
          assert(was_full);
          was_full = 0
        }
        /* the caller comes back when something has happened */
        atomic { head != seen -> seen = 0 };
        goto done
      :: else
      fi;
      d_step { head_seen = seen; was_full = 0 } /* <ring.P4> */
    :: else
    fi;
    seen = 0;
#ifdef MUTANT_NO_TAIL_CAS
    atomic {
      if
      :: tail == pos
      :: else -> pos = tail; goto again
      fi
    }
    tail = pos + 1;
#else
    atomic { /* <ring.P6> a weak compare-and-swap may fail in vain */
      if
      :: tail == pos -> tail = pos + 1
      :: true -> pos = tail; goto again
      fi
    }
#endif
#ifdef MUTANT_TURN_FIRST
    store_turn();
    buffered_turn[me] == 0;
    store_item();
#else
    store_item(); /* <ring.P7> */
    store_turn(); /* <ring.P8> */
#endif
  done:
    skip
  od
}

/* The popper has claimed position pos with the item got. */
inline check_item() {
  assert(got != 0);
  assert(got == last[(got - 1) / MOST] + 1 ||
         got == 1 + MOST && last[1] == 0);
  last[(got - 1) / MOST] = got;
  got = 0
}

proctype popper() {
  byte pos, seen, got;
  do
  :: atomic { head == ITEMS -> pos = 0; break }
  :: head < ITEMS ->
    pos = head; /* <ring.Q1> */
  again:
    atomic { /* <ring.Q2> */
      seen = turn[CELL(pos)];
      if
      :: seen == FULL_TURN(pos) -> seen = 0
      :: seen < FULL_TURN(pos) -> /* empty */
        assert(tail == head || PUSHED != tail);
        goto nothing
      :: seen > FULL_TURN(pos) -> seen = 0; pos = head; goto again
      fi
    }
#ifdef MUTANT_CLAIM_FIRST
    atomic {
      if
      :: head == pos -> head = pos + 1
      :: true -> pos = head; goto again
      fi
    }
    d_step { got = item[CELL(pos)]; check_item() };
#else
    got = item[CELL(pos)]; /* <ring.Q3> */
#ifdef MUTANT_NO_HEAD_CAS
    atomic {
      if
      :: head == pos
      :: else -> pos = head; got = 0; goto again
      fi
    }
    d_step { head = pos + 1; check_item() };
#else
    atomic { /* <ring.Q4> a weak compare-and-swap may fail in vain */
      if
      :: head == pos -> head = pos + 1; check_item()
      :: true -> pos = head; got = 0; goto again
      fi
    }
#endif
#endif
    goto done;
  nothing: /* the caller comes back when something has happened */
    atomic { turn[CELL(pos)] != seen || head == ITEMS -> seen = 0 }
  done:
    skip
  od
}

#ifdef LOOK
/* Somebody who looks whether the ring is empty, all the time. */
proctype looker() {
  byte first = NEVER;
  do
#ifdef MUTANT_EMPTY_BY_TURN
  :: d_step {
      head < ITEMS && turn[CELL(head)] < FULL_TURN(head) -> /* tdl_ring_ready */
      assert(tail == head)
    }
#else
#ifdef MUTANT_EMPTY_TAIL_FIRST
  :: d_step { first == NEVER -> first = tail }
  :: d_step {
      first != NEVER ->
      if
      :: head == first -> assert(tail == head)
      :: else
      fi;
      first = NEVER
    }
#else
  :: d_step { first == NEVER -> first = head } /* <ring.E1> */
  :: d_step { /* <ring.E2> */
      first != NEVER ->
      if
      :: tail == first -> assert(tail == head)
      :: else
      fi;
      first = NEVER
    }
#endif
#endif
  :: atomic { head == ITEMS -> first = NEVER; break }
  od
}
#endif

init {
  atomic {
    run pusher(0, MOST);
    run pusher(1, 2);
    run popper();
    run popper();
#ifdef LOOK
    run looker()
#endif
  }
}
