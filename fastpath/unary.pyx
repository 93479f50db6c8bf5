"""One unary gRPC call on one HTTP/2 stream: headers, one message, the end.

Rules: no I/O, no HTTP/2 frames, no clock. The session feeds what it decoded, in order, and acts
on the verdict. From the gRPC protocol description (PROTOCOL-HTTP2, compression, status codes).

How it works: a stream object has room for a small message and a small answer inside itself;
larger ones take a block of the loop's pool that grows with what has *arrived*, never with what a
prefix promises. What a connection and a loop hold in such blocks is bounded: beyond, a call ends in
RESOURCE_EXHAUSTED.

Who erred decides the status: a method that is not ours, zero or two messages and an encoding
that we lack are UNIMPLEMENTED; broken framing is INTERNAL; too large is RESOURCE_EXHAUSTED. What is
not gRPC at all gets a plain HTTP answer. The header that asks for trailers may be missing: proxies
drop it.
"""

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint32_t
from libc.stdio cimport snprintf
from libc.string cimport memcmp, memcpy, memset, strlen

from fastpath._types cimport (
    ERROR_TEXT_BYTES,
    STATUS_INTERNAL,
    STATUS_RESOURCE_EXHAUSTED,
    STATUS_UNIMPLEMENTED,
    error_t,
    service_t,
)
from fastpath.grpc_frame cimport PREFIX_BYTES, is_grpc_content_type, parse_timeout, read_length
from fastpath.pool cimport pool_allocate, pool_free, pool_resize, pool_t

cdef enum:
    SHOWN_PATH_BYTES = 120       # of an unknown method, in its error
    TIMEOUT_ABSENT = -1
    TIMEOUT_MALFORMED = -2


cdef void stream_init(stream_t* stream) noexcept nogil:
    memset(stream, 0, <size_t> (<uint8_t*> stream.in_inline - <uint8_t*> stream))
    stream.timeout_ns = TIMEOUT_ABSENT
    stream.call.owner = stream
    stream.call.method = -1
    stream.call.deadline_ns = INT64_MAX
    stream.in_data = stream.in_inline
    stream.in_capacity = INLINE_BYTES
    stream.out_data = stream.out_inline
    stream.out_capacity = INLINE_BYTES


cdef inline void hold(held_t* held, size_t n_bytes) noexcept nogil:
    held.n_bytes += n_bytes
    held.parent.n_bytes += n_bytes


cdef inline void release(held_t* held, size_t n_bytes) noexcept nogil:
    held.n_bytes -= n_bytes
    held.parent.n_bytes -= n_bytes


cdef inline int32_t is_full(const held_t* held, size_t n_bytes) noexcept nogil:
    return (
        held.n_bytes + n_bytes > held.max_bytes
        or held.parent.n_bytes + n_bytes > held.parent.max_bytes
    )


cdef void stream_free_in(stream_t* stream, pool_t* pool, held_t* held) noexcept nogil:
    if stream.in_data != stream.in_inline:
        release(held, stream.in_capacity)
        pool_free(pool, stream.in_data)
        stream.in_data = stream.in_inline
        stream.in_capacity = INLINE_BYTES


cdef void stream_free_buffers(stream_t* stream, pool_t* pool, held_t* held) noexcept nogil:
    stream_free_in(stream, pool, held)
    if stream.out_data != stream.out_inline:
        release(held, stream.out_capacity)
        pool_free(pool, stream.out_data)
        stream.out_data = stream.out_inline
        stream.out_capacity = INLINE_BYTES


cdef int32_t stream_reserve_out(
    stream_t* stream, size_t n_bytes, pool_t* pool, held_t* held
) noexcept nogil:
    cdef uint8_t* block
    if n_bytes <= stream.out_capacity:
        return 0
    block = <uint8_t*> pool_allocate(pool, n_bytes)
    if block == NULL:
        return -1
    hold(held, n_bytes)
    stream.out_data = block
    stream.out_capacity = n_bytes
    return 0


cdef inline int32_t equals(
    const uint8_t* text, size_t size, const char* other, size_t n_other
) noexcept nogil:
    return size == n_other and memcmp(text, other, n_other) == 0


cdef void stream_header(
    stream_t* stream, const service_t* service, const uint8_t* name, size_t n_name,
    const uint8_t* value, size_t n_value
) noexcept nogil:
    stream.n_header_bytes += <uint32_t> (n_name + n_value + 32)
    if n_name == 5:
        if equals(name, 5, ":path", 5):
            stream.call.method = service.find_method(service.context, <const char*> value, n_value)
            if stream.call.method < 0:
                stream.n_path = min(n_value, <size_t> SHOWN_PATH_BYTES)
                memcpy(stream.in_inline, value, stream.n_path)
    elif n_name == 7:
        if equals(name, 7, ":method", 7):
            stream.is_post = equals(value, n_value, "POST", 4)
            stream.is_head = equals(value, n_value, "HEAD", 4)
    elif n_name == 12:
        if equals(name, 12, "content-type", 12):
            stream.is_grpc = is_grpc_content_type(value, n_value)
        elif equals(name, 12, "grpc-timeout", 12):
            stream.timeout_ns = parse_timeout(value, n_value)
            if stream.timeout_ns < 0:
                stream.timeout_ns = TIMEOUT_MALFORMED
    elif n_name == 13:
        if equals(name, 13, "grpc-encoding", 13):
            stream.encoding = (
                ENCODING_IDENTITY if equals(value, n_value, "identity", 8) else ENCODING_OTHER
            )


cdef int32_t fail(error_t* error, int32_t status, const char* text) noexcept nogil:
    cdef size_t size = min(strlen(text), <size_t> ERROR_TEXT_BYTES - 1)
    error.status = status
    memcpy(error.text, text, size)
    error.text[size] = 0
    return VERDICT_GRPC


cdef void unknown_method(error_t* error, const char* path, size_t n_path) noexcept nogil:
    error.status = STATUS_UNIMPLEMENTED
    snprintf(
        error.text, ERROR_TEXT_BYTES,
        "no method %.*s here: check the service and method names, and the port",
        <int> min(n_path, <size_t> SHOWN_PATH_BYTES), path,
    )


cdef int32_t stream_headers_end(
    stream_t* stream, const limits_t* limits, int64_t now_ns, error_t* error
) noexcept nogil:
    if not stream.is_post:
        fail(error, 405, "gRPC calls are POST requests\n")
        return VERDICT_HTTP
    if not stream.is_grpc:
        fail(error, 415, "the content-type of a gRPC call is application/grpc or "
                         "application/grpc+proto\n")
        return VERDICT_HTTP
    if stream.timeout_ns == TIMEOUT_MALFORMED:
        return fail(
            error, STATUS_INTERNAL,
            "malformed grpc-timeout: it is 1 to 8 digits and one of H, M, S, m, u, n",
        )
    if stream.n_header_bytes > limits.max_header_bytes:
        error.status = STATUS_RESOURCE_EXHAUSTED
        snprintf(
            error.text, ERROR_TEXT_BYTES,
            "the request's metadata takes %u bytes, over the limit of %u: send less metadata",
            stream.n_header_bytes, limits.max_header_bytes,
        )
        return VERDICT_GRPC
    if stream.call.method < 0:
        unknown_method(error, <char*> stream.in_inline, stream.n_path)
        return VERDICT_GRPC
    if stream.timeout_ns >= 0:
        if stream.timeout_ns < INT64_MAX - now_ns:
            stream.call.deadline_ns = now_ns + stream.timeout_ns
    return VERDICT_GO


cdef int32_t check_prefix(
    stream_t* stream, const limits_t* limits, error_t* error
) noexcept nogil:
    cdef uint8_t compressed = stream.prefix[0]
    stream.length = read_length(stream.prefix)
    if compressed > 1:
        return fail(error, STATUS_INTERNAL, "the message's compressed flag is neither 0 nor 1: "
                                            "this is not gRPC framing")
    if compressed == 1:
        if stream.encoding != ENCODING_OTHER:
            return fail(
                error, STATUS_INTERNAL,
                "the message's compressed flag is set, but grpc-encoding names no compression",
            )
        stream.name_encodings = 1
        return fail(
            error, STATUS_UNIMPLEMENTED,
            "compressed messages are not supported: send them with grpc-encoding identity",
        )
    if stream.length > limits.max_message_bytes:
        error.status = STATUS_RESOURCE_EXHAUSTED
        snprintf(
            error.text, ERROR_TEXT_BYTES,
            "the message has %u bytes, over the limit of %u: send a smaller one, or raise the "
            "server's message limit", stream.length, limits.max_message_bytes,
        )
        return VERDICT_GRPC
    return VERDICT_GO


cdef int32_t grow_in(
    stream_t* stream, size_t n_bytes, pool_t* pool, held_t* held, error_t* error
) noexcept nogil:
    # Doubles, up to the message's length.
    cdef size_t capacity = min(max(2 * stream.in_capacity, n_bytes), <size_t> stream.length)
    cdef size_t old = 0 if stream.in_data == stream.in_inline else stream.in_capacity
    cdef uint8_t* block
    if is_full(held, capacity - old):
        return fail(
            error, STATUS_RESOURCE_EXHAUSTED,
            "too many bytes of unfinished calls are held: finish calls before starting others",
        )
    block = <uint8_t*> pool_resize(pool, NULL if old == 0 else stream.in_data, capacity)
    if block == NULL:
        return fail(error, STATUS_RESOURCE_EXHAUSTED, "out of memory: try again later")
    if old == 0:
        memcpy(block, stream.in_inline, stream.n_in)
    hold(held, capacity - old)
    stream.in_data = block
    stream.in_capacity = capacity
    return VERDICT_GO


cdef int32_t stream_data(
    stream_t* stream, const uint8_t* data, size_t n_data, const limits_t* limits, pool_t* pool,
    held_t* held, error_t* error
) noexcept nogil:
    cdef size_t n
    cdef int32_t verdict
    if stream.n_prefix < PREFIX_BYTES:
        n = min(n_data, <size_t> (PREFIX_BYTES - stream.n_prefix))
        memcpy(stream.prefix + stream.n_prefix, data, n)
        stream.n_prefix += n
        data += n
        n_data -= n
        if stream.n_prefix < PREFIX_BYTES:
            return VERDICT_GO
        verdict = check_prefix(stream, limits, error)
        if verdict != VERDICT_GO:
            return verdict
    if n_data == 0:
        return VERDICT_GO
    if n_data > stream.length - stream.n_in:
        return fail(
            error, STATUS_UNIMPLEMENTED,
            "more than one message in a unary call: send exactly one",
        )
    if stream.n_in + n_data > stream.in_capacity:
        verdict = grow_in(stream, stream.n_in + n_data, pool, held, error)
        if verdict != VERDICT_GO:
            return verdict
    memcpy(stream.in_data + stream.n_in, data, n_data)
    stream.n_in += <uint32_t> n_data
    return VERDICT_GO


cdef int32_t stream_end(
    stream_t* stream, const held_t* held, error_t* error
) noexcept nogil:
    if stream.n_prefix == 0:
        return fail(
            error, STATUS_UNIMPLEMENTED, "no message in a unary call: send exactly one",
        )
    if stream.n_prefix < PREFIX_BYTES or stream.n_in < stream.length:
        return fail(error, STATUS_INTERNAL, "the call ended in the middle of its message")
    if is_full(held, 0):
        # By answers: a peer that asks without reading.
        return fail(error, STATUS_RESOURCE_EXHAUSTED, "too many answers wait to be read: read them")
    return VERDICT_GO
