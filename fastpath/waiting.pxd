from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t

from fastpath.rows cimport engine_t, row_t, waiting_t


# A waiting row with room for n_features values, still on the free list, whose reads may be given to
# a store: it becomes a row's own by `park`. NULL: too many rows wait, or no memory.
cdef waiting_t* peek_waiting(engine_t* engine, int32_t n_features) noexcept nogil
# Moves a row into the waiting row of the last peek, of whose reads `n_pending` are under way.
cdef void park(engine_t* engine, row_t* row, int32_t n_pending, int64_t now_ns) noexcept nogil
# Takes what one online read brought, and reads the batch table for what is still vacant.
cdef void settle(
    engine_t* engine, row_t* row, int32_t group, const uint8_t* key, size_t n_key,
    int32_t outcome, const uint8_t* record, size_t n_record
) noexcept nogil
# Ends reads whose time is over, and the reads of calls that nobody waits for any more.
cdef void expire(engine_t* engine, int64_t now_ns) noexcept nogil
# Takes the first row that is ready, or NULL. It keeps its memory and its plan until `release`.
cdef waiting_t* next_ready(engine_t* engine) noexcept nogil
cdef void release(engine_t* engine, waiting_t* waiting) noexcept nogil
# Frees all memory. No store may hold a read any more.
cdef void clear_waiting(engine_t* engine) noexcept nogil
