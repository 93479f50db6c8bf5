"""HTTP/2 server connections with unary gRPC calls on them, over nghttp2.

Rules: sans-I/O. Bytes go in by `connection_receive`, frames come out by `connection_gather`;
whoever owns the socket owns the clock too. One loop thread owns a connection. No callback allocates
but from the loop's pool.

How it works: nghttp2 decodes frames and headers; `unary` decides what they mean; a whole message
goes to the service at once, inside the callback. The service completes the call there or later
in the iteration: the answer is HEADERS, DATA and trailers, or trailers only. A stream that closes
while a service holds its call is detached: the call is marked cancelled, and the object lives until
the service completes it. Drain: GOAWAY with the highest id, a PING round trip, GOAWAY with
the true one.

Abuse: each connection has two credits that refill with time and with completed calls. Resets
by the peer take from one (so that a client that cancels by the thousand but also completes calls is
honest, and a rapid-reset attack is not); PING, SETTINGS, PRIORITY and empty DATA frames take from
the other. Below zero the connection ends with GOAWAY ENHANCE_YOUR_CALM.

What it does not do: streaming calls, compression, TLS, server push.
"""

from libc.stdint cimport UINT64_MAX, int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcpy, memset, strlen

from fastpath._types cimport (
    N_STATUSES,
    STATUS_DEADLINE_EXCEEDED,
    STATUS_OK,
    STATUS_UNKNOWN,
    call_t,
    error_t,
)
from fastpath.answers cimport submit_error, submit_message, submit_plain
from fastpath.c.nghttp2 cimport *
from fastpath.pool cimport pool_allocate, pool_free, pool_resize, pool_t
from fastpath.unary cimport (
    VERDICT_GO,
    VERDICT_HTTP,
    stream_data,
    stream_end,
    stream_free_buffers,
    stream_free_in,
    stream_header,
    stream_headers_end,
    stream_init,
    stream_t,
)

cdef enum:
    WINDOW_BYTES = 1 << 20       # a stream's first window; the default of 64 KiB throttles
    CONNECTION_WINDOW_BYTES = 4 << 20
    NO_RFC7540_PRIORITIES = 9    # a setting that nghttp2 before 1.48 does not name
    MAX_OUTBOUND_ACK = 1000
    MAX_SETTINGS_ENTRIES = 32
    MAX_CONTINUATIONS = 8
    RESET_CREDIT = 1000
    RESET_CREDIT_PER_SECOND = 100
    CONTROL_CREDIT = 500
    CONTROL_CREDIT_PER_SECOND = 20

cdef int64_t DRAIN_PING_NS = 2_000_000_000
cdef const char* UNFINISHED = "the deadline passed before the whole message had arrived"
cdef const char* HTTP1_ANSWER = (
    "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n"
    "content-length: 74\r\n\r\n"
    "this port speaks gRPC over HTTP/2 without TLS (h2c with prior knowledge).\n"
)


# ---------------------------------------------------------------- memory and lists


cdef void* memory_malloc(size_t size, void* user) noexcept nogil:
    return pool_allocate(<pool_t*> user, size)


cdef void memory_free(void* pointer, void* user) noexcept nogil:
    pool_free(<pool_t*> user, pointer)


cdef void* memory_calloc(size_t n, size_t size, void* user) noexcept nogil:
    cdef void* block
    if size != 0 and n > <size_t> -1 // size:
        return NULL
    block = pool_allocate(<pool_t*> user, n * size)
    if block != NULL:
        memset(block, 0, n * size)
    return block


cdef void* memory_realloc(void* pointer, size_t size, void* user) noexcept nogil:
    return pool_resize(<pool_t*> user, pointer, size)


cdef void mark_dirty(connection_t* connection) noexcept nogil:
    if not connection.is_dirty:
        connection.is_dirty = 1
        connection.next_dirty = connection.host.dirty
        connection.host.dirty = connection


cdef void doom(connection_t* connection) noexcept nogil:
    connection.doomed = 1
    mark_dirty(connection)


cdef void free_stream(stream_t* stream) noexcept nogil:
    # Only for a stream whose buffers were already given back to its connection's account.
    pool_free((<host_t*> stream.host).pool, stream)


cdef void unlink_stream(connection_t* connection, stream_t* stream) noexcept nogil:
    if stream.previous != NULL:
        stream.previous.next = stream.next
    else:
        connection.streams = stream.next
    if stream.next != NULL:
        stream.next.previous = stream.previous
    if connection.current == stream:
        connection.current = NULL
    if stream.early:
        connection.n_early -= 1
    stream_free_buffers(stream, connection.host.pool, &connection.held)
    if stream.in_service:
        stream.connection = NULL
        stream.call.cancelled = 1
    else:
        free_stream(stream)


cdef inline stream_t* find_stream(connection_t* connection, int32_t stream_id) noexcept nogil:
    cdef stream_t* stream = connection.current
    if stream != NULL and stream.id == stream_id:
        return stream
    stream = <stream_t*> nghttp2_session_get_stream_user_data(connection.session, stream_id)
    connection.current = stream
    return stream


# ---------------------------------------------------------------- abuse


cdef void calm(connection_t* connection, const char* why) noexcept nogil:
    if connection.doomed:
        return
    connection.host.counters.calmed += 1
    nghttp2_submit_goaway(
        connection.session, NGHTTP2_FLAG_NONE,
        nghttp2_session_get_last_proc_stream_id(connection.session), NGHTTP2_ENHANCE_YOUR_CALM,
        <const uint8_t*> why, strlen(why),
    )
    doom(connection)


cdef inline void charge_control(connection_t* connection, const char* why) noexcept nogil:
    connection.control_credit -= 1
    if connection.control_credit < 0:
        calm(connection, why)


cdef inline void reward(connection_t* connection) noexcept nogil:
    if connection.reset_credit < RESET_CREDIT:
        connection.reset_credit += 1
    if connection.control_credit < CONTROL_CREDIT:
        connection.control_credit += 1


# ---------------------------------------------------------------- answers


cdef void answered(connection_t* connection, stream_t* stream, int32_t code) noexcept nogil:
    # `code` is nghttp2's: only a lack of memory makes it nonzero, and nothing better can be said.
    stream.answered = 1
    if not stream.ended:
        stream.early = 1
        connection.n_early += 1
    if code != 0:
        doom(connection)
    mark_dirty(connection)


cdef void answer_error(
    connection_t* connection, stream_t* stream, int32_t status, const char* message,
    size_t n_message
) noexcept nogil:
    if status <= STATUS_OK or status >= N_STATUSES:
        status = STATUS_UNKNOWN
    connection.host.counters.statuses[status] += 1
    answered(connection, stream, submit_error(
        connection.session, stream, status, message, n_message, connection.host.pool,
        &connection.held,
    ))


cdef void complete(
    call_t* call, int32_t status, const uint8_t* body, size_t n_body,
    const char* message, size_t n_message
) noexcept nogil:
    cdef stream_t* stream = <stream_t*> call.owner
    cdef connection_t* connection = <connection_t*> stream.connection
    cdef host_t* host = <host_t*> stream.host
    stream.in_service = 0
    host.n_in_service -= 1
    if connection == NULL:
        free_stream(stream)
        return
    if status != STATUS_OK:
        answer_error(connection, stream, status, message, n_message)
        return
    host.counters.statuses[0] += 1
    answered(connection, stream, submit_message(
        connection.session, stream, body, n_body, host.pool, &connection.held
    ))


cdef inline void act(
    connection_t* connection, stream_t* stream, int32_t verdict, const error_t* error
) noexcept nogil:
    if verdict == VERDICT_HTTP:
        connection.host.counters.http_answers += 1
        answered(connection, stream, submit_plain(connection.session, stream, error))
    elif verdict != VERDICT_GO:
        answer_error(connection, stream, error.status, error.text, strlen(error.text))


# ---------------------------------------------------------------- nghttp2 callbacks


cdef int on_begin_headers(
    nghttp2_session* session, const nghttp2_frame* frame, void* user
) noexcept nogil:
    cdef connection_t* connection = <connection_t*> user
    cdef stream_t* stream
    if frame.hd.type != NGHTTP2_HEADERS or frame.headers.cat != NGHTTP2_HCAT_REQUEST:
        return 0
    stream = <stream_t*> pool_allocate(connection.host.pool, sizeof(stream_t))
    if stream == NULL:
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
    stream_init(stream)
    stream.call.complete = complete
    stream.connection = connection
    stream.host = connection.host
    stream.id = frame.hd.stream_id
    stream.next = connection.streams
    if stream.next != NULL:
        stream.next.previous = stream
    connection.streams = stream
    connection.current = stream
    nghttp2_session_set_stream_user_data(session, stream.id, stream)
    return 0


cdef int on_header(
    nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name, size_t n_name,
    const uint8_t* value, size_t n_value, uint8_t flags, void* user
) noexcept nogil:
    cdef connection_t* connection = <connection_t*> user
    cdef stream_t* stream
    if frame.headers.cat == NGHTTP2_HCAT_REQUEST:
        stream = find_stream(connection, frame.hd.stream_id)
        if stream != NULL:
            stream_header(stream, &connection.host.service, name, n_name, value, n_value)
    return 0


cdef int on_data_chunk(
    nghttp2_session* session, uint8_t flags, int32_t stream_id, const uint8_t* data,
    size_t n_data, void* user
) noexcept nogil:
    cdef connection_t* connection = <connection_t*> user
    cdef host_t* host = connection.host
    cdef stream_t* stream = find_stream(connection, stream_id)
    cdef error_t error
    if stream != NULL and not stream.answered and not stream.ended:
        act(
            connection, stream,
            stream_data(stream, data, n_data, &host.limits, host.pool, &connection.held, &error),
            &error,
        )
    return 0


cdef void on_message(connection_t* connection, stream_t* stream) noexcept nogil:
    cdef host_t* host = connection.host
    cdef error_t error
    cdef int32_t verdict
    stream.ended = 1
    if stream.answered:
        return
    verdict = stream_end(stream, &connection.held, &error)
    if verdict != VERDICT_GO:
        act(connection, stream, verdict, &error)
        return
    host.counters.calls += 1
    host.n_in_service += 1
    stream.in_service = 1
    stream.call.arrival_ns = host.now_ns
    host.service.on_call(
        host.service.context, &stream.call, stream.in_data, stream.length, host.now_ns
    )
    # The service has borrowed the message for the length of on_call only.
    stream_free_in(stream, host.pool, &connection.held)


cdef int on_frame_recv(
    nghttp2_session* session, const nghttp2_frame* frame, void* user
) noexcept nogil:
    cdef connection_t* connection = <connection_t*> user
    cdef stream_t* stream
    cdef error_t error
    if frame.hd.type == NGHTTP2_HEADERS or frame.hd.type == NGHTTP2_DATA:
        stream = find_stream(connection, frame.hd.stream_id)
        if frame.hd.type == NGHTTP2_DATA and frame.hd.length == 0:
            if not frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
                charge_control(connection, "too_many_empty_frames")
        if stream == NULL or stream.ended:
            return 0
        if frame.hd.type == NGHTTP2_HEADERS and frame.headers.cat == NGHTTP2_HCAT_REQUEST:
            # END_STREAM here makes the answer the end of the stream.
            stream.ended = frame.hd.flags & NGHTTP2_FLAG_END_STREAM
            act(
                connection, stream,
                stream_headers_end(
                    stream, &connection.host.limits, connection.host.now_ns, &error
                ),
                &error,
            )
        if frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
            on_message(connection, stream)
    elif frame.hd.type == NGHTTP2_RST_STREAM:
        connection.host.counters.resets += 1
        connection.reset_credit -= 1
        if connection.reset_credit < 0:
            calm(connection, "too_many_resets")
    elif frame.hd.type == NGHTTP2_PING:
        if not frame.hd.flags & NGHTTP2_FLAG_ACK:
            charge_control(connection, "too_many_pings")
        elif connection.drain_since_ns != 0:
            last_goaway(connection)
    elif frame.hd.type == NGHTTP2_SETTINGS:
        connection.ready = 1
        if not frame.hd.flags & NGHTTP2_FLAG_ACK:
            charge_control(connection, "too_many_settings")
    elif frame.hd.type == NGHTTP2_PRIORITY:
        charge_control(connection, "too_many_priorities")
    return 0


cdef int on_frame_send(
    nghttp2_session* session, const nghttp2_frame* frame, void* user
) noexcept nogil:
    # A peer that still sends after its whole answer is told to stop (RFC 9113, 8.1).
    cdef connection_t* connection = <connection_t*> user
    cdef stream_t* stream
    if connection.n_early == 0 or not frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
        return 0
    if frame.hd.type != NGHTTP2_HEADERS and frame.hd.type != NGHTTP2_DATA:
        return 0
    stream = find_stream(connection, frame.hd.stream_id)
    if stream != NULL and not stream.ended:
        nghttp2_submit_rst_stream(
            session, NGHTTP2_FLAG_NONE, frame.hd.stream_id, NGHTTP2_NO_ERROR
        )
    return 0


cdef int on_stream_close(
    nghttp2_session* session, int32_t stream_id, uint32_t error_code, void* user
) noexcept nogil:
    cdef connection_t* connection = <connection_t*> user
    cdef stream_t* stream = find_stream(connection, stream_id)
    if stream != NULL:
        if error_code == NGHTTP2_NO_ERROR:
            reward(connection)
        unlink_stream(connection, stream)
    return 0


# ---------------------------------------------------------------- the interface


cdef int32_t host_init(host_t* host) noexcept nogil:
    if nghttp2_session_callbacks_new(&host.callbacks) != 0:
        return -1
    if nghttp2_option_new(&host.option) != 0:
        return -1
    nghttp2_session_callbacks_set_on_begin_headers_callback(host.callbacks, on_begin_headers)
    nghttp2_session_callbacks_set_on_header_callback(host.callbacks, on_header)
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(host.callbacks, on_data_chunk)
    nghttp2_session_callbacks_set_on_frame_recv_callback(host.callbacks, on_frame_recv)
    nghttp2_session_callbacks_set_on_frame_send_callback(host.callbacks, on_frame_send)
    nghttp2_session_callbacks_set_on_stream_close_callback(host.callbacks, on_stream_close)
    nghttp2_option_set_no_closed_streams(host.option, 1)
    nghttp2_option_set_max_outbound_ack(host.option, MAX_OUTBOUND_ACK)
    nghttp2_option_set_max_settings(host.option, MAX_SETTINGS_ENTRIES)
    # Its own limit counts resets without looking at what was completed: ours replaces it.
    if nghttp2_option_set_stream_reset_rate_limit != NULL:
        nghttp2_option_set_stream_reset_rate_limit(host.option, UINT64_MAX, UINT64_MAX)
    if nghttp2_option_set_max_continuations != NULL:
        nghttp2_option_set_max_continuations(host.option, MAX_CONTINUATIONS)
    if nghttp2_option_set_server_fallback_rfc7540_priorities != NULL:
        nghttp2_option_set_server_fallback_rfc7540_priorities(host.option, 0)
    host.memory.mem_user_data = host.pool
    host.memory.malloc = memory_malloc
    host.memory.free = memory_free
    host.memory.calloc = memory_calloc
    host.memory.realloc = memory_realloc
    host.held.max_bytes = host.limits.max_loop_held_bytes
    return 0


cdef void host_clear(host_t* host) noexcept nogil:
    nghttp2_session_callbacks_del(host.callbacks)
    nghttp2_option_del(host.option)
    host.callbacks = NULL
    host.option = NULL


cdef connection_t* connection_open(host_t* host, void* peer) noexcept nogil:
    cdef nghttp2_settings_entry[5] settings
    cdef connection_t* connection = <connection_t*> pool_allocate(host.pool, sizeof(connection_t))
    if connection == NULL:
        return NULL
    memset(connection, 0, sizeof(connection_t))
    connection.host = host
    connection.peer = peer
    connection.held.parent = &host.held
    connection.held.max_bytes = host.limits.max_held_bytes
    connection.reset_credit = RESET_CREDIT
    connection.control_credit = CONTROL_CREDIT
    if nghttp2_session_server_new3(
        &connection.session, host.callbacks, connection, host.option, &host.memory
    ) != 0:
        pool_free(host.pool, connection)
        return NULL
    settings[0].settings_id = NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
    settings[0].value = host.max_streams
    settings[1].settings_id = NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE
    settings[1].value = WINDOW_BYTES
    settings[2].settings_id = NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE
    settings[2].value = host.limits.max_header_bytes
    settings[3].settings_id = NO_RFC7540_PRIORITIES
    settings[3].value = 1
    if (
        nghttp2_submit_settings(connection.session, NGHTTP2_FLAG_NONE, settings, 4) != 0
        or nghttp2_session_set_local_window_size(
            connection.session, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW_BYTES
        ) != 0
    ):
        connection_close(connection)
        return NULL
    return connection


cdef void connection_close(connection_t* connection) noexcept nogil:
    cdef host_t* host = connection.host
    cdef connection_t** link = &host.dirty
    while connection.streams != NULL:
        unlink_stream(connection, connection.streams)
    nghttp2_session_del(connection.session)
    if connection.is_dirty:
        while link[0] != connection:
            link = &link[0].next_dirty
        link[0] = connection.next_dirty
    pool_free(host.pool, connection)


cdef void connection_receive(
    connection_t* connection, const uint8_t* data, size_t n_data
) noexcept nogil:
    cdef ssize_t n
    cdef int32_t is_first = not connection.started
    if connection.doomed:
        return
    connection.started = 1
    n = nghttp2_session_mem_recv(connection.session, data, n_data)
    if n < 0:
        if n == NGHTTP2_ERR_FLOODED:
            calm(connection, "too_many_frames")
        else:
            connection.host.counters.broken += 1
            connection.is_http1 = (
                n == NGHTTP2_ERR_BAD_CLIENT_MAGIC and is_first and c"A" <= data[0] <= c"Z"
            )
            if n == NGHTTP2_ERR_BAD_CLIENT_MAGIC:
                connection.started = 0
        doom(connection)
    elif is_first or nghttp2_session_want_write(connection.session) or (
        not nghttp2_session_want_read(connection.session)
    ):
        mark_dirty(connection)


cdef size_t connection_gather(
    connection_t* connection, uint8_t* out, size_t room, int32_t* more
) noexcept nogil:
    cdef const uint8_t* frame
    cdef ssize_t n
    cdef size_t used = 0
    more[0] = 0
    if connection.is_http1:
        connection.is_http1 = 0
        memcpy(out, HTTP1_ANSWER, strlen(HTTP1_ANSWER))
        return strlen(HTTP1_ANSWER)
    if not connection.started:
        # Nothing is said to a peer that has not spoken: it may not speak HTTP/2.
        return 0
    while room - used >= GATHER_ROOM_BYTES:
        n = nghttp2_session_mem_send(connection.session, &frame)
        if n == 0:
            return used
        if n < 0 or <size_t> n > room - used:
            connection.doomed = 1
            return used
        memcpy(out + used, frame, <size_t> n)
        used += <size_t> n
    more[0] = 1
    return used


cdef int32_t connection_finished(connection_t* connection) noexcept nogil:
    return connection.doomed or not (
        nghttp2_session_want_read(connection.session)
        or nghttp2_session_want_write(connection.session)
    )


cdef void last_goaway(connection_t* connection) noexcept nogil:
    if not connection.has_last_goaway:
        connection.has_last_goaway = 1
        nghttp2_submit_goaway(
            connection.session, NGHTTP2_FLAG_NONE,
            nghttp2_session_get_last_proc_stream_id(connection.session), NGHTTP2_NO_ERROR, NULL, 0,
        )
        mark_dirty(connection)


cdef void connection_drain(connection_t* connection) noexcept nogil:
    if connection.drain_since_ns != 0:
        return
    connection.drain_since_ns = connection.host.now_ns
    if not connection.ready:
        doom(connection)         # nothing was asked yet
        return
    nghttp2_submit_shutdown_notice(connection.session)
    nghttp2_submit_ping(connection.session, NGHTTP2_FLAG_NONE, NULL)
    mark_dirty(connection)


cdef void expire(connection_t* connection) noexcept nogil:
    # A call whose message never came must not hold its bytes past its own deadline. Calls that
    # a service holds are the service's to drop.
    cdef stream_t* stream = connection.streams
    while stream != NULL:
        if not (stream.answered or stream.in_service) and (
            connection.host.now_ns >= stream.call.deadline_ns
        ):
            stream_free_in(stream, connection.host.pool, &connection.held)
            answer_error(
                connection, stream, STATUS_DEADLINE_EXCEEDED, UNFINISHED, strlen(UNFINISHED)
            )
        stream = stream.next


cdef void connection_tick(connection_t* connection, int64_t elapsed_ns) noexcept nogil:
    cdef int64_t n_per_mille = elapsed_ns // 1_000_000
    connection.reset_credit = min(
        <int64_t> RESET_CREDIT,
        connection.reset_credit + RESET_CREDIT_PER_SECOND * n_per_mille // 1000,
    )
    connection.control_credit = min(
        <int64_t> CONTROL_CREDIT,
        connection.control_credit + CONTROL_CREDIT_PER_SECOND * n_per_mille // 1000,
    )
    expire(connection)
    if connection.drain_since_ns != 0:
        if connection.host.now_ns - connection.drain_since_ns > DRAIN_PING_NS:
            last_goaway(connection)
