from libc.stdint cimport int32_t, int64_t, uint64_t

cdef enum:
    N_TIMING_BOUNDS = 18
    N_TIMING_BUCKETS = 19        # the last one has no upper bound


# A histogram of durations. One writer; readers load word by word, relaxed.
ctypedef struct timing_t:
    uint64_t sum_ns
    uint64_t[N_TIMING_BUCKETS] buckets   # not cumulative


# Counts `n` durations of so many ns each; below 0 counts as 0.
cdef void observe_timing(timing_t* timing, int64_t duration_ns, int32_t n) noexcept nogil
# (buckets, sum_ns) as Python sees them, read while the writer goes on.
cdef tuple read_timing(const timing_t* timing)
