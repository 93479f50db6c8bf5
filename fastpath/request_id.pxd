from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t


# Where one thread's ids come from.
ctypedef struct id_source_t:
    uint64_t state               # of the generator; any seed will do
    int64_t fixed_wall_ns        # tests: the wall clock stands still there; -1: it is read


# Writes the 36 characters of a new UUIDv7; returns their number.
cdef int32_t make_request_id(id_source_t* source, uint8_t* out) noexcept nogil
