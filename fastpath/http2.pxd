from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from fastpath._types cimport N_STATUSES, service_t
from fastpath.c.nghttp2 cimport (
    nghttp2_mem,
    nghttp2_option,
    nghttp2_session,
    nghttp2_session_callbacks,
)
from fastpath.pool cimport pool_t
from fastpath.unary cimport held_t, limits_t, stream_t

cdef enum:
    # What connection_gather needs free to write one more frame.
    GATHER_ROOM_BYTES = 32768


# Written by one loop thread, read by any: aligned 64-bit words.
ctypedef struct counters_t:
    int64_t accepted             # connections given to this loop
    int64_t refused              # accepted and closed at once: too many connections
    int64_t closed
    int64_t calls                # messages given to the service from the network
    int64_t handed_over          # messages given to the service from LoopGroup.call
    int64_t iterations
    int64_t bytes_in
    int64_t bytes_out
    int64_t resets               # RST_STREAM received
    int64_t calmed               # connections ended with ENHANCE_YOUR_CALM
    int64_t broken               # connections ended by a protocol error, or not HTTP/2 at all
    int64_t http_answers         # plain HTTP answers: 405, 415
    int64_t[N_STATUSES] statuses  # gRPC answers on the network


# What the connections of one loop share. The loop owns it, and updates now_ns.
ctypedef struct host_t:
    service_t service
    pool_t* pool
    counters_t* counters
    limits_t limits
    held_t held
    uint32_t max_streams         # concurrent, per connection
    int64_t now_ns               # monotonic; of this iteration
    int64_t n_in_service         # calls that the service holds
    connection_t* dirty          # connections that may have something to write
    nghttp2_session_callbacks* callbacks
    nghttp2_option* option
    nghttp2_mem memory


ctypedef struct connection_t:
    nghttp2_session* session
    host_t* host
    void* peer                   # the loop's own object for this connection
    stream_t* streams            # every stream that is not closed
    stream_t* current            # the last one used by a callback, or NULL
    connection_t* next_dirty
    held_t held
    int64_t reset_credit         # see "abuse" in http2.pyx
    int64_t control_credit
    int64_t drain_since_ns       # 0: not draining
    uint32_t n_early             # streams answered before their END_STREAM
    uint8_t is_dirty
    uint8_t started              # a byte arrived: the peer may be told our settings
    uint8_t ready                # the peer's SETTINGS arrived
    uint8_t doomed               # write what is pending, then close
    uint8_t has_last_goaway
    uint8_t is_http1             # answer in HTTP/1.1 that this is not its port


# Fills callbacks, option and memory. Returns 0, or -1: no memory.
cdef int32_t host_init(host_t* host) noexcept nogil
cdef void host_clear(host_t* host) noexcept nogil
# NULL: no memory. The connection is dirty as soon as it has something to write.
cdef connection_t* connection_open(host_t* host, void* peer) noexcept nogil
cdef void connection_close(connection_t* connection) noexcept nogil
# Bytes from the peer. Afterwards the connection may be dirty or finished.
cdef void connection_receive(
    connection_t* connection, const uint8_t* data, size_t n_data
) noexcept nogil
# Writes whole frames at `out`, while GATHER_ROOM_BYTES are free. Returns the bytes written;
# `more` is set where frames may be left.
cdef size_t connection_gather(
    connection_t* connection, uint8_t* out, size_t room, int32_t* more
) noexcept nogil
# True when nothing will be read or written any more, once gathered bytes are sent.
cdef int32_t connection_finished(connection_t* connection) noexcept nogil
cdef void connection_drain(connection_t* connection) noexcept nogil
# Once per second or oftener: credits, deadlines of unfinished messages, and the second half of a
# drain whose PING is unanswered.
cdef void connection_tick(connection_t* connection, int64_t elapsed_ns) noexcept nogil
# For whoever knows that a connection has more to write.
cdef void mark_dirty(connection_t* connection) noexcept nogil
# Ends a connection after what is pending has been written.
cdef void doom(connection_t* connection) noexcept nogil
