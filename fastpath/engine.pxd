from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t

from fastpath._types cimport call_t, watcher_t
from fastpath.capture cimport Capture
from fastpath.ledger cimport Ledger
from fastpath.metrics cimport Metrics
from fastpath.plan cimport PlanBoard
from fastpath.rows cimport engine_t
from fastpath.store cimport OnlineStore


cdef class Engine:
    cdef engine_t* engine
    cdef readonly PlanBoard board
    cdef readonly Metrics metrics
    cdef readonly OnlineStore store
    cdef readonly Capture capture
    cdef readonly Ledger ledger
    cdef readonly int thread


cdef void engine_enter(engine_t* engine) noexcept nogil
cdef void engine_leave(engine_t* engine) noexcept nogil
cdef void engine_score(
    engine_t* engine, call_t* call, const uint8_t* message, size_t n_message, int64_t now_ns
) noexcept nogil
cdef void engine_flush(engine_t* engine, int64_t now_ns) noexcept nogil
# When the engine wants an iteration although nothing arrives; INT64_MAX: at no time.
cdef int64_t engine_wake_ns(engine_t* engine) noexcept nogil
cdef void engine_attach(
    engine_t* engine, const watcher_t* watcher, int64_t now_ns
) noexcept nogil
cdef void engine_detach(engine_t* engine) noexcept nogil
