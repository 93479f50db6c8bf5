from libc.stdint cimport int32_t, int64_t, uint64_t

cdef enum:
    BREAKER_BUCKETS = 10         # of the sliding window

cdef enum breaker_state_t:
    BREAKER_CLOSED = 0
    BREAKER_HALF_OPEN = 1
    BREAKER_OPEN = 2


# One thread owns a breaker. The first block is the spec, filled by breaker_configure.
ctypedef struct breaker_t:
    int32_t enabled
    int64_t bucket_ns
    int64_t min_reads
    double failure_share
    int64_t first_cool_off_ns
    int64_t max_cool_off_ns
    int32_t state                # breaker_state_t
    int32_t probing              # half-open: the one probe is under way
    int64_t epoch                # changes with the state; the ticket of the reads admitted in it
    int64_t cool_off_ns          # of this opening
    int64_t retry_ns             # open until then
    uint64_t n_opened
    uint64_t seed
    int64_t bucket               # number of the newest bucket: time / bucket_ns
    int64_t[BREAKER_BUCKETS] reads
    int64_t[BREAKER_BUCKETS] failures
    int64_t n_reads              # sums over the buckets
    int64_t n_failures


# Whether a read would be refused now. Changes nothing.
cdef bint breaker_refuses(const breaker_t* breaker, int64_t now_ns) noexcept nogil
# Admits a read, with a ticket > 0, or refuses it: 0. Every ticket is given back once, by
# breaker_settle or breaker_release.
cdef int64_t breaker_admit(breaker_t* breaker, int64_t now_ns) noexcept nogil
# The read ended: well, or as a failure.
cdef void breaker_settle(
    breaker_t* breaker, int64_t ticket, bint failed, int64_t now_ns
) noexcept nogil
# The read ended without saying anything about the store.
cdef void breaker_release(breaker_t* breaker, int64_t ticket) noexcept nogil
# Zeroes the breaker and takes a checked BreakerSpec.
cdef int breaker_configure(breaker_t* breaker, spec, uint64_t seed) except -1
