from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from fastpath._types cimport call_t, error_t, service_t
from fastpath.grpc_frame cimport PREFIX_BYTES
from fastpath.pool cimport pool_t

cdef enum:
    INLINE_BYTES = 1792          # of a message or an answer that needs no second allocation

# What a step says about the call.
cdef enum verdict_t:
    VERDICT_GO = 0
    VERDICT_GRPC = 1             # answer with error.status and error.text, and nothing else
    VERDICT_HTTP = 2             # not gRPC: a plain HTTP answer; error.status is its HTTP status

# Value of grpc-encoding.
cdef enum encoding_t:
    ENCODING_ABSENT = 0
    ENCODING_IDENTITY = 1
    ENCODING_OTHER = 2


ctypedef struct limits_t:
    uint32_t max_message_bytes
    uint32_t max_header_bytes    # of one request's header list, counted as RFC 9113, 6.5.2 does
    size_t max_held_bytes        # heap buffers of one connection's streams, both ways
    size_t max_loop_held_bytes   # the same over all connections of a loop


# Heap buffers held for streams: of one connection, and of its whole loop.
ctypedef struct held_t:
    size_t n_bytes
    held_t* parent               # the loop's, or NULL
    size_t max_bytes


# One unary call. Allocated from the loop's pool; freed when the HTTP/2 stream is closed and no
# service holds the call.
ctypedef struct stream_t:
    call_t call                  # call.owner is this stream
    void* connection             # NULL: the HTTP/2 stream is gone, a service still holds the call
    void* host
    stream_t* next
    stream_t* previous
    int64_t timeout_ns           # of grpc-timeout; -1: none; -2: malformed
    int32_t id
    uint8_t in_service           # between on_call and complete
    uint8_t answered
    uint8_t ended                # the peer sent END_STREAM
    uint8_t early                # answered before that
    uint8_t is_post
    uint8_t is_head
    uint8_t is_grpc              # its content type
    uint8_t encoding             # encoding_t
    uint8_t name_encodings       # say which encodings we accept
    uint8_t is_plain             # the answer is plain HTTP
    uint8_t n_prefix
    uint8_t[PREFIX_BYTES] prefix
    uint32_t n_header_bytes
    uint32_t n_path              # of an unknown method: its path is in in_inline
    uint32_t length              # of the message, from its prefix
    uint32_t n_in
    size_t in_capacity
    uint8_t* in_data             # in_inline, or a pool block of in_capacity bytes
    size_t out_capacity
    uint8_t* out_data            # out_inline, or a pool block of out_capacity bytes
    size_t n_out
    size_t out_sent
    uint8_t[INLINE_BYTES] in_inline
    uint8_t[INLINE_BYTES] out_inline


cdef void stream_init(stream_t* stream) noexcept nogil
cdef void stream_free_in(stream_t* stream, pool_t* pool, held_t* held) noexcept nogil
cdef void stream_free_buffers(stream_t* stream, pool_t* pool, held_t* held) noexcept nogil
# Room for n_bytes of answer. Returns 0, or -1: no memory.
cdef int32_t stream_reserve_out(
    stream_t* stream, size_t n_bytes, pool_t* pool, held_t* held
) noexcept nogil
cdef void stream_header(
    stream_t* stream, const service_t* service, const uint8_t* name, size_t n_name,
    const uint8_t* value, size_t n_value
) noexcept nogil
# End of the request's header block. Sets the deadline.
cdef int32_t stream_headers_end(
    stream_t* stream, const limits_t* limits, int64_t now_ns, error_t* error
) noexcept nogil
cdef int32_t stream_data(
    stream_t* stream, const uint8_t* data, size_t n_data, const limits_t* limits, pool_t* pool,
    held_t* held, error_t* error
) noexcept nogil
# Sets the error of a method that no service has.
cdef void unknown_method(error_t* error, const char* path, size_t n_path) noexcept nogil
# END_STREAM: VERDICT_GO says that exactly one whole message is in in_data.
cdef int32_t stream_end(
    stream_t* stream, const held_t* held, error_t* error
) noexcept nogil
