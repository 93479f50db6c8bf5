from libc.stdint cimport int32_t, int64_t

from fastpath._types cimport call_t
from fastpath.plan cimport arm_t
from fastpath.rows cimport engine_t


# The monotonic clock, or `now_ns` where the engine's stands still.
cdef int64_t clock_ns(const engine_t* engine, int64_t now_ns) noexcept nogil
# The stages of a timed call (`engine.is_timed`), one after the other: the first begins with
# `start_timing`, each other one where the one before it ended.
cdef void start_timing(engine_t* engine, int64_t now_ns) noexcept nogil
cdef void end_stage(engine_t* engine, int32_t stage, int64_t now_ns) noexcept nogil
# Ends a Score call without an answer, and counts it.
cdef void fail_call(
    engine_t* engine, call_t* call, int32_t status, const char* text
) noexcept nogil
# Scores and answers the rows of engine.batch whose indices are engine.members[:n_members]; their
# values are at engine.pointers. `n_timed` of them are timed.
cdef void score_batch(
    engine_t* engine, const arm_t* arm, int32_t n_members, int32_t n_timed, int64_t now_ns
) noexcept nogil
