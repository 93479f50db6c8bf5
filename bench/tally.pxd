from libc.stdint cimport int32_t, int64_t, uint64_t

from bench._types cimport call_t, load_t

cdef uint64_t mix(uint64_t seed, uint64_t index) noexcept nogil
cdef call_t* call_begin(
    load_t* load, int64_t intended_ns, int64_t ready_ns, int32_t is_measured
) noexcept nogil
cdef void call_sent(load_t* load, call_t* call, int64_t sent_ns) noexcept nogil
cdef void call_end(load_t* load, call_t* call, int32_t cause) noexcept nogil
cdef void call_never_began(load_t* load, int64_t intended_ns, int32_t cause) noexcept nogil
cdef void call_release(load_t* load, call_t* call) noexcept nogil
cdef void second_turn(load_t* load) noexcept nogil
