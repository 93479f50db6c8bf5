from libc.stdint cimport int64_t, uint64_t

from fastpath._types cimport MAX_GROUPS, N_MISSING, N_OUTCOMES, N_SOURCES, N_STATUSES
from fastpath.c.atomic cimport __ATOMIC_RELAXED, store_u64
from fastpath.timings cimport timing_t

cdef enum:
    MAX_SLOTS = 256              # (model, version) pairs that a process may ever serve
    N_DURATION_BOUNDS = 13
    N_DURATION_BUCKETS = 14      # the last one has no upper bound
    MAX_DECISIONS = 16           # thresholds of a model, plus its default decision
    N_READ_BOUNDS = 14
    N_READ_BUCKETS = 15

# What a timed row's time went to. What each holds: see metrics.pyx.
cdef enum stage_t:
    STAGE_PARSE = 0
    STAGE_FEATURES = 1
    STAGE_ROUTE = 2
    STAGE_SCORE = 3
    STAGE_ENCODE = 4
    N_STAGES = 5


# Counters of one (model, version) on one thread. One writer: the thread.
ctypedef struct slot_t:
    uint64_t predictions
    uint64_t degraded
    uint64_t duration_sum_ns
    uint64_t[N_DURATION_BUCKETS] duration_buckets    # not cumulative
    uint64_t[N_SOURCES] features_by_source
    uint64_t[N_MISSING] features_missing
    uint64_t[MAX_DECISIONS] decisions
    uint64_t[MAX_GROUPS + 1] fallbacks_batch     # by group of the feature; [0]: request
    uint64_t[MAX_GROUPS + 1] fallbacks_default


# All counters of one thread.
ctypedef struct shard_t:
    uint64_t[N_STATUSES] errors  # Score calls that did not end with OK, by status
    uint64_t batches
    uint64_t batch_rows
    uint64_t waits               # rows that waited for a store
    uint64_t[N_OUTCOMES] online_reads
    uint64_t[N_OUTCOMES] batch_reads
    uint64_t[N_READ_BUCKETS] read_buckets        # online reads, not cumulative
    uint64_t read_sum_ns
    timing_t[N_STAGES] stages    # of timed rows
    timing_t queue               # of timed rows: from ready to the start of scoring
    slot_t[MAX_SLOTS] slots


cdef class Metrics:
    cdef shard_t** shards        # one per thread, cache-line aligned
    cdef readonly int n_threads
    cdef dict _slots             # (model, version) -> slot index
    cdef tuple _decisions        # per slot: the names behind slot_t.decisions
    cdef tuple _groups           # per slot: the names behind slot_t.fallbacks_*
    cdef shard_t* shard(self, int thread) except NULL


# Of one online read, which a store that answers at once samples.
cdef void observe_read(shard_t* shard, int64_t duration_ns) noexcept nogil
cdef void observe_duration(slot_t* slot, int64_t duration_ns) noexcept nogil


# Adds to a counter that only this thread writes, so that readers never see half a value.
cdef inline void add(uint64_t* counter, uint64_t value) noexcept nogil:
    store_u64(counter, counter[0] + value, __ATOMIC_RELAXED)
