"""The answers to a unary call, in nghttp2's terms: a message, an error, or plain HTTP.

Rules: nothing is copied that need not be. Header names and values are static, or lie in the
stream's own buffer until the stream closes; nghttp2 reads the message from there too. What
hardly any answer needs (error text, accepted encodings) is only made for those.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.string cimport memcpy, strlen

from fastpath._types cimport error_t
from fastpath.c.nghttp2 cimport *
from fastpath.grpc_frame cimport PREFIX_BYTES, percent_encode, write_prefix
from fastpath.pool cimport pool_t
from fastpath.unary cimport held_t, stream_reserve_out, stream_t

cdef uint8_t NO_COPY = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE
cdef const char* DIGITS = (
    "0\0\0" "1\0\0" "2\0\0" "3\0\0" "4\0\0" "5\0\0" "6\0\0" "7\0\0" "8\0\0" "9\0\0"
    "10\0" "11\0" "12\0" "13\0" "14\0" "15\0" "16\0"
)


cdef inline nghttp2_nv header(const char* name, const char* value, size_t n_value) noexcept nogil:
    cdef nghttp2_nv answer
    answer.name = <uint8_t*> name
    answer.namelen = strlen(name)
    answer.value = <uint8_t*> value
    answer.valuelen = n_value
    answer.flags = NO_COPY
    return answer


# The answer of nearly every call, made once.
cdef nghttp2_nv[2] OK_HEADERS
cdef nghttp2_nv[1] OK_TRAILERS
OK_HEADERS[0] = header(":status", "200", 3)
OK_HEADERS[1] = header("content-type", "application/grpc", 16)
OK_TRAILERS[0] = header("grpc-status", "0", 1)

cdef ssize_t read_answer(
    nghttp2_session* session, int32_t stream_id, uint8_t* buffer, size_t length,
    uint32_t* data_flags, nghttp2_data_source* source, void* user
) noexcept nogil:
    cdef stream_t* stream = <stream_t*> source.ptr
    cdef size_t n = min(length, stream.n_out - stream.out_sent)
    memcpy(buffer, stream.out_data + stream.out_sent, n)
    stream.out_sent += n
    if stream.out_sent == stream.n_out:
        data_flags[0] = NGHTTP2_DATA_FLAG_EOF
        if not stream.is_plain:
            data_flags[0] |= NGHTTP2_DATA_FLAG_NO_END_STREAM
            if nghttp2_submit_trailer(session, stream_id, OK_TRAILERS, 1) != 0:
                return NGHTTP2_ERR_CALLBACK_FAILURE
    return <ssize_t> n


cdef int32_t submit_body(
    nghttp2_session* session, stream_t* stream, const nghttp2_nv* headers, size_t n_headers
) noexcept nogil:
    cdef nghttp2_data_provider provider
    provider.source.ptr = stream
    provider.read_callback = read_answer
    return nghttp2_submit_response(session, stream.id, headers, n_headers, &provider)


cdef int32_t submit_message(
    nghttp2_session* session, stream_t* stream, const uint8_t* body, size_t n_body,
    pool_t* pool, held_t* held
) noexcept nogil:
    if stream_reserve_out(stream, PREFIX_BYTES + n_body, pool, held) != 0:
        return NGHTTP2_ERR_NOMEM
    write_prefix(stream.out_data, <uint32_t> n_body)
    if n_body > 0:
        memcpy(stream.out_data + PREFIX_BYTES, body, n_body)
    stream.n_out = PREFIX_BYTES + n_body
    return submit_body(session, stream, OK_HEADERS, 2)


cdef int32_t submit_error(
    nghttp2_session* session, stream_t* stream, int32_t status, const char* message,
    size_t n_message, pool_t* pool, held_t* held
) noexcept nogil:
    cdef nghttp2_nv[5] headers
    cdef size_t n = 3
    headers[0] = OK_HEADERS[0]
    headers[1] = OK_HEADERS[1]
    headers[2] = header("grpc-status", DIGITS + 3 * status, 1 if status < 10 else 2)
    if n_message > 0 and stream_reserve_out(stream, 3 * n_message, pool, held) == 0:
        stream.n_out = percent_encode(message, n_message, stream.out_data)
        headers[n] = header("grpc-message", <char*> stream.out_data, stream.n_out)
        n += 1
    if stream.name_encodings:
        headers[n] = header("grpc-accept-encoding", "identity", 8)
        n += 1
    return nghttp2_submit_response(session, stream.id, headers, n, NULL)


cdef int32_t submit_plain(
    nghttp2_session* session, stream_t* stream, const error_t* error
) noexcept nogil:
    cdef nghttp2_nv[3] headers
    cdef size_t n = 2
    stream.is_plain = 1
    stream.n_out = strlen(error.text)
    memcpy(stream.out_data, error.text, stream.n_out)
    headers[0] = header(":status", "405" if error.status == 405 else "415", 3)
    headers[1] = header("content-type", "text/plain", 10)
    if error.status == 405:
        headers[2] = header("allow", "POST", 4)
        n = 3
    if stream.is_head:
        return nghttp2_submit_response(session, stream.id, headers, n, NULL)
    return submit_body(session, stream, headers, n)
