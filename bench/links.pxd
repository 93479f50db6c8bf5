from libc.stdint cimport int32_t, int64_t

from bench._types cimport connection_t, load_t

cdef enum:
    INPUT_BYTES = 131072
    OUTPUT_BYTES = 131072

cdef int64_t clock_ns(int clock) noexcept nogil
cdef void mark(connection_t* connection) noexcept nogil
cdef void lose(connection_t* connection, int32_t lost, int32_t cause) noexcept nogil
cdef void begin_connect(connection_t* connection) noexcept nogil
cdef void end_connect(connection_t* connection) noexcept nogil
cdef void read_some(load_t* load, connection_t* connection) noexcept nogil
cdef void flush_marked(load_t* load) noexcept nogil
