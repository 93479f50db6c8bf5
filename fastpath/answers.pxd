from libc.stdint cimport int32_t, uint8_t

from fastpath._types cimport error_t
from fastpath.c.nghttp2 cimport nghttp2_session
from fastpath.pool cimport pool_t
from fastpath.unary cimport held_t, stream_t


# Each submits the whole answer of a stream, once. All return 0, or a negative nghttp2 error: no
# memory. The stream's buffers must live until its on_stream_close.

# Headers, one message (copied into the stream's buffer), trailers with grpc-status 0.
cdef int32_t submit_message(
    nghttp2_session* session, stream_t* stream, const uint8_t* body, size_t n_body,
    pool_t* pool, held_t* held
) noexcept nogil
# Trailers only.
cdef int32_t submit_error(
    nghttp2_session* session, stream_t* stream, int32_t status, const char* message,
    size_t n_message, pool_t* pool, held_t* held
) noexcept nogil
# A complete HTTP answer: error.status is 405 or 415, error.text its body.
cdef int32_t submit_plain(
    nghttp2_session* session, stream_t* stream, const error_t* error
) noexcept nogil
