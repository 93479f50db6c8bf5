"""Histograms of what the serving path takes for itself: stages of a call, iterations of a loop.

Rules: one writer, plain stores that readers never see half of, no lock. All have the bounds
`TIMING_BOUNDS_NS`, from a tenth of a microsecond (reading the clock twice takes a quarter of that)
to a tenth of a second.
"""

from fastpath.c.atomic cimport __ATOMIC_RELAXED, load_u64, store_u64

cdef int64_t[N_TIMING_BOUNDS] BOUNDS_NS = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000, 100_000_000,
]
TIMING_BOUNDS_NS = tuple(BOUNDS_NS[i] for i in range(N_TIMING_BOUNDS))


cdef void observe_timing(timing_t* timing, int64_t duration_ns, int32_t n) noexcept nogil:
    cdef int32_t i = 0
    duration_ns = max(<int64_t> 0, duration_ns)
    while i < N_TIMING_BOUNDS and duration_ns > BOUNDS_NS[i]:
        i += 1
    store_u64(&timing.buckets[i], timing.buckets[i] + <uint64_t> n, __ATOMIC_RELAXED)
    store_u64(
        &timing.sum_ns, timing.sum_ns + <uint64_t> duration_ns * <uint64_t> n, __ATOMIC_RELAXED
    )


cdef tuple read_timing(const timing_t* timing):
    cdef int32_t i
    buckets = tuple([
        load_u64(&timing.buckets[i], __ATOMIC_RELAXED) for i in range(N_TIMING_BUCKETS)
    ])
    return buckets, load_u64(&timing.sum_ns, __ATOMIC_RELAXED)
