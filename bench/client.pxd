from libc.stdint cimport int32_t, uint8_t

from bench._types cimport call_t, connection_t, load_t

cdef int32_t client_setup(load_t* load) noexcept nogil
cdef void client_clear(load_t* load) noexcept nogil
cdef int32_t session_open(connection_t* connection) noexcept nogil
cdef void session_close(connection_t* connection, int32_t cause) noexcept nogil
cdef int32_t session_submit(connection_t* connection, call_t* call) noexcept nogil
cdef int32_t session_receive(
    connection_t* connection, const uint8_t* data, size_t n_data
) noexcept nogil
cdef ssize_t session_gather(connection_t* connection, uint8_t* out, size_t n_out) noexcept nogil
cdef void session_cancel(connection_t* connection, call_t* call) noexcept nogil
cdef int32_t session_is_over(connection_t* connection) noexcept nogil
cdef void count_free(connection_t* connection) noexcept nogil
