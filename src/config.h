/* config: every tunable number, with its reason.
** A test build shrinks them with -D so that the rare paths become common:
** a ring of 2, an inline payload of 8 bytes, no spinning.
** Names say area, what and unit. */
#ifndef TDL_CONFIG_H
#define TDL_CONFIG_H

/* Two lines, because x86 fetches lines in pairs: two hot words closer than
** this share their misses. */
#ifndef TDL_LINE_BYTES
#define TDL_LINE_BYTES 128
#endif

/* Cells of a queue's ring (a power of two). 1,024 cells of 16 bytes stay in
** the first-level cache; what does not fit goes to the overflow list. */
#ifndef TDL_RING_CELLS
#define TDL_RING_CELLS 1024
#endif

/* The same for the calls that are sent to one worker. Each worker has such a
** ring, and few are used. */
#ifndef TDL_SLOT_CELLS
#define TDL_SLOT_CELLS 16
#endif

/* Payload that lies in the job record itself: what the hand-off moves is four
** cache lines then, of which a number needs the first, 100 bytes of text two
** more. */
#ifndef TDL_JOB_INLINE_BYTES
#define TDL_JOB_INLINE_BYTES 204
#endif

/* Jobs that a state allocates at once: one page of them. */
#ifndef TDL_JOB_SLAB_COUNT
#define TDL_JOB_SLAB_COUNT 16
#endif

/* Heap bytes that the idle jobs of one state may keep for their next call while
** it is busy (32 calls with 1 MiB each are 32 MiB: five times as fast as when
** their pages come anew each time), and when it sleeps without any. */
#ifndef TDL_JOB_BUSY_BYTES
#define TDL_JOB_BUSY_BYTES (64u << 20)
#endif
#ifndef TDL_JOB_KEEP_BYTES
#define TDL_JOB_KEEP_BYTES (8u << 20)
#endif

/* A payload's default limit, and the largest that can be asked for (lengths
** travel as 32 bits; LuaJIT's strings end at 2 GiB). */
#ifndef TDL_PAYLOAD_MAX_BYTES
#define TDL_PAYLOAD_MAX_BYTES (64u << 20)
#endif
#ifndef TDL_PAYLOAD_CEILING_BYTES
#define TDL_PAYLOAD_CEILING_BYTES 0x7fffff00u
#endif

/* The longest spin before a state sleeps. Falling asleep and being woken
** costs about this much, so that a spin never more than doubles the cost of
** the wait (the ski-rental bound). */
#ifndef TDL_SPIN_MAX_NS
#define TDL_SPIN_MAX_NS 50000
#endif

/* A spin that failed quarters the next one; below this the state sleeps at
** once, until a sleep turns out so short that a spin would have caught it, or
** for so many sleeps: a failed try costs 66 us in all, which is then spread
** over that many sleeps of at least as much each. */
#ifndef TDL_SPIN_MIN_NS
#define TDL_SPIN_MIN_NS 1000
#endif
#ifndef TDL_SPIN_RETRY_SLEEPS
#define TDL_SPIN_RETRY_SLEEPS 32
#endif

/* A state that sleeps beside words of other processes looks up so often: a signal
** does not end that sleep (100 ms: what Ctrl-C may take). */
#ifndef TDL_PARKER_SLICE_NS
#define TDL_PARKER_SLICE_NS 100000000u
#endif

/* Pause instructions before a spinning state starts to offer its processor to
** others (sched_yield, 0.4 us if nobody wants it) between two looks: 3 us, in
** which trivial calls are answered. Later, the one that it waits for may be
** queued on this very processor. */
#ifndef TDL_SPIN_PAUSES
#define TDL_SPIN_PAUSES 128
#endif

/* Pause instructions for which a caller looks whether an awake worker takes
** the new call before it wakes a sleeping one (11 us): about half a
** microsecond, the length of a whole trivial call. */
#ifndef TDL_POOL_TAKE_PAUSES
#define TDL_POOL_TAKE_PAUSES 24
#endif

/* Of so many items of a run queue with ranks that a worker gets, one comes from
** the lowest rank and one from the middle one, whatever the highest holds; even.
** Rare enough that urgent calls hardly notice. */
#ifndef TDL_BACKLOG_TURNS
#define TDL_BACKLOG_TURNS 16
#endif

/* Workers of one pool. The idle set is a bitmap of this many bits. */
#ifndef TDL_POOL_MAX_WORKERS
#define TDL_POOL_MAX_WORKERS 1024
#endif

/* A pool that grows and shrinks. A worker is spare only after so long without a
** job, however short idle_timeout is: to start one again costs one or two
** milliseconds of a processor, so that at worst a fiftieth of one is spent on
** coming and going. */
#ifndef TDL_SIZE_DWELL_NS
#define TDL_SIZE_DWELL_NS 100000000u
#endif
/* From one look at whether a worker is lacking to the next: about what one needs
** to start, so that one that loads much is not waited for. */
#ifndef TDL_SIZE_LOOK_NS
#define TDL_SIZE_LOOK_NS 2000000u
#endif
/* Until a thread that could not be started is tried again. */
#ifndef TDL_SIZE_RETRY_NS
#define TDL_SIZE_RETRY_NS 50000000u
#endif
/* An idle_timeout from here on (30 years) is none. */
#ifndef TDL_SIZE_IDLE_MAX_NS
#define TDL_SIZE_IDLE_MAX_NS 1000000000000000000u
#endif

/* Blocks of a Lua state that do not come from LuaJIT's allocator: from the size
** on at which that one maps each by itself. Of those up to LARGEST, freed ones
** are kept for their next use: up to BUSY in a worker's state (what it collects
** at once when calls bring 1 MiB each), up to KEEP in one that has slept for so
** long, and in the command's. */
#ifndef TDL_HEAP_CLASS_BYTES
#define TDL_HEAP_CLASS_BYTES (64u << 10) /* they are rounded up to this */
#endif
#ifndef TDL_HEAP_SMALLEST_BYTES
#define TDL_HEAP_SMALLEST_BYTES (128u << 10)
#endif
#ifndef TDL_HEAP_LARGEST_BYTES
#define TDL_HEAP_LARGEST_BYTES (4u << 20)
#endif
#ifndef TDL_HEAP_BUSY_BYTES
#define TDL_HEAP_BUSY_BYTES (64u << 20)
#endif
#ifndef TDL_HEAP_TRIM_NS
#define TDL_HEAP_TRIM_NS 1000000000u
#endif
#ifndef TDL_HEAP_KEEP_BYTES
#define TDL_HEAP_KEEP_BYTES (8u << 20)
#endif

/* Shared memory: how it is aligned (a vector of AVX-512, a cache line); from
** which size on it has pages of its own, which come zeroed when they are first
** touched; and how much of it a state may drop without looking at it before it
** collects garbage, since a handle's few bytes tell its collector nothing (a
** full collection takes less than touching so many pages). */
#ifndef TDL_BUFFER_ALIGN_BYTES
#define TDL_BUFFER_ALIGN_BYTES 64
#endif
#ifndef TDL_BUFFER_PAGES_BYTES
#define TDL_BUFFER_PAGES_BYTES 65536
#endif
#ifndef TDL_BUFFER_FILE_BYTES /* what a descriptor weighs: 64 make garbage */
#define TDL_BUFFER_FILE_BYTES (1u << 20)
#endif
#ifndef TDL_BUFFER_GARBAGE_BYTES
#define TDL_BUFFER_GARBAGE_BYTES (64u << 20)
#endif

/* Memory of several processes: the name that /proc/PID/maps shows, and how much
** of it is asked for at a time, so that a thread that gets signals gets on (as
** much as the kernel zeroes in 0.2 ms). */
#ifndef TDL_REGION_NAME
#define TDL_REGION_NAME "treadle"
#endif
#ifndef TDL_REGION_FILL_BYTES
#define TDL_REGION_FILL_BYTES (1u << 20)
#endif

/* Lists of those who wait for an integer in shared memory to change: more than
** threads that enter one at the same moment. */
#ifndef TDL_ATOMICS_LISTS
#define TDL_ATOMICS_LISTS 64
#endif

/* How much faster than the script allocates the collector works, in percent,
** above half of a heap's cap (LuaJIT's own is 200): it is through half of the
** cap before an eighth is allocated. */
#ifndef TDL_HEAP_HURRY_STEPMUL
#define TDL_HEAP_HURRY_STEPMUL 1000
#endif

/* Runs are timed one by one, which takes 0.2 us with the lines that it moves
** between the cores, until STREAK in a row were shorter than SHORT; then at
** random one in GAP, so that it is 3 ns for each. Which tasks are such is known
** for HINTS of them (one cache line). */
#ifndef TDL_STATS_SHORT_NS
#define TDL_STATS_SHORT_NS 4096
#endif
#ifndef TDL_STATS_STREAK
#define TDL_STATS_STREAK 64
#endif
#ifndef TDL_STATS_GAP
#define TDL_STATS_GAP 64
#endif
#ifndef TDL_STATS_HINTS
#define TDL_STATS_HINTS 64
#endif

/* Stamps that a thread of a build with TDL_STAMPS keeps (a power of two): those
** of 2,000 calls in 256 KiB, a quarter of a second-level cache. */
#ifndef TDL_STAMP_TRACE_COUNT
#define TDL_STAMP_TRACE_COUNT 16384
#endif

/* Stopping what does not end: how long the code of a job that was given up may
** go on before it is looked at (a task that waits ends within microseconds);
** how long it may compute then, in its thread's own time, because on a busy
** machine it may have had no processor; how long it may stand still, in a call
** that blocks, before that counts as well; from one interrupt to the next (in
** a loop that spends most of its time in C functions, few of them find it in
** compiled code); how long until the thread counts as stuck in C; the same
** while it closes its state (a large heap takes a moment). For what computes, a
** fresh worker is there within 20 ms. */
#ifndef TDL_STOP_GRACE_NS
#define TDL_STOP_GRACE_NS 5000000u
#endif
#ifndef TDL_STOP_COMPUTE_NS
#define TDL_STOP_COMPUTE_NS 1000000u
#endif
#ifndef TDL_STOP_STILL_NS
#define TDL_STOP_STILL_NS 30000000u
#endif
#ifndef TDL_STOP_AGAIN_NS
#define TDL_STOP_AGAIN_NS 200000u
#endif
#ifndef TDL_STOP_PATIENCE_NS
#define TDL_STOP_PATIENCE_NS 9000000u
#endif
#ifndef TDL_STOP_CLOSE_NS
#define TDL_STOP_CLOSE_NS 200000000u
#endif

/* The supervisor's looks at a worker that waits get rarer, down to this. */
#ifndef TDL_STOP_RARELY_NS
#define TDL_STOP_RARELY_NS 100000000u
#endif

/* How long `close` and recycling wait before they force, where nobody says. */
#ifndef TDL_POOL_TERMINATE_NS
#define TDL_POOL_TERMINATE_NS 5000000000u
#endif

/* States of one worker in a row that cannot load their module before the pool
** gives up. */
#ifndef TDL_WORKER_LOAD_TRIES
#define TDL_WORKER_LOAD_TRIES 3
#endif

/* The signal that interrupts is SIGRTMAX less this, or the next lower one that
** has no handler. SIGRTMAX itself is valgrind's, which leaves it to nobody; the
** lowest ones are what other runtimes begin with. */
#ifndef TDL_INTERRUPT_SIGNAL_BELOW_MAX
#define TDL_INTERRUPT_SIGNAL_BELOW_MAX 1
#endif

/* Of the signals from there down that have no handler when the first pool is
** made, so many may be used: two of them that still have none when a thread is to
** be interrupted for the first time. Others may take some in between, a second
** copy of treadle in the same process above all. */
#ifndef TDL_INTERRUPT_SIGNALS
#define TDL_INTERRUPT_SIGNALS 8
#endif

/* Text segments of the process that can be told apart, each 16 bytes; where
** there are more, compiled code is not left. A large desktop program has 300.
*/
#ifndef TDL_INTERRUPT_SEGMENTS
#define TDL_INTERRUPT_SEGMENTS 1024
#endif

/* Signals in a row that find the interpreter at work in spite of the hook: it
** looks at none in finalizers and hooks. The first may have come before the
** hook could act, and one more is for debug.sethook. */
#ifndef TDL_INTERRUPT_IGNORED_SIGNALS
#define TDL_INTERRUPT_IGNORED_SIGNALS 4
#endif

/* What finalizers at the end of a state have until they are left: so many
** signals, which count where they stand still, or so much of a processor: on a
** busy machine signals are few. Before TDL_STOP_CLOSE_NS, when the thread would
** be written off; from then on it gets ten in a second. */
#ifndef TDL_INTERRUPT_SEALED_NS
#define TDL_INTERRUPT_SEALED_NS 100000000u
#endif
#ifndef TDL_INTERRUPT_SEALED_SIGNALS
#define TDL_INTERRUPT_SEALED_SIGNALS 100
#endif

/* Instructions until a hook looks again whether C code that called back into
** Lua has returned; a look costs some microseconds. */
#ifndef TDL_INTERRUPT_FOREIGN_COUNT
#define TDL_INTERRUPT_FOREIGN_COUNT 1000
#endif

/* What is told of a stack that is read: so many functions from the inside, and
** so many from the outside; of how many at most, since a script may recurse a
** million times; how much of a source's name; and how many slots of a stack are
** read at once (half a microsecond each time). */
#ifndef TDL_STACK_INNER
#define TDL_STACK_INNER 44
#endif
#ifndef TDL_STACK_OUTER
#define TDL_STACK_OUTER 20
#endif
#ifndef TDL_STACK_FRAMES
#define TDL_STACK_FRAMES 2000
#endif
#ifndef TDL_STACK_COROUTINES
#define TDL_STACK_COROUTINES 200
#endif
#ifndef TDL_STACK_SOURCE_BYTES
#define TDL_STACK_SOURCE_BYTES 128
#endif
#ifndef TDL_STACK_PROBES
#define TDL_STACK_PROBES 1 /* 0: the kernel copies all that is read */
#endif
#ifndef TDL_STACK_WINDOW_SLOTS
#define TDL_STACK_WINDOW_SLOTS 64
#endif

/* Traces of a state that are looked through for the one that runs, where it does
** not say its number: LuaJIT's limit (-Omaxtrace) is 1,000. */
#ifndef TDL_STACK_TRACES
#define TDL_STACK_TRACES 1024
#endif

/* A look at what workers run: how long it waits for them at most; until it looks
** whether they have answered, which takes 20 us; until they are asked again,
** because the moment was one at which nothing could be read. */
#ifndef TDL_LOOK_PATIENCE_NS
#define TDL_LOOK_PATIENCE_NS 50000000u
#endif
#ifndef TDL_LOOK_PAUSE_NS
#define TDL_LOOK_PAUSE_NS 20000u
#endif
#ifndef TDL_LOOK_COMPUTES_NS
#define TDL_LOOK_COMPUTES_NS 1000u /* seen from one pause to the next */
#endif
#ifndef TDL_LOOK_AGAIN_NS
#define TDL_LOOK_AGAIN_NS 200000u
#endif

/* The same of a process that looks for its parent, who is to hear of it in time. */
#ifndef TDL_SIGHT_PATIENCE_NS
#define TDL_SIGHT_PATIENCE_NS 40000000u
#endif

/* Jobs that wait in one worker of which a backtrace tells; 0.1 ms for each. */
#ifndef TDL_LOOK_WAITING
#define TDL_LOOK_WAITING 100
#endif

/* Workers that are looked at at once: 9 KiB for each. */
#ifndef TDL_LOOK_VIEWS
#define TDL_LOOK_VIEWS 16
#endif

/* A profile: how long one look waits for a worker at most; one stack as a text; the
** thread's own stack. */
#ifndef TDL_PROFILE_PATIENCE_NS
#define TDL_PROFILE_PATIENCE_NS 2000000u
#endif
#ifndef TDL_PROFILE_TEXT_BYTES
#define TDL_PROFILE_TEXT_BYTES 8192
#endif
#ifndef TDL_PROFILE_STACK_BYTES
#define TDL_PROFILE_STACK_BYTES (128u << 10)
#endif

/* More than LuaJIT maps at once for compiled code (-Osizemcode, 64 KiB). */
#ifndef TDL_INTERRUPT_CODE_AREA_BYTES
#define TDL_INTERRUPT_CODE_AREA_BYTES (16u << 20)
#endif

/* Return addresses of a thread that may be diverted at once. One is right; the
** others are what earlier calls left on the stack. */
#ifndef TDL_INTERRUPT_TRAPS
#define TDL_INTERRUPT_TRAPS 16
#endif

/* The registers of an interrupted thread lie this near to its stack pointer:
** AVX-512 takes 3 KiB of it, AMX 8 more. */
#ifndef TDL_INTERRUPT_CONTEXT_BYTES
#define TDL_INTERRUPT_CONTEXT_BYTES (32u << 10)
#endif

/* C stack of a worker thread. LuaJIT recurses in C only in its parser and
** in pattern matching, both bounded below this. */
#ifndef TDL_WORKER_STACK_BYTES
#define TDL_WORKER_STACK_BYTES (1u << 20)
#endif

/* Pauses for which who finds a lock of a shared object held looks again before
** it sleeps: about 4 us, a hundred times what is done under it. */
#ifndef TDL_GUARD_PAUSES
#define TDL_GUARD_PAUSES 100
#endif

/* Payload that lies in a channel's message itself: two cache lines with what
** stands before it. */
#ifndef TDL_MESSAGE_INLINE_BYTES
#define TDL_MESSAGE_INLINE_BYTES 96
#endif
/* What an empty message may keep for its next use, and how many empty ones a
** channel keeps, and a state: those of a channel come from its receivers and are
** for its senders, a thousand of them are 128 KiB. */
#ifndef TDL_MESSAGE_KEEP_BYTES
#define TDL_MESSAGE_KEEP_BYTES 4096
#endif
#ifndef TDL_CHANNEL_IDLE_MESSAGES
#define TDL_CHANNEL_IDLE_MESSAGES 1024
#endif
#ifndef TDL_CHANNEL_SPARE_MESSAGES
#define TDL_CHANNEL_SPARE_MESSAGES 4
#endif

/* Values that a task may emit before its caller takes them: as many as both sides
** need to run side by side for some microseconds, 32 KiB of small ones. */
#ifndef TDL_STREAM_BUFFER
#define TDL_STREAM_BUFFER 256
#endif

/* Cases of one select: they are locked all at once. */
#ifndef TDL_SELECT_MAX_CASES
#define TDL_SELECT_MAX_CASES 256
#endif

/* The longest line that a pool's option `debug` brings. */
#ifndef TDL_DEBUG_LINE_BYTES
#define TDL_DEBUG_LINE_BYTES 1024
#endif

/* A recording of a pool (48 KiB each): how many events a thread keeps before it
** hands them to the one that writes; how many such buffers may wait for that one
** before the others wait for it; what is written to the file at a time. */
#ifndef TDL_TRACE_EVENTS
#define TDL_TRACE_EVENTS 1024
#endif
#ifndef TDL_TRACE_BUFFERS
#define TDL_TRACE_BUFFERS 64
#endif
#ifndef TDL_TRACE_BUFFER_BYTES
#define TDL_TRACE_BUFFER_BYTES 65536
#endif

/* Tables of at most so many entries, in what treadle.shared has made, a state
** reads whole at its first look into one (10 us). Of larger ones it reads what
** it looks up, until that was an eighth of all: then reading all of it has cost
** no more than twice as much as it would have at once. */
#ifndef TDL_SHARED_WHOLE_COUNT
#define TDL_SHARED_WHOLE_COUNT 256
#endif
#ifndef TDL_SHARED_LOOKS_SHARE
#define TDL_SHARED_LOOKS_SHARE 8
#endif

/* The memory that a worker's process shares with its parent begins with a page of
** words; the ring of each direction takes calls by the hundred; and of the memory
** for long payloads so much stays once it was used. */
#ifndef TDL_LINK_PAGE_BYTES
#define TDL_LINK_PAGE_BYTES 4096u
#endif
#ifndef TDL_LINK_GRAIN_BYTES /* of a ring: a cache line of the processor's */
#define TDL_LINK_GRAIN_BYTES 64u
#endif
#ifndef TDL_LINK_RING_BYTES
#define TDL_LINK_RING_BYTES 262144u
#endif
#ifndef TDL_LINK_KEEP_BYTES
#define TDL_LINK_KEEP_BYTES 4194304u
#endif

/* A payload that is longer is a long one: it does not lie in a ring. */
#ifndef TDL_LINK_INLINE_BYTES
#define TDL_LINK_INLINE_BYTES (TDL_LINK_RING_BYTES / 8)
#endif

/* Long arguments are written where all processes of a pool read them, in either
** half of so much. Its pages cannot be given back as long as there is the pool. */
#ifndef TDL_STAGE_HALF_BYTES
#define TDL_STAGE_HALF_BYTES (8u << 20)
#endif

/* Long payloads have at least so much, for what a worker reports of its start. */
#ifndef TDL_LINK_BULK_BYTES
#define TDL_LINK_BULK_BYTES 1048576u
#endif

/* Buffers that a worker's process and its parent can have of each other: each takes
** one of the 1,024 descriptors that a process usually may have, and the collector
** sees to it that garbage is not most of them (TDL_BUFFER_FILE_BYTES). */
#ifndef TDL_CROSSING_MOST
#define TDL_CROSSING_MOST 512u
#endif

/* What a worker's process prints leaves it in whole lines of up to so much. */
#ifndef TDL_CHILD_LINE_BYTES
#define TDL_CHILD_LINE_BYTES 65536u
#endif

/* Calls after which a process that never sleeps shows what it has counted. */
#ifndef TDL_FAR_SHOWN_CALLS
#define TDL_FAR_SHOWN_CALLS 64
#endif

/* A process whose next call its parent is about to withdraw looks so often at
** once, then so often whether it may go on: that takes less than a microsecond, if
** the parent is not stopped. */
#ifndef TDL_LINK_PAUSES
#define TDL_LINK_PAUSES 1000
#endif
#ifndef TDL_LINK_NAP_NS
#define TDL_LINK_NAP_NS 100000
#endif

/* So many calls are put ahead for a process that has as many as it may: it goes on
** with the next when it has ended one, and nobody need look. More save nothing;
** fewer let it wait for a home that has other things to do. */
#ifndef TDL_PUMP_AHEAD
#define TDL_PUMP_AHEAD 16
#endif

/* A process that has ended no job for so long has a long one: calls that lie ahead
** of it are taken back. Many times what a call takes there and back. */
#ifndef TDL_PUMP_STUCK_NS
#define TDL_PUMP_STUCK_NS 200000
#endif

/* Who waits for the hand-off of a process looks so often at once, then so often:
** it is held for less than a microsecond, but where long payloads are copied. */
#ifndef TDL_PUMP_YIELDS
#define TDL_PUMP_YIELDS 16
#endif
#ifndef TDL_PUMP_NAP_NS
#define TDL_PUMP_NAP_NS 50000
#endif

/* A result that has lain in the ring for so long is told at the process' next
** call: most are taken by the home before. */
#ifndef TDL_FAR_LAIN_NS
#define TDL_FAR_LAIN_NS 100000
#endif

/* A process looks at every so-manieth call that lay ahead of it: the word is in a
** cache line that its host writes. */
#ifndef TDL_FAR_LOOK_CALLS
#define TDL_FAR_LOOK_CALLS 4
#endif

/* From one look of a process to the next whether there is room for a result. */
#ifndef TDL_FAR_ROOM_NS
#define TDL_FAR_ROOM_NS 100000
#endif

/* How long a process has to end what it was told to end, before it is killed: its
** own supervisor is done within a tenth of that, but for a process that is
** stopped, or does not listen. */
#ifndef TDL_KEEPER_PATIENCE_NS
#define TDL_KEEPER_PATIENCE_NS 1000000000u
#endif

/* Paths, ports or variables in one policy: a folder with a secret in it is
** granted entry by entry. The kernel takes any number of rules; making each
** costs a worker's start some microseconds. */
#ifndef TDL_POLICY_ENTRIES
#define TDL_POLICY_ENTRIES 8192
#endif

/* The longest path in a policy, as the kernel's PATH_MAX. */
#ifndef TDL_POLICY_PATH_BYTES
#define TDL_POLICY_PATH_BYTES 4096
#endif

#endif
