"""One HTTP/2 connection of the generator: calls in, bytes out, bytes in, ends of calls out.

Rules: sans I/O. The driver feeds what it received and sends what is gathered; sessions are not
thread-safe, one thread owns them. Steady state allocates nothing but from the load's arena.

How it works: nghttp2 frames the requests; their headers are written once per method and never
copied (NO_COPY). Of an answer, `:status`, `grpc-status` and, for the first error, `grpc-message`
are read; the message's prefix is parsed as it comes, and its body is kept only where it is
checked. A call ends with END_STREAM, or with its stream.

A stream takes part in `load.n_free` from the moment when its predecessor is closed, and as long
as the server's SETTINGS and a GOAWAY allow another one.

What it does not do: server push (off), several messages in one call, compression.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.stdlib cimport realloc
from libc.string cimport memcmp, memcpy

from bench._types cimport (
    ANSWERED,
    CAUSE_GOAWAY,
    CAUSE_RESET,
    N_TEXT,
    OPEN,
    call_t,
    connection_t,
    load_t,
    method_t,
)
from bench.arena cimport arena_calloc, arena_free, arena_malloc, arena_realloc
from bench.tally cimport call_end, call_release
from fastpath.c.nghttp2 cimport *
from fastpath.c.nghttp2_client cimport *

cdef enum:
    WINDOW_BYTES = 16777216      # of a connection and of each stream: answers never wait for us
    ANSWER_BYTES = 4096          # first room for a checked answer
    LARGEST_ANSWER = 67108864
    UNTOLD_STREAMS = 100         # open before the server's SETTINGS: nghttp2's own assumption
    REFUSED_STREAM = 7
    LAST_STREAM = 0x7FF00000     # stream ids end at 2^31: leave in good time, and start again


cdef void count_free(connection_t* connection) noexcept nogil:
    # Brings the load's count of free streams up to date.
    cdef load_t* load = connection.load
    cdef int32_t n_free = 0
    cdef uint32_t granted = UNTOLD_STREAMS
    if connection.state == OPEN and not connection.is_going and not connection.is_garbled:
        if connection.has_settings:
            granted = nghttp2_session_get_remote_settings(
                connection.session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
            )
            if granted < <uint32_t> load.fewest_streams:
                load.fewest_streams = <int32_t> granted
        if granted > <uint32_t> load.n_streams:
            granted = load.n_streams
        n_free = <int32_t> granted - connection.n_active
        if n_free < 0:
            n_free = 0
    if load.n_free == 0 and n_free > 0:
        load.free_since_ns = load.now_ns
    load.n_free += n_free - connection.n_free
    connection.n_free = n_free


# ---------------------------------------------------------------- callbacks


cdef ssize_t on_read(
    nghttp2_session* session, int32_t stream_id, uint8_t* buffer, size_t length,
    uint32_t* data_flags, nghttp2_data_source* source, void* user,
) noexcept nogil:
    cdef call_t* call = <call_t*> source.ptr
    cdef size_t n = call.message.n_framed - call.n_taken
    if n > length:
        n = length
    memcpy(buffer, call.message.framed + call.n_taken, n)
    call.n_taken += n
    if call.n_taken == call.message.n_framed:
        data_flags[0] |= NGHTTP2_DATA_FLAG_EOF
    return <ssize_t> n


cdef int32_t number(const uint8_t* text, size_t n_text) noexcept nogil:
    # Decimal; -2 when it is none.
    cdef int32_t value = 0
    cdef size_t i
    if n_text == 0 or n_text > 4:
        return -2
    for i in range(n_text):
        if text[i] < 48 or text[i] > 57:
            return -2
        value = 10 * value + text[i] - 48
    return value


cdef int on_header(
    nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name, size_t n_name,
    const uint8_t* value, size_t n_value, uint8_t flags, void* user,
) noexcept nogil:
    cdef load_t* load = (<connection_t*> user).load
    cdef call_t* call
    if n_name != 7 and n_name != 11 and n_name != 12:
        return 0
    call = <call_t*> nghttp2_session_get_stream_user_data(session, frame.hd.stream_id)
    if call == NULL:
        return 0
    if n_name == 7:
        if memcmp(name, b":status", 7) == 0:
            call.http_status = number(value, n_value)
    elif n_name == 11:
        if memcmp(name, b"grpc-status", 11) == 0:
            call.grpc_status = number(value, n_value)
            if call.grpc_status > 0 and load.first_error == 0 and call.is_measured:
                load.first_error = call.grpc_status
                load.n_first_text = 0
    elif (
        load.first_error > 0
        and load.n_first_text == 0
        and load.first_error == call.grpc_status
        and memcmp(name, b"grpc-message", 12) == 0
    ):
        load.n_first_text = <int32_t> min(n_value, <size_t> N_TEXT)
        memcpy(load.first_text, value, load.n_first_text)
    return 0


cdef void keep_body(call_t* call, const uint8_t* data, size_t n_data) noexcept nogil:
    cdef size_t room = call.body_bytes
    cdef uint8_t* body
    if call.n_body + n_data > room:
        if room == 0:
            room = ANSWER_BYTES
        while room < call.n_body + n_data:
            room *= 2
        body = <uint8_t*> realloc(call.body, room)
        if body == NULL:
            call.is_malformed = 1
            return
        call.body = body
        call.body_bytes = room
    memcpy(call.body + call.n_body, data, n_data)


cdef int on_data(
    nghttp2_session* session, uint8_t flags, int32_t stream_id, const uint8_t* data,
    size_t n_data, void* user,
) noexcept nogil:
    cdef call_t* call = <call_t*> nghttp2_session_get_stream_user_data(session, stream_id)
    if call == NULL or not call.is_in_flight:
        return 0
    while n_data > 0 and call.n_prefix < 5:
        call.prefix[call.n_prefix] = data[0]
        call.n_prefix += 1
        data += 1
        n_data -= 1
        if call.n_prefix == 5:
            call.n_announced = (
                <size_t> call.prefix[1] << 24 | <size_t> call.prefix[2] << 16
                | <size_t> call.prefix[3] << 8 | call.prefix[4]
            )
            if call.prefix[0] != 0 or call.n_announced > LARGEST_ANSWER:
                call.is_malformed = 1
    if n_data > call.n_announced - call.n_body:
        call.is_malformed = 1
        return 0
    if n_data > 0 and call.is_checked and not call.is_malformed:
        keep_body(call, data, n_data)
    call.n_body += n_data
    return 0


cdef int on_frame(
    nghttp2_session* session, const nghttp2_frame* frame, void* user
) noexcept nogil:
    cdef connection_t* connection = <connection_t*> user
    cdef call_t* call
    if frame.hd.type == NGHTTP2_HEADERS or frame.hd.type == NGHTTP2_DATA:
        if frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
            call = <call_t*> nghttp2_session_get_stream_user_data(session, frame.hd.stream_id)
            if call != NULL:
                connection.backoff_ns = 0  # it answers: the next loss is a new one
                call_end(connection.load, call, ANSWERED)
                if call.n_taken < call.message.n_framed:
                    # Answered before the request was sent: nobody wants the rest.
                    nghttp2_submit_rst_stream(session, 0, frame.hd.stream_id, NGHTTP2_CANCEL)
    elif frame.hd.type == NGHTTP2_SETTINGS:
        if not frame.hd.flags & NGHTTP2_FLAG_ACK:
            connection.has_settings = 1
    elif frame.hd.type == NGHTTP2_GOAWAY:
        connection.is_going = 1
    return 0


cdef int on_sent(
    nghttp2_session* session, const nghttp2_frame* frame, void* user
) noexcept nogil:
    # A GOAWAY of ours that carries an error: nghttp2 gave the connection up.
    if frame.hd.type == NGHTTP2_GOAWAY and frame.goaway.error_code != NGHTTP2_NO_ERROR:
        (<connection_t*> user).is_garbled = 1
    return 0


cdef int on_close(
    nghttp2_session* session, int32_t stream_id, uint32_t error_code, void* user
) noexcept nogil:
    cdef connection_t* connection = <connection_t*> user
    cdef load_t* load = connection.load
    cdef call_t* call = <call_t*> nghttp2_session_get_stream_user_data(session, stream_id)
    if call == NULL:
        return 0
    if error_code == 0:
        # Without END_STREAM, but with an orderly end on both sides.
        call_end(load, call, ANSWERED)
    elif error_code == REFUSED_STREAM and connection.is_going:
        call_end(load, call, CAUSE_GOAWAY)
    else:
        call_end(load, call, CAUSE_RESET)
    forget_unsent(connection, call)
    call_release(load, call)
    connection.n_active -= 1
    return 0


cdef void forget_unsent(connection_t* connection, call_t* call) noexcept nogil:
    # A call that ends before its bytes were sent must not be stamped later.
    cdef call_t* other = connection.first_unsent
    cdef call_t* previous = NULL
    if call.sent_ns != 0:
        return
    while other != NULL and other != call:
        previous = other
        other = other.next_unsent
    if other == NULL:
        return
    if previous == NULL:
        connection.first_unsent = call.next_unsent
    else:
        previous.next_unsent = call.next_unsent
    if connection.last_unsent == call:
        connection.last_unsent = previous


# ---------------------------------------------------------------- sessions


cdef int32_t client_setup(load_t* load) noexcept nogil:
    # Callbacks and options, shared by all sessions. -1: no memory.
    if nghttp2_session_callbacks_new(&load.callbacks) != 0 or nghttp2_option_new(&load.option) != 0:
        return -1
    nghttp2_session_callbacks_set_on_header_callback(load.callbacks, on_header)
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(load.callbacks, on_data)
    nghttp2_session_callbacks_set_on_frame_recv_callback(load.callbacks, on_frame)
    nghttp2_session_callbacks_set_on_frame_send_callback(load.callbacks, on_sent)
    nghttp2_session_callbacks_set_on_stream_close_callback(load.callbacks, on_close)
    nghttp2_option_set_no_closed_streams(load.option, 1)
    return 0


cdef void client_clear(load_t* load) noexcept nogil:
    nghttp2_session_callbacks_del(load.callbacks)
    nghttp2_option_del(load.option)
    load.callbacks = NULL
    load.option = NULL


cdef int32_t session_open(connection_t* connection) noexcept nogil:
    # Ready to gather the preface. -1: no memory.
    cdef load_t* load = connection.load
    cdef nghttp2_mem memory
    cdef nghttp2_settings_entry[2] settings
    memory.mem_user_data = &load.arena
    memory.malloc = arena_malloc
    memory.free = arena_free
    memory.calloc = arena_calloc
    memory.realloc = arena_realloc
    settings[0].settings_id = NGHTTP2_SETTINGS_ENABLE_PUSH
    settings[0].value = 0
    settings[1].settings_id = NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE
    settings[1].value = WINDOW_BYTES
    if nghttp2_session_client_new3(
        &connection.session, load.callbacks, connection, load.option, &memory
    ) != 0:
        connection.session = NULL
        return -1
    if nghttp2_submit_settings(connection.session, 0, settings, 2) != 0:
        return -1
    return nghttp2_session_set_local_window_size(connection.session, 0, 0, WINDOW_BYTES)


cdef void session_close(connection_t* connection, int32_t cause) noexcept nogil:
    # Ends what is in flight: `cause` is why the connection ended.
    cdef load_t* load = connection.load
    cdef call_t* call
    cdef int32_t i
    if connection.session != NULL:
        nghttp2_session_del(connection.session)
        connection.session = NULL
    if connection.n_active > 0:
        for i in range(load.n_connections * load.n_streams):
            call = &load.slots[i]
            if call.connection == connection:
                call_end(load, call, cause)
                call_release(load, call)
    connection.n_active = 0
    connection.first_unsent = NULL
    connection.last_unsent = NULL
    connection.has_settings = 0
    connection.is_going = 0
    connection.is_garbled = 0


cdef int32_t session_submit(connection_t* connection, call_t* call) noexcept nogil:
    # -1: nghttp2 refused; the caller ends the call.
    cdef method_t* method = &connection.load.methods[call.message.method]
    cdef nghttp2_data_provider provider
    provider.source.ptr = call
    provider.read_callback = on_read
    call.stream_id = nghttp2_submit_request(
        connection.session, NULL, method.headers, method.n_headers, &provider, call
    )
    if call.stream_id < 0:
        connection.is_going = 1  # out of memory: what is in flight may end
        return -1
    if call.stream_id > LAST_STREAM:
        connection.is_going = 1
    call.connection = connection
    connection.n_active += 1
    if connection.last_unsent != NULL:
        connection.last_unsent.next_unsent = call
    else:
        connection.first_unsent = call
    connection.last_unsent = call
    return 0


cdef int32_t session_receive(
    connection_t* connection, const uint8_t* data, size_t n_data
) noexcept nogil:
    # -1: what came is not HTTP/2.
    if nghttp2_session_mem_recv(connection.session, data, n_data) < 0:
        connection.is_garbled = 1
        return -1
    return 0


cdef ssize_t session_gather(connection_t* connection, uint8_t* out, size_t n_out) noexcept nogil:
    # Frames into `out` while another of 16 KiB would fit. -1: nghttp2 failed.
    cdef const uint8_t* data
    cdef size_t n_total = 0
    cdef ssize_t n
    while n_total + 16400 <= n_out:
        n = nghttp2_session_mem_send(connection.session, &data)
        if n < 0:
            return -1
        if n == 0:
            break
        memcpy(out + n_total, data, <size_t> n)
        n_total += <size_t> n
    return <ssize_t> n_total


cdef void session_cancel(connection_t* connection, call_t* call) noexcept nogil:
    nghttp2_submit_rst_stream(connection.session, 0, call.stream_id, NGHTTP2_CANCEL)


cdef int32_t session_is_over(connection_t* connection) noexcept nogil:
    # Nothing more will come or go: both said goodbye, or nghttp2 gave it up.
    if connection.is_garbled:
        return 1
    if connection.is_going and connection.n_active == 0:
        return 1
    return not nghttp2_session_want_read(connection.session) and not nghttp2_session_want_write(
        connection.session
    )
