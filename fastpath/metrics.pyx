"""Per-thread counters and histograms of the serving path.

Rules
-----
* Each thread writes its own shard with plain stores; a reader adds the shards up. Nothing is shared
  between writers, so a scrape costs the loops nothing.
* A slot belongs to a (model, version) for the life of the process: counters never go back, whatever
  is loaded, unloaded or loaded again.
* A duration is counted from the complete message to the encoded answer, into the buckets of
  `DURATION_BOUNDS_NS`.
* Stages are counted of one row in 61 (see `engine`): parse is decoding the message; route is the
  model, the bucket, the arm and the layout; features is everything until the row is complete, with
  the wait for its stores where it waits; score and encode are its batch's, divided by the batch's
  rows: encode is the decision, the capture, the encoding and handing the answer to the transport.
  The queue's delay is from the start of the iteration that made the row ready, by its message or
  by its store's last answer, to the start of its batch's scoring.

A snapshot is not a cut in time: its counters are read one after the other while the loops go on.
"""

from typing import NamedTuple

from fastpath.errors import FastpathError
from fastpath.store import OUTCOMES

from fastpath.timings cimport read_timing
from fastpath.c.atomic cimport __ATOMIC_RELAXED, load_u64

from libc.stdlib cimport free
from libc.string cimport memset
from posix.stdlib cimport posix_memalign

# Upper bounds of the duration buckets: 50 us to 1 s, with a boundary on each level of service
# that a payment path promises.
cdef int64_t[N_DURATION_BOUNDS] BOUNDS_NS = [
    50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000,
    50_000_000, 100_000_000, 250_000_000, 1_000_000_000,
]
DURATION_BOUNDS_NS = tuple(BOUNDS_NS[i] for i in range(N_DURATION_BOUNDS))

# Upper bounds of the read buckets: from an embedded store's microsecond to a budget spent in full.
cdef int64_t[N_READ_BOUNDS] READ_BOUNDS = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 25_000_000,
]
READ_BOUNDS_NS = tuple(READ_BOUNDS[i] for i in range(N_READ_BOUNDS))

MISSING_CAUSES = ("absent", "null", "infinite", "range", "unseen")
STAGES = ("parse", "features", "route", "score", "encode")
SOURCES = ("unspecified", "request", "online", "batch", "default")


class SlotSnapshot(NamedTuple):
    """Counters of one (model, version), added up over the threads."""

    model: str
    version: str
    predictions: int
    degraded: int
    duration_sum_ns: int
    duration_buckets: tuple          # not cumulative; one more than DURATION_BOUNDS_NS
    features_by_source: dict         # source -> resolved feature values
    features_missing: dict           # cause -> request values that could not be used
    decisions: dict                  # decision -> predictions
    fallbacks: dict                  # (source, group) -> values that fell back


class Snapshot(NamedTuple):
    """Counters of the process, added up over the threads."""

    slots: tuple                     # SlotSnapshot per registered (model, version)
    errors: tuple                    # Score calls that did not end with OK, by gRPC status
    batches: int
    batch_rows: int
    waits: int                       # rows that waited for a store
    online_reads: dict               # outcome -> reads of online records
    batch_reads: dict                # outcome -> reads of batch records
    read_buckets: tuple              # not cumulative; one more than READ_BOUNDS_NS
    read_sum_ns: int
    stages: dict                     # stage -> (buckets, sum_ns) of timed rows
    queue: tuple                     # (buckets, sum_ns): from ready to the start of scoring


cdef void observe_duration(slot_t* slot, int64_t duration_ns) noexcept nogil:
    # Linear: nearly every duration falls into the first or second bucket.
    cdef int i = 0
    while i < N_DURATION_BOUNDS and duration_ns > BOUNDS_NS[i]:
        i += 1
    add(&slot.duration_buckets[i], 1)
    add(&slot.duration_sum_ns, <uint64_t> duration_ns if duration_ns > 0 else 0)


cdef void observe_read(shard_t* shard, int64_t duration_ns) noexcept nogil:
    cdef int i = 0
    while i < N_READ_BOUNDS and duration_ns > READ_BOUNDS[i]:
        i += 1
    add(&shard.read_buckets[i], 1)
    add(&shard.read_sum_ns, <uint64_t> duration_ns if duration_ns > 0 else 0)


cdef void _accumulate(const uint64_t* counters, size_t n, uint64_t* out) noexcept nogil:
    cdef size_t i
    for i in range(n):
        out[i] += load_u64(counters + i, __ATOMIC_RELAXED)


cdef class Metrics:
    """The shards of all threads.

    Parameters
    ----------
    n_threads : int
        How many loop threads there will be; each gets the shard of its index.
    """

    def __cinit__(self, int n_threads):
        cdef void* memory = NULL
        cdef int i
        if n_threads < 1:
            raise FastpathError(f"metrics need at least one thread, not {n_threads}")
        self._slots = {}
        self._decisions = ()
        self._groups = ()
        if posix_memalign(&memory, 64, n_threads * sizeof(shard_t*)) != 0:
            raise MemoryError()
        memset(memory, 0, n_threads * sizeof(shard_t*))
        self.shards = <shard_t**> memory
        self.n_threads = n_threads
        for i in range(n_threads):
            if posix_memalign(&memory, 64, sizeof(shard_t)) != 0:
                raise MemoryError()
            memset(memory, 0, sizeof(shard_t))
            self.shards[i] = <shard_t*> memory

    def __dealloc__(self):
        cdef int i
        if self.shards is not NULL:
            for i in range(self.n_threads):
                free(self.shards[i])
            free(self.shards)

    cdef shard_t* shard(self, int thread) except NULL:
        if not 0 <= thread < self.n_threads:
            raise FastpathError(f"there are {self.n_threads} threads; {thread} is not one of them")
        return self.shards[thread]

    def register(self, str model not None, str version not None, decisions, groups=()):
        """Return the slot of a (model, version), the same one every time.

        Parameters
        ----------
        decisions : sequence of str
            Names behind the decision counters: the default first, then the thresholds ascending.
        groups : sequence of str
            Names of the schema's groups of stored features, in its order: at most 8.

        Raises
        ------
        FastpathError
            More than 256 pairs were registered in the life of the process, or a model has more
            than 15 thresholds.
        """
        names = tuple(decisions)
        if len(names) > MAX_DECISIONS:
            raise FastpathError(
                f"model {model} {version} has {len(names) - 1} thresholds; "
                f"at most {MAX_DECISIONS - 1} are counted"
            )
        slot = self._slots.get((model, version))
        if slot is None:
            slot = len(self._slots)
            if slot == MAX_SLOTS:
                raise FastpathError(
                    f"this process has served {MAX_SLOTS} model versions, which is all it can "
                    f"count; restart it to serve {model} {version}"
                )
            self._slots[(model, version)] = slot
            self._decisions += (names,)
            self._groups += (("request", *groups),)
        return slot

    def snapshot(self):
        """Return a Snapshot: every counter, added up over the threads."""
        cdef shard_t* total
        cdef int i
        cdef void* memory = NULL
        # Everything before the slots is 64-bit counters: they add up word by word.
        cdef size_t n_words = (<size_t> &(<shard_t*> NULL).slots) // sizeof(uint64_t)
        if posix_memalign(&memory, 64, n_words * sizeof(uint64_t)) != 0:
            raise MemoryError()
        memset(memory, 0, n_words * sizeof(uint64_t))
        total = <shard_t*> memory
        for i in range(self.n_threads):
            _accumulate(<const uint64_t*> self.shards[i], n_words, <uint64_t*> total)
        try:
            return Snapshot(
                slots=tuple(
                    [self._slot(index, *pair) for pair, index in tuple(self._slots.items())]
                ),
                errors=tuple([total.errors[i] for i in range(N_STATUSES)]),
                batches=total.batches,
                batch_rows=total.batch_rows,
                waits=total.waits,
                online_reads={OUTCOMES[i]: total.online_reads[i] for i in range(1, N_OUTCOMES)},
                batch_reads={OUTCOMES[i]: total.batch_reads[i] for i in range(1, N_OUTCOMES)},
                read_buckets=tuple([total.read_buckets[i] for i in range(N_READ_BUCKETS)]),
                read_sum_ns=total.read_sum_ns,
                stages={STAGES[i]: read_timing(&total.stages[i]) for i in range(N_STAGES)},
                queue=read_timing(&total.queue),
            )
        finally:
            free(memory)

    def _slot(self, int index, str model, str version):
        cdef slot_t total
        cdef int i
        memset(&total, 0, sizeof(slot_t))
        for i in range(self.n_threads):
            # A slot is nothing but 64-bit counters, so it adds up word by word.
            _accumulate(
                <const uint64_t*> &self.shards[i].slots[index],
                sizeof(slot_t) // sizeof(uint64_t),
                <uint64_t*> &total,
            )
        return SlotSnapshot(
            model=model,
            version=version,
            predictions=total.predictions,
            degraded=total.degraded,
            duration_sum_ns=total.duration_sum_ns,
            duration_buckets=tuple([total.duration_buckets[i] for i in range(N_DURATION_BUCKETS)]),
            features_by_source={
                SOURCES[i]: total.features_by_source[i] for i in range(1, N_SOURCES)
            },
            features_missing={
                MISSING_CAUSES[i]: total.features_missing[i] for i in range(N_MISSING)
            },
            decisions={name: total.decisions[i] for i, name in enumerate(self._decisions[index])},
            fallbacks={
                (source, name): counters[i]
                for source, counters in (
                    ("batch", [total.fallbacks_batch[i] for i in range(MAX_GROUPS + 1)]),
                    ("default", [total.fallbacks_default[i] for i in range(MAX_GROUPS + 1)]),
                )
                for i, name in enumerate(self._groups[index])
            },
        )
