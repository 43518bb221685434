/* Memory as weak as C11 lets it be for what is written before it is read.
** Included by a model that defines THREADS and PLACES.
**
** What a thread writes (a store, or the second half of a read-modify-write)
** lies in its buffer first, two writes deep, and reaches memory at any later
** time, in order. The thread itself reads it there. A seq_cst read waits until
** no seq_cst write of its thread is left in the buffer; no other order waits
** for anything. So x86's buffers are covered (there only plain stores wait),
** and ARMv8's (where seq_cst writes wait, too). A read-modify-write under way
** keeps all other writes off its place.
**
** AT_ONCE: a seq_cst write waits for the buffer and then reaches memory in one
** step. Where no weaker read of the thread follows it, nobody can tell. */
#define RELAXED 0
#define ACQ_REL 0 /* release: buffers are in order; acquire: nothing to do */
#define SEQ_CST 1
#define RMW 2

typedef buffered {
  byte count;
  byte place[2];
  byte value[2];
  byte how[2] /* SEQ_CST, RMW */
}

byte mem[PLACES];
bit modified[PLACES]; /* by a read-modify-write that lies in a buffer */
buffered buffer[THREADS];

#define HOLDS(t, i, p) (buffer[t].count > i && buffer[t].place[i] == p)
#define READ(t, p)                                                             \
  (HOLDS(t, 1, p) -> buffer[t].value[1] :                                      \
   (HOLDS(t, 0, p) -> buffer[t].value[0] : mem[p]))
#define DRAINED(t) (buffer[t].count == 0)
#define SETTLED(t) (((buffer[t].how[0] | buffer[t].how[1]) & SEQ_CST) == 0)
#define MAY_READ(t, order) ((order) == RELAXED || SETTLED(t))
#define MAY_WRITE(t, p)                                                        \
  (buffer[t].count < 2 && !HOLDS(t, 0, p) && !HOLDS(t, 1, p))
#define MAY_MODIFY(t, p, order)                                                \
  (MAY_WRITE(t, p) && !modified[p] && MAY_READ(t, order))

/* In a d_step, after MAY_WRITE or MAY_MODIFY. */
inline put(t, p, v, h) {
  buffer[t].place[buffer[t].count] = p;
  buffer[t].value[buffer[t].count] = v;
  buffer[t].how[buffer[t].count] = h;
  if
  :: (h) & RMW -> modified[p] = 1
  :: else
  fi;
  buffer[t].count++
}

#ifdef AT_ONCE
#define IS_DIRECT(order) ((order) == SEQ_CST)
#else
#define IS_DIRECT(order) 0
#endif

inline store(t, p, v, order) {
  d_step {
    (IS_DIRECT(order) -> DRAINED(t) && !modified[p] : MAY_WRITE(t, p)) ->
    if
    :: IS_DIRECT(order) -> mem[p] = v
    :: else -> put(t, p, v, order)
    fi
  }
}

inline load(t, x, p, order) {
  d_step {
    MAY_READ(t, order) -> x = READ(t, p)
  }
}

/* x: what was there; v may speak of it. */
inline modify(t, x, p, v, order) {
  d_step {
    MAY_MODIFY(t, p, order) && (!IS_DIRECT(order) || DRAINED(t)) ->
    x = mem[p];
    if
    :: IS_DIRECT(order) -> mem[p] = v
    :: else -> put(t, p, v, order | RMW)
    fi
  }
}

inline reach(t) {
  d_step {
    buffer[t].count &&
    ((buffer[t].how[0] & RMW) || !modified[buffer[t].place[0]]) ->
    mem[buffer[t].place[0]] = buffer[t].value[0];
    if
    :: buffer[t].how[0] & RMW -> modified[buffer[t].place[0]] = 0
    :: else
    fi;
    buffer[t].count--;
    buffer[t].place[0] = buffer[t].place[1];
    buffer[t].value[0] = buffer[t].value[1];
    buffer[t].how[0] = buffer[t].how[1];
    buffer[t].place[1] = 0;
    buffer[t].value[1] = 0;
    buffer[t].how[1] = 0
  }
}
