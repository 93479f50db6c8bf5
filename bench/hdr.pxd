from libc.stdint cimport int64_t

cdef enum:
    N_COUNTS = 33792             # 33 half buckets of 1024: 1 ns to one hour, 3 digits
    HALF_BUCKET = 1024

cdef extern from * nogil:
    """
    #define BENCH_HIGHEST_NS 3600000000000LL  /* an hour */
    """
    const int64_t HIGHEST "BENCH_HIGHEST_NS"
    int count_leading_zeros_ll "__builtin_clzll"(unsigned long long value)

cdef struct hist_t:
    int64_t* counts              # N_COUNTS
    int64_t n_values             # recorded so far
    int64_t largest              # as recorded; 0 when empty
    int64_t smallest             # as recorded; INT64_MAX when empty

cdef inline int64_t hist_index(int64_t value) noexcept nogil:
    # Bucket = how many doublings above 2,047; within it, the value's upper 11 bits.
    cdef int bucket = 53 - count_leading_zeros_ll(<unsigned long long> value | 2047)
    return bucket * HALF_BUCKET + (value >> bucket)

cdef inline void hist_record(hist_t* hist, int64_t value) noexcept nogil:
    # Below 0 (a clock that went backwards) counts as 0, above an hour as an hour.
    if value < 0:
        value = 0
    elif value > HIGHEST:
        value = HIGHEST
    hist.counts[hist_index(value)] += 1
    hist.n_values += 1
    if value > hist.largest:
        hist.largest = value
    if value < hist.smallest:
        hist.smallest = value

cdef class Histogram:
    cdef hist_t hist
