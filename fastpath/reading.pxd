from libc.stdint cimport int32_t, int64_t

from fastpath.rows cimport engine_t, row_t


# Reads the stored features that the row's request left vacant: at once where the store can, else
# the row is parked. Returns the number of reads under way: 0 says that the row is ready.
cdef int32_t read_groups(engine_t* engine, row_t* row, int64_t now_ns) noexcept nogil
