"""A connection's socket: connecting, losing, reading, writing.

Rules: one thread. A call's send time is read from the clock right before `send`, the end of an
answer right after `recv`.

How it works: sockets never block. Frames are gathered in one buffer and sent at once; what the
kernel does not take is kept, and nothing more is gathered until it has gone. A lost connection is
tried again after 1 ms, then 2, 4 ... up to a second, until it answers.

What it does not do: it knows neither schedule nor time-outs; the driver calls it.
"""

from libc.errno cimport EAGAIN, ECONNREFUSED, ECONNRESET, EINPROGRESS, EINTR, EPIPE, errno
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy
from posix.time cimport timespec
from posix.unistd cimport close

from bench._types cimport *
from bench.client cimport (
    count_free,
    session_close,
    session_gather,
    session_is_over,
    session_open,
    session_receive,
)
from bench.tally cimport call_sent
from fastpath.c.linux cimport *
from fastpath.c.sockets cimport *

cdef int64_t FIRST_BACKOFF_NS = 1_000_000
cdef int64_t LAST_BACKOFF_NS = 1_000_000_000


cdef int64_t clock_ns(int clock) noexcept nogil:
    cdef timespec now
    clock_gettime(clock, &now)
    return <int64_t> now.tv_sec * 1_000_000_000 + now.tv_nsec


# ---------------------------------------------------------------- connections


cdef void watch(connection_t* connection, uint32_t events, int operation) noexcept nogil:
    cdef epoll_event event
    event.events = events
    event.data.ptr = connection
    if epoll_ctl(connection.load.epoll_fd, operation, connection.fd, &event) == 0:
        connection.events = events


cdef void mark(connection_t* connection) noexcept nogil:
    if not connection.is_dirty:
        connection.is_dirty = 1
        connection.next_dirty = connection.load.dirty
        connection.load.dirty = connection


cdef void lose(connection_t* connection, int32_t lost, int32_t cause) noexcept nogil:
    # The connection has ended, or never came to be: try again later.
    cdef load_t* load = connection.load
    if connection.state == OPEN:
        load.n_open -= 1
    load.counters.lost[lost] += 1
    connection.last_lost = lost
    connection.state = DOWN
    session_close(connection, cause)
    count_free(connection)
    if connection.fd >= 0:
        close(connection.fd)
        connection.fd = -1
    connection.n_pending = 0
    if connection.backoff_ns == 0:
        connection.backoff_ns = FIRST_BACKOFF_NS
    else:
        connection.backoff_ns = min(2 * connection.backoff_ns, LAST_BACKOFF_NS)
    connection.retry_ns = load.now_ns + connection.backoff_ns


cdef void lose_by_errno(connection_t* connection, int code) noexcept nogil:
    # While connecting.
    connection.load.last_errno = code
    lose(
        connection,
        LOST_REFUSED if code == ECONNREFUSED else LOST_CONNECT,
        CAUSE_NO_CONNECTION,
    )


cdef void opened(connection_t* connection) noexcept nogil:
    cdef load_t* load = connection.load
    connection.state = OPEN
    load.n_open += 1
    if connection.has_opened:
        load.counters.n_reconnects += 1
    connection.has_opened = 1
    if session_open(connection) != 0:
        lose(connection, LOST_INTERNAL, CAUSE_INTERNAL)
        return
    watch(connection, EPOLLIN, EPOLL_CTL_MOD)
    count_free(connection)
    mark(connection)


cdef void begin_connect(connection_t* connection) noexcept nogil:
    cdef load_t* load = connection.load
    cdef int on = 1
    cdef int done
    cdef int code
    connection.fd = socket(load.family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if connection.fd < 0:
        load.last_errno = errno
        lose(connection, LOST_INTERNAL, CAUSE_NO_CONNECTION)
        return
    if load.family != AF_UNIX:
        setsockopt(connection.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))
    connection.state = CONNECTING
    connection.retry_ns = load.now_ns + load.connect_ns
    done = connect(connection.fd, <const sockaddr*> load.address, load.n_address)
    code = errno
    if done != 0 and code == EAGAIN:
        # A Unix socket whose queue is full: no failure yet.
        close(connection.fd)
        connection.fd = -1
        connection.state = DOWN
        connection.retry_ns = load.now_ns + FIRST_BACKOFF_NS
        return
    if done != 0 and code != EINPROGRESS:
        lose_by_errno(connection, code)
        return
    watch(connection, EPOLLOUT, EPOLL_CTL_ADD)
    if done == 0:
        opened(connection)


cdef void end_connect(connection_t* connection) noexcept nogil:
    cdef int code = 0
    cdef socklen_t size = sizeof(code)
    getsockopt(connection.fd, SOL_SOCKET, SO_ERROR, &code, &size)
    if code != 0:
        lose_by_errno(connection, code)
    else:
        opened(connection)


cdef void lose_by_peer(connection_t* connection, int32_t is_reset) noexcept nogil:
    if connection.is_garbled:
        lose(connection, LOST_GARBAGE, CAUSE_GARBAGE)
    elif connection.is_going and connection.n_active == 0:
        # An orderly leave-taking is no failure: come back at once.
        connection.backoff_ns = 0
        lose(connection, LOST_AFTER_GOAWAY, CAUSE_GOAWAY)
    else:
        lose(connection, LOST_RESET if is_reset else LOST_CLOSED, CAUSE_CLOSED)


# ---------------------------------------------------------------- reading and writing


cdef int32_t send_some(connection_t* connection, const uint8_t* data, size_t n) noexcept nogil:
    # Sends, and keeps what the kernel does not take. -1: the connection is lost.
    cdef ssize_t sent = send(connection.fd, data, n, MSG_NOSIGNAL | MSG_DONTWAIT)
    if sent < 0:
        if errno != EAGAIN and errno != EINTR:
            lose_by_peer(connection, errno == ECONNRESET or errno == EPIPE)
            return -1
        sent = 0
    if <size_t> sent == n:
        return 0
    if connection.pending == NULL:
        connection.pending = <uint8_t*> malloc(OUTPUT_BYTES)
        if connection.pending == NULL:
            lose(connection, LOST_INTERNAL, CAUSE_INTERNAL)
            return -1
    if connection.n_pending == 0:
        memcpy(connection.pending, data + sent, n - <size_t> sent)
        connection.pending_sent = 0
        connection.n_pending = n - <size_t> sent
    else:
        connection.pending_sent += <size_t> sent
        connection.n_pending -= <size_t> sent
    if not connection.events & EPOLLOUT:
        watch(connection, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD)
    return 1


cdef void stamp(load_t* load, connection_t* connection) noexcept nogil:
    # Everything that was submitted is about to be sent.
    cdef call_t* call = connection.first_unsent
    if call == NULL:
        return
    load.now_ns = clock_ns(CLOCK_MONOTONIC)
    while call != NULL:
        call_sent(load, call, load.now_ns)
        call = call.next_unsent
    connection.first_unsent = NULL
    connection.last_unsent = NULL


cdef void flush(load_t* load, connection_t* connection) noexcept nogil:
    cdef ssize_t n
    cdef int32_t kept
    if connection.state != OPEN:
        return
    if connection.n_pending > 0:
        kept = send_some(
            connection, connection.pending + connection.pending_sent, connection.n_pending
        )
        if kept != 0:
            return
        connection.n_pending = 0
    while True:
        n = session_gather(connection, load.output, OUTPUT_BYTES)
        if n < 0 and connection.is_garbled:
            lose_by_peer(connection, 0)
            return
        if n < 0:
            lose(connection, LOST_INTERNAL, CAUSE_INTERNAL)
            return
        if n == 0:
            break
        stamp(load, connection)
        kept = send_some(connection, load.output, <size_t> n)
        if kept != 0:
            break
    if connection.state != OPEN:
        return
    # Streams that were reset are closed by their sending.
    count_free(connection)
    if session_is_over(connection):
        lose_by_peer(connection, 0)
    elif connection.events & EPOLLOUT and connection.n_pending == 0:
        watch(connection, EPOLLIN, EPOLL_CTL_MOD)


cdef void flush_marked(load_t* load) noexcept nogil:
    cdef connection_t* connection
    while load.dirty != NULL:
        connection = load.dirty
        load.dirty = connection.next_dirty
        connection.is_dirty = 0
        flush(load, connection)


cdef void read_some(load_t* load, connection_t* connection) noexcept nogil:
    cdef ssize_t n = recv(connection.fd, load.input, INPUT_BYTES, MSG_DONTWAIT)
    cdef int code = errno
    load.now_ns = clock_ns(CLOCK_MONOTONIC)
    if n > 0:
        session_receive(connection, load.input, <size_t> n)
        count_free(connection)
        mark(connection)
    elif n == 0:
        lose_by_peer(connection, 0)
    elif code != EAGAIN and code != EINTR:
        lose_by_peer(connection, code == ECONNRESET)
